//! Signals: those that stop the server, and those that must not.

use std::io;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::telemetry;

/// Exit status after a second signal: the work that was left was dropped.
const FORCED: i32 = 1;

/// Within this time of the first signal, another one is the same wish to stop, sent twice:
/// a terminal signals the whole process group, and the parent (`concurrently`, `timeout`,
/// `composer run dev`) passes on the signal it got itself.
const REPEAT_WINDOW: Duration = Duration::from_secs(1);

/// The signals that a server acts on.
pub struct Signals {
    stop: StopSignals,
    hangup: Signal,
}

/// How a server is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// As soon as it can: somebody at a terminal waits for it.
    AtOnce,
    /// As its settings say.
    Gracefully,
}

impl Signals {
    /// Takes over all signals that would end the process, to be called before the port is
    /// bound. SIGUSR1 and SIGUSR2 are only logged.
    ///
    /// # Errors
    /// When a signal cannot be handled.
    pub fn take_over() -> io::Result<Self> {
        tokio::spawn(log_others(
            signal(SignalKind::user_defined1())?,
            signal(SignalKind::user_defined2())?,
        ));
        Ok(Self {
            stop: StopSignals::new()?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The first SIGINT, SIGTERM or SIGQUIT, and each SIGHUP. Another one of the former more
    /// than a second later ends the process at once.
    pub fn split(self) -> (impl Future<Output = Stop>, Signal) {
        let mut stop = self.stop;
        let first = async move {
            let name = stop.next().await;
            let first = Instant::now();
            tracing::info!(
                signal = name,
                "closing connections; a signal more than a second later ends at once"
            );
            tokio::spawn(async move {
                let second = stop.after(first + REPEAT_WINDOW).await;
                tracing::warn!(signal = second, "second signal: ending at once");
                telemetry::flush();
                std::process::exit(FORCED);
            });
            match name {
                "SIGINT" => Stop::AtOnce,
                _ => Stop::Gracefully,
            }
        };
        (first, self.hangup)
    }
}

/// The signals that stop the server.
struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    /// As in nginx a wish to end gracefully; its default, a core dump, would close nobody.
    quit: Signal,
}

impl StopSignals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// Waits for the next one and returns its name.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.quit.recv() => "SIGQUIT",
        }
    }

    /// Waits for the next one that comes after `begin`.
    async fn after(&mut self, begin: Instant) -> &'static str {
        loop {
            let name = self.next().await;
            if Instant::now() > begin {
                return name;
            }
            tracing::debug!(signal = name, "the same signal again");
        }
    }
}

/// Takes the signals that ask for what a server may do and this one does not: their default
/// would end the process without a close frame.
async fn log_others(mut user1: Signal, mut user2: Signal) {
    loop {
        let signal = tokio::select! {
            _ = user1.recv() => "SIGUSR1",
            _ = user2.recv() => "SIGUSR2",
        };
        tracing::info!(signal, "ignored: it has no meaning here");
    }
}

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

/// Takes over all signals that would end the process, to be called before the port is bound.
///
/// The returned future is done at the first SIGINT, SIGTERM or SIGQUIT. Another one more than
/// a second later ends the process at once. SIGHUP, SIGUSR1 and SIGUSR2 are only logged.
pub fn on_signal() -> io::Result<impl Future<Output = ()>> {
    let mut stop = StopSignals::new()?;
    tokio::spawn(log_others(
        signal(SignalKind::hangup())?,
        signal(SignalKind::user_defined1())?,
        signal(SignalKind::user_defined2())?,
    ));
    Ok(async move {
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
    })
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
async fn log_others(mut hangup: Signal, mut user1: Signal, mut user2: Signal) {
    loop {
        tokio::select! {
            _ = hangup.recv() => tracing::info!(
                signal = "SIGHUP",
                "ignored: settings are read at the start only; restart to change them"
            ),
            _ = user1.recv() => tracing::info!(signal = "SIGUSR1", "ignored: it has no meaning here"),
            _ = user2.recv() => tracing::info!(signal = "SIGUSR2", "ignored: it has no meaning here"),
        }
    }
}

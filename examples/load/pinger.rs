//! A quiet client: it sends a `pusher:ping` at fixed times, whether the one before
//! was answered or not, and measures how long each takes.

use crate::Outcome;
use crate::app::App;
use crate::args::Target;
use crate::clock::{Clock, seconds};
use crate::stream::Route;
use crate::subscriber::Subscriber;
use crate::sys::{Epoll, Events};
use crate::wire;
use hdrhistogram::Histogram;
use serde_json::Value;
use std::collections::VecDeque;
use std::time::Duration;

/// Times longer than this many nanoseconds count as this long.
const MAX_NANOS: u64 = 60_000_000_000;
/// How long to wait for the last answers.
const DRAIN: u64 = seconds(30);

/// A part of the run, and how long the pings took that were sent in it.
pub(crate) struct Phase {
    from: u64,
    pub(crate) times: Histogram<u64>,
}

pub(crate) struct Pinger {
    socket: Subscriber,
    pub(crate) clock: Clock,
    interval: u64,
    /// When the next ping is due.
    due: u64,
    /// When the pings were sent that have no answer yet.
    sent: VecDeque<u64>,
    pub(crate) phases: Vec<Phase>,
    frame: Vec<u8>,
    arrivals: Epoll,
    buffer: Vec<u8>,
}

impl Pinger {
    /// Connects; a ping is due every so many milliseconds.
    pub(crate) fn connect(target: &Target, interval: usize) -> Outcome<Self> {
        let route = Route::of(target)?;
        let (socket, _) = Subscriber::connect(&route, 0, &App::of(target))?;
        let arrivals = Epoll::new()?;
        arrivals.add(socket.stream(), 0)?;
        let clock = Clock::start();
        Ok(Self {
            socket,
            clock,
            interval: Duration::from_millis(interval as u64).as_nanos() as u64,
            due: clock.now(),
            sent: VecDeque::new(),
            phases: Vec::new(),
            frame: wire::masked(wire::TEXT, br#"{"event":"pusher:ping","data":{}}"#),
            arrivals,
            buffer: vec![0; 16 * 1024],
        })
    }

    /// Pings that are sent from now on are counted for themselves.
    pub(crate) fn begin_phase(&mut self) -> Outcome<()> {
        if self.phases.is_empty() {
            self.due = self.clock.now();
        }
        self.phases.push(Phase {
            from: self.clock.now(),
            times: Histogram::new_with_bounds(1, MAX_NANOS, 3)?,
        });
        Ok(())
    }

    /// Sends the ping that is due, or those if several have become due.
    pub(crate) fn ping(&mut self) -> Outcome<()> {
        while self.due <= self.clock.now() {
            self.sent.push_back(self.clock.now());
            self.socket.send(&self.frame)?;
            self.due += self.interval;
        }
        Ok(())
    }

    /// Takes the answers that have come.
    pub(crate) fn listen(&mut self) -> Outcome<()> {
        let (sent, phases) = (&mut self.sent, &mut self.phases);
        self.socket
            .receive(&mut self.buffer, self.clock, |text, now| {
                if !is_pong(text)? {
                    return Ok(false);
                }
                let sent = sent.pop_front().ok_or("a ping was answered twice")?;
                let phase = phases.iter_mut().rev().find(|phase| phase.from <= sent);
                let phase = phase.ok_or("a ping was sent before all phases")?;
                phase.times.saturating_record(now.saturating_sub(sent));
                Ok(true)
            })
    }

    pub(crate) fn ping_for(&mut self, time: u64) -> Outcome<()> {
        let end = self.clock.now() + time;
        while self.clock.now() < end {
            self.ping()?;
            self.wait_until(self.due.min(end))?;
        }
        Ok(())
    }

    pub(crate) fn await_answers(&mut self) -> Outcome<()> {
        let end = self.clock.now() + DRAIN;
        while !self.sent.is_empty() {
            if self.clock.now() >= end {
                return Err("the server does not answer pings any more".into());
            }
            self.wait_until(end)?;
        }
        Ok(())
    }

    /// Waits for answers until a moment, and takes the first.
    fn wait_until(&mut self, moment: u64) -> Outcome<()> {
        let pause = moment.saturating_sub(self.clock.now());
        let mut events = Events::with_capacity(1);
        self.arrivals
            .wait(&mut events, Duration::from_nanos(pause))?;
        if events.len() > 0 {
            self.listen()?;
        }
        Ok(())
    }
}

fn is_pong(text: &[u8]) -> Outcome<bool> {
    let message: Value = serde_json::from_slice(text)?;
    Ok(message["event"] == "pusher:pong")
}

//! What others feel when thousands of connections end at once: one connection
//! sends a `pusher:ping` at fixed times, whether the one before was answered or
//! not.
//!
//! One thread closes and measures, in turns of one close, so a time can be longer
//! by what one close takes.

use crate::Outcome;
use crate::app::App;
use crate::args::Disconnect;
use crate::clock::{Clock, seconds};
use crate::process::Process;
use crate::report::{self, Usage};
use crate::stream::Route;
use crate::subscriber::{self, Subscriber};
use crate::sys::{Epoll, Events};
use crate::wire;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::Duration;

/// Times longer than this many nanoseconds count as this long.
const LONGEST: u64 = 60_000_000_000;
/// How long to wait for the last answers, and for the server to have closed its
/// side of the connections.
const DRAIN: u64 = seconds(10);

/// Connects, closes, reports, and says whether every ping was answered and every
/// connection closed.
pub(crate) fn run(options: &Disconnect) -> Outcome<bool> {
    let target = &options.target;
    subscriber::make_room_for(options.subscribers + 1)?;
    let server = target.pid.map(Process::with_pid);
    let app = App::of(target);
    let mut pinger = Pinger::connect(options, &app)?;
    let open_before = server.map(Process::open_files).transpose()?;
    let subscribers = subscriber::join_all(
        target,
        options.subscribers,
        &options.channel,
        options.channels,
    )?;
    pinger.begin_phase()?;
    pinger.ping_for(seconds(options.seconds))?;

    pinger.begin_phase()?;
    let usage = Usage::before(server)?;
    let began = pinger.clock.now();
    for subscriber in subscribers {
        drop(subscriber);
        pinger.ping()?;
        pinger.listen()?;
    }
    let took = pinger.clock.now() - began;
    pinger.begin_phase()?;
    pinger.ping_for(seconds(options.seconds))?;
    pinger.await_answers()?;
    let usage = usage.until_now()?;

    let [before, meanwhile, after] = &pinger.phases[..] else {
        return Err("there are not three phases".into());
    };
    let mut worst = meanwhile.times.clone();
    worst.add(&after.times)?;
    let mut object = json!({
        "subscribers": options.subscribers,
        "channels": options.channels,
        "close_seconds": took as f64 / 1e9,
        "before_us": report::quantiles(&before.times),
        "during_us": report::quantiles(&meanwhile.times),
        "after_us": report::quantiles(&after.times),
        "worst_us": report::quantiles(&worst),
    });
    usage.describe("closes", options.subscribers as u64, &mut object);
    let mut left = 0;
    if let Some((server, before)) = server.zip(open_before) {
        left = server.files_left_open(before, Duration::from_nanos(DRAIN))?;
        object["left_open"] = json!(left);
    }
    report::print(&object, target.json)?;
    Ok(left == 0)
}

/// A part of the run, and how long the pings took that were sent in it.
struct Phase {
    from: u64,
    times: Histogram<u64>,
}

/// The connection that stays.
struct Pinger {
    socket: Subscriber,
    clock: Clock,
    interval: u64,
    /// When the next ping is due.
    due: u64,
    /// When the pings were sent that have no answer yet.
    sent: VecDeque<u64>,
    phases: Vec<Phase>,
    frame: Vec<u8>,
    arrivals: Epoll,
    buffer: Vec<u8>,
}

impl Pinger {
    fn connect(options: &Disconnect, app: &App) -> Outcome<Self> {
        let route = Route::of(&options.target)?;
        let (socket, _) = Subscriber::connect(&route, 0, app)?;
        let arrivals = Epoll::new()?;
        arrivals.add(socket.stream(), 0)?;
        let clock = Clock::start();
        Ok(Self {
            socket,
            clock,
            interval: Duration::from_millis(options.interval as u64).as_nanos() as u64,
            due: clock.now(),
            sent: VecDeque::new(),
            phases: Vec::new(),
            frame: wire::masked(wire::TEXT, br#"{"event":"pusher:ping","data":{}}"#),
            arrivals,
            buffer: vec![0; 16 * 1024],
        })
    }

    /// Pings that are sent from now on are counted for themselves.
    fn begin_phase(&mut self) -> Outcome<()> {
        if self.phases.is_empty() {
            self.due = self.clock.now();
        }
        self.phases.push(Phase {
            from: self.clock.now(),
            times: Histogram::new_with_bounds(1, LONGEST, 3)?,
        });
        Ok(())
    }

    /// Sends the ping that is due, or those if several have become due.
    fn ping(&mut self) -> Outcome<()> {
        while self.due <= self.clock.now() {
            self.sent.push_back(self.clock.now());
            self.socket.send(&self.frame)?;
            self.due += self.interval;
        }
        Ok(())
    }

    /// Takes the answers that have come.
    fn listen(&mut self) -> Outcome<()> {
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

    fn ping_for(&mut self, time: u64) -> Outcome<()> {
        let end = self.clock.now() + time;
        while self.clock.now() < end {
            self.ping()?;
            self.wait_until(self.due.min(end))?;
        }
        Ok(())
    }

    fn await_answers(&mut self) -> Outcome<()> {
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

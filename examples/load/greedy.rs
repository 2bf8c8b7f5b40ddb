//! One client that sends pings and client events as fast as its connection takes
//! them, and how long another channel's messages take meanwhile.
//!
//! Every ping has to be answered. The client is alone in its channel, so its
//! client events reach nobody; a server may refuse some of them for being too many.

use crate::Outcome;
use crate::app::App;
use crate::args::Greedy;
use crate::clock::{Clock, seconds};
use crate::message::{Mark, Template};
use crate::probe::{self, Probe};
use crate::report;
use crate::stream::Route;
use crate::subscriber::Subscriber;
use crate::sys::{Epoll, Events};
use crate::wire;
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How long to wait for the last answers.
const DRAIN: u64 = seconds(10);
/// How long to wait for the socket before looking whether the time is over.
const PAUSE: Duration = Duration::from_millis(100);
/// Pairs of a ping and a client event that are written at a time.
const PAIRS: usize = 64;
const BUFFER: usize = 64 * 1024;
const PONG: &[u8] = br#"{"event":"pusher:pong""#;
/// How a client event is refused for which there is no room.
const ERROR: &[u8] = br#"{"event":"pusher:error""#;
const OVER_CAPACITY: &[u8] = b"4100";

/// Runs, reports, and says whether every delivery was as it should be and every
/// ping answered.
pub(crate) fn run(options: &Greedy) -> Outcome<bool> {
    let traffic = probe::traffic(&options.probe, &options.target, options.span);
    let probe = Probe::prepare(&traffic, &options.probe)?;
    let mut client = Client::join(options)?;
    let over = AtomicBool::new(false);
    let probe = thread::scope(|scope| -> Outcome<Probe<'_>> {
        let sending = scope.spawn(|| {
            let done = client.send_until(&over);
            done.map_err(|error| format!("the greedy client: {error}"))
        });
        let probe = probe::outcome_of(Probe::spawn(probe, scope));
        over.store(true, Ordering::Relaxed);
        probe::outcome_of(sending)?;
        probe
    })?;
    let mut object = probe.describe();
    object["greedy_pings"] = json!(client.pings);
    object["greedy_unanswered"] = json!(client.pings - client.pongs);
    object["greedy_refused"] = json!(client.refusals);
    object["greedy_frames_per_second"] = json!(2.0 * client.pings as f64 / client.seconds);
    report::print(&object, options.target.json)?;
    Ok(probe.is_clean() && client.pings == client.pongs)
}

struct Client {
    socket: Subscriber,
    clock: Clock,
    arrivals: Epoll,
    /// Pings and client events by turns.
    batch: Vec<u8>,
    pings: u64,
    pongs: u64,
    refusals: u64,
    seconds: f64,
}

impl Client {
    fn join(options: &Greedy) -> Outcome<Self> {
        let (app, route) = (App::of(&options.target), Route::of(&options.target)?);
        let socket = Subscriber::join(&route, 0, &app, &options.channel)?;
        let arrivals = Epoll::new()?;
        arrivals.add(socket.stream(), 0)?;
        arrivals.watch_writes(socket.stream(), 0, true)?;
        let mut text = String::new();
        let mark = Mark {
            publisher: 0,
            sequence: 1,
        };
        Template::whisper(&options.channel, options.size).write_body(mark, &mut text);
        let mut pair = wire::masked(wire::TEXT, br#"{"event":"pusher:ping","data":{}}"#);
        pair.extend(wire::masked(wire::TEXT, text.as_bytes()));
        Ok(Self {
            socket,
            clock: Clock::start(),
            arrivals,
            batch: pair.repeat(PAIRS),
            pings: 0,
            pongs: 0,
            refusals: 0,
            seconds: 0.0,
        })
    }

    /// Sends batches until it is over, finishes the last one, and waits for the
    /// answers.
    fn send_until(&mut self, over: &AtomicBool) -> Outcome<()> {
        let mut buffer = vec![0; BUFFER];
        let began = self.clock.now();
        let mut written = 0;
        while written > 0 || !over.load(Ordering::Relaxed) {
            let ready = self.wait(&mut buffer)?;
            if !ready {
                continue;
            }
            written += self.socket.send_some(&self.batch[written..])?;
            if written == self.batch.len() {
                written = 0;
                self.pings += PAIRS as u64;
            }
        }
        self.seconds = (self.clock.now() - began) as f64 / 1e9;
        self.arrivals.watch_writes(self.socket.stream(), 0, false)?;
        let end = self.clock.now() + DRAIN;
        while self.pongs < self.pings && self.clock.now() < end {
            self.wait(&mut buffer)?;
        }
        Ok(())
    }

    /// Reads the answers that have come; whether the socket takes more.
    fn wait(&mut self, buffer: &mut [u8]) -> Outcome<bool> {
        let mut events = Events::with_capacity(1);
        self.arrivals.wait(&mut events, PAUSE)?;
        if events.len() == 0 {
            return Ok(false);
        }
        let (pongs, refusals) = (&mut self.pongs, &mut self.refusals);
        self.socket.receive(buffer, self.clock, |text, _| {
            let (is_pong, is_refusal) = (text.starts_with(PONG), is_refusal(text));
            *pongs += u64::from(is_pong);
            *refusals += u64::from(is_refusal);
            Ok(is_pong || is_refusal)
        })?;
        Ok(events.get(0).writable)
    }
}

fn is_refusal(text: &[u8]) -> bool {
    let mut parts = text.windows(OVER_CAPACITY.len());
    text.starts_with(ERROR) && parts.any(|part| part == OVER_CAPACITY)
}

#[cfg(test)]
mod tests {
    use super::is_refusal;

    #[test]
    fn only_a_lack_of_room_is_no_failure() {
        let error = |code: u32| {
            let data = format!(r#"{{"code":{code},"message":"no"}}"#);
            format!(r#"{{"event":"pusher:error","data":{data}}}"#)
        };
        assert!(is_refusal(error(4100).as_bytes()));
        assert!(!is_refusal(error(4301).as_bytes()));
        assert!(!is_refusal(br#"{"event":"pusher:pong","data":"4100"}"#));
    }
}

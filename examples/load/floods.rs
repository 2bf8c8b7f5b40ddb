//! How long a quiet client waits for the answer to a ping while others write as fast as
//! their connections take it: subscriptions that are refused, each of which is answered,
//! or pongs that nobody asked for, which are not.
//!
//! The floods are all in one thread. The quiet client has one of its own that runs before
//! it if the system lets it, so that it measures the server and not the generator.

use crate::Outcome;
use crate::app::App;
use crate::args::{Flood, Floods, Span, Target};
use crate::clock::{Clock, seconds};
use crate::pinger::Pinger;
use crate::probe;
use crate::process::Process;
use crate::report::{self, Usage};
use crate::stream::Route;
use crate::subscriber::Subscriber;
use crate::sys::{self, Epoll, Events};
use crate::wire;
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How long to wait for the sockets before looking whether the time is over.
const PAUSE: Duration = Duration::from_millis(100);
/// Frames that are written at a time.
const FRAMES: usize = 128;
const BUFFER: usize = 64 * 1024;
/// What refusals begin with, of either kind.
const ERROR: &[u8] = br#"{"event":"pusher:error""#;
const REFUSAL: &[u8] = br#"{"event":"pusher:subscription_error""#;

/// Runs, reports, and says whether every ping was answered.
pub(crate) fn run(options: &Floods) -> Outcome<bool> {
    let target = &options.target;
    let server = target.pid.map(Process::with_pid);
    let pinger = Pinger::connect(target, options.interval)?;
    let mut crowd = Crowd::join(options)?;
    let over = AtomicBool::new(false);
    let quiet = thread::scope(|scope| -> Outcome<Quiet> {
        let flooding = scope.spawn(|| {
            let done = crowd.flood_until(&over);
            done.map_err(|error| format!("the floods: {error}"))
        });
        let pinging = scope.spawn(|| {
            let done = Quiet::measure(pinger, options.span, server, &over);
            // Whatever became of it, the floods are to end.
            over.store(true, Ordering::Relaxed);
            done.map_err(|error| format!("the quiet client: {error}"))
        });
        let quiet = probe::outcome_of(pinging);
        probe::outcome_of(flooding)?;
        quiet
    })?;
    let [_, measured] = &quiet.pinger.phases[..] else {
        return Err("there are not two phases".into());
    };
    let mut object = json!({
        "floods": options.floods,
        "kind": format!("{:?}", options.kind).to_lowercase(),
        "flood_frames": crowd.frames,
        "flood_refusals": crowd.refusals,
        "round_trip_us": report::quantiles(&measured.times),
        "quiet_goes_first": quiet.goes_first,
    });
    let pings = measured.times.len();
    quiet.usage.describe("pings", pings, &mut object);
    // The floods wait for the server; only the quiet client must not wait for them.
    if let Some(waited) = quiet.waited {
        object["generator_wait_seconds"] = json!(waited.as_secs_f64());
    }
    report::print(&object, target.json)?;
    let is_refused = options.kind == Flood::Pongs || crowd.refusals > 0;
    Ok(pings > 0 && crowd.frames > 0 && is_refused)
}

/// What the quiet client measured.
struct Quiet {
    pinger: Pinger,
    usage: Usage,
    waited: Option<Duration>,
    goes_first: bool,
}

impl Quiet {
    /// Warms up, measures, ends the floods, and waits for the last answers.
    fn measure(
        mut pinger: Pinger,
        span: Span,
        server: Option<Process>,
        over: &AtomicBool,
    ) -> Outcome<Self> {
        let goes_first = sys::go_first();
        pinger.begin_phase()?;
        pinger.ping_for(seconds(span.warmup))?;
        pinger.begin_phase()?;
        let (usage, before) = (Usage::before(server)?, Process::thread_waited());
        pinger.ping_for(seconds(span.seconds))?;
        let (usage, after) = (usage.until_now()?, Process::thread_waited());
        over.store(true, Ordering::Relaxed);
        pinger.await_answers()?;
        Ok(Self {
            pinger,
            usage,
            waited: after
                .zip(before)
                .map(|(after, before)| after.saturating_sub(before)),
            goes_first,
        })
    }
}

/// Those who flood.
struct Crowd {
    sockets: Vec<Subscriber>,
    /// Per socket, how much of a batch is written.
    written: Vec<usize>,
    arrivals: Epoll,
    batch: Vec<u8>,
    clock: Clock,
    frames: u64,
    refusals: u64,
}

impl Crowd {
    fn join(options: &Floods) -> Outcome<Self> {
        let target: &Target = &options.target;
        let (app, route) = (App::of(target), Route::of(target)?);
        let arrivals = Epoll::new()?;
        let mut sockets = Vec::new();
        for number in 0..options.floods {
            let (socket, _) = Subscriber::connect(&route, number, &app)?;
            arrivals.add(socket.stream(), number as u64)?;
            arrivals.watch_writes(socket.stream(), number as u64, true)?;
            sockets.push(socket);
        }
        Ok(Self {
            written: vec![0; sockets.len()],
            sockets,
            arrivals,
            batch: batch(options.kind, &app),
            clock: Clock::start(),
            frames: 0,
            refusals: 0,
        })
    }

    /// Writes until it is over.
    fn flood_until(&mut self, over: &AtomicBool) -> Outcome<()> {
        let mut buffer = vec![0; BUFFER];
        let mut events = Events::with_capacity(self.sockets.len());
        while !over.load(Ordering::Relaxed) {
            self.arrivals.wait(&mut events, PAUSE)?;
            for index in 0..events.len() {
                let ready = events.get(index);
                self.serve(ready.token as usize, ready.writable, &mut buffer)?;
            }
        }
        Ok(())
    }

    /// Reads what came for one of them, and writes.
    fn serve(&mut self, number: usize, writable: bool, buffer: &mut [u8]) -> Outcome<()> {
        let (socket, written) = (&mut self.sockets[number], &mut self.written[number]);
        let refusals = &mut self.refusals;
        socket.receive(buffer, self.clock, |text, _| {
            let is_refusal = text.starts_with(ERROR) || text.starts_with(REFUSAL);
            *refusals += u64::from(is_refusal);
            Ok(is_refusal)
        })?;
        if writable {
            *written += socket.send_some(&self.batch[*written..])?;
            if *written == self.batch.len() {
                *written = 0;
                self.frames += FRAMES as u64;
            }
        }
        Ok(())
    }
}

/// As many frames of a kind as are written at a time.
fn batch(kind: Flood, app: &App) -> Vec<u8> {
    match kind {
        Flood::Subscribes => {
            let (key, signature) = (app.key(), "0".repeat(64));
            let request = json!({
                "event": "pusher:subscribe",
                "data": { "channel": "private-flood", "auth": format!("{key}:{signature}") },
            });
            wire::masked(wire::TEXT, request.to_string().as_bytes()).repeat(FRAMES)
        }
        Flood::Pongs => {
            let mut pair = wire::masked(wire::TEXT, br#"{"event":"pusher:pong","data":{}}"#);
            pair.extend(wire::masked(wire::PONG, b""));
            pair.repeat(FRAMES / 2)
        }
    }
}

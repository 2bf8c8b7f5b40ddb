//! What a node's end is like for its clients and for those they come to: a load balancer
//! sends everything to one node until that says that it drains, and then to another one.
//! Every connection is closed, and made anew at once.
//!
//! Reconnections are counted by when the new connection was established. A thread of its
//! own publishes through the same address, before the end and during it.

use crate::Outcome;
use crate::app::App;
use crate::args::Drain;
use crate::clock::{Clock, seconds};
use crate::latency::{Latencies, Phase};
use crate::probe;
use crate::reconnect::Clients;
use crate::report::{self, Usage};
use crate::stream::Route;
use crate::subscriber;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::{Value, json};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

/// Time in which everything warms up, before it is measured.
const WARMUP: u64 = seconds(1);
/// How long the whole drain may take.
const PATIENCE: u64 = seconds(120);
/// How long to wait for the answers to the last pings.
const PONGS: u64 = seconds(10);
const SLOT: Duration = Duration::from_millis(100);

/// Before the end, from the signal to the first close, and from there to the last
/// reconnection; around them, latencies do not count.
const WARMING: usize = 0;
const IDLE: usize = 1;
const PAUSING: usize = 2;
const DRAINING: usize = 3;
const AFTERWARDS: usize = 4;
const OVER: usize = 5;

/// Connects, ends the server, reports, and says whether every connection was closed with a
/// code at which clients come again, came again, and lives, and every publish was taken.
pub(crate) fn run(options: &Drain) -> Outcome<bool> {
    let target = &options.target;
    let pid = target
        .pid
        .ok_or("drain needs the server's process: --pid")?;
    let server = process(pid).ok_or(format!("there is no process {pid}"))?;
    subscriber::make_room_for(options.sockets + 1)?;
    let clock = Clock::start();
    let mut clients = Clients::join(options, clock)?;
    let connected = clock.now();
    let (app, route) = (App::of(target), Route::for_publishing(target)?);
    let channel = clients.first_channel().to_owned();
    let phase = Phase::begin(WARMING);
    let (times, latencies) = thread::scope(|scope| -> Outcome<_> {
        let publishing = scope.spawn(|| {
            Latencies::measure((&route, &app), &channel, options.rate, OVER, &phase)
                .map_err(|error| error.to_string())
        });
        let times = go(options, &mut clients, &server, clock, &phase);
        phase.set(OVER);
        let latencies = probe::outcome_of(publishing)?;
        Ok((times?, latencies))
    })?;
    let mut object = describe(options, &clients, &times, &latencies);
    object["connect_seconds"] = json!(connected as f64 / 1e9);
    let count = clients.reconnected.len();
    times
        .usage
        .describe("reconnections", count as u64, &mut object);
    report::print(&object, target.json)?;
    let all_came = count == options.sockets && clients.pongs == options.sockets;
    Ok(all_came && clients.errors == 0 && latencies.errors == 0)
}

/// A handle to the process that cannot be taken for another one that gets its number.
fn process(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(pid.try_into().ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// When things happened.
struct Times {
    signal: u64,
    /// When the server had ended, if it has.
    exit: Option<u64>,
    /// When all were back.
    done: u64,
    usage: Usage,
}

fn go(
    options: &Drain,
    clients: &mut Clients,
    server: &OwnedFd,
    clock: Clock,
    phase: &Phase,
) -> Outcome<Times> {
    clients.work_until(clock.now() + WARMUP, |_| false)?;
    phase.set(IDLE);
    clients.work_until(clock.now() + seconds(options.seconds), |_| false)?;
    phase.set(PAUSING);
    clients.watch(server)?;
    let usage = Usage::before(None)?;
    let signal = clock.now();
    pidfd_send_signal(server, Signal::TERM)?;
    let end = signal + PATIENCE;
    clients.work_until(end, |clients| {
        clients.first_close.is_some() || clients.other_is_ready
    })?;
    phase.set(DRAINING);
    clients.work_until(end, |clients| clients.other_is_ready)?;
    let exit = clients.other_is_ready.then(|| clock.now());
    clients.unwatch(server)?;
    clients.work_until(end, Clients::are_all_open)?;
    phase.set(AFTERWARDS);
    let (done, usage) = (clock.now(), usage.until_now()?);
    clients.ping_all()?;
    let all = options.sockets;
    clients.work_until(clock.now() + PONGS, |clients| clients.pongs >= all)?;
    clients.work_until(clock.now() + seconds(options.after), |_| false)?;
    Ok(Times {
        signal,
        exit,
        done,
        usage,
    })
}

fn describe(options: &Drain, clients: &Clients, times: &Times, latencies: &Latencies) -> Value {
    let since = |from: u64, at: u64| at.saturating_sub(from) as f64 / 1e9;
    let begin = clients.first_close.unwrap_or(times.signal);
    let slots = by_slot(&clients.reconnected, begin);
    let per_second = (Duration::from_secs(1).as_millis() / SLOT.as_millis()) as usize;
    let by_second: Vec<u64> = slots
        .chunks(per_second)
        .map(|slots| slots.iter().sum())
        .collect();
    json!({
        "sockets": options.sockets,
        "channels": options.channels,
        "rate": options.rate,
        "first_close_seconds": since(times.signal, begin),
        "last_reconnection_seconds": since(times.signal, times.done),
        "exit_seconds": times.exit.map(|exit| since(times.signal, exit)),
        "closed": clients.closed,
        "reconnections": clients.reconnected.len(),
        "reconnections_by_second": by_second,
        "reconnections_by_100_ms": slots,
        "reconnect_us": report::quantiles(&clients.took),
        "alive": clients.pongs,
        "errors": clients.errors,
        "first_error": clients.first_error,
        "idle_us": report::quantiles(&latencies.times[IDLE]),
        "pausing_us": report::quantiles(&latencies.times[PAUSING]),
        "draining_us": report::quantiles(&latencies.times[DRAINING]),
        "publish_errors": latencies.errors,
        "first_publish_error": latencies.first_error,
        "publisher_goes_first": latencies.goes_first,
    })
}

/// How many there were in each slot of time since the beginning.
fn by_slot(moments: &[u64], begin: u64) -> Vec<u64> {
    let mut slots = Vec::new();
    for moment in moments {
        let slot = (moment.saturating_sub(begin) / SLOT.as_nanos() as u64) as usize;
        if slots.len() <= slot {
            slots.resize(slot + 1, 0);
        }
        slots[slot] += 1;
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::by_slot;

    #[test]
    fn moments_are_counted_by_tenths_of_a_second() {
        let at = |millis: u64| millis * 1_000_000;
        let moments = [at(500), at(599), at(600), at(850)];
        assert_eq!(by_slot(&moments, at(500)), [2, 1, 0, 1]);
        assert_eq!(by_slot(&[], 0), [0; 0]);
    }
}

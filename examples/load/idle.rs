//! What an idle connection costs the server in resident memory.
//!
//! It counts what the server's process has resident, and not what the kernel
//! keeps for the sockets.

use crate::Outcome;
use crate::args::Idle;
use crate::clock::{Clock, seconds};
use crate::process::Process;
use crate::report;
use crate::subscriber::{self, Subscriber};
use crate::sys::{Epoll, Events};
use serde_json::json;
use std::time::Duration;

/// Connects, waits, measures and reports.
pub(crate) fn run(options: &Idle) -> Outcome<bool> {
    let pid = options
        .target
        .pid
        .ok_or("idle needs the server's process: --pid")?;
    let server = Process::with_pid(pid);
    subscriber::make_room_for(options.subscribers)?;
    let clock = Clock::start();
    let before = server.resident()?;
    let mut subscribers = subscriber::join_all(
        &options.target,
        options.subscribers,
        &options.channel,
        options.channels,
    )?;
    let connected = server.resident()?;
    let took = clock.now();
    stay_silent(&mut subscribers, options.silence, clock)?;
    let after = server.resident()?;
    let each = (after as f64 - before as f64) / options.subscribers as f64;
    let object = json!({
        "subscribers": options.subscribers,
        "channels": options.channels,
        "connect_seconds": took as f64 / 1e9,
        "resident_before_bytes": before,
        "resident_connected_bytes": connected,
        "resident_after_silence_bytes": after,
        "bytes_per_connection": each,
    });
    report::print(&object, options.target.json)?;
    Ok(true)
}

/// Publishes nothing, but answers the pings that come meanwhile.
fn stay_silent(subscribers: &mut [Subscriber], silence: usize, clock: Clock) -> Outcome<()> {
    let epoll = Epoll::new()?;
    for (number, subscriber) in subscribers.iter().enumerate() {
        epoll.add(subscriber.stream(), number as u64)?;
    }
    let mut events = Events::with_capacity(256);
    let mut buffer = vec![0; 16 * 1024];
    let end = clock.now() + seconds(silence);
    loop {
        let left = end.saturating_sub(clock.now());
        if left == 0 {
            return Ok(());
        }
        epoll.wait(&mut events, Duration::from_nanos(left))?;
        for index in 0..events.len() {
            let subscriber = &mut subscribers[events.get(index).token as usize];
            subscriber.receive(&mut buffer, clock, |_, _| Ok(false))?;
        }
    }
}

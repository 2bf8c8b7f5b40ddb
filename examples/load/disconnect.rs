//! What others feel when thousands of connections end at once: one connection
//! sends a `pusher:ping` at fixed times, whether the one before was answered or
//! not.
//!
//! One thread closes and measures, in turns of one close, so a time can be longer
//! by what one close takes.

use crate::Outcome;
use crate::args::Disconnect;
use crate::clock::seconds;
use crate::pinger::Pinger;
use crate::process::Process;
use crate::report::{self, Usage};
use crate::subscriber;
use serde_json::json;
use std::time::Duration;

/// How long to wait for the server to have closed its side of the connections.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connects, closes, reports, and says whether every ping was answered and every
/// connection closed.
pub(crate) fn run(options: &Disconnect) -> Outcome<bool> {
    let target = &options.target;
    subscriber::make_room_for(options.subscribers + 1)?;
    let server = target.pid.map(Process::with_pid);
    let mut pinger = Pinger::connect(target, options.interval)?;
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
        left = server.files_left_open(before, PATIENCE)?;
        object["left_open"] = json!(left);
    }
    report::print(&object, target.json)?;
    Ok(left == 0)
}

//! What a burst of messages leaves behind: connections are idle, get many messages
//! at once, and are idle again. The server needs memory for what waits, and should
//! not have it when nothing waits any more.

use crate::Outcome;
use crate::args::Burst;
use crate::clock::seconds;
use crate::process::Process;
use crate::report::{self, Usage};
use crate::run::{Pace, Run, Work};
use crate::subscriber;
use serde_json::json;

/// How long the burst may take.
const PATIENCE: u64 = seconds(120);

/// Connects, waits, sends the burst, waits, reports, and says whether every
/// delivery was as it should be.
pub(crate) fn run(options: &Burst) -> Outcome<bool> {
    let traffic = &options.traffic;
    let pid = traffic.target.pid;
    let server = Process::with_pid(pid.ok_or("burst needs the server's process: --pid")?);
    subscriber::make_room_for(traffic.subscribers + traffic.publishers)?;
    let mut run = Run::begin(traffic, 1, Pace::Burst(options.messages))?;
    run.work_until(run.clock.now() + seconds(options.quiet), Work::Listen)?;

    let before = server.resident()?;
    let usage = Usage::before(Some(server))?;
    run.work_until(run.clock.now() + PATIENCE, Work::Publish)?;
    let usage = usage.until_now()?;
    let measured = run.counts();
    let summary = run.finish(measured, usage)?;
    let sent = server.resident()?;
    run.work_until(run.clock.now() + seconds(options.silence), Work::Listen)?;
    let after = server.resident()?;

    let mut object = summary.describe(traffic, &run.pace, run.latencies());
    object["resident_before_bytes"] = json!(before);
    object["resident_sent_bytes"] = json!(sent);
    object["resident_after_silence_bytes"] = json!(after);
    // The kernel counts in batches, so that it may know less than what was seen.
    let peak = server.resident_peak()?.max(sent);
    object["resident_peak_bytes"] = json!(peak);
    object["resident_peak_more_bytes"] = json!(peak.saturating_sub(before));
    object["resident_ratio"] = json!(after as f64 / before as f64);
    report::print(&object, traffic.target.json)?;
    Ok(summary.is_clean() && matches!(run.pace, Pace::Burst(0)))
}

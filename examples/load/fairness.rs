//! How long a small channel's messages take while the server is busy with two
//! big ones: a flood on one of them, and thousands of members of a presence
//! channel who are killed at once and whose leaving the others have to be sent.
//!
//! Everything is accounted for: the flood, the probe, and who was sent whose leaving.

use crate::Outcome;
use crate::args::{Fairness, Span};
use crate::clock::{Clock, seconds};
use crate::crowd::Crowd;
use crate::probe::{self, Probe};
use crate::report;
use crate::roster;
use crate::run::{Pace, Run, Summary};
use crate::subscriber;
use crate::sys::{Epoll, Events};
use serde_json::json;
use std::thread;
use std::time::Duration;

/// From the beginning of the measured time to the killing.
const BEFORE: u64 = seconds(1);
/// How long to wait for what the others have to be sent.
const DRAIN: u64 = seconds(60);
const BATCH: usize = 64;
const BUFFER: usize = 128 * 1024;

/// Runs, reports, and says whether every delivery was as it should be.
pub(crate) fn run(options: &Fairness) -> Outcome<bool> {
    let (flood, members) = (&options.traffic, options.members);
    if options.killed >= members {
        return Err("at least one member has to stay".into());
    }
    subscriber::make_room_for(flood.subscribers + flood.publishers + members)?;
    let mut remaining = Remaining::gather(options)?;
    let small = probe::traffic(&options.probe, &flood.target, flood.span);
    let probe = Probe::prepare(&small, &options.probe)?;
    let mut flood = Run::begin(flood, 1, Pace::window(options.window))?;
    let (probe, flooded, took) = thread::scope(|scope| -> Outcome<(Probe<'_>, Summary, u64)> {
        let flooding = scope.spawn(|| flood.go().map_err(|error| format!("the flood: {error}")));
        let probing = Probe::spawn(probe, scope);
        let took = remaining.kill_and_listen(options.traffic.span);
        let (flooded, probe) = (probe::outcome_of(flooding), probe::outcome_of(probing));
        Ok((probe?, flooded?, took?))
    })?;
    let (missing, wrong) = (remaining.missing(), remaining.wrong);
    let mut object = probe.describe();
    object["members"] = json!(members);
    object["killed"] = json!(options.killed);
    object["telling_seconds"] = json!(took as f64 / 1e9);
    object["tellings_missing"] = json!(missing);
    object["tellings_wrong"] = json!(wrong);
    object["flood_deliveries"] = json!(flooded.tally.measured.delivered);
    object["flood_clean"] = json!(flooded.is_clean());
    object["flood_us"] = report::quantiles(flood.latencies());
    report::print(&object, options.traffic.target.json)?;
    Ok(probe.is_clean() && flooded.is_clean() && missing + wrong == 0)
}

/// The members who stay, and those who are killed.
struct Remaining<'a> {
    options: &'a Fairness,
    crowd: Crowd,
    arrivals: Epoll,
    /// Per member who stays and one who is killed, whether it was notified.
    notified: Vec<bool>,
    /// How many of them are.
    count: usize,
    /// What was sent twice, or of somebody who stays.
    wrong: usize,
    clock: Clock,
}

impl<'a> Remaining<'a> {
    fn gather(options: &'a Fairness) -> Outcome<Self> {
        let channel = &options.presence_channel;
        let crowd = Crowd::gather(&options.traffic.target, options.members, channel)?;
        let stay = options.members - options.killed;
        let arrivals = Epoll::new()?;
        for (number, member) in crowd.members[..stay].iter().enumerate() {
            arrivals.add(member.stream(), number as u64)?;
        }
        Ok(Self {
            options,
            crowd,
            arrivals,
            notified: vec![false; stay * options.killed],
            count: 0,
            wrong: 0,
            clock: Clock::start(),
        })
    }

    fn missing(&self) -> usize {
        self.notified.len() - self.count
    }

    /// Kills when the time has come, and reads what the others are sent; how long
    /// that took.
    fn kill_and_listen(&mut self, span: Span) -> Outcome<u64> {
        let mut buffer = vec![0; BUFFER];
        let from = self.clock.now() + seconds(span.warmup) + BEFORE;
        while self.clock.now() < from {
            self.listen(from, &mut buffer)?;
        }
        let stay = self.options.members - self.options.killed;
        self.crowd.members.truncate(stay);
        let end = self.clock.now() + DRAIN;
        while self.clock.now() < end && self.missing() > 0 {
            self.listen(end, &mut buffer)?;
        }
        let took = self.clock.now() - from;
        // What should not come may come later.
        let end = from + seconds(span.seconds);
        while self.clock.now() < end {
            self.listen(end, &mut buffer)?;
        }
        Ok(took)
    }

    fn listen(&mut self, end: u64, buffer: &mut [u8]) -> Outcome<()> {
        let mut events = Events::with_capacity(BATCH);
        let pause = end.saturating_sub(self.clock.now());
        self.arrivals
            .wait(&mut events, Duration::from_nanos(pause))?;
        let (killed, channel) = (self.options.killed, &self.options.presence_channel);
        let first = self.options.members - killed;
        for index in 0..events.len() {
            let number = events.get(index).token as usize;
            let member = &mut self.crowd.members[number];
            let own = &mut self.notified[number * killed..][..killed];
            let (count, wrong) = (&mut self.count, &mut self.wrong);
            member.receive(buffer, self.clock, |text, _| {
                let Some(user) = roster::user_gone(text, channel)? else {
                    return Ok(false);
                };
                let notified = (user as usize)
                    .checked_sub(first)
                    .and_then(|place| own.get_mut(place));
                match notified {
                    Some(notified) if !*notified => {
                        *notified = true;
                        *count += 1;
                    }
                    _ => *wrong += 1,
                }
                Ok(true)
            })?;
        }
        Ok(())
    }
}

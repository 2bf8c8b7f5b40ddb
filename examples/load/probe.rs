//! A channel with one subscriber, to which something is published now and then:
//! how long that takes tells what others feel while the server is busy.
//!
//! The generator is busy too, on the same core, so the probe has a thread of its
//! own that runs before the others if the system lets it. What it waited for the
//! core nevertheless is reported.

use crate::Outcome;
use crate::args::{self, Span, Target, Traffic};
use crate::message::MIN_SIZE;
use crate::process::Process;
use crate::run::{Pace, Run, Summary};
use crate::sys;
use serde_json::{Value, json};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

/// More than one, so that a message can be sent while others are unanswered.
const PUBLISHERS: usize = 4;

/// What is published to the probe's channel.
pub(crate) fn traffic(options: &args::Probe, target: &Target, span: Span) -> Traffic {
    Traffic {
        target: target.clone(),
        keys: false,
        close: false,
        subscribers: 1,
        publishers: PUBLISHERS,
        size: MIN_SIZE,
        span,
        channel: options.probe_channel.clone(),
    }
}

pub(crate) struct Probe<'a> {
    run: Run<'a>,
    summary: Summary,
    waited: Option<Duration>,
    goes_first: bool,
}

impl<'a> Probe<'a> {
    /// Connects.
    pub(crate) fn prepare(traffic: &'a Traffic, options: &args::Probe) -> Outcome<Run<'a>> {
        Run::begin(traffic, 1, Pace::rate(options.rate))
    }

    /// Measures in a thread of its own.
    pub(crate) fn spawn<'scope>(
        mut run: Run<'a>,
        scope: &'scope Scope<'scope, '_>,
    ) -> ScopedJoinHandle<'scope, Result<Self, String>>
    where
        'a: 'scope,
    {
        scope.spawn(move || {
            let goes_first = sys::go_first();
            let before = Process::thread_waited();
            let summary = run.go().map_err(|error| format!("the probe: {error}"))?;
            let after = Process::thread_waited();
            Ok(Self {
                run,
                summary,
                waited: after.zip(before).map(|(after, before)| after - before),
                goes_first,
            })
        })
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.summary.is_clean()
    }

    /// A report about the probe, to which others may add what went on meanwhile.
    pub(crate) fn describe(&self) -> Value {
        let tally = &self.summary.tally;
        let mut object = tally.describe(self.run.latencies());
        object["late"] = json!(self.summary.late);
        object["http_errors"] = json!(self.summary.http_errors);
        object["probe_goes_first"] = json!(self.goes_first);
        // The other threads wait for each other; only the probe must not.
        if let Some(waited) = self.waited {
            object["generator_wait_seconds"] = json!(waited.as_secs_f64());
        }
        object
    }
}

/// Waits for a thread, and for the sentence with which it failed.
pub(crate) fn outcome_of<T>(thread: ScopedJoinHandle<'_, Result<T, String>>) -> Outcome<T> {
    match thread.join() {
        Ok(outcome) => Ok(outcome?),
        Err(_) => Err("a thread panicked".into()),
    }
}

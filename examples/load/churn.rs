//! Connections that come and go: each connects, upgrades, subscribes, waits for
//! the confirmation and closes, and the next one takes its place.
//!
//! At the end it looks whether the server has closed its side of every one of
//! them too. What a connection costs the kernel is part of the figure, on both
//! sides: on the loopback, much of the server's half runs in the client's time.

use crate::Outcome;
use crate::app::App;
use crate::args::Churn;
use crate::clock::{Clock, seconds};
use crate::entry::{self, Entry};
use crate::process::Process;
use crate::report::{self, Usage};
use crate::stream::Route;
use crate::subscriber;
use crate::sys::{Epoll, Events};
use hdrhistogram::Histogram;
use serde_json::json;
use std::time::Duration;

/// How long to wait for the visits that are under way when the time is over, and
/// for the server to have closed its side.
const DRAIN: u64 = seconds(5);
const BATCH: usize = 64;
/// Visits longer than this many nanoseconds count as this long.
const MAX_NANOS: u64 = 60_000_000_000;

/// Runs, reports, and says whether every visit ended well on both sides.
pub(crate) fn run(options: &Churn) -> Outcome<bool> {
    subscriber::make_room_for(options.visitors)?;
    let server = options.target.pid.map(Process::with_pid);
    let open_before = server.map(Process::open_files).transpose()?;
    let mut churner = Churner::new(options)?;
    churner.work_until(churner.clock.now() + seconds(options.span.warmup), true)?;
    let before = churner.cycles;
    let usage = Usage::before(server)?;
    churner.times.reset();
    churner.work_until(churner.clock.now() + seconds(options.span.seconds), true)?;
    let cycles = churner.cycles - before;
    let usage = usage.until_now()?;
    let times = report::quantiles(&churner.times);
    churner.work_until(churner.clock.now() + DRAIN, false)?;
    let mut object = json!({
        "visitors": options.visitors,
        "channels": options.channels,
        "cycles": cycles,
        "cycles_total": churner.cycles,
        "cycle_us": times,
        "unfinished": churner.under_way,
    });
    usage.describe("cycles", cycles, &mut object);
    let mut left = 0;
    if let Some((server, before)) = server.zip(open_before) {
        let before = before + options.keeps;
        left = server.files_left_open(before, Duration::from_nanos(DRAIN))?;
        object["left_open"] = json!(left);
    }
    report::print(&object, options.target.json)?;
    Ok(churner.under_way == 0 && left == 0)
}

struct Visit {
    entry: Entry,
    began: u64,
    channel: usize,
    subscribing: bool,
}

struct Churner {
    clock: Clock,
    app: App,
    route: Route,
    channels: Vec<String>,
    visits: Vec<Option<Visit>>,
    under_way: usize,
    /// Visits begun.
    begun: usize,
    /// Visits that ended as they should.
    cycles: u64,
    times: Histogram<u64>,
    arrivals: Epoll,
}

impl Churner {
    fn new(options: &Churn) -> Outcome<Self> {
        let name = |number| subscriber::channel(&options.channel, number, options.channels);
        Ok(Self {
            clock: Clock::start(),
            app: App::of(&options.target),
            route: Route::of(&options.target)?,
            channels: (0..options.channels).map(name).collect(),
            visits: (0..options.visitors).map(|_| None).collect(),
            under_way: 0,
            begun: 0,
            cycles: 0,
            times: Histogram::new_with_bounds(1, MAX_NANOS, 3)?,
            arrivals: Epoll::new()?,
        })
    }

    /// Works until a moment, or, when nobody is to come any more, until nobody
    /// is there.
    fn work_until(&mut self, end: u64, coming: bool) -> Outcome<()> {
        let mut events = Events::with_capacity(BATCH);
        if coming {
            for place in 0..self.visits.len() {
                if self.visits[place].is_none() {
                    self.come(place)?;
                }
            }
        }
        loop {
            let now = self.clock.now();
            if now >= end || self.under_way == 0 {
                return Ok(());
            }
            self.arrivals
                .wait(&mut events, Duration::from_nanos(end - now))?;
            for index in 0..events.len() {
                let place = events.get(index).token as usize;
                if self.go_on(place)? && coming {
                    self.come(place)?;
                }
            }
        }
    }

    fn come(&mut self, place: usize) -> Outcome<()> {
        let began = self.clock.now();
        let entry = Entry::open(&self.route, self.begun, &self.app)?;
        self.arrivals.add(entry.stream(), place as u64)?;
        self.visits[place] = Some(Visit {
            entry,
            began,
            channel: self.begun % self.channels.len(),
            subscribing: false,
        });
        self.begun += 1;
        self.under_way += 1;
        Ok(())
    }

    /// Reads one visitor once; whether its visit has ended with that.
    fn go_on(&mut self, place: usize) -> Outcome<bool> {
        let Some(visit) = &mut self.visits[place] else {
            return Ok(false);
        };
        // It is readable, so this does not block.
        visit.entry.read()?;
        let channel = &self.channels[visit.channel];
        if !visit.subscribing {
            let Some(socket_id) = visit.entry.established()? else {
                return Ok(false);
            };
            let request = entry::subscription(&self.app, &socket_id, channel, None);
            visit.entry.send(&request)?;
            visit.subscribing = true;
            return Ok(false);
        }
        if visit.entry.subscribed(channel)?.is_none() {
            return Ok(false);
        }
        self.times.saturating_record(self.clock.now() - visit.began);
        self.cycles += 1;
        self.under_way -= 1;
        self.visits[place] = None;
        Ok(true)
    }
}

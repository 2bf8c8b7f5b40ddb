//! A run that publishes: the loop in which one thread reads every delivery,
//! takes every answer and sends the next message when its pace allows.
//!
//! Deliveries are what costs, so they are handled in batches, with one reading
//! of the clock for each read of a socket; the publishers have an epoll instance
//! of their own, so that they are served between any two batches.

use crate::Outcome;
use crate::app::App;
use crate::args::Traffic;
use crate::clock::{Clock, seconds};
use crate::crowd::Crowd;
use crate::ledger::{Audience, Counts, Ledger};
use crate::message::{Mark, Reader, Template};
use crate::process::Process;
use crate::publisher::Publisher;
use crate::report::{self, Tally, Usage};
use crate::stalled::Stalled;
use crate::stream::Route;
use crate::subscriber::{self, Subscriber};
use crate::sys::{Epoll, Events};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::Duration;

/// How long to wait for what is still on its way when the publishing is over.
const DRAIN: u64 = seconds(5);
/// Refused publishes after which there is no point in going on.
const REFUSALS: u64 = 100;
/// Subscribers served before the publishers get their turn.
const BATCH: usize = 64;
/// One read of a subscriber; it stays in the processor's cache.
const BUFFER: usize = 128 * 1024;
/// The memory for telling repeated deliveries, in entries of four bytes.
const SEEN: usize = 1 << 24;
/// The token under which the publishers' epoll instance is watched.
const PUBLISHERS: u64 = u64::MAX;

/// When the next message may go.
pub(crate) enum Pace {
    /// While fewer than this many are in flight.
    Window(usize),
    /// At fixed times, whether the server keeps up or not.
    Rate { interval: u64, due: u64 },
    /// At once, until so many more are sent.
    Burst(usize),
}

/// What to do until a moment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Publish, until the pace comes to its end.
    Publish,
    /// Only read, and no longer than until nothing is on its way.
    Drain,
    /// Only read.
    Listen,
}

impl Pace {
    pub(crate) fn window(messages: usize) -> Self {
        Self::Window(messages)
    }

    pub(crate) fn rate(per_second: usize) -> Self {
        let interval = seconds(1) / per_second as u64;
        Self::Rate { interval, due: 0 }
    }

    /// How many messages are due.
    fn behind(&self, now: u64) -> u64 {
        match self {
            Self::Window(_) | Self::Burst(_) => 0,
            Self::Rate { interval, due } => now.saturating_sub(*due) / interval,
        }
    }

    /// How many messages the ledger has to hold at once. At a fixed rate that
    /// is as many as the server may fall behind by.
    fn span(&self, traffic: &Traffic) -> usize {
        match self {
            Self::Window(messages) => messages * 2,
            Self::Burst(messages) => *messages,
            Self::Rate { .. } => (SEEN / traffic.subscribers).clamp(64, 4096) / 2,
        }
    }
}

/// Runs with the subscribers spread evenly over so many channels, and with some
/// more who do not read; reports, and says whether every delivery was as it should
/// be.
pub(crate) fn run(traffic: &Traffic, channels: usize, pace: Pace, stalled: usize) -> Outcome<bool> {
    subscriber::make_room_for(traffic.subscribers + traffic.publishers + stalled)?;
    let mut run = Run::begin(traffic, channels, pace)?;
    let mut stalled = Stalled::join(&traffic.target, &traffic.channel, stalled)?;
    let summary = run.go()?;
    let still_open = stalled.still_open()?;
    let mut object = summary.describe(traffic, &run.pace, run.latencies());
    object["stalled"] = json!(stalled.count());
    object["stalled_open"] = json!(still_open);
    report::print(&object, traffic.target.json)?;
    Ok(summary.is_clean() && still_open == 0)
}

/// What a run has to report, besides the latencies.
pub(crate) struct Summary {
    pub(crate) tally: Tally,
    pub(crate) http_errors: u64,
    pub(crate) first_refusal: Option<String>,
    /// Messages that were due while every publisher waited for its answer.
    pub(crate) late: u64,
    /// Messages that were due and could not be published at all.
    pub(crate) behind: u64,
}

impl Summary {
    pub(crate) fn is_clean(&self) -> bool {
        self.tally.is_clean() && self.http_errors == 0
    }

    pub(crate) fn describe(
        &self,
        traffic: &Traffic,
        pace: &Pace,
        latencies: &Histogram<u64>,
    ) -> Value {
        let mut object = self.tally.describe(latencies);
        object["subscribers"] = json!(traffic.subscribers);
        object["publishers"] = json!(traffic.publishers);
        object["size"] = json!(traffic.size);
        object["http_errors"] = json!(self.http_errors);
        object["first_http_error"] = json!(self.first_refusal);
        match pace {
            Pace::Window(messages) => object["window"] = json!(messages),
            Pace::Rate { interval, .. } => {
                object["rate"] = json!(1e9 / *interval as f64);
                object["late"] = json!(self.late);
                object["behind"] = json!(self.behind);
            }
            Pace::Burst(unsent) => object["unsent"] = json!(unsent),
        }
        object
    }
}

/// What is written to a channel and read from it.
struct Line {
    template: Template,
    reader: Reader,
}

pub(crate) struct Run<'a> {
    traffic: &'a Traffic,
    pub(crate) pace: Pace,
    pub(crate) clock: Clock,
    app: App,
    lines: Vec<Line>,
    /// The channel of the next message.
    next: usize,
    /// Subscribers of each channel.
    group: usize,
    ledger: Ledger,
    subscribers: Vec<Subscriber>,
    publishers: Vec<Publisher>,
    /// Per publisher, the message whose answer has not come.
    outstanding: Vec<Option<Mark>>,
    idle: VecDeque<usize>,
    arrivals: Epoll,
    answers: Epoll,
    buffer: Vec<u8>,
    body: String,
    /// Whether the message that is due had to wait for a publisher.
    overdue: bool,
    late: u64,
    http_errors: u64,
    first_refusal: Option<String>,
}

impl<'a> Run<'a> {
    pub(crate) fn begin(traffic: &'a Traffic, channels: usize, pace: Pace) -> Outcome<Self> {
        let names: Vec<String> = (0..channels)
            .map(|number| subscriber::channel(&traffic.channel, number, channels))
            .collect();
        let (subscribers, arrivals) = audience(traffic, &names)?;
        let route = Route::for_publishing(&traffic.target)?;
        let answers = Epoll::new()?;
        answers.nest_in(&arrivals, PUBLISHERS)?;
        let mut publishers = Vec::new();
        for number in 0..traffic.publishers {
            let mut publisher = Publisher::connect(&route, number, !traffic.close)?;
            if traffic.keys {
                publisher.use_keys();
            }
            answers.add(publisher.stream(), number as u64)?;
            publishers.push(publisher);
        }
        let (group, span) = (subscribers.len() / channels, pace.span(traffic));
        let line = |name: &String| {
            let template = Template::new(name, traffic.size);
            let reader = Reader::new(template.clone());
            Line { template, reader }
        };
        Ok(Self {
            traffic,
            pace,
            clock: Clock::start(),
            app: App::of(&traffic.target),
            lines: names.iter().map(line).collect(),
            next: 0,
            group,
            ledger: Ledger::with_audiences(group, subscribers.len(), publishers.len(), span),
            outstanding: vec![None; publishers.len()],
            idle: (0..publishers.len()).collect(),
            subscribers,
            publishers,
            arrivals,
            answers,
            buffer: vec![0; BUFFER],
            body: String::new(),
            overdue: false,
            late: 0,
            http_errors: 0,
            first_refusal: None,
        })
    }

    /// Warms up, measures, and waits for what is on its way.
    pub(crate) fn go(&mut self) -> Outcome<Summary> {
        let server = self.traffic.target.pid.map(Process::with_pid);
        let began = self.clock.now();
        if let Pace::Rate { due, .. } = &mut self.pace {
            *due = began;
        }
        let from = began + seconds(self.traffic.span.warmup);
        self.work_until(from, Work::Publish)?;
        let before = self.ledger.counts();
        let usage = Usage::before(server)?;
        self.ledger.begin_to_measure();
        let end = self.clock.now() + seconds(self.traffic.span.seconds);
        self.work_until(end, Work::Publish)?;
        let measured = self.ledger.counts().since(before);
        self.finish(measured, usage.until_now()?)
    }

    /// Waits for what is on its way, and closes the account.
    pub(crate) fn finish(&mut self, measured: Counts, usage: Usage) -> Outcome<Summary> {
        let behind = self.pace.behind(self.clock.now());
        self.work_until(self.clock.now() + DRAIN, Work::Drain)?;
        let unanswered = self.outstanding.iter().flatten().count() as u64;
        Ok(Summary {
            tally: Tally::of(&self.ledger, measured, usage),
            http_errors: self.http_errors + unanswered,
            first_refusal: self.first_refusal.take(),
            late: self.late,
            behind,
        })
    }

    pub(crate) fn latencies(&self) -> &Histogram<u64> {
        self.ledger.latencies()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.ledger.counts()
    }

    /// Works until a moment, or, when nothing more is to be published, until
    /// nothing is on its way.
    pub(crate) fn work_until(&mut self, end: u64, work: Work) -> Outcome<()> {
        let mut events = Events::with_capacity(BATCH);
        loop {
            let now = self.clock.now();
            let finished = self.ledger.in_flight() == 0 && self.idle.len() == self.publishers.len();
            let to_come = match work {
                Work::Publish => !matches!(self.pace, Pace::Burst(0)),
                Work::Drain => false,
                Work::Listen => true,
            };
            if now >= end || (finished && !to_come) {
                return Ok(());
            }
            let mut wake = end;
            if work == Work::Publish {
                self.publish_what_may_go(now)?;
                if let Pace::Rate { due, .. } = self.pace
                    && !self.overdue
                {
                    wake = wake.min(due);
                }
            }
            let pause = Duration::from_nanos(wake.saturating_sub(now));
            self.arrivals.wait(&mut events, pause)?;
            for index in 0..events.len() {
                let token = events.get(index).token;
                if token != PUBLISHERS {
                    self.receive(token as usize)?;
                }
            }
            self.take_answers()?;
        }
    }

    /// Reads one subscriber once and enters every delivery that this makes whole.
    fn receive(&mut self, number: usize) -> Outcome<()> {
        let reader = &mut self.lines[number / self.group].reader;
        let ledger = &mut self.ledger;
        self.subscribers[number].receive(&mut self.buffer, self.clock, |text, now| {
            let Some(mark) = reader.read(text)? else {
                return Ok(false);
            };
            ledger.deliver(number, mark, now);
            Ok(true)
        })
    }

    fn publish_what_may_go(&mut self, now: u64) -> Outcome<()> {
        loop {
            let due = match self.pace {
                Pace::Window(messages) => {
                    if self.ledger.in_flight() >= messages || !self.ledger.has_room() {
                        return Ok(());
                    }
                    None
                }
                Pace::Burst(0) => return Ok(()),
                Pace::Burst(_) => None,
                Pace::Rate { due, .. } if due > now => return Ok(()),
                Pace::Rate { due, .. } => Some(due),
            };
            if !self.ledger.has_room() {
                return Err("the server does not keep up with the rate at all".into());
            }
            let Some(number) = self.idle.pop_front() else {
                self.late += u64::from(due.is_some() && !self.overdue);
                self.overdue = due.is_some();
                return Ok(());
            };
            // A message that waited for a publisher waited for the server, and
            // that belongs to its latency.
            let sent = due.filter(|_| self.overdue);
            self.publish(number, sent)?;
            self.overdue = false;
            match &mut self.pace {
                Pace::Window(_) => {}
                Pace::Rate { interval, due } => *due += *interval,
                Pace::Burst(left) => *left -= 1,
            }
        }
    }

    fn publish(&mut self, number: usize, sent: Option<u64>) -> Outcome<()> {
        let publisher = &mut self.publishers[number];
        let line = self.next;
        self.next = (line + 1) % self.lines.len();
        let audience = Audience {
            first: (line * self.group) as u32,
            count: self.group as u32,
            sender: None,
        };
        let mark = self.ledger.publish_to(audience, number as u32);
        self.lines[line].template.write_body(mark, &mut self.body);
        publisher.prepare(&self.app.publish_target(&self.body), &self.body);
        self.outstanding[number] = Some(mark);
        self.ledger
            .sent(mark, sent.unwrap_or_else(|| self.clock.now()));
        publisher.send()
    }

    fn take_answers(&mut self) -> Outcome<()> {
        let mut events = Events::with_capacity(BATCH);
        self.answers.wait(&mut events, Duration::ZERO)?;
        for index in 0..events.len() {
            let number = events.get(index).token as usize;
            let publisher = &mut self.publishers[number];
            let answer = publisher.receive()?;
            if publisher.revive()? {
                self.answers.add(publisher.stream(), number as u64)?;
            }
            let (Some(answer), Some(mark)) = (answer, self.outstanding[number]) else {
                continue;
            };
            self.outstanding[number] = None;
            self.idle.push_back(number);
            if answer.status != 200 {
                self.ledger.reject(mark);
                self.http_errors += 1;
                let refusal = format!("{} {}", answer.status, answer.body.trim());
                let first = self.first_refusal.get_or_insert(refusal);
                if self.http_errors >= REFUSALS {
                    return Err(format!("{REFUSALS} publishes were refused, first: {first}").into());
                }
            }
        }
        Ok(())
    }
}

/// The subscribers, as many in each channel, and what watches each by its number.
fn audience(traffic: &Traffic, names: &[String]) -> Outcome<(Vec<Subscriber>, Epoll)> {
    let target = &traffic.target;
    if traffic.channel.starts_with("presence-") {
        let [name] = names else {
            return Err("a presence channel has to be the only one".into());
        };
        let crowd = Crowd::gather(target, traffic.subscribers, name)?;
        return Ok((crowd.members, crowd.arrivals));
    }
    let (app, route) = (App::of(target), Route::of(target)?);
    let arrivals = Epoll::new()?;
    let group = traffic.subscribers / names.len();
    let mut subscribers = Vec::new();
    for number in 0..group * names.len() {
        let subscriber = Subscriber::join(&route, number, &app, &names[number / group])?;
        arrivals.add(subscriber.stream(), number as u64)?;
        subscribers.push(subscriber);
    }
    Ok((subscribers, arrivals))
}

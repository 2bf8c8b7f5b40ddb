//! Subscriptions that come and go on sockets that stay: each socket takes the
//! channels of its own turn by turn, subscribing and unsubscribing, with several
//! of these operations on their way.
//!
//! A subscription has to be confirmed, in order; there is no answer to an
//! unsubscription. So at the end half of what each socket had joined and left is
//! joined once more, and a message to every channel shows who is in it: it has to
//! reach those who joined and nobody else.

use crate::Outcome;
use crate::app::App;
use crate::args::Resubscribe;
use crate::clock::{Clock, seconds};
use crate::entry;
use crate::process::Process;
use crate::publisher::Publisher;
use crate::report::{self, Usage};
use crate::stream::Route;
use crate::subscriber::{self, Subscriber};
use crate::sys::{Epoll, Events};
use serde_json::{Value, json};
use std::time::Duration;

/// How long to wait for confirmations and messages at the end.
const DRAIN: u64 = seconds(5);
/// How long to wait for messages that should not come.
const SILENCE: u64 = seconds(1) / 4;
/// The event of the messages at the end.
const AUDIT: &str = "message";
const BATCH: usize = 64;
const BUFFER: usize = 64 * 1024;

/// Runs, reports, and says whether everybody was where they should be.
pub(crate) fn run(options: &Resubscribe) -> Outcome<bool> {
    subscriber::make_room_for(options.sockets)?;
    let server = options.target.pid.map(Process::with_pid);
    let mut turnstile = Turnstile::begin(options)?;
    turnstile.work_until(
        turnstile.clock.now() + seconds(options.span.warmup),
        Work::Pass,
    )?;
    let before = turnstile.operations;
    let usage = Usage::before(server)?;
    turnstile.work_until(
        turnstile.clock.now() + seconds(options.span.seconds),
        Work::Pass,
    )?;
    let operations = turnstile.operations - before;
    let usage = usage.until_now()?;
    turnstile.work_until(turnstile.clock.now() + DRAIN, Work::Confirm)?;
    let unconfirmed: usize = turnstile.passers.iter().map(|passer| passer.waiting).sum();
    let audit = turnstile.audit()?;
    let mut object = json!({
        "sockets": options.sockets,
        "channels": options.channels,
        "pipeline": options.pipeline,
        "operations": operations,
        "operations_total": turnstile.operations,
        "unconfirmed": unconfirmed,
        "audit_expected": audit.expected,
        "audit_missing": audit.missing,
        "audit_unexpected": audit.unexpected,
    });
    usage.describe("operations", operations, &mut object);
    report::print(&object, options.target.json)?;
    Ok(unconfirmed as u64 + audit.missing + audit.unexpected == 0)
}

struct Passer {
    /// The channels that it goes through, by number.
    channels: Vec<usize>,
    /// To subscribe to each of them.
    subscriptions: Vec<Vec<u8>>,
    /// Which of them comes next, and which has to be confirmed next.
    next: usize,
    awaited: usize,
    /// Subscriptions on their way, each with an unsubscription behind it.
    waiting: usize,
    /// Messages that have reached it, by place in `channels`.
    received: Vec<u64>,
}

/// What the messages at the end showed.
#[derive(Default)]
struct Audit {
    expected: u64,
    missing: u64,
    unexpected: u64,
}

/// What to do until a moment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Subscribe and unsubscribe.
    Pass,
    /// Only read, and no longer than until every subscription is confirmed.
    Confirm,
    /// Only read.
    Listen,
}

struct Turnstile<'a> {
    options: &'a Resubscribe,
    clock: Clock,
    app: App,
    /// To where the messages at the end are published.
    route: Route,
    names: Vec<String>,
    /// To unsubscribe from each channel.
    unsubscriptions: Vec<Vec<u8>>,
    /// The confirmation of each channel, once one was seen.
    confirmations: Vec<Vec<u8>>,
    sockets: Vec<Subscriber>,
    passers: Vec<Passer>,
    operations: u64,
    arrivals: Epoll,
    buffer: Vec<u8>,
    batch: Vec<u8>,
}

impl<'a> Turnstile<'a> {
    fn begin(options: &'a Resubscribe) -> Outcome<Self> {
        let target = &options.target;
        let (app, route) = (App::of(target), Route::of(target)?);
        let names: Vec<String> = (0..options.channels)
            .map(|number| subscriber::channel(&options.channel, number, options.channels))
            .collect();
        let arrivals = Epoll::new()?;
        let (mut sockets, mut passers) = (Vec::new(), Vec::new());
        for number in 0..options.sockets {
            let (socket, id) = Subscriber::connect(&route, number, &app)?;
            arrivals.add(socket.stream(), number as u64)?;
            sockets.push(socket);
            // As many as are on their way at a time, and all different.
            let own = (options.pipeline / 2).min(options.channels);
            let channels: Vec<usize> = (0..own)
                .map(|place| (number + place) % options.channels)
                .collect();
            let request = |channel: &usize| entry::subscription(&app, &id, &names[*channel], None);
            passers.push(Passer {
                subscriptions: channels.iter().map(request).collect(),
                received: vec![0; own],
                channels,
                next: 0,
                awaited: 0,
                waiting: 0,
            });
        }
        Ok(Self {
            options,
            clock: Clock::start(),
            app,
            route: Route::for_publishing(target)?,
            unsubscriptions: names
                .iter()
                .map(|name| entry::unsubscription(name))
                .collect(),
            confirmations: vec![Vec::new(); names.len()],
            names,
            sockets,
            passers,
            operations: 0,
            arrivals,
            buffer: vec![0; BUFFER],
            batch: Vec::new(),
        })
    }

    fn work_until(&mut self, end: u64, work: Work) -> Outcome<()> {
        if work == Work::Pass {
            for number in 0..self.passers.len() {
                self.pass(number)?;
            }
        }
        let mut events = Events::with_capacity(BATCH);
        loop {
            let now = self.clock.now();
            let waiting = self.passers.iter().any(|passer| passer.waiting > 0);
            if now >= end || (work == Work::Confirm && !waiting) {
                return Ok(());
            }
            self.arrivals
                .wait(&mut events, Duration::from_nanos(end - now))?;
            for index in 0..events.len() {
                let number = events.get(index).token as usize;
                self.receive(number)?;
                if work == Work::Pass {
                    self.pass(number)?;
                }
            }
        }
    }

    /// Sends as many operations as may be on their way, with one call.
    fn pass(&mut self, number: usize) -> Outcome<()> {
        let passer = &mut self.passers[number];
        self.batch.clear();
        while passer.waiting < self.options.pipeline / 2 {
            let place = passer.next;
            passer.next = (place + 1) % passer.channels.len();
            passer.waiting += 1;
            self.batch.extend_from_slice(&passer.subscriptions[place]);
            self.batch
                .extend_from_slice(&self.unsubscriptions[passer.channels[place]]);
        }
        match self.batch.is_empty() {
            true => Ok(()),
            false => self.sockets[number].send(&self.batch),
        }
    }

    fn receive(&mut self, number: usize) -> Outcome<()> {
        let passer = &mut self.passers[number];
        let (names, usual) = (&self.names, &mut self.confirmations);
        let operations = &mut self.operations;
        self.sockets[number].receive(&mut self.buffer, self.clock, |text, _| {
            let channel = passer.channels[passer.awaited];
            if text != usual[channel] {
                let message: Value = serde_json::from_slice(text)?;
                if message["event"] == AUDIT {
                    record(&message, &passer.channels, &mut passer.received, names)?;
                    return Ok(true);
                }
                if message["event"] != "pusher_internal:subscription_succeeded" {
                    return Ok(false);
                }
                if message["channel"] != *names[channel] {
                    return Err(format!("another confirmation was due: {message}").into());
                }
                usual[channel] = text.to_vec();
            }
            if passer.waiting == 0 {
                return Err("the server confirmed a subscription twice".into());
            }
            passer.awaited = (passer.awaited + 1) % passer.channels.len();
            passer.waiting -= 1;
            *operations += 2;
            Ok(true)
        })
    }

    /// Joins half of the channels of each socket, publishes to all channels once
    /// and counts who gets what.
    fn audit(&mut self) -> Outcome<Audit> {
        for (passer, socket) in self.passers.iter_mut().zip(&mut self.sockets) {
            // From where the turn stands, so that the confirmations keep their order.
            passer.channels.rotate_left(passer.awaited);
            passer.subscriptions.rotate_left(passer.awaited);
            passer.awaited = 0;
            passer.waiting = passer.joined();
            socket.send(&passer.subscriptions[..passer.waiting].concat())?;
        }
        self.work_until(self.clock.now() + DRAIN, Work::Confirm)?;
        self.publish_everywhere()?;
        let end = self.clock.now() + DRAIN;
        while self.clock.now() < end && self.count().missing > 0 {
            self.work_until(self.clock.now() + SILENCE, Work::Listen)?;
        }
        // What should not come may come later.
        self.work_until(self.clock.now() + SILENCE, Work::Listen)?;
        Ok(self.count())
    }

    /// Publishes the name of each channel to it.
    fn publish_everywhere(&self) -> Outcome<()> {
        let mut publisher = Publisher::connect(&self.route, 0, true)?;
        let answers = Epoll::new()?;
        answers.add(publisher.stream(), 0)?;
        let mut events = Events::with_capacity(1);
        for name in &self.names {
            let body = json!({ "name": AUDIT, "data": name, "channels": [name] }).to_string();
            publisher.prepare(&self.app.publish_target(&body), &body);
            publisher.send()?;
            let answer = loop {
                answers.wait(&mut events, Duration::from_nanos(DRAIN))?;
                if events.len() == 0 {
                    return Err("the server does not answer a publish".into());
                }
                if let Some(answer) = publisher.receive()? {
                    break answer;
                }
            };
            if answer.status != 200 {
                return Err(format!("a publish was refused: {}", answer.body.trim()).into());
            }
        }
        Ok(())
    }

    fn count(&self) -> Audit {
        let mut audit = Audit::default();
        for passer in &self.passers {
            for (place, &received) in passer.received.iter().enumerate() {
                let expected = u64::from(place < passer.joined());
                audit.expected += expected;
                audit.missing += expected.saturating_sub(received);
                audit.unexpected += received.saturating_sub(expected);
            }
        }
        audit
    }
}

impl Passer {
    /// How many of its channels it joins for the audit.
    fn joined(&self) -> usize {
        self.channels.len().div_ceil(2)
    }
}

/// Enters a message of the audit.
fn record(message: &Value, own: &[usize], received: &mut [u64], names: &[String]) -> Outcome<()> {
    let name = &message["channel"];
    let place = own.iter().position(|channel| *name == *names[*channel]);
    let place = place.ok_or(format!("a message went astray: {message}"))?;
    if message["data"] != *name {
        return Err(format!("a message is not what was published: {message}").into());
    }
    received[place] += 1;
    Ok(())
}

//! A Redis and nothing else: how long a message takes from its `PUBLISH` on one
//! connection until it arrives on another one that has subscribed. Whoever passes
//! events from node to node through Redis takes at least as long.
//!
//! It waits, reads the clock and sends as a run against a server does, so that the
//! times can be compared. This is not a client: it knows the four answers that it
//! gets.

use crate::Outcome;
use crate::args::Redis;
use crate::clock::{Clock, seconds};
use crate::report::{self, Usage};
use crate::stream::PATIENCE;
use crate::sys::{Epoll, Events};
use hdrhistogram::Histogram;
use serde_json::json;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long to wait for what is still on its way when the publishing is over.
const DRAIN: u64 = seconds(5);
/// Times longer than this many nanoseconds count as this long.
const MAX_NANOS: u64 = 60_000_000_000;
/// The digits of a sequence, with which a message begins.
const DIGITS: usize = 10;
/// The answer to a `PUBLISH`: it has reached one subscriber.
const REACHED_ONE: &[u8] = b":1\r\n";
const PUBLISHER: u64 = 0;
const SUBSCRIBER: u64 = 1;

/// Runs, reports, and says whether every message arrived, once and in order.
pub(crate) fn run(options: &Redis) -> Outcome<bool> {
    let mut wire = Wire::connect(options)?;
    wire.due = wire.clock.now();
    wire.work_until(wire.clock.now() + seconds(options.span.warmup), true)?;
    let (before, usage) = (wire.arrived, Usage::before(None)?);
    wire.times.reset();
    wire.work_until(wire.clock.now() + seconds(options.span.seconds), true)?;
    let (arrived, usage) = (wire.arrived - before, usage.until_now()?);
    wire.work_until(wire.clock.now() + DRAIN, false)?;
    let mut object = json!({
        "size": options.size,
        "rate": options.rate,
        "latency_us": report::quantiles(&wire.times),
        "messages": arrived,
        "lost": wire.sent.len(),
    });
    usage.describe("messages", arrived, &mut object);
    report::print(&object, options.json)?;
    Ok(wire.sent.is_empty())
}

/// One connection that publishes and one that has subscribed.
struct Wire {
    clock: Clock,
    publisher: TcpStream,
    subscriber: TcpStream,
    /// Every `PUBLISH` and every arrival, but for the digits.
    request: (Vec<u8>, Vec<u8>),
    arrival: (Vec<u8>, Vec<u8>),
    interval: u64,
    /// When the next message is due, and its sequence.
    due: u64,
    next: u64,
    /// The messages that have not arrived, and when they were sent.
    sent: VecDeque<(u64, u64)>,
    arrived: u64,
    times: Histogram<u64>,
    answers: Vec<u8>,
    received: Vec<u8>,
    ready: Epoll,
}

impl Wire {
    fn connect(options: &Redis) -> Outcome<Self> {
        let (channel, size) = (&options.channel, options.size);
        let name = format!("${}\r\n{channel}\r\n", channel.len());
        let padding = format!("{}\r\n", "x".repeat(size - DIGITS)).into_bytes();
        let head = |word: &str| {
            let text = format!("*3\r\n${}\r\n{word}\r\n{name}${size}\r\n", word.len());
            text.into_bytes()
        };
        let (publisher, mut subscriber) = (open(options.addr)?, open(options.addr)?);
        subscriber.write_all(format!("*2\r\n$9\r\nSUBSCRIBE\r\n{name}").as_bytes())?;
        let confirmation = format!("*3\r\n$9\r\nsubscribe\r\n{name}:1\r\n").into_bytes();
        let mut answer = vec![0; confirmation.len()];
        subscriber
            .read_exact(&mut answer)
            .map_err(|error| format!("waited in vain for Redis: {error}"))?;
        if answer != confirmation {
            let answer = String::from_utf8_lossy(&answer);
            return Err(format!("Redis does not confirm a subscription: {answer}").into());
        }
        let ready = Epoll::new()?;
        for (stream, token) in [(&publisher, PUBLISHER), (&subscriber, SUBSCRIBER)] {
            stream.set_nonblocking(true)?;
            ready.add(stream, token)?;
        }
        Ok(Self {
            clock: Clock::start(),
            publisher,
            subscriber,
            request: (head("PUBLISH"), padding.clone()),
            arrival: (head("message"), padding),
            interval: seconds(1) / options.rate as u64,
            due: 0,
            next: 1,
            sent: VecDeque::new(),
            arrived: 0,
            times: Histogram::new_with_bounds(1, MAX_NANOS, 3)?,
            answers: Vec::new(),
            received: Vec::new(),
            ready,
        })
    }

    /// Works until a moment, or, when nothing more is to be published, until nothing
    /// is on its way.
    fn work_until(&mut self, end: u64, publishing: bool) -> Outcome<()> {
        let mut events = Events::with_capacity(2);
        loop {
            let now = self.clock.now();
            if now >= end || (!publishing && self.sent.is_empty()) {
                return Ok(());
            }
            let mut wake = end;
            if publishing {
                while self.due <= self.clock.now() {
                    self.publish()?;
                    self.due += self.interval;
                }
                wake = wake.min(self.due);
            }
            let pause = wake.saturating_sub(self.clock.now());
            self.ready.wait(&mut events, Duration::from_nanos(pause))?;
            for index in 0..events.len() {
                match events.get(index).token {
                    PUBLISHER => self.take_answers()?,
                    _ => self.take_arrivals()?,
                }
            }
        }
    }

    fn publish(&mut self) -> Outcome<()> {
        let (head, tail) = &self.request;
        let digits = format!("{:0DIGITS$}", self.next);
        let request = [head, digits.as_bytes(), tail].concat();
        self.sent.push_back((self.next, self.clock.now()));
        self.next += 1;
        self.publisher
            .write_all(&request)
            .map_err(|error| format!("cannot publish to Redis: {error}").into())
    }

    fn take_answers(&mut self) -> Outcome<()> {
        read(&mut self.publisher, &mut self.answers)?;
        while let Some(answer) = self.answers.get(..REACHED_ONE.len()) {
            if answer != REACHED_ONE {
                let answer = String::from_utf8_lossy(&self.answers);
                return Err(format!("Redis answers a PUBLISH with {answer}").into());
            }
            self.answers.drain(..REACHED_ONE.len());
        }
        Ok(())
    }

    fn take_arrivals(&mut self) -> Outcome<()> {
        read(&mut self.subscriber, &mut self.received)?;
        let now = self.clock.now();
        let (head, tail) = &self.arrival;
        let length = head.len() + DIGITS + tail.len();
        while let Some(text) = self.received.get(..length) {
            let due = self.sent.pop_front();
            let (sequence, sent) = due.ok_or("Redis delivers what was not published")?;
            let digits = format!("{sequence:0DIGITS$}");
            if text != [head, digits.as_bytes(), tail].concat() {
                return Err(format!("message {sequence} is not what was published").into());
            }
            self.times.saturating_record(now.saturating_sub(sent));
            self.arrived += 1;
            self.received.drain(..length);
        }
        Ok(())
    }
}

fn open(addr: SocketAddr) -> Outcome<TcpStream> {
    let stream = TcpStream::connect_timeout(&addr, PATIENCE)
        .map_err(|error| format!("cannot connect to Redis at {addr}: {error}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Reads once and appends what that gives.
fn read(stream: &mut TcpStream, to: &mut Vec<u8>) -> Outcome<()> {
    let mut buffer = [0; 4096];
    match stream.read(&mut buffer) {
        Ok(0) => Err("Redis closed a connection".into()),
        Ok(count) => {
            to.extend_from_slice(&buffer[..count]);
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(format!("cannot read from Redis: {error}").into()),
    }
}

//! Connections that are made anew whenever the server closes them, as pusher-js does with
//! codes from 4200 to 4299: at once, as soon as the closed one has ended.

use crate::Outcome;
use crate::app::App;
use crate::args::Drain;
use crate::clock::Clock;
use crate::entry::{self, Entry};
use crate::stream::{Route, Stream};
use crate::subscriber;
use crate::sys::{Epoll, Events};
use crate::wire::{self, Frame};
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::time::Duration;

/// Codes at which a client connects again at once.
const AT_ONCE: RangeInclusive<u16> = 4200..=4299;
/// Connections that were lost otherwise after which there is no point in going on.
const MAX_ERRORS: u64 = 1000;
const BATCH: usize = 64;
const BUFFER: usize = 64 * 1024;
/// Reconnections that take longer than this many nanoseconds count as this long.
const MAX_NANOS: u64 = 60_000_000_000;
const PONG: &[u8] = br#"{"event":"pusher:pong""#;
/// The token of what is watched besides the connections.
const OTHER: u64 = u64::MAX;

/// Many connections, each subscribed to a channel.
pub(crate) struct Clients {
    clock: Clock,
    app: App,
    route: Route,
    channels: Vec<String>,
    all: Vec<Client>,
    arrivals: Epoll,
    buffer: Vec<u8>,
    /// How many are subscribed.
    pub(crate) open: usize,
    /// By their codes, how many were closed.
    pub(crate) closed: BTreeMap<u16, u64>,
    pub(crate) first_close: Option<u64>,
    /// When the new connections were established.
    pub(crate) reconnected: Vec<u64>,
    /// From the end of the old connection until then.
    pub(crate) took: Histogram<u64>,
    pub(crate) pongs: usize,
    /// Connections that were lost without such a code, or could not be made.
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    /// Whether what is watched besides the connections is ready.
    pub(crate) other_is_ready: bool,
}

struct Client {
    state: State,
    /// When the connection before ended.
    ended: u64,
}

enum State {
    /// Waits for the greeting.
    Connecting(Entry),
    /// Waits for the answer to its subscription.
    Subscribing(Entry),
    Open(Socket),
    /// Has answered the server's close frame, and waits for the connection's end.
    Closing(Socket),
    None,
}

struct Socket {
    stream: Stream,
    /// The beginning of a frame whose end has not been read yet.
    tail: Vec<u8>,
}

/// What a socket has got.
#[derive(Default)]
struct Received {
    close: Option<u16>,
    pongs: usize,
}

impl Clients {
    /// Connects and subscribes them, one after the other.
    pub(crate) fn join(options: &Drain, clock: Clock) -> Outcome<Self> {
        let name = |number| subscriber::channel(&options.channel, number, options.channels);
        let mut clients = Self {
            clock,
            app: App::of(&options.target),
            route: Route::of(&options.target)?,
            channels: (0..options.channels).map(name).collect(),
            all: Vec::with_capacity(options.sockets),
            arrivals: Epoll::new()?,
            buffer: vec![0; BUFFER],
            open: 0,
            closed: BTreeMap::new(),
            first_close: None,
            reconnected: Vec::with_capacity(options.sockets),
            took: Histogram::new_with_bounds(1, MAX_NANOS, 3)?,
            pongs: 0,
            errors: 0,
            first_error: None,
            other_is_ready: false,
        };
        for number in 0..options.sockets {
            let mut entry = Entry::open(&clients.route, number, &clients.app)?;
            let id = entry.wait("the greeting", Entry::established)?;
            let channel = &clients.channels[number % options.channels];
            entry.send(&entry::subscription(&clients.app, &id, channel, None))?;
            entry.wait("the answer to a subscription", |entry| {
                entry.subscribed(channel)
            })?;
            let socket = Socket::of(entry)?;
            clients.arrivals.add(socket.stream.tcp(), number as u64)?;
            let state = State::Open(socket);
            clients.all.push(Client { state, ended: 0 });
            clients.open += 1;
        }
        Ok(clients)
    }

    /// The name of the channel of the first one.
    pub(crate) fn first_channel(&self) -> &str {
        &self.channels[0]
    }

    pub(crate) fn are_all_open(&self) -> bool {
        self.open == self.all.len()
    }

    /// Also says whether this is ready.
    pub(crate) fn watch(&self, other: &impl AsFd) -> Outcome<()> {
        Ok(self.arrivals.add(other, OTHER)?)
    }

    pub(crate) fn unwatch(&self, other: &impl AsFd) -> Outcome<()> {
        Ok(self.arrivals.remove(other)?)
    }

    /// Works until a moment, or until it is enough.
    pub(crate) fn work_until(
        &mut self,
        end: u64,
        mut is_enough: impl FnMut(&Self) -> bool,
    ) -> Outcome<()> {
        let mut events = Events::with_capacity(BATCH);
        loop {
            let now = self.clock.now();
            if now >= end || is_enough(self) {
                return Ok(());
            }
            self.arrivals
                .wait(&mut events, Duration::from_nanos(end - now))?;
            for index in 0..events.len() {
                match events.get(index).token {
                    OTHER => self.other_is_ready = true,
                    number => self.go_on(number as usize)?,
                }
            }
        }
    }

    /// Sends a ping on every open connection.
    pub(crate) fn ping_all(&mut self) -> Outcome<()> {
        let ping = wire::masked(wire::TEXT, br#"{"event":"pusher:ping","data":{}}"#);
        for client in &mut self.all {
            if let State::Open(socket) = &mut client.state {
                socket.stream.write_all(&ping)?;
            }
        }
        Ok(())
    }

    /// Reads one that is readable once, and makes it anew if it has ended.
    fn go_on(&mut self, number: usize) -> Outcome<()> {
        let state = std::mem::replace(&mut self.all[number].state, State::None);
        match self.next_state(number, state) {
            Ok(state) => self.all[number].state = state,
            Err(error) => {
                self.errors += 1;
                if self.errors >= MAX_ERRORS {
                    return Err(format!("too many connections were lost: {error}").into());
                }
                self.first_error.get_or_insert(error.to_string());
                self.reconnect(number)?;
            }
        }
        Ok(())
    }

    fn next_state(&mut self, number: usize, state: State) -> Outcome<State> {
        let channel = &self.channels[number % self.channels.len()];
        match state {
            State::Connecting(mut entry) => {
                entry.read()?;
                let Some(id) = entry.established()? else {
                    return Ok(State::Connecting(entry));
                };
                let now = self.clock.now();
                self.reconnected.push(now);
                self.took.saturating_record(now - self.all[number].ended);
                entry.send(&entry::subscription(&self.app, &id, channel, None))?;
                Ok(State::Subscribing(entry))
            }
            State::Subscribing(mut entry) => {
                entry.read()?;
                if entry.subscribed(channel)?.is_none() {
                    return Ok(State::Subscribing(entry));
                }
                self.open += 1;
                Ok(State::Open(Socket::of(entry)?))
            }
            State::Open(mut socket) => self.listen(&mut socket).map_or_else(
                |error| {
                    self.open -= 1;
                    Err(error)
                },
                |state| Ok(state(socket)),
            ),
            State::Closing(mut socket) => match socket.stream.read(&mut self.buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(State::Closing(socket)),
                _ => {
                    drop(socket);
                    self.reconnect(number)?;
                    Ok(std::mem::replace(&mut self.all[number].state, State::None))
                }
            },
            State::None => Ok(State::None),
        }
    }

    /// Reads an open one; in which state it is then.
    fn listen(&mut self, socket: &mut Socket) -> Outcome<fn(Socket) -> State> {
        let received = socket.receive(&mut self.buffer)?;
        self.pongs += received.pongs;
        let Some(code) = received.close else {
            return Ok(State::Open);
        };
        *self.closed.entry(code).or_default() += 1;
        if !AT_ONCE.contains(&code) {
            return Err(format!("a connection was closed with {code}").into());
        }
        self.first_close.get_or_insert_with(|| self.clock.now());
        self.open -= 1;
        Ok(State::Closing)
    }

    fn reconnect(&mut self, number: usize) -> Outcome<()> {
        self.all[number].ended = self.clock.now();
        let entry = Entry::open(&self.route, number, &self.app)?;
        self.arrivals.add(entry.stream(), number as u64)?;
        self.all[number].state = State::Connecting(entry);
        Ok(())
    }
}

impl Socket {
    fn of(entry: Entry) -> Outcome<Self> {
        let (stream, tail) = entry.into_parts();
        TcpStream::set_nonblocking(stream.tcp(), true)?;
        Ok(Self { stream, tail })
    }

    /// Reads once. Answers pings and a close frame; the latter says with which code.
    fn receive(&mut self, buffer: &mut [u8]) -> Outcome<Received> {
        let mut received = Received::default();
        let mut bytes = std::mem::take(&mut self.tail);
        match self.stream.read(buffer) {
            Ok(0) => return Err("a connection ended without a close frame".into()),
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(format!("cannot read from the server: {error}").into()),
        }
        let mut done = 0;
        while let Some((frame, length)) = wire::first_frame(&bytes[done..])? {
            done += length;
            let answer = match frame {
                Frame::Close(payload) => {
                    let code = payload.first_chunk().copied().map(u16::from_be_bytes);
                    received.close = Some(code.unwrap_or(1005));
                    Some(wire::masked(wire::CLOSE, payload))
                }
                Frame::Text(text) if text.starts_with(PONG) => {
                    received.pongs += 1;
                    None
                }
                frame => entry::answer_to(&frame)?,
            };
            if let Some(answer) = answer {
                self.stream.write_all(&answer)?;
            }
        }
        // Thousands of them keep no room for nothing.
        self.tail = bytes[done..].to_vec();
        Ok(received)
    }
}

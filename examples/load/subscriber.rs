//! One subscriber, which connects and subscribes with blocking calls, one after
//! the other, and from then on is read without blocking.

use crate::Outcome;
use crate::app::App;
use crate::args::Target;
use crate::clock::Clock;
use crate::entry::{self, Entry};
use crate::stream::{Route, Stream};
use crate::sys;
use crate::wire::{self, Frame};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

/// The open files of a run that are not connections, and some to spare.
const OTHER_FILES: usize = 64;

pub(crate) struct Subscriber {
    stream: Stream,
    /// The beginning of a frame whose end has not been read yet.
    tail: Vec<u8>,
}

impl Subscriber {
    /// Connects as the one with this number, and subscribes.
    pub(crate) fn join(route: &Route, number: usize, app: &App, channel: &str) -> Outcome<Self> {
        let mut entry = Entry::open(route, number, app)?;
        let socket_id = entry.wait("the greeting", Entry::established)?;
        entry.send(&entry::subscription(app, &socket_id, channel, None))?;
        entry.wait("the answer to a subscription", |entry| {
            entry.subscribed(channel)
        })?;
        Self::of(entry)
    }

    /// Connects without subscribing; also the socket id, with which to do so.
    pub(crate) fn connect(route: &Route, number: usize, app: &App) -> Outcome<(Self, String)> {
        let mut entry = Entry::open(route, number, app)?;
        let socket_id = entry.wait("the greeting", Entry::established)?;
        Ok((Self::of(entry)?, socket_id))
    }

    fn of(entry: Entry) -> Outcome<Self> {
        let (stream, tail) = entry.into_parts();
        stream.tcp().set_nonblocking(true)?;
        Ok(Self { stream, tail })
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.stream.tcp()
    }

    /// Sends frames, which have to fit the socket's send buffer.
    pub(crate) fn send(&mut self, frames: &[u8]) -> Outcome<()> {
        let count = self
            .stream
            .write(frames)
            .map_err(|error| format!("cannot send: {error}"))?;
        if count < frames.len() {
            return Err("what was sent did not fit the socket's send buffer".into());
        }
        Ok(())
    }

    /// Sends as much of this as the socket takes; how many bytes that is.
    pub(crate) fn send_some(&mut self, bytes: &[u8]) -> Outcome<usize> {
        match self.stream.write(bytes) {
            Ok(count) => Ok(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(format!("cannot send: {error}").into()),
        }
    }

    /// Reads once and throws it away; how many bytes that was.
    pub(crate) fn skip(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 4096];
        self.stream.read(&mut buffer)
    }

    /// Reads the socket once and calls `each` with every text that this makes whole
    /// and the time. It says whether that was a delivery; what was not is attended to.
    #[inline]
    pub(crate) fn receive(
        &mut self,
        buffer: &mut [u8],
        clock: Clock,
        mut each: impl FnMut(&[u8], u64) -> Outcome<bool>,
    ) -> Outcome<()> {
        loop {
            self.receive_once(buffer, clock, &mut each)?;
            if !self.stream.has_more() {
                return Ok(());
            }
        }
    }

    #[inline]
    fn receive_once(
        &mut self,
        buffer: &mut [u8],
        clock: Clock,
        each: impl FnMut(&[u8], u64) -> Outcome<bool>,
    ) -> Outcome<()> {
        let kept = self.tail.len();
        if kept > buffer.len() / 2 {
            return self.receive_long(buffer, clock, each);
        }
        buffer[..kept].copy_from_slice(&self.tail);
        let Some(count) = self.read(&mut buffer[kept..])? else {
            return Ok(());
        };
        let bytes = &buffer[..kept + count];
        let done = self.hand_over(bytes, clock.now(), each)?;
        self.tail.clear();
        self.tail.extend_from_slice(&bytes[done..]);
        Ok(())
    }

    /// The same for frames that do not fit the buffer.
    #[cold]
    fn receive_long(
        &mut self,
        buffer: &mut [u8],
        clock: Clock,
        each: impl FnMut(&[u8], u64) -> Outcome<bool>,
    ) -> Outcome<()> {
        let Some(count) = self.read(buffer)? else {
            return Ok(());
        };
        let mut bytes = std::mem::take(&mut self.tail);
        bytes.extend_from_slice(&buffer[..count]);
        let done = self.hand_over(&bytes, clock.now(), each)?;
        // Thousands of subscribers may each get one long frame; none keeps its room.
        self.tail = match done {
            0 => bytes,
            done => bytes[done..].to_vec(),
        };
        Ok(())
    }

    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> Outcome<Option<usize>> {
        match self.stream.read(buffer) {
            Ok(0) => Err("the server closed the connection of a subscriber".into()),
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(format!("cannot read from the server: {error}").into()),
        }
    }

    /// Hands over every whole frame; how many bytes these are.
    #[inline]
    fn hand_over(
        &mut self,
        bytes: &[u8],
        now: u64,
        mut each: impl FnMut(&[u8], u64) -> Outcome<bool>,
    ) -> Outcome<usize> {
        let mut done = 0;
        while let Some((frame, length)) = wire::first_frame(&bytes[done..])? {
            done += length;
            let delivered = match frame {
                Frame::Text(text) => each(text, now)?,
                _ => false,
            };
            if !delivered {
                self.attend(&frame)?;
            }
        }
        Ok(done)
    }

    /// Answers what is not a delivery: pings and errors, of both protocols.
    #[cold]
    fn attend(&mut self, frame: &Frame<'_>) -> Outcome<()> {
        if let Some(answer) = entry::answer_to(frame)? {
            self.stream
                .write_all(&answer)
                .map_err(|error| format!("cannot answer a ping: {error}"))?;
        }
        Ok(())
    }
}

/// Makes sure that this many connections can be open at a time.
pub(crate) fn make_room_for(connections: usize) -> Outcome<()> {
    let wanted = (connections + OTHER_FILES) as u64;
    let limit = sys::raise_open_files(wanted)?;
    if limit < wanted {
        let short =
            format!("{wanted} open files are needed, and the limit is {limit} (ulimit -Hn)");
        return Err(short.into());
    }
    Ok(())
}

/// The name of one of several channels; the name alone if it is the only one.
pub(crate) fn channel(name: &str, number: usize, channels: usize) -> String {
    match channels {
        1 => name.to_owned(),
        channels => format!("{name}-{}", number % channels),
    }
}

/// Many subscribers, spread over so many channels.
pub(crate) fn join_all(
    target: &Target,
    subscribers: usize,
    name: &str,
    channels: usize,
) -> Outcome<Vec<Subscriber>> {
    let (app, route) = (App::of(target), Route::of(target)?);
    let mut joined = Vec::with_capacity(subscribers);
    for number in 0..subscribers {
        let channel = channel(name, number, channels);
        let subscriber = Subscriber::join(&route, number, &app, &channel)
            .map_err(|error| format!("subscriber {number}: {error}"))?;
        joined.push(subscriber);
    }
    Ok(joined)
}

//! One publisher, or one who asks: a kept-alive HTTP connection with at most one
//! request on its way.
//!
//! This is not an HTTP client. It knows answers with a `Content-Length` and
//! answers that end with the connection, and it connects anew after the latter,
//! or after every answer if it is told to.

use crate::Outcome;
use crate::stream::{Route, Stream};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// An answer to a publish is a few bytes, a list of users some for each; this much
/// is an answer gone wrong.
const MAX_ANSWER: usize = 1 << 20;

/// How long a server may take to read a request.
const PATIENCE: Duration = Duration::from_secs(10);

/// A whole answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

pub(crate) struct Publisher {
    route: Route,
    number: usize,
    keep_alive: bool,
    /// How many requests had an `Idempotency-Key`, if they have one.
    keys: Option<u64>,
    stream: Stream,
    request: Vec<u8>,
    received: Vec<u8>,
    /// Whether a request was sent whose answer has not come.
    waiting: bool,
    ended: bool,
}

impl Publisher {
    /// Connects as the one with this number.
    pub(crate) fn connect(route: &Route, number: usize, keep_alive: bool) -> Outcome<Self> {
        Ok(Self {
            route: route.clone(),
            number,
            keep_alive,
            keys: None,
            stream: connect(route, number)?,
            request: Vec::new(),
            received: Vec::new(),
            waiting: false,
            ended: false,
        })
    }

    /// Each request gets a key of its own from now on.
    pub(crate) fn use_keys(&mut self) {
        self.keys = Some(0);
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.stream.tcp()
    }

    /// Connects anew if the connection has ended; whether it had.
    pub(crate) fn revive(&mut self) -> Outcome<bool> {
        let ended = self.ended;
        if ended {
            self.stream = connect(&self.route, self.number)?;
            self.ended = false;
        }
        Ok(ended)
    }

    /// Makes the request ready, so that the clock can be read just before it is
    /// written.
    pub(crate) fn prepare(&mut self, target: &str, body: &str) {
        self.request.clear();
        let (server, length) = (self.route.server(self.number), body.len());
        let connection = self.connection();
        write!(
            self.request,
            "POST {target} HTTP/1.1\r\n\
             Host: {server}\r\n\
             Connection: {connection}\r\n\
             Content-Type: application/json\r\n"
        )
        .expect("writing to memory does not fail");
        if let Some(keys) = &mut self.keys {
            *keys += 1;
            let number = self.number;
            // As long as a UUID and the number of an event.
            write!(
                self.request,
                "Idempotency-Key: 0f8fad5b-d9cb-469f-{number:04x}-{keys:012x}:0\r\n"
            )
            .expect("writing to memory does not fail");
        }
        write!(self.request, "Content-Length: {length}\r\n\r\n{body}")
            .expect("writing to memory does not fail");
    }

    /// The same for a request that asks for something.
    pub(crate) fn prepare_query(&mut self, target: &str) {
        self.request.clear();
        let (server, connection) = (self.route.server(self.number), self.connection());
        write!(
            self.request,
            "GET {target} HTTP/1.1\r\n\
             Host: {server}\r\n\
             Connection: {connection}\r\n\r\n"
        )
        .expect("writing to memory does not fail");
    }

    fn connection(&self) -> &'static str {
        match self.keep_alive {
            true => "keep-alive",
            false => "close",
        }
    }

    pub(crate) fn send(&mut self) -> Outcome<()> {
        let count = self
            .stream
            .write(&self.request)
            .map_err(|error| format!("cannot publish: {error}"))?;
        if count < self.request.len() {
            self.send_rest(count)?;
        }
        self.waiting = true;
        Ok(())
    }

    /// Waits for the server to take what the socket's send buffer has no room for.
    #[cold]
    fn send_rest(&mut self, sent: usize) -> Outcome<()> {
        self.stream.tcp().set_nonblocking(false)?;
        self.stream.tcp().set_write_timeout(Some(PATIENCE))?;
        self.stream
            .write_all(&self.request[sent..])
            .map_err(|error| format!("the server does not take a publish: {error}"))?;
        self.stream.tcp().set_nonblocking(true)?;
        Ok(())
    }

    /// Reads once; the answer, if that made it whole.
    pub(crate) fn receive(&mut self) -> Outcome<Option<Answer>> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.ended = true,
            Ok(count) => self.received.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(format!("cannot read an answer: {error}").into()),
        }
        if self.received.len() > MAX_ANSWER {
            return Err("the answer to a publish does not end".into());
        }
        if !self.waiting {
            return match self.ended {
                true => Ok(None),
                false => Err("the server answered a publish that was not sent".into()),
            };
        }
        let answer = whole_answer(&self.received, self.ended)?;
        if answer.is_some() {
            self.received.clear();
            self.waiting = false;
            self.ended |= !self.keep_alive;
        } else if self.ended {
            return Err(
                "the server closed the connection instead of answering a publish; \
                        if it does so after every answer, use --close"
                    .into(),
            );
        }
        Ok(answer)
    }
}

fn connect(route: &Route, number: usize) -> Outcome<Stream> {
    let stream = route.open_from_anywhere(number)?;
    stream.tcp().set_nonblocking(true)?;
    Ok(stream)
}

fn whole_answer(bytes: &[u8], ended: bool) -> Outcome<Option<Answer>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let body = &bytes[end + 4..];
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or("the answer to a publish has no status")?;
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .map(|length| length.trim().parse::<usize>())
        .transpose()?;
    if head.contains("\r\ntransfer-encoding:") {
        return Err("the server answers in chunks, which this client does not read".into());
    }
    if length.is_some_and(|length| body.len() > length) {
        return Err("the server sent more than the one answer it owed".into());
    }
    let whole = length.map_or(ended, |length| body.len() == length);
    let body = String::from_utf8_lossy(body).into_owned();
    Ok(whole.then_some(Answer { status, body }))
}

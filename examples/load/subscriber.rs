//! One subscriber: it connects and subscribes with blocking calls, one after the
//! other, and from then on it is read without blocking.

use crate::Outcome;
use crate::app::App;
use crate::sys;
use crate::wire::{self, Frame};
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

/// How long a server may take for one step of the way in.
const PATIENCE: Duration = Duration::from_secs(10);
/// The open files of a run that are not connections, and some to spare.
const OTHER_FILES: usize = 64;

pub(crate) struct Subscriber {
    stream: TcpStream,
    /// The beginning of a frame whose end has not been read yet.
    tail: Vec<u8>,
}

impl Subscriber {
    pub(crate) fn join(
        server: SocketAddr,
        source: Option<Ipv4Addr>,
        app: &App,
        channel: &str,
    ) -> Outcome<Self> {
        let stream = connect(server, source)
            .map_err(|error| format!("cannot connect to {server}: {error}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut entry = Entry {
            stream,
            received: Vec::new(),
        };
        entry.upgrade(server, app.key())?;
        let socket_id = entry.established()?;
        entry.subscribe(app, &socket_id, channel)?;
        let Entry { stream, received } = entry;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            tail: received,
        })
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Reads once, after what was left over from before; the number of bytes
    /// that the buffer then holds, or none if there was nothing to read.
    #[inline]
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Outcome<Option<usize>> {
        let kept = self.tail.len();
        buffer[..kept].copy_from_slice(&self.tail);
        match self.stream.read(&mut buffer[kept..]) {
            Ok(0) => Err("the server closed the connection of a subscriber".into()),
            Ok(count) => Ok(Some(kept + count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(format!("cannot read from the server: {error}").into()),
        }
    }

    /// Keeps what the buffer holds after its last whole frame.
    #[inline]
    pub(crate) fn keep(&mut self, rest: &[u8]) {
        self.tail.clear();
        self.tail.extend_from_slice(rest);
    }

    /// Answers what is not a delivery: pings and errors, of both protocols.
    #[cold]
    pub(crate) fn attend(&mut self, frame: &Frame<'_>) -> Outcome<()> {
        if let Some(answer) = answer_to(frame)? {
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

/// Which address of the loopback the subscriber with this number connects from;
/// none if the system may choose.
pub(crate) fn source(number: usize, sources: usize) -> Option<Ipv4Addr> {
    (sources > 1).then(|| Ipv4Addr::new(127, 0, 0, (1 + number % sources) as u8))
}

/// The answer that a frame asks for, if it asks for one.
fn answer_to(frame: &Frame<'_>) -> Outcome<Option<Vec<u8>>> {
    match frame {
        Frame::Ping(payload) => Ok(Some(wire::masked(wire::PONG, payload))),
        Frame::Pong => Ok(None),
        Frame::Close(payload) => {
            let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
            Err(format!("the server closed the WebSocket of a subscriber: {reason}").into())
        }
        Frame::Text(text) => {
            let message: Value = serde_json::from_slice(text)?;
            match message["event"].as_str() {
                Some("pusher:ping") => Ok(Some(pusher_pong())),
                Some("pusher:error") => Err(format!("the server says: {message}").into()),
                _ => Ok(None),
            }
        }
    }
}

fn pusher_pong() -> Vec<u8> {
    wire::masked(wire::TEXT, br#"{"event":"pusher:pong","data":{}}"#)
}

fn connect(server: SocketAddr, source: Option<Ipv4Addr>) -> std::io::Result<TcpStream> {
    match (server, source) {
        (SocketAddr::V4(server), Some(source)) => {
            sys::connect_from(SocketAddrV4::new(source, 0), server, PATIENCE)
        }
        _ => TcpStream::connect_timeout(&server, PATIENCE),
    }
}

/// A connection on its way to being a subscriber.
struct Entry {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Entry {
    fn upgrade(&mut self, server: SocketAddr, key: &str) -> Outcome<()> {
        let request = format!(
            "GET /app/{key}?protocol=7&client=load&version=1 HTTP/1.1\r\n\
             Host: {server}\r\n\
             Connection: Upgrade\r\n\
             Upgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        self.stream.write_all(request.as_bytes())?;
        loop {
            let end = self
                .received
                .windows(4)
                .position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                let head = String::from_utf8_lossy(&self.received[..end]).into_owned();
                if !head.starts_with("HTTP/1.1 101") {
                    let first = head.lines().next().unwrap_or_default();
                    return Err(format!("the server refused to upgrade: {first}").into());
                }
                self.received.drain(..end + 4);
                return Ok(());
            }
            self.receive("the answer to the upgrade")?;
        }
    }

    fn established(&mut self) -> Outcome<String> {
        let message = self.await_event("pusher:connection_established")?;
        let data = message["data"]
            .as_str()
            .ok_or("connection_established has no data")?;
        let data: Value = serde_json::from_str(data)?;
        let socket_id = data["socket_id"].as_str();
        Ok(socket_id
            .ok_or("connection_established has no socket_id")?
            .to_owned())
    }

    fn subscribe(&mut self, app: &App, socket_id: &str, channel: &str) -> Outcome<()> {
        let mut data = json!({ "channel": channel });
        if let Some(auth) = app.authorize(socket_id, channel) {
            data["auth"] = auth.into();
        }
        let request = json!({ "event": "pusher:subscribe", "data": data }).to_string();
        self.stream
            .write_all(&wire::masked(wire::TEXT, request.as_bytes()))?;
        let message = self.await_event("pusher_internal:subscription_succeeded")?;
        if message["channel"] != channel {
            return Err(format!("the server answered for another channel: {message}").into());
        }
        Ok(())
    }

    fn await_event(&mut self, event: &str) -> Outcome<Value> {
        loop {
            let Some((frame, length)) = wire::first_frame(&self.received)? else {
                self.receive(event)?;
                continue;
            };
            let answer = answer_to(&frame)?;
            let message = match frame {
                Frame::Text(text) => serde_json::from_slice(text)?,
                _ => Value::Null,
            };
            self.received.drain(..length);
            if message["event"] == event {
                return Ok(message);
            }
            if let Some(answer) = answer {
                self.stream.write_all(&answer)?;
            } else if message["event"] == "pusher_internal:subscription_error" {
                return Err(format!("the server refused the subscription: {message}").into());
            }
        }
    }

    fn receive(&mut self, awaited: &str) -> Outcome<()> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(format!("the server closed the connection instead of {awaited}").into()),
            Ok(count) => {
                self.received.extend_from_slice(&buffer[..count]);
                Ok(())
            }
            Err(error) => Err(format!("waited in vain for {awaited}: {error}").into()),
        }
    }
}

//! The way in: connecting, upgrading and subscribing. Each step looks at what has
//! been read and gives none until its answer is there, so that one entry can be
//! waited for, and many can be made at a time.

use crate::Outcome;
use crate::app::App;
use crate::stream::{PATIENCE, Route, Stream};
use crate::wire::{self, Frame};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;

/// A connection on its way to being a subscriber.
pub(crate) struct Entry {
    stream: Stream,
    received: Vec<u8>,
    upgraded: bool,
}

impl Entry {
    /// Connects as the subscriber with this number and asks for the upgrade.
    pub(crate) fn open(route: &Route, number: usize, app: &App) -> Outcome<Self> {
        let mut entry = Self {
            stream: route.open(number)?,
            received: Vec::new(),
            upgraded: false,
        };
        let (server, key) = (route.server(number), app.key());
        let request = format!(
            "GET /app/{key}?protocol=7&client=load&version=1 HTTP/1.1\r\n\
             Host: {server}\r\n\
             Connection: Upgrade\r\n\
             Upgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        entry.send(request.as_bytes())?;
        Ok(entry)
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.stream.tcp()
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Outcome<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Reads the socket once, without blocking if it does not.
    pub(crate) fn read(&mut self) -> Outcome<()> {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err("the server closed the connection of an entry".into()),
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) => return Err(format!("cannot read from the server: {error}").into()),
            }
            if !self.stream.has_more() {
                return Ok(());
            }
        }
    }

    /// The socket id, once the server has upgraded the connection and greeted.
    pub(crate) fn established(&mut self) -> Outcome<Option<String>> {
        if !self.upgraded && !self.take_upgrade()? {
            return Ok(None);
        }
        let Some(message) = self.take_event("pusher:connection_established")? else {
            return Ok(None);
        };
        let data = message["data"]
            .as_str()
            .ok_or("connection_established has no data")?;
        let data: Value = serde_json::from_str(data)?;
        let socket_id = data["socket_id"].as_str();
        Ok(Some(
            socket_id
                .ok_or("connection_established has no socket_id")?
                .to_owned(),
        ))
    }

    /// Something, once the server has confirmed the subscription.
    pub(crate) fn subscribed(&mut self, channel: &str) -> Outcome<Option<()>> {
        let Some(message) = self.take_event("pusher_internal:subscription_succeeded")? else {
            return Ok(None);
        };
        if message["channel"] != channel {
            return Err(format!("the server answered for another channel: {message}").into());
        }
        Ok(Some(()))
    }

    /// Reads until a step is done.
    pub(crate) fn wait<T>(
        &mut self,
        awaited: &str,
        mut step: impl FnMut(&mut Self) -> Outcome<Option<T>>,
    ) -> Outcome<T> {
        self.stream().set_read_timeout(Some(PATIENCE))?;
        self.stream().set_write_timeout(Some(PATIENCE))?;
        loop {
            if let Some(done) = step(self)? {
                return Ok(done);
            }
            self.read()
                .map_err(|error| format!("waited in vain for {awaited}: {error}"))?;
        }
    }

    /// The stream, and what was read of it and belongs to what comes next.
    pub(crate) fn into_parts(self) -> (Stream, Vec<u8>) {
        (self.stream, self.received)
    }

    fn take_upgrade(&mut self) -> Outcome<bool> {
        let end = self
            .received
            .windows(4)
            .position(|four| four == b"\r\n\r\n");
        let Some(end) = end else {
            return Ok(false);
        };
        if !self.received.starts_with(b"HTTP/1.1 101") {
            let head = String::from_utf8_lossy(&self.received[..end]).into_owned();
            let first = head.lines().next().unwrap_or_default();
            return Err(format!("the server refused to upgrade: {first}").into());
        }
        self.received.drain(..end + 4);
        self.upgraded = true;
        Ok(true)
    }

    fn take_event(&mut self, event: &str) -> Outcome<Option<Value>> {
        while let Some((frame, length)) = wire::first_frame(&self.received)? {
            let answer = answer_to(&frame)?;
            let message = match frame {
                Frame::Text(text) => serde_json::from_slice(text)?,
                _ => Value::Null,
            };
            self.received.drain(..length);
            if message["event"] == event {
                return Ok(Some(message));
            }
            if let Some(answer) = answer {
                self.stream.write_all(&answer)?;
            } else if message["event"] == "pusher_internal:subscription_error" {
                return Err(format!("the server refused the subscription: {message}").into());
            }
        }
        Ok(None)
    }
}

/// The frame that subscribes, as the member with this data if the channel has
/// members.
pub(crate) fn subscription(
    app: &App,
    socket_id: &str,
    channel: &str,
    member: Option<&str>,
) -> Vec<u8> {
    let mut data = json!({ "channel": channel });
    if let Some(auth) = app.authorize(socket_id, channel, member) {
        data["auth"] = auth.into();
    }
    if let Some(member) = member {
        data["channel_data"] = member.into();
    }
    let request = json!({ "event": "pusher:subscribe", "data": data }).to_string();
    wire::masked(wire::TEXT, request.as_bytes())
}

/// The frame that takes a subscription back.
pub(crate) fn unsubscription(channel: &str) -> Vec<u8> {
    let request = json!({ "event": "pusher:unsubscribe", "data": { "channel": channel } });
    wire::masked(wire::TEXT, request.to_string().as_bytes())
}

/// The answer that a frame asks for, if it asks for one.
pub(crate) fn answer_to(frame: &Frame<'_>) -> Outcome<Option<Vec<u8>>> {
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

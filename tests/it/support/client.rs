//! A WebSocket client that says what it expects.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Error, Message, WebSocket};

use super::{At, KEY, PATIENCE, SECRET, hmac};

/// Anything that reads and writes.
pub(crate) trait ReadWrite: Read + Write + Send {}
impl<T: Read + Write + Send> ReadWrite for T {}

pub(crate) struct Client {
    pub(crate) socket: WebSocket<Box<dyn ReadWrite>>,
    pub(crate) id: String,
}

impl Client {
    /// Connects and is established.
    pub(crate) fn connect(server: &impl At) -> Self {
        let mut client = Self::open(
            server,
            &format!("/app/{KEY}?protocol=7&client=test&version=1"),
            &[],
        );
        client.established();
        client
    }

    /// Connects to a path, with more headers, and reads nothing yet.
    pub(crate) fn open(server: &impl At, target: &str, headers: &[(&'static str, &str)]) -> Self {
        Self::over(Box::new(tcp(server)), target, headers)
    }

    pub(crate) fn over(
        stream: Box<dyn ReadWrite>,
        target: &str,
        headers: &[(&'static str, &str)],
    ) -> Self {
        let mut request = format!("ws://localhost{target}")
            .into_client_request()
            .unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let (socket, _) = tungstenite::client(request, stream)
            .map_err(|error| error.to_string())
            .unwrap();
        Self {
            socket,
            id: String::new(),
        }
    }

    /// Expects `connection_established` and remembers the socket id.
    pub(crate) fn established(&mut self) {
        let frame = self.next_json();
        assert_eq!(frame["event"], "pusher:connection_established");
        let data: Value = serde_json::from_str(frame["data"].as_str().unwrap()).unwrap();
        self.id = data["socket_id"].as_str().unwrap().to_owned();
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    /// What the channel's `auth` has to be, as Laravel makes it.
    pub(crate) fn auth(&self, channel: &str) -> String {
        format!("{KEY}:{}", hmac(SECRET, &format!("{}:{channel}", self.id)))
    }

    /// Asks for a subscription, signed if the channel needs it.
    pub(crate) fn ask(&mut self, channel: &str) {
        let mut data = json!({ "channel": channel });
        if channel.starts_with("private-") {
            data["auth"] = self.auth(channel).into();
        }
        self.send(&json!({ "event": "pusher:subscribe", "data": data }).to_string());
    }

    /// Subscribes and expects the exact success.
    pub(crate) fn subscribe(&mut self, channel: &str) {
        self.ask(channel);
        self.expect(&format!(
            r#"{{"event":"pusher_internal:subscription_succeeded","data":"{{}}","channel":"{channel}"}}"#
        ));
    }

    pub(crate) fn unsubscribe(&mut self, channel: &str) {
        self.send(
            &json!({ "event": "pusher:unsubscribe", "data": { "channel": channel } }).to_string(),
        );
    }

    /// The next message, whatever it is.
    pub(crate) fn next(&mut self) -> Message {
        self.socket.read().unwrap()
    }

    /// The next text, without answering anything.
    pub(crate) fn next_text(&mut self) -> String {
        self.next().into_text().unwrap().to_string()
    }

    pub(crate) fn next_json(&mut self) -> Value {
        serde_json::from_str(&self.next_text()).unwrap()
    }

    /// Expects exactly this text.
    pub(crate) fn expect(&mut self, text: &str) {
        assert_eq!(self.next_text(), text);
    }

    /// Expects `pusher:error` with this code and text.
    pub(crate) fn expect_error(&mut self, code: u16, message: &str) {
        let data = json!({ "code": code, "message": message });
        self.expect(&format!(r#"{{"event":"pusher:error","data":{data}}}"#));
    }

    /// Expects that nothing comes: after a while, a ping is answered first.
    pub(crate) fn expect_silence(&mut self) {
        std::thread::sleep(Duration::from_millis(100));
        self.expect_alive();
    }

    /// Expects the answer to a ping, and nothing before it.
    pub(crate) fn expect_alive(&mut self) {
        self.send(r#"{"event":"pusher:ping","data":{}}"#);
        self.expect(r#"{"event":"pusher:pong"}"#);
    }

    /// Expects a close frame and then the end of the connection.
    pub(crate) fn closed_with(&mut self, code: u16, reason: &str) {
        let Message::Close(Some(frame)) = self.next() else {
            panic!("expected a close frame")
        };
        assert_eq!(
            (u16::from(frame.code), frame.reason.as_str()),
            (code, reason)
        );
        assert!(matches!(self.socket.read(), Err(Error::ConnectionClosed)));
    }
}

/// A TCP connection that does not wait for ever.
pub(crate) fn tcp(server: &impl At) -> TcpStream {
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

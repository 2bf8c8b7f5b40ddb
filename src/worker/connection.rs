//! A WebSocket connection as the layer above drives it.
//!
//! Client frames are parsed by tungstenite, from bytes that were read into a
//! buffer that all sockets of the worker share, so that an idle connection holds
//! none. (tokio-tungstenite's own stream would need a task, a read buffer and a
//! lock-step of reading and writing per socket.) Whatever it has to say itself,
//! pongs and close frames, it writes into the same out-buffer as everybody else.

use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use rustls::ServerConnection;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::socket::Socket;
use super::{Running, Worker};
use crate::app::App;
use crate::hub::Slot;
use crate::protocol::{ChannelName, CloseReason, Frame, SocketId};

/// A connection that speaks WebSocket from now on.
pub struct Upgraded {
    /// The socket.
    pub tcp: TcpStream,
    /// Its TLS session, if it has one.
    pub tls: Option<Box<ServerConnection>>,
    /// Bytes that came with the request and belong to the WebSocket.
    pub leftover: Bytes,
}

/// On which terms a connection was let in.
pub struct Admission {
    /// Silence after which it is pinged.
    pub ping_interval: Duration,
    /// Bytes of a message.
    pub max_message_size: usize,
    /// Its place in the application's quota; none if it is only told why it was refused.
    pub slot: Option<Slot>,
}

/// An open WebSocket. Dropping it leaves every channel.
pub struct Connection {
    socket: Rc<Socket>,
    worker: Rc<Worker>,
    _slot: Option<Slot>,
    _running: Running,
}

impl Connection {
    /// Takes over a socket.
    pub fn new(worker: &Rc<Worker>, upgraded: Upgraded, admission: Admission) -> Self {
        let Upgraded { tcp, tls, leftover } = upgraded;
        let config = WebSocketConfig::default()
            .read_buffer_size(0)
            .write_buffer_size(0)
            .max_message_size(Some(admission.max_message_size))
            .max_frame_size(Some(admission.max_message_size));
        // Parsing starts with what hyper had read too much. Its buffer must not
        // be kept: that would cost every idle connection 8 KiB.
        let websocket =
            WebSocketContext::from_partially_read(leftover.to_vec(), Role::Server, Some(config));
        let socket = Rc::new(Socket::new(
            random_id(),
            tcp,
            tls,
            websocket,
            admission.ping_interval,
        ));
        socket
            .key
            .set(worker.sockets.borrow_mut().insert(Rc::clone(&socket)));
        worker
            .wheel
            .borrow_mut()
            .add(admission.ping_interval, socket.key.get(), socket.id);
        Self {
            socket,
            worker: Rc::clone(worker),
            _slot: admission.slot,
            _running: worker.running(),
        }
    }

    /// The id that the client is told.
    pub fn id(&self) -> SocketId {
        self.socket.id
    }

    /// Queues a frame; it goes out with the next [`Self::receive`] or [`Self::flush`].
    pub fn send(&self, frame: &Frame) {
        self.socket.send(frame);
    }

    /// Writes what is queued.
    pub fn flush(&self) {
        self.socket.flush();
    }

    /// Leaves all channels and starts to close.
    pub fn close(&self, reason: CloseReason) {
        self.worker.close(&self.socket, reason);
    }

    /// Joins a channel. False, and nothing changes, if it had joined before.
    pub fn subscribe(&self, app: &App, name: &ChannelName) -> bool {
        if self.is_subscribed(app, name.as_str()) {
            return false;
        }
        let joined = self.worker.hub.subscribe(app, name, self.worker.index);
        self.worker.fanout.add(&joined, &self.socket);
        self.socket.subscriptions.borrow_mut().push(joined.channel);
        true
    }

    /// Leaves a channel. False if it had not joined.
    pub fn unsubscribe(&self, app: &App, name: &str) -> bool {
        let Some(channel) = self.worker.hub.find(app, name) else {
            return false;
        };
        let mut subscriptions = self.socket.subscriptions.borrow_mut();
        let Some(at) = subscriptions
            .iter()
            .position(|own| Arc::ptr_eq(own, &channel))
        else {
            return false;
        };
        subscriptions.swap_remove(at);
        self.worker.fanout.remove(channel.id(), &self.socket);
        self.worker.hub.leave(&channel, self.worker.index);
        true
    }

    /// Whether it has joined this channel.
    pub fn is_subscribed(&self, app: &App, name: &str) -> bool {
        let channel = self.worker.hub.find(app, name);
        channel.is_some_and(|channel| self.worker.fanout.has(channel.id(), &self.socket))
    }

    /// Waits for bytes and calls `each` with every message in them, then writes
    /// what that caused. Text that a binary message holds counts as text.
    ///
    /// # Errors
    /// Gives back why the connection ended, when it has.
    pub async fn receive(&self, mut each: impl FnMut(&Self, &str)) -> Result<(), CloseReason> {
        poll_fn(|cx| self.poll_receive(cx, &mut each)).await
    }

    /// Handles what came before the first [`Self::receive`].
    pub fn receive_leftover(&self, mut each: impl FnMut(&Self, &str)) {
        self.take_in(&[], &mut each);
        // A TLS session may hold decrypted bytes that no read will announce.
        let decrypted = self
            .socket
            .decrypt(&[], |plain| self.take_in(plain, &mut each));
        if decrypted.is_err() {
            self.socket.end();
        }
        self.socket.flush();
    }

    fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        each: &mut impl FnMut(&Self, &str),
    ) -> Poll<Result<(), CloseReason>> {
        let mut scratch = self.worker.scratch.borrow_mut();
        let read = std::task::ready!(self.socket.poll_read(cx, &mut scratch));
        match read {
            Ok(count) if count > 0 => {
                let decrypted = self
                    .socket
                    .decrypt(&scratch[..count], |plain| self.take_in(plain, each));
                if decrypted.is_err() {
                    self.socket.end();
                }
            }
            _ => self.socket.end(),
        }
        self.socket.flush();
        if self.socket.out.borrow().len() > self.worker.limits.max_backlog {
            self.close(CloseReason::TooSlow);
        }
        Poll::Ready(self.socket.ended().map_or(Ok(()), Err))
    }

    /// Parses bytes. What comes after a close is not looked at.
    fn take_in(&self, mut input: &[u8], each: &mut impl FnMut(&Self, &str)) {
        self.socket.hear(Instant::now());
        // The message before is kept alive until the parser has asked for more:
        // then it cannot take the message's buffer back for itself, and a
        // connection that once got a big message does not stay big.
        let mut held = None;
        while self.socket.is_open() {
            match self.socket.next_message(&mut input) {
                None => break,
                Some(Ok(message)) => {
                    match &message {
                        Message::Text(text) => each(self, text),
                        Message::Binary(bytes) => {
                            each(self, std::str::from_utf8(bytes).unwrap_or_default())
                        }
                        Message::Close(_) => self.close(CloseReason::ByClient),
                        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                    }
                    held = Some(message);
                }
                Some(Err(error)) => self.close(match error {
                    Error::Capacity(_) => CloseReason::MessageTooBig,
                    Error::Utf8(_) => CloseReason::InvalidPayload,
                    _ => CloseReason::ProtocolError,
                }),
            }
        }
        drop(held);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.worker.leave_all(&self.socket);
        self.worker
            .sockets
            .borrow_mut()
            .remove(self.socket.key.get());
        self.socket.end();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection").field(&self.socket.id).finish()
    }
}

impl Worker {
    /// Takes a socket out of every channel it has joined.
    pub(super) fn leave_all(&self, socket: &Rc<Socket>) {
        for channel in socket.subscriptions.take() {
            self.fanout.remove(channel.id(), socket);
            self.hub.leave(&channel, self.index);
        }
    }
}

fn random_id() -> SocketId {
    let bits = getrandom::u64().expect("the system has random numbers");
    SocketId::from_random(bits)
}

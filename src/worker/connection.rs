//! A WebSocket connection as the layer above drives it.
//!
//! Client frames are parsed by tungstenite, from bytes that were read into a
//! buffer that all sockets of the worker share, so that an idle connection holds
//! none. (tokio-tungstenite's own stream would need a task, a read buffer and a
//! lock-step of reading and writing per socket.) Whatever it has to say itself,
//! pongs and close frames, it writes into the same out-buffer as everybody else.
//!
//! What was read is not always handled at once: a client gets [`TURN`] before others
//! have theirs, and what it says may have to wait until there is room for it. The rest
//! is kept, and nothing more is read, until [`Connection::receive`] is called again.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{self, Duration};

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::origins::Origin;
use super::permits::ConnectionPermit;
use super::socket::Socket;
use super::state::Guards;
use super::unfinished::Unfinished;
use super::{Running, UserId, Worker};
use crate::apps::{AppHandle, Counter};
use crate::hub::{Answers, Channel, ConnectionRef, Full, JoinError, Removed, Slot};
use crate::protocol::{ChannelName, CloseReason, Frame, Member, SocketId};
use crate::tls::Session;

/// How long a client's messages are handled before others have their turn.
const TURN: Duration = Duration::from_millis(1);

/// Messages between two looks at the clock: with one for each, they took a seventh of the
/// worker's time in a flood of pongs.
const MESSAGES_PER_LOOK: usize = 4;

/// Channels among which one is found sooner than in the hub.
const FEW: usize = 8;

/// Bytes of answers that may wait for a client before more of what it says is handled.
/// A subscription can be answered with a thousand times its own bytes.
const MAX_UNREAD: usize = 64 * 1024;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handled {
    /// It is done with.
    Done,
    /// There is no room for what it causes: it is to be handled later, and so is all
    /// that comes after it.
    NoRoom,
}

/// How far [`Connection::receive`] got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// All that was read is handled.
    All,
    /// The client's turn is over; there may be more.
    TurnOver,
    /// A message was answered with [`Handled::NoRoom`].
    NoRoom,
    /// The client has to read its answers before it gets more.
    Unread,
    /// It is to go on in another worker: [`Connection::depart`].
    Departing,
}

/// What was read and is not handled yet.
#[derive(Default)]
pub(super) struct Unhandled {
    /// The message there was no room for.
    pub(super) message: Option<String>,
    /// What follows it, decrypted and not parsed.
    pub(super) input: Vec<u8>,
    /// Whether it came before this worker had the connection: it is no sign of life.
    pub(super) is_old: bool,
}

/// A connection that speaks WebSocket from now on.
pub struct Upgraded {
    /// The socket.
    pub tcp: TcpStream,
    /// Its TLS session, if it has one.
    pub tls: Option<Box<Session>>,
    /// Bytes that came with the request and belong to the WebSocket.
    pub leftover: Bytes,
    /// The answer to the handshake, which was not written yet: it goes out with the
    /// first frames.
    pub answer: Vec<u8>,
    /// Its permit among all connections.
    pub permit: ConnectionPermit,
    /// The `Origin` header of the request, if it had one.
    pub origin: Option<String>,
}

/// On which terms a connection was let in.
pub struct Admission {
    /// Silence after which it is pinged.
    pub ping_interval: Duration,
    /// Bytes of a message.
    pub max_message_size: usize,
    /// How long it may take to sign in or to join a private or presence channel.
    pub authorization_timeout: Option<Duration>,
    /// Its permit in the application's quota, with which it is closed; none if it is only
    /// told why it was refused.
    pub slot: Option<Slot>,
}

/// Why a channel cannot be joined. The texts are sent to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The connection has joined all the channels it may join.
    #[error(
        "The connection has all the {0} subscriptions it may have (max_subscriptions, RESOUND_MAX_SUBSCRIPTIONS)"
    )]
    TooMany(usize),
    /// The presence channel has all its members.
    #[error(transparent)]
    Full(#[from] Full),
    /// The application is gone.
    #[error(transparent)]
    Removed(#[from] Removed),
}

impl From<JoinError> for SubscribeError {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Full(full) => full.into(),
            JoinError::Removed(removed) => removed.into(),
        }
    }
}

/// A channel was joined, or had been before.
#[derive(Debug, Default)]
pub struct Subscribed {
    /// What to answer now.
    pub answers: Answers,
    /// Whether other nodes have to know of the channel who did not before.
    pub is_new: bool,
}

/// An open WebSocket. Dropping it leaves every channel.
pub struct Connection {
    pub(super) socket: Rc<Socket>,
    pub(super) worker: Rc<Worker>,
    pub(super) unhandled: RefCell<Option<Box<Unhandled>>>,
    /// What the parser holds of a message that is not whole.
    pub(super) unfinished: Cell<Option<Box<Unfinished>>>,
    pub(super) origin: Option<Origin>,
    pub(super) slot: Option<Slot>,
    pub(super) permit: Option<ConnectionPermit>,
    _running: Running,
}

impl Connection {
    /// Takes over a socket.
    pub fn new(worker: &Rc<Worker>, upgraded: Upgraded, admission: Admission) -> Self {
        let Upgraded {
            tcp,
            tls,
            leftover,
            answer,
            permit,
            origin,
        } = upgraded;
        let app = admission.slot.as_ref().map(|slot| slot.app().clone());
        let socket = Rc::new(Socket::new(
            (worker.new_id(), app),
            (Some(tcp), tls),
            parser(admission.max_message_size),
            admission.ping_interval,
            Rc::clone(&worker.backlog),
        ));
        socket.out.borrow_mut().begin_with(answer);
        socket
            .key
            .set(worker.sockets.borrow_mut().insert(Rc::clone(&socket)));
        socket.authorize_within(admission.authorization_timeout);
        let first = admission
            .authorization_timeout
            .unwrap_or(Duration::MAX)
            .min(admission.ping_interval);
        worker
            .wheel
            .borrow_mut()
            .add(first, socket.key.get(), socket.id);
        let guards = Guards {
            slot: admission.slot,
            permit: Some(permit),
        };
        let connection = Self::over(socket, worker.running(), guards, origin.as_deref());
        // Parsing starts with what hyper had read too much. Its buffer must not
        // be kept: that would cost every idle connection 8 KiB.
        if !leftover.is_empty() {
            connection.leave_unhandled(None, &leftover);
        }
        connection
    }

    /// A connection over a socket of this worker.
    pub(super) fn over(
        socket: Rc<Socket>,
        running: Running,
        guards: Guards,
        origin: Option<&str>,
    ) -> Self {
        let worker = Rc::clone(&running.0);
        Self {
            socket,
            unhandled: RefCell::default(),
            unfinished: Cell::default(),
            origin: origin.and_then(|origin| worker.origins.intern(origin)),
            slot: guards.slot,
            permit: guards.permit,
            worker,
            _running: running,
        }
    }

    /// The page that it was opened from, if its client said so.
    pub fn origin(&self) -> Option<&str> {
        self.origin.as_ref().map(Origin::as_str)
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

    /// Where it lives.
    pub fn address(&self) -> ConnectionRef {
        self.worker.address_of(&self.socket)
    }

    /// It has signed in, or joined a channel that takes a signature.
    pub fn lift_authorization_deadline(&self) {
        self.socket.authorize_within(None);
    }

    /// Joins a channel, as `member` if it is a presence channel, and returns
    /// what to answer. If it had joined before, nothing changes, and the answer goes
    /// out in the channel's order; at most one such answer is pending. Of others, it may
    /// have joined fewer than `max`, which is [`crate::apps::App::max_subscriptions`].
    pub fn subscribe(
        &self,
        app: &AppHandle,
        name: &ChannelName,
        member: Option<&Member>,
        max: usize,
    ) -> Result<Subscribed, SubscribeError> {
        let hub = &self.worker.hub;
        if let Some(channel) = self.find(app, name.as_str()) {
            let request = || hub.answer_again(&channel, self.address());
            let fanout = &self.worker.fanout;
            if fanout.answer_again(channel.id(), &self.socket, request) {
                return Ok(Subscribed::default());
            }
        }
        if self.socket.subscriptions.borrow().len() >= max {
            return Err(SubscribeError::TooMany(max));
        }
        let joined = hub.subscribe(app, name, self.address(), member)?;
        self.worker.fanout.add(&joined, &self.socket, member);
        self.socket.subscriptions.borrow_mut().push(joined.channel);
        Ok(Subscribed {
            answers: joined.answers,
            is_new: joined.is_new,
        })
    }

    /// Leaves a channel. False if it had not joined.
    pub fn unsubscribe(&self, app: &AppHandle, name: &str) -> bool {
        let Some(channel) = self.find(app, name) else {
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
        self.worker.leave(&channel, &self.socket);
        true
    }

    /// Whether it has joined a channel: `Some`, with who it is there.
    pub fn membership(&self, app: &AppHandle, name: &str) -> Option<Option<Rc<UserId>>> {
        let channel = self.find(app, name)?;
        self.worker.fanout.find(channel.id(), &self.socket)
    }

    /// A channel of this name that it may have joined: of its own, if those are few, and
    /// else the hub's, for which a lock has to be taken.
    fn find(&self, app: &AppHandle, name: &str) -> Option<Arc<Channel>> {
        let own = self.socket.subscriptions.borrow();
        if own.len() > FEW {
            return self.worker.hub.find(app, name);
        }
        let is_it = |channel: &&Arc<Channel>| channel.name().as_str() == name;
        own.iter().find(is_it).cloned()
    }

    /// The worker that it lives on.
    pub fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// Calls `each` with every message that was left, or else waits for bytes and does
    /// so with every message in them; then writes what that caused. Text that a binary
    /// message holds counts as text.
    ///
    /// # Errors
    /// Returns why the connection ended, when it has.
    pub async fn receive(
        &self,
        mut each: impl FnMut(&Self, &str) -> Handled,
    ) -> Result<Received, CloseReason> {
        poll_fn(|cx| self.poll_receive(cx, &mut each)).await
    }

    /// Handles what came before the first [`Self::receive`].
    pub fn receive_leftover(&self, mut each: impl FnMut(&Self, &str) -> Handled) {
        let began = time::Instant::now();
        if let Some(leftover) = self.unhandled.take() {
            self.take_in(&leftover.input, began, &mut each);
        }
        self.socket.flush();
    }

    /// Goes on writing, and reads nothing, until the connection begins to close or is to go
    /// on in another worker. Its client is not listened to meanwhile, so it is not taken
    /// for silent.
    pub async fn write_only(&self) {
        self.socket.pause_heartbeat(true);
        poll_fn(|cx| self.poll_write_on(cx)).await;
    }

    /// Ends the connection if its client is gone, whatever it has said before that was not
    /// handled: for one that is slowed down.
    pub fn end_if_client_is_gone(&self) {
        if self.socket.is_read_closed() {
            self.socket.end();
        }
    }

    /// Goes on writing, and reads nothing, until the client has read its answers or the
    /// connection begins to close or is to go on in another worker.
    pub async fn write_until_read(&self) {
        poll_fn(|cx| match self.poll_write_on(cx) {
            Poll::Pending if self.socket.unread_answers() <= MAX_UNREAD => Poll::Ready(()),
            written => written,
        })
        .await;
    }

    fn poll_write_on(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.socket.poll_write_on(cx) {
            Poll::Pending if self.worker.is_departing(&self.socket) => Poll::Ready(()),
            written => written,
        }
    }

    fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        each: &mut impl FnMut(&Self, &str) -> Handled,
    ) -> Poll<Result<Received, CloseReason>> {
        if self.worker.is_departing(&self.socket) && self.socket.is_open() {
            return Poll::Ready(Ok(Received::Departing));
        }
        let began = time::Instant::now();
        let mut is_turn_over = false;
        let left = self.unhandled.take();
        if let Some(left) = left {
            self.socket.pause_heartbeat(false);
            self.take_up(&left, began, each);
        } else {
            let mut scratch = self.worker.scratch.borrow_mut();
            let read = std::task::ready!(self.socket.poll_read(cx, &mut scratch));
            match read {
                Ok(count) if count > 0 => {
                    // There is more where this came from.
                    is_turn_over = count == scratch.len();
                    let decrypted = self.socket.decrypt(&mut scratch[..count], |plain| {
                        self.take_in(plain, began, each)
                    });
                    if decrypted.is_err() {
                        self.socket.end();
                    }
                }
                _ => self.socket.end(),
            }
        }
        self.socket.flush();
        if let Some(reason) = self.socket.ended() {
            return Poll::Ready(Err(reason));
        }
        Poll::Ready(Ok(match &*self.unhandled.borrow() {
            Some(left) if left.message.is_some() => Received::NoRoom,
            Some(_) if self.has_to_read() => Received::Unread,
            None if !is_turn_over => Received::All,
            _ => Received::TurnOver,
        }))
    }

    /// Handles bytes, unless earlier ones wait.
    fn take_in(
        &self,
        input: &[u8],
        began: time::Instant,
        each: &mut impl FnMut(&Self, &str) -> Handled,
    ) {
        self.socket
            .count(Counter::BytesReceived, input.len() as u64);
        if let Some(left) = &mut *self.unhandled.borrow_mut() {
            left.input.extend_from_slice(input);
            return;
        }
        self.socket.record_activity(Instant::now());
        self.parse(input, began, each);
    }

    /// Handles what was left.
    fn take_up(
        &self,
        left: &Unhandled,
        began: time::Instant,
        each: &mut impl FnMut(&Self, &str) -> Handled,
    ) {
        let message = left.message.as_deref().filter(|_| self.socket.is_open());
        if let Some(text) = message
            && each(self, text) == Handled::NoRoom
        {
            self.leave_unhandled(Some(text), &left.input);
            return;
        }
        if !left.is_old {
            self.socket.record_activity(Instant::now());
        }
        self.parse(&left.input, began, each);
    }

    /// Parses bytes, in a turn that began then. After our close frame, only the client's
    /// is waited for.
    fn parse(
        &self,
        input: &[u8],
        began: time::Instant,
        each: &mut impl FnMut(&Self, &str) -> Handled,
    ) {
        let mut rest = input;
        let messages = self.parse_messages(&mut rest, began, each);
        let held = self.unfinished.take();
        let read = &input[..input.len() - rest.len()];
        self.unfinished.set(Unfinished::after(held, read, messages));
    }

    /// Takes bytes off the input. Returns how many messages were in them.
    fn parse_messages(
        &self,
        input: &mut &[u8],
        began: time::Instant,
        each: &mut impl FnMut(&Self, &str) -> Handled,
    ) -> usize {
        let mut messages = 0;
        // The message before is kept alive until the parser has asked for more:
        // then it cannot take the message's buffer back for itself, and a
        // connection that once got a big message does not stay big.
        let mut previous = None;
        let mut texts = 0;
        while let Some(read) = self.socket.next_message(input) {
            messages += 1;
            let text = match (&read, self.socket.is_open()) {
                (Ok(Message::Text(text)), true) => Some(text.as_str()),
                (Ok(Message::Binary(bytes)), true) => {
                    Some(std::str::from_utf8(bytes).unwrap_or_default())
                }
                (Ok(Message::Close(_)), true) => {
                    self.close(CloseReason::ByClient);
                    None
                }
                (Ok(Message::Close(_)), false) => {
                    // It has answered our close frame, so it has got everything.
                    self.socket.end();
                    None
                }
                (Ok(_), _) => None,
                (Err(error), true) => {
                    self.close(reason_of(error));
                    None
                }
                (Err(_), false) => None,
            };
            texts += u64::from(text.is_some());
            if let Some(text) = text
                && each(self, text) == Handled::NoRoom
            {
                self.leave_unhandled(Some(text), input);
                break;
            }
            previous = Some(read);
            // From the first on, which may have taken long.
            let is_over = messages % MESSAGES_PER_LOOK == 1 && began.elapsed() >= TURN;
            if is_over || self.has_to_read() {
                self.leave_unhandled(None, input);
                break;
            }
        }
        drop(previous);
        self.socket.count(Counter::MessagesReceived, texts);
        messages
    }

    /// Whether the client has to read what it has asked for before it is listened to.
    fn has_to_read(&self) -> bool {
        if self.socket.unread_answers() <= MAX_UNREAD || !self.socket.is_open() {
            return false;
        }
        self.socket.flush();
        self.socket.unread_answers() > MAX_UNREAD
    }

    fn leave_unhandled(&self, message: Option<&str>, input: &[u8]) {
        *self.unhandled.borrow_mut() = Some(Box::new(Unhandled {
            message: message.map(str::to_owned),
            input: input.to_vec(),
            is_old: false,
        }));
    }
}

/// The parser of a connection whose messages may have so many bytes.
pub(super) fn parser(max_message_size: usize) -> WebSocketContext {
    let config = WebSocketConfig::default()
        .read_buffer_size(0)
        .write_buffer_size(0)
        .max_message_size(Some(max_message_size))
        .max_frame_size(Some(max_message_size));
    WebSocketContext::new(Role::Server, Some(config))
}

fn reason_of(error: &Error) -> CloseReason {
    match error {
        Error::Capacity(_) => CloseReason::MessageTooBig,
        Error::Utf8(_) => CloseReason::InvalidPayload,
        _ => CloseReason::ProtocolError,
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.worker.leave_all(&self.socket);
        self.worker.end_departure(&self.socket);
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

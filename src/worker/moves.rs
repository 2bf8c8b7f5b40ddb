//! Moves of live connections from one worker of the process to another.
//!
//! Only through the library: a server moves none by itself. The upgrade to a new process
//! will freeze and thaw connections as this does.
//!
//! 1. Somebody asks for it ([`super::Pool::request_move`]). The connection's worker records
//!    it, and [`Connection::receive`] returns [`super::Received::Departing`]: between two
//!    messages, or while one waits.
//! 2. The layer above calls [`Connection::depart`]. The target makes a placeholder: a socket
//!    without a stream that keeps what it is sent, within the bounds of every socket.
//! 3. The hub transfers each subscription under its channel's lock and puts a mark into both
//!    inboxes ([`crate::hub::Hub::transfer`]). What is before the mark, the source delivers;
//!    at the mark it takes the subscriber out. At its own mark, the target puts the
//!    placeholder in. Neither has anything to compare, and the fan-out is as fast as ever.
//! 4. When the source has come to all its marks, [`Connection::freeze`] takes the socket
//!    apart, and [`Departure::arrive`] sends it on.
//! 5. When the target has it and has come to all of its marks, the placeholder gets the
//!    stream, and what was to be written goes before what it has kept. The layer above goes
//!    on there.
//!
//! A connection may be closed at any time meanwhile. One that the source has closed arrives
//! closing; one that has ended does not arrive, and its placeholder leaves all channels.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::connection::parser;
use super::socket::Socket;
use super::state::{ConnectionState, FreezeError, Frozen, SessionState, SubscriptionState};
use super::{Connection, Running, UserId, Worker};
use crate::apps::AppHandle;
use crate::hub::{Channel, ConnectionRef, PendingSignIn, SignedIn, Unsubscription};
use crate::protocol::SocketId;

/// Messages to a worker about moves that may wait. Each belongs to one move.
const QUEUE: usize = 1024;

/// Is shown what a connection is when it is frozen, and returns what is thawed: whoever
/// tests writes it down in between.
pub type Observe = Box<dyn FnOnce(ConnectionState) -> ConnectionState + Send>;

type Resume = Box<dyn FnOnce(Connection, SessionState) + Send>;

/// A wish to have a connection moved.
pub struct MoveRequest {
    /// Which.
    pub connection: ConnectionRef,
    /// The worker where it is to go on.
    pub target: usize,
    /// Is shown its state.
    pub observe: Observe,
    /// Is sent where it lives then.
    pub done: oneshot::Sender<Result<ConnectionRef, MoveError>>,
}

/// Why a connection is not moved. Unless it has ended, it goes on where it was.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// The worker has no such connection.
    #[error("there is no such connection")]
    Unknown,
    /// There is no such worker, or it is the connection's own.
    #[error("the connection cannot be moved to worker {0}")]
    Target(usize),
    /// It moves already.
    #[error("the connection is being moved")]
    Departing,
    /// It is closing, or has ended.
    #[error("the connection is closing")]
    Closing,
    /// The target is going down.
    #[error("the target takes no connections")]
    Down,
    /// It cannot be frozen.
    #[error(transparent)]
    Freeze(#[from] FreezeError),
}

/// Messages to a worker about moves.
pub(super) enum MoveMessage {
    /// One of its connections is to go on in another worker.
    Request(MoveRequest),
    /// One will come; where it will live is to be returned.
    Reserve(Reservation, oneshot::Sender<ConnectionRef>),
    /// It comes, or has ended on the way.
    Arrive {
        to: ConnectionRef,
        /// Whether its subscriptions are the target's now.
        is_transferred: bool,
        arrival: Option<Box<Arrival>>,
    },
}

/// What a placeholder is made of.
pub(super) struct Reservation {
    id: SocketId,
    /// As [`Socket::app`].
    app: Option<AppHandle>,
    ping_interval: Duration,
    max_message_size: usize,
    subscriptions: Vec<(Arc<Channel>, Option<UserId>)>,
}

pub(super) struct Arrival {
    frozen: Frozen,
    resume: Resume,
    done: oneshot::Sender<Result<ConnectionRef, MoveError>>,
}

/// A worker's part in moves.
pub(super) struct Moves {
    /// All workers, by index.
    workers: Vec<mpsc::Sender<MoveMessage>>,
    /// By [`Socket::key`]; those that are about to go, and go.
    pub(super) departing: RefCell<HashMap<usize, Departing>>,
    /// By [`Socket::key`]; placeholders.
    pub(super) arriving: RefCell<HashMap<usize, Arriving>>,
}

pub(super) struct Departing {
    /// Until the connection begins to go.
    pub(super) request: Option<MoveRequest>,
    /// What was transferred, by [`Channel::id`].
    subscriptions: Vec<(u64, SubscriptionState)>,
    /// Marks that the fan-out has not come to.
    marks: usize,
    /// What was to leave a channel after its place at the target was reserved for it.
    pub(super) unsubscriptions: Vec<Unsubscription>,
}

impl Departing {
    /// The number of the last message of a channel when a subscription was transferred.
    pub(super) fn position(&self, channel: u64) -> Option<u64> {
        let mut subscriptions = self.subscriptions.iter();
        let (_, state) = subscriptions.find(|(id, _)| *id == channel)?;
        state.position
    }
}

pub(super) struct Arriving {
    pub(super) socket: Rc<Socket>,
    running: Running,
    /// What the fan-out has not come to the marks of, by [`Channel::id`].
    pub(super) subscriptions: HashMap<u64, (Arc<Channel>, Option<UserId>)>,
    /// Which of them end when it has.
    pub(super) unsubscriptions: Vec<Unsubscription>,
    arrival: Option<Option<Box<Arrival>>>,
}

/// A connection on its way: nothing is sent to it here any more. Dropped, it has ended on
/// the way.
pub struct Departure {
    request: Option<MoveRequest>,
    to: ConnectionRef,
    permit: Option<mpsc::OwnedPermit<MoveMessage>>,
    is_transferred: bool,
    pending: PendingSignIn,
}

impl fmt::Debug for MoveRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MoveRequest")
            .field("connection", &self.connection)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// The queues of so many workers, both ends.
pub(super) fn queues(
    workers: usize,
) -> (
    Vec<mpsc::Sender<MoveMessage>>,
    Vec<mpsc::Receiver<MoveMessage>>,
) {
    (0..workers).map(|_| mpsc::channel(QUEUE)).unzip()
}

impl Moves {
    pub(super) fn new(workers: Vec<mpsc::Sender<MoveMessage>>) -> Self {
        Self {
            workers,
            departing: RefCell::default(),
            arriving: RefCell::default(),
        }
    }
}

impl Departure {
    /// What its sign-in still waits for.
    pub fn pending_sign_in(&self) -> &PendingSignIn {
        &self.pending
    }

    /// Sends it to the target, where `resume` is called with it.
    pub fn arrive(
        mut self,
        mut frozen: Frozen,
        resume: impl FnOnce(Connection, SessionState) + Send + 'static,
    ) {
        let Some(request) = self.request.take() else {
            return;
        };
        frozen.state = (request.observe)(frozen.state);
        let arrival = Arrival {
            frozen,
            resume: Box::new(resume),
            done: request.done,
        };
        self.send(Some(Box::new(arrival)));
    }

    /// It has ended on the way.
    pub fn fail(mut self, error: FreezeError) {
        self.refuse(error.into());
    }

    fn refuse(&mut self, error: MoveError) {
        if let Some(request) = self.request.take() {
            // As everywhere: whoever has asked need not wait for it.
            let _ = request.done.send(Err(error));
        }
    }

    fn send(&mut self, arrival: Option<Box<Arrival>>) {
        if let Some(permit) = self.permit.take() {
            permit.send(MoveMessage::Arrive {
                to: self.to,
                is_transferred: self.is_transferred,
                arrival,
            });
        }
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        self.refuse(MoveError::Closing);
        self.send(None);
    }
}

impl Connection {
    /// Has another worker take over what it is sent, and waits until all is delivered that
    /// is for this one to deliver. `user` is its sign-in. `None` if it does not move, of
    /// which whoever has asked for it is notified.
    pub async fn depart(&self, user: Option<&SignedIn>) -> Option<Departure> {
        let request = self.worker.begin_departure(&self.socket)?;
        match self.reserve(request.target).await {
            Ok(mut departure) => {
                departure.request = Some(request);
                if self.hand_over(&mut departure, user).await {
                    return Some(departure);
                }
            }
            // As everywhere: whoever has asked need not wait for it.
            Err(error) => _ = request.done.send(Err(error)),
        }
        self.worker.end_departure(&self.socket);
        None
    }

    /// Has the target make a placeholder.
    async fn reserve(&self, target: usize) -> Result<Departure, MoveError> {
        let target = &self.worker.moves.workers[target];
        let (reply, reserved) = oneshot::channel();
        let reserve = MoveMessage::Reserve(self.reservation(), reply);
        target.send(reserve).await.map_err(|_| MoveError::Down)?;
        let to = reserved.await.map_err(|_| MoveError::Down)?;
        // Last: who holds one waits for nothing else of the queue.
        let permit = target.clone().reserve_owned().await;
        let permit = permit.map_err(|_| MoveError::Down)?;
        Ok(Departure {
            request: None,
            to,
            permit: Some(permit),
            is_transferred: false,
            pending: PendingSignIn::default(),
        })
    }

    /// False if it closes before anything is transferred, or ends on the way.
    async fn hand_over(&self, departure: &mut Departure, user: Option<&SignedIn>) -> bool {
        let (worker, socket) = (&self.worker, &self.socket);
        if !socket.is_open() {
            return false;
        }
        let to = departure.to;
        departure.pending = self.transfer(to, user);
        departure.is_transferred = true;
        // Nobody reads what its client says.
        socket.pause_heartbeat(true);
        poll_fn(|cx| {
            socket.write_when_ready(cx);
            match worker.has_departed(socket) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
        socket.ended().is_none()
    }

    fn reservation(&self) -> Reservation {
        let subscription = |channel: &Arc<Channel>| {
            let user = self.worker.fanout.find(channel.id(), &self.socket);
            let user = user.flatten().map(|user| UserId {
                text: Arc::clone(&user.text),
                json: user.json.clone(),
            });
            (Arc::clone(channel), user)
        };
        let subscriptions = self.socket.subscriptions.borrow();
        Reservation {
            id: self.socket.id,
            app: self.socket.app.clone(),
            ping_interval: self.socket.ping_interval(),
            max_message_size: self.socket.max_message_size(),
            subscriptions: subscriptions.iter().map(subscription).collect(),
        }
    }

    fn transfer(&self, to: ConnectionRef, user: Option<&SignedIn>) -> PendingSignIn {
        let (worker, from) = (&self.worker, self.address());
        let transfer = |channel: Arc<Channel>| {
            let user = worker.fanout.find(channel.id(), &self.socket).flatten();
            let user = user.as_ref().map(|user| &*user.text);
            let member = user.and_then(|user| channel.member(user));
            let state = SubscriptionState {
                channel: channel.name().as_str().to_owned(),
                member: member.as_ref().map(Into::into),
                position: worker.hub.transfer(&channel, user, from, to),
                is_answer_pending: false,
            };
            (channel.id(), state)
        };
        let subscriptions = self.socket.subscriptions.take();
        let subscriptions: Vec<_> = subscriptions.into_iter().map(transfer).collect();
        let pending = user.map(|user| worker.hub.transfer_sign_in(user, from, to));
        worker.hub.mark_departed(from);
        if let Some(departing) = worker.moves.departing.borrow_mut().get_mut(&from.key) {
            departing.marks = subscriptions.len() + 1;
            departing.subscriptions = subscriptions;
            let kept = std::mem::take(&mut departing.unsubscriptions);
            kept.iter().for_each(|it| worker.unsubscribe_again(it));
        }
        pending.unwrap_or_default()
    }
}

/// The source.
impl Worker {
    pub(super) fn is_departing(&self, socket: &Socket) -> bool {
        let departing = self.moves.departing.borrow();
        !departing.is_empty()
            && departing
                .get(&socket.key.get())
                .is_some_and(|departing| departing.request.is_some())
    }

    /// What is asked of a connection can be done.
    fn request_departure(&self, request: MoveRequest) {
        let refused = match self.socket_at(request.connection) {
            None => Some(MoveError::Unknown),
            Some(_) if request.target == self.index || request.target >= self.workers => {
                Some(MoveError::Target(request.target))
            }
            Some(socket) if socket.is_tls() => Some(FreezeError::Tls.into()),
            Some(socket) if !socket.is_open() => Some(MoveError::Closing),
            Some(socket) => {
                let mut departing = self.moves.departing.borrow_mut();
                let is_moving = departing.contains_key(&socket.key.get())
                    || self.moves.arriving.borrow().contains_key(&socket.key.get());
                if is_moving {
                    Some(MoveError::Departing)
                } else {
                    let departure = Departing {
                        request: Some(request),
                        subscriptions: Vec::new(),
                        marks: 0,
                        unsubscriptions: Vec::new(),
                    };
                    departing.insert(socket.key.get(), departure);
                    return socket.wake();
                }
            }
        };
        // Whoever has asked need not wait for it.
        let _ = refused.map(|error| request.done.send(Err(error)));
    }

    fn begin_departure(&self, socket: &Socket) -> Option<MoveRequest> {
        let mut departing = self.moves.departing.borrow_mut();
        departing.get_mut(&socket.key.get())?.request.take()
    }

    fn has_departed(&self, socket: &Socket) -> bool {
        let departing = self.moves.departing.borrow();
        let departing = departing.get(&socket.key.get());
        socket.ended().is_some() || departing.is_none_or(|departing| departing.marks == 0)
    }

    /// The fan-out has come to a mark: of a channel, or the one after all.
    pub(super) fn depart_from(&self, channel: Option<u64>, from: ConnectionRef) {
        let Some(socket) = self.socket_at(from) else {
            return;
        };
        let mut departing = self.moves.departing.borrow_mut();
        let Some(departing) = departing.get_mut(&from.key) else {
            return;
        };
        if let Some(channel) = channel {
            let is_answer_pending = self.fanout.is_answer_pending(channel, &socket);
            let mut subscriptions = departing.subscriptions.iter_mut();
            if let Some((_, state)) = subscriptions.find(|(id, _)| *id == channel) {
                state.is_answer_pending = is_answer_pending;
            }
            self.fanout.remove(channel, &socket);
        }
        departing.marks = departing.marks.saturating_sub(1);
        if departing.marks == 0 {
            socket.wake();
        }
    }

    /// A connection that has begun to close on its way gets nothing more from here.
    pub(super) fn stop_delivery(&self, socket: &Socket) {
        if let Some(departing) = self.moves.departing.borrow().get(&socket.key.get()) {
            for (channel, _) in &departing.subscriptions {
                self.fanout.remove(*channel, socket);
            }
        }
    }

    /// The departure of a connection is over: it is frozen, has ended, or stays. Returns
    /// what of it was transferred.
    pub(super) fn end_departure(&self, socket: &Socket) -> Vec<SubscriptionState> {
        let departing = self.moves.departing.borrow_mut().remove(&socket.key.get());
        let Some(departing) = departing else {
            return Vec::new();
        };
        departing
            .unsubscriptions
            .iter()
            .for_each(|it| self.unsubscribe_again(it));
        if let Some(request) = departing.request {
            // Whoever has asked need not wait for it.
            let _ = request.done.send(Err(MoveError::Closing));
        }
        let subscriptions = departing.subscriptions.into_iter();
        subscriptions.map(|(_, state)| state).collect()
    }
}

/// The target.
impl Worker {
    /// Handles messages about moves, as long as it lives.
    pub(super) async fn handle_moves(self: Rc<Self>, mut queue: mpsc::Receiver<MoveMessage>) {
        while let Some(message) = queue.recv().await {
            match message {
                MoveMessage::Request(request) => self.request_departure(request),
                // Without an answer, the connection stays where it is and is closed there.
                MoveMessage::Reserve(..) if self.lifecycle.is_stopping() => {}
                MoveMessage::Reserve(reservation, reply) => {
                    let to = self.reserve(reservation);
                    if reply.send(to).is_err() {
                        self.note_arrival(to, false, None);
                    }
                }
                MoveMessage::Arrive {
                    to,
                    is_transferred,
                    arrival,
                } => self.note_arrival(to, is_transferred, arrival),
            }
        }
    }

    fn reserve(self: &Rc<Self>, reservation: Reservation) -> ConnectionRef {
        let socket = Rc::new(Socket::placeholder(
            (reservation.id, reservation.app),
            parser(reservation.max_message_size),
            reservation.ping_interval,
            Rc::clone(&self.backlog),
        ));
        let key = self.sockets.borrow_mut().insert(Rc::clone(&socket));
        socket.key.set(key);
        let to = self.address_of(&socket);
        let subscriptions = reservation.subscriptions.into_iter();
        let arriving = Arriving {
            socket,
            running: self.running(),
            subscriptions: subscriptions
                .map(|(channel, user)| (channel.id(), (channel, user)))
                .collect(),
            unsubscriptions: Vec::new(),
            arrival: None,
        };
        self.moves.arriving.borrow_mut().insert(key, arriving);
        to
    }

    fn note_arrival(
        self: &Rc<Self>,
        to: ConnectionRef,
        is_transferred: bool,
        arrival: Option<Box<Arrival>>,
    ) {
        if let Some(arriving) = self.moves.arriving.borrow_mut().get_mut(&to.key) {
            if !is_transferred {
                arriving.subscriptions.clear();
            }
            arriving.arrival = Some(arrival);
        }
        self.complete_arrival(to);
    }

    /// The fan-out has come to the mark of a channel: what comes after it is for the
    /// placeholder, and what is numbered above `after`.
    pub(super) fn arrive_at(self: &Rc<Self>, channel: u64, to: ConnectionRef, after: u64) {
        let mut placeholders = self.moves.arriving.borrow_mut();
        let Some(arriving) = placeholders.get_mut(&to.key) else {
            return;
        };
        if let Some((channel, user)) = arriving.subscriptions.remove(&channel) {
            let has_ended = matches!(arriving.arrival, Some(None));
            let socket = &arriving.socket;
            if has_ended || !socket.is_open() {
                let user = user.as_ref().map(|user| &*user.text);
                self.hub.leave(&channel, to, user);
            } else {
                self.fanout.insert(channel.id(), socket, after, user);
                socket.subscriptions.borrow_mut().push(channel);
            }
        }
        let is_due = |it: &mut Unsubscription| it.channel == channel;
        let due: Vec<_> = arriving.unsubscriptions.extract_if(.., is_due).collect();
        drop(placeholders);
        for it in due {
            self.unsubscribe(Box::new(it));
        }
        self.complete_arrival(to);
    }

    /// Goes on with a connection, if it has come and all its marks have.
    fn complete_arrival(self: &Rc<Self>, to: ConnectionRef) {
        let mut placeholders = self.moves.arriving.borrow_mut();
        let is_complete =
            |arriving: &Arriving| arriving.subscriptions.is_empty() && arriving.arrival.is_some();
        if !placeholders.get(&to.key).is_some_and(is_complete) {
            return;
        }
        let arriving = placeholders.remove(&to.key);
        drop(placeholders);
        let Some(Arriving {
            socket,
            running,
            arrival,
            ..
        }) = arriving
        else {
            return;
        };
        let Some(arrival) = arrival.flatten() else {
            self.leave_all(&socket);
            self.sockets.borrow_mut().remove(socket.key.get());
            return socket.end();
        };
        let Arrival {
            frozen,
            resume,
            done,
        } = *arrival;
        let (connection, session) = Connection::thaw(socket, running, frozen);
        resume(connection, session);
        // Whoever has asked need not wait for it.
        let _ = done.send(Ok(to));
    }
}

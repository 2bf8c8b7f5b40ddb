//! Sockets. A worker is a thread with a single-threaded runtime that owns its
//! sockets outright: no other thread ever touches one.
//!
//! Broadcasts do not wake a task per subscriber. They come through the worker's
//! one [`Inbox`](crate::hub::Inbox), are appended to the out-buffers of the
//! subscribed sockets, and each touched socket is written once, in slices
//! between which the event loop turns, so that what is published meanwhile joins
//! the buffers of the sockets not yet written (`fanout`).
//!
//! What a client sends is read by a task of its own ([`Connection`]), which the
//! layer above drives. Heartbeats cost nothing while nothing is due (`wheel`).
//!
//! What a connection is can be written down ([`state`]), and it can go on in another worker
//! (`moves`).

mod acceptor;
mod backlog;
mod connection;
mod drain;
mod fanout;
mod freeze;
mod lanes;
mod listener;
mod liveness;
mod moves;
mod origins;
mod outbox;
mod permits;
mod socket;
pub mod state;
mod unfinished;
mod unsubscribe;
mod wheel;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use slab::Slab;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior};

use crate::hub::{ConnectionRef, Hub};
use crate::lifecycle::Lifecycle;
use crate::protocol::{CloseReason, SocketId};
use acceptor::{Acceptor, ConnectionSource};
use backlog::Backlog;
use fanout::FanOut;
use moves::{MoveMessage, Moves};
use origins::Origins;
use socket::Socket;
use wheel::Wheel;

pub use acceptor::Incoming;
pub use backlog::Total as BacklogTotal;
pub use connection::{
    Admission, Connection, Handled, Received, SubscribeError, Subscribed, Upgraded,
};
pub use fanout::UserId;
pub use listener::{Listener, ListenerSocket, UNIX_PEER, WatchedSocket};
pub use liveness::Liveness;
pub use moves::{Departure, MoveError, MoveRequest, Observe};
pub use origins::Origin;
pub use permits::{ConnectionPermit, ConnectionPermits, Idle, Waiter, network};

/// Bytes read from a socket at a time, into a buffer that all sockets of a worker share.
const READ_BYTES: usize = 32 * 1024;

/// How long an HTTP connection is left alone while permits are short, and not all taken.
const SHORT_WAIT: Duration = Duration::from_secs(1);

/// How long a connection that was closed may take to go.
const LINGER: Duration = Duration::from_secs(5);

/// Limits that hold for each socket. When they change ([`Setup::limits`]), a worker goes by
/// the new ones within a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that may wait in an out-buffer.
    pub max_backlog: usize,
    /// Bytes that may wait in all out-buffers together.
    pub max_total_backlog: usize,
    /// How long to wait for the answer to a ping.
    pub pong_timeout: Duration,
    /// How long sockets get to end when the server stops.
    pub shutdown_grace: Duration,
}

/// A thread's worth of sockets.
pub struct Worker {
    index: usize,
    hub: Arc<Hub>,
    /// As they were when it last looked.
    limits: Cell<Limits>,
    shared_limits: Arc<ArcSwap<Limits>>,
    backlog: Rc<Backlog>,
    /// How many workers there are.
    workers: usize,
    lifecycle: Lifecycle,
    leaves_to_successor: bool,
    permits: Arc<ConnectionPermits>,
    idle: Idle,
    sockets: RefCell<Slab<Rc<Socket>>>,
    fanout: FanOut,
    wheel: RefCell<Wheel>,
    scratch: RefCell<Box<[u8]>>,
    tasks: Cell<usize>,
    /// What ended connections have left, to be dropped in slices.
    dropped: RefCell<VecDeque<Box<dyn Any>>>,
    drop_ready: Notify,
    /// Random bits for socket ids, which the system gives out many at a time.
    random: RefCell<Vec<u64>>,
    /// The pages that connections were opened from.
    origins: Origins,
    moves: Moves,
    liveness: Arc<Liveness>,
}

/// A task that a stopping worker waits for.
pub struct Running(Rc<Worker>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.tasks.set(self.0.tasks.get() - 1);
    }
}

/// Serves one accepted connection; called on the worker's thread, where it may spawn
/// local tasks.
pub type Serve = dyn Fn(Rc<Worker>, Incoming) + Send + Sync;

/// The threads.
pub struct Pool {
    threads: Vec<thread::JoinHandle<()>>,
    backlog: Arc<backlog::Total>,
    moves: Vec<mpsc::Sender<MoveMessage>>,
    broken: Arc<Notify>,
}

/// What all workers are started with.
#[derive(Clone)]
pub struct Setup {
    /// The channels.
    pub hub: Arc<Hub>,
    /// For each socket, as they are now.
    pub limits: Arc<ArcSwap<Limits>>,
    /// Says when they have to stop.
    pub lifecycle: Lifecycle,
    /// Whether somebody else listens on the same sockets, who gets new connections once
    /// those that there are begin to be closed.
    pub leaves_to_successor: bool,
    /// Permits for connections.
    pub permits: Arc<ConnectionPermits>,
    /// For whoever asks whether they turn.
    pub liveness: Arc<Liveness>,
    /// What is done with a connection.
    pub serve: Arc<Serve>,
}

/// Notifies the pool that its thread ends with a panic.
struct PanicNotifier(Arc<Notify>);

impl Drop for PanicNotifier {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.notify_one();
        }
    }
}

impl Pool {
    /// Starts `count` workers, of which the first accepts connections for all.
    ///
    /// # Errors
    /// When a thread or what its event loop needs cannot be had: mostly for want of
    /// file descriptors.
    pub fn start(count: usize, listeners: Vec<Listener>, setup: &Setup) -> io::Result<Self> {
        let (moves, mut move_queues) = moves::queues(count);
        let first = move_queues.remove(0);
        let mut pool = Self {
            threads: Vec::new(),
            moves,
            backlog: Backlog::total(setup.limits.load().max_total_backlog),
            broken: Arc::new(Notify::new()),
        };
        let (senders, receivers) = acceptor::queues(count - 1);
        for (index, (queue, moves)) in receivers.into_iter().zip(move_queues).enumerate() {
            pool.start_worker((index + 1, count), setup, moves, move || {
                Ok(ConnectionSource::Queue(queue))
            })?;
        }
        let permits = Arc::clone(&setup.permits);
        pool.start_worker((0, count), setup, first, move || {
            Acceptor::new(listeners, senders, permits).map(ConnectionSource::Acceptor)
        })?;
        Ok(pool)
    }

    /// Starts one, and waits until it has all it needs.
    fn start_worker(
        &mut self,
        (index, workers): (usize, usize),
        setup: &Setup,
        moves: mpsc::Receiver<MoveMessage>,
        source: impl FnOnce() -> io::Result<ConnectionSource> + Send + 'static,
    ) -> io::Result<()> {
        let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
        let setup = setup.clone();
        let backlog = Arc::clone(&self.backlog);
        let all_moves = self.moves.clone();
        let alarm = PanicNotifier(Arc::clone(&self.broken));
        let thread = thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                let _alarm = alarm;
                let runtime = Builder::new_current_thread()
                    .enable_all()
                    .build_local(LocalOptions::default());
                let started = runtime.and_then(|runtime| {
                    let source = {
                        let _inside = runtime.enter();
                        source()?
                    };
                    Ok((runtime, source))
                });
                match started {
                    Ok((runtime, source)) => {
                        // Whoever waits for it is there until it has received this.
                        let _ = ready.send(Ok(()));
                        let serve = Arc::clone(&setup.serve);
                        let worker =
                            Worker::new((index, workers), setup, &backlog, Moves::new(all_moves));
                        runtime.block_on(worker.run(source, moves, &*serve));
                    }
                    Err(error) => _ = ready.send(Err(error)),
                }
            })?;
        let started = is_ready.recv().map_err(io::Error::other)?;
        started.map_err(|error| {
            let text = format!(
                "worker {} cannot start: {error}; more open files are needed (ulimit -n)",
                index + 1
            );
            io::Error::new(error.kind(), text)
        })?;
        self.threads.push(thread);
        Ok(())
    }

    /// What waits to be written to clients, in all workers together.
    pub fn backlog(&self) -> Arc<BacklogTotal> {
        Arc::clone(&self.backlog)
    }

    /// Asks a worker to have one of its connections go on in another worker. What becomes
    /// of it, [`MoveRequest::done`] is sent; nothing, if the worker has too much to move.
    pub fn request_move(&self, request: MoveRequest) {
        if let Some(worker) = self.moves.get(request.connection.worker) {
            // The request is dropped, and with it the end that would be notified.
            let _ = worker.try_send(MoveMessage::Request(request));
        }
    }

    /// Is done when a worker has ended with a panic: its sockets are gone, and the
    /// process has to start anew.
    pub fn broken(&self) -> impl Future<Output = ()> + use<> {
        let broken = Arc::clone(&self.broken);
        async move { broken.notified().await }
    }

    /// Waits until all workers have stopped.
    pub fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker ended with a panic");
            }
        }
    }
}

impl Worker {
    fn new(
        (index, workers): (usize, usize),
        setup: Setup,
        backlog: &Arc<backlog::Total>,
        moves: Moves,
    ) -> Rc<Self> {
        Rc::new(Self {
            index,
            hub: setup.hub,
            limits: Cell::new(**setup.limits.load()),
            shared_limits: setup.limits,
            backlog: Backlog::for_worker(backlog),
            workers,
            lifecycle: setup.lifecycle,
            leaves_to_successor: setup.leaves_to_successor,
            permits: setup.permits,
            idle: Idle::new(),
            sockets: RefCell::default(),
            fanout: FanOut::default(),
            wheel: RefCell::new(Wheel::new()),
            scratch: RefCell::new(vec![0; READ_BYTES].into()),
            tasks: Cell::new(0),
            dropped: RefCell::default(),
            drop_ready: Notify::new(),
            random: RefCell::default(),
            origins: Origins::default(),
            moves,
            liveness: setup.liveness,
        })
    }

    /// The channels of all workers.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Its HTTP connections that wait for a request.
    pub fn idle(&self) -> &Idle {
        &self.idle
    }

    /// Whether the server is going down.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// Counts a task among those that the worker waits for when it stops, until
    /// what is returned is dropped.
    pub fn running(self: &Rc<Self>) -> Running {
        self.tasks.set(self.tasks.get() + 1);
        Running(Rc::clone(self))
    }

    async fn run(
        self: Rc<Self>,
        source: ConnectionSource,
        moves: mpsc::Receiver<MoveMessage>,
        serve: &Serve,
    ) {
        let mut fan_out = tokio::task::spawn_local(Rc::clone(&self).fan_out());
        let mut beat = tokio::task::spawn_local(Rc::clone(&self).beat());
        let mut reap = tokio::task::spawn_local(Rc::clone(&self).reap());
        let mut handle_moves = tokio::task::spawn_local(Rc::clone(&self).handle_moves(moves));
        tokio::task::spawn_local(Rc::clone(&self).drain());
        let (liveness, index) = (Arc::clone(&self.liveness), self.index);
        tokio::task::spawn_local(async move { liveness.answer(index).await });
        let mut stopping = pin!(self.lifecycle.stopping());
        let mut left_to_successor = pin!(async {
            if self.leaves_to_successor {
                self.lifecycle.closing().await;
            } else {
                std::future::pending().await
            }
        });
        // None once there will be no more connections.
        let mut source = Some(source);
        loop {
            tokio::select! {
                next = next_of(&mut source) => {
                    let Some(incoming) = next else {
                        source = None;
                        continue;
                    };
                    if self.permits.are_short() {
                        self.idle.evict_longest(SHORT_WAIT);
                    }
                    serve(Rc::clone(&self), incoming);
                }
                () = self.permits.asked() => {
                    self.idle.evict_longest(Duration::ZERO);
                }
                // What was accepted before is served: the queues end when they are empty.
                () = &mut left_to_successor, if matches!(source, Some(ConnectionSource::Acceptor(_))) => {
                    source = None;
                }
                () = &mut stopping => break,
                // Neither ends but by a panic, and without them no socket is served.
                _ = &mut fan_out => panic!("the fan-out has ended"),
                _ = &mut beat => panic!("the heartbeat has ended"),
                _ = &mut reap => panic!("the reaper has ended"),
                _ = &mut handle_moves => panic!("nobody handles moves"),
            }
        }
        drop(source);
        self.close_all().await;
    }

    /// Closes sockets, in slices spread over up to a second, so that their clients
    /// do not all come back at one moment.
    async fn close_in_slices(&self, is_one: impl Fn(&Socket) -> bool, reason: CloseReason) {
        const SLICES: usize = 20;
        let all: Vec<Rc<Socket>> = {
            let sockets = self.sockets.borrow();
            let sockets = sockets.iter().map(|(_, socket)| socket);
            sockets.filter(|socket| is_one(socket)).cloned().collect()
        };
        let slice = all.len().div_ceil(SLICES).max(64);
        for sockets in all.chunks(slice) {
            for socket in sockets {
                self.close(socket, reason);
            }
            if sockets.len() == slice {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Closes the sockets of an application that was removed.
    async fn close_app(self: Rc<Self>, app: u32) {
        let is_one = |socket: &Socket| {
            let own = socket.app.as_ref();
            own.is_some_and(|own| own.number() == app)
        };
        self.close_in_slices(is_one, CloseReason::ApplicationDoesNotExist)
            .await;
    }

    /// Closes all sockets, then waits for them.
    async fn close_all(&self) {
        let deadline = Instant::now() + self.shared_limits.load().shutdown_grace;
        self.close_in_slices(|_| true, self.closing_reason()).await;
        while self.tasks.get() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if self.tasks.get() > 0 {
            tracing::warn!(
                connections = self.tasks.get(),
                "connections did not end in time and are dropped"
            );
        }
    }

    /// Lets go of a connection that has ended and of what belongs to it. Not at
    /// once: when thousands end at one moment, the others are not to wait.
    pub fn defer_drop(&self, dropped: impl Any) {
        self.dropped.borrow_mut().push_back(Box::new(dropped));
        self.drop_ready.notify_one();
    }

    /// Drops what ended connections have left, in slices between which the event
    /// loop turns: leaving channels and closing sockets takes time.
    async fn reap(self: Rc<Self>) {
        loop {
            self.drop_ready.notified().await;
            loop {
                let slice: Vec<Box<dyn Any>> = {
                    let mut dropped = self.dropped.borrow_mut();
                    let count = dropped.len().min(32);
                    dropped.drain(..count).collect()
                };
                if slice.is_empty() {
                    break;
                }
                drop(slice);
                tokio::task::yield_now().await;
            }
        }
    }

    /// Looks at those sockets whose time has come, every second.
    async fn beat(self: Rc<Self>) {
        let mut seconds = tokio::time::interval(wheel::BEAT);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reported = 0;
        loop {
            let now = seconds.tick().await;
            self.look_at_limits();
            let due = self.wheel.borrow_mut().turn();
            for (at, (key, id)) in due.into_iter().enumerate() {
                if let Some(socket) = self.socket_at(ConnectionRef {
                    worker: self.index,
                    key,
                    id,
                }) {
                    self.look_at(&socket, now);
                }
                // After a restart thousands are due in one second; nobody waits for all of them.
                if at % 64 == 63 {
                    tokio::task::yield_now().await;
                }
            }
            // One worker does it for all.
            if self.index == 0 {
                self.hub.send_counts();
                let slow = self.hub.closes().of(CloseReason::TooSlow);
                if slow > reported {
                    tracing::warn!(
                        clients = slow - reported,
                        "closed clients that read too slowly, with 4100 (RESOUND_MAX_BACKLOG, RESOUND_MAX_TOTAL_BACKLOG)"
                    );
                    reported = slow;
                }
            }
        }
    }

    /// Goes by the limits as they are now.
    fn look_at_limits(&self) {
        let limits = **self.shared_limits.load();
        if self.limits.replace(limits) != limits {
            self.backlog.set_max(limits.max_total_backlog);
        }
    }

    fn new_id(&self) -> SocketId {
        SocketId::from_random(self.random())
    }

    fn random(&self) -> u64 {
        let mut random = self.random.borrow_mut();
        if random.is_empty() {
            let mut bytes = [0; 512];
            getrandom::fill(&mut bytes).expect("the system has random numbers");
            let (numbers, _) = bytes.as_chunks();
            random.extend(numbers.iter().copied().map(u64::from_ne_bytes));
        }
        random.pop().expect("it was filled")
    }

    fn socket_at(&self, address: ConnectionRef) -> Option<Rc<Socket>> {
        self.sockets
            .borrow()
            .get(address.key)
            .filter(|socket| socket.id == address.id)
            .cloned()
    }

    /// Pings a silent socket, closes one that stays silent, drops one that does not go.
    fn look_at(&self, socket: &Rc<Socket>, now: Instant) {
        let next = match socket.check(now, self.limits.get().pong_timeout) {
            socket::Health::Fine(next) => next,
            socket::Health::Silent => {
                socket.ping(now);
                match socket.check(now, self.limits.get().pong_timeout) {
                    socket::Health::Fine(next) => next,
                    _ => self.limits.get().pong_timeout,
                }
            }
            socket::Health::Over(reason) => {
                self.close(socket, reason);
                LINGER
            }
            socket::Health::Overdue => return socket.end(),
        };
        self.wheel
            .borrow_mut()
            .add(next, socket.key.get(), socket.id);
    }

    /// Starts to close a socket: it leaves all channels now and gets an error and
    /// a close frame; its task ends when the client has gone, or after `LINGER`.
    fn close(&self, socket: &Rc<Socket>, reason: CloseReason) {
        if socket.start_closing(reason, Instant::now() + LINGER) {
            self.leave_all(socket);
            self.wheel
                .borrow_mut()
                .add(LINGER, socket.key.get(), socket.id);
        }
    }
}

/// The next connection; `None` if there will be no more, for which nobody waits twice.
async fn next_of(source: &mut Option<ConnectionSource>) -> Option<Incoming> {
    match source {
        Some(source) => source.next().await,
        None => std::future::pending().await,
    }
}

//! From the inbox to the sockets.
//!
//! Measured before it was built (deliveries per second, 1000 subscribers of one
//! channel, 200 bytes): a task and a queue per connection 0.14 million; out-buffers
//! flushed all at once 0.25 million; flushed in slices of 64 with a turn of the
//! event loop between, 1.5 to 1.7 million. The turns are where the batches come
//! from: messages published meanwhile join the buffers not yet written. They also
//! bound how long a big channel keeps anybody else waiting.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use indexmap::IndexMap;

use super::Worker;
use super::backlog::Backlog;
use super::lanes::Lanes;
use super::outbox::{Outgoing, is_large};
use super::socket::Socket;
use crate::apps::{Counter, Timing};
use crate::hub::{
    Broadcast, Channel, ConnectionRef, Joined, Recipients, Unsubscription, WorkerMessage,
};
use crate::protocol::{CloseReason, Frame, Member};

/// Sockets written between two turns of the event loop. 16 and 64 were about as
/// fast as each other, 256 half as fast.
const SLICE: usize = 64;

/// The same for sockets that small channels touched: there is little to batch, and
/// with thousands of such channels publishes would get ahead of the writes.
const URGENT_SLICE: usize = 256;

/// Bytes that may wait in out-buffers of sockets that take them, before more is
/// taken from the inbox, unless all workers together may have less than twice that.
/// When a worker is this far behind, its inbox fills up, and publishers wait, instead of
/// its sockets being taken for slow.
const MAX_WAITING: usize = 32 << 20;

/// Deliveries appended to out-buffers in one turn of the event loop: a millisecond
/// or so.
const MAX_PER_TURN: usize = 8192;

/// Deliveries after which the next channel has its turn.
const MAX_IN_A_ROW: usize = 1024;

/// The subscribers that live on this worker, by channel, and who is to be written.
#[derive(Default)]
pub(super) struct FanOut {
    channels: RefCell<HashMap<u64, Subscribers>>,
    /// By channel and [`Socket::key`]; not with the subscribers, whom every message
    /// iterates over.
    further_answers: RefCell<HashMap<(u64, usize), FurtherAnswer>>,
    queues: RefCell<Queues>,
    /// Sum of [`Socket::queued`].
    waiting: Cell<usize>,
    /// Sum of [`Socket::queued_large`].
    waiting_large: Cell<usize>,
    /// What of [`Self::waiting`] the backlog knows.
    settled: Cell<usize>,
    /// Whose delivery is measured now.
    timed: Cell<Option<Timed>>,
}

/// An event that is followed from the hub to a socket. There is one at a time: to follow
/// all, each socket would have to keep a time.
#[derive(Clone, Copy)]
struct Timed {
    since: Instant,
    /// [`Socket::key`] of the last socket that gets it.
    to: usize,
}

/// Sockets that were touched and are to be written. One that a small channel
/// touched need not wait for the thousands that a big one did.
struct Queues {
    urgent: Queue,
    bulk: Queue,
}

impl Default for Queues {
    fn default() -> Self {
        let queue = |mark| Queue {
            mark,
            sockets: VecDeque::new(),
        };
        Self {
            urgent: queue(1),
            bulk: queue(2),
        }
    }
}

struct Queue {
    /// The bit of [`Socket::queues`] that says that a socket is in here.
    mark: u8,
    sockets: VecDeque<Rc<Socket>>,
}

/// By [`Socket::key`]: joining and leaving are look-ups, and a broadcast iterates over one
/// dense array.
type Subscribers = IndexMap<usize, Subscriber>;

pub(super) struct Subscriber {
    socket: Rc<Socket>,
    /// It joined at this message: later ones are for it.
    after: Cell<u64>,
    /// Who it is in a presence channel: the identity, and the id as JSON.
    pub(super) user: Option<Rc<UserId>>,
}

/// How the answer to a repeated subscription stands. There is one at a time: the list
/// of a presence channel can be a thousand times as long as the request for it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FurtherAnswer {
    /// It is on its way through the inbox.
    Requested,
    /// It is in the out-buffer, and pending until that is empty.
    Appended,
}

/// A user's id in the two forms that are needed.
#[derive(Debug)]
pub struct UserId {
    /// What tells users apart.
    pub text: Arc<str>,
    /// As it came, for frames.
    pub json: Box<str>,
}

impl FanOut {
    pub(super) fn add(&self, joined: &Joined, socket: &Rc<Socket>, member: Option<&Member>) {
        let user = member.map(|member| UserId {
            text: Arc::clone(&member.id),
            json: member.id_json.clone(),
        });
        self.insert(joined.channel.id(), socket, joined.after, user);
    }

    /// Adds a subscriber that gets what is numbered above `after`.
    pub(super) fn insert(
        &self,
        channel: u64,
        socket: &Rc<Socket>,
        after: u64,
        user: Option<UserId>,
    ) {
        let subscriber = Subscriber {
            socket: Rc::clone(socket),
            after: Cell::new(after),
            user: user.map(Rc::new),
        };
        let mut channels = self.channels.borrow_mut();
        channels
            .entry(channel)
            .or_default()
            .insert(socket.key.get(), subscriber);
    }

    /// Whether a socket has joined a channel, and as whom.
    pub(super) fn find(&self, channel: u64, socket: &Socket) -> Option<Option<Rc<UserId>>> {
        let channels = self.channels.borrow();
        Some(channels.get(&channel)?.get(&socket.key.get())?.user.clone())
    }

    /// The socket that has to leave a channel, if it joined before the message of that number or
    /// waits for its first answer; and how many were looked at.
    pub(super) fn find_for(&self, what: &Unsubscription) -> (Option<Rc<Socket>>, usize) {
        let channels = self.channels.borrow();
        let Some(subscribers) = channels.get(&what.channel) else {
            return (None, 1);
        };
        let is_it = |it: &&Subscriber| {
            let after = it.after.get();
            it.socket.id == what.socket && (after < what.seq || after == u64::MAX)
        };
        let (found, looked_at) = match what.at {
            Some(at) => (subscribers.get(&at.key).filter(is_it), 1),
            None => (subscribers.values().find(is_it), subscribers.len()),
        };
        (found.map(|it| Rc::clone(&it.socket)), looked_at)
    }

    /// Runs `request`, which returns whether an answer will come through the inbox,
    /// unless an earlier answer is still pending. False if the socket has not joined.
    pub(super) fn answer_again(
        &self,
        channel: u64,
        socket: &Socket,
        request: impl FnOnce() -> bool,
    ) -> bool {
        if self.find(channel, socket).is_none() {
            return false;
        }
        if !self.is_answer_pending(channel, socket) && request() {
            let mut answers = self.further_answers.borrow_mut();
            answers.insert((channel, socket.key.get()), FurtherAnswer::Requested);
        }
        true
    }

    /// Whether an answer to a repeated subscription is pending.
    pub(super) fn is_answer_pending(&self, channel: u64, socket: &Socket) -> bool {
        let answers = self.further_answers.borrow();
        match answers.get(&(channel, socket.key.get())) {
            None => false,
            Some(FurtherAnswer::Requested) => true,
            Some(FurtherAnswer::Appended) => socket.out.borrow().len() > 0,
        }
    }

    /// An answer to a repeated subscription is in the out-buffer.
    pub(super) fn mark_answer_pending(&self, channel: u64, socket: &Socket) {
        let mut answers = self.further_answers.borrow_mut();
        answers.insert((channel, socket.key.get()), FurtherAnswer::Appended);
    }

    pub(super) fn remove(&self, channel: u64, socket: &Socket) -> Option<Subscriber> {
        self.further_answers
            .borrow_mut()
            .remove(&(channel, socket.key.get()));
        let mut channels = self.channels.borrow_mut();
        let subscribers = channels.get_mut(&channel)?;
        let removed = subscribers.swap_remove(&socket.key.get());
        if subscribers.is_empty() {
            channels.remove(&channel);
        }
        removed
    }

    /// Appends a message to the out-buffers of its subscribers. Returns how many
    /// there are, and those that do not read what they have.
    fn append(
        &self,
        broadcast: &Broadcast,
        max_backlog: usize,
        backlog: &Rc<Backlog>,
    ) -> (usize, Vec<Rc<Socket>>) {
        let channels = self.channels.borrow();
        let Some(subscribers) = channels.get(&broadcast.channel) else {
            return (0, Vec::new());
        };
        let mut queues = self.queues.borrow_mut();
        let frame = Outgoing::new(&broadcast.frame, backlog);
        let late = |to: &Subscriber, queue: &mut Queue| {
            let fits = self.append_to(&to.socket, &frame, max_backlog, queue);
            (!fits).then(|| Rc::clone(&to.socket))
        };
        if let Recipients::Only(address) | Recipients::Welcome(address) = broadcast.to {
            let to = subscribers
                .get(&address.key)
                .filter(|to| to.socket.id == address.id);
            match (to, broadcast.to) {
                (Some(to), Recipients::Welcome(_)) => {
                    to.after.set(to.after.get().min(broadcast.seq))
                }
                (Some(to), _) => {
                    let subscriber = (broadcast.channel, to.socket.key.get());
                    let mut answers = self.further_answers.borrow_mut();
                    if let Some(answer) = answers.get_mut(&subscriber) {
                        *answer = FurtherAnswer::Appended;
                    }
                }
                (None, _) => {}
            }
            let too_slow = to.and_then(|to| late(to, queues.get(true)));
            if let (Some(to), None) = (to, &too_slow) {
                to.socket.count(Counter::MessagesSent, 1);
            }
            return (1, too_slow.into_iter().collect());
        }
        let queue = queues.for_recipients_of(subscribers.len());
        let (mut recipients, mut last) = (0, None);
        let too_slow: Vec<_> = subscribers
            .values()
            .filter(|to| {
                broadcast.seq > to.after.get() && broadcast.to != Recipients::Except(to.socket.id)
            })
            .inspect(|to| (recipients, last) = (recipients + 1, Some(&to.socket)))
            .filter_map(|to| late(to, queue))
            .collect();
        if let Some(last) = last {
            let sent = recipients - too_slow.len() as u64;
            last.count(Counter::MessagesSent, sent);
            if self.timed.get().is_none() && last.queues.get() != 0 {
                let (since, to) = (broadcast.since, last.key.get());
                self.timed.set(Some(Timed { since, to }));
            }
        }
        (subscribers.len(), too_slow)
    }

    /// False, and nothing is appended, if the socket has too much waiting that its
    /// client does not read. (Bytes that we have not tried to write are our fault.)
    fn append_to(
        &self,
        socket: &Rc<Socket>,
        frame: &Outgoing<'_>,
        max_backlog: usize,
        queue: &mut Queue,
    ) -> bool {
        if socket.is_behind(max_backlog) {
            return false;
        }
        socket.out.borrow_mut().push(frame);
        // A blocked socket is written when its client reads, not before.
        if socket.is_blocked() {
            socket.settle();
            return true;
        }
        queue.add(socket);
        socket.queued.set(socket.queued.get() + frame.cost());
        self.waiting.set(self.waiting.get() + frame.cost());
        if let Outgoing::Large(_) = frame {
            let (own, all) = (&socket.queued_large, &self.waiting_large);
            own.set(own.get() + frame.len());
            all.set(all.get() + frame.len());
        }
        true
    }

    /// Writes the next touched sockets, each once: a slice of those that small
    /// channels touched, then a slice of the others. Returns whether there are more.
    fn flush_slice(&self) -> bool {
        for (urgent, max) in [(true, URGENT_SLICE), (false, SLICE)] {
            for _ in 0..max {
                let next = self.queues.borrow_mut().get(urgent).next();
                let Some(socket) = next else { break };
                self.waiting.set(self.waiting.get() - socket.queued.take());
                let large = &self.waiting_large;
                large.set(large.get() - socket.queued_large.take());
                socket.flush();
                self.observe_delivery(&socket);
            }
        }
        !self.queues.borrow().are_empty()
    }

    /// Ends the measurement if it is of this socket, which was just written.
    fn observe_delivery(&self, socket: &Socket) {
        let Some(timed) = self
            .timed
            .get()
            .filter(|timed| timed.to == socket.key.get())
        else {
            return;
        };
        self.timed.set(None);
        // One that does not read says nothing of how far behind this worker is.
        if let Some(app) = socket.app.as_ref().filter(|_| !socket.is_blocked()) {
            app.counters()
                .observe(Timing::Delivery, timed.since.elapsed());
        }
    }

    /// Counts what it holds among what waits in the process.
    fn settle(&self, backlog: &Backlog) {
        let waiting = self.waiting.get();
        backlog.change(self.settled.replace(waiting), waiting);
    }
}

impl Queues {
    fn for_recipients_of(&mut self, subscribers: usize) -> &mut Queue {
        self.get(subscribers <= SLICE)
    }

    fn get(&mut self, urgent: bool) -> &mut Queue {
        if urgent {
            &mut self.urgent
        } else {
            &mut self.bulk
        }
    }

    fn are_empty(&self) -> bool {
        self.urgent.sockets.is_empty() && self.bulk.sockets.is_empty()
    }
}

impl Queue {
    fn add(&mut self, socket: &Rc<Socket>) {
        let queued = socket.queues.get();
        if queued & self.mark == 0 {
            socket.queues.set(queued | self.mark);
            self.sockets.push_back(Rc::clone(socket));
        }
    }

    fn next(&mut self) -> Option<Rc<Socket>> {
        let socket = self.sockets.pop_front()?;
        socket.queues.set(socket.queues.get() & !self.mark);
        Some(socket)
    }
}

impl Worker {
    pub(super) async fn fan_out(self: Rc<Self>) {
        let inbox = self.hub.inbox(self.index);
        let mut lanes = Lanes::default();
        let mut messages = VecDeque::new();
        loop {
            messages.extend(inbox.take());
            let done = self.turn(&mut messages, &mut lanes);
            inbox.release(done);
            self.fanout.settle(&self.backlog);
            let is_more = self.fanout.flush_slice();
            self.fanout.settle(&self.backlog);
            if is_more || !lanes.is_empty() {
                tokio::task::yield_now().await;
            } else {
                messages = poll_fn(|cx| inbox.poll_take(cx)).await;
            }
        }
    }

    /// Takes all messages, and delivers as many messages as one turn may. Returns
    /// the cost of those that are done.
    fn turn(self: &Rc<Self>, messages: &mut VecDeque<WorkerMessage>, lanes: &mut Lanes) -> usize {
        let (mut done, mut deliveries, mut in_a_row) = (0, 0, 0);
        let max_waiting = MAX_WAITING.min(self.limits.get().max_total_backlog / 2 / self.workers);
        let has_time = |deliveries, broadcast: &Broadcast| {
            // Small messages do not wait for what large ones have to write.
            let large = match is_large(&broadcast.frame) {
                true => self.fanout.waiting_large.get(),
                false => 0,
            };
            deliveries < MAX_PER_TURN && self.fanout.waiting.get() + large <= max_waiting
        };
        for message in messages.drain(..) {
            let cost = message.cost();
            match message {
                WorkerMessage::Broadcast(broadcast)
                    if lanes.holds(broadcast.channel) || !has_time(deliveries, &broadcast) =>
                {
                    // It is done, and counted, when its turn comes.
                    lanes.push(broadcast);
                    continue;
                }
                WorkerMessage::Broadcast(broadcast) => deliveries += self.deliver(&broadcast),
                WorkerMessage::Direct(address, frame) => self.send_to(address, &frame),
                WorkerMessage::Close(address, reason) => {
                    if let Some(socket) = self.socket_at(address) {
                        self.close(&socket, reason);
                    }
                }
                WorkerMessage::Unsubscribe(unsubscription) => {
                    deliveries += self.unsubscribe(unsubscription);
                }
                WorkerMessage::Departed(from) => self.depart_from(None, from),
                WorkerMessage::CloseApp(app) => {
                    tokio::task::spawn_local(Rc::clone(self).close_app(app));
                }
            }
            done += cost;
        }
        let mut passed_over = 0;
        while deliveries < MAX_PER_TURN
            && self.fanout.waiting.get() <= max_waiting
            && passed_over < lanes.len()
            && let Some(next) = lanes.peek()
        {
            if !has_time(deliveries, next) {
                lanes.rotate();
                (passed_over, in_a_row) = (passed_over + 1, 0);
                continue;
            }
            let Some(broadcast) = lanes.pop() else { break };
            passed_over = 0;
            done += broadcast.cost();
            let count = self.deliver(&broadcast);
            deliveries += count;
            in_a_row += count;
            if in_a_row >= MAX_IN_A_ROW {
                lanes.rotate();
                in_a_row = 0;
            }
        }
        done
    }

    /// Returns what it took: the number of deliveries, and one for itself.
    fn deliver(self: &Rc<Self>, broadcast: &Broadcast) -> usize {
        match broadcast.to {
            Recipients::Departed(from) => {
                self.depart_from(Some(broadcast.channel), from);
                return 1;
            }
            Recipients::Arrived(to) => {
                self.arrive_at(broadcast.channel, to, broadcast.seq);
                return 1;
            }
            _ => {}
        }
        let (deliveries, too_slow) =
            self.fanout
                .append(broadcast, self.limits.get().max_backlog, &self.backlog);
        for socket in too_slow {
            self.close(&socket, CloseReason::TooSlow);
        }
        deliveries + 1
    }

    pub(super) fn send_to(&self, address: ConnectionRef, frame: &Frame) {
        let socket = self.socket_at(address).filter(|socket| socket.is_open());
        let Some(socket) = socket else { return };
        let max = self.limits.get().max_backlog;
        let mut queues = self.fanout.queues.borrow_mut();
        let frame = Outgoing::new(frame, &self.backlog);
        let fits = self
            .fanout
            .append_to(&socket, &frame, max, queues.get(true));
        drop(queues);
        if !fits {
            self.close(&socket, CloseReason::TooSlow);
        }
    }

    /// Takes a socket out of every channel it has joined.
    pub(super) fn leave_all(&self, socket: &Rc<Socket>) {
        for channel in socket.subscriptions.take() {
            self.leave(&channel, socket);
        }
        self.stop_delivery(socket);
    }

    pub(super) fn leave(&self, channel: &Arc<Channel>, socket: &Socket) {
        let user = self
            .fanout
            .remove(channel.id(), socket)
            .and_then(|subscriber| subscriber.user);
        let connection = self.address_of(socket);
        self.hub
            .leave(channel, connection, user.as_ref().map(|user| &*user.text));
    }

    /// Where a socket lives.
    pub(super) fn address_of(&self, socket: &Socket) -> ConnectionRef {
        ConnectionRef {
            worker: self.index,
            key: socket.key.get(),
            id: socket.id,
        }
    }
}

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

use indexmap::IndexMap;

use super::Worker;
use super::socket::Socket;
use crate::hub::{Cast, Joined};
use crate::protocol::CloseReason;

/// Sockets written between two turns of the event loop. 16 and 64 were about as
/// fast as each other, 256 half as fast.
const SLICE: usize = 64;

/// Bytes that may wait in out-buffers of sockets that take them, before more is
/// taken from the inbox. When a worker is this far behind, its inbox fills up, and
/// publishers wait, instead of its sockets being taken for slow.
const MOST_WAITING: usize = 32 << 20;

/// The subscribers that live on this worker, by channel, and who is to be written.
#[derive(Default)]
pub(super) struct FanOut {
    channels: RefCell<HashMap<u64, Subscribers>>,
    touched: RefCell<VecDeque<Rc<Socket>>>,
    /// Sum of [`Socket::queued`].
    waiting: Cell<usize>,
}

/// By [`Socket::key`]: joining and leaving are look-ups, and casting walks one
/// dense array.
type Subscribers = IndexMap<usize, Subscriber>;

struct Subscriber {
    socket: Rc<Socket>,
    /// It joined at this message: later ones are for it.
    after: u64,
}

impl FanOut {
    pub(super) fn add(&self, joined: &Joined, socket: &Rc<Socket>) {
        let subscriber = Subscriber {
            socket: Rc::clone(socket),
            after: joined.after,
        };
        let mut channels = self.channels.borrow_mut();
        channels
            .entry(joined.channel.id())
            .or_default()
            .insert(socket.key.get(), subscriber);
    }

    pub(super) fn has(&self, channel: u64, socket: &Socket) -> bool {
        self.channels
            .borrow()
            .get(&channel)
            .is_some_and(|all| all.contains_key(&socket.key.get()))
    }

    pub(super) fn remove(&self, channel: u64, socket: &Socket) {
        let mut channels = self.channels.borrow_mut();
        if let Some(subscribers) = channels.get_mut(&channel) {
            subscribers.swap_remove(&socket.key.get());
            if subscribers.is_empty() {
                channels.remove(&channel);
            }
        }
    }

    /// Appends a message to the out-buffers of its subscribers. Gives back those
    /// that have more waiting than they may.
    fn append(&self, cast: &Cast, max_backlog: usize) -> Vec<Rc<Socket>> {
        let mut too_slow = Vec::new();
        let channels = self.channels.borrow();
        let Some(subscribers) = channels.get(&cast.channel) else {
            return too_slow;
        };
        let mut touched = self.touched.borrow_mut();
        let bytes = cast.frame.as_bytes();
        for Subscriber { socket, after } in subscribers.values() {
            if cast.seq <= *after || cast.except == Some(socket.id) {
                continue;
            }
            let mut out = socket.out.borrow_mut();
            out.push(bytes);
            if out.len() > max_backlog {
                too_slow.push(Rc::clone(socket));
            }
            // A blocked socket is written when its client reads, not before.
            if !socket.is_blocked() {
                if socket.queued.get() == 0 {
                    touched.push_back(Rc::clone(socket));
                }
                socket.queued.set(socket.queued.get() + bytes.len());
                self.waiting.set(self.waiting.get() + bytes.len());
            }
        }
        too_slow
    }

    /// Writes the next touched sockets, each once. Gives back whether there are more.
    fn flush_slice(&self) -> bool {
        for _ in 0..SLICE {
            let Some(socket) = self.touched.borrow_mut().pop_front() else {
                return false;
            };
            self.waiting.set(self.waiting.get() - socket.queued.take());
            socket.flush();
        }
        !self.touched.borrow().is_empty()
    }
}

impl Worker {
    pub(super) async fn fan_out(self: Rc<Self>) {
        let inbox = self.hub.inbox(self.index);
        let mut casts = VecDeque::new();
        loop {
            if casts.is_empty() {
                casts = inbox.take();
            }
            while self.fanout.waiting.get() < MOST_WAITING
                && let Some(cast) = casts.pop_front()
            {
                for socket in self.fanout.append(&cast, self.limits.max_backlog) {
                    self.close(&socket, CloseReason::TooSlow);
                }
            }
            if self.fanout.flush_slice() || !casts.is_empty() {
                tokio::task::yield_now().await;
            } else {
                casts = poll_fn(|cx| inbox.poll_take(cx)).await;
            }
        }
    }
}

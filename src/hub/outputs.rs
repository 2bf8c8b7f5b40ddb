//! Where the output of the hub goes: to the workers' inboxes, to other nodes, and to the sinks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::sync::Notify;

use super::cluster_queue::{ClusterQueue, ClusterUpdate};
use super::event::Sinks;
use super::frame_log::log_sent;
use super::lock::{Lock, Rank};
use super::topic::Topic;
use crate::apps::AppHandle;
use crate::protocol::{ChannelName, CloseReason, Frame, SocketId};

/// Where a connection lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionRef {
    /// Its worker.
    pub worker: usize,
    /// Its slot among the worker's sockets.
    pub key: usize,
    /// Its id, which tells it from a later connection in the same slot.
    pub id: SocketId,
}

/// Something for a worker to do.
#[derive(Clone, Debug)]
pub enum WorkerMessage {
    /// A message for the subscribers of a channel.
    Broadcast(Broadcast),
    /// A frame for one connection.
    Direct(ConnectionRef, Frame),
    /// One connection has to go.
    Close(ConnectionRef, CloseReason),
    /// One connection has to leave a channel.
    Unsubscribe(Box<Unsubscription>),
    /// The last that comes for a connection that goes on in another worker, but for what
    /// waits for its turn in a channel's order.
    Departed(ConnectionRef),
    /// All connections of the application with this [`crate::apps::AppHandle::number`]
    /// have to go: it was removed.
    CloseApp(u32),
}

/// A connection that a worker has to take out of a channel, if it has it.
#[derive(Clone, Debug)]
pub struct Unsubscription {
    /// The application.
    pub app: AppHandle,
    /// The channel's name.
    pub name: ChannelName,
    /// [`super::Channel::id`].
    pub channel: u64,
    /// The connection.
    pub socket: SocketId,
    /// Where it lives, if that is known: then no other worker is asked.
    pub at: Option<ConnectionRef>,
    /// Its number in the channel: one that joined at or after it stays, but for one that waits for
    /// its first answer.
    pub seq: u64,
}

/// One message for a worker's subscribers of one channel.
#[derive(Clone, Debug)]
pub struct Broadcast {
    /// [`super::Channel::id`].
    pub channel: u64,
    /// Its number in the channel; not for subscribers that joined at or after it.
    pub seq: u64,
    /// The bytes.
    pub frame: Frame,
    /// Which of them.
    pub to: Recipients,
    /// When it was given its number.
    pub since: Instant,
}

/// Which of a channel's subscribers get a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipients {
    /// All that joined before it.
    All,
    /// All of those but one.
    Except(SocketId),
    /// One, whenever it joined: an answer that has its turn in the channel's order.
    Only(ConnectionRef),
    /// One that has waited for its answer, and gets what comes after it from now on.
    Welcome(ConnectionRef),
    /// Nobody: one goes on in another worker, and gets there what comes after it.
    Departed(ConnectionRef),
    /// Nobody: one that comes from another worker gets what comes after it from now on.
    Arrived(ConnectionRef),
}

impl Recipients {
    /// Who is left out of all.
    pub(super) fn except(self) -> Option<SocketId> {
        match self {
            Self::Except(socket) => Some(socket),
            Self::All | Self::Only(_) | Self::Welcome(_) | Self::Departed(_) | Self::Arrived(_) => {
                None
            }
        }
    }
}

impl From<Option<SocketId>> for Recipients {
    fn from(except: Option<SocketId>) -> Self {
        except.map_or(Self::All, Self::Except)
    }
}

/// Where the hub puts what others have to know: the workers of this node, the session
/// with other nodes, if there may be any, and whoever else wants to know.
#[derive(Debug)]
pub(super) struct Outputs {
    pub(super) inboxes: Vec<Arc<Inbox>>,
    pub(super) cluster_queue: Option<Arc<ClusterQueue>>,
    pub(super) sinks: Sinks,
    generations: AtomicU64,
}

impl Outputs {
    pub(super) fn new(
        inboxes: Vec<Arc<Inbox>>,
        cluster_queue: Option<Arc<ClusterQueue>>,
        sinks: Sinks,
    ) -> Self {
        Self {
            inboxes,
            cluster_queue,
            sinks,
            generations: AtomicU64::new(1),
        }
    }

    pub(super) fn send(&self, worker: usize, message: WorkerMessage) {
        if let Some((to, frame)) = message.recipient() {
            log_sent(to.id, frame);
        }
        self.inboxes[worker].push(message);
    }

    /// Has other nodes do something, if there may be any.
    pub(super) fn update(&self, update: impl FnOnce() -> ClusterUpdate) {
        if let Some(queue) = &self.cluster_queue {
            queue.push(update());
        }
    }

    /// A topic has changed of which other nodes have to know, if there is a link to them:
    /// otherwise all are read when there is.
    pub(super) fn mark(&self, topic: impl FnOnce() -> Topic) {
        if let Some(queue) = self.cluster_queue.as_ref().filter(|queue| queue.is_up()) {
            queue.mark(topic());
        }
    }

    /// Whether other nodes have to know of a topic, and no change of it waits to be sent.
    pub(super) fn is_unmarked(&self, topic: impl FnOnce() -> Topic) -> bool {
        let queue = self.cluster_queue.as_ref().filter(|queue| queue.is_up());
        queue.is_some_and(|queue| !queue.is_marked(&topic()))
    }

    /// Whether there is a link to other nodes now.
    pub(super) fn is_linked(&self) -> bool {
        self.cluster_queue
            .as_ref()
            .is_some_and(|queue| queue.is_up())
    }

    /// A number that no channel and no user has had.
    pub(super) fn next_generation(&self) -> u64 {
        self.generations.fetch_add(1, Ordering::Relaxed)
    }
}

impl WorkerMessage {
    /// The connection and its frame, if it is for one.
    fn recipient(&self) -> Option<(ConnectionRef, &Frame)> {
        match self {
            Self::Direct(to, frame) => Some((*to, frame)),
            Self::Broadcast(Broadcast { frame, to, .. }) => match to {
                Recipients::Only(to) | Recipients::Welcome(to) => Some((*to, frame)),
                Recipients::All
                | Recipients::Except(_)
                | Recipients::Departed(_)
                | Recipients::Arrived(_) => None,
            },
            Self::Close(..) | Self::Unsubscribe(_) | Self::Departed(_) | Self::CloseApp(_) => None,
        }
    }

    /// What it costs while it waits: its bytes, and a little for the entry.
    pub fn cost(&self) -> usize {
        let bytes = match self {
            Self::Broadcast(broadcast) => return broadcast.cost(),
            Self::Direct(_, frame) => frame.len(),
            Self::Close(..) | Self::Unsubscribe(_) | Self::CloseApp(_) | Self::Departed(_) => 0,
        };
        bytes + size_of::<Self>()
    }
}

impl Broadcast {
    /// As [`WorkerMessage::cost`].
    pub fn cost(&self) -> usize {
        self.frame.len() + size_of::<WorkerMessage>()
    }
}

/// A queue of [`WorkerMessage`]s from any thread to one worker, bounded in bytes.
///
/// The bound is soft: [`Inbox::has_room`] is asked before a publish is accepted,
/// and an accepted one always fits, so that no message reaches half of the workers.
/// Whoever finds no room waits for `freed`, which all inboxes of a hub share.
#[derive(Debug)]
pub struct Inbox {
    bytes: AtomicUsize,
    capacity: usize,
    freed: Arc<Notify>,
    queue: Lock<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<WorkerMessage>,
    waker: Option<Waker>,
}

impl Inbox {
    pub(super) fn new(capacity: usize, freed: Arc<Notify>) -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            capacity,
            freed,
            queue: Lock::new(Rank::Inbox, Queue::default()),
        }
    }

    /// Whether less than the bound is waiting.
    pub fn has_room(&self) -> bool {
        // SeqCst, here and in `release`: whoever registers with `freed` and then finds
        // no room is seen by the release that makes some.
        self.bytes.load(Ordering::SeqCst) < self.capacity
    }

    /// Whether so much waits that what other nodes send cannot be taken, who do not
    /// wait as publishers do.
    pub(super) fn is_swamped(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > 4 * self.capacity
    }

    pub(super) fn push(&self, message: WorkerMessage) {
        self.bytes.fetch_add(message.cost(), Ordering::Relaxed);
        let waker = {
            let mut queue = self.queue.lock();
            queue.messages.push_back(message);
            queue.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes all that waits. It counts as waiting until [`Self::release`].
    pub fn take(&self) -> VecDeque<WorkerMessage> {
        std::mem::take(&mut self.queue.lock().messages)
    }

    /// Takes all that waits, or waits for the first.
    pub fn poll_take(&self, cx: &mut Context<'_>) -> Poll<VecDeque<WorkerMessage>> {
        let mut queue = self.queue.lock();
        if queue.messages.is_empty() {
            queue.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(std::mem::take(&mut queue.messages))
    }

    /// Messages that cost so many bytes are done with.
    pub fn release(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Ordering::SeqCst);
        // Not as soon as there is room: all who wait would be woken each time that the
        // first of them fill it again. It always gets down to half.
        let half = self.capacity / 2;
        if before > half && before - bytes <= half {
            self.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message;

    #[test]
    fn the_bound_counts_bytes_until_they_are_done() {
        let freed = Arc::new(Notify::new());
        let inbox = Inbox::new(1, Arc::clone(&freed));
        assert!(inbox.has_room());
        let broadcast = Broadcast {
            channel: 1,
            seq: 1,
            frame: message::ping(),
            to: Recipients::All,
            since: Instant::now(),
        };
        let cost = broadcast.cost();
        inbox.push(WorkerMessage::Broadcast(broadcast));
        assert!(!inbox.has_room());
        assert_eq!(inbox.take().len(), 1);
        assert!(!inbox.has_room(), "taken is not done");
        let mut waiting = std::pin::pin!(freed.notified());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        inbox.release(cost - 1);
        assert!(waiting.as_mut().poll(&mut cx).is_pending(), "still full");
        inbox.release(1);
        assert!(inbox.has_room());
        assert!(
            waiting.as_mut().poll(&mut cx).is_ready(),
            "answered at once"
        );
        assert!(
            inbox
                .poll_take(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
    }
}

//! A worker's inbox: what its sockets have to be sent.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use super::lock;
use crate::protocol::{CloseReason, Frame, SocketId};

/// Where a connection lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// Its worker.
    pub worker: usize,
    /// Its place among the worker's sockets.
    pub key: usize,
    /// Its id, which tells it from a later connection in the same place.
    pub id: SocketId,
}

/// Something for a worker to do.
#[derive(Clone, Debug)]
pub enum Letter {
    /// A message for the subscribers of a channel.
    Cast(Cast),
    /// A frame for one connection.
    Direct(Address, Frame),
    /// One connection has to go.
    Close(Address, CloseReason),
}

/// One message for a worker's subscribers of one channel.
#[derive(Clone, Debug)]
pub struct Cast {
    /// [`super::Channel::id`].
    pub channel: u64,
    /// Its number in the channel; not for subscribers that joined at or after it.
    pub seq: u64,
    /// The bytes.
    pub frame: Frame,
    /// Which of them.
    pub to: Audience,
}

/// Which of a channel's subscribers get a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// All that joined before it.
    All,
    /// All of those but one.
    Except(SocketId),
    /// One, whenever it joined: an answer that has its place in the channel's order.
    Only(Address),
}

impl From<Option<SocketId>> for Audience {
    fn from(except: Option<SocketId>) -> Self {
        except.map_or(Self::All, Self::Except)
    }
}

impl Letter {
    /// What it costs while it waits: its bytes, and a little for the entry.
    pub fn cost(&self) -> usize {
        let bytes = match self {
            Self::Cast(cast) => return cast.cost(),
            Self::Direct(_, frame) => frame.len(),
            Self::Close(..) => 0,
        };
        bytes + size_of::<Self>()
    }
}

impl Cast {
    /// As [`Letter::cost`].
    pub fn cost(&self) -> usize {
        self.frame.len() + size_of::<Letter>()
    }
}

/// A queue of [`Letter`]s from any thread to one worker, bounded in bytes.
///
/// The bound is soft: [`Inbox::has_room`] is asked before a publish is accepted,
/// and an accepted one always fits, so that no message reaches half of the workers.
#[derive(Debug)]
pub struct Inbox {
    bytes: AtomicUsize,
    capacity: usize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    letters: VecDeque<Letter>,
    waker: Option<Waker>,
}

impl Inbox {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            capacity,
            queue: Mutex::default(),
        }
    }

    /// Whether less than the bound is waiting.
    pub fn has_room(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) < self.capacity
    }

    pub(super) fn push(&self, letter: Letter) {
        self.bytes.fetch_add(letter.cost(), Ordering::Relaxed);
        let waker = {
            let mut queue = lock(&self.queue);
            queue.letters.push_back(letter);
            queue.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes all that waits. It counts as waiting until [`Self::release`].
    pub fn take(&self) -> VecDeque<Letter> {
        std::mem::take(&mut lock(&self.queue).letters)
    }

    /// Takes all that waits, or waits for the first.
    pub fn poll_take(&self, cx: &mut Context<'_>) -> Poll<VecDeque<Letter>> {
        let mut queue = lock(&self.queue);
        if queue.letters.is_empty() {
            queue.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(std::mem::take(&mut queue.letters))
    }

    /// Letters that cost so many bytes are done with.
    pub fn release(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message;

    #[test]
    fn the_bound_counts_bytes_until_they_are_done() {
        let inbox = Inbox::new(1);
        assert!(inbox.has_room());
        let cast = Cast {
            channel: 1,
            seq: 1,
            frame: message::ping(),
            to: Audience::All,
        };
        let cost = cast.cost();
        inbox.push(Letter::Cast(cast));
        assert!(!inbox.has_room());
        assert_eq!(inbox.take().len(), 1);
        assert!(!inbox.has_room(), "taken is not done");
        inbox.release(cost);
        assert!(inbox.has_room());
        assert!(
            inbox
                .poll_take(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
    }
}

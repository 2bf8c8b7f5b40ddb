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
    /// The connection that does not get it.
    pub except: Option<SocketId>,
}

impl Letter {
    /// What it costs while it waits: its bytes, and a little for the entry.
    fn cost(&self) -> usize {
        let bytes = match self {
            Self::Cast(cast) => cast.frame.len(),
            Self::Direct(_, frame) => frame.len(),
            Self::Close(..) => 0,
        };
        bytes + size_of::<Self>()
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

    /// Takes all that waits.
    pub fn take(&self) -> VecDeque<Letter> {
        self.taken(std::mem::take(&mut lock(&self.queue).letters))
    }

    /// Takes all that waits, or waits for the first.
    pub fn poll_take(&self, cx: &mut Context<'_>) -> Poll<VecDeque<Letter>> {
        let mut queue = lock(&self.queue);
        if queue.letters.is_empty() {
            queue.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let letters = std::mem::take(&mut queue.letters);
        drop(queue);
        Poll::Ready(self.taken(letters))
    }

    fn taken(&self, letters: VecDeque<Letter>) -> VecDeque<Letter> {
        self.bytes
            .fetch_sub(letters.iter().map(Letter::cost).sum(), Ordering::Relaxed);
        letters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message;

    #[test]
    fn the_bound_counts_bytes_until_they_are_taken() {
        let inbox = Inbox::new(1);
        assert!(inbox.has_room());
        inbox.push(Letter::Cast(Cast {
            channel: 1,
            seq: 1,
            frame: message::ping(),
            except: None,
        }));
        assert!(!inbox.has_room());
        assert_eq!(inbox.take().len(), 1);
        assert!(inbox.has_room());
        assert!(
            inbox
                .poll_take(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
    }
}

//! A worker's inbox: what its sockets have to be sent.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use super::lock;
use crate::protocol::{Frame, SocketId};

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

impl Cast {
    /// What it costs while it waits: its bytes, and a little for the entry.
    fn cost(&self) -> usize {
        self.frame.len() + size_of::<Self>()
    }
}

/// A queue of [`Cast`]s from any thread to one worker, bounded in bytes.
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
    casts: VecDeque<Cast>,
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

    pub(super) fn push(&self, cast: Cast) {
        self.bytes.fetch_add(cast.cost(), Ordering::Relaxed);
        let waker = {
            let mut queue = lock(&self.queue);
            queue.casts.push_back(cast);
            queue.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes all that waits.
    pub fn take(&self) -> VecDeque<Cast> {
        self.taken(std::mem::take(&mut lock(&self.queue).casts))
    }

    /// Takes all that waits, or waits for the first.
    pub fn poll_take(&self, cx: &mut Context<'_>) -> Poll<VecDeque<Cast>> {
        let mut queue = lock(&self.queue);
        if queue.casts.is_empty() {
            queue.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let casts = std::mem::take(&mut queue.casts);
        drop(queue);
        Poll::Ready(self.taken(casts))
    }

    fn taken(&self, casts: VecDeque<Cast>) -> VecDeque<Cast> {
        self.bytes
            .fetch_sub(casts.iter().map(Cast::cost).sum(), Ordering::Relaxed);
        casts
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
        inbox.push(Cast {
            channel: 1,
            seq: 1,
            frame: message::ping(),
            except: None,
        });
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

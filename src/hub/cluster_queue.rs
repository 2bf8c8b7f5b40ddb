//! What other nodes have to know: from any thread to the session with Redis.
//!
//! State and events apart. Of state only the *topics* wait whose facts have changed, each
//! once: whoever takes one reads how it is then, so that what was changed back costs
//! nothing, and no more wait than there are topics. Events wait in the order in which they
//! were published, within a bound in bytes.
//!
//! No publisher waits for it. Clients that change topics faster than they can be
//! sent are slowed down ([`ClusterQueue::has_room`]). Events that the link is too slow for
//! are dropped, with a count. Without a link they are kept, within a bound in bytes and
//! time; topics are not, since all of them are read when it returns.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::lock::{Lock, Rank};
use super::topic::{Event, Topic};
use crate::apps::AppHandle;
use crate::protocol::{ChannelName, SocketId};

/// Bytes of events that may wait while there is a link.
const MAX_BYTES: usize = 64 << 20;

/// Changed topics that may wait before clients that change more have to.
const MAX_DIRTY: usize = 8192;

/// Something that other nodes have to do.
#[derive(Clone, Debug)]
pub enum ClusterUpdate {
    /// Not only this node's subscribers have to get an event.
    Event(Event),
    /// All connections of a user have to be closed.
    Terminate {
        /// Of which application.
        app: AppHandle,
        /// The user's id.
        user: String,
        /// Whether its clients are to come back; if nothing, as the application's settings say.
        reconnect: Option<bool>,
    },
    /// Somebody has to leave a channel.
    Unsubscribe {
        /// Of which application.
        app: AppHandle,
        /// Which.
        channel: ChannelName,
        /// Who.
        who: Unsubscribed,
    },
}

/// Whose subscription to a channel ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsubscribed {
    /// All connections of a user that has signed in, or is in a presence channel.
    User(String),
    /// One connection.
    Socket(SocketId),
}

/// What is kept for the others while there is no link.
#[derive(Clone, Copy, Debug)]
pub struct BufferLimits {
    /// Bytes.
    pub bytes: usize,
    /// How long.
    pub time: Duration,
}

impl ClusterUpdate {
    fn cost(&self) -> usize {
        let bytes = match self {
            Self::Event(event) => event.frame.len(),
            Self::Terminate { user, .. } => user.len(),
            Self::Unsubscribe { channel, who, .. } => {
                let id = match who {
                    Unsubscribed::User(id) => id.len(),
                    Unsubscribed::Socket(_) => 0,
                };
                channel.as_str().len() + id
            }
        };
        bytes + 256
    }
}

/// The queue.
#[derive(Debug)]
pub struct ClusterQueue {
    is_up: AtomicBool,
    bytes: AtomicUsize,
    dirty: AtomicUsize,
    dropped: AtomicU64,
    limits: BufferLimits,
    /// Notified when fewer topics wait than half of what may.
    freed: Arc<Notify>,
    queue: Lock<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    updates: VecDeque<(Instant, ClusterUpdate)>,
    /// Topics that have changed, in the order in which they did first.
    topics: VecDeque<Topic>,
    /// The same, to be found.
    is_dirty: HashSet<Topic>,
    /// Connections that counted for an application's `max_connections` and have ended.
    released: HashMap<AppHandle, usize>,
    waker: Option<Waker>,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.updates.is_empty() && self.topics.is_empty() && self.released.is_empty()
    }
}

impl ClusterQueue {
    /// An empty queue without a link.
    pub fn new(limits: BufferLimits) -> Self {
        Self {
            is_up: AtomicBool::new(false),
            bytes: AtomicUsize::new(0),
            dirty: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            limits,
            freed: Arc::default(),
            queue: Lock::new(Rank::ClusterQueue, Queue::default()),
        }
    }

    /// Whether there is a link.
    pub fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Acquire)
    }

    /// Bytes of updates that wait.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether clients may change more topics now.
    pub fn has_room(&self) -> bool {
        // SeqCst, here and in `take_topics`: as for an inbox.
        self.dirty.load(Ordering::SeqCst) < MAX_DIRTY
    }

    pub(super) fn freed(&self) -> &Arc<Notify> {
        &self.freed
    }

    /// Events that were not kept long enough to be sent.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Counts events that were given up by whoever took them.
    pub fn count_dropped(&self, events: u64) {
        self.dropped.fetch_add(events, Ordering::Relaxed);
    }

    pub(super) fn push(&self, update: ClusterUpdate) {
        let mut queue = self.queue.lock();
        let is_up = self.is_up();
        if is_up && self.bytes() > MAX_BYTES && matches!(update, ClusterUpdate::Event(_)) {
            self.count_dropped(1);
            return;
        }
        self.bytes.fetch_add(update.cost(), Ordering::Relaxed);
        queue.updates.push_back((Instant::now(), update));
        if !is_up {
            self.hold_to_bound(&mut queue);
        }
        let waker = queue.waker.take();
        drop(queue);
        wake(waker);
    }

    /// A topic has changed, has become one, or is none any more.
    pub(super) fn mark(&self, topic: Topic) {
        let mut queue = self.queue.lock();
        if !self.is_up() || queue.is_dirty.contains(&topic) {
            return;
        }
        queue.is_dirty.insert(topic.clone());
        queue.topics.push_back(topic);
        self.dirty.fetch_add(1, Ordering::SeqCst);
        let waker = queue.waker.take();
        drop(queue);
        wake(waker);
    }

    pub(super) fn is_marked(&self, topic: &Topic) -> bool {
        self.queue.lock().is_dirty.contains(topic)
    }

    /// A connection has ended that counted for all nodes' quota of an application.
    pub(super) fn release(&self, app: &AppHandle) {
        let mut queue = self.queue.lock();
        if self.is_up() {
            *queue.released.entry(app.clone()).or_default() += 1;
            wake(queue.waker.take());
        }
    }

    /// A link has come up: from now on everything is taken.
    pub fn go_up(&self) {
        let _queue = self.queue.lock();
        self.is_up.store(true, Ordering::Release);
    }

    /// The link is gone. Of what waits, only updates are kept.
    pub fn go_down(&self) {
        let mut queue = self.queue.lock();
        self.is_up.store(false, Ordering::Release);
        queue.topics.clear();
        queue.is_dirty.clear();
        queue.released.clear();
        self.dirty.store(0, Ordering::SeqCst);
        self.hold_to_bound(&mut queue);
        drop(queue);
        self.freed.notify_waiters();
    }

    /// Drops what was kept for too long. To be called now and then without a link.
    pub fn expire(&self) {
        self.hold_to_bound(&mut self.queue.lock());
    }

    fn hold_to_bound(&self, queue: &mut Queue) {
        let now = Instant::now();
        while let Some((since, update)) = queue.updates.front() {
            let is_old = now.duration_since(*since) > self.limits.time;
            if !is_old && self.bytes() <= self.limits.bytes {
                return;
            }
            self.bytes.fetch_sub(update.cost(), Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            queue.updates.pop_front();
        }
    }

    /// Takes up to `max` updates that cost up to `max_bytes`, and at least one if there is
    /// one, with the time at which each was put in.
    pub fn take_updates(&self, max: usize, max_bytes: usize) -> Vec<(Instant, ClusterUpdate)> {
        let mut queue = self.queue.lock();
        let mut cost = 0;
        let mut taken = Vec::new();
        while taken.len() < max
            && cost < max_bytes
            && let Some((since, update)) = queue.updates.pop_front()
        {
            cost += update.cost();
            taken.push((since, update));
        }
        self.bytes.fetch_sub(cost, Ordering::Relaxed);
        taken
    }

    /// Takes up to `max` topics that have changed.
    pub fn take_topics(&self, max: usize) -> Vec<Topic> {
        let taken: Vec<Topic> = {
            let mut queue = self.queue.lock();
            let count = queue.topics.len().min(max);
            let taken: Vec<Topic> = queue.topics.drain(..count).collect();
            for topic in &taken {
                queue.is_dirty.remove(topic);
            }
            taken
        };
        let before = self.dirty.fetch_sub(taken.len(), Ordering::SeqCst);
        let half = MAX_DIRTY / 2;
        if before > half && before - taken.len() <= half {
            self.freed.notify_waiters();
        }
        taken
    }

    /// Takes the connections that have ended, by application.
    pub fn take_released(&self) -> Vec<(AppHandle, usize)> {
        self.queue.lock().released.drain().collect()
    }

    /// Whether no topic has changed that was not taken.
    pub fn is_clean(&self) -> bool {
        self.dirty.load(Ordering::SeqCst) == 0
    }

    /// Waits until something can be taken.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut queue = self.queue.lock();
        if queue.is_empty() {
            queue.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::tests::handle;
    use crate::protocol::{ChannelName, message};

    fn name(text: &str) -> ChannelName {
        ChannelName::parse(text, 100).unwrap()
    }

    fn event(data: usize) -> ClusterUpdate {
        let channel = name("c");
        let frame = message::event("\"e\"", &format!("\"{}\"", "x".repeat(data)), &channel);
        ClusterUpdate::Event(Event {
            app: handle("a"),
            channel,
            except: None,
            frame,
            is_kept: false,
        })
    }

    fn queue(bytes: usize, time: Duration) -> ClusterQueue {
        ClusterQueue::new(BufferLimits { bytes, time })
    }

    fn take(queue: &ClusterQueue) -> usize {
        queue.take_updates(10, usize::MAX).len()
    }

    #[test]
    fn without_a_link_only_updates_are_kept_and_the_oldest_go_first() {
        let queue = queue(1000, Duration::from_secs(60));
        queue.mark(Topic::Channel(handle("a"), name("c")));
        queue.release(&handle("a"));
        assert!(queue.is_clean(), "all topics are read later");
        for _ in 0..3 {
            queue.push(event(200));
        }
        assert_eq!((take(&queue), queue.dropped()), (2, 1));
        assert_eq!(queue.bytes(), 0);
        queue.push(event(2000));
        assert_eq!((take(&queue), queue.dropped()), (0, 2));
    }

    #[test]
    fn with_a_link_everything_is_taken_until_it_breaks() {
        let queue = queue(1000, Duration::ZERO);
        queue.go_up();
        queue.mark(Topic::Channel(handle("a"), name("c")));
        queue.push(event(2000));
        assert_eq!((queue.dropped(), queue.is_clean()), (0, false));
        queue.go_down();
        assert_eq!((take(&queue), queue.dropped()), (0, 1));
        assert!(queue.is_clean());
    }

    #[test]
    fn a_topic_waits_once_however_often_it_changes() {
        let queue = queue(1000, Duration::from_secs(60));
        queue.go_up();
        let app = handle("a");
        let topic = |text| Topic::Channel(app.clone(), name(text));
        for _ in 0..10_000 {
            queue.mark(topic("a"));
            queue.mark(topic("b"));
        }
        assert_eq!(queue.take_topics(1), [topic("a")]);
        queue.mark(topic("a"));
        assert_eq!(queue.take_topics(10), [topic("b"), topic("a")]);
        assert!(queue.is_clean());
    }

    #[test]
    fn clients_wait_while_too_many_topics_have_changed() {
        let queue = queue(1000, Duration::from_secs(60));
        queue.go_up();
        let app = handle("a");
        for n in 0..MAX_DIRTY {
            assert!(queue.has_room());
            queue.mark(Topic::User(app.clone(), n.to_string().into()));
        }
        assert!(!queue.has_room());
        let mut freed = std::pin::pin!(queue.freed().notified());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(freed.as_mut().poll(&mut cx).is_pending());
        queue.take_topics(1);
        assert!(queue.has_room() && freed.as_mut().poll(&mut cx).is_pending());
        queue.take_topics(MAX_DIRTY / 2);
        assert!(freed.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn a_link_that_is_too_slow_costs_events_and_nobody_waits() {
        let queue = queue(usize::MAX, Duration::from_secs(60));
        queue.go_up();
        queue.push(event(MAX_BYTES));
        queue.push(event(1));
        assert_eq!(queue.dropped(), 1);
        queue.push(ClusterUpdate::Terminate {
            app: handle("a"),
            user: "1".to_owned(),
            reconnect: None,
        });
        assert_eq!(queue.take_updates(10, 1).len(), 1, "one, however big");
        assert_eq!(take(&queue), 1, "what is no event is not dropped");
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn ended_connections_are_added_up() {
        let queue = queue(0, Duration::ZERO);
        queue.go_up();
        let (a, b) = (handle("a"), handle("b"));
        for app in [&a, &b, &a] {
            queue.release(app);
        }
        let mut released = queue.take_released();
        released.sort_by_key(|(app, _)| app.number());
        assert_eq!(released, [(a, 2), (b, 1)]);
        assert!(queue.take_released().is_empty());
    }
}

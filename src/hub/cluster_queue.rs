//! What other nodes have to be told: a queue from any thread to the one that
//! speaks with them.
//!
//! Nobody waits for it. While there is a link, everything is taken; events that it is
//! too slow for are dropped, with a count. Without one, only what was published is
//! kept, within a bound in bytes and time; facts are not, since all of them are told
//! anew when the link returns.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::lock;
use crate::protocol::{ChannelName, Frame, Member, SocketId};

/// Bytes of events that may wait while there is a link.
const CAPACITY: usize = 64 << 20;

/// A node, by the random number that it was given when it started.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What nodes tell each other about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// A channel of the application with this index.
    Channel(usize, ChannelName),
    /// A user of it, for those who watch.
    User(usize, std::sync::Arc<str>),
}

/// Something that is so on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A user is in the presence channel.
    Member(Member),
    /// It is not any more; its id.
    Left(std::sync::Arc<str>),
    /// So many connections have subscribed.
    Subscribers(usize),
    /// The user is signed in.
    Online,
    /// It is not any more.
    Offline,
}

/// Something to tell.
#[derive(Clone, Debug)]
pub enum ClusterUpdate {
    /// The topic has to be listened to from now on, and these are its facts here.
    Listen {
        /// What.
        topic: Topic,
        /// Which life of it: [`super::Channel::id`], 0 for a user.
        generation: u64,
        /// What is so on this node.
        facts: Vec<Fact>,
    },
    /// Nobody here needs the topic any more.
    Unlisten(Topic),
    /// Something has changed.
    Change(Topic, Fact),
    /// All [`ClusterUpdate::Listen`]s of [`super::Hub::tell_all`] are before this.
    AllTold,
    /// Not only this node's subscribers have to get an event.
    Event(Event),
    /// All connections of a user have to be closed.
    Terminate {
        /// [`crate::app::App::index`].
        app: usize,
        /// The user's id.
        user: String,
    },
    /// A connection that counted for an application's `max_connections` has ended.
    Released(usize),
}

/// A published event.
#[derive(Clone, Debug)]
pub struct Event {
    /// [`crate::app::App::index`].
    pub app: usize,
    /// Where it goes.
    pub channel: ChannelName,
    /// The one connection that does not get it.
    pub except: Option<SocketId>,
    /// What subscribers are sent.
    pub frame: Frame,
    /// Whether it is a cache channel's last event, kept for later subscribers.
    pub is_kept: bool,
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
            // There are as many as there are topics, which are bounded by their sockets.
            Self::Listen { .. } => return 0,
            Self::Change(_, Fact::Member(member)) => member.info_json.len(),
            _ => 0,
        };
        bytes + 256
    }

    /// Whether it says which topics this node needs.
    fn is_about_topics(&self) -> bool {
        matches!(
            self,
            Self::Listen { .. } | Self::Unlisten(_) | Self::AllTold
        )
    }

    /// Whether it is worth telling later, without a link now.
    fn outlasts(&self) -> bool {
        matches!(self, Self::Event(_) | Self::Terminate { .. })
    }
}

/// The queue.
#[derive(Debug)]
pub struct ClusterQueue {
    is_up: AtomicBool,
    bytes: AtomicUsize,
    dropped: AtomicU64,
    kept: BufferLimits,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    notes: VecDeque<(Instant, ClusterUpdate)>,
    /// Notes among them that say which topics this node needs.
    about_topics: usize,
    waker: Option<Waker>,
}

impl ClusterQueue {
    /// An empty queue without a link.
    pub fn new(kept: BufferLimits) -> Self {
        Self {
            is_up: AtomicBool::new(false),
            bytes: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            kept,
            queue: Mutex::default(),
        }
    }

    /// Whether there is a link.
    pub fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Acquire)
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether so much waits, beside events, that the link cannot be keeping up.
    pub fn is_swamped(&self) -> bool {
        self.bytes() > 2 * CAPACITY
    }

    /// Events that were not kept long enough to be told.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Counts one that was given up elsewhere.
    pub fn count_dropped(&self, events: u64) {
        self.dropped.fetch_add(events, Ordering::Relaxed);
    }

    pub(super) fn push(&self, note: ClusterUpdate) {
        let mut queue = lock(&self.queue);
        let is_up = self.is_up();
        if !is_up && !note.outlasts() {
            return;
        }
        if is_up && self.bytes() > CAPACITY && matches!(note, ClusterUpdate::Event(_)) {
            self.count_dropped(1);
            return;
        }
        self.bytes.fetch_add(note.cost(), Ordering::Relaxed);
        queue.about_topics += usize::from(note.is_about_topics());
        queue.notes.push_back((Instant::now(), note));
        if !is_up {
            self.hold_to_bound(&mut queue);
        }
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// A link has come up: from now on everything is taken.
    pub fn go_up(&self) {
        let _queue = lock(&self.queue);
        self.is_up.store(true, Ordering::Release);
    }

    /// The link is gone. Of what waits, only what was published is kept.
    pub fn go_down(&self) {
        let mut queue = lock(&self.queue);
        self.is_up.store(false, Ordering::Release);
        queue.notes.retain(|(_, note)| note.outlasts());
        queue.about_topics = 0;
        let left: usize = queue.notes.iter().map(|(_, note)| note.cost()).sum();
        self.bytes.store(left, Ordering::Relaxed);
        self.hold_to_bound(&mut queue);
    }

    /// Drops what was kept for too long. To be called now and then without a link.
    pub fn expire(&self) {
        self.hold_to_bound(&mut lock(&self.queue));
    }

    fn hold_to_bound(&self, queue: &mut Queue) {
        let now = Instant::now();
        while let Some((since, note)) = queue.notes.front() {
            let is_old = now.duration_since(*since) > self.kept.time;
            if !is_old && self.bytes() <= self.kept.bytes {
                return;
            }
            self.bytes.fetch_sub(note.cost(), Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            queue.notes.pop_front();
        }
    }

    /// Takes up to `most` notes that cost up to `bytes`, and at least one if there is
    /// one, with the time at which each was put in.
    pub fn take(&self, max: usize, bytes: usize) -> Vec<(Instant, ClusterUpdate)> {
        let mut queue = lock(&self.queue);
        let mut cost = 0;
        let mut taken = Vec::new();
        while taken.len() < max
            && cost < bytes
            && let Some((since, note)) = queue.notes.pop_front()
        {
            cost += note.cost();
            queue.about_topics -= usize::from(note.is_about_topics());
            taken.push((since, note));
        }
        self.bytes.fetch_sub(cost, Ordering::Relaxed);
        taken
    }

    /// Whether all that was told of topics that this node needs, or needs no more, has
    /// been taken.
    pub fn has_told_topics(&self) -> bool {
        lock(&self.queue).about_topics == 0
    }

    /// Waits until something can be taken.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut queue = lock(&self.queue);
        if queue.notes.is_empty() {
            queue.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message;

    fn event(data: usize) -> ClusterUpdate {
        let channel = ChannelName::parse("c", 10).unwrap();
        let frame = message::event("\"e\"", &format!("\"{}\"", "x".repeat(data)), &channel);
        ClusterUpdate::Event(Event {
            app: 0,
            channel,
            except: None,
            frame,
            is_kept: false,
        })
    }

    fn cluster_queue(bytes: usize, time: Duration) -> ClusterQueue {
        ClusterQueue::new(BufferLimits { bytes, time })
    }

    #[test]
    fn without_a_link_only_events_are_kept_and_the_oldest_go_first() {
        let cluster_queue = cluster_queue(1000, Duration::from_secs(60));
        cluster_queue.push(ClusterUpdate::Released(0));
        assert_eq!(cluster_queue.bytes(), 0, "facts are told anew later");
        for _ in 0..3 {
            cluster_queue.push(event(200));
        }
        assert_eq!(
            (
                cluster_queue.take(10, usize::MAX).len(),
                cluster_queue.dropped()
            ),
            (2, 1)
        );
        assert_eq!(cluster_queue.bytes(), 0);
        cluster_queue.push(event(2000));
        assert_eq!(
            (
                cluster_queue.take(10, usize::MAX).len(),
                cluster_queue.dropped()
            ),
            (0, 2)
        );
    }

    #[test]
    fn with_a_link_everything_is_taken_until_it_breaks() {
        let cluster_queue = cluster_queue(1000, Duration::ZERO);
        cluster_queue.go_up();
        cluster_queue.push(ClusterUpdate::Released(0));
        cluster_queue.push(event(2000));
        assert_eq!(cluster_queue.dropped(), 0);
        cluster_queue.go_down();
        assert_eq!(
            (
                cluster_queue.take(10, usize::MAX).len(),
                cluster_queue.dropped()
            ),
            (0, 1)
        );
    }

    #[test]
    fn it_is_known_whether_all_that_was_told_of_topics_is_taken() {
        let cluster_queue = cluster_queue(1000, Duration::from_secs(60));
        cluster_queue.push(ClusterUpdate::AllTold);
        assert!(
            cluster_queue.has_told_topics(),
            "without a link it is not kept"
        );
        cluster_queue.go_up();
        cluster_queue.push(ClusterUpdate::AllTold);
        cluster_queue.push(event(1));
        assert!(!cluster_queue.has_told_topics());
        cluster_queue.take(1, usize::MAX);
        assert!(cluster_queue.has_told_topics(), "events do not matter");
        cluster_queue.push(ClusterUpdate::AllTold);
        cluster_queue.go_down();
        assert!(cluster_queue.has_told_topics());
    }

    #[test]
    fn a_link_that_is_too_slow_costs_events_and_nobody_waits() {
        let cluster_queue = cluster_queue(usize::MAX, Duration::from_secs(60));
        cluster_queue.go_up();
        cluster_queue.push(event(CAPACITY));
        cluster_queue.push(event(1));
        assert_eq!(cluster_queue.dropped(), 1);
        cluster_queue.push(ClusterUpdate::Released(0));
        assert_eq!(cluster_queue.take(10, 1).len(), 1, "one, however big");
        assert_eq!(
            cluster_queue.take(10, 1).len(),
            1,
            "what is no event is not dropped"
        );
        assert_eq!(cluster_queue.bytes(), 0);
    }
}

//! What one receiver is still to be told, in order for each channel. No I/O, no clock.
//!
//! Events of a *lane* (a channel, or a connection) are told in their order: while some of them
//! are on their way, the next ones wait. Different lanes are told side by side.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::Event;

/// Lanes that may be left in the list of those that are ready, beside as many as there are.
const MAX_LEFT: usize = 64;

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// By the order in which they came.
    events: BTreeMap<u64, Waiting>,
    lanes: HashMap<u64, Lane, BuildHasherDefault<LaneHasher>>,
    /// Lanes with events of which none is on its way; some may have none any more.
    ready: VecDeque<u64>,
    /// How many events those have.
    ready_events: usize,
    /// Since when there are such events.
    since: Option<Instant>,
    next: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    event: Arc<Event>,
    /// The next one of its lane.
    next: Option<u64>,
}

#[derive(Debug, Default)]
struct Lane {
    /// Those of its events that come first and last, if it has any.
    first: Option<u64>,
    last: u64,
    count: usize,
    is_busy: bool,
}

/// Events that are told together.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) events: Vec<Arc<Event>>,
    lanes: Vec<u64>,
    /// They count until it is released.
    bytes: usize,
}

/// Takes what is a hash already for what it is.
#[derive(Debug, Default)]
struct LaneHasher(u64);

impl Hasher for LaneHasher {
    fn write(&mut self, _: &[u8]) {
        unreachable!("a lane is a number");
    }

    fn write_u64(&mut self, lane: u64) {
        self.0 = lane;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Queue {
    /// Adds an event. Returns how many of the oldest had to go for it.
    pub(super) fn push(&mut self, event: Arc<Event>, now: Instant, max_bytes: usize) -> usize {
        let number = self.next;
        self.next += 1;
        self.bytes += event.cost();
        let lane = self.lanes.entry(event.lane).or_default();
        if lane.count == 0 {
            lane.first = Some(number);
        } else if let Some(before) = self.events.get_mut(&lane.last) {
            before.next = Some(number);
        }
        lane.last = number;
        lane.count += 1;
        if !lane.is_busy {
            if lane.count == 1 {
                self.ready.push_back(event.lane);
            }
            self.ready_events += 1;
            self.since.get_or_insert(now);
        }
        self.events.insert(number, Waiting { event, next: None });
        let mut lost = 0;
        while self.bytes > max_bytes && self.events.len() > 1 {
            self.drop_oldest();
            lost += 1;
        }
        // Lanes that have gone are left in the list.
        if self.ready.len() > 2 * self.lanes.len() + MAX_LEFT {
            let (lanes, mut seen) = (&self.lanes, HashSet::new());
            let is_ready = |lane: &u64| lanes.get(lane).is_some_and(|lane| !lane.is_busy);
            self.ready
                .retain(|lane| is_ready(lane) && seen.insert(*lane));
        }
        lost
    }

    fn drop_oldest(&mut self) {
        let Some((number, Waiting { event, next })) = self.events.pop_first() else {
            return;
        };
        self.bytes -= event.cost();
        let Some(lane) = self.lanes.get_mut(&event.lane) else {
            return;
        };
        // The oldest of all is the oldest of its lane.
        debug_assert_eq!(lane.first, Some(number));
        lane.first = next;
        lane.count -= 1;
        if !lane.is_busy {
            self.ready_events -= 1;
            if lane.count == 0 {
                self.lanes.remove(&event.lane);
            }
        }
    }

    /// Drops what happened before `oldest`, in Unix milliseconds; returns how many there were.
    pub(super) fn expire(&mut self, oldest: u64) -> usize {
        let mut lost = 0;
        while self
            .events
            .first_key_value()
            .is_some_and(|(_, waiting)| waiting.event.at < oldest)
        {
            self.drop_oldest();
            lost += 1;
        }
        lost
    }

    /// When the next batch is due: at once if it is full, or else when its first event has waited
    /// so long.
    pub(super) fn next_due(&self, now: Instant, full: usize, time: Duration) -> Option<Instant> {
        let since = self.since?;
        Some(if self.ready_events >= full {
            now
        } else {
            since + time
        })
    }

    /// Takes the next batch, of as many events as are ready, but at most `max`. Their lanes wait
    /// until [`Self::release`].
    pub(super) fn take(&mut self, max: usize, now: Instant) -> Option<Batch> {
        let mut batch = Batch {
            events: Vec::with_capacity(max.min(self.ready_events)),
            lanes: Vec::new(),
            bytes: 0,
        };
        while batch.events.len() < max
            && let Some(name) = self.ready.pop_front()
        {
            // It may have gone, or be in the list twice, having gone and come.
            let Some(lane) = self.lanes.get_mut(&name).filter(|lane| !lane.is_busy) else {
                continue;
            };
            lane.is_busy = true;
            self.ready_events -= lane.count;
            while batch.events.len() < max
                && let Some(waiting) = lane.first.and_then(|number| self.events.remove(&number))
            {
                lane.first = waiting.next;
                lane.count -= 1;
                batch.bytes += waiting.event.cost();
                batch.events.push(waiting.event);
            }
            batch.lanes.push(name);
        }
        self.since = (self.ready_events > 0).then_some(now);
        (!batch.events.is_empty()).then_some(batch)
    }

    /// A batch is done with, told or not: its lanes go on.
    pub(super) fn release(&mut self, batch: Batch, now: Instant) {
        self.bytes -= batch.bytes;
        for name in batch.lanes {
            let Some(lane) = self.lanes.get_mut(&name) else {
                continue;
            };
            lane.is_busy = false;
            if lane.count == 0 {
                self.lanes.remove(&name);
                continue;
            }
            self.ready_events += lane.count;
            self.ready.push_back(name);
            self.since.get_or_insert(now);
        }
    }

    /// Drops all that waits; returns how many there were.
    pub(super) fn clear(&mut self) -> usize {
        let lost = self.events.len();
        while !self.events.is_empty() {
            self.drop_oldest();
        }
        self.ready.clear();
        self.since = None;
        lost
    }

    /// How many events wait.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.events.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::tests::handle;
    use crate::protocol::ChannelName;
    use crate::webhooks::event::{Id, Topic};

    const LARGE: usize = 1 << 20;

    struct Maker(crate::apps::AppHandle, u64);

    impl Maker {
        fn event(&mut self, channel: &str) -> Arc<Event> {
            self.1 += 1;
            let topic = Topic {
                app: self.0.clone(),
                channel: ChannelName::parse(channel, 100).unwrap(),
                user: None,
            };
            Arc::new(topic.event(true, Id::of("x", self.1)))
        }
    }

    fn ids(batch: &Batch) -> Vec<u64> {
        batch.events.iter().map(|event| number(event)).collect()
    }

    fn number(event: &Event) -> u64 {
        event.id().strip_prefix("x-").unwrap().parse().unwrap()
    }

    #[test]
    fn a_channel_is_told_in_order_and_others_beside_it() {
        let (mut queue, mut make) = (Queue::default(), Maker(handle("a"), 0));
        let now = Instant::now();
        for channel in ["a", "b", "a", "a"] {
            queue.push(make.event(channel), now, LARGE);
        }
        let first = queue.take(2, now).unwrap();
        assert_eq!(ids(&first), [1, 3]);
        let second = queue.take(2, now).unwrap();
        assert_eq!(ids(&second), [2], "of the other channel");
        assert!(queue.take(2, now).is_none(), "the first is on its way");
        assert_eq!(queue.next_due(now, 1, Duration::ZERO), None);
        queue.push(make.event("a"), now, LARGE);
        queue.release(first, now);
        let third = queue.take(9, now).unwrap();
        assert_eq!(ids(&third), [4, 5]);
        assert!(queue.bytes > 0, "also what is on its way counts");
        queue.release(third, now);
        queue.release(second, now);
        assert!(queue.take(9, now).is_none());
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn a_batch_is_due_when_it_is_full_or_old_enough() {
        let (mut queue, mut make) = (Queue::default(), Maker(handle("a"), 0));
        let (begin, time) = (Instant::now(), Duration::from_millis(250));
        assert_eq!(queue.next_due(begin, 2, time), None);
        queue.push(make.event("a"), begin, LARGE);
        let later = begin + time / 2;
        queue.push(make.event("a"), later, LARGE);
        assert_eq!(queue.next_due(later, 3, time), Some(begin + time));
        assert_eq!(queue.next_due(later, 2, time), Some(later));
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_bytes_or_they_are_too_old() {
        let (mut queue, mut make) = (Queue::default(), Maker(handle("a"), 0));
        let now = Instant::now();
        let cost = make.event("a").cost();
        let mut lost = 0;
        for number in 0..100 {
            let channel = ["a", "b", "c"][number % 3];
            lost += queue.push(make.event(channel), now, 10 * cost);
            assert!(queue.bytes <= 10 * cost);
        }
        assert_eq!((queue.len(), lost), (queue.events.len(), 100 - queue.len()));
        let all = queue.take(100, now).unwrap();
        assert_eq!(all.events.len() + lost, 100);
        queue.release(all, now);
        assert_eq!(
            (queue.bytes, queue.lanes.len(), queue.ready_events),
            (0, 0, 0)
        );
        let event = make.event("a");
        let at = event.at;
        queue.push(event, now, LARGE);
        assert_eq!(queue.expire(at), 0);
        assert_eq!(queue.expire(at + 1), 1);
        assert!(queue.take(1, now).is_none());
        assert_eq!(queue.next_due(now, 1, Duration::ZERO), None);
    }

    #[test]
    fn channels_that_nobody_is_told_of_leave_nothing() {
        let (mut queue, mut make) = (Queue::default(), Maker(handle("a"), 0));
        let now = Instant::now();
        for number in 0..10_000 {
            queue.push(make.event(&format!("c{number}")), now, 5000);
        }
        assert!(queue.ready.len() <= 2 * queue.lanes.len() + MAX_LEFT + 1);
        let batch = queue.take(1000, now).unwrap();
        let last = ids(&batch);
        assert_eq!(last.last(), Some(&10_000));
        assert!(last.is_sorted());
    }

    #[test]
    fn whatever_comes_goes_once_and_in_order() {
        let (mut queue, mut make) = (Queue::default(), Maker(handle("a"), 0));
        let now = Instant::now();
        let mut state = 7_u64;
        let mut random = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        let (mut on_way, mut last) = (Vec::new(), HashMap::new());
        let (mut pushed, mut taken, mut lost) = (0, 0, 0);
        for _ in 0..20_000 {
            match random(4) {
                0 | 1 => {
                    let channel = format!("c{}", random(5));
                    lost += queue.push(make.event(&channel), now, 5000);
                    pushed += 1;
                }
                2 => {
                    if let Some(batch) = queue.take(1 + usize::try_from(random(5)).unwrap(), now) {
                        for event in &batch.events {
                            let id = number(event);
                            let before = last.insert(event.lane, id);
                            assert!(before.is_none_or(|before| before < id));
                        }
                        taken += batch.events.len();
                        on_way.push(batch);
                    }
                }
                _ => {
                    if !on_way.is_empty() {
                        let at = usize::try_from(random(on_way.len() as u64)).unwrap();
                        queue.release(on_way.swap_remove(at), now);
                    }
                }
            }
            let busy: usize = on_way.iter().map(|batch| batch.lanes.len()).sum();
            assert!(busy <= 5, "a lane is on its way twice");
            assert_eq!(pushed, taken + lost + queue.len());
        }
        on_way
            .into_iter()
            .for_each(|batch| queue.release(batch, now));
        while let Some(batch) = queue.take(7, now) {
            queue.release(batch, now);
        }
        assert_eq!(
            (queue.bytes, queue.lanes.len(), queue.ready_events),
            (0, 0, 0)
        );
        assert!(queue.events.is_empty());
    }
}

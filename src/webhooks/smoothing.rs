//! What is there on this node, as others are told: who is gone may come back for some time, as if
//! nothing had been. No I/O, no clock.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::event::Topic;

/// Topics that are there, and those that have left a short time ago.
#[derive(Debug, Default)]
pub(super) struct Smoothing {
    /// With the time at which it is gone, if it has left.
    topics: HashMap<Topic, Option<Instant>>,
    /// Those that have left, by that time.
    leaving: VecDeque<(Instant, Topic)>,
}

impl Smoothing {
    /// A topic is there now, or is not. Returns whether others have to be told that it has come.
    pub(super) fn update(
        &mut self,
        topic: &Topic,
        is_there: bool,
        now: Instant,
        smoothing: Duration,
    ) -> bool {
        match (self.topics.get_mut(topic), is_there) {
            (Some(gone), true) => *gone = None,
            (None, true) => {
                self.topics.insert(topic.clone(), None);
                return true;
            }
            (Some(gone @ None), false) => {
                let at = now + smoothing;
                *gone = Some(at);
                self.leaving.push_back((at, topic.clone()));
            }
            (Some(Some(_)) | None, false) => {}
        }
        false
    }

    /// Takes the next topic that has been away for long enough.
    pub(super) fn next_gone(&mut self, now: Instant) -> Option<Topic> {
        while let Some((at, _)) = self.leaving.front() {
            if *at > now {
                return None;
            }
            let (at, topic) = self.leaving.pop_front()?;
            if self.topics.get(&topic) == Some(&Some(at)) {
                self.topics.remove(&topic);
                return Some(topic);
            }
        }
        None
    }

    /// When to look for such a one next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.leaving.front().map(|(at, _)| *at)
    }

    /// Whoever has left is gone now: nobody waits any more.
    pub(super) fn end(&mut self, now: Instant) {
        for (at, topic) in &mut self.leaving {
            if self.topics.get(topic) == Some(&Some(*at)) {
                *at = now;
                self.topics.insert(topic.clone(), Some(now));
            }
        }
    }

    /// All that others are to know of.
    pub(super) fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::tests::handle;
    use crate::protocol::ChannelName;

    const TIME: Duration = Duration::from_secs(3);

    fn topic(name: &str) -> Topic {
        Topic {
            app: handle("a"),
            channel: ChannelName::parse(name, 100).unwrap(),
            user: None,
        }
    }

    #[test]
    fn who_is_back_in_time_was_never_away() {
        let (a, begin) = (topic("a"), Instant::now());
        let mut smoothing = Smoothing::default();
        assert!(smoothing.update(&a, true, begin, TIME));
        assert!(!smoothing.update(&a, true, begin, TIME), "it is known");
        assert!(!smoothing.update(&a, false, begin, TIME));
        assert_eq!(smoothing.next_gone(begin + TIME / 2), None);
        assert!(!smoothing.update(&a, true, begin + TIME / 2, TIME));
        assert_eq!(smoothing.next_gone(begin + 2 * TIME), None);
        // Away again: the time begins anew.
        assert!(!smoothing.update(&a, false, begin + 2 * TIME, TIME));
        assert_eq!(smoothing.next_gone(begin + 2 * TIME + TIME / 2), None);
        assert_eq!(smoothing.next_gone(begin + 3 * TIME), Some(a.clone()));
        assert_eq!(smoothing.next_gone(begin + 9 * TIME), None, "once");
        assert!(smoothing.update(&a, true, begin + 9 * TIME, TIME));
    }

    #[test]
    fn who_came_and_went_unseen_is_not_known() {
        let (a, begin) = (topic("a"), Instant::now());
        let mut smoothing = Smoothing::default();
        assert!(!smoothing.update(&a, false, begin, TIME));
        assert_eq!(smoothing.next_gone(begin + 2 * TIME), None);
        assert_eq!(smoothing.topics().count(), 0);
    }

    #[test]
    fn at_the_end_nobody_is_waited_for() {
        let begin = Instant::now();
        let (a, b) = (topic("a"), topic("b"));
        let mut smoothing = Smoothing::default();
        smoothing.update(&a, true, begin, TIME);
        smoothing.update(&b, true, begin, TIME);
        smoothing.update(&a, false, begin, TIME);
        smoothing.end(begin);
        assert_eq!(smoothing.next_gone(begin), Some(a));
        assert_eq!(smoothing.next_gone(begin), None);
        assert_eq!(smoothing.topics().collect::<Vec<_>>(), [&b]);
    }
}

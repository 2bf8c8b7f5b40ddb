//! What is there on this node, as others are told: who is gone may come back for some time, as if
//! nothing had been. No I/O, no clock.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::event::Topic;

/// Topics that are there, and those that have left a short time ago.
#[derive(Debug, Default)]
pub(super) struct Smoothing {
    /// With the place among those that are leaving, if it has left.
    topics: HashMap<Topic, Option<Place>>,
    leaving: BTreeMap<Place, Topic>,
    next: u64,
}

/// When a topic is gone; of those at the same time, users before their channel.
type Place = (Instant, bool, u64);

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
            (Some(left), true) => {
                if let Some(place) = left.take() {
                    self.leaving.remove(&place);
                }
            }
            (None, true) => {
                self.topics.insert(topic.clone(), None);
                return true;
            }
            (Some(left @ None), false) => {
                let place = (now + smoothing, topic.user.is_none(), self.next);
                self.next += 1;
                *left = Some(place);
                self.leaving.insert(place, topic.clone());
            }
            (Some(Some(_)) | None, false) => {}
        }
        false
    }

    /// Takes the next topic that has been away for long enough.
    pub(super) fn next_gone(&mut self, now: Instant) -> Option<Topic> {
        let first = self.leaving.first_entry()?;
        if first.key().0 > now {
            return None;
        }
        let topic = first.remove();
        self.topics.remove(&topic);
        Some(topic)
    }

    /// When to look for such a one next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.leaving.first_key_value().map(|((at, ..), _)| *at)
    }

    /// Whoever has left is gone now: nobody waits any more.
    pub(super) fn end(&mut self, now: Instant) {
        for ((_, is_channel, number), topic) in std::mem::take(&mut self.leaving) {
            let place = (now, is_channel, number);
            self.topics.insert(topic.clone(), Some(place));
            self.leaving.insert(place, topic);
        }
    }

    /// Nobody is to know of a topic any more. Returns whether others were told of it.
    pub(super) fn forget(&mut self, topic: &Topic) -> bool {
        let known = self.topics.remove(topic);
        if let Some(Some(place)) = known {
            self.leaving.remove(&place);
        }
        known.is_some()
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
    fn who_comes_and_goes_again_and_again_holds_up_nobody() {
        let (a, b, begin) = (topic("a"), topic("b"), Instant::now());
        let mut smoothing = Smoothing::default();
        for topic in [&a, &b] {
            smoothing.update(topic, true, begin, TIME);
        }
        smoothing.update(&a, false, begin, 10 * TIME);
        smoothing.update(&a, true, begin, TIME);
        smoothing.update(&b, false, begin, TIME);
        assert_eq!(smoothing.next_gone(begin + TIME), Some(b.clone()));
        smoothing.update(&b, true, begin, TIME);
        smoothing.update(&b, false, begin, TIME);
        smoothing.end(begin);
        assert_eq!(smoothing.next_gone(begin), Some(b));
        assert!(smoothing.leaving.is_empty());
        assert!(smoothing.forget(&a) && !smoothing.forget(&a));
    }

    #[test]
    fn users_are_gone_before_their_channel() {
        let (channel, begin) = (topic("presence-a"), Instant::now());
        let user = Topic {
            user: Some("7".into()),
            ..channel.clone()
        };
        let mut smoothing = Smoothing::default();
        for topic in [&channel, &user] {
            smoothing.update(topic, true, begin, TIME);
            smoothing.update(topic, false, begin, TIME);
        }
        assert_eq!(smoothing.next_gone(begin + TIME), Some(user));
        assert_eq!(smoothing.next_gone(begin + TIME), Some(channel));
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

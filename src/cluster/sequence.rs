//! Events are numbered, so that one that comes twice is not delivered twice and one
//! that does not come is noticed.

use std::collections::HashMap;
use std::num::NonZeroUsize;

use lru::LruCache;

use crate::hub::NodeId;

/// Channels whose count goes on; that of one which was not published to for longest
/// begins anew, under another run.
const MAX_COUNTED: NonZeroUsize = NonZeroUsize::new(65_536).expect("it is not zero");

/// How this node numbers its events.
pub(super) struct SequenceCounter {
    by_bus: LruCache<Box<str>, (u32, u64)>,
    next_run: u32,
}

impl SequenceCounter {
    pub(super) fn new() -> Self {
        Self {
            by_bus: LruCache::new(MAX_COUNTED),
            next_run: 1,
        }
    }

    /// The run and the number of the next event of a channel.
    pub(super) fn next(&mut self, bus: &str) -> (u32, u64) {
        if let Some((run, number)) = self.by_bus.get_mut(bus) {
            *number += 1;
            return (*run, *number);
        }
        let run = self.next_run;
        self.next_run = self.next_run.wrapping_add(1);
        self.by_bus.put(bus.into(), (run, 1));
        (run, 1)
    }
}

/// Nodes whose numbers are remembered in one channel. They are kept when a node is
/// given up, too: it may come back and send again what it was not sure of.
const MAX_HEARD: usize = 256;

/// What was received in one channel, by node.
#[derive(Default)]
pub(super) struct SequenceTracker(HashMap<NodeId, (u32, u64)>);

/// What an event's number says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Dedup {
    /// It is new, and so many before it were missed.
    New(u64),
    /// It has been here before.
    Repeated,
}

impl SequenceTracker {
    /// Records an event's number.
    pub(super) fn check(&mut self, node: NodeId, run: u32, number: u64) -> Dedup {
        let Some((known, last)) = self.0.get_mut(&node) else {
            if self.0.len() >= MAX_HEARD {
                self.0.clear();
            }
            self.0.insert(node, (run, number));
            return Dedup::New(0);
        };
        if *known != run {
            (*known, *last) = (run, number);
            return Dedup::New(number.saturating_sub(1));
        }
        if number <= *last {
            return Dedup::Repeated;
        }
        let missed = number - *last - 1;
        *last = number;
        Dedup::New(missed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_counted_and_repetitions_noticed() {
        let node = NodeId(1);
        let mut sequences = SequenceTracker::default();
        for (run, number, expected) in [
            (1, 5, Dedup::New(0)),
            (1, 6, Dedup::New(0)),
            (1, 6, Dedup::Repeated),
            (1, 4, Dedup::Repeated),
            (1, 9, Dedup::New(2)),
            (2, 1, Dedup::New(0)),
            (3, 2, Dedup::New(1)),
        ] {
            assert_eq!(
                sequences.check(node, run, number),
                expected,
                "{run} {number}"
            );
        }
        assert_eq!(sequences.check(NodeId(2), 1, 1), Dedup::New(0));
    }

    #[test]
    fn a_count_that_was_given_up_begins_under_another_run() {
        let mut counting = SequenceCounter::new();
        assert_eq!(counting.next("a"), (1, 1));
        assert_eq!(counting.next("a"), (1, 2));
        for other in 0..MAX_COUNTED.get() {
            counting.next(&other.to_string());
        }
        let (run, number) = counting.next("a");
        assert!(run > 1 && number == 1);
    }
}

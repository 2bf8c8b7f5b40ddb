//! Which other nodes are alive. Pure: it is given the times at which messages were received,
//! and has no clock.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::hub::NodeId;

/// Nodes that are alive, as far as is known.
pub(super) struct Membership {
    /// Until when nothing need be received from each.
    until: HashMap<NodeId, Instant>,
    /// Those that were late, and from which nothing was received since.
    lost: HashSet<NodeId>,
    /// Those of which it was said that they go, and when that came.
    gone: HashMap<NodeId, Instant>,
    /// Silence after which a node is taken for gone.
    lease: Duration,
}

/// Nodes that are remembered as lost, and as gone.
const MAX_REMEMBERED: usize = 1000;

impl Membership {
    pub(super) fn new(lease: Duration) -> Self {
        Self {
            until: HashMap::new(),
            lost: HashSet::new(),
            gone: HashMap::new(),
            lease,
        }
    }

    /// A node was alive at that time, as was answered to a question that was asked then.
    /// True if it had been taken for gone: then what was known of it has been forgotten.
    pub(super) fn seen(&mut self, node: NodeId, at: Instant, asked: Instant, now: Instant) -> bool {
        if now.saturating_duration_since(at) >= self.lease {
            return false;
        }
        // It goes off the list before it says so: a list that was asked for later has it
        // only if it is there again, or was never going.
        let was_gone = match self.gone.get(&node) {
            Some(since) if asked < *since => return false,
            Some(_) => self.gone.remove(&node).is_some(),
            None => false,
        };
        let until = self.until.entry(node).or_insert(at);
        *until = (at + self.lease).max(*until);
        self.lost.remove(&node) || was_gone
    }

    /// It was said that a node goes. True if it was there.
    pub(super) fn remove(&mut self, node: NodeId, now: Instant) -> bool {
        if self.gone.len() >= MAX_REMEMBERED {
            self.gone.clear();
        }
        self.gone.insert(node, now);
        self.until.remove(&node).is_some()
    }

    /// Removes the nodes that are late, and returns them.
    pub(super) fn remove_late(&mut self, now: Instant) -> Vec<NodeId> {
        let late = self.until.extract_if(|_, until| *until <= now);
        let late: Vec<NodeId> = late.map(|(node, _)| node).collect();
        if self.lost.len() >= MAX_REMEMBERED {
            self.lost.clear();
        }
        self.lost.extend(&late);
        late
    }

    /// Nothing could be received, or can be for now: nobody is late before that time has passed.
    pub(super) fn excuse(&mut self, now: Instant, time: Duration) {
        for until in self.until.values_mut() {
            *until = (now + time).max(*until);
        }
    }

    pub(super) fn contains(&self, node: NodeId) -> bool {
        self.until.contains_key(&node)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = NodeId> {
        self.until.keys().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.until.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);

    fn seen(nodes: &mut Membership, at: Instant, now: Instant) -> bool {
        nodes.seen(A, at, now, now)
    }

    #[test]
    fn a_node_is_lost_after_its_lease_and_known_when_it_returns() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut nodes = Membership::new(Duration::from_secs(12));
        assert!(!seen(&mut nodes, at(0), at(1)), "it is new");
        assert_eq!(nodes.remove_late(at(11)), []);
        assert!(!seen(&mut nodes, at(10), at(11)));
        assert_eq!(nodes.remove_late(at(21)), []);
        assert_eq!(nodes.remove_late(at(22)), [A]);
        assert!(!nodes.contains(A));
        assert!(!seen(&mut nodes, at(10), at(23)), "old news");
        assert!(!nodes.contains(A));
        assert!(seen(&mut nodes, at(23), at(23)));
        assert!(nodes.contains(A));
    }

    #[test]
    fn a_node_that_goes_is_back_when_a_later_question_is_answered_with_it() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut nodes = Membership::new(Duration::from_secs(12));
        seen(&mut nodes, at(0), at(0));
        assert!(nodes.remove(A, at(2)) && !nodes.remove(A, at(2)));
        assert!(!nodes.seen(A, at(2), at(1), at(3)), "asked before");
        assert!(!nodes.contains(A));
        assert!(nodes.seen(A, at(1), at(4), at(4)), "asked after");
        assert!(nodes.contains(A) && !seen(&mut nodes, at(5), at(5)));
    }

    #[test]
    fn nobody_is_late_while_nothing_can_be_received() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut nodes = Membership::new(Duration::from_secs(12));
        seen(&mut nodes, at(0), at(0));
        nodes.excuse(at(11), Duration::from_secs(16));
        assert_eq!(nodes.remove_late(at(26)), []);
        nodes.excuse(at(26), Duration::from_secs(5));
        assert_eq!(nodes.remove_late(at(30)), []);
        assert_eq!(nodes.remove_late(at(31)), [A]);
    }
}

//! Which other nodes are alive.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::hub::NodeId;

/// Nodes that were heard of, until their heartbeat is late.
pub(super) struct Membership {
    last: HashMap<NodeId, Instant>,
    /// Given up, and not heard of since.
    lost: HashSet<NodeId>,
    /// Those that have said that they go. They never come back: ids are unique.
    gone: HashSet<NodeId>,
    /// Silence after which a node is given up.
    lease: Duration,
}

/// Nodes that are remembered as given up.
const MAX_LOST: usize = 1000;

impl Membership {
    pub(super) fn new(lease: Duration) -> Self {
        Self {
            last: HashMap::new(),
            lost: HashSet::new(),
            gone: HashSet::new(),
            lease,
        }
    }

    /// A node was alive at that time. True if it had been given up: then what was
    /// known of it has been forgotten here.
    pub(super) fn seen(&mut self, node: NodeId, at: Instant, now: Instant) -> bool {
        if now.saturating_duration_since(at) >= self.lease || self.gone.contains(&node) {
            return false;
        }
        let last = self.last.entry(node).or_insert(at);
        *last = at.max(*last);
        self.lost.remove(&node)
    }

    /// A node has said that it goes. True if it was there.
    pub(super) fn left(&mut self, node: NodeId) -> bool {
        if self.gone.len() > MAX_LOST {
            self.gone.clear();
        }
        self.gone.insert(node);
        self.last.remove(&node).is_some()
    }

    /// Gives up the nodes that are late.
    pub(super) fn give_up_late(&mut self, now: Instant) -> Vec<NodeId> {
        let late: Vec<NodeId> = self
            .last
            .iter()
            .filter(|(_, last)| now.saturating_duration_since(**last) >= self.lease)
            .map(|(node, _)| *node)
            .collect();
        if self.lost.len() > MAX_LOST {
            self.lost.clear();
        }
        for node in &late {
            self.last.remove(node);
            self.lost.insert(*node);
        }
        late
    }

    /// After a time without a link nobody could be heard: they get a little longer.
    pub(super) fn excuse(&mut self, now: Instant, grace: Duration) {
        let excused = now.checked_sub(self.lease.saturating_sub(grace));
        let Some(excused) = excused else { return };
        for last in self.last.values_mut() {
            *last = excused.max(*last);
        }
    }

    pub(super) fn contains(&self, node: NodeId) -> bool {
        self.last.contains_key(&node)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = NodeId> {
        self.last.keys().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.last.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);

    #[test]
    fn a_node_is_given_up_after_its_lease_and_greeted_when_it_returns() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut nodes = Membership::new(Duration::from_secs(12));
        assert!(!nodes.seen(A, at(0), at(1)), "it is new");
        assert_eq!(nodes.give_up_late(at(11)), []);
        assert!(!nodes.seen(A, at(10), at(11)));
        assert_eq!(nodes.give_up_late(at(21)), []);
        assert_eq!(nodes.give_up_late(at(22)), [A]);
        assert!(!nodes.contains(A));
        assert!(!nodes.seen(A, at(10), at(23)), "old news");
        assert!(!nodes.contains(A));
        assert!(nodes.seen(A, at(23), at(23)));
        assert!(nodes.contains(A));
        assert!(nodes.left(A) && !nodes.left(A));
        nodes.seen(A, at(24), at(24));
        assert!(!nodes.contains(A), "an older list of nodes has it");
    }

    #[test]
    fn after_a_time_alone_nodes_get_a_little_longer() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut nodes = Membership::new(Duration::from_secs(12));
        nodes.seen(A, at(0), at(0));
        nodes.excuse(at(11), Duration::from_secs(5));
        assert_eq!(nodes.give_up_late(at(15)), []);
        assert_eq!(nodes.give_up_late(at(16)), [A]);
    }
}

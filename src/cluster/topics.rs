//! What this node listens to, and what it has to make of changes that it hears there.
//!
//! Pure: it says what has to be done, and does none of it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::nodes::Nodes;
use super::numbers::Heard;
use super::snapshot::Snapshot;
use crate::hub::{Fact, NodeFacts, NodeId, Standing, Topic};
use crate::protocol::Frame;

/// The last event of a cache channel and how long it will be kept.
pub(super) type Last = Option<(Frame, Duration)>;

/// All topics by the name of their Redis channel.
pub(super) type Topics = HashMap<Arc<str>, Entry>;

/// One topic.
pub(super) struct Entry {
    pub(super) topic: Topic,
    /// Tells it from an earlier entry of the same topic, whose answers are not for it.
    pub(super) serial: u64,
    /// That of the last [`crate::hub::Note::Listen`].
    pub(super) life: u64,
    /// Whether nodes have facts in it.
    pub(super) has_facts: bool,
    /// Whether its last event is kept.
    pub(super) has_last: bool,
    /// Whether Redis sends us what is published.
    pub(super) is_subscribed: bool,
    /// Whether the hub has not named it since all has to be told anew.
    pub(super) is_stale: bool,
    /// When its facts were last kept from expiring.
    pub(super) refreshed: Instant,
    pub(super) heard: Heard,
    /// Times that it was asked how things stand, without an answer so far.
    pub(super) asked: usize,
    /// The answer as it comes in.
    pub(super) snapshot: Option<Snapshot>,
    pub(super) last: Option<Last>,
    version: u64,
    epoch: String,
    /// Whether it is about to be asked again.
    rereading: bool,
    /// Changes that came while it was asked.
    early: Vec<(u64, NodeId, Option<Fact>)>,
    /// Nodes whose facts Redis has lost and which have not entered them again.
    spared: HashSet<NodeId>,
}

/// What has to be done about a change.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// This has changed.
    Apply(NodeId, Fact),
    /// More has changed than was told: ask how things stand.
    ReadAgain,
    /// Nothing, or nothing yet.
    Nothing,
}

impl Entry {
    pub(super) fn new(topic: Topic, serial: u64, has_facts: bool, has_last: bool) -> Self {
        Self {
            topic,
            serial,
            life: 0,
            has_facts,
            has_last,
            is_subscribed: false,
            is_stale: false,
            refreshed: Instant::now(),
            heard: Heard::default(),
            asked: 0,
            snapshot: None,
            last: None,
            version: 0,
            epoch: String::new(),
            rereading: false,
            early: Vec::new(),
            spared: HashSet::new(),
        }
    }

    /// The link is gone, and with it whatever was asked.
    pub(super) fn lose_link(&mut self) {
        self.is_subscribed = false;
        self.is_stale = true;
        self.asked = 0;
        self.rereading = false;
        self.snapshot = None;
        self.last = None;
        self.early.clear();
    }

    /// A change was heard; without a fact, several things have changed.
    pub(super) fn change(
        &mut self,
        version: u64,
        node: NodeId,
        fact: Option<Fact>,
        own: NodeId,
    ) -> Deed {
        if self.asked > 0 || self.rereading {
            self.early.push((version, node, fact));
            return Deed::Nothing;
        }
        let follows = version == self.version + 1;
        self.version = version;
        match fact {
            _ if follows && node == own => Deed::Nothing,
            Some(fact) if follows => Deed::Apply(node, fact),
            _ => self.read_again(),
        }
    }

    /// Once, however many changes say that it is needed, until it is asked.
    pub(super) fn read_again(&mut self) -> Deed {
        if std::mem::replace(&mut self.rereading, true) {
            Deed::Nothing
        } else {
            Deed::ReadAgain
        }
    }

    /// How things stand is being asked; changes wait for the answer.
    pub(super) fn ask(&mut self) {
        self.asked += 1;
        self.rereading = false;
    }

    /// The answer to how things stand is complete. Gives back how they do, and the
    /// changes that came meanwhile and are not in it; and nodes that are not alive and
    /// whose facts are still there.
    pub(super) fn stand(
        &mut self,
        own: NodeId,
        nodes: &Nodes,
    ) -> (Standing, Vec<Deed>, Vec<NodeId>) {
        let Some(snapshot) = self.snapshot.take() else {
            return (Standing::default(), Vec::new(), Vec::new());
        };
        let entered = snapshot.entered();
        if !self.epoch.is_empty() && self.epoch != snapshot.epoch {
            self.spared.extend(nodes.iter());
        }
        self.spared
            .retain(|node| !entered.contains(node) && nodes.contains(*node));
        self.epoch.clone_from(&snapshot.epoch);
        let answered = snapshot.version;
        self.version = answered;
        let is_other = |facts: &NodeFacts| facts.node != own;
        let (alive, dead): (Vec<NodeFacts>, Vec<NodeFacts>) = snapshot
            .nodes
            .into_iter()
            .filter(is_other)
            .partition(|facts| nodes.contains(facts.node));
        let standing = Standing {
            nodes: alive,
            spared: self.spared.clone(),
        };
        let mut deeds = Vec::new();
        for (version, node, fact) in std::mem::take(&mut self.early) {
            if version <= answered {
                continue;
            }
            deeds.push(self.change(version, node, fact, own));
            if deeds.last() == Some(&Deed::ReadAgain) {
                break;
            }
        }
        let dead = dead.into_iter().map(|facts| facts.node).collect();
        (standing, deeds, dead)
    }

    /// A node has entered all its facts, or is gone: what Redis does not have of it is
    /// not so any more. True if things stand otherwise than was thought.
    pub(super) fn spare_no_more(&mut self, node: NodeId) -> bool {
        self.spared.remove(&node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ChannelName;

    const OWN: NodeId = NodeId(1);
    const A: NodeId = NodeId(10);
    const B: NodeId = NodeId(11);

    fn nodes() -> Nodes {
        let mut nodes = Nodes::new(Duration::from_secs(10));
        let now = Instant::now();
        for node in [A, B] {
            nodes.seen(node, now, now);
        }
        nodes
    }

    fn entry() -> Entry {
        let topic = Topic::Channel(0, ChannelName::parse("presence-a", 100).unwrap());
        Entry::new(topic, 1, true, false)
    }

    fn snapshot(epoch: &str, version: u64, entered: &[NodeId]) -> Snapshot {
        let facts = |node: &NodeId| NodeFacts {
            node: *node,
            are_all: true,
            facts: vec![Fact::Online],
        };
        Snapshot {
            epoch: epoch.to_owned(),
            version,
            nodes: entered.iter().map(facts).collect(),
            unreadable: 0,
        }
    }

    fn stands(entry: &mut Entry, snapshot: Snapshot) -> (Standing, Vec<Deed>, Vec<NodeId>) {
        entry.asked = 0;
        entry.snapshot = Some(snapshot);
        entry.stand(OWN, &nodes())
    }

    #[test]
    fn changes_that_follow_are_applied_and_others_make_it_read_again() {
        let mut entry = entry();
        stands(&mut entry, snapshot("e", 5, &[OWN, A]));
        let online = || Some(Fact::Online);
        assert_eq!(
            entry.change(6, A, online(), OWN),
            Deed::Apply(A, Fact::Online)
        );
        assert_eq!(entry.change(7, OWN, online(), OWN), Deed::Nothing);
        for (version, fact) in [(8, None), (10, online()), (1, online())] {
            entry.ask();
            stands(&mut entry, snapshot("e", 7, &[OWN, A]));
            assert_eq!(entry.change(version, A, fact, OWN), Deed::ReadAgain);
            assert_eq!(entry.change(8, A, online(), OWN), Deed::Nothing, "once");
        }
    }

    #[test]
    fn changes_that_came_before_the_answer_are_applied_unless_they_are_in_it() {
        let mut entry = entry();
        entry.asked = 1;
        for version in 4..=7 {
            assert_eq!(
                entry.change(version, A, Some(Fact::Online), OWN),
                Deed::Nothing
            );
        }
        let (standing, deeds, dead) = stands(&mut entry, snapshot("e", 5, &[OWN, A, NodeId(99)]));
        assert_eq!(standing.nodes.len(), 1, "neither this node nor a dead one");
        assert_eq!(
            deeds,
            [Deed::Apply(A, Fact::Online), Deed::Apply(A, Fact::Online)]
        );
        assert_eq!(dead, [NodeId(99)]);
        assert_eq!(
            entry.change(8, B, Some(Fact::Offline), OWN),
            Deed::Apply(B, Fact::Offline)
        );
    }

    #[test]
    fn nobody_is_taken_for_gone_because_redis_was_emptied() {
        let mut entry = entry();
        let (standing, ..) = stands(&mut entry, snapshot("e", 5, &[A, B]));
        assert!(standing.spared.is_empty());
        let (standing, ..) = stands(&mut entry, snapshot("f", 1, &[OWN]));
        assert_eq!(standing.spared, HashSet::from([A, B]));
        let (standing, ..) = stands(&mut entry, snapshot("f", 2, &[OWN, A]));
        assert_eq!(standing.spared, HashSet::from([B]));
        assert!(entry.spare_no_more(B) && !entry.spare_no_more(A));
        let (standing, ..) = stands(&mut entry, snapshot("f", 2, &[OWN, A]));
        assert!(standing.spared.is_empty());
    }
}

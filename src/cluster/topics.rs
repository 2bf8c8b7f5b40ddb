//! What this node listens to, and what it has to make of changes that it hears there.
//!
//! Pure: it says what has to be done, and does none of it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::membership::Membership;
use super::sequence::SequenceTracker;
use super::snapshot::Snapshot;
use crate::hub::{Fact, NodeFacts, NodeId, RemoteState, Topic};
use crate::protocol::Frame;

/// The last event of a cache channel and how long it will be kept.
pub(super) type Last = Option<(Frame, Duration)>;

/// All topics by the name of their Redis channel.
pub(super) type Topics = HashMap<Arc<str>, Entry>;

/// One topic.
pub(super) struct Entry {
    pub(super) topic: Topic,
    /// Tells it from an earlier entry of the same topic, whose answers are not for it.
    pub(super) entry_generation: u64,
    /// That of the last [`crate::hub::ClusterUpdate::Listen`].
    pub(super) generation: u64,
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
    pub(super) sequences: SequenceTracker,
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
pub(super) enum Action {
    /// This has changed.
    Apply(NodeId, Fact),
    /// More has changed than was told: ask how things stand.
    ReadAgain,
    /// Nothing, or nothing yet.
    Nothing,
}

impl Entry {
    pub(super) fn new(
        topic: Topic,
        entry_generation: u64,
        has_facts: bool,
        has_last: bool,
    ) -> Self {
        Self {
            topic,
            entry_generation,
            generation: 0,
            has_facts,
            has_last,
            is_subscribed: false,
            is_stale: false,
            refreshed: Instant::now(),
            sequences: SequenceTracker::default(),
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
    ) -> Action {
        if self.asked > 0 || self.rereading {
            self.early.push((version, node, fact));
            return Action::Nothing;
        }
        let follows = version == self.version + 1;
        self.version = version;
        match fact {
            _ if follows && node == own => Action::Nothing,
            Some(fact) if follows => Action::Apply(node, fact),
            _ => self.read_again(),
        }
    }

    /// Once, however many changes say that it is needed, until it is asked.
    pub(super) fn read_again(&mut self) -> Action {
        if std::mem::replace(&mut self.rereading, true) {
            Action::Nothing
        } else {
            Action::ReadAgain
        }
    }

    /// How things stand is being asked; changes wait for the answer.
    pub(super) fn ask(&mut self) {
        self.asked += 1;
        self.rereading = false;
    }

    /// The answer to how things stand is complete. Returns how they do, and the
    /// changes that came meanwhile and are not in it; and nodes that are not alive and
    /// whose facts are still there.
    pub(super) fn stand(
        &mut self,
        own: NodeId,
        nodes: &Membership,
    ) -> (RemoteState, Vec<Action>, Vec<NodeId>) {
        let Some(snapshot) = self.snapshot.take() else {
            return (RemoteState::default(), Vec::new(), Vec::new());
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
        let remote_state = RemoteState {
            nodes: alive,
            spared: self.spared.clone(),
        };
        let mut actions = Vec::new();
        for (version, node, fact) in std::mem::take(&mut self.early) {
            if version <= answered {
                continue;
            }
            actions.push(self.change(version, node, fact, own));
            if actions.last() == Some(&Action::ReadAgain) {
                break;
            }
        }
        let dead = dead.into_iter().map(|facts| facts.node).collect();
        (remote_state, actions, dead)
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

    fn nodes() -> Membership {
        let mut nodes = Membership::new(Duration::from_secs(10));
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

    fn stands(entry: &mut Entry, snapshot: Snapshot) -> (RemoteState, Vec<Action>, Vec<NodeId>) {
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
            Action::Apply(A, Fact::Online)
        );
        assert_eq!(entry.change(7, OWN, online(), OWN), Action::Nothing);
        for (version, fact) in [(8, None), (10, online()), (1, online())] {
            entry.ask();
            stands(&mut entry, snapshot("e", 7, &[OWN, A]));
            assert_eq!(entry.change(version, A, fact, OWN), Action::ReadAgain);
            assert_eq!(entry.change(8, A, online(), OWN), Action::Nothing, "once");
        }
    }

    #[test]
    fn changes_that_came_before_the_answer_are_applied_unless_they_are_in_it() {
        let mut entry = entry();
        entry.asked = 1;
        for version in 4..=7 {
            assert_eq!(
                entry.change(version, A, Some(Fact::Online), OWN),
                Action::Nothing
            );
        }
        let (remote_state, actions, dead) =
            stands(&mut entry, snapshot("e", 5, &[OWN, A, NodeId(99)]));
        assert_eq!(
            remote_state.nodes.len(),
            1,
            "neither this node nor a dead one"
        );
        assert_eq!(
            actions,
            [
                Action::Apply(A, Fact::Online),
                Action::Apply(A, Fact::Online)
            ]
        );
        assert_eq!(dead, [NodeId(99)]);
        assert_eq!(
            entry.change(8, B, Some(Fact::Offline), OWN),
            Action::Apply(B, Fact::Offline)
        );
    }

    #[test]
    fn nobody_is_taken_for_gone_because_redis_was_emptied() {
        let mut entry = entry();
        let (remote_state, ..) = stands(&mut entry, snapshot("e", 5, &[A, B]));
        assert!(remote_state.spared.is_empty());
        let (remote_state, ..) = stands(&mut entry, snapshot("f", 1, &[OWN]));
        assert_eq!(remote_state.spared, HashSet::from([A, B]));
        let (remote_state, ..) = stands(&mut entry, snapshot("f", 2, &[OWN, A]));
        assert_eq!(remote_state.spared, HashSet::from([B]));
        assert!(entry.spare_no_more(B) && !entry.spare_no_more(A));
        let (remote_state, ..) = stands(&mut entry, snapshot("f", 2, &[OWN, A]));
        assert!(remote_state.spared.is_empty());
    }
}

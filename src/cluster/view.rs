//! What this node knows of one topic: what it has sent of it, and what it makes of what
//! other nodes say.
//!
//! Pure: it says what has to be done, and does none of it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::membership::Membership;
use super::sequence::SequenceTracker;
use crate::hub::{Fact, LocalState, NodeFacts, NodeId, RemoteState, Topic};
use crate::protocol::Frame;

/// The last event of a cache channel and how long it will be kept.
pub(super) type Last = Option<(Frame, Duration)>;

/// All topics by the name of their Redis channel.
pub(super) type Views = HashMap<Arc<str>, View>;

/// All facts of a topic, as Redis has them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// What tells these facts from ones that Redis has lost.
    pub epoch: String,
    /// The number of the last change.
    pub version: u64,
    /// Facts by node.
    pub nodes: Vec<NodeFacts>,
    /// Whether no node had entered any before, if this one has now.
    pub is_first: bool,
    /// Fields that cannot be read, which a node of another version may have written.
    pub unreadable: usize,
}

impl Snapshot {
    /// Nodes that have entered all their facts.
    pub(super) fn entered(&self) -> HashSet<NodeId> {
        let entered = self.nodes.iter().filter(|facts| facts.are_all);
        entered.map(|facts| facts.node).collect()
    }
}

/// What this node has sent of a topic since it entered all its facts.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// Users, and a hash of what they say of themselves.
    members: HashMap<Arc<str>, u64>,
    subscribers: usize,
    is_online: bool,
}

impl Sent {
    /// All facts are being entered.
    pub(super) fn replace(&mut self, facts: &[Fact]) {
        *self = Self::default();
        for fact in facts {
            self.update(fact);
        }
    }

    /// Records a fact that is so now. Returns whether it has to be sent.
    pub(super) fn update(&mut self, fact: &Fact) -> bool {
        match fact {
            Fact::Member(member) => {
                let mut hasher = DefaultHasher::new();
                (&member.id_json, &member.info_json).hash(&mut hasher);
                match self.members.entry(Arc::clone(&member.id)) {
                    Entry::Occupied(mut sent) => sent.insert(hasher.finish()) != *sent.get(),
                    Entry::Vacant(unsent) => {
                        unsent.insert(hasher.finish());
                        true
                    }
                }
            }
            Fact::Left(user) => self.members.remove(user).is_some(),
            Fact::Subscribers(count) => std::mem::replace(&mut self.subscribers, *count) != *count,
            Fact::Online => !std::mem::replace(&mut self.is_online, true),
            Fact::Offline => std::mem::replace(&mut self.is_online, false),
        }
    }

    /// What has to be sent if nothing of it is so any more, unless that are more than
    /// `max` facts.
    pub(super) fn end(&self, max: usize) -> Option<Vec<Fact>> {
        let left = self.members.keys().map(|user| Fact::Left(Arc::clone(user)));
        let subscribers = (self.subscribers > 0).then_some(Fact::Subscribers(0));
        let online = self.is_online.then_some(Fact::Offline);
        let facts = left.chain(subscribers).chain(online);
        let facts: Vec<Fact> = facts.take(max + 1).collect();
        (facts.len() <= max).then_some(facts)
    }
}

/// One topic.
pub(super) struct View {
    pub(super) topic: Topic,
    /// [`LocalState::generation`] and [`LocalState::version`] of what was sent last.
    pub(super) sent_version: (u64, u64),
    pub(super) sent: Sent,
    /// Whether nodes have facts in it.
    pub(super) has_facts: bool,
    /// Whether its last event is kept.
    pub(super) has_last: bool,
    /// Whether Redis sends us what is published.
    pub(super) is_subscribed: bool,
    /// Whether all facts have to be entered, and those of the others read.
    pub(super) must_enter: bool,
    /// Whether Redis has something else under the name of one of its keys.
    pub(super) is_degraded: bool,
    /// Whether something went wrong since it was entered.
    has_failed: bool,
    /// When its facts were last kept from expiring.
    pub(super) refreshed: Instant,
    pub(super) sequences: SequenceTracker,
    /// Whether the others' facts are being read.
    is_reading: bool,
    /// The answer as it comes in.
    pub(super) snapshot: Option<Snapshot>,
    pub(super) last: Option<Last>,
    version: u64,
    epoch: String,
    /// What came while facts were read: the answer may have been made before it.
    early: Vec<Early>,
    /// Nodes whose facts Redis has lost and which have not entered them again, and since
    /// when that is known.
    unverified: HashMap<NodeId, Instant>,
}

/// What came while facts were read.
enum Early {
    /// [`Message::Change`](super::codec::Message::Change) or, without a fact,
    /// [`Message::Reread`](super::codec::Message::Reread).
    Change(u64, NodeId, Option<Fact>),
    /// A node has entered all its facts.
    AllTold(NodeId),
}

/// What has to be done about a change.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// This has changed.
    Apply(NodeId, Fact),
    /// More has changed than was sent: everything has to be read again.
    Reread,
    /// Nothing, or nothing yet.
    Nothing,
}

/// What is known once a topic was read.
#[derive(Debug)]
pub(super) struct ReadView {
    /// How it is on nodes that are alive.
    pub(super) state: RemoteState,
    /// What has changed since it was read.
    pub(super) actions: Vec<Action>,
    /// Nodes that are not known to be alive, and whose facts are still there.
    pub(super) unknown_nodes: Vec<NodeId>,
}

impl View {
    pub(super) fn new(topic: Topic, has_facts: bool, has_last: bool, now: Instant) -> Self {
        Self {
            topic,
            sent_version: (0, 0),
            sent: Sent::default(),
            has_facts,
            has_last,
            is_subscribed: false,
            must_enter: true,
            is_degraded: false,
            has_failed: false,
            refreshed: now,
            sequences: SequenceTracker::default(),
            is_reading: false,
            snapshot: None,
            last: None,
            version: 0,
            epoch: String::new(),
            early: Vec::new(),
            unverified: HashMap::new(),
        }
    }

    /// The link is gone, and with it whatever was asked.
    pub(super) fn lose_link(&mut self) {
        self.is_subscribed = false;
        self.must_enter = true;
        self.is_reading = false;
        self.snapshot = None;
        self.last = None;
        self.early.clear();
    }

    /// The generation of which only changes have to be read; `None` if all has to be.
    pub(super) fn known_generation(&self) -> Option<u64> {
        (!self.must_enter).then_some(self.sent_version.0)
    }

    /// All facts are entered and read; changes wait for the answer.
    pub(super) fn enter(&mut self, local: &LocalState) {
        self.sent_version = (local.generation, local.version);
        self.sent.replace(&local.facts);
        self.must_enter = false;
        self.has_failed = false;
        self.is_reading = true;
    }

    /// One of its keys cannot be used: it has to be entered again.
    pub(super) fn fail(&mut self) {
        self.has_failed = true;
        self.must_enter = true;
    }

    pub(super) fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// What differs from what was sent has to be sent.
    pub(super) fn send(&mut self, local: LocalState) -> Vec<Fact> {
        self.sent_version = (local.generation, local.version);
        let facts = local.facts.into_iter();
        facts.filter(|fact| self.sent.update(fact)).collect()
    }

    /// A change came; without a fact, several things have changed.
    pub(super) fn change(
        &mut self,
        version: u64,
        node: NodeId,
        fact: Option<Fact>,
        own: NodeId,
    ) -> Action {
        if self.is_reading {
            self.early.push(Early::Change(version, node, fact));
            return Action::Nothing;
        }
        if self.must_enter {
            return Action::Nothing;
        }
        let follows = version == self.version.wrapping_add(1);
        self.version = version;
        match fact {
            _ if follows && node == own => Action::Nothing,
            Some(fact) if follows => Action::Apply(node, fact),
            _ => self.reread(),
        }
    }

    /// Everything has to be read again: once, however many changes say so.
    pub(super) fn reread(&mut self) -> Action {
        if std::mem::replace(&mut self.must_enter, true) {
            Action::Nothing
        } else {
            Action::Reread
        }
    }

    /// Whether it was never read.
    pub(super) fn is_new(&self) -> bool {
        self.epoch.is_empty()
    }

    pub(super) fn is_reading(&self) -> bool {
        self.is_reading
    }

    /// The facts could not be read.
    pub(super) fn stop_reading(&mut self) {
        self.is_reading = false;
        self.early.clear();
        self.snapshot = None;
        self.last = None;
    }

    /// The answer is complete.
    pub(super) fn finish_reading(
        &mut self,
        own: NodeId,
        nodes: &Membership,
        now: Instant,
    ) -> ReadView {
        self.is_reading = false;
        let Some(snapshot) = self.snapshot.take() else {
            self.early.clear();
            return ReadView {
                state: RemoteState::default(),
                actions: Vec::new(),
                unknown_nodes: Vec::new(),
            };
        };
        let entered = snapshot.entered();
        if !self.epoch.is_empty() && self.epoch != snapshot.epoch {
            for node in nodes.iter() {
                self.unverified.entry(node).or_insert(now);
            }
        }
        self.unverified
            .retain(|node, _| !entered.contains(node) && nodes.contains(*node));
        let unverified = self.unverified.keys().copied().collect();
        self.epoch.clone_from(&snapshot.epoch);
        self.version = snapshot.version;
        let is_other = |facts: &NodeFacts| facts.node != own;
        let (alive, unknown): (Vec<NodeFacts>, Vec<NodeFacts>) = snapshot
            .nodes
            .into_iter()
            .filter(is_other)
            .partition(|facts| nodes.contains(facts.node));
        ReadView {
            state: RemoteState {
                nodes: alive,
                unverified,
            },
            actions: self.take_early(own),
            unknown_nodes: unknown.into_iter().map(|facts| facts.node).collect(),
        }
    }

    /// What is to be done about what came while facts were read.
    fn take_early(&mut self, own: NodeId) -> Vec<Action> {
        let answered = self.version;
        let mut actions = Vec::new();
        for early in std::mem::take(&mut self.early) {
            let action = match early {
                Early::Change(version, ..) if version <= answered => continue,
                Early::Change(version, node, fact) => self.change(version, node, fact, own),
                Early::AllTold(node) if self.verify_node(node) => self.reread(),
                Early::AllTold(_) => continue,
            };
            if action != Action::Nothing {
                actions.push(action);
            }
        }
        actions
    }

    /// A node has entered all its facts: what Redis does not have of it is not so any
    /// more. True if that may be otherwise than was thought, and has to be read.
    pub(super) fn verify_node(&mut self, node: NodeId) -> bool {
        if self.is_reading {
            self.early.push(Early::AllTold(node));
            return false;
        }
        self.unverified.remove(&node).is_some()
    }

    /// A node is gone.
    pub(super) fn forget_node(&mut self, node: NodeId) {
        self.unverified.remove(&node);
    }

    /// Nodes that have not entered their facts for so long. It takes them as long again
    /// until they are returned once more.
    pub(super) fn take_unverified(
        &mut self,
        now: Instant,
        time: Duration,
    ) -> impl Iterator<Item = NodeId> {
        let unverified = self.unverified.iter_mut();
        unverified.filter_map(move |(node, since)| {
            let is_due = now.duration_since(*since) >= time;
            is_due.then(|| {
                *since = now;
                *node
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::tests::handle;
    use crate::protocol::{ChannelName, Member};

    const OWN: NodeId = NodeId(1);
    const A: NodeId = NodeId(10);
    const B: NodeId = NodeId(11);

    fn nodes() -> Membership {
        let mut nodes = Membership::new(Duration::from_secs(10));
        let now = Instant::now();
        for node in [A, B] {
            nodes.seen(node, now, now, now);
        }
        nodes
    }

    fn view() -> View {
        let topic = Topic::Channel(handle("a"), ChannelName::parse("presence-a", 100).unwrap());
        View::new(topic, true, false, Instant::now())
    }

    fn local(version: u64, facts: &[Fact]) -> LocalState {
        LocalState {
            generation: 1,
            version,
            is_complete: true,
            facts: facts.to_vec(),
        }
    }

    fn member(id: &str, info: &str) -> Fact {
        let json = format!(r#"{{"user_id":"{id}","user_info":"{info}"}}"#);
        Fact::Member(Member::parse(&json, 100).unwrap())
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
            is_first: false,
            unreadable: 0,
        }
    }

    fn read(view: &mut View, snapshot: Snapshot) -> ReadView {
        view.snapshot = Some(snapshot);
        view.finish_reading(OWN, &nodes(), Instant::now())
    }

    #[test]
    fn what_differs_from_what_was_sent_is_sent() {
        let mut view = view();
        assert_eq!(view.known_generation(), None);
        view.enter(&local(
            3,
            &[member("u", "1"), member("v", "1"), Fact::Subscribers(2)],
        ));
        read(&mut view, snapshot("e", 1, &[OWN]));
        assert_eq!(view.known_generation(), Some(1));
        let left = Fact::Left("x".into());
        let same = [member("u", "1"), left.clone(), Fact::Subscribers(2)];
        assert_eq!(view.send(local(4, &same)), [], "x came and went");
        let others = [member("u", "2"), Fact::Left("v".into()), member("x", "1")];
        assert_eq!(view.send(local(5, &others)), others);
        assert_eq!(view.send(local(6, std::slice::from_ref(&left))), [left]);
        assert_eq!(view.sent_version, (1, 6));
        let end = view.sent.end(2).unwrap();
        assert_eq!(end, [Fact::Left("u".into()), Fact::Subscribers(0)]);
        assert_eq!(view.sent.end(1), None, "too many");
    }

    #[test]
    fn who_signs_in_and_out_again_has_not_changed() {
        let mut view = view();
        view.enter(&local(1, &[]));
        read(&mut view, snapshot("e", 1, &[OWN]));
        assert_eq!(view.send(local(2, &[Fact::Offline])), []);
        assert_eq!(view.send(local(3, &[Fact::Online])), [Fact::Online]);
        assert_eq!(view.sent.end(1).unwrap(), [Fact::Offline]);
    }

    #[test]
    fn changes_that_follow_are_applied_and_others_make_it_read_again() {
        let mut view = view();
        view.enter(&local(1, &[]));
        read(&mut view, snapshot("e", 5, &[OWN, A]));
        let online = || Some(Fact::Online);
        assert_eq!(
            view.change(6, A, online(), OWN),
            Action::Apply(A, Fact::Online)
        );
        assert_eq!(view.change(7, OWN, online(), OWN), Action::Nothing);
        for (version, fact) in [(8, None), (10, online()), (1, online())] {
            view.enter(&local(1, &[]));
            read(&mut view, snapshot("e", 7, &[OWN, A]));
            assert_eq!(view.change(version, A, fact, OWN), Action::Reread);
            assert_eq!(view.known_generation(), None);
            assert_eq!(view.change(8, A, online(), OWN), Action::Nothing, "once");
        }
    }

    #[test]
    fn changes_that_came_before_the_answer_are_applied_unless_they_are_in_it() {
        let mut view = view();
        view.enter(&local(1, &[]));
        for version in 4..=7 {
            assert_eq!(
                view.change(version, A, Some(Fact::Online), OWN),
                Action::Nothing
            );
        }
        let done = read(&mut view, snapshot("e", 5, &[OWN, A, NodeId(99)]));
        let nodes = done.state.nodes.len();
        assert_eq!(nodes, 1, "neither this node nor a dead one");
        let online = || Action::Apply(A, Fact::Online);
        assert_eq!(done.actions, [online(), online()]);
        assert_eq!(done.unknown_nodes, [NodeId(99)]);
        assert_eq!(
            view.change(8, B, Some(Fact::Offline), OWN),
            Action::Apply(B, Fact::Offline)
        );
    }

    #[test]
    fn nobody_is_taken_for_gone_because_redis_was_emptied() {
        let mut view = view();
        let unverified = |view: &mut View, snapshot| read(view, snapshot).state.unverified;
        assert!(unverified(&mut view, snapshot("e", 5, &[A, B])).is_empty());
        let emptied = unverified(&mut view, snapshot("f", 1, &[OWN]));
        assert_eq!(emptied, HashSet::from([A, B]));
        let entered = unverified(&mut view, snapshot("f", 2, &[OWN, A]));
        assert_eq!(entered, HashSet::from([B]));
        assert!(view.verify_node(B) && !view.verify_node(A));
        assert!(unverified(&mut view, snapshot("f", 2, &[OWN, A])).is_empty());
    }

    /// The answer was made before the node entered its facts.
    #[test]
    fn who_enters_everything_while_facts_are_read_is_not_taken_for_gone() {
        let mut view = view();
        read(&mut view, snapshot("e", 5, &[A, B]));
        view.lose_link();
        view.enter(&local(1, &[]));
        assert!(!view.verify_node(A));
        let early = read(&mut view, snapshot("f", 1, &[OWN]));
        assert_eq!(early.state.unverified, HashSet::from([A, B]));
        assert_eq!(early.actions, [Action::Reread]);
        assert_eq!(view.known_generation(), None, "it is read again");
        view.enter(&local(1, &[]));
        let later = read(&mut view, snapshot("f", 1, &[OWN]));
        assert_eq!(later.state.unverified, HashSet::from([B]));
        assert_eq!(later.actions, [], "A has no facts any more");
    }

    #[test]
    fn who_is_unverified_for_long_is_asked_again_each_time() {
        let mut view = view();
        read(&mut view, snapshot("e", 5, &[A, B]));
        read(&mut view, snapshot("f", 1, &[A]));
        let (start, wait) = (Instant::now(), Duration::from_secs(5));
        let mut at = |seconds| {
            let now = start + Duration::from_secs(seconds);
            view.take_unverified(now, wait).collect::<Vec<_>>()
        };
        assert_eq!(at(4), []);
        assert_eq!(at(6), [B]);
        assert_eq!(at(10), []);
        assert_eq!(at(11), [B]);
        view.forget_node(B);
        assert!(!view.verify_node(B));
        assert_eq!(view.take_unverified(start + 60 * wait, wait).count(), 0);
    }
}

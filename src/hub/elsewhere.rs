//! What a channel knows of other nodes, and how its subscribers hear of it.
//!
//! Each node compares what it knew with what it is told and sends its own
//! subscribers the difference, under the channel's lock. So every subscriber sees
//! each user come and go once, on however many nodes it is, whatever got lost or
//! came late in between.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::channel::{Channel, Present, State};
use super::inbox::{Address, Audience, Cast, Letter, Mail};
use super::lock;
use super::relay::{Fact, NodeId, Note};
use crate::protocol::{Frame, Member, message};

/// What is known of a channel on other nodes.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    nodes: HashMap<NodeId, There>,
    /// Subscribers that get their answer once it is known how things stand elsewhere.
    waiting: Option<Vec<Address>>,
    /// Subscribers that get their answer once other nodes can know of them: by user.
    untold: HashMap<Arc<str>, Vec<Address>>,
    /// Whether an event came while they waited: the last one is known here.
    has_last: bool,
}

/// A channel on one other node.
#[derive(Debug, Default)]
struct There {
    users: HashSet<Arc<str>>,
    subscribers: usize,
}

/// A node's facts of one topic, as Redis has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// Whose.
    pub node: NodeId,
    /// Whether these are all that it has; otherwise there may be more.
    pub are_all: bool,
    /// What.
    pub facts: Vec<Fact>,
}

/// How things stand on other nodes.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Every node that is alive and has facts.
    pub nodes: Vec<NodeFacts>,
    /// Nodes that may have more than that, because Redis has lost it.
    pub spared: HashSet<NodeId>,
}

impl Elsewhere {
    pub(super) fn subscribers(&self) -> usize {
        self.nodes.values().map(|there| there.subscribers).sum()
    }
}

impl State {
    pub(super) fn is_waiting(&self, seat: Address) -> bool {
        let Some(elsewhere) = &self.elsewhere else {
            return false;
        };
        let mut waiting = elsewhere.waiting.iter().chain(elsewhere.untold.values());
        waiting.any(|waiting| waiting.contains(&seat))
    }

    /// Notes a subscriber among those that wait, if they have to. A user whom other
    /// nodes do not know of yet waits, too: it may leave another of them next, and is
    /// not to be taken for gone.
    pub(super) fn wait(&mut self, seat: Address, user: Option<&Member>) -> bool {
        let Some(elsewhere) = &mut self.elsewhere else {
            return false;
        };
        let untold = user.and_then(|user| elsewhere.untold.get_mut(&user.id));
        match untold.or(elsewhere.waiting.as_mut()) {
            Some(waiting) => {
                waiting.push(seat);
                true
            }
            None => false,
        }
    }

    pub(super) fn wait_no_more(&mut self, seat: Address) {
        if let Some(elsewhere) = &mut self.elsewhere {
            let waiting = elsewhere.waiting.iter_mut();
            for waiting in waiting.chain(elsewhere.untold.values_mut()) {
                waiting.retain(|other| *other != seat);
            }
        }
    }

    /// Other nodes are being told of a user.
    pub(super) fn is_untold(&mut self, user: &Member) {
        if let Some(elsewhere) = &mut self.elsewhere {
            elsewhere.untold.entry(Arc::clone(&user.id)).or_default();
        }
    }

    /// It does not matter any more whether they know of a user.
    pub(super) fn is_told(&mut self, user: &str) {
        if let Some(elsewhere) = &mut self.elsewhere {
            elsewhere.untold.remove(user);
        }
    }

    fn there(&mut self, node: NodeId) -> &mut There {
        let elsewhere = self.elsewhere.get_or_insert_default();
        elsewhere.nodes.entry(node).or_default()
    }
}

impl Channel {
    /// Asks for the others' facts, and tells this node's. A new channel's first
    /// subscribers wait for the answer.
    pub(super) fn listen(&self, is_new: bool, mail: &Mail) {
        if !mail.is_linked() {
            return;
        }
        let mut state = lock(&self.state);
        if is_new {
            state.elsewhere.get_or_insert_default().waiting = Some(Vec::new());
        }
        let own = |present: &Present| present.own.as_deref().cloned().map(Fact::Member);
        let mut facts: Vec<Fact> = state.members.values().filter_map(own).collect();
        if self.counts && state.here() > 0 {
            facts.push(Fact::Subscribers(state.here()));
        }
        mail.tell(|| Note::Listen {
            topic: self.topic(),
            life: self.id(),
            facts,
        });
    }

    /// An event was published here or came from another node, and is the last one.
    pub(super) fn knows_last(&self) {
        let mut state = lock(&self.state);
        if let Some(elsewhere) = &mut state.elsewhere
            && elsewhere.waiting.is_some()
        {
            elsewhere.has_last = true;
        }
    }

    /// What is known of the last event while subscribers wait: whether they do, and
    /// whether one has come since they do.
    pub(super) fn waits_for_last(&self) -> (bool, bool) {
        let state = lock(&self.state);
        let elsewhere = state.elsewhere.as_ref();
        let of = |elsewhere: &Elsewhere| (elsewhere.waiting.is_some(), elsewhere.has_last);
        elsewhere.map_or((false, false), |elsewhere| of(elsewhere))
    }

    /// One thing has changed on another node.
    pub(super) fn apply(&self, node: NodeId, fact: &Fact, mail: &Mail) {
        let mut state = lock(&self.state);
        match fact {
            Fact::Member(member) => self.appear(&mut state, node, member, mail),
            Fact::Left(user) => self.vanish(&mut state, node, user, mail),
            Fact::Subscribers(count) => {
                state.there(node).subscribers = *count;
                self.tell_count(&mut state, mail);
            }
            Fact::Online | Fact::Offline => {}
        }
    }

    /// How things stand on all other nodes: tells the difference to what was known.
    /// Who appears is told before who vanishes, so that a user that went from one
    /// node to another was always there.
    pub(super) fn replace(&self, standing: &Standing, mail: &Mail) {
        let mut state = lock(&self.state);
        let mut gone: Vec<(NodeId, Arc<str>)> = Vec::new();
        let known: Vec<NodeId> = match &state.elsewhere {
            Some(elsewhere) => elsewhere.nodes.keys().copied().collect(),
            None => Vec::new(),
        };
        for NodeFacts {
            node,
            are_all,
            facts,
        } in &standing.nodes
        {
            let before: HashSet<Arc<str>> = if *are_all {
                state.there(*node).users.clone()
            } else {
                HashSet::new()
            };
            let mut now = HashSet::new();
            let mut count = None;
            for fact in facts {
                match fact {
                    Fact::Member(member) => {
                        now.insert(Arc::clone(&member.id));
                        self.appear(&mut state, *node, member, mail);
                    }
                    Fact::Subscribers(subscribers) => count = Some(*subscribers),
                    Fact::Left(_) | Fact::Online | Fact::Offline => {}
                }
            }
            if *are_all || count.is_some() {
                state.there(*node).subscribers = count.unwrap_or(0);
            }
            gone.extend(
                before
                    .difference(&now)
                    .map(|user| (*node, Arc::clone(user))),
            );
        }
        for node in known {
            let is_told = standing.nodes.iter().any(|facts| facts.node == node);
            if !is_told && !standing.spared.contains(&node) {
                let there = state.there(node);
                there.subscribers = 0;
                gone.extend(there.users.iter().map(|user| (node, Arc::clone(user))));
            }
        }
        for (node, user) in gone {
            self.vanish(&mut state, node, &user, mail);
        }
        if let Some(elsewhere) = &mut state.elsewhere {
            let is_used = |there: &There| there.subscribers > 0 || !there.users.is_empty();
            elsewhere.nodes.retain(|_, there| is_used(there));
        }
        self.tell_count(&mut state, mail);
    }

    /// Answers those who waited, now that it is known how things stand.
    pub(super) fn welcome(&self, cached: Option<&Frame>, mail: &Mail) {
        let mut state = lock(&self.state);
        let waiting = state.elsewhere.as_mut().and_then(|e| e.waiting.take());
        self.welcome_all(&mut state, waiting.unwrap_or_default(), cached, mail);
    }

    /// Other nodes can know of a user now: its subscribers are answered.
    pub(super) fn is_told(&self, user: &str, cached: Option<&Frame>, mail: &Mail) {
        let mut state = lock(&self.state);
        let waiting = state.elsewhere.as_mut().and_then(|e| e.untold.remove(user));
        self.welcome_all(&mut state, waiting.unwrap_or_default(), cached, mail);
    }

    /// Others know that a user has left this node, and this one knows whether it has
    /// gone to another.
    pub(super) fn has_left(&self, user: &str, mail: &Mail) {
        let mut state = lock(&self.state);
        if let Some(present) = state.members.get_mut(user) {
            present.leaving = present.leaving.saturating_sub(1);
            self.remove_if_gone(&mut state, user, mail);
        }
    }

    /// Nobody will answer: nobody waits any more.
    pub(super) fn go_alone(&self, cached: Option<&Frame>, mail: &Mail) {
        let mut state = lock(&self.state);
        let leaving = |(user, present): (&Arc<str>, &mut Present)| {
            (std::mem::take(&mut present.leaving) > 0).then(|| Arc::clone(user))
        };
        let left: Vec<Arc<str>> = state.members.iter_mut().filter_map(leaving).collect();
        for user in left {
            self.remove_if_gone(&mut state, &user, mail);
        }
        let Some(elsewhere) = &mut state.elsewhere else {
            return;
        };
        let mut waiting = elsewhere.waiting.take().unwrap_or_default();
        let untold = std::mem::take(&mut elsewhere.untold);
        waiting.extend(untold.into_values().flatten());
        self.welcome_all(&mut state, waiting, cached, mail);
    }

    fn welcome_all(
        &self,
        state: &mut State,
        waiting: Vec<Address>,
        cached: Option<&Frame>,
        mail: &Mail,
    ) {
        if waiting.is_empty() {
            return;
        }
        let welcome = self.welcome_of(state);
        for to in waiting {
            let cast = |frame: &Frame, to: Audience| Cast {
                channel: self.id(),
                seq: state.seq,
                frame: frame.clone(),
                to,
            };
            mail.send(
                to.worker,
                Letter::Cast(cast(&welcome, Audience::Welcome(to))),
            );
            if let Some(cached) = cached {
                mail.send(to.worker, Letter::Cast(cast(cached, Audience::Only(to))));
            }
        }
        self.tell_count(state, mail);
    }

    /// A node is gone. Gives back whether anything was known of it.
    pub(super) fn forget(&self, node: NodeId, mail: &Mail) -> bool {
        let mut state = lock(&self.state);
        let elsewhere = state.elsewhere.as_mut();
        let Some(there) = elsewhere.and_then(|e| e.nodes.remove(&node)) else {
            return false;
        };
        for user in &there.users {
            self.is_on_one_less(&mut state, user, mail);
        }
        if there.subscribers > 0 {
            self.tell_count(&mut state, mail);
        }
        true
    }

    fn appear(&self, state: &mut State, node: NodeId, member: &Member, mail: &Mail) {
        if !state.there(node).users.insert(Arc::clone(&member.id)) {
            return;
        }
        let is_new = !state.members.contains_key(&member.id);
        if is_new {
            let present = Present::new(member);
            state.members.insert(Arc::clone(&member.id), present);
        }
        state.members[&*member.id].nodes += 1;
        if is_new {
            let added = message::member_added(self.name(), member);
            self.cast_in(state, &added, Audience::All, mail);
        }
    }

    fn vanish(&self, state: &mut State, node: NodeId, user: &str, mail: &Mail) {
        if state.there(node).users.remove(user) {
            self.is_on_one_less(state, user, mail);
        }
    }

    fn is_on_one_less(&self, state: &mut State, user: &str, mail: &Mail) {
        if let Some(present) = state.members.get_mut(user) {
            present.nodes -= 1;
        }
        self.remove_if_gone(state, user, mail);
    }
}

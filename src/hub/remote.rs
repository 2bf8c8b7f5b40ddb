//! What a channel knows of other nodes, and how its subscribers hear of it.
//!
//! Each node compares what it knew with what it is told and sends its own
//! subscribers the difference, under the channel's lock. So every subscriber sees
//! each user come and go once, on however many nodes it is, whatever got lost or
//! came late in between.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::channel::{Channel, Present, State};
use super::cluster_queue::{ClusterUpdate, Fact, NodeId};
use super::lock;
use super::outputs::{Broadcast, ConnectionRef, Outputs, Recipients, WorkerMessage};
use crate::protocol::{Frame, Member, message};

/// What is known of a channel on other nodes.
#[derive(Debug, Default)]
pub(super) struct Remote {
    nodes: HashMap<NodeId, RemoteNode>,
    /// Subscribers that get their answer once it is known how things stand elsewhere.
    waiting: Option<Vec<ConnectionRef>>,
    /// Subscribers that get their answer once other nodes can know of them: by user.
    unconfirmed: HashMap<Arc<str>, Vec<ConnectionRef>>,
    /// Whether an event came while they waited: the last one is known here.
    has_last: bool,
}

/// A channel on one other node.
#[derive(Debug, Default)]
struct RemoteNode {
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
pub struct RemoteState {
    /// Every node that is alive and has facts.
    pub nodes: Vec<NodeFacts>,
    /// Nodes that may have more than that, because Redis has lost it.
    pub spared: HashSet<NodeId>,
}

impl Remote {
    pub(super) fn subscribers(&self) -> usize {
        self.nodes
            .values()
            .map(|remote_node| remote_node.subscribers)
            .sum()
    }
}

impl State {
    pub(super) fn is_waiting(&self, connection: ConnectionRef) -> bool {
        let Some(remote) = &self.remote else {
            return false;
        };
        let mut waiting = remote.waiting.iter().chain(remote.unconfirmed.values());
        waiting.any(|waiting| waiting.contains(&connection))
    }

    /// Notes a subscriber among those that wait, if they have to. A user whom other
    /// nodes do not know of yet waits, too: it may leave another of them next, and is
    /// not to be taken for gone.
    pub(super) fn wait(&mut self, connection: ConnectionRef, user: Option<&Member>) -> bool {
        let Some(remote) = &mut self.remote else {
            return false;
        };
        let unconfirmed = user.and_then(|user| remote.unconfirmed.get_mut(&user.id));
        match unconfirmed.or(remote.waiting.as_mut()) {
            Some(waiting) => {
                waiting.push(connection);
                true
            }
            None => false,
        }
    }

    pub(super) fn wait_no_more(&mut self, connection: ConnectionRef) {
        if let Some(remote) = &mut self.remote {
            let waiting = remote.waiting.iter_mut();
            for waiting in waiting.chain(remote.unconfirmed.values_mut()) {
                waiting.retain(|other| *other != connection);
            }
        }
    }

    /// Other nodes are being told of a user.
    pub(super) fn mark_unconfirmed(&mut self, user: &Member) {
        if let Some(remote) = &mut self.remote {
            remote.unconfirmed.entry(Arc::clone(&user.id)).or_default();
        }
    }

    /// It does not matter any more whether they know of a user.
    pub(super) fn clear_unconfirmed(&mut self, user: &str) {
        if let Some(remote) = &mut self.remote {
            remote.unconfirmed.remove(user);
        }
    }

    fn remote_node(&mut self, node: NodeId) -> &mut RemoteNode {
        let remote = self.remote.get_or_insert_default();
        remote.nodes.entry(node).or_default()
    }
}

impl Channel {
    /// Asks for the others' facts, and tells this node's. A new channel's first
    /// subscribers wait for the answer.
    pub(super) fn listen(&self, is_new: bool, outputs: &Outputs) {
        if !outputs.is_linked() {
            return;
        }
        let mut state = lock(&self.state);
        if is_new {
            state.remote.get_or_insert_default().waiting = Some(Vec::new());
        }
        let own = |present: &Present| present.own.as_deref().cloned().map(Fact::Member);
        let mut facts: Vec<Fact> = state.members.values().filter_map(own).collect();
        if self.counts && state.here() > 0 {
            facts.push(Fact::Subscribers(state.here()));
        }
        outputs.tell(|| ClusterUpdate::Listen {
            topic: self.topic(),
            generation: self.id(),
            facts,
        });
    }

    /// An event was published here or came from another node, and is the last one.
    pub(super) fn note_last_event(&self) {
        let mut state = lock(&self.state);
        if let Some(remote) = &mut state.remote
            && remote.waiting.is_some()
        {
            remote.has_last = true;
        }
    }

    /// What is known of the last event while subscribers wait: whether they do, and
    /// whether one has come since they do.
    pub(super) fn waits_for_last(&self) -> (bool, bool) {
        let state = lock(&self.state);
        let remote = state.remote.as_ref();
        let of = |remote: &Remote| (remote.waiting.is_some(), remote.has_last);
        remote.map_or((false, false), |remote| of(remote))
    }

    /// One thing has changed on another node.
    pub(super) fn apply(&self, node: NodeId, fact: &Fact, outputs: &Outputs) {
        let mut state = lock(&self.state);
        match fact {
            Fact::Member(member) => self.appear(&mut state, node, member, outputs),
            Fact::Left(user) => self.vanish(&mut state, node, user, outputs),
            Fact::Subscribers(count) => {
                state.remote_node(node).subscribers = *count;
                self.tell_count(&mut state, outputs);
            }
            Fact::Online | Fact::Offline => {}
        }
    }

    /// How things stand on all other nodes: tells the difference to what was known.
    /// Who appears is told before who vanishes, so that a user that went from one
    /// node to another was always there.
    pub(super) fn replace(&self, remote_state: &RemoteState, outputs: &Outputs) {
        let mut state = lock(&self.state);
        let mut gone: Vec<(NodeId, Arc<str>)> = Vec::new();
        let known: Vec<NodeId> = match &state.remote {
            Some(remote) => remote.nodes.keys().copied().collect(),
            None => Vec::new(),
        };
        for NodeFacts {
            node,
            are_all,
            facts,
        } in &remote_state.nodes
        {
            let before: HashSet<Arc<str>> = if *are_all {
                state.remote_node(*node).users.clone()
            } else {
                HashSet::new()
            };
            let mut now = HashSet::new();
            let mut count = None;
            for fact in facts {
                match fact {
                    Fact::Member(member) => {
                        now.insert(Arc::clone(&member.id));
                        self.appear(&mut state, *node, member, outputs);
                    }
                    Fact::Subscribers(subscribers) => count = Some(*subscribers),
                    Fact::Left(_) | Fact::Online | Fact::Offline => {}
                }
            }
            if *are_all || count.is_some() {
                state.remote_node(*node).subscribers = count.unwrap_or(0);
            }
            gone.extend(
                before
                    .difference(&now)
                    .map(|user| (*node, Arc::clone(user))),
            );
        }
        for node in known {
            let is_told = remote_state.nodes.iter().any(|facts| facts.node == node);
            if !is_told && !remote_state.spared.contains(&node) {
                let remote_node = state.remote_node(node);
                remote_node.subscribers = 0;
                gone.extend(
                    remote_node
                        .users
                        .iter()
                        .map(|user| (node, Arc::clone(user))),
                );
            }
        }
        for (node, user) in gone {
            self.vanish(&mut state, node, &user, outputs);
        }
        if let Some(remote) = &mut state.remote {
            let is_used = |remote_node: &RemoteNode| {
                remote_node.subscribers > 0 || !remote_node.users.is_empty()
            };
            remote.nodes.retain(|_, remote_node| is_used(remote_node));
        }
        self.tell_count(&mut state, outputs);
    }

    /// Answers those who waited, now that it is known how things stand.
    pub(super) fn welcome(&self, cached: Option<&Frame>, outputs: &Outputs) {
        let mut state = lock(&self.state);
        let waiting = state.remote.as_mut().and_then(|e| e.waiting.take());
        self.welcome_all(&mut state, waiting.unwrap_or_default(), cached, outputs);
    }

    /// Other nodes can know of a user now: its subscribers are answered.
    pub(super) fn confirm(&self, user: &str, cached: Option<&Frame>, outputs: &Outputs) {
        let mut state = lock(&self.state);
        let waiting = state
            .remote
            .as_mut()
            .and_then(|e| e.unconfirmed.remove(user));
        self.welcome_all(&mut state, waiting.unwrap_or_default(), cached, outputs);
    }

    /// Others know that a user has left this node, and this one knows whether it has
    /// gone to another.
    pub(super) fn confirm_leave(&self, user: &str, outputs: &Outputs) {
        let mut state = lock(&self.state);
        if let Some(present) = state.members.get_mut(user) {
            present.leaving = present.leaving.saturating_sub(1);
            self.remove_if_gone(&mut state, user, outputs);
        }
    }

    /// Nobody will answer: nobody waits any more.
    pub(super) fn go_alone(&self, cached: Option<&Frame>, outputs: &Outputs) {
        let mut state = lock(&self.state);
        let leaving = |(user, present): (&Arc<str>, &mut Present)| {
            (std::mem::take(&mut present.leaving) > 0).then(|| Arc::clone(user))
        };
        let left: Vec<Arc<str>> = state.members.iter_mut().filter_map(leaving).collect();
        for user in left {
            self.remove_if_gone(&mut state, &user, outputs);
        }
        let Some(remote) = &mut state.remote else {
            return;
        };
        let mut waiting = remote.waiting.take().unwrap_or_default();
        let unconfirmed = std::mem::take(&mut remote.unconfirmed);
        waiting.extend(unconfirmed.into_values().flatten());
        self.welcome_all(&mut state, waiting, cached, outputs);
    }

    fn welcome_all(
        &self,
        state: &mut State,
        waiting: Vec<ConnectionRef>,
        cached: Option<&Frame>,
        outputs: &Outputs,
    ) {
        if waiting.is_empty() {
            return;
        }
        let welcome = self.welcome_of(state);
        for to in waiting {
            let broadcast = |frame: &Frame, to: Recipients| Broadcast {
                channel: self.id(),
                seq: state.seq,
                frame: frame.clone(),
                to,
            };
            outputs.send(
                to.worker,
                WorkerMessage::Broadcast(broadcast(&welcome, Recipients::Welcome(to))),
            );
            if let Some(cached) = cached {
                outputs.send(
                    to.worker,
                    WorkerMessage::Broadcast(broadcast(cached, Recipients::Only(to))),
                );
            }
        }
        self.tell_count(state, outputs);
    }

    /// A node is gone. Returns whether anything was known of it.
    pub(super) fn forget(&self, node: NodeId, outputs: &Outputs) -> bool {
        let mut state = lock(&self.state);
        let remote = state.remote.as_mut();
        let Some(remote_node) = remote.and_then(|e| e.nodes.remove(&node)) else {
            return false;
        };
        for user in &remote_node.users {
            self.remove_from_one_node(&mut state, user, outputs);
        }
        if remote_node.subscribers > 0 {
            self.tell_count(&mut state, outputs);
        }
        true
    }

    fn appear(&self, state: &mut State, node: NodeId, member: &Member, outputs: &Outputs) {
        if !state.remote_node(node).users.insert(Arc::clone(&member.id)) {
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
            self.broadcast_in(state, &added, Recipients::All, outputs);
        }
    }

    fn vanish(&self, state: &mut State, node: NodeId, user: &str, outputs: &Outputs) {
        if state.remote_node(node).users.remove(user) {
            self.remove_from_one_node(state, user, outputs);
        }
    }

    fn remove_from_one_node(&self, state: &mut State, user: &str, outputs: &Outputs) {
        if let Some(present) = state.members.get_mut(user) {
            present.nodes -= 1;
        }
        self.remove_if_gone(state, user, outputs);
    }
}

//! A channel and other nodes: what they have to know of it, and how its subscribers are
//! sent what is so there.
//!
//! Each node compares what it knew with what it receives and sends its own subscribers the
//! difference, under the channel's lock. So every subscriber sees each user come and go
//! once, on however many nodes it is, whatever got lost or came late in between.

use std::sync::Arc;
use std::time::Instant;

use super::channel::{Channel, Clustered, Present, State};
use super::event::Origin;
use super::outputs::{Broadcast, Outputs, Recipients, WorkerMessage};
use super::remote::RemoteChange;
use super::sync::Released;
use super::topic::{Fact, LocalState, NodeId, RemoteState};
use crate::protocol::Frame;

impl Channel {
    /// How it is on this node: all of it, or only what may have changed since it was
    /// taken last, if `known` is its present generation.
    pub(super) fn local_state(&self, known: Option<u64>) -> LocalState {
        let mut state = self.state.lock();
        let State {
            members, cluster, ..
        } = &mut *state;
        let is_complete = known != Some(self.id());
        let (version, changed) = cluster
            .as_mut()
            .map(|cluster| cluster.sync.take())
            .unwrap_or_default();
        let own = |present: &Present| present.own.as_deref().cloned().map(Fact::Member);
        let mut facts: Vec<Fact> = if is_complete {
            members.values().filter_map(own).collect()
        } else {
            let of = |user: Arc<str>| {
                let member = members.get(&*user).and_then(own);
                member.unwrap_or(Fact::Left(user))
            };
            changed.into_iter().map(of).collect()
        };
        if self.counts {
            facts.push(Fact::Subscribers(state.local()));
        }
        LocalState {
            generation: self.id(),
            version,
            is_complete,
            facts,
        }
    }

    /// What is known of the last event of other nodes: whether their state is, and whether
    /// one has come before it was.
    pub(super) fn knows_last_event(&self) -> (bool, bool) {
        let state = self.state.lock();
        let of = |cluster: &Clustered| (cluster.remote.is_known, cluster.remote.has_last_event);
        state.cluster.as_deref().map_or((true, false), of)
    }

    /// One thing has changed on another node.
    pub(super) fn apply(&self, node: NodeId, fact: &Fact, outputs: &Outputs) {
        let mut state = self.state.lock();
        if let Some(cluster) = &mut state.cluster {
            let change = cluster.remote.apply(node, fact);
            self.apply_change(&mut state, change, Origin::Remote(node), outputs);
        }
    }

    /// This is how it is on all other nodes.
    pub(super) fn replace(&self, remote: &RemoteState, outputs: &Outputs) {
        let mut state = self.state.lock();
        if let Some(cluster) = &mut state.cluster {
            cluster.remote.is_known = true;
            let change = cluster.remote.replace(remote);
            self.apply_change(&mut state, change, Origin::Cluster, outputs);
        }
    }

    /// A node is gone. Returns whether anything was known of it.
    pub(super) fn remove_node(&self, node: NodeId, outputs: &Outputs) -> bool {
        let mut state = self.state.lock();
        let cluster = state.cluster.as_mut();
        let Some(change) = cluster.and_then(|cluster| cluster.remote.remove(node)) else {
            return false;
        };
        self.apply_change(&mut state, change, Origin::Remote(node), outputs);
        true
    }

    fn apply_change(
        &self,
        state: &mut State,
        change: RemoteChange,
        origin: Origin,
        outputs: &Outputs,
    ) {
        for member in change.appeared {
            let is_new = !state.members.contains_key(&member.id);
            if is_new {
                let present = Present::new(&member);
                state.members.insert(Arc::clone(&member.id), present);
            }
            state.members[&*member.id].nodes += 1;
            if is_new {
                self.add_member(state, &member, origin, outputs);
            }
        }
        for user in change.vanished {
            if let Some(present) = state.members.get_mut(&user) {
                present.nodes -= 1;
            }
            self.remove_if_gone(state, &user, origin, outputs);
        }
        if change.is_count_changed {
            self.send_count(state, outputs);
        }
    }

    /// Other nodes know everything up to a version: answers who has waited for it. Returns
    /// how many that are.
    pub(super) fn confirm(
        &self,
        version: u64,
        last_event: Option<&Frame>,
        outputs: &Outputs,
    ) -> usize {
        let mut state = self.state.lock();
        let Some(cluster) = &mut state.cluster else {
            return 0;
        };
        let released = cluster.sync.confirm(version);
        self.release(&mut state, released, last_event, outputs)
    }

    /// Nobody will confirm anything: nobody waits any more. Returns how many are answered.
    pub(super) fn release_all(&self, last_event: Option<&Frame>, outputs: &Outputs) -> usize {
        let mut state = self.state.lock();
        let Some(cluster) = &mut state.cluster else {
            return 0;
        };
        cluster.remote.is_known = true;
        let released = cluster.sync.release_all();
        self.release(&mut state, released, last_event, outputs)
    }

    fn release(
        &self,
        state: &mut State,
        released: Released,
        last_event: Option<&Frame>,
        outputs: &Outputs,
    ) -> usize {
        for user in released.left {
            // It may have come and left again, and be kept for that.
            let is_confirmed = |state: &State, version| {
                let cluster = state.cluster.as_ref();
                !outputs.is_linked() || cluster.is_some_and(|c| c.sync.is_confirmed(version))
            };
            let version = state.members.get(&user).map(|present| present.version);
            if version.is_some_and(|version| is_confirmed(state, version)) {
                state.members[&*user].is_leaving = false;
                self.remove_if_gone(state, &user, Origin::Local, outputs);
            }
        }
        let count = released.waiting.len();
        if count == 0 {
            return 0;
        }
        let (welcome, now) = (self.welcome_of(state), Instant::now());
        for to in released.waiting {
            let broadcast = |frame: &Frame, recipients: Recipients| {
                let broadcast = Broadcast {
                    channel: self.id(),
                    seq: state.seq,
                    frame: frame.clone(),
                    to: recipients,
                    since: now,
                };
                outputs.send(to.worker, WorkerMessage::Broadcast(broadcast));
            };
            broadcast(&welcome, Recipients::Welcome(to));
            if let Some(last_event) = last_event {
                broadcast(last_event, Recipients::Only(to));
            }
        }
        self.send_count(state, outputs);
        count
    }
}

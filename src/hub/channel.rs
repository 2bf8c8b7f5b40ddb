//! One channel.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indexmap::IndexMap;

use super::cluster_queue::{ClusterUpdate, Fact, Topic};
use super::lock;
use super::outputs::{Broadcast, ConnectionRef, Outputs, Recipients, WorkerMessage};
use super::remote::Remote;
use crate::protocol::message::{self, EncodedMember};
use crate::protocol::{ChannelName, Frame, Member};

/// Subscribers from which on count events are held back (Pusher Channels,
/// "Subscription count events").
const MANY: usize = 100;

/// How long they are held back.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);

/// A channel with at least one subscriber.
#[derive(Debug)]
pub struct Channel {
    id: u64,
    app: usize,
    name: ChannelName,
    /// Whether subscribers are told how many they are.
    pub(super) counts: bool,
    pub(super) state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    /// Number of the last message; the first is 1.
    pub(super) seq: u64,
    /// Subscribers by worker.
    subscribers: Box<[usize]>,
    /// Of a presence channel, by identity; the order is that of joining until
    /// somebody leaves. Those of other nodes, too.
    pub(super) members: IndexMap<Arc<str>, Present>,
    /// What is known of other nodes, if there can be any.
    pub(super) remote: Option<Box<Remote>>,
    counted: Option<Instant>,
    /// Whether a count was held back.
    count_due: bool,
    /// Whether somebody will come back for it.
    count_queued: bool,
}

/// A user that is in a presence channel.
#[derive(Debug)]
pub(super) struct Present {
    encoded: EncodedMember,
    pub(super) id_json: Box<str>,
    /// Its connections to this node.
    pub(super) connections: usize,
    /// Other nodes that it is on.
    pub(super) nodes: usize,
    /// Times that it left this node and others may not know of it yet, nor this one of
    /// a node that it has gone to.
    pub(super) leaving: usize,
    /// Who it said to be on this node, to tell others again.
    pub(super) own: Option<Box<Member>>,
}

impl Present {
    pub(super) fn new(member: &Member) -> Self {
        Self {
            encoded: EncodedMember::new(member),
            id_json: member.id_json.clone(),
            connections: 0,
            nodes: 0,
            leaving: 0,
            own: None,
        }
    }
}

/// What a channel has to know of its application and of the process.
#[derive(Clone, Copy)]
pub(super) struct Settings {
    /// Whether subscribers are told how many they are.
    pub(super) counts: bool,
    /// Whether there may be other nodes.
    pub(super) has_others: bool,
}

/// How many there are on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections.
    pub subscriptions: usize,
    /// Users of a presence channel, each once.
    pub users: usize,
}

/// The presence channel has all the members that it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "The presence channel has all the {0} members it may have (presence.max_members, RESOUND_PRESENCE_MAX_MEMBERS)"
)]
pub struct Full(pub usize);

impl State {
    /// Subscribers on this node.
    pub(super) fn here(&self) -> usize {
        self.subscribers.iter().sum()
    }

    /// Subscribers on all nodes.
    fn total(&self) -> usize {
        let remote = self.remote.as_ref();
        self.here() + remote.map_or(0, |remote| remote.subscribers())
    }
}

impl Channel {
    pub(super) fn new(
        id: u64,
        app: usize,
        name: ChannelName,
        workers: usize,
        settings: Settings,
    ) -> Self {
        let Settings { counts, has_others } = settings;
        let state = State {
            seq: 0,
            subscribers: vec![0; workers].into(),
            members: IndexMap::new(),
            remote: has_others.then(Box::default),
            counted: None,
            count_due: false,
            count_queued: false,
        };
        let counts = counts && !name.kind().is_presence();
        Self {
            id,
            app,
            name,
            counts,
            state: Mutex::new(state),
        }
    }

    /// Unique in this process, also over a channel's lives.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> &ChannelName {
        &self.name
    }

    /// [`crate::app::App::index`] of its application.
    pub fn app(&self) -> usize {
        self.app
    }

    pub(super) fn topic(&self) -> Topic {
        Topic::Channel(self.app, self.name.clone())
    }

    /// How many subscribers and members there are on this node.
    pub fn counts(&self) -> Counts {
        let state = lock(&self.state);
        let users = if state.remote.is_some() {
            let is_here = |present: &&Present| present.connections > 0;
            state.members.values().filter(is_here).count()
        } else {
            state.members.len()
        };
        Counts {
            subscriptions: state.here(),
            users,
        }
    }

    /// Ids of the members on this node, as JSON.
    pub fn member_ids(&self) -> Vec<Box<str>> {
        lock(&self.state)
            .members
            .values()
            .filter(|present| present.connections > 0)
            .map(|present| present.id_json.clone())
            .collect()
    }

    /// Answers one subscriber, in order. False if it still waits for its first answer:
    /// it gets that.
    pub(super) fn answer_again(
        &self,
        to: ConnectionRef,
        cached: Option<Frame>,
        outputs: &Outputs,
    ) -> bool {
        let state = lock(&self.state);
        if state.is_waiting(to) {
            return false;
        }
        for frame in [Some(self.welcome_of(&state)), cached]
            .into_iter()
            .flatten()
        {
            let broadcast = Broadcast {
                channel: self.id,
                seq: state.seq,
                frame,
                to: Recipients::Only(to),
            };
            outputs.send(to.worker, WorkerMessage::Broadcast(broadcast));
        }
        true
    }

    pub(super) fn welcome_of(&self, state: &State) -> Frame {
        if self.name.kind().is_presence() {
            message::presence_succeeded(
                &self.name,
                state.members.values().map(|present| &present.encoded),
            )
        } else {
            message::subscription_succeeded(&self.name)
        }
    }

    /// Adds a subscriber, and tells the others if it is its user's first. Gives
    /// back the number of the last message and the answer to the subscription; none
    /// if the answer comes later, with a number of its own.
    pub(super) fn join(
        &self,
        connection: ConnectionRef,
        member: Option<&Member>,
        max: usize,
        outputs: &Outputs,
    ) -> Result<(u64, Option<Frame>), Full> {
        let mut state = lock(&self.state);
        if let Some(member) = member {
            self.join_as(&mut state, member, max, outputs)?;
        }
        state.subscribers[connection.worker] += 1;
        let joined = if state.wait(connection, member) {
            (u64::MAX, None)
        } else {
            (state.seq, Some(self.welcome_of(&state)))
        };
        self.tell_others_count(&state, outputs);
        self.tell_count(&mut state, outputs);
        Ok(joined)
    }

    fn join_as(
        &self,
        state: &mut State,
        member: &Member,
        max: usize,
        outputs: &Outputs,
    ) -> Result<(), Full> {
        let is_new = !state.members.contains_key(&member.id);
        if is_new {
            if state.members.len() >= max {
                return Err(Full(max));
            }
            let present = Present::new(member);
            state.members.insert(Arc::clone(&member.id), present);
        }
        let present = &mut state.members[&*member.id];
        present.connections += 1;
        if present.connections == 1 && outputs.cluster_queue.is_some() {
            present.own = Some(Box::new(member.clone()));
            if outputs.is_linked() {
                state.mark_unconfirmed(member);
            }
            outputs.tell(|| ClusterUpdate::Change(self.topic(), Fact::Member(member.clone())));
        }
        if is_new {
            let added = message::member_added(&self.name, member);
            self.broadcast_in(state, &added, Recipients::All, outputs);
        }
        Ok(())
    }

    /// Takes a subscriber away, and tells the others if it was its user's last.
    /// Returns how many are left on this node.
    pub(super) fn leave(
        &self,
        connection: ConnectionRef,
        user: Option<&str>,
        outputs: &Outputs,
    ) -> usize {
        let mut state = lock(&self.state);
        state.subscribers[connection.worker] -= 1;
        state.wait_no_more(connection);
        if let Some(user) = user
            && let Some(present) = state.members.get_mut(user)
        {
            present.connections -= 1;
            if present.connections == 0 {
                present.own = None;
                present.leaving += usize::from(outputs.is_linked());
                state.clear_unconfirmed(user);
                outputs.tell(|| ClusterUpdate::Change(self.topic(), Fact::Left(user.into())));
                self.remove_if_gone(&mut state, user, outputs);
            }
        }
        self.tell_others_count(&state, outputs);
        self.tell_count(&mut state, outputs);
        state.here()
    }

    /// Removes a member that is on no node any more, and says so.
    pub(super) fn remove_if_gone(&self, state: &mut State, user: &str, outputs: &Outputs) {
        let is_gone = |present: &Present| {
            present.connections == 0 && present.nodes == 0 && present.leaving == 0
        };
        if state.members.get(user).is_some_and(is_gone)
            && let Some(gone) = state.members.swap_remove(user)
        {
            let removed = message::member_removed(&self.name, &gone.id_json);
            self.broadcast_in(state, &removed, Recipients::All, outputs);
        }
    }

    fn tell_others_count(&self, state: &State, outputs: &Outputs) {
        if self.counts {
            outputs.tell(|| ClusterUpdate::Change(self.topic(), Fact::Subscribers(state.here())));
        }
    }

    /// Numbers a frame and puts it into the inbox of each worker that has a
    /// subscriber. Returns the number of subscribers.
    pub(super) fn broadcast(&self, frame: &Frame, to: Recipients, outputs: &Outputs) -> usize {
        self.broadcast_in(&mut lock(&self.state), frame, to, outputs)
    }

    pub(super) fn broadcast_in(
        &self,
        state: &mut State,
        frame: &Frame,
        to: Recipients,
        outputs: &Outputs,
    ) -> usize {
        state.seq += 1;
        for (inbox, _) in outputs
            .inboxes
            .iter()
            .zip(&state.subscribers)
            .filter(|(_, count)| **count > 0)
        {
            inbox.push(WorkerMessage::Broadcast(Broadcast {
                channel: self.id,
                seq: state.seq,
                frame: frame.clone(),
                to,
            }));
        }
        state.here()
    }

    /// Tells subscribers how many they are: at once, or, when they are many, at
    /// most every five seconds.
    pub(super) fn tell_count(&self, state: &mut State, outputs: &Outputs) {
        let total = state.total();
        if !self.counts || state.here() == 0 {
            return;
        }
        let now = Instant::now();
        let recent = state
            .counted
            .is_some_and(|counted| now.saturating_duration_since(counted) < COUNT_INTERVAL);
        if total > MANY && recent {
            state.count_due = true;
            return;
        }
        state.counted = Some(now);
        state.count_due = false;
        self.broadcast_in(
            state,
            &message::subscription_count(&self.name, total),
            Recipients::All,
            outputs,
        );
    }

    /// Whether a count was held back that nobody will come back for yet; whoever
    /// asks has to call [`Self::tell_held_back_count`] later.
    pub(super) fn must_be_queued(&self) -> bool {
        if !self.counts {
            return false;
        }
        let mut state = lock(&self.state);
        let must = state.count_due && !state.count_queued;
        state.count_queued |= must;
        must
    }

    /// Sends a count that was held back long enough.
    pub(super) fn tell_held_back_count(&self, outputs: &Outputs) {
        let mut state = lock(&self.state);
        state.count_queued = false;
        if state.count_due {
            self.tell_count(&mut state, outputs);
        }
    }
}

//! One channel on this node: who has subscribed, and what they are sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use indexmap::{IndexMap, IndexSet};

use super::event::{HubEventKind, Origin};
use super::frame_log::log_broadcast;
use super::lock::{Lock, Rank};
use super::outputs::{Broadcast, ConnectionRef, Outputs, Recipients, WorkerMessage};
use super::remote::Remote;
use super::summary::ChannelSummary;
use super::sync::Sync;
use super::topic::Topic;
use crate::apps::AppHandle;
use crate::protocol::message::{self, EncodedMember};
use crate::protocol::{ChannelName, Frame, Member};

/// Subscribers from which on count events are held back (Pusher Channels,
/// "Subscription count events").
const MIN_HELD_BACK: usize = 100;

/// How long they are held back.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);

/// A channel with at least one subscriber.
#[derive(Debug)]
pub struct Channel {
    id: u64,
    app: AppHandle,
    name: ChannelName,
    /// Whether subscribers are sent how many they are.
    pub(super) counts: bool,
    pub(super) state: Lock<State>,
}

#[derive(Debug)]
pub(super) struct State {
    /// Number of the last message; the first is 1.
    pub(super) seq: u64,
    /// Subscribers by worker.
    pub(super) subscribers: Box<[usize]>,
    /// Of a presence channel, by identity; the order is that of joining until
    /// somebody leaves. Those of other nodes, too.
    pub(super) members: IndexMap<Arc<str>, Present>,
    /// What other nodes know, and what is known of them, if there can be any.
    pub(super) cluster: Option<Box<Clustered>>,
    counted: Option<Instant>,
    /// Whether a count was held back.
    count_due: bool,
    /// Whether somebody will come back for it.
    count_queued: bool,
}

/// A channel that other nodes may have, too.
#[derive(Debug, Default)]
pub(super) struct Clustered {
    pub(super) sync: Sync,
    pub(super) remote: Remote,
}

/// A user that is in a presence channel.
#[derive(Debug)]
pub(super) struct Present {
    pub(super) encoded: EncodedMember,
    pub(super) id_json: Box<str>,
    /// Its connections to this node.
    pub(super) connections: usize,
    /// Other nodes that it is on.
    pub(super) nodes: usize,
    /// The version in which it came to this node or left it.
    pub(super) version: u64,
    /// Whether it left this node and others may not know of it yet, nor this one of a
    /// node that it has gone to.
    pub(super) is_leaving: bool,
    /// Who it said to be on this node, for the others.
    pub(super) own: Option<Box<Member>>,
}

impl Present {
    pub(super) fn new(member: &Member) -> Self {
        Self {
            encoded: EncodedMember::new(member),
            id_json: member.id_json.clone(),
            connections: 0,
            nodes: 0,
            version: 0,
            is_leaving: false,
            own: None,
        }
    }

    fn is_gone(&self) -> bool {
        self.connections == 0 && self.nodes == 0 && !self.is_leaving
    }
}

/// What a channel has to know of its application and of the process.
#[derive(Clone, Copy)]
pub(super) struct Settings {
    /// Whether subscribers are sent how many they are.
    pub(super) counts: bool,
    /// Whether there may be other nodes.
    pub(super) has_others: bool,
    /// Whether there is a link to them now, by which their state will come.
    pub(super) is_linked: bool,
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
    pub(super) fn local(&self) -> usize {
        self.subscribers.iter().sum()
    }

    /// Subscribers on all nodes.
    fn total(&self) -> usize {
        let cluster = self.cluster.as_ref();
        let remote = cluster.map_or(0, |cluster| cluster.remote.subscribers());
        self.local().saturating_add(remote)
    }
}

impl Channel {
    pub(super) fn new(
        id: u64,
        app: AppHandle,
        name: ChannelName,
        workers: usize,
        settings: Settings,
    ) -> Self {
        let clustered = || {
            let mut clustered = Clustered::default();
            clustered.remote.is_known = !settings.is_linked;
            Box::new(clustered)
        };
        let state = State {
            seq: 0,
            subscribers: vec![0; workers].into(),
            members: IndexMap::new(),
            cluster: settings.has_others.then(clustered),
            counted: None,
            count_due: false,
            count_queued: false,
        };
        let counts = settings.counts && !name.kind().is_presence();
        Self {
            id,
            app,
            name,
            counts,
            state: Lock::new(Rank::Channel, state),
        }
    }

    /// Unique in this process: a channel that is forgotten and comes again has another.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> &ChannelName {
        &self.name
    }

    /// Its application.
    pub fn app(&self) -> &AppHandle {
        &self.app
    }

    pub(super) fn topic(&self) -> Topic {
        Topic::Channel(self.app.clone(), self.name.clone())
    }

    /// How many subscribers and members there are on this node.
    pub fn counts(&self) -> Counts {
        let state = self.state.lock();
        let users = if state.cluster.is_some() {
            let is_local = |present: &&Present| present.connections > 0;
            state.members.values().filter(is_local).count()
        } else {
            state.members.len()
        };
        Counts {
            subscriptions: state.local(),
            users,
        }
    }

    /// How many there are on this node, with the ids of members or without.
    pub fn summary(&self, users: bool) -> ChannelSummary {
        let state = self.state.lock();
        let is_local = |present: &Present| present.connections > 0;
        let members = state
            .members
            .iter()
            .filter(|(_, present)| is_local(present));
        let ids = members.map(|(id, _)| Box::from(&**id));
        ChannelSummary {
            subscriptions: state.local() as u64,
            users: if users {
                ids.collect()
            } else {
                IndexSet::new()
            },
        }
    }

    /// Whether a user is in it on this node.
    pub(super) fn has_local_member(&self, user: &str) -> bool {
        let state = self.state.lock();
        let present = state.members.get(user);
        present.is_some_and(|present| present.connections > 0)
    }

    /// Ids of the members on this node, as JSON.
    pub fn member_ids(&self) -> Vec<Box<str>> {
        self.state
            .lock()
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
        last_event: Option<&Frame>,
        outputs: &Outputs,
    ) -> bool {
        let state = self.state.lock();
        let cluster = state.cluster.as_ref();
        if cluster.is_some_and(|cluster| cluster.sync.is_waiting(to)) {
            return false;
        }
        let welcome = self.welcome_of(&state);
        for frame in [Some(&welcome), last_event].into_iter().flatten() {
            let broadcast = Broadcast {
                channel: self.id,
                seq: state.seq,
                frame: frame.clone(),
                to: Recipients::Only(to),
                since: Instant::now(),
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

    /// Adds a subscriber, and announces it to the others if it is its user's first. Returns the
    /// number of the last message and the answer to the subscription; none if the answer
    /// comes later, with a number of its own.
    pub(super) fn join(
        &self,
        connection: ConnectionRef,
        member: Option<&Member>,
        outputs: &Outputs,
    ) -> Result<(u64, Option<Frame>), Full> {
        let mut state = self.state.lock();
        let is_first = state.local() == 0;
        let is_first_of_user = match member {
            Some(member) => self.join_as(&mut state, member, outputs)?,
            None => false,
        };
        state.subscribers[connection.worker] += 1;
        if is_first {
            let kind = || HubEventKind::ChannelOccupied {
                channel: &self.name,
            };
            outputs.sinks.emit(&self.app, kind);
        }
        outputs.sinks.emit(&self.app, || HubEventKind::Subscribed {
            channel: &self.name,
            user: member.map(|member| &*member.id),
            is_first_of_user,
        });
        let answer = if self.must_wait(&mut state, connection, member, outputs) {
            (u64::MAX, None)
        } else {
            (state.seq, Some(self.welcome_of(&state)))
        };
        self.send_count(&mut state, outputs);
        Ok(answer)
    }

    /// Records a change for other nodes, and has the subscriber wait until they know of it,
    /// if it has to.
    fn must_wait(
        &self,
        state: &mut State,
        connection: ConnectionRef,
        member: Option<&Member>,
        outputs: &Outputs,
    ) -> bool {
        let is_first = state.local() == 1;
        let version = member.map_or(1, |member| state.members[&*member.id].version);
        let Some(cluster) = &mut state.cluster else {
            return false;
        };
        // A member's first connection has advanced it already.
        if self.counts || (is_first && member.is_none()) {
            cluster.sync.advance();
            outputs.mark(|| self.topic());
        }
        outputs.is_linked() && cluster.sync.wait(version, connection)
    }

    /// Returns whether it is the user's first connection to this node.
    fn join_as(&self, state: &mut State, member: &Member, outputs: &Outputs) -> Result<bool, Full> {
        let is_new = !state.members.contains_key(&member.id);
        if is_new {
            let max = self.app.settings().presence.max_members;
            if let Some(max) = max.filter(|max| state.members.len() >= *max) {
                return Err(Full(max));
            }
            let present = Present::new(member);
            state.members.insert(Arc::clone(&member.id), present);
        }
        let present = &mut state.members[&*member.id];
        present.connections += 1;
        let is_first = present.connections == 1;
        if is_first && let Some(cluster) = &mut state.cluster {
            present.own = Some(Box::new(member.clone()));
            present.version = cluster.sync.advance_user(&member.id);
            present.is_leaving = false;
            outputs.mark(|| self.topic());
        }
        if is_new {
            self.add_member(state, member, Origin::Local, outputs);
        }
        Ok(is_first)
    }

    /// Announces to subscribers a member that has just come.
    pub(super) fn add_member(
        &self,
        state: &mut State,
        member: &Member,
        origin: Origin,
        outputs: &Outputs,
    ) {
        let channel = &self.name;
        let kind = || HubEventKind::MemberAdded {
            channel,
            member,
            origin,
        };
        outputs.sinks.emit(&self.app, kind);
        let added = message::member_added(channel, member);
        self.broadcast_in(state, &added, Recipients::All, outputs);
    }

    /// Takes a subscriber away. If it was its user's last, the others are sent
    /// `member_removed`: at once, or with a link to other nodes when they know of it, since
    /// the user may have gone to one of them. Returns how many are left on this node.
    pub(super) fn leave(
        &self,
        connection: ConnectionRef,
        user: Option<&str>,
        outputs: &Outputs,
    ) -> usize {
        let mut state = self.state.lock();
        state.subscribers[connection.worker] -= 1;
        if let Some(cluster) = &mut state.cluster {
            cluster.sync.stop_waiting(connection);
        }
        let is_last_of_user = user.is_some_and(|user| self.leave_as(&mut state, user, outputs));
        outputs
            .sinks
            .emit(&self.app, || HubEventKind::Unsubscribed {
                channel: &self.name,
                user,
                is_last_of_user,
            });
        let left = state.local();
        if self.counts
            && left > 0
            && let Some(cluster) = &mut state.cluster
        {
            cluster.sync.advance();
            outputs.mark(|| self.topic());
        }
        self.send_count(&mut state, outputs);
        if left == 0 {
            // Nobody is left who could be told when other nodes know of it.
            for present in state.members.values().filter(|present| present.nodes == 0) {
                self.emit_removed(&present.id_json, Origin::Local, outputs);
            }
            let kind = || HubEventKind::ChannelVacated {
                channel: &self.name,
            };
            outputs.sinks.emit(&self.app, kind);
        }
        left
    }

    /// Returns whether it was the user's last connection to this node.
    fn leave_as(&self, state: &mut State, user: &str, outputs: &Outputs) -> bool {
        let Some((_, user, present)) = state.members.get_full_mut(user) else {
            return false;
        };
        let user = Arc::clone(user);
        present.connections -= 1;
        if present.connections > 0 {
            return false;
        }
        present.own = None;
        if let Some(cluster) = &mut state.cluster {
            present.version = cluster.sync.advance_user(&user);
            if outputs.is_linked() {
                present.is_leaving = true;
                cluster.sync.keep_leaving(present.version, &user);
            }
            outputs.mark(|| self.topic());
        }
        self.remove_if_gone(state, &user, Origin::Local, outputs);
        true
    }

    /// Removes a member that is on no node any more, and announces that.
    pub(super) fn remove_if_gone(
        &self,
        state: &mut State,
        user: &str,
        origin: Origin,
        outputs: &Outputs,
    ) {
        if state.members.get(user).is_some_and(Present::is_gone)
            && let Some(gone) = state.members.swap_remove(user)
        {
            self.emit_removed(&gone.id_json, origin, outputs);
            let removed = message::member_removed(&self.name, &gone.id_json);
            self.broadcast_in(state, &removed, Recipients::All, outputs);
        }
    }

    fn emit_removed(&self, id_json: &str, origin: Origin, outputs: &Outputs) {
        let channel = &self.name;
        let kind = || HubEventKind::MemberRemoved {
            channel,
            id_json,
            origin,
        };
        outputs.sinks.emit(&self.app, kind);
    }

    /// Numbers a frame and puts it into the inbox of each worker that has a
    /// subscriber; `then` runs under the channel's lock. Returns the number of
    /// subscribers.
    pub(super) fn broadcast(
        &self,
        frame: &Frame,
        to: Recipients,
        outputs: &Outputs,
        then: impl FnOnce(usize),
    ) -> usize {
        let mut state = self.state.lock();
        let subscribers = self.broadcast_in(&mut state, frame, to, outputs);
        then(subscribers);
        subscribers
    }

    pub(super) fn broadcast_in(
        &self,
        state: &mut State,
        frame: &Frame,
        to: Recipients,
        outputs: &Outputs,
    ) -> usize {
        state.seq += 1;
        let (now, subscribers) = (Instant::now(), state.local());
        log_broadcast(&self.app, &self.name, (subscribers, to.except()), frame);
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
                since: now,
            }));
        }
        subscribers
    }

    /// An event was published here or came from another node, and is the last one.
    pub(super) fn mark_last_event(&self) {
        if let Some(cluster) = &mut self.state.lock().cluster
            && !cluster.remote.is_known
        {
            cluster.remote.has_last_event = true;
        }
    }

    /// Sends subscribers how many they are: at once, or, when they are many, at
    /// most every five seconds.
    pub(super) fn send_count(&self, state: &mut State, outputs: &Outputs) {
        if !self.counts || state.local() == 0 {
            return;
        }
        let (count, now) = (state.total(), Instant::now());
        let recent = state
            .counted
            .is_some_and(|counted| now.saturating_duration_since(counted) < COUNT_INTERVAL);
        if count > MIN_HELD_BACK && recent {
            state.count_due = true;
            return;
        }
        state.counted = Some(now);
        state.count_due = false;
        let channel = &self.name;
        let kind = || HubEventKind::CountChanged { channel, count };
        outputs.sinks.emit(&self.app, kind);
        let frame = message::subscription_count(channel, count);
        self.broadcast_in(state, &frame, Recipients::All, outputs);
    }

    /// Records that a count that was held back is going to be sent, if one was and nobody
    /// does so yet: whoever asks has to call [`Self::send_held_back_count`] later.
    pub(super) fn queue_count(&self) -> bool {
        if !self.counts {
            return false;
        }
        let mut state = self.state.lock();
        let must = state.count_due && !state.count_queued;
        state.count_queued |= must;
        must
    }

    /// Sends a count that was held back long enough.
    pub(super) fn send_held_back_count(&self, outputs: &Outputs) {
        let mut state = self.state.lock();
        state.count_queued = false;
        if state.count_due {
            self.send_count(&mut state, outputs);
        }
    }
}

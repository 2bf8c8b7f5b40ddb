//! The hub and other nodes: what they have to know is read here, and what they say comes
//! in here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cluster_queue::ClusterQueue;
use super::event::HubEventKind;
use super::outputs::Recipients;
use super::states::{AppState, Shard};
use super::topic::{Event, Fact, LocalState, NodeId, RemoteState, Topic};
use super::{Channel, Hub, Slot};
use crate::apps::{AppHandle, CacheLimits};
use crate::protocol::{ChannelName, CloseReason, Frame};

/// The last event of a cache channel, and how long it will be kept.
type Last = Option<(Frame, Duration)>;

impl Hub {
    /// Where it waits what other nodes have to know; `None` if there are none.
    pub fn cluster_queue(&self) -> Option<&Arc<ClusterQueue>> {
        self.outputs.cluster_queue.as_ref()
    }

    /// How many topics concern other nodes: channels with a subscriber, and users who are
    /// signed in or watched. Cheap: no channel is looked at.
    ///
    /// While [`ClusterQueue::is_clean`] is true afterwards, every one of them has been
    /// taken from the queue, since both change under the same locks.
    pub fn wanted_topics(&self) -> usize {
        let channels = |shards: &[Shard]| -> usize {
            let counts = shards.iter().map(|shard| shard.lock().len());
            counts.sum()
        };
        let of_app = |app: &Arc<AppState>| channels(&app.shards) + app.users.wanted();
        self.states.all().iter().map(of_app).sum()
    }

    /// Those topics.
    pub fn topics(&self) -> Vec<Topic> {
        let mut topics = Vec::new();
        for app in self.states.all().iter() {
            for shard in &app.shards {
                topics.extend(shard.lock().values().map(|channel| channel.topic()));
            }
            topics.extend(app.users.topics());
        }
        topics
    }

    /// How a topic is on this node: all of it, or, if `known` is its present
    /// [`LocalState::generation`], what may have changed since it was read last. `None` if
    /// it does not concern other nodes.
    pub fn local_state(&self, topic: &Topic, known: Option<u64>) -> Option<LocalState> {
        let app = self.states.find(topic.app())?;
        match topic {
            Topic::Channel(_, name) => {
                // The shard stays locked: a channel that ends is marked after this.
                let shard = app.shard(name.as_str()).lock();
                shard.get(name).map(|channel| channel.local_state(known))
            }
            Topic::User(_, id) => app.users.local_state(id, known),
        }
    }

    /// Other nodes know everything of a topic's generation up to a version: answers who has
    /// waited for that.
    pub fn confirm(&self, topic: &Topic, generation: u64, version: u64) {
        let Some(app) = self.states.find(topic.app()) else {
            return;
        };
        match topic {
            Topic::Channel(_, name) => {
                let shard = app.shard(name.as_str()).lock();
                if let Some(channel) = shard.get(name).filter(|c| c.id() == generation) {
                    self.confirm_channel(&app, channel, version);
                }
            }
            Topic::User(_, id) => app.users.confirm(id, generation, version),
        }
    }

    fn confirm_channel(&self, app: &AppState, channel: &Arc<Channel>, version: u64) {
        let last_event = app.last_event(channel.name());
        let frame = last_event.as_ref().map(|last_event| &last_event.frame);
        let answered = channel.confirm(version, frame, &self.outputs);
        if answered > 0
            && let Some(last_event) = &last_event
        {
            last_event.emit(channel, &self.outputs);
        }
        self.queue_count(channel);
    }

    /// There is no link to other nodes: nobody waits for them, and what is published
    /// is kept for them.
    pub fn go_alone(&self) {
        if let Some(queue) = &self.outputs.cluster_queue {
            queue.go_down();
        }
        for app in self.states.all().iter() {
            for shard in &app.shards {
                let shard = shard.lock();
                for channel in shard.values() {
                    let last_event = app.last_event(channel.name());
                    let frame = last_event.as_ref().map(|last_event| &last_event.frame);
                    channel.release_all(frame, &self.outputs);
                }
            }
            app.users.release_all();
        }
    }

    /// This is how a topic is on other nodes, and they know everything of its generation
    /// here up to `version`. `last` is, for a cache channel, its last event, if it has one.
    /// Returns the last event that is known here if the others have lost it.
    pub fn reconcile(
        &self,
        topic: &Topic,
        (generation, version): (u64, u64),
        remote: &RemoteState,
        last: Option<Last>,
    ) -> Last {
        let app = self.states.find(topic.app())?;
        let name = match topic {
            Topic::Channel(_, name) => name,
            Topic::User(_, id) => {
                let is_online = |facts: &[Fact]| facts.contains(&Fact::Online);
                let nodes = remote.nodes.iter().filter(|node| is_online(&node.facts));
                let nodes: Vec<NodeId> = nodes.map(|facts| facts.node).collect();
                app.users.replace(id, &nodes, &remote.unverified);
                app.users.confirm(id, generation, version);
                return None;
            }
        };
        let limits = topic.app().settings().cache;
        let shard = app.shard(name.as_str()).lock();
        let channel = shard.get(name).filter(|c| c.id() == generation)?;
        let lost = last.and_then(|last| reconcile_last(&app, channel, last, limits));
        channel.replace(remote, &self.outputs);
        self.confirm_channel(&app, channel, version);
        lost
    }

    /// The last event of a cache channel, if this node gets all of them; otherwise `None`.
    pub fn last_known(&self, app: &AppHandle, name: &ChannelName) -> Option<Last> {
        let Some(app) = self.states.find(app) else {
            return (!self.outputs.is_linked()).then_some(None);
        };
        let shard = app.shard(name.as_str()).lock();
        let is_known = match shard.get(name) {
            Some(channel) => {
                let (is_known, has_last) = channel.knows_last_event();
                is_known || has_last
            }
            None => !self.outputs.is_linked(),
        };
        let cached = || {
            let mut cache = app.cache.lock();
            cache.get(name, Instant::now())
        };
        is_known.then(cached)
    }

    /// Something has changed on another node.
    pub fn apply(&self, topic: &Topic, node: NodeId, fact: &Fact) {
        match (topic, fact) {
            (Topic::Channel(app, name), fact) => {
                if let Some(channel) = self.find(app, name.as_str()) {
                    channel.apply(node, fact, &self.outputs);
                    self.queue_count(&channel);
                }
            }
            (Topic::User(app, id), Fact::Online | Fact::Offline) => {
                let is_online = *fact == Fact::Online;
                if let Some(app) = self.states.find(app) {
                    app.users.apply(id, node, is_online);
                }
            }
            (Topic::User(..), _) => {}
        }
    }

    /// A node is gone, and all that was so there is not any more. Returns what it
    /// was known to have had a part in.
    pub fn forget_node(&self, node: NodeId) -> Vec<Topic> {
        let mut topics = Vec::new();
        for app in self.states.all().iter() {
            for shard in &app.shards {
                let channels: Vec<Arc<Channel>> = shard.lock().values().cloned().collect();
                for channel in channels {
                    if channel.remove_node(node, &self.outputs) {
                        self.queue_count(&channel);
                        topics.push(channel.topic());
                    }
                }
            }
            let users = app.users.remove_node(node).into_iter();
            topics.extend(users.map(|id| Topic::User(app.app.clone(), id)));
        }
        topics
    }

    /// Sends this node's subscribers what was published on another. False if that was
    /// given up because the workers are far behind.
    pub fn deliver(&self, event: Event) -> bool {
        let mut inboxes = self.outputs.inboxes.iter();
        if inboxes.any(|inbox| inbox.is_swamped()) {
            return false;
        }
        let Event {
            app,
            channel: name,
            except,
            frame,
            is_kept,
        } = event;
        let Some(state) = self.states.find(&app) else {
            return true;
        };
        let shard = state.shard(name.as_str()).lock();
        if let Some(channel) = shard.get(&name) {
            if is_kept {
                channel.mark_last_event();
            }
            channel.broadcast(&frame, Recipients::from(except), &self.outputs, |_| ());
        }
        if is_kept {
            let limits = app.settings().cache;
            let mut cache = state.cache.lock();
            cache.put(&name, frame, Instant::now(), limits);
        }
        true
    }

    /// Keeps an event of this node's cache channel again: it was the last one that
    /// all nodes got, whatever was kept here in the meantime.
    pub fn keep(&self, event: Event) {
        let Some(state) = self.states.find(&event.app) else {
            return;
        };
        let limits = event.app.settings().cache;
        let _shard = state.shard(event.channel.as_str()).lock();
        let mut cache = state.cache.lock();
        cache.put(&event.channel, event.frame, Instant::now(), limits);
    }

    /// Redis has decided that a channel is occupied on any node, or on none.
    pub fn emit_occupancy(&self, topic: &Topic, is_occupied: bool) {
        if let Topic::Channel(app, channel) = topic {
            self.outputs.sinks.emit(app, || match is_occupied {
                true => HubEventKind::ClusterChannelOccupied { channel },
                false => HubEventKind::ClusterChannelVacated { channel },
            });
        }
    }

    /// Closes this node's connections of a user.
    pub fn terminate_here(&self, app: &AppHandle, user: &str, reconnect: Option<bool>) -> usize {
        let reason = match reconnect.unwrap_or(app.settings().terminate_to_reconnect) {
            true => CloseReason::TerminatedToReconnect,
            false => CloseReason::Terminated,
        };
        let state = self.states.find(app);
        state.map_or(0, |state| state.users.terminate(user, reason))
    }

    /// From now on the slot counts for the quota of all nodes, which are notified when it
    /// is released.
    pub fn count_everywhere(&self, slot: &mut Slot) {
        slot.counted = Some(Arc::clone(&self.outputs));
    }
}

/// Keeps the last event of other nodes, unless a later one is known here. Returns the
/// one that is if they have lost it.
fn reconcile_last(app: &AppState, channel: &Channel, last: Last, limits: CacheLimits) -> Last {
    let (name, now) = (channel.name(), Instant::now());
    let knows_last_event = channel.knows_last_event();
    let mut cache = app.cache.lock();
    match (last, knows_last_event) {
        (_, (false, true)) => None,
        (Some((frame, left)), _) => {
            cache.put_until(name, frame, now + left, limits);
            None
        }
        // What was kept here while nobody had subscribed need not be the last one.
        (None, (false, false)) => {
            cache.remove(name);
            None
        }
        (None, (true, _)) => cache.get(name, now),
    }
}

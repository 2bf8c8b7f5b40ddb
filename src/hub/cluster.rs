//! What comes in from other nodes, and what goes out to them all at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cluster_queue::{ClusterQueue, ClusterUpdate, Event, Fact, NodeId, Topic};
use super::outputs::Recipients;
use super::remote::RemoteState;
use super::{Channel, Hub, Slot, lock};
use crate::app::App;
use crate::protocol::{ChannelName, Frame};

impl Hub {
    /// Where other nodes are told; `None` if there are none.
    pub fn cluster_queue(&self) -> Option<&Arc<ClusterQueue>> {
        self.outputs.cluster_queue.as_ref()
    }

    /// Topics that this node has to listen to: channels with a subscriber, and users who
    /// are signed in or watched. Cheap: no channel is looked at.
    ///
    /// While [`ClusterQueue::has_told_topics`] is true afterwards, every one of them has been
    /// taken from the relay, since both change under the same locks.
    pub fn wanted_topics(&self) -> usize {
        let channels = |shards: &[super::Shard]| -> usize {
            let counts = shards.iter().map(|shard| lock(shard).len());
            counts.sum()
        };
        let of_app = |app: &super::AppState| channels(&app.shards) + app.users.wanted();
        self.apps.iter().map(of_app).sum()
    }

    /// Tells other nodes all that is so here, and asks how things stand there. Ends
    /// with [`ClusterUpdate::AllTold`]. False, without telling anything, if there is no link.
    pub fn tell_all(&self) -> bool {
        if !self.outputs.is_linked() {
            return false;
        }
        for app in &self.apps {
            for shard in &app.shards {
                // The shard stays locked, so that a channel that ends is told after.
                let shard = lock(shard);
                for channel in shard.values() {
                    channel.listen(false, &self.outputs);
                }
            }
            app.users.tell_all();
        }
        self.outputs.tell(|| ClusterUpdate::AllTold);
        true
    }

    /// There is no link to other nodes: nobody waits for them, and what is published
    /// is kept for them.
    pub fn go_alone(&self) {
        if let Some(cluster_queue) = &self.outputs.cluster_queue {
            cluster_queue.go_down();
        }
        for (index, app) in self.apps.iter().enumerate() {
            for shard in &app.shards {
                let shard = lock(shard);
                for channel in shard.values() {
                    let last_event = self.last_event(index, channel.name());
                    channel.go_alone(last_event.as_ref(), &self.outputs);
                }
            }
            app.users.go_alone();
        }
    }

    /// It is known how things stand with a topic on other nodes. `life` is that of the
    /// [`ClusterUpdate::Listen`]; `last` is, for a cache channel, its last event, if it has one.
    /// Returns the last event that is known here if the others have lost it.
    pub fn arrive(
        &self,
        topic: &Topic,
        generation: u64,
        remote_state: &RemoteState,
        last: Option<Option<(Frame, Duration)>>,
    ) -> Option<(Frame, Duration)> {
        let (app, name) = match topic {
            Topic::Channel(app, name) => (*app, name),
            Topic::User(app, id) => {
                let is_online = |facts: &[Fact]| facts.contains(&Fact::Online);
                let nodes: Vec<NodeId> = remote_state
                    .nodes
                    .iter()
                    .filter(|facts| is_online(&facts.facts))
                    .map(|facts| facts.node)
                    .collect();
                self.apps[*app]
                    .users
                    .replace(id, &nodes, &remote_state.spared);
                return None;
            }
        };
        let shard = lock(self.shard(app, name.as_str()));
        let channel = shard
            .get(name)
            .filter(|channel| channel.id() == generation)?;
        let mut lost = None;
        if let Some(last) = last {
            let mut cache = lock(&self.apps[app].cache);
            match (last, channel.waits_for_last()) {
                (_, (true, true)) => {}
                (Some((frame, left)), _) => cache.put_until(name, frame, Instant::now() + left),
                // What was kept here while nobody listened need not be the last one.
                (None, (true, false)) => cache.remove(name),
                (None, (false, _)) => lost = cache.get(name, Instant::now()),
            }
        }
        channel.replace(remote_state, &self.outputs);
        channel.welcome(self.last_event(app, name).as_ref(), &self.outputs);
        self.queue_count(channel);
        lost
    }

    /// Asks again how things stand with a topic, and tells again how they do here.
    pub fn tell_again(&self, topic: &Topic) {
        match topic {
            Topic::Channel(app, name) => {
                let shard = lock(self.shard(*app, name.as_str()));
                if let Some(channel) = shard.get(name) {
                    channel.listen(false, &self.outputs);
                }
            }
            Topic::User(app, id) => self.apps[*app].users.tell_again(id),
        }
    }

    /// The last event of a cache channel that this node hears; `None` if it hears none.
    pub fn last_known(&self, app: &App, name: &ChannelName) -> Option<Option<(Frame, Duration)>> {
        let shard = lock(self.shard(app.index, name.as_str()));
        let is_known = match shard.get(name) {
            Some(channel) => {
                let (waits, has_last) = channel.waits_for_last();
                !waits || has_last
            }
            None => !self.outputs.is_linked(),
        };
        is_known.then(|| lock(&self.apps[app.index].cache).get(name, Instant::now()))
    }

    /// What this node has told of a topic, others can know now.
    pub fn confirm(&self, topic: &Topic, fact: &Fact) {
        match (topic, fact) {
            (Topic::Channel(app, name), fact) => {
                let shard = lock(self.shard(*app, name.as_str()));
                let Some(channel) = shard.get(name) else {
                    return;
                };
                match fact {
                    Fact::Member(member) => {
                        let last_event = self.last_event(*app, name);
                        channel.confirm(&member.id, last_event.as_ref(), &self.outputs);
                    }
                    Fact::Left(user) => channel.confirm_leave(user, &self.outputs),
                    Fact::Subscribers(_) | Fact::Online | Fact::Offline => {}
                }
            }
            (Topic::User(app, id), Fact::Online) => self.apps[*app].users.confirm(id),
            (Topic::User(app, id), Fact::Offline) => self.apps[*app].users.confirm_leave(id),
            (Topic::User(..), _) => {}
        }
    }

    /// Something has changed on another node.
    pub fn apply(&self, topic: &Topic, node: NodeId, fact: &Fact) {
        match (topic, fact) {
            (Topic::Channel(app, name), fact) => {
                if let Some(channel) = self.channel(*app, name) {
                    channel.apply(node, fact, &self.outputs);
                    self.queue_count(&channel);
                }
            }
            (Topic::User(app, id), Fact::Online | Fact::Offline) => {
                let is_online = *fact == Fact::Online;
                self.apps[*app].users.apply(id, node, is_online);
            }
            (Topic::User(..), _) => {}
        }
    }

    /// A node is gone, and all that was so there is not any more. Returns what it
    /// was known to have had a part in.
    pub fn forget_node(&self, node: NodeId) -> Vec<Topic> {
        let mut topics = Vec::new();
        for (index, app) in self.apps.iter().enumerate() {
            for shard in &app.shards {
                let channels: Vec<Arc<Channel>> = lock(shard).values().cloned().collect();
                for channel in channels {
                    if channel.forget(node, &self.outputs) {
                        self.queue_count(&channel);
                        topics.push(channel.topic());
                    }
                }
            }
            let users = app.users.forget(node).into_iter();
            topics.extend(users.map(|id| Topic::User(index, id)));
        }
        topics
    }

    /// Sends this node's subscribers what was published on another. False if that was
    /// given up because the workers are far behind.
    pub fn deliver(&self, event: Event) -> bool {
        if self.outputs.inboxes.iter().any(|inbox| inbox.is_swamped()) {
            return false;
        }
        let Event {
            app,
            channel: name,
            except,
            frame,
            is_kept,
        } = event;
        let shard = lock(self.shard(app, name.as_str()));
        if let Some(channel) = shard.get(&name) {
            if is_kept {
                channel.note_last_event();
            }
            channel.broadcast(&frame, Recipients::from(except), &self.outputs);
        }
        if is_kept {
            lock(&self.apps[app].cache).put(&name, frame, Instant::now());
        }
        true
    }

    /// Keeps an event of this node's cache channel again: it was the last one that
    /// all nodes got, whatever was kept here in the meantime.
    pub fn keep(&self, event: Event) {
        let _shard = lock(self.shard(event.app, event.channel.as_str()));
        lock(&self.apps[event.app].cache).put(&event.channel, event.frame, Instant::now());
    }

    /// Closes this node's connections of a user.
    pub fn terminate_here(&self, app: usize, user: &str) -> usize {
        self.apps[app].users.terminate(user)
    }

    /// From now on the slot counts for the quota of all nodes, which are told when it
    /// is given back.
    pub fn count_everywhere(&self, app: usize, slot: &mut Slot) {
        slot.counted = Some((app, Arc::clone(&self.outputs)));
    }

    fn channel(&self, app: usize, name: &ChannelName) -> Option<Arc<Channel>> {
        lock(self.shard(app, name.as_str())).get(name).cloned()
    }
}

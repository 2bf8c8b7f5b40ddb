//! What a session sends: topics as they are now, and events.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use redis::Value;

use super::keys;
use super::pipeline::{Expect, Indexed, Outgoing};
use super::scripts::{CacheUse, Scripts};
use super::session::Session;
use super::snapshot;
use crate::apps::AppHandle;
use crate::cluster::codec::{EventHead, MAX_MESSAGE, Message, Termination, Unsubscription, event};
use crate::cluster::view::View;
use crate::hub::{ClusterUpdate, Event, Fact, LocalState, NodeId, Topic, cache_cost};
use crate::lifecycle::State;
use crate::protocol::{ChannelName, message};
use crate::telemetry::limit::limited;

/// Facts expire after an hour; they are refreshed well before.
const REFRESH: Duration = Duration::from_secs(1200);

/// Heartbeats come at least so often.
const MAX_BEAT: Duration = Duration::from_secs(3);

/// How long a node may take to enter again what Redis has lost, before it is asked to.
const UNVERIFIED: Duration = Duration::from_secs(5);

/// Topics that are refreshed with one heartbeat.
const MAX_REFRESHED: usize = 1000;

/// Facts that are taken out one by one when a topic ends: of more, other nodes read the
/// rest once.
const MAX_ENDED: usize = 16;

impl Session<'_> {
    pub(super) fn send_update(&mut self, since: Instant, update: ClusterUpdate) {
        match update {
            ClusterUpdate::Event(event) => self.publish(since, event),
            ClusterUpdate::Terminate {
                app,
                user,
                reconnect,
            } => {
                let app = app.id().to_owned();
                let (node, who) = (self.state.node, Termination { app, user });
                if let Some(reconnect) = reconnect {
                    self.send_to_all(since, &Message::TerminateAs(node, reconnect, who.clone()));
                }
                self.send_to_all(since, &Message::Terminate(node, who));
            }
            ClusterUpdate::Unsubscribe { app, channel, who } => {
                let what = Unsubscription {
                    app: app.id().to_owned(),
                    channel: channel.as_str().to_owned(),
                    who: who.into(),
                };
                self.send_to_all(since, &Message::Unsubscribe(self.state.node, what));
            }
        }
    }

    fn send_to_all(&mut self, since: Instant, message: &Message<'_>) {
        let text = message.encode();
        let all = self.state.keys.all();
        let command = self.publication(&all, &text);
        let outgoing = Outgoing {
            since,
            command: Arc::new(command),
            slot: keys::slot(&all),
            index: None,
            bytes: text.len(),
        };
        self.send_event(outgoing);
    }

    /// Connections have ended that counted for an application's quota.
    pub(super) fn release_connections(&mut self, app: &AppHandle, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        if !app.is_removed() {
            if let Some(admitted) = self.admitted.get_mut(app) {
                *admitted -= count;
            }
        } else if let Some(successor) = self.state.apps.by_id(app.id()) {
            // It counts under the same name: with the next heartbeat, Redis gets the new count.
            self.admitted.remove(&successor);
        }
        let key = self.state.keys.connections(app);
        let mut command = redis::cmd("HINCRBY");
        command.arg(&key).arg(self.state.node.to_string());
        command.arg(-count);
        self.add(&key, command, Expect::Anything);
    }

    /// Whether a connection may be let in has been answered.
    pub(super) fn end_admission(&mut self, app: &AppHandle, is_in: bool) {
        if let Some(admitting) = self.admitting.get_mut(app) {
            *admitting -= 1;
            if *admitting == 0 {
                self.admitting.remove(app);
            }
        }
        if let Some(admitted) = self.admitted.get_mut(app) {
            *admitted += i64::from(is_in);
        }
    }

    fn publish(&mut self, since: Instant, event_: Event) {
        let Event {
            app,
            channel,
            except,
            frame,
            is_kept,
        } = event_;
        let topic = Topic::Channel(app, channel);
        let bus = self.state.keys.bus(&topic);
        let text = message::text(&frame);
        let (run, number) = self.state.sequences.next(&bus);
        let head = EventHead {
            node: self.state.node,
            run,
            number,
            except,
            is_kept,
        };
        if text.len() + 200 > MAX_MESSAGE {
            let what = "an event is too long for other nodes";
            limited!(warn, what, None, { bytes = text.len(), }, what);
            self.state.queue.count_dropped(1);
            return;
        }
        let (command, index) = match is_kept.then(|| self.index(&topic, text.len())).flatten() {
            Some((index, kept)) => {
                let keys = self.state.keys.of(&topic);
                let is_kept = kept.bytes <= kept.max_bytes;
                let ttl_ms = if is_kept { kept.ttl_ms } else { 0 };
                let scripts = &self.state.scripts;
                let command = scripts.keep(&keys, &event(&head, ""), text, ttl_ms);
                (command, Some(index))
            }
            None => (self.publication(&bus, &event(&head, text)), None),
        };
        let outgoing = Outgoing {
            since,
            command: Arc::new(command),
            slot: keys::slot(&bus),
            index,
            bytes: text.len(),
        };
        self.send_event(outgoing);
    }

    /// Enters the last event of a cache channel, of so many bytes, among those of its
    /// application.
    pub(super) fn index(&self, topic: &Topic, bytes: usize) -> Option<(Indexed, CacheUse)> {
        let Topic::Channel(app, channel) = topic else {
            return None;
        };
        let limits = app.settings().cache;
        let kept = CacheUse {
            bytes: cache_cost(channel, bytes),
            max_bytes: limits.max_bytes,
            ttl_ms: u64::try_from(limits.ttl.as_millis()).unwrap_or(u64::MAX),
        };
        let keys = self.state.keys.cache(app);
        let command = self.state.scripts.index(&keys, channel.as_str(), kept);
        let index = Indexed {
            app: app.clone(),
            command: Arc::new(command),
            slot: keys::slot(&keys.index),
        };
        Some((index, kept))
    }

    /// Takes out last events for which there is no room.
    pub(super) fn evict(&mut self, app: &AppHandle, channels: &Value) {
        let Value::Array(channels) = channels else {
            return;
        };
        for pair in channels.chunks_exact(2) {
            let (Some(name), Some(expires)) = (snapshot::text(&pair[0]), snapshot::text(&pair[1]))
            else {
                continue;
            };
            if let Ok(name) = ChannelName::parse(name, name.len()) {
                let keys = self.state.keys.of(&Topic::Channel(app.clone(), name));
                let command = self.state.scripts.evict(&keys, expires);
                self.add(&keys.last, command, Expect::Anything);
            }
        }
    }

    /// Sends how a topic is here now, as far as it differs from what was sent.
    pub(super) fn sync(&mut self, topic: Topic) {
        let bus: Arc<str> = self.state.keys.bus(&topic).into();
        if self.in_batch.contains(&bus) {
            self.again.push_back(topic);
            return;
        }
        // An application that was removed and has come again has the same names.
        let is_other = |view: &&View| view.topic != topic;
        if let Some(other) = self.state.views.get(&bus).filter(is_other) {
            if topic.app().is_removed() {
                return;
            }
            let other = other.topic.clone();
            self.again.push_back(topic);
            return self.leave(&bus, other);
        }
        let known = self.state.views.get(&bus).and_then(View::known_generation);
        match self.state.hub.local_state(&topic, known) {
            None => self.leave(&bus, topic),
            Some(local) if local.is_complete => self.enter(&bus, topic, &local),
            Some(local) => self.send_changes(&bus, local),
        }
    }

    /// The same, unless this batch has it: then it was read after it was asked for.
    pub(super) fn sync_unless_done(&mut self, topic: Topic) {
        let bus = self.state.keys.bus(&topic);
        let is_same = |view: &View| view.topic == topic;
        let is_done =
            self.in_batch.contains(&*bus) && self.state.views.get(&*bus).is_some_and(is_same);
        if !is_done {
            self.sync(topic);
        }
    }

    /// Subscribes to a topic's Redis channel, enters all its facts, and reads those of the
    /// other nodes.
    fn enter(&mut self, bus: &Arc<str>, topic: Topic, local: &LocalState) {
        self.in_batch.insert(Arc::clone(bus));
        self.state.left.remove(bus);
        let keys = self.state.keys.of(&topic);
        let (has_facts, has_last) = self.kept_of(&topic);
        let views = &mut self.state.views;
        let view = views
            .entry(Arc::clone(bus))
            .or_insert_with(|| View::new(topic, has_facts, has_last, Instant::now()));
        // What it had before has to be taken out in the end, whatever is set meanwhile.
        view.has_facts |= has_facts;
        let has_facts = view.has_facts;
        view.enter(local);
        if !std::mem::replace(&mut view.is_subscribed, true) {
            self.state.status.listening.fetch_add(1, Ordering::Relaxed);
            let command = self.subscription("SUBSCRIBE", bus);
            self.add(bus, command, Expect::Confirmed);
        }
        // Before the facts: what is in no set, nobody would take out if this node died.
        self.track(bus);
        if has_facts {
            let (epoch, node) = (epoch(), self.state.node);
            let scripts = &self.state.scripts;
            let command = scripts.enter(&keys, node, &epoch, &local.facts);
            self.add(bus, command, Expect::Facts(Arc::clone(bus)));
        }
        if has_last {
            let command = self.state.scripts.last(&keys);
            self.add(bus, command, Expect::Last(Arc::clone(bus)));
        }
        self.expect_synced(bus);
    }

    /// What nodes have in common of a topic: facts, and its last event.
    fn kept_of(&self, topic: &Topic) -> (bool, bool) {
        match topic {
            Topic::Channel(app, name) => {
                let kind = name.kind();
                let counts = app.settings().subscription_count;
                let is_tracked = self.state.info.track_occupancy;
                (kind.is_presence() || counts || is_tracked, kind.is_cache())
            }
            Topic::User(..) => (true, false),
        }
    }

    /// Sends what has changed of a topic since it was entered.
    fn send_changes(&mut self, bus: &Arc<str>, local: LocalState) {
        let Some(view) = self.state.views.get_mut(bus) else {
            return;
        };
        let facts = view.send(local);
        if facts.is_empty() || !view.has_facts {
            let (generation, version) = view.sent_version;
            self.state.hub.confirm(&view.topic, generation, version);
            return;
        }
        let keys = self.state.keys.of(&view.topic);
        self.in_batch.insert(Arc::clone(bus));
        self.change(bus, &keys, &facts);
        self.expect_synced(bus);
    }

    fn change(&mut self, bus: &Arc<str>, keys: &keys::TopicKeys, facts: &[Fact]) {
        let epoch = epoch();
        for fact in facts {
            let scripts = &self.state.scripts;
            let command = scripts.change(keys, self.state.node, &epoch, fact);
            self.add(bus, command, Expect::Changed(Arc::clone(bus)));
        }
    }

    /// Has a topic confirmed once everything before is answered.
    fn expect_synced(&mut self, bus: &Arc<str>) {
        self.batch
            .then(&self.shards, bus, Expect::Synced(Arc::clone(bus)));
    }

    /// Takes this node out of a topic that does not concern it any more.
    fn leave(&mut self, bus: &Arc<str>, topic: Topic) {
        self.restore(bus);
        let view = self.state.views.remove(bus);
        if let Some(view) = &view
            && view.is_subscribed
        {
            self.state.status.listening.fetch_sub(1, Ordering::Relaxed);
            let command = self.subscription("UNSUBSCRIBE", bus);
            self.add(bus, command, Expect::Confirmed);
            *self.ending.entry((&**bus).into()).or_default() += 1;
        }
        let has_facts = view.as_ref().is_some_and(|view| view.has_facts);
        if !has_facts && !self.state.left.contains_key(bus) {
            return;
        }
        self.in_batch.insert(Arc::clone(bus));
        let keys = self.state.keys.of(&topic);
        if let Some(facts) = view.and_then(|view| view.sent.end(MAX_ENDED)) {
            self.change(bus, &keys, &facts);
        }
        self.state.left.insert(Arc::clone(bus), topic);
        let command = self.state.scripts.leave(&keys, self.state.node);
        self.add(bus, command, Expect::Left(Arc::clone(bus)));
        self.untrack(bus);
    }

    /// Has all topics entered and read again. If that is under way, other nodes may have
    /// lost what they were sent, and it is done once more after that.
    ///
    /// Before the link is up it does nothing: it is done anyhow when it is.
    pub(super) fn resync_all(&mut self) {
        if self.is_resyncing {
            self.must_resync_again = true;
        } else if self.state.queue.is_up() {
            self.restart_resync();
        }
    }

    pub(super) fn restart_resync(&mut self) {
        let mut topics = self.state.hub.topics();
        let mut buses = HashSet::with_capacity(topics.len());
        buses.extend(topics.iter().map(|topic| self.state.keys.bus(topic)));
        for (bus, view) in &mut self.state.views {
            view.must_enter = true;
            if !buses.contains(&**bus) {
                topics.push(view.topic.clone());
            }
        }
        let left = self.state.left.iter();
        let left = left.filter(|(bus, _)| !buses.contains(&***bus));
        topics.extend(left.map(|(_, topic)| topic.clone()));
        self.resync = topics.into();
        self.is_resyncing = true;
    }

    /// All topics have been entered: other nodes know that there is no more to come.
    pub(super) fn finish_resync(&mut self) {
        self.is_resyncing = false;
        if !std::mem::replace(&mut self.is_linked, true) {
            tracing::info!(
                node = %self.state.node,
                nodes = self.state.nodes.len() + 1,
                "linked to other nodes through Redis at {}",
                self.state.settings.redis
            );
        }
        self.count_connections();
        let listens = self.state.keys.listens(self.state.node);
        let command = self.subscription("SUBSCRIBE", &listens);
        self.add(&listens, command, Expect::Confirmed);
        self.publish_to_all(&Message::AllTold(self.state.node));
        for node in std::mem::take(&mut self.state.unreaped) {
            self.reap_channels(node);
        }
        if std::mem::take(&mut self.must_resync_again) {
            self.restart_resync();
        }
    }

    /// Tries again what was degraded.
    pub(super) fn retry_degraded(&mut self) {
        for view in self.state.views.values_mut() {
            if view.is_degraded {
                view.must_enter = true;
                self.again.push_back(view.topic.clone());
            }
        }
    }

    /// Corrects how many connections Redis counts for this node.
    pub(super) fn count_connections(&mut self) {
        self.admitted.retain(|app, _| !app.is_removed());
        for app in self.limited_apps() {
            let here = i64::try_from(app.connections()).unwrap_or(i64::MAX);
            if self.admitting.contains_key(&app) || self.admitted.get(&app) == Some(&here) {
                continue;
            }
            let key = self.state.keys.connections(&app);
            self.admitted.insert(app, here);
            let mut command = redis::cmd("HSET");
            command.arg(&key).arg(self.state.node.to_string()).arg(here);
            self.add(&key, command, Expect::Anything);
            self.add(&key, Scripts::refresh(&key), Expect::Anything);
        }
    }

    /// Applications that may have so many connections on all nodes together.
    fn limited_apps(&self) -> Vec<AppHandle> {
        let all = self.state.apps.all();
        let is_limited = |app: &&AppHandle| app.settings().max_connections.is_some();
        all.iter().filter(is_limited).cloned().collect()
    }

    /// Keeps facts that nobody changes from expiring.
    pub(super) fn refresh(&mut self, now: Instant) {
        let due: Vec<Topic> = self
            .state
            .views
            .values_mut()
            .filter(|view| view.has_facts && now.duration_since(view.refreshed) > REFRESH)
            .take(MAX_REFRESHED)
            .map(|view| {
                view.refreshed = now;
                view.topic.clone()
            })
            .collect();
        for topic in due {
            let keys = self.state.keys.of(&topic);
            self.add(&keys.bus, Scripts::refresh(&keys.facts), Expect::Anything);
        }
        self.refresh_occupied();
        for app in self.limited_apps() {
            let key = self.state.keys.connections(&app);
            self.add(&key, Scripts::refresh(&key), Expect::Anything);
        }
    }

    /// Asks nodes for their facts whose word that they had entered all came before this node
    /// knew that Redis had lost some.
    pub(super) fn ask_unverified(&mut self, now: Instant) {
        let views = self.state.views.values_mut();
        let unverified = views.flat_map(|view| view.take_unverified(now, UNVERIFIED));
        let unverified: HashSet<NodeId> = unverified.collect();
        for node in unverified {
            self.ask_to_resync(node);
        }
    }

    pub(super) fn heartbeat(&mut self) {
        let timeout = self.state.settings.node_timeout;
        let now = Instant::now();
        self.beat = now + (timeout / 5).min(MAX_BEAT);
        for server in 0..self.shards.servers.len() {
            // So that a server which hangs is noticed, whatever is asked of it.
            let ping = Arc::new(redis::cmd("PING"));
            self.batch.add_to(server, ping, Expect::Anything);
        }
        let key = self.state.keys.nodes();
        let forget_ms = u64::try_from(timeout.as_millis() * 4).unwrap_or(u64::MAX);
        let infos = self.state.keys.infos();
        self.state.info.draining = self.state.server.state() != State::Running;
        let info = serde_json::to_string(&self.state.info).expect("it is plain data");
        let (scripts, node) = (&self.state.scripts, self.state.node);
        let command = scripts.heartbeat([&key, &infos], node, forget_ms, &info);
        self.add(&key, command, Expect::Heartbeat(now));
    }
}

/// A random text for facts that Redis has none of yet.
fn epoch() -> String {
    let mut random = [0; 8];
    // Without random numbers, a loss of facts may go unnoticed until the next change.
    let _ = getrandom::fill(&mut random);
    hex::encode(random)
}

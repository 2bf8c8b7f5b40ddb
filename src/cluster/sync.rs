//! What a session tells: the hub's notes as commands.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::codec::{EventHead, MAX_MESSAGE, Message, Termination, event};
use super::keys;
use super::pipeline::{Expect, Outgoing, Part};
use super::scripts::Scripts;
use super::session::Session;
use super::topics::{Entry, Topics};
use crate::hub::{ClusterUpdate, Event, Fact, Topic};
use crate::protocol::message;
use crate::telemetry::limit::limited;

/// Facts expire after an hour; they are refreshed well before.
const REFRESH: Duration = Duration::from_secs(1200);

/// Heartbeats come at least so often.
const MAX_BETWEEN_BEATS: Duration = Duration::from_secs(3);

/// Topics that are refreshed with one heartbeat.
const MAX_REFRESHED: usize = 1000;

impl Session<'_> {
    pub(super) fn apply_update(&mut self, since: Instant, note: ClusterUpdate) {
        match note {
            ClusterUpdate::Event(event) => self.publish(since, event),
            ClusterUpdate::Listen {
                topic,
                generation,
                facts,
            } => self.listen(topic, generation, &facts),
            ClusterUpdate::Unlisten(topic) => self.unlisten(&topic),
            ClusterUpdate::Change(topic, fact) => self.change(&topic, fact),
            ClusterUpdate::AllTold => self.all_told(),
            ClusterUpdate::Terminate { app, user } => {
                let app = self.app_id(app);
                let who = Termination { app, user };
                let text = Message::Terminate(self.supervisor.node, who).encode();
                let all = self.supervisor.names.all();
                let command = self.publication(&all, &text);
                let outgoing = Outgoing {
                    since,
                    command: Arc::new(command),
                    slot: keys::slot(&all),
                    bytes: text.len(),
                };
                self.send_event(outgoing);
            }
            ClusterUpdate::Released(app) => {
                self.admitted[app] -= 1;
                let key = self.supervisor.names.connections(app);
                let mut command = redis::cmd("HINCRBY");
                command
                    .arg(&key)
                    .arg(self.supervisor.node.to_string())
                    .arg(-1);
                self.add(&key, command, Expect::Anything);
            }
        }
    }

    fn app_id(&self, index: usize) -> String {
        let app = self.supervisor.apps.at(index);
        app.map(|app| app.id.clone()).unwrap_or_default()
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
        let bus = self.supervisor.names.bus(&topic);
        let text = message::text(&frame);
        let (run, number) = self.supervisor.counting.next(&bus);
        let head = EventHead {
            node: self.supervisor.node,
            run,
            number,
            except,
            is_kept,
        };
        if text.len() + 200 > MAX_MESSAGE {
            let what = "an event is too long for other nodes";
            limited!(warn, what, None, { bytes = text.len(), }, what);
            self.supervisor.queue.count_dropped(1);
            return;
        }
        let command = if is_kept {
            let app = self.supervisor.apps.at(app);
            let ttl = app.map_or(Duration::ZERO, |app| app.cache.ttl);
            let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
            let names = self.supervisor.names.of(&topic);
            let scripts = &self.supervisor.scripts;
            scripts.keep(&names, &event(&head, ""), text, ttl_ms)
        } else {
            self.publication(&bus, &event(&head, text))
        };
        let outgoing = Outgoing {
            since,
            command: Arc::new(command),
            slot: keys::slot(&bus),
            bytes: text.len(),
        };
        self.send_event(outgoing);
    }

    fn listen(&mut self, topic: Topic, generation: u64, facts: &[Fact]) {
        let (has_facts, has_last) = match &topic {
            Topic::Channel(app, name) => {
                let app = self.supervisor.apps.at(*app);
                let kind = name.kind();
                let counts = app.is_some_and(|app| app.subscription_count);
                (kind.is_presence() || counts, kind.is_cache())
            }
            Topic::User(..) => (true, false),
        };
        let names = self.supervisor.names.of(&topic);
        let bus: Arc<str> = names.bus.as_str().into();
        self.supervisor.entry_generation += 1;
        let entry_generation = self.supervisor.entry_generation;
        let topics = &mut self.supervisor.topics;
        let entry = topics
            .entry(Arc::clone(&bus))
            .or_insert_with(|| Entry::new(topic, entry_generation, has_facts, has_last));
        let entry_generation = entry.entry_generation;
        let part = |is_last| Part {
            bus: Arc::clone(&bus),
            entry_generation,
            is_last,
        };
        entry.generation = generation;
        entry.is_stale = false;
        self.supervisor.left.remove(&bus);
        let must_subscribe = !std::mem::replace(&mut entry.is_subscribed, true);
        if must_subscribe {
            self.supervisor
                .status
                .listening
                .fetch_add(1, Ordering::Relaxed);
            let command = self.subscription("SUBSCRIBE", &names.bus);
            let expect = Expect::Subscribed(part(!has_facts && !has_last));
            self.add(&names.bus, command, expect);
        }
        if !must_subscribe && !has_facts && !has_last {
            return;
        }
        if let Some(entry) = self.supervisor.topics.get_mut(&bus) {
            entry.ask();
        }
        if has_facts {
            let epoch = epoch();
            let scripts = &self.supervisor.scripts;
            let command = scripts.enter(&names, self.supervisor.node, &epoch, facts);
            self.add(&bus, command, Expect::Facts(part(!has_last)));
        }
        if has_last {
            let command = self.supervisor.scripts.last(&names);
            self.add(&names.bus, command, Expect::Last(part(true)));
        }
    }

    fn unlisten(&mut self, topic: &Topic) {
        let bus = self.supervisor.names.bus(topic);
        let Some(entry) = self.supervisor.topics.remove(&*bus) else {
            return;
        };
        self.unsubscribe(&bus, &entry);
        if entry.has_facts {
            // Its facts have been taken back one by one; this is the mark.
            let names = self.supervisor.names.of(topic);
            let mut command = redis::cmd("HDEL");
            command
                .arg(&names.facts)
                .arg(self.supervisor.node.to_string());
            let bus: Arc<str> = bus.into();
            self.supervisor.left.insert(Arc::clone(&bus), topic.clone());
            self.add(&names.bus, command, Expect::Left(bus));
        }
    }

    /// Listens to the Redis channel of an entry no more, if it did.
    fn unsubscribe(&mut self, bus: &str, entry: &Entry) {
        if entry.is_subscribed {
            self.supervisor
                .status
                .listening
                .fetch_sub(1, Ordering::Relaxed);
            let command = self.subscription("UNSUBSCRIBE", bus);
            self.add(bus, command, Expect::Confirmed);
            *self.ending.entry(bus.into()).or_default() += 1;
        }
    }

    fn change(&mut self, topic: &Topic, fact: Fact) {
        let names = self.supervisor.names.of(topic);
        let bus: Arc<str> = names.bus.as_str().into();
        let is_known = self
            .supervisor
            .topics
            .get(&bus)
            .is_some_and(|e| e.has_facts);
        if is_known {
            let epoch = epoch();
            let scripts = &self.supervisor.scripts;
            let command = scripts.change(&names, self.supervisor.node, &epoch, &fact);
            self.add(&names.bus, command, Expect::Changed(bus, fact));
        } else {
            // It will be among the facts that are told when the topic is listened to.
            self.supervisor.hub.confirm(topic, &fact);
        }
    }

    /// All topics that this node needs have been told. What is left of others is taken
    /// out, and the other nodes know that there is no more to come.
    fn all_told(&mut self) {
        let topics = std::mem::take(&mut self.supervisor.topics);
        let (stale, needed): (Topics, Topics) =
            topics.into_iter().partition(|(_, entry)| entry.is_stale);
        self.supervisor.topics = needed;
        for (bus, entry) in &stale {
            self.unsubscribe(bus, entry);
        }
        let stale = stale.into_iter().filter(|(_, entry)| entry.has_facts);
        self.supervisor
            .left
            .extend(stale.map(|(bus, entry)| (bus, entry.topic)));
        let left = self.supervisor.left.iter();
        self.leaving = left
            .map(|(bus, topic)| (Arc::clone(bus), topic.clone()))
            .collect();
        if std::mem::take(&mut self.is_telling) && !std::mem::replace(&mut self.is_linked, true) {
            tracing::info!(
                node = %self.supervisor.node,
                nodes = self.supervisor.nodes.len() + 1,
                "linked to other nodes through Redis at {}",
                self.supervisor.settings.redis
            );
        }
        self.count_connections();
        let listens = self.supervisor.names.listens(self.supervisor.node);
        let command = self.subscription("SUBSCRIBE", &listens);
        self.add(&listens, command, Expect::Confirmed);
        self.tell_all_nodes(&Message::AllTold(self.supervisor.node));
        if std::mem::take(&mut self.tells_again) {
            self.tell_all();
        }
    }

    /// Takes out what is left of topics that are not needed any more, some at a time.
    pub(super) fn take_leave(&mut self, max: usize) {
        for _ in 0..max {
            let Some((bus, topic)) = self.leaving.pop_front() else {
                return;
            };
            // It may be needed again by now.
            if self.supervisor.left.contains_key(&bus) && !self.supervisor.topics.contains_key(&bus)
            {
                let names = self.supervisor.names.of(&topic);
                let command = self.supervisor.scripts.leave(&names, self.supervisor.node);
                self.add(&names.bus, command, Expect::Left(bus));
            }
        }
    }

    /// Tells other nodes all that is so here. If that is under way, they may have lost
    /// what they were told, and are told once more when it is done.
    ///
    /// Before the link is up it does nothing: everything is told anyhow when it is.
    pub(super) fn tell_all(&mut self) {
        if self.is_telling {
            self.tells_again = true;
        } else {
            self.is_telling = self.supervisor.hub.tell_all();
        }
    }

    /// Tells all, whatever was thought to be told; what is not told then is not listened
    /// to any more.
    pub(super) fn tell_all_anew(&mut self) {
        // Then the end of it is still to come, and what is told before it is needed.
        if self.is_telling && !self.supervisor.queue.has_told_topics() {
            return;
        }
        for entry in self.supervisor.topics.values_mut() {
            entry.is_stale = true;
        }
        self.is_telling = self.supervisor.hub.tell_all();
    }

    /// Corrects how many connections Redis thinks that this node has.
    pub(super) fn count_connections(&mut self) {
        let apps = self.supervisor.apps.clone();
        for app in apps.iter().filter(|app| app.max_connections.is_some()) {
            let here = i64::try_from(self.supervisor.hub.connections(app)).unwrap_or(i64::MAX);
            if self.admitting[app.index] > 0 || self.admitted[app.index] == here {
                continue;
            }
            self.admitted[app.index] = here;
            let key = self.supervisor.names.connections(app.index);
            let mut command = redis::cmd("HSET");
            command
                .arg(&key)
                .arg(self.supervisor.node.to_string())
                .arg(here);
            self.add(&key, command, Expect::Anything);
            self.add(&key, Scripts::refresh(&key), Expect::Anything);
        }
    }

    /// Keeps facts that nobody changes from expiring.
    pub(super) fn refresh(&mut self, now: Instant) {
        let due: Vec<Topic> = self
            .supervisor
            .topics
            .values_mut()
            .filter(|entry| entry.has_facts && now.duration_since(entry.refreshed) > REFRESH)
            .take(MAX_REFRESHED)
            .map(|entry| {
                entry.refreshed = now;
                entry.topic.clone()
            })
            .collect();
        for topic in due {
            let names = self.supervisor.names.of(&topic);
            self.add(&names.bus, Scripts::refresh(&names.facts), Expect::Anything);
        }
        let apps = self.supervisor.apps.clone();
        for app in apps.iter().filter(|app| app.max_connections.is_some()) {
            let key = self.supervisor.names.connections(app.index);
            self.add(&key, Scripts::refresh(&key), Expect::Anything);
        }
    }

    pub(super) fn heartbeat(&mut self) {
        let timeout = self.supervisor.settings.node_timeout;
        self.beat = Instant::now() + (timeout / 5).min(MAX_BETWEEN_BEATS);
        for server in 0..self.shards.servers.len() {
            // So that a server which hangs is noticed, whatever is asked of it.
            let ping = Arc::new(redis::cmd("PING"));
            self.batch.add_to(server, ping, Expect::Anything);
        }
        let key = self.supervisor.names.nodes();
        let forget_ms = u64::try_from(timeout.as_millis() * 4).unwrap_or(u64::MAX);
        let command = self
            .supervisor
            .scripts
            .heartbeat(&key, self.supervisor.node, forget_ms);
        self.add(&key, command, Expect::Heartbeat);
    }
}

/// A random text for facts that Redis has none of yet.
fn epoch() -> String {
    let mut random = [0; 8];
    // Without random numbers, a loss of facts may go unnoticed until the next change.
    let _ = getrandom::fill(&mut random);
    hex::encode(random)
}

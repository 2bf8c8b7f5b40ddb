//! What a session hears: answers of Redis and messages of other nodes.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use redis::Value;

use super::codec::{self, EventHead, Message, Question};
use super::pipeline::{Expect, Part};
use super::sequence::Dedup;
use super::session::{Broken, Session};
use super::snapshot::{self, Snapshot};
use super::status::add;
use super::survey;
use super::topics::{Action, Entry, Last};
use crate::hub::{ClusterUpdate, Event, NodeId, Topic};
use crate::protocol::message;
use crate::telemetry::limit::limited;

impl Session<'_> {
    pub(super) fn answered(&mut self, answer: Value, expect: Expect) -> Result<(), Broken> {
        match expect {
            Expect::Anything | Expect::Confirmed => {}
            Expect::Subscribed(part) => self.arrived(&part),
            Expect::Facts(part) => {
                let snapshot = Snapshot::read(&answer).ok_or("Redis gave no facts")?;
                add(&self.supervisor.status.ignored, snapshot.unreadable as u64);
                if let Some(entry) = self.asking(&part) {
                    entry.snapshot = Some(snapshot);
                }
                self.arrived(&part);
            }
            Expect::Last(part) => {
                let last = last_of(&answer);
                if let Some(entry) = self.asking(&part) {
                    entry.last = Some(last);
                }
                self.arrived(&part);
            }
            Expect::Changed(bus, fact) => {
                let Some(entry) = self.supervisor.topics.get_mut(&bus) else {
                    return Ok(());
                };
                self.supervisor.hub.confirm(&entry.topic, &fact);
                // The mark is gone: Redis has lost what this node entered.
                if answer == Value::Int(0) && entry.read_again() == Action::ReadAgain {
                    self.supervisor.hub.tell_again(&entry.topic);
                }
            }
            Expect::Left(bus) => _ = self.supervisor.left.remove(&bus),
            Expect::Listens(node) => self.listens(node, listeners(&answer) > 0),
            Expect::Heartbeat => self.beaten(&answer)?,
            Expect::Admitted(app, reply) => {
                let is_in = answer == Value::Int(1);
                self.admitting[app] -= 1;
                self.admitted[app] += i64::from(is_in);
                if reply.send(is_in).is_err() && is_in {
                    // Nobody waits any more: its place is given back.
                    self.apply_update(Instant::now(), ClusterUpdate::Released(app));
                }
            }
            Expect::Wanted(reply) => {
                // Whoever asked may have gone.
                let _ = reply.send(last_of(&answer));
            }
        }
        Ok(())
    }

    /// The entry that has asked for something, if it is still there.
    fn asking(&mut self, part: &Part) -> Option<&mut Entry> {
        let entry = self.supervisor.topics.get_mut(&part.bus);
        entry.filter(|entry| entry.entry_generation == part.entry_generation)
    }

    /// Part of what was asked about a topic has been answered; if it was the last one,
    /// it is known how things stand.
    fn arrived(&mut self, part: &Part) {
        let entry = self.supervisor.topics.get_mut(&part.bus);
        let is_it =
            |entry: &&mut Entry| part.is_last && entry.entry_generation == part.entry_generation;
        let Some(entry) = entry.filter(is_it) else {
            return;
        };
        entry.asked = entry.asked.saturating_sub(1);
        if entry.asked > 0 {
            return;
        }
        let (remote_state, actions, dead) =
            entry.stand(self.supervisor.node, &self.supervisor.nodes);
        let (topic, generation) = (entry.topic.clone(), entry.generation);
        let last = entry.last.take();
        let lost = self
            .supervisor
            .hub
            .arrive(&topic, generation, &remote_state, last);
        for action in actions {
            self.perform(&topic, action);
        }
        if let Some((frame, left)) = lost {
            self.keep_again(&topic, message::text(&frame), left);
        }
        for node in dead {
            let since = (Instant::now(), HashSet::new());
            let (_, topics) = self.supervisor.suspects.entry(node).or_insert(since);
            topics.insert(Arc::clone(&part.bus));
        }
    }

    /// Nodes that were not known to be alive when their facts were read: they are by
    /// now, or have been silent for so long that what they have left is taken out.
    fn judge_suspects(&mut self, now: Instant) {
        let lease = super::supervisor::Supervisor::lease(&self.supervisor.settings);
        let suspects = std::mem::take(&mut self.supervisor.suspects);
        for (node, (since, topics)) in suspects {
            let is_alive = self.supervisor.nodes.contains(node);
            if !is_alive && now.duration_since(since) < lease {
                self.supervisor.suspects.insert(node, (since, topics));
                continue;
            }
            for bus in topics {
                let Some(entry) = self.supervisor.topics.get(&bus) else {
                    continue;
                };
                if is_alive {
                    self.supervisor.hub.tell_again(&entry.topic);
                } else {
                    let names = self.supervisor.names.of(&entry.topic);
                    let command = self.supervisor.scripts.reap(&names, &[node]);
                    self.add(&bus, command, Expect::Anything);
                }
            }
        }
    }

    /// Redis has lost a cache channel's last event, and this node has heard it.
    fn keep_again(&mut self, topic: &Topic, text: &str, left: Duration) {
        let names = self.supervisor.names.of(topic);
        let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut command = redis::cmd("SET");
        command.arg(&names.last).arg(text).arg("PX").arg(left_ms);
        command.arg("NX");
        self.add(&names.last, command, Expect::Anything);
    }

    fn perform(&mut self, topic: &Topic, action: Action) {
        match action {
            Action::Apply(node, fact) => self.supervisor.hub.apply(topic, node, &fact),
            Action::ReadAgain => self.supervisor.hub.tell_again(topic),
            Action::Nothing => {}
        }
    }

    /// Redis has told which nodes are alive, and when this one was heard last.
    fn beaten(&mut self, answer: &Value) -> Result<(), Broken> {
        let wrong = || "Redis gave no list of nodes".to_owned();
        let Value::Array(items) = answer else {
            return Err(wrong());
        };
        let [Value::Int(before), nodes @ ..] = &items[..] else {
            return Err(wrong());
        };
        let now = Instant::now();
        let mut returned = Vec::new();
        for pair in nodes.chunks_exact(2) {
            let (Some(node), Value::Int(age)) =
                (snapshot::text(&pair[0]).and_then(codec::node_id), &pair[1])
            else {
                add(&self.supervisor.status.ignored, 1);
                continue;
            };
            let age = Duration::from_millis(u64::try_from(*age).unwrap_or_default());
            let Some(at) = now.checked_sub(age) else {
                continue;
            };
            if node != self.supervisor.node && self.supervisor.nodes.seen(node, at, now) {
                returned.push(node);
            }
        }
        for node in returned {
            self.greet_again(node);
        }
        for node in self.supervisor.nodes.give_up_late(now) {
            self.remove_node(node);
        }
        self.judge_suspects(now);
        self.count_nodes();
        let lease = super::supervisor::Supervisor::lease(&self.supervisor.settings).as_millis();
        let was_late = u128::try_from(*before).map_or(true, |before| before >= lease);
        // In a new session everything is told anyhow.
        if was_late && self.supervisor.status.is_up() {
            tracing::warn!(node = %self.supervisor.node, "others have lost sight of this node; telling all again");
            self.tell_all();
        }
        Ok(())
    }

    fn count_nodes(&self) {
        let nodes = self.supervisor.nodes.len() + 1;
        self.supervisor.status.nodes.store(nodes, Ordering::Relaxed);
    }

    /// A node that had been given up is there. It may not know that it was.
    fn greet_again(&mut self, node: NodeId) {
        let bus = self.supervisor.names.node(node);
        let text = Message::TellAgain(self.supervisor.node).encode();
        let command = self.publication(&bus, &text);
        self.add(&bus, command, Expect::Anything);
    }

    /// A node is gone: it is taken out here, and what it has left in Redis there.
    fn remove_node(&mut self, node: NodeId) {
        for bus in self.supervisor.forget(node) {
            let Some(entry) = self
                .supervisor
                .topics
                .get(&bus)
                .filter(|entry| entry.has_facts)
            else {
                continue;
            };
            let names = self.supervisor.names.of(&entry.topic);
            let command = self.supervisor.scripts.reap(&names, &[node]);
            self.add(&bus, command, Expect::Anything);
        }
    }

    /// A message has come in a Redis channel.
    pub(super) fn receive_message(&mut self, bus: &[u8], bytes: &[u8]) {
        let bus = std::str::from_utf8(bus).unwrap_or_default();
        let message = match Message::parse(bytes) {
            Ok(message) => message,
            Err(error) => {
                tracing::debug!(%bus, %error, "ignored a message");
                add(&self.supervisor.status.ignored, 1);
                return;
            }
        };
        match message {
            Message::Event(head, text) => self.event(bus, &head, text),
            Message::Change(version, node, fact) => {
                self.changed(bus, version, node, Some(fact));
            }
            Message::Reread(version, node) => self.changed(bus, version, node, None),
            message => self.of_nodes(bus, message),
        }
    }

    fn event(&mut self, bus: &str, head: &EventHead, text: &str) {
        let Some(entry) = self.supervisor.topics.get_mut(bus) else {
            // It was on its way when the last subscriber left.
            return;
        };
        let Topic::Channel(app, channel) = &entry.topic else {
            add(&self.supervisor.status.ignored, 1);
            return;
        };
        let event = Event {
            app: *app,
            channel: channel.clone(),
            except: head.except,
            frame: message::relayed(text),
            is_kept: head.is_kept && entry.has_last,
        };
        if head.node == self.supervisor.node {
            if event.is_kept {
                self.supervisor.hub.keep(event);
            }
            return;
        }
        match entry.sequences.check(head.node, head.run, head.number) {
            Dedup::Repeated => return,
            Dedup::New(0) => {}
            Dedup::New(missed) => {
                add(&self.supervisor.status.missed, missed);
                let what = "events of another node did not come";
                limited!(warn, what, None, { %bus, node = %head.node, missed, }, what);
            }
        }
        if self.supervisor.hub.deliver(event) {
            add(&self.supervisor.status.delivered, 1);
        } else {
            add(&self.supervisor.status.given_up, 1);
        }
    }

    fn changed(&mut self, bus: &str, version: u64, node: NodeId, fact: Option<crate::hub::Fact>) {
        let own = self.supervisor.node;
        // One that is given up may have told it before: then its facts are not believed.
        let is_known = node == own || self.supervisor.nodes.contains(node);
        let Some(entry) = self.supervisor.topics.get_mut(bus) else {
            return;
        };
        let action = entry.change(version, node, fact.filter(|_| is_known), own);
        let topic = entry.topic.clone();
        self.perform(&topic, action);
    }

    /// What nodes tell all others, or this one.
    fn of_nodes(&mut self, bus: &str, message: Message<'_>) {
        let is_ours = bus == self.supervisor.names.all()
            || bus == self.supervisor.names.node(self.supervisor.node);
        if !is_ours {
            add(&self.supervisor.status.ignored, 1);
            return;
        }
        let own = self.supervisor.node;
        match message {
            Message::Hello(node) if node != own => self.note_alive(node),
            Message::Bye(node) if self.supervisor.nodes.left(node) => self.remove_node(node),
            Message::AllTold(node) if node != own => {
                self.note_alive(node);
                let spared: Vec<Topic> = self
                    .supervisor
                    .topics
                    .values_mut()
                    .filter_map(|entry| entry.spare_no_more(node).then(|| entry.topic.clone()))
                    .collect();
                for topic in spared {
                    self.supervisor.hub.tell_again(&topic);
                }
            }
            Message::TellAgain(node) if node != own => self.tell_all(),
            Message::Terminate(node, who) if node != own => {
                if let Some(app) = self.supervisor.apps.by_id(&who.app) {
                    self.supervisor.hub.terminate_here(app.index, &who.user);
                }
            }
            Message::Ask(node, id, question) if node != own => self.reply(node, id, &question),
            Message::Answer(node, id, is_last, rows) if node != own => {
                self.supervisor.queries.answer(node, id, is_last, rows);
            }
            // Its own echo.
            _ => {}
        }
    }

    fn note_alive(&mut self, node: NodeId) {
        let now = Instant::now();
        if self.supervisor.nodes.seen(node, now, now) {
            self.greet_again(node);
        }
        self.count_nodes();
    }

    /// Answers another node's question with what is so here.
    fn reply(&mut self, node: NodeId, id: u64, question: &Question) {
        let parts = match self.supervisor.apps.by_id(&question.app) {
            Some(app) => survey::answer(&self.supervisor.hub, app, &question.about),
            // Nothing of an application that is not served here.
            None => vec![codec::Rows::default()],
        };
        let bus = self.supervisor.names.node(node);
        let last = parts.len() - 1;
        for (at, rows) in parts.into_iter().enumerate() {
            let text = Message::Answer(self.supervisor.node, id, at == last, rows).encode();
            let command = self.publication(&bus, &text);
            self.add(&bus, command, Expect::Anything);
        }
    }
}

/// What `PUBSUB NUMSUB` of one channel says.
fn listeners(answer: &Value) -> i64 {
    let count = match answer {
        Value::Array(items) => items.get(1),
        Value::Map(pairs) => pairs.first().map(|(_, count)| count),
        _ => None,
    };
    match count {
        Some(Value::Int(count)) => *count,
        _ => 0,
    }
}

/// The last event of a cache channel, as the script gives it.
fn last_of(answer: &Value) -> Last {
    let Value::Array(parts) = answer else {
        return None;
    };
    let [text, Value::Int(left_ms)] = &parts[..] else {
        return None;
    };
    let left = Duration::from_millis(u64::try_from(*left_ms).ok()?);
    let text = snapshot::text(text).filter(|text| text.starts_with('{'))?;
    Some((message::relayed(text), left))
}

//! What a session receives: answers of Redis and messages of other nodes.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use redis::{ServerError, Value};

use super::pipeline::Expect;
use super::session::{Broken, Session};
use super::snapshot;
use super::state::State;
use crate::apps::Counter;
use crate::cluster::codec::{self, EventHead, Message, Question, Termination};
use crate::cluster::peers::{self, NodeInfo};
use crate::cluster::sequence::Dedup;
use crate::cluster::status::add;
use crate::cluster::survey;
use crate::cluster::view::{Action, Last, View};
use crate::hub::{Event, Fact, NodeId, Topic};
use crate::protocol::message;
use crate::telemetry::limit::limited;

/// Terminations whose second message may be awaited.
const MAX_TERMINATED: usize = 1000;

impl Session<'_> {
    pub(super) fn answered(&mut self, answer: Value, expect: Expect) -> Result<(), Broken> {
        match expect {
            Expect::Anything | Expect::Confirmed | Expect::Synced(_) => {}
            Expect::Evicted(app) => self.evict(&app, &answer),
            Expect::Facts(bus) => {
                let snapshot = snapshot::read(&answer).ok_or("Redis gave no facts")?;
                add(&self.state.status.ignored, snapshot.unreadable as u64);
                self.entered_first(&bus, snapshot.is_first);
                if let Some(view) = self.state.views.get_mut(&bus) {
                    view.snapshot = Some(snapshot);
                }
            }
            Expect::Last(bus) => {
                if let Some(view) = self.state.views.get_mut(&bus) {
                    view.last = Some(last_of(&answer));
                }
            }
            Expect::Changed(bus) => {
                // The mark is gone: Redis has lost what this node entered.
                if answer == Value::Int(0) {
                    self.reread(&bus);
                }
            }
            Expect::Left(bus) => {
                let left = self.state.left.remove(&bus);
                if let Some(topic) = left.filter(|_| answer == Value::Int(1)) {
                    self.decided(&topic, false);
                }
            }
            Expect::Reaped(topic) if answer == Value::Int(1) => self.decided(&topic, false),
            Expect::Reaped(_) => {}
            Expect::Occupied(node) => self.reap_some(node, &answer),
            Expect::Listens(node) => self.listens(node, listeners(&answer) > 0),
            Expect::Heartbeat(asked) => self.received_nodes(&answer, asked)?,
            Expect::Admitted(app, reply) => {
                let is_in = answer == Value::Int(1);
                self.end_admission(&app, is_in);
                if reply.send(is_in).is_err() && is_in {
                    // Nobody waits any more: its permit is released.
                    self.release_connections(&app, 1);
                }
            }
            Expect::Claimed(reply) => {
                let known = snapshot::bytes(&answer).map(<[u8]>::to_vec);
                // Whoever asked may have gone.
                let _ = reply.send(known);
            }
            Expect::Wanted(reply) => {
                // Whoever asked may have gone.
                let _ = reply.send(last_of(&answer));
            }
        }
        Ok(())
    }

    /// A key is not what it should be: what concerns only that goes on without Redis.
    pub(super) fn degrade(&mut self, expect: Expect, error: &ServerError) {
        match expect {
            Expect::Facts(ref bus) | Expect::Last(ref bus) | Expect::Changed(ref bus) => {
                if let Some(view) = self.state.views.get_mut(bus) {
                    // The facts of others are good without the last event.
                    if !matches!(expect, Expect::Last(_)) {
                        view.stop_reading();
                    }
                    view.fail();
                    if !std::mem::replace(&mut view.is_degraded, true) {
                        self.state.status.degraded.fetch_add(1, Ordering::Relaxed);
                        let keys = self.state.keys.of(&view.topic);
                        let what = "a key in Redis is of another type: its channel or user \
                                    goes on without the other nodes until it is removed";
                        limited!(warn, what, None, {
                            keys = format!("{} or {}", keys.facts, keys.last),
                            %error,
                        }, what);
                    }
                }
            }
            Expect::Left(bus) => _ = self.state.left.remove(&bus),
            // This node alone decides then.
            Expect::Admitted(app, reply) => {
                self.end_admission(&app, false);
                let _ = reply.send(true);
            }
            Expect::Claimed(reply) => _ = reply.send(None),
            Expect::Wanted(reply) => _ = reply.send(None),
            Expect::Anything
            | Expect::Confirmed
            | Expect::Evicted(_)
            | Expect::Synced(_)
            | Expect::Reaped(_)
            | Expect::Occupied(_)
            | Expect::Listens(_)
            | Expect::Heartbeat(_) => {}
        }
    }

    /// A topic that may be degraded is none any more.
    pub(super) fn restore(&mut self, bus: &str) {
        if let Some(view) = self.state.views.get_mut(bus)
            && std::mem::replace(&mut view.is_degraded, false)
        {
            self.state.status.degraded.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Everything that was sent of a topic is answered.
    pub(super) fn synced(&mut self, bus: &Arc<str>) {
        let State {
            views,
            nodes,
            hub,
            node,
            status,
            ..
        } = &mut *self.state;
        let Some(view) = views.get_mut(bus) else {
            return;
        };
        if view.is_degraded && !view.has_failed() {
            view.is_degraded = false;
            status.degraded.fetch_sub(1, Ordering::Relaxed);
        }
        let (topic, sent_version) = (view.topic.clone(), view.sent_version);
        if !view.is_reading() {
            return hub.confirm(&topic, sent_version.0, sent_version.1);
        }
        let read = view.finish_reading(*node, nodes, Instant::now());
        let last = view.last.take();
        let lost = hub.reconcile(&topic, sent_version, &read.state, last);
        for action in read.actions {
            self.perform(&topic, action);
        }
        if let Some((frame, left)) = lost {
            self.keep_again(&topic, message::text(&frame), left);
        }
        for node in read.unknown_nodes {
            let since = (Instant::now(), HashSet::new());
            let (_, topics) = self.state.unknown_nodes.entry(node).or_insert(since);
            topics.insert(Arc::clone(bus));
        }
    }

    /// Has a topic entered and read again.
    fn reread(&mut self, bus: &str) {
        if let Some(view) = self.state.views.get_mut(bus)
            && view.reread() == Action::Reread
        {
            self.again.push_back(view.topic.clone());
        }
    }

    /// Nodes that were not known to be alive when their facts were read: they are by
    /// now, or have been silent for so long that what they have left is taken out.
    fn check_unknown_nodes(&mut self, now: Instant) {
        let lease = State::lease(&self.state.settings);
        let unknown = std::mem::take(&mut self.state.unknown_nodes);
        for (node, (since, topics)) in unknown {
            let is_alive = self.state.nodes.contains(node);
            if !is_alive && now.duration_since(since) < lease {
                self.state.unknown_nodes.insert(node, (since, topics));
                continue;
            }
            for bus in topics {
                if is_alive {
                    self.reread(&bus);
                } else {
                    self.reap(&bus, node);
                }
            }
        }
    }

    /// Takes out what a node that is gone has left in Redis of a topic.
    fn reap(&mut self, bus: &str, node: NodeId) {
        let view = self.state.views.get(bus).filter(|view| view.has_facts);
        let Some(view) = view else { return };
        let keys = self.state.keys.of(&view.topic);
        let topic = view.topic.clone();
        let command = self.state.scripts.reap(&keys, &[node]);
        self.add(bus, command, Expect::Reaped(topic));
    }

    /// Redis has lost a cache channel's last event, and this node has received it.
    fn keep_again(&mut self, topic: &Topic, text: &str, left: Duration) {
        let keys = self.state.keys.of(topic);
        let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
        if let Some((index, _)) = self.index(topic, text.len()) {
            let key = self.state.keys.cache(&index.app).index;
            let command = Arc::unwrap_or_clone(index.command);
            self.add(&key, command, Expect::Evicted(index.app));
        }
        let mut command = redis::cmd("SET");
        command.arg(&keys.last).arg(text).arg("PX").arg(left_ms);
        command.arg("NX");
        self.add(&keys.last, command, Expect::Anything);
    }

    fn perform(&mut self, topic: &Topic, action: Action) {
        match action {
            Action::Apply(node, fact) => self.state.hub.apply(topic, node, &fact),
            Action::Reread => self.again.push_back(topic.clone()),
            Action::Nothing => {}
        }
    }

    /// Redis has answered which nodes are alive, and when this one's last heartbeat was.
    fn received_nodes(&mut self, answer: &Value, asked: Instant) -> Result<(), Broken> {
        let wrong = || "Redis gave no list of nodes".to_owned();
        let Value::Array(items) = answer else {
            return Err(wrong());
        };
        let [Value::Int(before), nodes @ ..] = &items[..] else {
            return Err(wrong());
        };
        let now = Instant::now();
        let mut returned = Vec::new();
        let mut infos = Vec::new();
        for row in nodes.chunks_exact(3) {
            let (Some(node), Value::Int(age)) =
                (snapshot::text(&row[0]).and_then(codec::node_id), &row[1])
            else {
                add(&self.state.status.ignored, 1);
                continue;
            };
            let Ok(age) = u64::try_from(*age) else {
                continue;
            };
            let Some(at) = now.checked_sub(Duration::from_millis(age)) else {
                continue;
            };
            if node == self.state.node {
                continue;
            }
            if self.state.nodes.seen(node, at, asked, now) {
                returned.push(node);
            }
            if self.state.nodes.contains(node) {
                infos.push((node, NodeInfo::parse(snapshot::text(&row[2]))));
            }
        }
        for node in returned {
            self.ask_to_resync(node);
        }
        for node in self.state.nodes.remove_late(now) {
            self.remove_node(node);
        }
        self.check_unknown_nodes(now);
        self.count_nodes();
        let infos = infos.iter().map(|(node, info)| (*node, info.as_ref()));
        let is_draining =
            |(_, info): &(NodeId, Option<&NodeInfo>)| info.is_some_and(|info| info.draining);
        let draining = infos.clone().filter(is_draining).count();
        self.state
            .status
            .draining
            .store(draining, Ordering::Relaxed);
        let differences = peers::differences(&self.state.info, infos);
        self.state.status.set_differences(differences);
        let lease = State::lease(&self.state.settings).as_millis();
        let was_late = *before == -1 || u128::try_from(*before).is_ok_and(|before| before >= lease);
        // In a new session everything is sent anyhow.
        if was_late && self.state.status.is_up() {
            tracing::warn!(node = %self.state.node, "others have lost sight of this node; telling all again");
            self.resync_all();
        }
        Ok(())
    }

    fn count_nodes(&self) {
        let nodes = self.state.nodes.len() + 1;
        self.state.status.nodes.store(nodes, Ordering::Relaxed);
    }

    /// A node that had been taken for gone is there. It may not know that it was.
    pub(super) fn ask_to_resync(&mut self, node: NodeId) {
        let bus = self.state.keys.node(node);
        let text = Message::TellAgain(self.state.node).encode();
        let command = self.publication(&bus, &text);
        self.add(&bus, command, Expect::Anything);
    }

    /// A node is gone: it is taken out here, and what it has left in Redis there.
    fn remove_node(&mut self, node: NodeId) {
        for bus in self.state.forget(node) {
            self.reap(&bus, node);
        }
        self.reap_channels(node);
    }

    /// A message has come in a Redis channel.
    pub(super) fn receive_message(&mut self, bus: &[u8], bytes: &[u8]) {
        let bus = std::str::from_utf8(bus).unwrap_or_default();
        let message = match Message::parse(bytes) {
            Ok(message) => message,
            Err(error) => {
                tracing::debug!(%bus, %error, "ignored a message");
                add(&self.state.status.ignored, 1);
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
        let Some(view) = self.state.views.get_mut(bus) else {
            // It was on its way when the last subscriber left.
            return;
        };
        let Topic::Channel(app, channel) = &view.topic else {
            add(&self.state.status.ignored, 1);
            return;
        };
        let event = Event {
            app: app.clone(),
            channel: channel.clone(),
            except: head.except,
            frame: message::relayed(text),
            is_kept: head.is_kept && view.has_last,
        };
        if head.node == self.state.node {
            if event.is_kept {
                self.state.hub.keep(event);
            }
            return;
        }
        match view.sequences.check(head.node, head.run, head.number) {
            Dedup::Repeated => return,
            Dedup::New(0) => {}
            Dedup::New(missed) => {
                add(&self.state.status.missed, missed);
                let what = "events of another node did not come";
                limited!(warn, what, None, { %bus, node = %head.node, missed, }, what);
            }
        }
        if self.state.hub.deliver(event) {
            add(&self.state.status.delivered, 1);
        } else {
            add(&self.state.status.given_up, 1);
        }
    }

    fn changed(&mut self, bus: &str, version: u64, node: NodeId, fact: Option<Fact>) {
        let own = self.state.node;
        // One that is taken for gone may have sent it before: then its facts are not believed.
        let is_known = node == own || self.state.nodes.contains(node);
        let Some(view) = self.state.views.get_mut(bus) else {
            return;
        };
        let action = view.change(version, node, fact.filter(|_| is_known), own);
        let topic = view.topic.clone();
        self.perform(&topic, action);
    }

    /// What nodes send to all others, or to this one.
    fn of_nodes(&mut self, bus: &str, message: Message<'_>) {
        let is_ours = bus == self.state.keys.all() || bus == self.state.keys.node(self.state.node);
        if !is_ours {
            add(&self.state.status.ignored, 1);
            return;
        }
        let own = self.state.node;
        match message {
            Message::Hello(node) if node != own => self.mark_alive(node),
            Message::Bye(node) if node == own => self.contradict(),
            Message::Bye(node) if self.state.nodes.remove(node, Instant::now()) => {
                self.remove_node(node);
            }
            Message::AllTold(node) if node != own => {
                self.mark_alive(node);
                let is_unverified = |view: &mut View| view.verify_node(node);
                let views = self.state.views.iter_mut();
                let unverified: Vec<Arc<str>> = views
                    .filter_map(|(bus, view)| is_unverified(view).then(|| Arc::clone(bus)))
                    .collect();
                unverified.iter().for_each(|bus| self.reread(bus));
            }
            Message::TellAgain(node) if node != own => self.resync_all(),
            Message::Terminate(node, who) if node != own => self.terminate(node, who),
            Message::TerminateAs(node, reconnect, who) if node != own => {
                if let Some(app) = self.state.apps.by_id(&who.app) {
                    let hub = &self.state.hub;
                    hub.terminate_here(&app, &who.user, Some(reconnect));
                }
                if self.terminated.len() == MAX_TERMINATED {
                    self.terminated.pop_front();
                }
                self.terminated.push_back((node, who));
            }
            Message::Unsubscribe(node, what) if node != own => {
                if let (Some(app), Some(who)) = (self.state.apps.by_id(&what.app), what.who.read())
                {
                    self.state.hub.unsubscribe_here(&app, &what.channel, &who);
                }
            }
            Message::Ask(node, id, question) if node != own => self.reply(node, id, &question),
            Message::Answer(node, id, is_last, rows) if node != own => {
                self.state.surveys.answer(node, id, is_last, rows);
            }
            // Its own echo.
            _ => {}
        }
    }

    /// A user's connections have to be closed, unless that was done with the message before, which
    /// said how.
    fn terminate(&mut self, node: NodeId, who: Termination) {
        let who = (node, who);
        if let Some(at) = self.terminated.iter().position(|it| *it == who) {
            self.terminated.remove(at);
        } else if let Some(app) = self.state.apps.by_id(&who.1.app) {
            self.state.hub.terminate_here(&app, &who.1.user, None);
        }
    }

    /// Somebody says that this node is going, which it is not: others have to know.
    fn contradict(&mut self) {
        if self.state.lifecycle.is_stopping() {
            return;
        }
        tracing::warn!(node = %self.state.node, "others were told that this node is going; telling all again");
        self.heartbeat();
        self.publish_to_all(&Message::Hello(self.state.node));
        self.resync_all();
    }

    fn mark_alive(&mut self, node: NodeId) {
        let now = Instant::now();
        if self.state.nodes.seen(node, now, now, now) {
            self.ask_to_resync(node);
        }
        self.count_nodes();
    }

    /// Answers another node's question with what is so here.
    fn reply(&mut self, node: NodeId, id: u64, question: &Question) {
        let parts = match self.state.apps.by_id(&question.app) {
            Some(app) => {
                app.counters().count(Counter::SurveysReceived);
                survey::answer(&self.state.hub, &app, &question.about)
            }
            // Nothing of an application that is not served here.
            None => vec![codec::Rows::default()],
        };
        let bus = self.state.keys.node(node);
        let last = parts.len() - 1;
        for (at, rows) in parts.into_iter().enumerate() {
            let text = Message::Answer(self.state.node, id, at == last, rows).encode();
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

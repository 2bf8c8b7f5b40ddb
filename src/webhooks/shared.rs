//! What all nodes tell together, in Redis: who is where, and what is still to be told.
//!
//! | key, of each application `{app/w}` | holds |
//! |---|---|
//! | `:present` | the hash of channels and users, each with the nodes that it is on |
//! | `:of:NODE` | the set of those that are on a node |
//! | `:nodes` | the set of nodes that have such a set |
//! | `:counts` | the hash of channels' numbers of subscribers that were told last |
//! | `:queue` | the stream of events that are still to be told |
//! | `:sender` | the node that tells them, for ten seconds from when it has said so last |
//!
//! A script enters and takes out topics, and puts the event into the queue at once if this was
//! the first node or the last. Whatever was sent when the link broke is sent again: entering
//! twice changes nothing, and then all topics are compared. The node that tells takes an entry
//! out of the queue when all receivers have it; if it dies before, the next one tells it again,
//! with the same id.
//!
//! A node that has stopped, or says nothing for its time-out, is taken out of all topics by the
//! others, after the time in which its clients may have come back to one of them. All keys expire
//! a day after the last node that had a part in them.

mod reader;
mod reaper;
mod record;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Cmd, Value};

use super::event::{self, Topic};
use super::intake::Intake;
use super::receivers::Receivers;
use super::smoothing::Smoothing;
use crate::apps::{AppHandle, AppRegistry, WebhookLoss};
use crate::cluster::{Link, LinkError};
use crate::config::WebhookLimits;
use crate::hub::NodeId;
use reader::Reader;
pub(super) use record::Record;

/// How long it rests after the link broke.
const PAUSE: Duration = Duration::from_secs(1);

/// How often it says that it tells, and looks for nodes that are gone.
const BEAT: Duration = Duration::from_secs(1);

/// How often keys are kept from expiring.
const REFRESH: Duration = Duration::from_secs(600);

/// When keys expire.
const TTL_SECONDS: i64 = 86_400;

/// Records that are sent at a time.
const MAX_RECORDS: usize = 256;

/// How long what is left may take when the server stops, and saying that it has.
const STOP: Duration = Duration::from_secs(2);
const RELEASE: Duration = Duration::from_millis(500);

/// This node's part in what all tell.
pub(super) struct Shared {
    link: Link,
    node: NodeId,
    intake: Arc<Intake>,
    waiting: VecDeque<Record>,
    /// Bytes of the events among them.
    bytes: usize,
    /// Whether Redis has the topics of this node, but for what waits.
    is_synced: bool,
    /// Not before this is Redis asked again.
    resume: Instant,
    /// Whether it was said that Redis is away.
    is_logged: bool,
    beat: Instant,
    refresh: Instant,
    readers: HashMap<AppHandle, Reader>,
    /// Entries that are done with, of applications that somebody else tells for now.
    undeleted: HashMap<AppHandle, Vec<String>>,
    /// Applications that did not want to know of something any more, since it was synced.
    forgotten: HashSet<AppHandle>,
    /// Since when nodes are gone that have topics of an application.
    gone: HashMap<(AppHandle, NodeId), Instant>,
}

/// What a step goes by.
pub(super) struct Surroundings<'a> {
    pub(super) apps: &'a AppRegistry,
    pub(super) smoothing: &'a Smoothing,
    pub(super) receivers: &'a mut Receivers,
    pub(super) limits: &'a WebhookLimits,
}

/// The keys of one application.
struct Keys {
    present: String,
    own: String,
    nodes: String,
    counts: String,
    queue: String,
    sender: String,
}

impl Shared {
    pub(super) fn new((link, node): (Link, NodeId), intake: &Arc<Intake>) -> Self {
        let now = Instant::now();
        Self {
            link,
            node,
            intake: Arc::clone(intake),
            waiting: VecDeque::new(),
            bytes: 0,
            is_synced: false,
            resume: now,
            is_logged: false,
            beat: now,
            refresh: now,
            readers: HashMap::new(),
            undeleted: HashMap::new(),
            forgotten: HashSet::new(),
            gone: HashMap::new(),
        }
    }

    /// Adds what all are to know. Topics are not kept while Redis is away: they are compared as
    /// soon as it is back.
    pub(super) fn add(&mut self, record: Record, limits: &WebhookLimits) {
        if record.is_forgotten() {
            self.forgotten.insert(record.app.clone());
        }
        if record.is_topic() && !self.is_synced {
            return;
        }
        self.bytes += record.cost();
        self.waiting.push_back(record);
        // Topics cost nothing here: there are no more of them than there are in the hub.
        let mut at = 0;
        while self.bytes > limits.max_bytes && at < self.waiting.len() {
            if self.waiting[at].is_topic() {
                at += 1;
            } else if let Some(record) = self.waiting.remove(at) {
                self.lose(&record, WebhookLoss::Overflow);
            }
        }
    }

    fn lose(&mut self, record: &Record, why: WebhookLoss) {
        self.bytes -= record.cost();
        super::lost(&record.app, 1, why);
    }

    /// Sends what waits, and tells what this node has to tell.
    pub(super) async fn step(&mut self, around: &mut Surroundings<'_>) {
        let now = Instant::now();
        self.expire(around.limits);
        self.hand_over_late(around.receivers);
        if now < self.resume {
            return;
        }
        match self.try_step(around, now).await {
            Ok(()) => {
                if std::mem::take(&mut self.is_logged) {
                    tracing::info!("webhooks go on, Redis is back");
                }
            }
            Err(error) => {
                self.hand_over_late(around.receivers);
                self.is_synced = false;
                self.resume = Instant::now() + PAUSE;
                self.waiting.retain(|record| !record.is_topic());
                if !std::mem::replace(&mut self.is_logged, true) {
                    tracing::warn!(%error, "webhooks wait until Redis is back");
                }
            }
        }
    }

    async fn try_step(
        &mut self,
        around: &mut Surroundings<'_>,
        now: Instant,
    ) -> Result<(), LinkError> {
        if now >= self.beat {
            self.beat = now + BEAT;
            self.beat(around).await?;
        }
        if !self.is_synced {
            self.sync(around).await?;
        }
        self.flush().await?;
        self.read(around.receivers).await
    }

    /// What has waited for too long is not told any more.
    fn expire(&mut self, limits: &WebhookLimits) {
        let age = u64::try_from(limits.max_age.as_millis()).unwrap_or(u64::MAX);
        let oldest = event::now().saturating_sub(age);
        while let Some(first) = self.waiting.front()
            && !first.is_topic()
            && first.at < oldest
            && let Some(record) = self.waiting.pop_front()
        {
            self.lose(&record, WebhookLoss::Expired);
        }
    }

    /// Makes the topics of this node in Redis what they are.
    async fn sync(&mut self, around: &Surroundings<'_>) -> Result<(), LinkError> {
        let mut by_app: HashMap<AppHandle, Vec<&Topic>> = HashMap::new();
        for app in with_webhooks(around.apps) {
            by_app.entry(app).or_default();
        }
        // Also what nobody wants to know any more is taken out.
        for app in &self.forgotten {
            by_app.entry(app.clone()).or_default();
        }
        for topic in around.smoothing.topics() {
            by_app.entry(topic.app.clone()).or_default().push(topic);
        }
        let mut left = Vec::new();
        for (app, topics) in by_app {
            let keys = self.keys(&app, self.node);
            let there = self.members(&keys.present, &keys.own).await?;
            let known: HashSet<String> = topics.iter().map(|topic| topic.text()).collect();
            let unknown = there.into_iter().filter(|text| !known.contains(text));
            let unknown = unknown.filter_map(|text| Topic::of_text(&app, &text));
            let unknown: Vec<Topic> = unknown.collect();
            // A channel is there before its users are, and as long as they are.
            let (users, channels): (Vec<_>, Vec<_>) =
                topics.into_iter().partition(|topic| topic.user.is_some());
            let mut records = vec![Record::node(&app)];
            for topic in channels.into_iter().chain(users) {
                records.push(Record::topic(topic, true, self.intake.next_id()));
            }
            self.send(&app, self.node, &records).await?;
            self.renew().await?;
            left.push((app, unknown));
        }
        // What happened in channels that are vacated, happened before.
        self.flush().await?;
        for (app, unknown) in left {
            let leave = |topic| Record::topic(topic, false, self.intake.next_id());
            let records: Vec<Record> = users_first(&unknown).map(leave).collect();
            self.send(&app, self.node, &records).await?;
        }
        self.forgotten.clear();
        self.is_synced = true;
        self.refresh = Instant::now();
        Ok(())
    }

    /// Sends what waits.
    async fn flush(&mut self) -> Result<(), LinkError> {
        while let Some(first) = self.waiting.front() {
            let app = first.app.clone();
            let is_same = |record: &&Record| record.app == app;
            let count = self
                .waiting
                .iter()
                .take(MAX_RECORDS)
                .take_while(is_same)
                .count();
            let records: Vec<Record> = self.waiting.iter().take(count).cloned().collect();
            self.send(&app, self.node, &records).await?;
            for record in self.waiting.drain(..count) {
                self.bytes -= record.cost();
            }
        }
        Ok(())
    }

    /// Has Redis carry out what is recorded of a node.
    async fn send(
        &mut self,
        app: &AppHandle,
        node: NodeId,
        records: &[Record],
    ) -> Result<(), LinkError> {
        let keys = self.keys(app, node);
        for records in records.chunks(MAX_RECORDS) {
            let command = record::command(&keys, node, records);
            let answers = self.link.run(&keys.present, vec![command]).await?;
            let answer = answers.first().unwrap_or(&Value::Nil);
            let (lost, is_new): (usize, bool) =
                redis::from_redis_value_ref(answer).unwrap_or_default();
            if lost > 0 {
                super::lost(app, lost, WebhookLoss::Overflow);
            }
            // It was taken for gone meanwhile, or Redis has lost it.
            self.is_synced &= !(is_new && node == self.node);
        }
        Ok(())
    }

    /// What is done each second.
    async fn beat(&mut self, around: &mut Surroundings<'_>) -> Result<(), LinkError> {
        let apps = with_webhooks(around.apps);
        let is_due = Instant::now() >= self.refresh;
        for app in &apps {
            self.hold_sender(app, around.receivers).await?;
            if is_due {
                self.keep(app).await?;
            }
        }
        if is_due {
            self.refresh = Instant::now() + REFRESH;
        }
        self.give_up_removed(&apps, around.receivers).await?;
        self.reap(&apps, around).await
    }

    /// Keeps an application's keys from expiring.
    async fn keep(&mut self, app: &AppHandle) -> Result<(), LinkError> {
        let keys = self.keys(app, self.node);
        let all = [
            &keys.present,
            &keys.own,
            &keys.nodes,
            &keys.counts,
            &keys.queue,
        ];
        let commands = all.map(|key| {
            let mut command = redis::cmd("EXPIRE");
            command.arg(key).arg(TTL_SECONDS);
            command
        });
        self.link.run(&keys.present, commands.into()).await?;
        Ok(())
    }

    /// All members of a set, some at a time.
    async fn members(&mut self, slot: &str, key: &str) -> Result<Vec<String>, LinkError> {
        let (mut all, mut cursor) = (Vec::new(), 0_u64);
        loop {
            let mut command = redis::cmd("SSCAN");
            command.arg(key).arg(cursor).arg("COUNT").arg(1000);
            let answers = self.link.run(slot, vec![command]).await?;
            let answer = answers.first().unwrap_or(&Value::Nil);
            let Ok((next, some)) = redis::from_redis_value_ref::<(u64, Vec<String>)>(answer) else {
                return Ok(all);
            };
            all.extend(some);
            cursor = next;
            if cursor == 0 {
                return Ok(all);
            }
        }
    }

    fn keys(&self, app: &AppHandle, node: NodeId) -> Keys {
        let key = |rest: &str| self.link.key(app.id(), "w", rest);
        Keys {
            present: key("present"),
            own: key(&format!("of:{node}")),
            nodes: key("nodes"),
            counts: key("counts"),
            queue: key("queue"),
            sender: key("sender"),
        }
    }

    /// Sends what is left, and has another node tell what was not told here.
    pub(super) async fn stop(&mut self, receivers: Receivers, deadline: Instant) {
        let until = deadline.min(Instant::now() + STOP);
        let ending = tokio::time::timeout_at(until.into(), async {
            // While Redis is away, it is not waited for.
            if Instant::now() < self.resume {
                return Ok(());
            }
            if !self.is_synced {
                self.waiting.retain(|record| !record.is_topic());
            }
            self.flush().await
        });
        // What was not sent is counted below.
        let _ = ending.await;
        let left = self.waiting.iter().filter(|it| !it.is_topic()).count();
        while let Some(record) = self.waiting.pop_front() {
            if !record.is_topic() {
                self.lose(&record, WebhookLoss::Stopped);
            }
        }
        if left > 0 {
            tracing::warn!(
                events = left,
                "events for webhooks are lost: Redis has not taken them"
            );
        }
        // What is on its way is waited for; what is not done with then, another node tells.
        let ended = receivers.end(until).await;
        let readers = std::mem::take(&mut self.readers).into_iter();
        let done: Vec<_> = readers.map(|(app, reader)| (app, reader.close())).collect();
        ended.give_up(None);
        let ending = async {
            for (app, done) in done {
                self.release(&app, &done).await?;
            }
            Ok::<_, LinkError>(())
        };
        // Otherwise the next one waits five seconds.
        let _ = tokio::time::timeout(RELEASE, ending).await;
    }
}

fn with_webhooks(apps: &AppRegistry) -> Vec<AppHandle> {
    let apps = apps.all();
    let with_webhooks = apps
        .iter()
        .filter(|app| !app.settings().webhooks.is_empty());
    with_webhooks.cloned().collect()
}

/// Users leave before their channel is vacated.
fn users_first(topics: &[Topic]) -> impl Iterator<Item = &Topic> {
    let of_kind = |is_user| topics.iter().filter(move |it| it.user.is_some() == is_user);
    of_kind(true).chain(of_kind(false))
}

/// A script that runs on keys of one slot.
fn script(code: &str, keys: &[&str]) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(code).arg(keys.len());
    for key in keys {
        command.arg(*key);
    }
    command
}

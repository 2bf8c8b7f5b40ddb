//! One session with Redis, from the link that came up to the one that broke: an
//! explicit loop over all that can happen.

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use redis::{Cmd, RedisResult, Value};
use tokio::time::MissedTickBehavior;

use super::connect::{Pushed, Shards};
use super::pipeline::{Answers, Batch, Expect, InFlight, Outgoing};
use super::state::{Ask, State};
use crate::apps::AppHandle;
use crate::cluster::codec::Message;
use crate::cluster::codec::Termination;
use crate::cluster::status::add;
use crate::cluster::watchdog::{self, Verdict, Watchdog};
use crate::hub::{NodeId, Topic};

/// How often things are looked at.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// Updates that are taken from the queue at a time, and their bytes: what one round trip
/// to Redis carries.
const MAX_UPDATES: usize = 4096;
const MAX_UPDATE_BYTES: usize = 4 << 20;

/// Topics that go with them: some tens of milliseconds of Redis's time, for which events
/// wait.
const MAX_TOPICS: usize = 1024;

/// Messages that are handled before something else has its turn.
const MAX_PUSHED: usize = 512;

/// How long events wait for other nodes to subscribe again, after a link came up.
const HOLD: Duration = Duration::from_secs(4);

/// How long what is left may take when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// How often it is tried whether a degraded topic is in order again.
const RETRY: Duration = Duration::from_secs(5);

/// Why a session has ended.
#[derive(Debug)]
pub(super) enum End {
    /// The server stops, and other nodes know.
    Stopped,
    /// This went wrong.
    Broken(String),
}

/// A session.
pub(super) struct Session<'a> {
    pub(super) state: &'a mut State,
    pub(super) shards: Shards,
    /// What is sent next.
    pub(super) batch: Batch,
    /// Topics that have something in it: each is taken once for a batch, so that an answer
    /// is never to an earlier question.
    pub(super) in_batch: HashSet<Arc<str>>,
    /// What was sent and is not answered.
    in_flight: Option<InFlight>,
    /// Topics to be looked at again.
    pub(super) again: VecDeque<Topic>,
    /// Topics that are still to be looked at until all are.
    pub(super) resync: VecDeque<Topic>,
    /// Whether all are being looked at.
    pub(super) is_resyncing: bool,
    /// Whether it has to be done once more then, since somebody has asked meanwhile.
    pub(super) must_resync_again: bool,
    /// Whether it was done in this session.
    pub(super) is_linked: bool,
    /// Events that wait until other nodes have subscribed again.
    pub(super) held: VecDeque<Outgoing>,
    /// Their bytes.
    held_bytes: usize,
    /// How long they wait at most; `None` when none does.
    hold_until: Option<Instant>,
    /// Nodes of which it is asked whether they have subscribed, and the answers so far.
    listeners: Vec<(NodeId, Option<bool>)>,
    watchdog: Watchdog,
    /// When it looks next.
    watch: Instant,
    /// Redis channels that are asked not to be subscribed to any more, and how often.
    pub(super) ending: HashMap<Box<str>, usize>,
    /// When the next heartbeat is due.
    pub(super) beat: Instant,
    /// When degraded topics are tried next.
    retry: Instant,
    /// Whose connections were closed as a message said that another one follows.
    pub(super) terminated: VecDeque<(NodeId, Termination)>,
    /// Connections that Redis counts for this node, by application.
    pub(super) admitted: HashMap<AppHandle, i64>,
    /// Applications' connections that are waiting to be let in.
    pub(super) admitting: HashMap<AppHandle, usize>,
}

/// Ends the session, and why.
pub(super) type Broken = String;

impl<'a> Session<'a> {
    pub(super) async fn run(state: &'a mut State, shards: Shards) -> End {
        add(&state.status.links, 1);
        let now = Instant::now();
        let mut session = Self {
            batch: Batch::new(shards.servers.len()),
            in_batch: HashSet::new(),
            in_flight: None,
            shards,
            again: VecDeque::new(),
            resync: VecDeque::new(),
            is_resyncing: false,
            must_resync_again: false,
            is_linked: false,
            held: VecDeque::new(),
            held_bytes: 0,
            hold_until: None,
            listeners: Vec::new(),
            watchdog: Watchdog::default(),
            watch: now,
            ending: HashMap::new(),
            beat: now,
            retry: now,
            terminated: VecDeque::new(),
            admitted: HashMap::new(),
            admitting: HashMap::new(),
            state,
        };
        let served = session.serve().await;
        // Of events in flight it is not known whether Redis has them; whoever got them
        // will know them by their numbers.
        let in_flight = session.in_flight.take().map(|sent| sent.events);
        let unsure = in_flight.into_iter().flatten();
        let unsent = std::mem::take(&mut session.batch.events);
        let held = std::mem::take(&mut session.held);
        // If it broke before they were taken over, those of the session before are there.
        let before = std::mem::take(&mut session.state.unsure);
        let all = before.into_iter().chain(unsure).chain(unsent).chain(held);
        session.state.unsure = all.collect();
        match served {
            Ok(()) => End::Stopped,
            Err(problem) => End::Broken(problem),
        }
    }

    async fn serve(&mut self) -> Result<(), Broken> {
        self.begin();
        self.send_batch();
        self.await_answers().await?;
        self.state.queue.go_up();
        self.state.status.is_up.store(true, Ordering::Release);
        self.state.excuse_others();
        // Whatever was not known to be sent goes first, once the others have subscribed.
        self.held = std::mem::take(&mut self.state.unsure);
        self.held_bytes = self.held.iter().map(|event| event.bytes).sum();
        self.hold_until = Some(Instant::now() + HOLD);
        self.resync_all();
        self.turn().await?;
        self.stop().await
    }

    /// Until the server stops.
    async fn turn(&mut self) -> Result<(), Broken> {
        let queue = Arc::clone(&self.state.queue);
        let mut stopping = pin!(self.state.lifecycle.stopping());
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pushed = Vec::new();
        loop {
            if self.in_flight.is_none() {
                // Whoever shares the core gets to publish more: one write for many updates
                // instead of one for each (twice the events per second, measured where
                // nodes and Redis have one core). With a core to itself it goes on at once.
                std::thread::yield_now();
                self.take();
                self.send_batch();
            }
            let is_idle = self.in_flight.is_none();
            let has_more = !self.again.is_empty() || !self.resync.is_empty();
            tokio::select! {
                count = self.shards.pushed.recv_many(&mut pushed, MAX_PUSHED) => {
                    if count == 0 { return Err("the connection is closed".to_owned()) }
                    for pushed in pushed.drain(..) { self.receive(pushed)? }
                }
                answers = answers_of(&mut self.in_flight) => self.settle(answers)?,
                () = poll_fn(|cx| queue.poll_ready(cx)), if is_idle => {}
                () = std::future::ready(()), if is_idle && has_more => {}
                Some(ask) = self.state.asks.recv() => self.ask(ask),
                _ = ticks.tick() => self.tick()?,
                () = &mut stopping => return self.await_answers().await,
            }
        }
    }

    /// What every session begins with: scripts, a heartbeat, the channels of all
    /// nodes and of this one.
    fn begin(&mut self) {
        for server in 0..self.shards.servers.len() {
            for script in self.state.scripts.load() {
                self.batch
                    .add_to(server, Arc::new(script), Expect::Anything);
            }
        }
        let (all, own) = (self.state.keys.all(), self.state.keys.node(self.state.node));
        for bus in [&all, &own] {
            let command = self.subscription("SUBSCRIBE", bus);
            self.add(bus, command, Expect::Confirmed);
        }
        self.heartbeat();
        self.publish_to_all(&Message::Hello(self.state.node));
    }

    /// Sends what has ended meanwhile, and goes off the list.
    async fn stop(&mut self) -> Result<(), Broken> {
        self.release();
        // What is not sent in time, others take for gone when this node says that it goes.
        let sending = async {
            loop {
                self.take();
                if self.batch.is_empty() {
                    return Ok(());
                }
                self.send_batch();
                self.await_answers().await?;
            }
        };
        let sent: Result<Result<(), Broken>, _> = tokio::time::timeout(STOP_TIMEOUT, sending).await;
        if let Ok(Err(problem)) = sent {
            return Err(problem);
        }
        let ending = async {
            let nodes = self.state.keys.nodes();
            let mut command = redis::cmd("ZREM");
            command.arg(&nodes).arg(self.state.node.to_string());
            self.add(&nodes, command, Expect::Anything);
            self.publish_to_all(&Message::Bye(self.state.node));
            self.send_batch();
            self.await_answers().await
        };
        // If others do not get this in time, they notice by the missing heartbeat.
        tokio::time::timeout(STOP_TIMEOUT, ending)
            .await
            .unwrap_or(Ok(()))
            .or(Ok(()))
    }

    /// Takes what has to be sent: events first, which do not wait for topics.
    fn take(&mut self) {
        // All that was sent is answered, by whichever shard: before, others might look for
        // what is not there yet.
        if self.is_resyncing && self.resync.is_empty() {
            self.finish_resync();
        }
        let queue = Arc::clone(&self.state.queue);
        for (since, update) in queue.take_updates(MAX_UPDATES, MAX_UPDATE_BYTES) {
            self.send_update(since, update);
        }
        for (app, count) in queue.take_released() {
            self.release_connections(&app, count);
        }
        for topic in queue.take_topics(MAX_TOPICS) {
            self.sync(topic);
        }
        let again = self.again.len().min(MAX_TOPICS);
        for topic in self.again.drain(..again).collect::<Vec<_>>() {
            self.sync_unless_done(topic);
        }
        let room = MAX_TOPICS.saturating_sub(self.in_batch.len());
        let next = self.resync.len().min(room);
        for topic in self.resync.drain(..next).collect::<Vec<_>>() {
            self.sync_unless_done(topic);
        }
        self.watch_topics();
    }

    /// Looks whether this node has subscribed to as many topics as its sockets need, if it
    /// is time to and none is on its way.
    fn watch_topics(&mut self) {
        let now = Instant::now();
        if now < self.watch {
            return;
        }
        let wanted = self.state.hub.wanted_topics();
        self.state.status.wanted.store(wanted, Ordering::Relaxed);
        // As long as not all were looked at in this session, it counts how long that takes.
        let is_clean = self.state.queue.is_clean() && self.again.is_empty();
        if self.is_linked && (!is_clean || self.is_resyncing) {
            self.watch = now + TICK;
            return;
        }
        self.watch = now + watchdog::INTERVAL;
        self.compare(wanted);
    }

    fn compare(&mut self, wanted: usize) {
        let status = &self.state.status;
        let listening = status.listening.load(Ordering::Relaxed);
        match self.watchdog.compare(wanted, listening, Instant::now()) {
            Verdict::Complete => status.is_incomplete.store(false, Ordering::Relaxed),
            Verdict::Differs => {}
            Verdict::Incomplete => {
                status.is_incomplete.store(true, Ordering::Relaxed);
                tracing::warn!(
                    node = %self.state.node,
                    wanted,
                    listening,
                    "this node does not listen to just what its sockets need; all is told again"
                );
                self.restart_resync();
            }
        }
    }

    pub(super) fn add(&mut self, key: &str, command: Cmd, expect: Expect) {
        self.batch.add(&self.shards, key, command, expect);
    }

    /// `SUBSCRIBE` or `UNSUBSCRIBE`, or what they are in a Redis Cluster.
    pub(super) fn subscription(&self, name: &str, bus: &str) -> Cmd {
        let sharded = if self.state.scripts.is_sharded {
            "S"
        } else {
            ""
        };
        let mut command = redis::cmd(&format!("{sharded}{name}"));
        command.arg(bus);
        command
    }

    pub(super) fn publication(&self, bus: &str, message: &str) -> Cmd {
        let name = if self.state.scripts.is_sharded {
            "SPUBLISH"
        } else {
            "PUBLISH"
        };
        let mut command = redis::cmd(name);
        command.arg(bus).arg(message);
        command
    }

    pub(super) fn publish_to_all(&mut self, message: &Message<'_>) {
        let all = self.state.keys.all();
        let command = self.publication(&all, &message.encode());
        self.add(&all, command, Expect::Anything);
    }

    /// Sends what there is to send.
    fn send_batch(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let next = Batch::new(self.shards.servers.len());
        let batch = std::mem::replace(&mut self.batch, next);
        self.in_batch.clear();
        self.in_flight = Some(batch.send(&self.shards));
    }

    /// Waits for the answers to what was sent, if something was.
    async fn await_answers(&mut self) -> Result<(), Broken> {
        if self.in_flight.is_none() {
            return Ok(());
        }
        let answers = answers_of(&mut self.in_flight).await;
        self.settle(answers)
    }

    /// Handles the answers to a batch. What Redis published before it answered is
    /// handled first: a topic then has all that is not in the answer.
    fn settle(&mut self, answers: Answers) -> Result<(), Broken> {
        while let Ok(pushed) = self.shards.pushed.try_recv() {
            self.receive(pushed)?;
        }
        let Some(sent) = &mut self.in_flight else {
            return Ok(());
        };
        let expects = std::mem::take(&mut sent.expects);
        for (answers, expects) in answers.into_iter().zip(expects) {
            self.settle_server(answers, expects)?;
        }
        if let Some(sent) = self.in_flight.take() {
            add(&self.state.status.published, sent.events.len() as u64);
        }
        Ok(())
    }

    fn settle_server(
        &mut self,
        answers: RedisResult<Vec<Value>>,
        expects: Vec<Expect>,
    ) -> Result<(), Broken> {
        let mut answers = answers.map_err(|error| error.to_string())?.into_iter();
        for expect in expects {
            if let Expect::Synced(bus) = &expect {
                self.synced(bus);
                continue;
            }
            let answer = answers.next().ok_or("Redis gave too few answers")?;
            if let Value::ServerError(error) = &answer {
                if !expect.is_about_one_key(error) {
                    return Err(format!("Redis says {error}"));
                }
                self.degrade(expect, error);
                continue;
            }
            // A shard that loses a slot says so unasked, which would be taken for an answer.
            if matches!(answer, Value::Push { .. }) != expect.is_confirmation() {
                return Err("Redis gave an answer to something else".to_owned());
            }
            self.answered(answer, expect)?;
        }
        match answers.next() {
            Some(_) => Err("Redis gave too many answers".to_owned()),
            None => Ok(()),
        }
    }

    /// What is done now and then.
    fn tick(&mut self) -> Result<(), Broken> {
        let now = Instant::now();
        if self.shards.pending.is_over() {
            return Err("more came than could be handled".to_owned());
        }
        self.state.surveys.close_late(now);
        self.state.log_dropped();
        self.hold(now);
        if now >= self.retry {
            self.retry = now + RETRY;
            self.retry_degraded();
        }
        if now >= self.beat {
            self.heartbeat();
            self.count_connections();
            self.refresh(now);
            self.ask_unverified(now);
        }
        Ok(())
    }

    /// An event to be sent, now or when the others listen.
    pub(super) fn send_event(&mut self, event: Outgoing) {
        if self.hold_until.is_none() {
            return self.batch.add_event(&self.shards, event);
        }
        self.held_bytes += event.bytes;
        self.held.push_back(event);
        while self.held_bytes > self.state.settings.buffer_bytes
            && let Some(oldest) = self.held.pop_front()
        {
            self.held_bytes -= oldest.bytes;
            self.state.queue.count_dropped(1);
        }
    }

    /// Asks whether all nodes that were known listen again, if that is waited for.
    fn hold(&mut self, now: Instant) {
        let Some(until) = self.hold_until else { return };
        let nodes: Vec<NodeId> = self.state.nodes.iter().collect();
        if now >= until || nodes.is_empty() {
            return self.release();
        }
        if !self.listeners.is_empty() {
            return;
        }
        let name = if self.state.scripts.is_sharded {
            "SHARDNUMSUB"
        } else {
            "NUMSUB"
        };
        self.listeners = nodes.iter().map(|node| (*node, None)).collect();
        for node in nodes {
            let bus = self.state.keys.listens(node);
            let mut command = redis::cmd("PUBSUB");
            command.arg(name).arg(&bus);
            self.add(&bus, command, Expect::Listens(node));
        }
    }

    /// Whether a node listens. When all do, what was held goes out; otherwise they are
    /// asked again.
    pub(super) fn listens(&mut self, node: NodeId, does: bool) {
        for (asked, answer) in &mut self.listeners {
            if *asked == node {
                *answer = Some(does);
            }
        }
        if self.listeners.iter().all(|(_, answer)| answer.is_some()) {
            let answers = std::mem::take(&mut self.listeners);
            if self.hold_until.is_some() && answers.iter().all(|(_, does)| *does == Some(true)) {
                self.release();
            }
        }
    }

    fn release(&mut self) {
        self.hold_until = None;
        self.held_bytes = 0;
        for event in std::mem::take(&mut self.held) {
            self.batch.add_event(&self.shards, event);
        }
    }

    fn ask(&mut self, ask: Ask) {
        match ask {
            Ask::Survey(question, reply) => {
                let now = Instant::now();
                if let Some(id) = self.state.surveys.open(self.state.nodes.iter(), reply, now) {
                    self.publish_to_all(&Message::Ask(self.state.node, id, question));
                }
            }
            Ask::Admit(app, reply) => {
                let Some(max) = app.settings().max_connections else {
                    // Whoever asked may have gone.
                    let _ = reply.send(true);
                    return;
                };
                let key = self.state.keys.connections(&app);
                let command =
                    self.state
                        .scripts
                        .admit(&key, self.state.node, max, self.state.nodes.iter());
                *self.admitting.entry(app.clone()).or_default() += 1;
                self.add(&key, command, Expect::Admitted(app, reply));
            }
            Ask::Claim(claim, text, ttl, reply) => {
                let key = self.state.keys.claim(&claim);
                let command = self.state.scripts.claim(&key, &text, ttl);
                self.add(&key, command, Expect::Claimed(reply));
            }
            Ask::PutClaim(claim, before, known) => {
                let key = self.state.keys.claim(&claim);
                let command = self.state.scripts.put_claim(&key, &before, known);
                self.add(&key, command, Expect::Anything);
            }
            Ask::Last(app, channel, reply) => {
                let topic = Topic::Channel(app, channel);
                let keys = self.state.keys.of(&topic);
                let command = self.state.scripts.last(&keys);
                self.add(&keys.last, command, Expect::Wanted(reply));
            }
        }
    }

    /// Something is not listened to any more. Unasked, a shard says so that has lost the
    /// slot: who has it now is found out with a new session.
    fn ended(&mut self, bus: &[u8]) -> Result<(), Broken> {
        let bus = std::str::from_utf8(bus).unwrap_or_default();
        match self.ending.get_mut(bus) {
            Some(1) => _ = self.ending.remove(bus),
            Some(count) => *count -= 1,
            None => return Err("a Redis channel has moved to another shard".to_owned()),
        }
        Ok(())
    }

    fn receive(&mut self, pushed: Pushed) -> Result<(), Broken> {
        match pushed {
            Pushed::Gone => Err("the connection is closed".to_owned()),
            Pushed::Ended(bus) => self.ended(&bus),
            Pushed::Message(bus, message) => {
                self.shards.pending.handled(message.len());
                add(&self.state.status.received, 1);
                self.receive_message(&bus, &message);
                Ok(())
            }
        }
    }
}

/// Waits for the answers to what was sent; for ever, if nothing was.
async fn answers_of(in_flight: &mut Option<InFlight>) -> Answers {
    match in_flight {
        Some(sent) => sent.answers.as_mut().await,
        None => std::future::pending().await,
    }
}

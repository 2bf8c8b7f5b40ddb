//! One session with Redis, from the link that came up to the one that broke: an
//! explicit loop over all that can happen.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use redis::{Cmd, RedisResult, Value};
use tokio::time::MissedTickBehavior;

use super::codec::Message;
use super::connect::{Pushed, Shards};
use super::pipeline::{Answers, Batch, Expect, InFlight, Outgoing};
use super::status::add;
use super::supervisor::{Ask, End, Supervisor, TICK, stopped};
use super::watchdog::{self, Verdict, Watchdog};
use crate::hub::{NodeId, Topic};

/// Notes that are taken from the relay at a time, and their bytes: what one round trip
/// to Redis carries.
const NOTES: usize = 4096;
const NOTE_BYTES: usize = 4 << 20;

/// Messages that are handled before something else has its turn.
const PUSHES: usize = 512;

/// Topics that are left at a time.
const LEAVES: usize = 512;

/// How long events wait for other nodes to listen again, after a link came up.
const HOLD: Duration = Duration::from_secs(4);

/// How long what is left may take when the server stops.
const FAREWELL: Duration = Duration::from_secs(2);

/// A session.
pub(super) struct Session<'a> {
    pub(super) supervisor: &'a mut Supervisor,
    pub(super) shards: Shards,
    /// What is sent next.
    pub(super) batch: Batch,
    /// What was sent and is not answered.
    flight: Option<InFlight>,
    /// Events that wait until other nodes listen again.
    pub(super) held: VecDeque<Outgoing>,
    /// Their bytes.
    held_bytes: usize,
    /// How long they wait at most; `None` when none does.
    hold_until: Option<Instant>,
    /// Nodes of which it is asked whether they listen, and the answers so far.
    listeners: Vec<(NodeId, Option<bool>)>,
    /// Whether all that is so here is being told: the end of it is in the relay.
    pub(super) is_telling: bool,
    /// Whether it has to be told once more then, since somebody has asked meanwhile.
    pub(super) tells_again: bool,
    /// Whether it was told in this session.
    pub(super) is_linked: bool,
    watchdog: Watchdog,
    /// When it looks next.
    watch: Instant,
    /// Topics that are to be left.
    pub(super) leaving: VecDeque<(Arc<str>, Topic)>,
    /// Redis channels that are asked not to be listened to any more, and how often.
    pub(super) ending: HashMap<Box<str>, usize>,
    /// When the next heartbeat is due.
    pub(super) beat: Instant,
    /// Connections that were let in by all nodes, by application.
    pub(super) admitted: Vec<i64>,
    /// Applications' connections that are waiting to be let in.
    pub(super) admitting: Vec<usize>,
}

/// Ends the session, and why.
pub(super) type Broken = String;

impl<'a> Session<'a> {
    pub(super) async fn run(supervisor: &'a mut Supervisor, shards: Shards) -> End {
        supervisor.begin();
        let apps = supervisor.apps.iter().len();
        let mut session = Self {
            batch: Batch::new(shards.servers.len()),
            flight: None,
            shards,
            held: VecDeque::new(),
            held_bytes: 0,
            ending: HashMap::new(),
            hold_until: None,
            listeners: Vec::new(),
            is_telling: false,
            tells_again: false,
            is_linked: false,
            watchdog: Watchdog::default(),
            watch: Instant::now(),
            leaving: VecDeque::new(),
            beat: Instant::now(),
            admitted: vec![-1; apps],
            admitting: vec![0; apps],
            supervisor,
        };
        let served = session.serve().await;
        // Of events in flight it is not known whether Redis has them; whoever got them
        // will know them by their numbers.
        let in_flight = session.flight.take().map(|flight| flight.events);
        let unsure = in_flight.into_iter().flatten();
        let unsent = std::mem::take(&mut session.batch.events);
        let held = std::mem::take(&mut session.held);
        // If it broke before they were taken over, those of the session before are there.
        let before = std::mem::take(&mut session.supervisor.unsure);
        let all = before.into_iter().chain(unsure).chain(unsent).chain(held);
        session.supervisor.unsure = all.collect();
        match served {
            Ok(()) => End::Stopped,
            Err(problem) => End::Broken(problem),
        }
    }

    async fn serve(&mut self) -> Result<(), Broken> {
        self.greet();
        self.depart();
        self.land().await?;
        self.supervisor.queue.go_up();
        self.supervisor.status.is_up.store(true, Ordering::Release);
        // Whatever was not known to be sent goes first, once the others listen again.
        self.held = std::mem::take(&mut self.supervisor.unsure);
        self.held_bytes = self.held.iter().map(|event| event.bytes).sum();
        self.hold_until = Some(Instant::now() + HOLD);
        self.tell_all();
        self.turn().await?;
        self.leave().await
    }

    /// Until the server stops.
    async fn turn(&mut self) -> Result<(), Broken> {
        let queue = Arc::clone(&self.supervisor.queue);
        let mut stop = self.supervisor.stop.clone();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pushed = Vec::new();
        loop {
            if self.flight.is_none() {
                // Whoever shares the core gets to tell more: one write for many notes
                // instead of one for each (twice the events per second, measured where
                // nodes and Redis have one core). With a core to itself it goes on at once.
                std::thread::yield_now();
                self.take_notes();
                self.depart();
            }
            let is_idle = self.flight.is_none();
            tokio::select! {
                count = self.shards.pushed.recv_many(&mut pushed, PUSHES) => {
                    if count == 0 { return Err("the connection is closed".to_owned()) }
                    for pushed in pushed.drain(..) { self.receive(pushed)? }
                }
                answers = landing(&mut self.flight) => self.settle(answers)?,
                () = poll_fn(|cx| queue.poll_ready(cx)), if is_idle => {}
                Some(ask) = self.supervisor.asks.recv() => self.ask(ask),
                _ = ticks.tick() => self.look_around()?,
                () = stopped(&mut stop) => return self.land().await,
            }
        }
    }

    /// What every session begins with: scripts, a heartbeat, the channels of all
    /// nodes and of this one.
    fn greet(&mut self) {
        for server in 0..self.shards.servers.len() {
            for script in self.supervisor.scripts.load() {
                self.batch
                    .add_to(server, Arc::new(script), Expect::Anything);
            }
        }
        let (all, own) = (
            self.supervisor.names.all(),
            self.supervisor.names.node(self.supervisor.node),
        );
        for bus in [&all, &own] {
            let command = self.subscription("SUBSCRIBE", bus);
            self.add(bus, command, Expect::Confirmed);
        }
        self.heartbeat();
        self.tell_all_nodes(&Message::Hello(self.supervisor.node));
    }

    /// Says goodbye: tells what has ended meanwhile, and goes off the list.
    async fn leave(&mut self) -> Result<(), Broken> {
        self.release();
        // What is not told in time, others take for gone when this node says so.
        let telling = async {
            loop {
                self.take_notes();
                if self.batch.is_empty() {
                    return Ok(());
                }
                self.depart();
                self.land().await?;
            }
        };
        let told: Result<Result<(), Broken>, _> = tokio::time::timeout(FAREWELL, telling).await;
        if let Ok(Err(problem)) = told {
            return Err(problem);
        }
        let farewell = async {
            let nodes = self.supervisor.names.nodes();
            let mut command = redis::cmd("ZREM");
            command.arg(&nodes).arg(self.supervisor.node.to_string());
            self.add(&nodes, command, Expect::Anything);
            self.tell_all_nodes(&Message::Bye(self.supervisor.node));
            self.depart();
            self.land().await
        };
        // If this is not heard in time, others notice by the missing heartbeat.
        tokio::time::timeout(FAREWELL, farewell)
            .await
            .unwrap_or(Ok(()))
            .or(Ok(()))
    }

    fn take_notes(&mut self) {
        let notes = self.supervisor.queue.take(NOTES, NOTE_BYTES);
        let wanted = self.wanted_topics();
        for (since, note) in notes {
            self.apply_update(since, note);
        }
        self.take_leave(LEAVES);
        if let Some(wanted) = wanted {
            self.compare(wanted);
        }
    }

    /// How many topics this node needs, if it is time to compare and the notes that were
    /// just taken make up all of them.
    fn wanted_topics(&mut self) -> Option<usize> {
        let now = Instant::now();
        if now < self.watch {
            return None;
        }
        let wanted = self.supervisor.hub.wanted_topics();
        let status = &self.supervisor.status;
        status.wanted.store(wanted, Ordering::Relaxed);
        // As long as not all was told in this session, it counts how long that takes.
        if self.is_linked && !self.supervisor.queue.has_told_topics() {
            self.watch = now + TICK;
            return None;
        }
        self.watch = now + watchdog::INTERVAL;
        Some(wanted)
    }

    /// Looks whether this node listens to as many topics as it needs.
    fn compare(&mut self, wanted: usize) {
        let status = &self.supervisor.status;
        let listening = status.listening.load(Ordering::Relaxed);
        match self.watchdog.compare(wanted, listening, Instant::now()) {
            Verdict::Complete => status.is_incomplete.store(false, Ordering::Relaxed),
            Verdict::Differs => {}
            Verdict::Incomplete => {
                status.is_incomplete.store(true, Ordering::Relaxed);
                tracing::warn!(
                    node = %self.supervisor.node,
                    wanted,
                    listening,
                    "this node does not listen to just what its sockets need; all is told again"
                );
                self.tell_all_anew();
            }
        }
    }

    pub(super) fn add(&mut self, key: &str, command: Cmd, expect: Expect) {
        self.batch.add(&self.shards, key, command, expect);
    }

    /// `SUBSCRIBE` or `UNSUBSCRIBE`, or what they are in a Redis Cluster.
    pub(super) fn subscription(&self, name: &str, bus: &str) -> Cmd {
        let sharded = if self.supervisor.scripts.is_sharded {
            "S"
        } else {
            ""
        };
        let mut command = redis::cmd(&format!("{sharded}{name}"));
        command.arg(bus);
        command
    }

    pub(super) fn publication(&self, bus: &str, message: &str) -> Cmd {
        let name = if self.supervisor.scripts.is_sharded {
            "SPUBLISH"
        } else {
            "PUBLISH"
        };
        let mut command = redis::cmd(name);
        command.arg(bus).arg(message);
        command
    }

    pub(super) fn tell_all_nodes(&mut self, message: &Message<'_>) {
        let all = self.supervisor.names.all();
        let command = self.publication(&all, &message.encode());
        self.add(&all, command, Expect::Anything);
    }

    /// Sends what there is to send.
    fn depart(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let next = Batch::new(self.shards.servers.len());
        let batch = std::mem::replace(&mut self.batch, next);
        self.flight = Some(batch.send(&self.shards));
    }

    /// Waits for the answers to what was sent, if something was.
    async fn land(&mut self) -> Result<(), Broken> {
        if self.flight.is_none() {
            return Ok(());
        }
        let answers = landing(&mut self.flight).await;
        self.settle(answers)
    }

    /// Handles the answers to a batch. What Redis published before it answered is
    /// handled first: a topic then has heard all that the answer does not tell.
    fn settle(&mut self, answers: Answers) -> Result<(), Broken> {
        while let Ok(pushed) = self.shards.pushed.try_recv() {
            self.receive(pushed)?;
        }
        let Some(flight) = &mut self.flight else {
            return Ok(());
        };
        let expects = std::mem::take(&mut flight.expects);
        for (answers, expects) in answers.into_iter().zip(expects) {
            self.settle_server(answers, expects)?;
        }
        if let Some(flight) = self.flight.take() {
            add(
                &self.supervisor.status.published,
                flight.events.len() as u64,
            );
        }
        Ok(())
    }

    fn settle_server(
        &mut self,
        answers: RedisResult<Vec<Value>>,
        expects: Vec<Expect>,
    ) -> Result<(), Broken> {
        let answers = answers.map_err(|error| error.to_string())?;
        if answers.len() != expects.len() {
            return Err("Redis gave another number of answers".to_owned());
        }
        for (answer, expect) in answers.into_iter().zip(expects) {
            if let Value::ServerError(error) = &answer {
                return Err(format!("Redis says {error}"));
            }
            // A shard that loses a slot says so unasked, which would be taken for an answer.
            if matches!(answer, Value::Push { .. }) != expect.is_confirmation() {
                return Err("Redis gave an answer to something else".to_owned());
            }
            self.answered(answer, expect)?;
        }
        Ok(())
    }

    /// What is done now and then.
    fn look_around(&mut self) -> Result<(), Broken> {
        let now = Instant::now();
        if self.shards.flood.is_over() {
            return Err("more came than could be handled".to_owned());
        }
        if self.supervisor.queue.is_swamped() {
            return Err("Redis is too slow for what is published".to_owned());
        }
        self.supervisor.queries.close_late(now);
        self.supervisor.tell_dropped();
        self.hold(now);
        if now >= self.beat {
            self.heartbeat();
            self.count_connections();
            self.refresh(now);
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
        while self.held_bytes > self.supervisor.settings.buffer_bytes
            && let Some(oldest) = self.held.pop_front()
        {
            self.held_bytes -= oldest.bytes;
            self.supervisor.queue.count_dropped(1);
        }
    }

    /// Asks whether all nodes that were known listen again, if that is waited for.
    fn hold(&mut self, now: Instant) {
        let Some(until) = self.hold_until else { return };
        let nodes: Vec<NodeId> = self.supervisor.nodes.iter().collect();
        if now >= until || nodes.is_empty() {
            return self.release();
        }
        if !self.listeners.is_empty() {
            return;
        }
        let name = if self.supervisor.scripts.is_sharded {
            "SHARDNUMSUB"
        } else {
            "NUMSUB"
        };
        self.listeners = nodes.iter().map(|node| (*node, None)).collect();
        for node in nodes {
            let bus = self.supervisor.names.listens(node);
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
            Ask::SurveyResult(question, reply) => {
                let now = Instant::now();
                if let Some(id) =
                    self.supervisor
                        .queries
                        .open(self.supervisor.nodes.iter(), reply, now)
                {
                    self.tell_all_nodes(&Message::Ask(self.supervisor.node, id, question));
                }
            }
            Ask::Admit(app, reply) => {
                let Some(max) = self
                    .supervisor
                    .apps
                    .at(app)
                    .and_then(|app| app.max_connections)
                else {
                    // Whoever asked may have gone.
                    let _ = reply.send(true);
                    return;
                };
                let key = self.supervisor.names.connections(app);
                let command = self.supervisor.scripts.admit(
                    &key,
                    self.supervisor.node,
                    max,
                    self.supervisor.nodes.iter(),
                );
                self.admitting[app] += 1;
                self.add(&key, command, Expect::Admitted(app, reply));
            }
            Ask::Last(app, channel, reply) => {
                let topic = Topic::Channel(app, channel);
                let names = self.supervisor.names.of(&topic);
                let command = self.supervisor.scripts.last(&names);
                self.add(&names.last, command, Expect::Wanted(reply));
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
                self.shards.flood.ebb(message.len());
                add(&self.supervisor.status.received, 1);
                self.receive_message(&bus, &message);
                Ok(())
            }
        }
    }
}

/// Waits for the answers to what was sent; for ever, if nothing was.
async fn landing(flight: &mut Option<InFlight>) -> Answers {
    match flight {
        Some(flight) => flight.answers.as_mut().await,
        None => std::future::pending().await,
    }
}

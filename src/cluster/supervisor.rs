//! The link to Redis over its whole life: it comes up, it breaks, it comes up again,
//! for as long as the server runs.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use super::codec::Question;
use super::connect::{ConnectError, Connector, Shards};
use super::keys::Keys;
use super::membership::Membership;
use super::pipeline::Outgoing;
use super::scripts::Scripts;
use super::sequence::SequenceCounter;
use super::session::Session;
use super::status::{Status, add};
use super::survey::{SurveyResult, Surveys};
use super::topics::{Last, Topics};
use crate::app::Apps;
use crate::config::Scaling;
use crate::hub::{ClusterQueue, Hub, NodeId, Topic};
use crate::protocol::ChannelName;

/// How often things are looked at.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// Pauses between attempts to connect: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// How often a problem that lasts is told again.
const REMIND: Duration = Duration::from_secs(60);

/// How long other nodes get to come back, after nobody could be heard.
const GRACE: Duration = Duration::from_secs(5);

/// Something that is wanted of the link. If it has none, it drops the reply.
#[derive(Debug)]
pub(super) enum Ask {
    /// What other nodes know.
    SurveyResult(Question, oneshot::Sender<SurveyResult>),
    /// Whether an application may have one more connection.
    Admit(usize, oneshot::Sender<bool>),
    /// The last event of a cache channel.
    Last(usize, ChannelName, oneshot::Sender<Last>),
}

/// Why a session has ended.
#[derive(Debug)]
pub(super) enum End {
    /// The server stops, and has said so.
    Stopped,
    /// This went wrong.
    Broken(String),
}

/// Everything that outlasts a session.
pub(super) struct Supervisor {
    pub(super) hub: Arc<Hub>,
    pub(super) queue: Arc<ClusterQueue>,
    pub(super) apps: Apps,
    pub(super) node: NodeId,
    pub(super) names: Keys,
    pub(super) scripts: Scripts,
    pub(super) status: Arc<Status>,
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) topics: Topics,
    /// [`super::topics::Entry::serial`] of the last one.
    pub(super) entry_generation: u64,
    /// Topics that this node needs no more, until Redis has taken its facts out.
    pub(super) left: HashMap<Arc<str>, Topic>,
    /// Nodes that are not known to be alive and whose facts are there: since when, and
    /// in which topics.
    pub(super) suspects: HashMap<NodeId, (Instant, HashSet<Arc<str>>)>,
    /// Events of which it was said that they were dropped.
    pub(super) told_dropped: u64,
    pub(super) nodes: Membership,
    pub(super) counting: SequenceCounter,
    pub(super) queries: Surveys,
    /// Events of which it is not known whether Redis has them.
    pub(super) unsure: VecDeque<Outgoing>,
    pub(super) settings: Scaling,
}

impl Supervisor {
    pub(super) fn lease(settings: &Scaling) -> Duration {
        settings.node_timeout * 3 / 4
    }

    /// Runs until the server stops. `shards` is the link that is already up, if it is.
    pub(super) async fn run(mut self, dialer: Connector, mut shards: Option<Shards>) {
        let mut pause = PAUSES.0;
        let mut told: Option<(String, Instant)> = None;
        loop {
            let dialed = match shards.take() {
                Some(shards) => Ok(shards),
                None => self.dial_alone(&dialer).await,
            };
            let problem = match dialed {
                Ok(shards) => {
                    let began = Instant::now();
                    match Session::run(&mut self, shards).await {
                        End::Stopped => return,
                        End::Broken(problem) => {
                            if began.elapsed() > PAUSES.1 {
                                pause = PAUSES.0;
                            }
                            self.go_alone();
                            problem
                        }
                    }
                }
                Err(None) => return,
                Err(Some(error)) => error.to_string(),
            };
            // The same problem is not told every two seconds.
            let is_known =
                |(text, at): &(String, Instant)| *text == problem && at.elapsed() < REMIND;
            if !told.as_ref().is_some_and(is_known) {
                tracing::warn!(
                    node = %self.node,
                    "no link to other nodes: {problem}; local subscribers are served, trying again"
                );
                told = Some((problem, Instant::now()));
            }
            if !self.stay_alone(jittered(pause)).await {
                return;
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    fn go_alone(&mut self) {
        self.status.is_up.store(false, Ordering::Release);
        self.status.listening.store(0, Ordering::Relaxed);
        self.status.is_incomplete.store(false, Ordering::Relaxed);
        self.hub.go_alone();
        self.queries.close_all();
        for entry in self.topics.values_mut() {
            entry.lose_link();
        }
        // They were taken out of the relay, whose bound holds for them, too.
        let (bytes, time) = (self.settings.buffer_bytes, self.settings.buffer_time);
        let mut room = bytes.saturating_sub(self.queue.bytes());
        let mut dropped = 0;
        self.unsure.retain(|event| {
            let is_kept = event.since.elapsed() <= time && event.bytes <= room;
            if is_kept {
                room -= event.bytes;
            } else {
                dropped += 1;
            }
            is_kept
        });
        self.queue.count_dropped(dropped);
    }

    /// Connects, while what is alone is looked after. `Err(None)` when the server stops.
    async fn dial_alone(&mut self, dialer: &Connector) -> Result<Shards, Option<ConnectError>> {
        let mut dialing = Box::pin(dialer.dial());
        loop {
            tokio::select! {
                dialed = &mut dialing => return dialed.map_err(Some),
                goes_on = self.stay_alone(TICK) => if !goes_on { return Err(None) },
            }
        }
    }

    /// Looks after what is to be done without a link. False when the server stops.
    async fn stay_alone(&mut self, time: Duration) -> bool {
        let until = tokio::time::Instant::now() + time;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return true,
                () = stopped(&mut stop) => return false,
                // Dropping it says that there is no link.
                Some(ask) = self.asks.recv() => drop(ask),
                _ = ticks.tick() => {
                    let wanted = self.hub.wanted_topics();
                    self.status.wanted.store(wanted, Ordering::Relaxed);
                    self.queue.expire();
                    self.tell_dropped();
                    let time = self.settings.buffer_time;
                    let before = self.unsure.len();
                    self.unsure.retain(|event| event.since.elapsed() <= time);
                    self.queue.count_dropped((before - self.unsure.len()) as u64);
                    for node in self.nodes.give_up_late(Instant::now()) {
                        self.forget(node);
                    }
                }
            }
        }
    }

    /// Says how many events were dropped since it was said last.
    pub(super) fn tell_dropped(&mut self) {
        let dropped = self.queue.dropped();
        if dropped > self.told_dropped {
            tracing::warn!(
                events = dropped - self.told_dropped,
                "dropped events for other nodes, for which Redis is too slow or away too long"
            );
            self.told_dropped = dropped;
        }
    }

    /// A node is gone. Returns the Redis channels of the topics it had a part in.
    pub(super) fn forget(&mut self, node: NodeId) -> Vec<Arc<str>> {
        tracing::warn!(%node, "a node is gone; its members are taken out");
        self.queries.forget(node);
        self.status
            .nodes
            .store(self.nodes.len() + 1, Ordering::Relaxed);
        for entry in self.topics.values_mut() {
            entry.spare_no_more(node);
        }
        let topics = self.hub.forget_node(node);
        topics
            .iter()
            .map(|topic| Arc::from(self.names.bus(topic)))
            .collect()
    }

    /// A link is up: others get some time to be heard.
    pub(super) fn begin(&mut self) {
        let grace = GRACE.min(self.settings.node_timeout / 3);
        self.nodes.excuse(Instant::now(), grace);
        add(&self.status.links, 1);
    }
}

/// Is done when the server stops.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Whoever could say so being gone means the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Between half of a pause and all of it, so that nodes do not all come at once.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0; 1];
    // Without random numbers the pause is whole.
    let part = getrandom::fill(&mut random).map_or(255, |()| random[0]);
    pause / 2 + pause / 2 * u32::from(part) / 255
}

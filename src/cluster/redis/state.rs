//! Everything of a node that outlasts a session with Redis.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::keys::{Claim, Keys};
use super::pipeline::Outgoing;
use super::scripts::Scripts;
use crate::apps::{AppHandle, AppRegistry};
use crate::cluster::codec::Question;
use crate::cluster::membership::Membership;
use crate::cluster::peers::NodeInfo;
use crate::cluster::sequence::SequenceCounter;
use crate::cluster::status::Status;
use crate::cluster::survey::{SurveyResult, Surveys};
use crate::cluster::view::{Last, Views};
use crate::config::Scaling;
use crate::hub::{ClusterQueue, Hub, NodeId, Topic};
use crate::lifecycle::Lifecycle;
use crate::protocol::ChannelName;

/// How long other nodes get to come back after a link came up, since theirs may have
/// broken, too.
const GRACE: Duration = Duration::from_secs(5);

/// Something that is wanted of the link. If it has none, it drops the reply.
#[derive(Debug)]
pub(in crate::cluster) enum Ask {
    /// What other nodes know.
    Survey(Question, oneshot::Sender<SurveyResult>),
    /// Whether an application may have one more connection.
    Admit(AppHandle, oneshot::Sender<bool>),
    /// Whether a request was claimed before, which it is then: what was known of it.
    Claim(Claim, Vec<u8>, Duration, oneshot::Sender<Option<Vec<u8>>>),
    /// What is to be known of a request in place of this text, and how long, or nothing any more.
    PutClaim(Claim, Vec<u8>, (Option<Vec<u8>>, Duration)),
    /// The last event of a cache channel.
    Last(AppHandle, ChannelName, oneshot::Sender<Last>),
}

/// A node, whether it has a link to others or not.
pub(in crate::cluster) struct State {
    pub(in crate::cluster) hub: Arc<Hub>,
    pub(in crate::cluster) queue: Arc<ClusterQueue>,
    pub(in crate::cluster) apps: Arc<AppRegistry>,
    pub(in crate::cluster) node: NodeId,
    pub(in crate::cluster) keys: Keys,
    pub(in crate::cluster) scripts: Scripts,
    pub(in crate::cluster) status: Arc<Status>,
    pub(in crate::cluster) asks: mpsc::Receiver<Ask>,
    /// The link's own.
    pub(in crate::cluster) lifecycle: Lifecycle,
    /// The server's, which is over before.
    pub(in crate::cluster) server: Lifecycle,
    pub(in crate::cluster) views: Views,
    /// Topics that do not concern this node any more, until Redis has taken its facts out.
    pub(in crate::cluster) left: HashMap<Arc<str>, Topic>,
    /// Nodes that are not known to be alive and whose facts are there: since when, and
    /// in which topics.
    pub(in crate::cluster) unknown_nodes: HashMap<NodeId, (Instant, HashSet<Arc<str>>)>,
    /// Nodes that went while there was no link: their channels are still to be taken out.
    pub(in crate::cluster) unreaped: HashSet<NodeId>,
    /// Events of which it was logged that they were dropped.
    pub(in crate::cluster) logged_dropped: u64,
    pub(in crate::cluster) nodes: Membership,
    pub(in crate::cluster) sequences: SequenceCounter,
    pub(in crate::cluster) surveys: Surveys,
    /// What this node says of itself.
    pub(in crate::cluster) info: NodeInfo,
    /// Events of which it is not known whether Redis has them.
    pub(in crate::cluster) unsure: VecDeque<Outgoing>,
    pub(in crate::cluster) settings: Scaling,
}

impl State {
    /// Silence after which a node is taken for gone: a little less than the time-out, of
    /// which its heartbeats take the rest.
    pub(in crate::cluster) fn lease(settings: &Scaling) -> Duration {
        settings.node_timeout * 3 / 4
    }

    /// A link is up: others get some time to show themselves.
    pub(super) fn excuse_others(&mut self) {
        let grace = GRACE.min(self.settings.node_timeout / 3);
        self.nodes.excuse(Instant::now(), grace);
    }

    /// The link is gone.
    pub(super) fn go_alone(&mut self) {
        let was_up = self.status.is_up.swap(false, Ordering::AcqRel);
        self.status.listening.store(0, Ordering::Relaxed);
        self.status.is_incomplete.store(false, Ordering::Relaxed);
        self.hub.go_alone();
        self.surveys.close_all();
        for view in self.views.values_mut() {
            view.lose_link();
        }
        // Nothing can come from others until it is back. Once: a link that never came up
        // has changed nothing.
        if was_up {
            let timeout = self.settings.node_timeout;
            self.nodes.excuse(Instant::now(), timeout);
        }
        // They were taken out of the queue, whose bound holds for them, too.
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

    /// What is to be done now and then without a link.
    pub(super) fn tick_alone(&mut self) {
        let wanted = self.hub.wanted_topics();
        self.status.wanted.store(wanted, Ordering::Relaxed);
        self.queue.expire();
        self.log_dropped();
        let time = self.settings.buffer_time;
        let before = self.unsure.len();
        self.unsure.retain(|event| event.since.elapsed() <= time);
        self.queue
            .count_dropped((before - self.unsure.len()) as u64);
        for node in self.nodes.remove_late(Instant::now()) {
            self.forget(node);
            self.unreaped.insert(node);
        }
    }

    /// Logs how many events were dropped since it was logged last.
    pub(super) fn log_dropped(&mut self) {
        let dropped = self.queue.dropped();
        if dropped > self.logged_dropped {
            tracing::warn!(
                events = dropped - self.logged_dropped,
                "dropped events for other nodes, for which Redis is too slow or away too long"
            );
            self.logged_dropped = dropped;
        }
    }

    /// A node is gone. Returns the Redis channels of the topics it had a part in.
    pub(super) fn forget(&mut self, node: NodeId) -> Vec<Arc<str>> {
        tracing::warn!(%node, "a node is gone; its members are taken out");
        self.surveys.forget(node);
        self.status
            .nodes
            .store(self.nodes.len() + 1, Ordering::Relaxed);
        for view in self.views.values_mut() {
            view.forget_node(node);
        }
        let topics = self.hub.forget_node(node);
        topics
            .iter()
            .map(|topic| Arc::from(self.keys.bus(topic)))
            .collect()
    }
}

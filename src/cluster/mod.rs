//! Other nodes, through Redis. No delivery to local sockets waits here; the answer to a
//! subscription or a sign-in does, until other nodes know of it.
//!
//! What is decided is decided without Redis and without a clock, in modules that can be
//! tested alone: who is alive (`membership`), what is known of a topic and what has to be
//! sent of it (`view`), which events came twice or not at all (`sequence`), what is asked
//! of all (`survey`), whether nodes understand each other ([`peers`]), and how it is
//! written ([`codec`]). [`redis`] carries it out.
//!
//! # Topics
//!
//! A *topic* is a Pusher channel or a signed-in user of an application. A node that
//! has subscribers (or watchers) listens to the topic's Redis channel, and to no
//! other: its work grows with what its own sockets want. All keys and the Redis
//! channel of a topic share one hash tag, `{app/kind/name}`, so that a script which
//! changes and publishes is correct in a Redis Cluster, and the channel can be a
//! sharded one there.
//!
//! # What is kept in Redis
//!
//! | key | holds | lives |
//! |---|---|---|
//! | `…:nodes` | nodes by the time of their last heartbeat | until it is late |
//! | `…:infos` | what nodes say of themselves ([`peers::NodeInfo`]) | as long as they are in `…:nodes` |
//! | `…:{topic}:s` | facts of a topic: an *epoch*, a version, and each node's facts | until the last node leaves the topic; an hour from the last change or refresh |
//! | `…:{topic}:e` | the last event of a cache channel | the application's `cache.ttl` |
//! | `…:{app}:cache`, `…:{app}:cache:sizes` | those channels by the time at which their events expire, and their sizes | as long as they |
//! | `…:{app/r/id}` | a publish request that is carried out once: that it is, or how it was answered | `idempotency_ttl`, or the application's `duplicate_window` |
//! | `…:{app}:connections` | connections by node, only with `max_connections` | an hour |
//! | `…:{node}:occupied` | a node's channels, only while occupation is tracked | an hour from the last refresh |
//!
//! *Facts* are a node's own: which users are in a presence channel there, how many
//! subscribers it has, whether a user is signed in there. Nobody else writes them.
//! A reader merges the facts of the nodes that are alive. So a node that dies takes
//! its facts with it when its heartbeat is late, and no transaction has to span nodes.
//!
//! # How a topic is kept the same
//!
//! 1. What has changed here is a set of topics ([`crate::hub::ClusterQueue`]). The session
//!    takes one, reads how it is now ([`crate::hub::LocalState`]), sends what differs from
//!    what it has sent, and when Redis has answered confirms the generation and version
//!    that it read: the hub answers who has waited for that version or an earlier one.
//! 2. A topic that is new, or another generation of one: `SUBSCRIBE`, and in the same
//!    pipeline the script that enters this node's facts and returns all of them
//!    (`scripts`). So nothing published after the answer is missed, and the first list of
//!    members is complete. One that ended: the facts are taken out, with the last of them
//!    the key, and `UNSUBSCRIBE`.
//! 3. Changes of facts carry the topic's version in Redis, which the script counts. One
//!    that does not follow the last one makes the node read all facts again.
//! 4. The *epoch* is a random text that is made when the facts are: another one means
//!    that Redis has lost them. Then nobody is removed for being absent, until the
//!    node in question has entered its facts again, or is gone.
//!
//! # Faults
//!
//! - No connection, or one that says nothing for three seconds: the node goes on
//!   alone ([`crate::hub::Hub::go_alone`]). Events for others are kept within a bound
//!   in bytes and time; others' members are shown until their nodes are late.
//! - After every connection, all topics are entered anew, and what is no longer true is
//!   taken out: there is one path for a start, a restart of Redis, one that was emptied,
//!   and a node that was paused. Whoever asks for it before the link is up gets it
//!   then, and whoever asks while it is under way gets it once more.
//! - A key of another type degrades its topic: who waits is answered with what is known
//!   here, and it is tried again every few seconds.
//! - The hub's number of topics is compared with that of those that are listened to
//!   (`watchdog`). If they differ for seconds, the node is not ready, and all is sent
//!   again.
//! - Events are numbered by publisher and channel, so that one sent again is not
//!   delivered again, and one that is missing is counted.
//!
//! Messages between nodes are defined in [`codec`]: versioned, bounded, parsed strictly;
//! whatever cannot be read is ignored and counted.

pub mod codec;
mod membership;
pub mod peers;
pub mod redis;
mod sequence;
mod status;
mod survey;
mod view;
mod watchdog;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::apps::{AppHandle, AppRegistry};
use crate::config::Scaling;
use crate::hub::{BufferLimits, ClusterQueue, Hub, NodeId, Query};
use crate::lifecycle::{Lifecycle, StopOnDrop};
use crate::protocol::{ChannelName, Frame};
use codec::Question;
use membership::Membership;
use peers::NodeInfo;
use redis::connect::Connector;
use redis::keys::Keys;
use redis::scripts::Scripts;
use redis::state::{Ask, State};
use redis::supervisor;
use sequence::SequenceCounter;
use survey::Surveys;
use view::Views;

pub use redis::connect::ConnectError;
pub use redis::link::{Link, LinkError};
pub use status::Status;
pub use survey::SurveyResult;
pub use view::Snapshot;

/// Questions to the link that may wait.
const MAX_ASKS: usize = 1024;

/// How long the first attempt to connect may hold up the start.
const FIRST_ATTEMPT: Duration = Duration::from_secs(3);

/// Other nodes, for whoever has to ask them.
#[derive(Clone, Debug)]
pub struct Cluster {
    status: Arc<Status>,
    asks: mpsc::Sender<Ask>,
}

/// A node that is not linked to the others yet.
pub struct Node {
    status: Arc<Status>,
    queue: Arc<ClusterQueue>,
    connector: Connector,
    asks: (mpsc::Sender<Ask>, mpsc::Receiver<Ask>),
    settings: Scaling,
}

/// A node's link, which runs until it is stopped.
pub struct Running {
    task: JoinHandle<()>,
    stop: StopOnDrop,
}

impl Node {
    /// A node with an id of its own. Reads certificates, and connects to nothing.
    ///
    /// # Errors
    /// If a certificate cannot be used.
    pub fn new(settings: &Scaling) -> Result<Self, ConnectError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).expect("the system has random numbers");
        let kept = BufferLimits {
            bytes: settings.buffer_bytes,
            time: settings.buffer_time,
        };
        let queue = Arc::new(ClusterQueue::new(kept));
        let node = NodeId(u64::from_ne_bytes(random));
        Ok(Self {
            status: Arc::new(Status::new(node, Arc::clone(&queue))),
            queue,
            connector: Connector::new(&settings.redis)?,
            asks: mpsc::channel(MAX_ASKS),
            settings: settings.clone(),
        })
    }

    /// Where the hub has to put what others must know.
    pub fn queue(&self) -> &Arc<ClusterQueue> {
        &self.queue
    }

    /// A link of its own to the same Redis, and which node this one is there.
    pub fn link(&self) -> (Link, NodeId) {
        let settings = &self.settings;
        let connector = self.connector.clone();
        let link = Link::new(connector, &settings.namespace, settings.node_timeout);
        (link, self.status.node)
    }

    /// For whoever has to ask other nodes.
    pub fn cluster(&self) -> Cluster {
        Cluster {
            status: Arc::clone(&self.status),
            asks: self.asks.0.clone(),
        }
    }

    /// Connects, for three seconds at most, and goes on in the background. Other nodes are
    /// told when `server` drains.
    ///
    /// # Errors
    /// If Redis is required and cannot be used.
    pub async fn start(
        self,
        hub: &Arc<Hub>,
        apps: &Arc<AppRegistry>,
        server: &Lifecycle,
    ) -> Result<Running, ConnectError> {
        let first = tokio::time::timeout(FIRST_ATTEMPT, self.connector.connect()).await;
        let shards = match first {
            Ok(Ok(shards)) => Some(shards),
            Ok(Err(error)) if self.settings.require_redis => return Err(error),
            Err(_) if self.settings.require_redis => {
                return Err(ConnectError::Unusable {
                    redis: self.settings.redis.to_string(),
                    error: "it does not answer".to_owned(),
                });
            }
            Ok(Err(error)) => {
                tracing::warn!("{error}; starting without other nodes, and trying again");
                None
            }
            Err(_) => None,
        };
        // Not the server's, whose connections it has to announce until the last is closed.
        let lifecycle = Lifecycle::new();
        let stop = lifecycle.stop_on_drop();
        let state = State {
            hub: Arc::clone(hub),
            queue: self.queue,
            apps: Arc::clone(apps),
            node: self.status.node,
            keys: Keys::new(&self.settings.namespace),
            scripts: Scripts::new(self.connector.is_sharded()),
            status: self.status,
            asks: self.asks.1,
            lifecycle,
            server: server.clone(),
            views: Views::new(),
            left: HashMap::new(),
            unknown_nodes: HashMap::new(),
            unreaped: HashSet::new(),
            logged_dropped: 0,
            nodes: Membership::new(State::lease(&self.settings)),
            sequences: SequenceCounter::new(),
            surveys: Surveys::default(),
            info: NodeInfo::own(self.settings.track_occupancy),
            unsure: VecDeque::new(),
            settings: self.settings,
        };
        Ok(Running {
            task: tokio::spawn(supervisor::run(state, self.connector, shards)),
            stop,
        })
    }
}

impl Running {
    /// Is done when the link has ended, which it does not do by itself.
    pub async fn ended(&mut self) {
        // Whether it ended or panicked, it is gone.
        let _ = (&mut self.task).await;
    }

    /// Sends what is left and that this node is going, and ends: within seconds.
    pub async fn stop(self) {
        drop(self.stop);
        // It has panicked, and said so.
        let _ = self.task.await;
    }
}

impl Cluster {
    /// How the link stands.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// What other nodes know; `None` without a link to them.
    pub async fn survey(&self, app: &AppHandle, query: Query) -> Option<SurveyResult> {
        let (reply, answer) = oneshot::channel();
        let question = Question {
            app: app.id().to_owned(),
            about: query.into(),
        };
        self.ask(Ask::Survey(question, reply)).await?;
        answer.await.ok()
    }

    /// Whether the application may have one more connection on all nodes together;
    /// `None` without a link to them.
    pub async fn admit(&self, app: &AppHandle) -> Option<bool> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Admit(app.clone(), reply)).await?;
        answer.await.ok()
    }

    /// Claims a request for `ttl` with a text that says so. Returns the text that was there, which
    /// is left; the outer `None` without a link.
    pub async fn claim(
        &self,
        (app, id): (&AppHandle, [u8; 16]),
        text: Vec<u8>,
        ttl: Duration,
    ) -> Option<Option<Vec<u8>>> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Claim((app.clone(), id), text, ttl, reply))
            .await?;
        answer.await.ok()
    }

    /// Says what is known of a request from now on, and for how long, or that it is given up, in
    /// place of the text that it was claimed with. Best effort: nobody waits for it.
    pub fn put_claim(
        &self,
        (app, id): (&AppHandle, [u8; 16]),
        before: &[u8],
        known: (Option<Vec<u8>>, Duration),
    ) {
        if self.status.is_up() {
            let claim = (app.clone(), id);
            // If too much waits, the claim goes by itself.
            let _ = self
                .asks
                .try_send(Ask::PutClaim(claim, before.to_owned(), known));
        }
    }

    /// The last event of a cache channel and how long it is kept; the outer `None`
    /// without a link.
    pub async fn last(
        &self,
        app: &AppHandle,
        name: &ChannelName,
    ) -> Option<Option<(Frame, Duration)>> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Last(app.clone(), name.clone(), reply))
            .await?;
        answer.await.ok()
    }

    async fn ask(&self, ask: Ask) -> Option<()> {
        if !self.status.is_up() {
            return None;
        }
        self.asks.send(ask).await.ok()
    }
}

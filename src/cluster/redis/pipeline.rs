//! Commands that go to Redis together, and what their answers are for.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;
use redis::{Cmd, Pipeline, RedisResult, ServerError, Value};
use tokio::sync::oneshot;

use super::connect::Shards;
use super::keys;
use crate::apps::AppHandle;
use crate::cluster::view::Last;
use crate::hub::{NodeId, Topic};

/// What is done with an answer.
pub(super) enum Expect {
    /// Nothing, as long as it is no error.
    Anything,
    /// Last events of an application that have to go.
    Evicted(AppHandle),
    /// Nothing, but it has to confirm that something is subscribed to or is not any more.
    Confirmed,
    /// All facts of a topic.
    Facts(Arc<str>),
    /// The last event of a topic.
    Last(Arc<str>),
    /// Whether this node's other facts of the topic are there.
    Changed(Arc<str>),
    /// No answer: everything about a topic that was sent before is answered.
    Synced(Arc<str>),
    /// That this node's facts of a topic are taken out.
    Left(Arc<str>),
    /// Whether a node that is gone was the last in a channel.
    Reaped(Topic),
    /// Some channels of a node that is gone.
    Occupied(NodeId),
    /// Which nodes are alive; asked then.
    Heartbeat(Instant),
    /// Whether a node has subscribed to all that it needs.
    Listens(NodeId),
    /// Whether a connection of this application may be let in.
    Admitted(AppHandle, oneshot::Sender<bool>),
    /// What was known of a request that somebody claims.
    Claimed(oneshot::Sender<Option<Vec<u8>>>),
    /// The last event of a topic, for somebody who asked.
    Wanted(oneshot::Sender<Last>),
}

impl Expect {
    /// Whether Redis answers by confirming a subscription or its end.
    pub(super) fn is_confirmation(&self) -> bool {
        matches!(self, Self::Confirmed)
    }

    /// Whether an error concerns one key, which has a type or a value that is none of ours,
    /// and not the link.
    pub(super) fn is_about_one_key(&self, error: &ServerError) -> bool {
        let is_about_all = matches!(self, Self::Confirmed | Self::Heartbeat(_));
        let text = error.to_string();
        let of_values = [
            "WRONGTYPE",
            "is not an integer",
            "is not a valid float",
            "would overflow",
            "attempt to",
        ];
        !is_about_all && of_values.iter().any(|part| text.contains(part))
    }
}

/// An event on its way, kept until Redis has it.
pub(in crate::cluster) struct Outgoing {
    pub(super) since: Instant,
    pub(super) command: Arc<Cmd>,
    pub(super) slot: u16,
    /// Enters it among the last events of its application, if it is one.
    pub(super) index: Option<Indexed>,
    /// Bytes of its message.
    pub(super) bytes: usize,
}

/// Enters an event among the last events of an application.
pub(in crate::cluster) struct Indexed {
    pub(super) app: AppHandle,
    pub(super) command: Arc<Cmd>,
    pub(super) slot: u16,
}

/// Commands by server, and the events among them.
pub(super) struct Batch {
    by_server: Vec<(Vec<Arc<Cmd>>, Vec<Expect>)>,
    pub(super) events: Vec<Outgoing>,
}

/// Answers by server.
pub(super) type Answers = Vec<RedisResult<Vec<Value>>>;

/// A batch that was sent.
pub(super) struct InFlight {
    pub(super) answers: Pin<Box<dyn Future<Output = Answers> + Send>>,
    pub(super) expects: Vec<Vec<Expect>>,
    pub(super) events: Vec<Outgoing>,
}

impl Batch {
    pub(super) fn new(servers: usize) -> Self {
        Self {
            by_server: (0..servers).map(|_| (Vec::new(), Vec::new())).collect(),
            events: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        // What is expected need not be an answer to a command.
        self.by_server.iter().all(|(_, expects)| expects.is_empty())
    }

    /// Adds a command on `key`.
    pub(super) fn add(&mut self, shards: &Shards, key: &str, command: Cmd, expect: Expect) {
        let server = shards.of_slot(keys::slot(key));
        self.add_to(server, Arc::new(command), expect);
    }

    pub(super) fn add_to(&mut self, server: usize, command: Arc<Cmd>, expect: Expect) {
        let (commands, expects) = &mut self.by_server[server];
        commands.push(command);
        expects.push(expect);
    }

    /// Expects something once everything about `key` that was added is answered.
    pub(super) fn then(&mut self, shards: &Shards, key: &str, expect: Expect) {
        let server = shards.of_slot(keys::slot(key));
        let (_, expects) = &mut self.by_server[server];
        expects.push(expect);
    }

    /// Adds an event, which is kept until it is known to be sent.
    pub(super) fn add_event(&mut self, shards: &Shards, event: Outgoing) {
        if let Some(index) = &event.index {
            let server = shards.of_slot(index.slot);
            let expect = Expect::Evicted(index.app.clone());
            self.add_to(server, Arc::clone(&index.command), expect);
        }
        let server = shards.of_slot(event.slot);
        self.add_to(server, Arc::clone(&event.command), Expect::Anything);
        self.events.push(event);
    }

    /// Sends everything, each server's commands in their order.
    pub(super) fn send(self, shards: &Shards) -> InFlight {
        let mut sent = Vec::new();
        let mut expects = Vec::new();
        for (shard, (commands, expected)) in shards.servers.iter().zip(self.by_server) {
            expects.push(expected);
            let mut connection = shard.connection.clone();
            sent.push(async move {
                if commands.is_empty() {
                    return Ok(Vec::new());
                }
                let mut pipeline = Pipeline::with_capacity(commands.len());
                let count = commands.len();
                for command in commands {
                    pipeline.add_command(Arc::unwrap_or_clone(command));
                }
                connection.send_packed_commands(&pipeline, 0, count).await
            });
        }
        InFlight {
            answers: Box::pin(join_all(sent)),
            expects,
            events: self.events,
        }
    }
}

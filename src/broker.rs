//! The one service that the HTTP API and the WebSockets call.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indexmap::IndexMap;

use crate::apps::{AppHandle, Counter, Timing};
use crate::cluster::{Cluster, SurveyResult};
pub use crate::hub::{ChannelSummary, Query, Unsubscribed};
use crate::hub::{Hub, Publisher, Slot};
use crate::protocol::publish::Publish;
use crate::protocol::{ChannelName, CloseReason, Frame, SocketId, message};

/// Publishes to channels and answers questions about them.
#[derive(Clone)]
pub struct Broker {
    hub: Arc<Hub>,
    cluster: Option<Cluster>,
}

/// What all nodes know of one request that is carried out once.
pub struct Claims {
    cluster: Cluster,
    app: AppHandle,
    id: [u8; 16],
}

impl Claims {
    /// Claims it for `ttl`, unless another text is there, which is returned. The outer `None`
    /// without a link to other nodes.
    pub async fn claim(&self, text: Vec<u8>, ttl: Duration) -> Option<Option<Vec<u8>>> {
        self.cluster.claim((&self.app, self.id), text, ttl).await
    }

    /// Says what is known of it from now on and for how long, or that it is given up, in place of
    /// the text that it was claimed with.
    pub fn put(&self, before: &[u8], known: (Option<Vec<u8>>, Duration)) {
        self.cluster.put_claim((&self.app, self.id), before, known);
    }
}

/// Channels with what all nodes know of them.
#[derive(Debug, Default)]
pub struct ChannelSummaries {
    /// By name.
    pub channels: IndexMap<String, ChannelSummary>,
    /// What is missing, if something is.
    pub partial: Option<Partial>,
}

/// Why an answer does not cover all nodes. The texts go into a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Partial {
    /// Redis is away.
    #[error("no link to other nodes")]
    Alone,
    /// Some did not answer in time.
    #[error("{silent} of {nodes} nodes did not answer")]
    Silent {
        /// How many.
        silent: usize,
        /// Of how many.
        nodes: usize,
    },
}

/// An event that a client sends to the others.
#[derive(Clone, Copy, Debug)]
pub struct ClientEvent<'a> {
    /// Its name, `client-` included.
    pub name: &'a str,
    /// Where it goes.
    pub channel: &'a ChannelName,
    /// Its payload as JSON.
    pub data: Option<&'a str>,
    /// Who sends it, in a presence channel, as JSON.
    pub user_id: Option<&'a str>,
    /// The connection that sends it and does not get it back.
    pub from: SocketId,
}

impl Broker {
    /// A broker for the channels of `hub`, on this node and on others, if there may be any.
    pub fn new(hub: Arc<Hub>, cluster: Option<Cluster>) -> Self {
        Self { hub, cluster }
    }

    /// Whether a message can be taken now; if not, its sender has to wait or is
    /// refused.
    pub fn has_room(&self) -> bool {
        self.hub.has_room()
    }

    /// Whether a client may change what other nodes have to know; if not, it has to wait.
    pub fn has_room_for_changes(&self) -> bool {
        self.hub.has_room_for_changes()
    }

    /// Waits until there is room for a message. Whoever waits bounds the time.
    pub async fn wait_for_room(&self) {
        self.wait_until(Self::has_room).await;
    }

    /// Waits until there is room for a client's change. Whoever waits bounds the time.
    pub async fn wait_for_room_for_changes(&self) {
        self.wait_until(Self::has_room_for_changes).await;
    }

    async fn wait_until(&self, has_room: impl Fn(&Self) -> bool) {
        loop {
            let mut freed = pin!(self.hub.freed());
            freed.as_mut().enable();
            if has_room(self) {
                return;
            }
            freed.await;
        }
    }

    /// Sends an application's event to its channels. Cache channels keep it. Calls `each`
    /// with every channel and how many subscribers it has here; returns how many all have.
    pub fn publish(
        &self,
        app: &AppHandle,
        publish: &Publish<'_>,
        each: impl Fn(&ChannelName, usize),
    ) -> usize {
        let mut reached = 0;
        let except = publish.except;
        let publisher = Publisher::Application { except };
        for channel in &publish.channels {
            let encode = || message::event(publish.name, publish.data, channel);
            let subscribers = if channel.kind().is_cache() {
                self.hub
                    .publish_and_keep(app, channel, publish.except, encode())
            } else {
                self.hub.publish(app, channel, publisher, encode)
            };
            each(channel, subscribers);
            reached += subscribers;
        }
        reached
    }

    /// Sends a client's event to the other subscribers of its channel.
    pub fn client_event(&self, app: &AppHandle, event: &ClientEvent<'_>) {
        let ClientEvent {
            name,
            channel,
            data,
            user_id,
            from,
        } = *event;
        let encode = || message::client_event(name, data, channel, user_id);
        let publisher = Publisher::Client {
            socket: from,
            event: name,
            data,
            user_id,
        };
        let subscribers = self.hub.publish(app, channel, publisher, encode);
        tracing::debug!(app = app.id(), %channel, event = name, %from, subscribers, "client event");
    }

    /// Connections of an application, on all nodes.
    pub async fn connections(&self, app: &AppHandle) -> (u64, Option<Partial>) {
        let (others, partial) = self.others(app, Query::Connections).await;
        let local = app.connections() as u64;
        (local.saturating_add(others.connections), partial)
    }

    /// Occupied channels, on all nodes.
    pub async fn channels(&self, app: &AppHandle, query: Query) -> ChannelSummaries {
        let (others, partial) = self.others(app, query.clone()).await;
        let (here, users) = match &query {
            Query::Connections => (Vec::new(), false),
            Query::Channel { name, users } => {
                (self.hub.find(app, name).into_iter().collect(), *users)
            }
            Query::Channels { prefix, users } => (self.hub.channels(app, prefix), *users),
        };
        let mut summaries = ChannelSummaries {
            channels: IndexMap::new(),
            partial,
        };
        for (at, channel) in here.iter().enumerate() {
            let users = users && channel.name().kind().is_presence();
            let name = channel.name().as_str().to_owned();
            summaries.channels.insert(name, channel.summary(users));
            // With thousands of channels nobody else is to wait for the whole list.
            if at % 256 == 255 {
                tokio::task::yield_now().await;
            }
        }
        for (name, summary) in others.channels {
            summaries.channels.entry(name).or_default().add(summary);
        }
        summaries
    }

    /// What other nodes know, and what is missing of it.
    async fn others(&self, app: &AppHandle, query: Query) -> (SurveyResult, Option<Partial>) {
        let Some(cluster) = &self.cluster else {
            return (SurveyResult::default(), None);
        };
        let (counters, began) = (app.counters(), Instant::now());
        counters.count(Counter::SurveysSent);
        let survey = cluster.survey(app, query).await;
        let is_complete = survey.as_ref().is_some_and(|others| others.silent == 0);
        counters.count(match is_complete {
            true => Counter::SurveysComplete,
            false => Counter::SurveysIncomplete,
        });
        counters.observe(Timing::Survey, began.elapsed());
        if let Some(others) = &survey {
            let answers = others.asked - others.silent;
            counters.add(Counter::SurveyAnswers, answers as u64);
        }
        match survey {
            Some(others) if others.silent == 0 => (others, None),
            Some(others) => {
                let (silent, nodes) = (others.silent, others.asked + 1);
                (others, Some(Partial::Silent { silent, nodes }))
            }
            None => (SurveyResult::default(), Some(Partial::Alone)),
        }
    }

    /// The last event of a cache channel, and how long it will be kept.
    pub async fn cached(
        &self,
        app: &AppHandle,
        channel: &ChannelName,
    ) -> Option<(Frame, Duration)> {
        let Some(cluster) = &self.cluster else {
            return self.hub.cached(app, channel);
        };
        if let Some(last) = self.hub.last_known(app, channel) {
            return last;
        }
        match cluster.last(app, channel).await {
            Some(last) => last,
            None => self.hub.cached(app, channel),
        }
    }

    /// Counts a connection that this node lets in among those of all nodes, unless
    /// they have as many as the application may have. Without a link to other nodes,
    /// this one alone decides.
    pub async fn admit(&self, app: &AppHandle, slot: &mut Slot) -> Result<(), CloseReason> {
        let Some(cluster) = &self.cluster else {
            return Ok(());
        };
        if app.settings().max_connections.is_none() {
            return Ok(());
        }
        if cluster.admit(app).await == Some(false) {
            return Err(CloseReason::OverConnectionQuota);
        }
        self.hub.count_everywhere(slot);
        Ok(())
    }

    /// What other nodes know of a request, if there may be any.
    pub fn claims(&self, app: &AppHandle, id: impl FnOnce() -> [u8; 16]) -> Option<Claims> {
        Some(Claims {
            cluster: self.cluster.clone()?,
            app: app.clone(),
            id: id(),
        })
    }

    /// Whether this node and, if there may be others, the link to them are in order;
    /// in numbers.
    pub fn readiness(&self) -> (bool, serde_json::Value) {
        match &self.cluster {
            Some(cluster) => (cluster.status().is_ready(), cluster.status().to_json()),
            None => (true, serde_json::json!({})),
        }
    }

    /// Closes all connections of a user.
    pub fn terminate(&self, app: &AppHandle, user: &str, reconnect: Option<bool>) -> usize {
        self.hub.terminate(app, user, reconnect)
    }

    /// Ends subscriptions to a channel, on all nodes.
    pub fn unsubscribe(&self, app: &AppHandle, channel: &ChannelName, who: &Unsubscribed) {
        self.hub.unsubscribe(app, channel, who);
    }
}

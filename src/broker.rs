//! The one service that both front doors call.

use std::sync::Arc;
use std::time::Duration;

use crate::app::App;
pub use crate::hub::Counts;
use crate::hub::{Channel, Hub};
use crate::protocol::publish::Publish;
use crate::protocol::{ChannelName, Frame, SocketId, message};

/// Publishes to channels and answers questions about them.
#[derive(Clone)]
pub struct Broker {
    hub: Arc<Hub>,
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
    /// A broker for the channels of `hub`.
    pub fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }

    /// Whether a message can be taken now; if not, its sender has to wait or to
    /// be told.
    pub fn has_room(&self) -> bool {
        self.hub.has_room()
    }

    /// Sends an application's event to its channels. Cache channels keep it.
    pub fn publish(&self, app: &App, publish: &Publish<'_>) {
        for channel in &publish.channels {
            let encode = || message::event(publish.name, publish.data, channel);
            let subscribers = if channel.kind().is_cache() {
                self.hub
                    .publish_and_keep(app, channel, publish.except, encode())
            } else {
                self.hub.publish(app, channel, publish.except, encode)
            };
            tracing::debug!(app = app.id, %channel, event = publish.name, subscribers, "published");
        }
    }

    /// Sends a client's event to the other subscribers of its channel.
    pub fn client_event(&self, app: &App, event: &ClientEvent<'_>) {
        let ClientEvent {
            name,
            channel,
            data,
            user_id,
            from,
        } = *event;
        let encode = || message::client_event(name, data, channel, user_id);
        let subscribers = self.hub.publish(app, channel, Some(from), encode);
        tracing::debug!(app = app.id, %channel, event = name, %from, subscribers, "client event");
    }

    /// Connections of an application.
    pub fn connections(&self, app: &App) -> usize {
        self.hub.connections(app)
    }

    /// Occupied channels whose names begin with `prefix`.
    pub fn channels(&self, app: &App, prefix: &str) -> Vec<Arc<Channel>> {
        self.hub.channels(app, prefix)
    }

    /// How many are in a channel; `None` if nobody is.
    pub fn counts(&self, app: &App, channel: &str) -> Option<Counts> {
        self.hub.find(app, channel).map(|channel| channel.counts())
    }

    /// Ids, as JSON, of the members of a presence channel; `None` if nobody is in it.
    pub fn member_ids(&self, app: &App, channel: &str) -> Option<Vec<Box<str>>> {
        self.hub
            .find(app, channel)
            .map(|channel| channel.member_ids())
    }

    /// The last event of a cache channel, and how long it will be kept.
    pub fn cached(&self, app: &App, channel: &ChannelName) -> Option<(Frame, Duration)> {
        self.hub.cached(app, channel)
    }

    /// Closes all connections of a user.
    pub fn terminate(&self, app: &App, user: &str) -> usize {
        self.hub.terminate(app, user)
    }
}

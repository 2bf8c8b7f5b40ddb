//! The one service that both front doors call.

use std::sync::Arc;

use crate::app::App;
use crate::hub::Hub;
use crate::protocol::publish::Publish;
use crate::protocol::{ChannelName, SocketId, message};

/// Publishes to channels.
#[derive(Clone)]
pub struct Broker {
    hub: Arc<Hub>,
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

    /// Sends an application's event to its channels.
    pub fn publish(&self, app: &App, publish: &Publish<'_>) {
        for channel in &publish.channels {
            let encode = || message::event(publish.name, publish.data, channel);
            let subscribers = self.hub.publish(app, channel, publish.except, encode);
            tracing::debug!(app = app.id, %channel, event = publish.name, subscribers, "published");
        }
    }

    /// Sends a client's event to the other subscribers of its channel.
    pub fn client_event(&self, app: &App, event: &ClientEvent<'_>) {
        let ClientEvent {
            name,
            channel,
            data,
            from,
        } = *event;
        let encode = || message::client_event(name, data, channel);
        let subscribers = self.hub.publish(app, channel, Some(from), encode);
        tracing::debug!(app = app.id, %channel, event = name, %from, subscribers, "client event");
    }
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
    /// Who sends it and does not get it back.
    pub from: SocketId,
}

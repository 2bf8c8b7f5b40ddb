//! What happens in the hub, for whoever wants to know: metrics, webhooks, a console.

use std::sync::Arc;

use super::topic::NodeId;
use crate::apps::{AppHandle, SubscriptionRefusal};
use crate::protocol::{ChannelName, CloseReason, Member, SocketId};

/// Something that has happened. What concerns a channel with subscribers here is emitted
/// while the channel's lock is held: all sinks see it in the channel's order. Connections,
/// refusals and what Redis decides are in no order with that.
#[derive(Clone, Copy, Debug)]
pub struct HubEvent<'a> {
    /// Of which application.
    pub app: &'a AppHandle,
    /// What.
    pub kind: HubEventKind<'a>,
}

/// What has happened.
#[derive(Clone, Copy, Debug)]
pub enum HubEventKind<'a> {
    /// A WebSocket was let in.
    ConnectionOpened {
        /// Its id.
        socket: SocketId,
    },
    /// One that was let in has ended.
    ConnectionClosed {
        /// Its id.
        socket: SocketId,
        /// Why.
        reason: CloseReason,
    },
    /// A connection has joined a channel.
    Subscribed {
        /// Which.
        channel: &'a ChannelName,
        /// Who it is in a presence channel.
        user: Option<&'a str>,
        /// Whether it is the first one of its user in this presence channel on this node.
        is_first_of_user: bool,
    },
    /// A connection has left a channel, or has ended.
    Unsubscribed {
        /// Which.
        channel: &'a ChannelName,
        /// Who it was in a presence channel.
        user: Option<&'a str>,
        /// Whether it was the last one of its user in this presence channel on this node.
        is_last_of_user: bool,
    },
    /// A channel has its first subscriber on this node.
    ChannelOccupied {
        /// Its name.
        channel: &'a ChannelName,
    },
    /// A channel has no subscriber on this node any more.
    ChannelVacated {
        /// Its name.
        channel: &'a ChannelName,
    },
    /// A channel has its first subscriber on all nodes, as Redis has decided. Only while
    /// occupation is tracked, and only on the node that has the subscriber.
    ClusterChannelOccupied {
        /// Its name.
        channel: &'a ChannelName,
    },
    /// A channel has no subscriber on any node any more, as Redis has decided. Only while
    /// occupation is tracked, and only on one node.
    ClusterChannelVacated {
        /// Its name.
        channel: &'a ChannelName,
    },
    /// A user is in a presence channel who was not in it on any node, as far as this one
    /// knew: of a channel without subscribers here it knows nothing.
    MemberAdded {
        /// The channel.
        channel: &'a ChannelName,
        /// Who.
        member: &'a Member,
        /// Where.
        origin: Origin,
    },
    /// A user is in a presence channel on no node any more, as far as this one knows.
    MemberRemoved {
        /// The channel.
        channel: &'a ChannelName,
        /// The user's id as JSON.
        id_json: &'a str,
        /// Where it was last.
        origin: Origin,
    },
    /// A subscription was refused.
    SubscriptionRefused {
        /// Whose.
        socket: SocketId,
        /// The channel as the client named it.
        channel: &'a str,
        /// The kind of reason.
        kind: SubscriptionRefusal,
        /// Why, as the client is told.
        reason: &'a str,
    },
    /// The application has published an event.
    EventPublished {
        /// Where.
        channel: &'a ChannelName,
        /// Bytes of what each subscriber is sent.
        bytes: usize,
        /// Subscribers on this node.
        subscribers: usize,
    },
    /// A client has sent an event to the others.
    ClientEvent {
        /// Whose.
        socket: SocketId,
        /// Where.
        channel: &'a ChannelName,
        /// Its name, `client-` included.
        event: &'a str,
        /// Its payload as JSON.
        data: Option<&'a str>,
        /// Who sends it, in a presence channel, as JSON.
        user_id: Option<&'a str>,
    },
    /// A subscriber of a cache channel was sent its last event.
    CacheHit {
        /// Which.
        channel: &'a ChannelName,
    },
    /// A subscriber of a cache channel was sent a cache miss: it has no last event.
    CacheMiss {
        /// Which.
        channel: &'a ChannelName,
    },
    /// Subscribers were sent how many they are on all nodes.
    CountChanged {
        /// Of which channel.
        channel: &'a ChannelName,
        /// How many.
        count: usize,
    },
}

/// Where something was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// On this node.
    Local,
    /// On another one.
    Remote(NodeId),
    /// On others; which one is not known.
    Cluster,
}

/// Receives what happens.
pub trait Sink: Send + Sync {
    /// Takes an event. Called under the hub's locks, from any thread: it must not block, call
    /// the hub, or panic; what takes time goes into a queue of its own, with a bound.
    fn accept(&self, event: &HubEvent<'_>);
}

/// All sinks.
#[derive(Clone, Default)]
pub struct Sinks(Box<[Arc<dyn Sink>]>);

impl std::fmt::Debug for Sinks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} sinks", self.0.len())
    }
}

impl Sinks {
    /// These, in this order.
    pub fn new(sinks: Vec<Arc<dyn Sink>>) -> Self {
        Self(sinks.into())
    }

    /// The same, and one more.
    pub fn with(self, sink: Arc<dyn Sink>) -> Self {
        Self(self.0.into_iter().chain([sink]).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Emits to all. The event is made only if there is one.
    pub(super) fn emit<'a>(&self, app: &'a AppHandle, kind: impl FnOnce() -> HubEventKind<'a>) {
        if self.is_empty() {
            return;
        }
        let event = HubEvent { app, kind: kind() };
        self.0.iter().for_each(|sink| sink.accept(&event));
    }
}

//! Counts what happens in the hub.

use crate::apps::{Counter, Counters};
use crate::hub::{HubEvent, HubEventKind, Sink};

/// Counts events for their applications, without a lock.
#[derive(Clone, Copy, Debug)]
pub struct CountingSink;

impl Sink for CountingSink {
    fn accept(&self, event: &HubEvent<'_>) {
        let counters = event.app.counters();
        match event.kind {
            HubEventKind::ConnectionOpened { .. } => counters.count(Counter::ConnectionsOpened),
            HubEventKind::ConnectionClosed { reason, .. } => {
                counters.count(Counter::ConnectionsClosed(reason));
            }
            HubEventKind::ChannelOccupied { channel } => {
                counters.count(Counter::ChannelsOccupied(channel.kind()));
            }
            HubEventKind::ChannelVacated { channel } => {
                counters.count(Counter::ChannelsVacated(channel.kind()));
            }
            HubEventKind::Subscribed {
                channel,
                is_first_of_user,
                ..
            } => {
                counters.count(Counter::Subscribed(channel.kind()));
                count_if(is_first_of_user, counters, Counter::UsersJoined);
            }
            HubEventKind::Unsubscribed {
                channel,
                is_last_of_user,
                ..
            } => {
                counters.count(Counter::Unsubscribed(channel.kind()));
                count_if(is_last_of_user, counters, Counter::UsersLeft);
            }
            HubEventKind::SubscriptionRefused { kind, .. } => {
                counters.count(Counter::SubscriptionsRefused(kind));
            }
            HubEventKind::EventPublished { channel, .. } => {
                counters.count(Counter::EventsPublished(channel.kind()));
            }
            HubEventKind::ClientEvent { channel, .. } => {
                counters.count(Counter::ClientEvents(channel.kind()));
            }
            HubEventKind::CacheHit { .. } => counters.count(Counter::CacheHits),
            HubEventKind::CacheMiss { .. } => counters.count(Counter::CacheMisses),
            HubEventKind::ClusterChannelOccupied { .. }
            | HubEventKind::ClusterChannelVacated { .. }
            | HubEventKind::MemberAdded { .. }
            | HubEventKind::MemberRemoved { .. }
            | HubEventKind::CountChanged { .. } => {}
        }
    }
}

fn count_if(is_so: bool, counters: &Counters, counter: Counter) {
    if is_so {
        counters.count(counter);
    }
}

//! What applications count, by names as Prometheus wants them.

use super::family::{Family, Kind};
use crate::apps::{
    AppHandle, Counter, Counters, HandshakeRefusal, PreviousCredential, RateLimit, RequestRefusal,
    SubscriptionRefusal, Timing, WebhookLoss, WebhookOutcome,
};
use crate::protocol::{ChannelKind, CloseReason};

/// An application's counts, and its label.
pub(super) struct Application<'a> {
    pub(super) id: &'a str,
    pub(super) counters: &'a Counters,
    pub(super) connections: u64,
    /// Whether what was never counted has a series.
    is_whole: bool,
}

impl<'a> Application<'a> {
    pub(super) fn new(app: &'a AppHandle, is_whole: bool) -> Self {
        Self {
            id: app.id(),
            counters: app.counters(),
            connections: app.connections() as u64,
            is_whole,
        }
    }

    /// What belongs to none: its label is empty, which for Prometheus is none.
    pub(super) fn unattributed(counters: &'a Counters) -> Self {
        Self {
            id: "",
            counters,
            connections: 0,
            is_whole: true,
        }
    }

    pub(super) fn of(&self, counter: Counter) -> u64 {
        self.counters.of(counter)
    }

    /// How many have come and not gone.
    pub(super) fn difference(&self, came: Counter, gone: Counter) -> u64 {
        // What is gone is read first: it was counted after it came.
        let gone = self.of(gone);
        self.of(came).saturating_sub(gone)
    }

    /// Whether a value of a label that was counted so often has a series.
    pub(super) fn shows(&self, counted: u64) -> bool {
        counted > 0 || self.is_whole
    }

    /// Adds a series for each value of a label.
    fn each<T: Copy>(
        &self,
        family: &mut Family,
        (values, label): (&[T], impl Fn(T) -> &'static str),
        counter: impl Fn(T) -> Counter,
    ) {
        for value in values {
            let count = self.of(counter(*value));
            if self.shows(count) {
                family.count(&[self.id, label(*value)], count);
            }
        }
    }

    /// Adds a series for each kind of channel: how many have come and not gone.
    fn present(
        &self,
        family: &mut Family,
        came: impl Fn(ChannelKind) -> Counter,
        gone: impl Fn(ChannelKind) -> Counter,
    ) {
        for kind in ChannelKind::ALL {
            if self.shows(self.of(came(*kind))) {
                let present = self.difference(came(*kind), gone(*kind));
                family.count(&[self.id, kind.label()], present);
            }
        }
    }
}

/// All of them. `others` is what belongs to none.
pub(super) fn families(apps: &[Application<'_>], others: &Application<'_>) -> Vec<Family> {
    let mut families = refusals(apps, others);
    families.extend(channels(apps));
    families.extend(traffic(apps, others));
    families.extend(times(apps));
    families.extend(webhooks(apps));
    families
}

fn refusals(apps: &[Application<'_>], others: &Application<'_>) -> Vec<Family> {
    let family = |name, help| Family::new(Kind::Counter, name, &["app_id", "reason"], help);
    let mut closed = family(
        "connections_closed_total",
        "WebSockets that have ended, by the reason why.",
    );
    let mut refused = family(
        "connections_refused_total",
        "WebSockets that were let in only to be told why they are refused.",
    );
    let mut handshakes = family(
        "handshakes_refused_total",
        "Requests for a WebSocket that were no proper handshake, and TLS handshakes that failed.",
    );
    let mut requests = family(
        "requests_refused_total",
        "HTTP requests, publishes among them, that were refused.",
    );
    let mut subscriptions = family(
        "subscriptions_refused_total",
        "Subscriptions that were refused.",
    );
    let mut limited = Family::new(
        Kind::Counter,
        "rate_limited_total",
        &["app_id", "limit"],
        "Times that a client was over a limit of so many a second.",
    );
    let mut previous = Family::new(
        Kind::Counter,
        "previous_credentials_used_total",
        &["app_id", "credential"],
        "Requests, connections, subscriptions and sign-ins that were let in by previous_key or previous_secret.",
    );
    let closes = (CloseReason::ALL, CloseReason::label);
    for app in apps {
        let credentials = (PreviousCredential::ALL, PreviousCredential::label);
        app.each(&mut previous, credentials, Counter::PreviousUsed);
        app.each(&mut closed, closes, Counter::ConnectionsClosed);
        let reasons = (SubscriptionRefusal::ALL, SubscriptionRefusal::label);
        app.each(&mut subscriptions, reasons, Counter::SubscriptionsRefused);
    }
    for app in apps.iter().chain([others]) {
        app.each(&mut refused, closes, Counter::ConnectionsRefused);
        let reasons = (HandshakeRefusal::ALL, HandshakeRefusal::label);
        app.each(&mut handshakes, reasons, Counter::HandshakesRefused);
        let reasons = (RequestRefusal::ALL, RequestRefusal::label);
        app.each(&mut requests, reasons, Counter::RequestsRefused);
        let limits = (RateLimit::ALL, RateLimit::label);
        app.each(&mut limited, limits, Counter::RateLimited);
    }
    vec![
        closed,
        refused,
        handshakes,
        requests,
        subscriptions,
        limited,
        previous,
    ]
}

fn channels(apps: &[Application<'_>]) -> Vec<Family> {
    let family = |kind, name, help| Family::new(kind, name, &["app_id", "kind"], help);
    let mut channels = family(
        Kind::Gauge,
        "channels",
        "Channels with a subscriber on this node.",
    );
    let mut subscriptions = family(
        Kind::Gauge,
        "subscriptions",
        "Subscriptions of connections to this node.",
    );
    let mut published = family(
        Kind::Counter,
        "events_published_total",
        "Events that the application has published on this node, once for each channel.",
    );
    let mut client_events = family(
        Kind::Counter,
        "client_events_total",
        "Events of clients that were passed on.",
    );
    let mut members = Family::new(
        Kind::Gauge,
        "presence_members",
        &["app_id"],
        "Users of presence channels on this node, once for each channel.",
    );
    let kinds = (ChannelKind::ALL, ChannelKind::label);
    for app in apps {
        let (came, gone) = (Counter::ChannelsOccupied, Counter::ChannelsVacated);
        app.present(&mut channels, came, gone);
        let (came, gone) = (Counter::Subscribed, Counter::Unsubscribed);
        app.present(&mut subscriptions, came, gone);
        app.each(&mut published, kinds, Counter::EventsPublished);
        app.each(&mut client_events, kinds, Counter::ClientEvents);
        let present = app.difference(Counter::UsersJoined, Counter::UsersLeft);
        members.count(&[app.id], present);
    }
    vec![channels, subscriptions, members, published, client_events]
}

/// Of connections and of the HTTP API.
const TRAFFIC: [(&str, Counter, &str); 11] = [
    (
        "connections_opened_total",
        Counter::ConnectionsOpened,
        "WebSockets that were let in.",
    ),
    (
        "websocket_received_bytes_total",
        Counter::BytesReceived,
        "Bytes that clients have sent, decrypted.",
    ),
    (
        "websocket_sent_bytes_total",
        Counter::BytesSent,
        "Bytes that clients have taken, before they are encrypted.",
    ),
    (
        "messages_received_total",
        Counter::MessagesReceived,
        "Messages of clients.",
    ),
    (
        "messages_sent_total",
        Counter::MessagesSent,
        "Messages for clients, once for each connection.",
    ),
    (
        "http_requests_total",
        Counter::HttpCalls,
        "Requests of the HTTP API.",
    ),
    (
        "http_received_bytes_total",
        Counter::HttpBytesReceived,
        "Bytes of their bodies.",
    ),
    (
        "http_sent_bytes_total",
        Counter::HttpBytesSent,
        "Bytes of the answers' bodies.",
    ),
    (
        "publishes_replayed_total",
        Counter::PublishesReplayed,
        "Publish requests that had come before and were answered as they were then, and not published again.",
    ),
    (
        "cache_hits_total",
        Counter::CacheHits,
        "Subscribers of a cache channel that were sent its last event.",
    ),
    (
        "cache_misses_total",
        Counter::CacheMisses,
        "Subscribers of a cache channel that had none.",
    ),
];

fn traffic(apps: &[Application<'_>], others: &Application<'_>) -> Vec<Family> {
    let families = TRAFFIC.map(|(name, counter, help)| {
        let mut family = Family::new(Kind::Counter, name, &["app_id"], help);
        // Only HTTP requests can name no application.
        let others = name.starts_with("http_").then_some(others);
        for app in apps.iter().chain(others) {
            family.count(&[app.id], app.of(counter));
        }
        family
    });
    families.into()
}

fn webhooks(apps: &[Application<'_>]) -> Vec<Family> {
    let mut events = Family::new(
        Kind::Counter,
        "webhook_events_total",
        &["app_id"],
        "Events that webhooks' receivers have taken, once for each receiver.",
    );
    let mut lost = Family::new(
        Kind::Counter,
        "webhook_events_lost_total",
        &["app_id", "reason"],
        "Events that they were not told of.",
    );
    let mut requests = Family::new(
        Kind::Counter,
        "webhook_requests_total",
        &["app_id", "outcome"],
        "Requests to webhooks' receivers.",
    );
    for app in apps {
        events.count(&[app.id], app.of(Counter::WebhookEvents));
        let reasons = (WebhookLoss::ALL, WebhookLoss::label);
        app.each(&mut lost, reasons, Counter::WebhookEventsLost);
        let outcomes = (WebhookOutcome::ALL, WebhookOutcome::label);
        app.each(&mut requests, outcomes, Counter::WebhookRequests);
    }
    vec![events, lost, requests]
}

fn times(apps: &[Application<'_>]) -> Vec<Family> {
    let all = [
        (
            "publish_duration_seconds",
            Timing::Publish,
            "From a publish request's head to its answer.",
        ),
        (
            "delivery_delay_seconds",
            Timing::Delivery,
            "From an event's place in its channel on this node to the last socket of a worker; of each worker's events one at a time is followed.",
        ),
        (
            "survey_duration_seconds",
            Timing::Survey,
            "From a question to other nodes to their answers.",
        ),
    ];
    let families = all.map(|(name, timing, help)| {
        let mut family = Family::new(Kind::Histogram, name, &["app_id"], help);
        for app in apps {
            family.times(&[app.id], app.counters.distribution(timing), 1.0);
        }
        family
    });
    families.into()
}

//! What applications count, by names as Prometheus wants them.

use super::family::{Family, Kind};
use crate::apps::{
    AppHandle, Counter, Counters, HandshakeRefusal, RateLimit, RequestRefusal, Timing,
};
use crate::protocol::{ChannelKind, CloseReason, ErrorCode};

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

    /// Adds a series for each value of a label.
    pub(super) fn each<T: Copy>(
        &self,
        family: &mut Family,
        values: &[T],
        label: impl Fn(T) -> String,
        count: impl Fn(T) -> u64,
    ) {
        for value in values {
            let count = count(*value);
            if count > 0 || self.is_whole {
                family.count(&[self.id, &label(*value)], count);
            }
        }
    }
}

/// All of them. `others` is what belongs to none.
pub(super) fn families(apps: &[Application<'_>], others: &Application<'_>) -> Vec<Family> {
    let mut families = refusals(apps, others);
    families.extend(channels(apps));
    families.extend(traffic(apps));
    families.extend(times(apps));
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
        "Subscriptions that were refused, by Pusher's error code.",
    );
    let mut limited = Family::new(
        Kind::Counter,
        "rate_limited_total",
        &["app_id", "limit"],
        "Times that a client was over a limit of so many a second.",
    );
    for app in apps.iter().chain([others]) {
        let reasons = CloseReason::ALL;
        let text = |reason: CloseReason| reason.label().to_owned();
        if !app.id.is_empty() {
            let count = |reason| app.of(Counter::ConnectionsClosed(reason));
            app.each(&mut closed, reasons, text, count);
            let count = |code| app.of(Counter::SubscriptionsRefused(code));
            let number = |code: ErrorCode| code.number().to_string();
            app.each(&mut subscriptions, ErrorCode::ALL, number, count);
        }
        let count = |reason| app.of(Counter::ConnectionsRefused(reason));
        app.each(&mut refused, reasons, text, count);
        let count = |reason| app.of(Counter::HandshakesRefused(reason));
        let text = |reason: HandshakeRefusal| reason.label().to_owned();
        app.each(&mut handshakes, HandshakeRefusal::ALL, text, count);
        let count = |reason| app.of(Counter::RequestsRefused(reason));
        let text = |reason: RequestRefusal| reason.label().to_owned();
        app.each(&mut requests, RequestRefusal::ALL, text, count);
        let count = |limit| app.of(Counter::RateLimited(limit));
        let text = |limit: RateLimit| limit.label().to_owned();
        app.each(&mut limited, RateLimit::ALL, text, count);
    }
    vec![
        closed,
        refused,
        handshakes,
        requests,
        subscriptions,
        limited,
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
    for app in apps {
        let kinds = ChannelKind::ALL;
        let text = |kind: ChannelKind| kind.label().to_owned();
        let count = |kind| {
            let (came, gone) = (
                Counter::ChannelsOccupied(kind),
                Counter::ChannelsVacated(kind),
            );
            app.difference(came, gone)
        };
        app.each(&mut channels, kinds, text, count);
        let count = |kind| app.difference(Counter::Subscribed(kind), Counter::Unsubscribed(kind));
        app.each(&mut subscriptions, kinds, text, count);
        let count = |kind| app.of(Counter::EventsPublished(kind));
        app.each(&mut published, kinds, text, count);
        let count = |kind| app.of(Counter::ClientEvents(kind));
        app.each(&mut client_events, kinds, text, count);
        let present = app.difference(Counter::UsersJoined, Counter::UsersLeft);
        members.count(&[app.id], present);
    }
    vec![channels, subscriptions, members, published, client_events]
}

/// Of connections and of the HTTP API.
const TRAFFIC: [(&str, Counter, &str); 10] = [
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

fn traffic(apps: &[Application<'_>]) -> Vec<Family> {
    let families = TRAFFIC.map(|(name, counter, help)| {
        let mut family = Family::new(Kind::Counter, name, &["app_id"], help);
        for app in apps {
            family.count(&[app.id], app.of(counter));
        }
        family
    });
    families.into()
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
            "From an event's place in its channel to its last socket of a worker; of each worker's events one at a time is followed.",
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

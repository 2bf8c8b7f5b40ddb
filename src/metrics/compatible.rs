//! The names and labels that soketi's and Sockudo's boards read, below our prefix: such a
//! board works if the prefix is typed into it.
//!
//! Some are not as Prometheus wants them: a counter of bytes should end in `_total`.

use super::applications::Application;
use super::family::{Family, Kind};
use crate::apps::{Counter, RateLimit, Timing};
use crate::protocol::{ChannelKind, CloseReason};

/// Of soketi, with the labels `app_id` and `port`.
const COUNTERS: [(&str, Counter, &str); 13] = [
    (
        "new_connections_total",
        Counter::ConnectionsOpened,
        "WebSockets that were let in.",
    ),
    (
        "socket_received_bytes",
        Counter::BytesReceived,
        "As resound_websocket_received_bytes_total.",
    ),
    (
        "socket_transmitted_bytes",
        Counter::BytesSent,
        "As resound_websocket_sent_bytes_total.",
    ),
    (
        "ws_messages_received_total",
        Counter::MessagesReceived,
        "As resound_messages_received_total.",
    ),
    (
        "ws_messages_sent_total",
        Counter::MessagesSent,
        "As resound_messages_sent_total.",
    ),
    (
        "http_received_bytes",
        Counter::HttpBytesReceived,
        "As resound_http_received_bytes_total.",
    ),
    (
        "http_transmitted_bytes",
        Counter::HttpBytesSent,
        "As resound_http_sent_bytes_total.",
    ),
    (
        "http_calls_received_total",
        Counter::HttpCalls,
        "As resound_http_requests_total.",
    ),
    (
        "horizontal_adapter_sent_requests",
        Counter::SurveysSent,
        "Questions to other nodes, each to all of them.",
    ),
    (
        "horizontal_adapter_received_requests",
        Counter::SurveysReceived,
        "Questions of other nodes.",
    ),
    (
        "horizontal_adapter_received_responses",
        Counter::SurveyAnswers,
        "Answers of other nodes.",
    ),
    (
        "horizontal_adapter_resolved_promises",
        Counter::SurveysComplete,
        "Questions that all other nodes have answered.",
    ),
    (
        "horizontal_adapter_uncomplete_promises",
        Counter::SurveysIncomplete,
        "Questions that some have not answered.",
    ),
];

const LABELS: &[&str] = &["app_id", "port"];

/// All of them. `others` is what belongs to no application.
pub(super) fn families(
    apps: &[Application<'_>],
    others: &Application<'_>,
    port: u16,
) -> Vec<Family> {
    let port = &*port.to_string();
    let mut connected = Family::new(Kind::Gauge, "connected", LABELS, "Open WebSockets.");
    let mut gone = Family::new(
        Kind::Counter,
        "new_disconnections_total",
        LABELS,
        "WebSockets that have ended.",
    );
    let mut resolve_time = Family::new(
        Kind::Histogram,
        "horizontal_adapter_resolve_time",
        LABELS,
        "As resound_survey_duration_seconds, in milliseconds.",
    );
    for app in apps {
        connected.count(&[app.id, port], app.connections);
        let reasons = CloseReason::ALL.iter();
        let closed = reasons.map(|reason| app.of(Counter::ConnectionsClosed(*reason)));
        gone.count(&[app.id, port], closed.sum());
        let times = app.counters.distribution(Timing::Survey);
        resolve_time.times(&[app.id, port], times, 1000.0);
    }
    let mut families = vec![connected, gone, resolve_time];
    families.extend(COUNTERS.map(|(name, counter, help)| {
        let mut family = Family::new(Kind::Counter, name, LABELS, help);
        for app in apps {
            family.count(&[app.id, port], app.of(counter));
        }
        family
    }));
    // Of Sockudo.
    families.extend(channels(apps, port));
    families.extend(refusals(apps, others, port));
    families
}

fn channels(apps: &[Application<'_>], port: &str) -> Vec<Family> {
    let channel = &["app_id", "port", "channel_type"];
    let mut active = Family::new(
        Kind::Gauge,
        "active_channels",
        channel,
        "As resound_channels.",
    );
    let mut subscribed = Family::new(
        Kind::Counter,
        "channel_subscriptions_total",
        channel,
        "Subscriptions that have begun.",
    );
    let mut unsubscribed = Family::new(
        Kind::Counter,
        "channel_unsubscriptions_total",
        channel,
        "Subscriptions that have ended.",
    );
    for app in apps {
        for kind in ChannelKind::ALL.iter().copied() {
            let began = app.of(Counter::Subscribed(kind));
            if !app.shows(began) {
                continue;
            }
            let labels = [app.id, port, kind.label()];
            let (came, left) = (
                Counter::ChannelsOccupied(kind),
                Counter::ChannelsVacated(kind),
            );
            active.count(&labels, app.difference(came, left));
            subscribed.count(&labels, began);
            unsubscribed.count(&labels, app.of(Counter::Unsubscribed(kind)));
        }
    }
    vec![active, subscribed, unsubscribed]
}

fn refusals(apps: &[Application<'_>], others: &Application<'_>, port: &str) -> Vec<Family> {
    let limiter = &["app_id", "port", "limiter_type"];
    let mut checked = Family::new(
        Kind::Counter,
        "rate_limit_checks_total",
        limiter,
        "Times that a limit was looked at.",
    );
    let mut limited = Family::new(
        Kind::Counter,
        "rate_limit_triggered_total",
        limiter,
        "As resound_rate_limited_total.",
    );
    let mut refused = Family::new(
        Kind::Counter,
        "connection_errors_total",
        &["app_id", "port", "error_type"],
        "As resound_connections_refused_total.",
    );
    for app in apps.iter().chain([others]) {
        let add = |family: &mut Family, label: &str, counter: Counter| {
            let count = app.of(counter);
            if app.shows(count) {
                family.count(&[app.id, port, label], count);
            }
        };
        for reason in CloseReason::ALL.iter().copied() {
            let counter = Counter::ConnectionsRefused(reason);
            add(&mut refused, reason.label(), counter);
        }
        for limit in RateLimit::ALL.iter().copied() {
            add(&mut checked, limit.label(), Counter::RateChecked(limit));
            add(&mut limited, limit.label(), Counter::RateLimited(limit));
        }
    }
    vec![refused, checked, limited]
}

//! The node itself, and its link to others.

use std::time::UNIX_EPOCH;

use serde_json::Value;

use super::Metrics;
use super::family::{Family, Kind};
use crate::apps::{Counter, ProxyClaim};
use crate::lifecycle::State;
use crate::protocol::CloseReason;
use crate::telemetry;

/// What `/ready` says of the link to other nodes: its key, our name, and what it is.
const CLUSTER: [(&str, Kind, &str, &str); 17] = [
    (
        "redis",
        Kind::Gauge,
        "cluster_up",
        "Whether there is a link to Redis.",
    ),
    (
        "nodes",
        Kind::Gauge,
        "cluster_nodes",
        "Nodes that this one sees, itself included.",
    ),
    (
        "nodes_draining",
        Kind::Gauge,
        "cluster_nodes_draining",
        "Of the others, those that are about to stop.",
    ),
    (
        "wanted",
        Kind::Gauge,
        "cluster_topics_wanted",
        "Topics that the sockets of this node need.",
    ),
    (
        "listening",
        Kind::Gauge,
        "cluster_topics_listening",
        "Topics that it listens to.",
    ),
    (
        "degraded",
        Kind::Gauge,
        "cluster_topics_degraded",
        "Topics one of whose keys in Redis is none of ours.",
    ),
    (
        "differences",
        Kind::Gauge,
        "cluster_differences",
        "Ways in which other nodes differ from this one.",
    ),
    (
        "published",
        Kind::Counter,
        "cluster_events_published_total",
        "Events sent to other nodes.",
    ),
    (
        "received",
        Kind::Counter,
        "cluster_messages_received_total",
        "Messages that came, own ones included.",
    ),
    (
        "delivered",
        Kind::Counter,
        "cluster_events_delivered_total",
        "Events of other nodes that were handed to the workers.",
    ),
    (
        "ignored",
        Kind::Counter,
        "cluster_messages_ignored_total",
        "Messages that could not be read.",
    ),
    (
        "missed",
        Kind::Counter,
        "cluster_events_missed_total",
        "Events of other nodes that did not come.",
    ),
    (
        "given_up",
        Kind::Counter,
        "cluster_events_given_up_total",
        "Events of other nodes that the workers were too far behind for.",
    ),
    (
        "dropped",
        Kind::Counter,
        "cluster_events_dropped_total",
        "Own events that could not be kept for the others long enough.",
    ),
    (
        "queued",
        Kind::Gauge,
        "cluster_queued_bytes",
        "Bytes of events that wait for Redis.",
    ),
    (
        "links",
        Kind::Counter,
        "cluster_links_total",
        "Times that a link to Redis came up.",
    ),
    ("node", Kind::Gauge, "cluster_node_info", "This node's id."),
];

pub(super) fn families(metrics: &Metrics) -> Vec<Family> {
    let (is_ready, status) = metrics.broker.readiness();
    let state = metrics.lifecycle.state();
    let is = |condition: bool| f64::from(u8::from(condition));
    let gauge = |name, value, help| Family::single(Kind::Gauge, name, value, help);
    let mut build = Family::new(
        Kind::Gauge,
        "build_info",
        &["version"],
        "1, with the release as a label.",
    );
    build.count(&[env!("CARGO_PKG_VERSION")], 1);
    let mut webhooks = Family::new(
        Kind::Gauge,
        "webhook_events_waiting",
        &[],
        "Events that webhooks' receivers were not told of yet by this node, once for each receiver.",
    );
    webhooks.count(&[], metrics.webhooks.waiting());
    let mut unserved = Family::new(
        Kind::Counter,
        "connections_dropped_total",
        &[],
        "Connections that were closed before they were served: their address has far too many, or workers have stalled.",
    );
    unserved.count(&[], metrics.permits.dropped());
    let mut slow = Family::new(
        Kind::Counter,
        "slow_clients_total",
        &[],
        "Clients that were closed since they read too slowly.",
    );
    slow.count(&[], metrics.hub.closes().of(CloseReason::TooSlow));
    let mut dropped = Family::new(
        Kind::Counter,
        "log_lines_dropped_total",
        &[],
        "Lines of the log that standard error did not take.",
    );
    dropped.count(&[], telemetry::dropped_lines());
    let started = metrics.started.duration_since(UNIX_EPOCH);
    let started = started.map_or(0.0, |since| since.as_secs_f64());
    let mut families = vec![
        build,
        gauge(
            "ready",
            is(is_ready && state == State::Running),
            "Whether /ready answers 200.",
        ),
        gauge(
            "draining",
            is(state != State::Running),
            "Whether it is about to stop.",
        ),
        gauge(
            "start_time_seconds",
            started,
            "When it was started, since 1970.",
        ),
        unserved,
        slow,
        dropped,
        ignored_claims(metrics),
    ];
    families.push(certificates(metrics));
    families.extend(sizes(metrics));
    families.extend(cluster(&status));
    families
}

/// Without a series if TLS is not spoken.
fn certificates(metrics: &Metrics) -> Family {
    let mut family = Family::new(
        Kind::Gauge,
        "tls_certificate_expiry_timestamp_seconds",
        &["certificate"],
        "When the certificate in a file ends, since 1970.",
    );
    for (path, end) in metrics.certificates.load().iter() {
        family.count(&[path], *end);
    }
    family
}

fn ignored_claims(metrics: &Metrics) -> Family {
    let mut claims = Family::new(
        Kind::Counter,
        "proxy_headers_ignored_total",
        &["header"],
        "Requests and connections of somebody who is no trusted proxy and says for whom it is there.",
    );
    for claim in ProxyClaim::ALL {
        let ignored = Counter::ProxyClaimsIgnored(*claim);
        claims.count(&[claim.label()], metrics.apps.unattributed().of(ignored));
    }
    claims
}

fn sizes(metrics: &Metrics) -> Vec<Family> {
    let (connections, max_connections) = metrics.permits.usage();
    let (websockets, max_websockets) = metrics.hub.sockets();
    let mut sizes = Vec::new();
    for (name, value, help) in [
        ("workers", metrics.workers, "Threads that own connections."),
        (
            "open_connections",
            connections,
            "Connections of any kind, publishes included.",
        ),
        (
            "max_open_connections",
            max_connections,
            "How many there may be, by the limit of open files.",
        ),
        ("websockets", websockets, "Open WebSockets."),
        (
            "max_websockets",
            max_websockets,
            "How many there may be, by the limit of open files.",
        ),
        (
            "backlog_bytes",
            metrics.backlog.bytes(),
            "Bytes that wait to be written to clients, large events once for each worker.",
        ),
        (
            "backlog_max_bytes",
            metrics.backlog.max(),
            "How many may wait.",
        ),
    ] {
        let mut family = Family::new(Kind::Gauge, name, &[], help);
        family.count(&[], value as u64);
        sizes.push(family);
    }
    sizes
}

/// Nothing if there is no cluster.
fn cluster(status: &Value) -> Vec<Family> {
    if status.get("node").is_none() {
        return Vec::new();
    }
    let families = CLUSTER.map(|(key, kind, name, help)| {
        let value = &status[key];
        let number = match (key, value) {
            ("redis", value) => f64::from(u8::from(value == "connected")),
            ("node", Value::String(node)) => {
                let mut family = Family::new(kind, name, &["node"], help);
                family.count(&[node], 1);
                return family;
            }
            (_, Value::Array(items)) => items.len() as f64,
            (_, value) => value.as_f64().unwrap_or_default(),
        };
        Family::single(kind, name, number, help)
    });
    families.into()
}

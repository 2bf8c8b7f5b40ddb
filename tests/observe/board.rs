//! The board: every expression gives a value.

use std::fs;

use serde_json::Value;

use crate::prometheus::{Prometheus, file};
use crate::redis::Redis;
use crate::server::{free_address, start};
use crate::support::{Client, Http};
use crate::wait::eventually;

/// What boards for soketi and Sockudo read, below a prefix that can be typed in.
const OF_OTHERS: &[&str] = &[
    "connected",
    "new_connections_total",
    "new_disconnections_total",
    "socket_received_bytes",
    "socket_transmitted_bytes",
    "ws_messages_received_total",
    "ws_messages_sent_total",
    "http_received_bytes",
    "http_transmitted_bytes",
    "http_calls_received_total",
    "horizontal_adapter_resolve_time_bucket",
    "horizontal_adapter_resolved_promises",
    "horizontal_adapter_uncomplete_promises",
    "horizontal_adapter_sent_requests",
    "horizontal_adapter_received_requests",
    "horizontal_adapter_received_responses",
    "connection_errors_total",
    "active_channels",
    "channel_subscriptions_total",
    "channel_unsubscriptions_total",
    "rate_limit_checks_total",
    "rate_limit_triggered_total",
];

/// All expressions of the board, with its variables as they are at first.
fn expressions() -> Vec<String> {
    let text = fs::read_to_string(file("config/grafana.json")).unwrap();
    let board: Value = serde_json::from_str(&text).unwrap();
    let panels = board["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    targets
        .map(|target| {
            let mut text = target["expr"].as_str().unwrap().to_owned();
            for (variable, value) in [
                ("$job", ".*"),
                ("$instance", ".*"),
                ("$app", ".*"),
                ("$__rate_interval", "10s"),
            ] {
                text = text.replace(variable, value);
            }
            assert!(!text.contains('$'), "{text}");
            text
        })
        .collect()
}

#[test]
fn every_expression_of_the_board_gives_a_value() {
    let redis = Redis::start();
    let settings = redis.settings().with(&[("REVERB_SCALING_ENABLED", "true")]);
    let places = [free_address(), free_address()];
    let nodes = places.map(|at| start(at, &settings));
    let prometheus = Prometheus::start(&places);
    for node in &nodes {
        eventually("it sees the other", || node.ready()["nodes"] == 2);
    }
    let mut client = Client::connect(&nodes[0]);
    client.subscribe("news");
    let mut http = Http::connect(&nodes[1]);
    for _ in 0..20 {
        http.publish(&["news"], "e", "x");
        assert_eq!(client.next_json()["event"], "e");
        assert_eq!(http.get("channels", &[]).status, 200);
    }
    let expressions = expressions();
    assert!(expressions.len() > 40, "{}", expressions.len());
    for expression in &expressions {
        // Rates need something to happen meanwhile.
        http.publish(&["news"], "e", "x");
        assert_eq!(http.get("channels", &[]).status, 200);
        prometheus.await_numbers(expression);
    }
    // What was done is to be seen.
    let connected = prometheus.await_value("sum(resound_connected) == 1");
    assert_eq!(connected.len(), 1);
    let rounds = 20 + expressions.len();
    for counter in [
        "resound_events_published_total",
        "resound_cluster_events_delivered_total",
        "resound_survey_duration_seconds_count",
        "resound_horizontal_adapter_received_requests",
    ] {
        prometheus.await_value(&format!("sum({counter}) == {rounds}"));
    }
    for name in OF_OTHERS {
        prometheus.await_numbers(&format!("sum by (app_id, port) (resound_{name})"));
    }
}

//! The board: every expression gives a value.

use std::fs;

use serde_json::Value;

use crate::prometheus::{Prometheus, file};
use crate::redis::Redis;
use crate::server::{free_address, start};
use crate::support::{Client, Http};
use crate::wait::eventually;

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
        let found = prometheus.await_value(expression);
        for series in &found {
            let value = series["value"][1].as_str().unwrap();
            assert!(value.parse::<f64>().is_ok(), "{expression}: {series}");
        }
    }
    // What was done is to be seen.
    let connected = prometheus.await_value("sum(resound_connected) == 1");
    assert_eq!(connected.len(), 1);
    prometheus.await_value("sum(resound_events_published_total) == 20");
    prometheus.await_value("sum(resound_cluster_events_delivered_total) == 20");
    prometheus.await_value("sum(resound_survey_duration_seconds_count) == 20");
    prometheus.await_value("sum(resound_horizontal_adapter_received_requests) == 20");
}

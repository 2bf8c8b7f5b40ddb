//! Every alert fires when it has to, and not before.

use std::time::Duration;

use crate::prometheus::Prometheus;
use crate::redis::Redis;
use crate::server::{Unread, free_address, start};
use crate::settings::Settings;
use crate::support::{Client, Http, body};
use crate::wait::eventually;

#[test]
fn redis_that_goes_a_node_that_goes_and_one_that_comes_back() {
    let mut redis = Redis::start();
    let settings = redis.settings().with(&[
        ("REVERB_SCALING_ENABLED", "true"),
        ("RESOUND_CLUSTER_BUFFER_BYTES", "1024"),
    ]);
    let at = free_address();
    let mut node = start(at, &settings);
    let prometheus = Prometheus::start(&[at]);
    prometheus.await_value("resound_cluster_up == 1 and resound_ready == 1");
    let all = [
        "ResoundLinkLost",
        "ResoundNotReady",
        "ResoundEventsLost",
        "ResoundDown",
        "ResoundRestarted",
    ];
    prometheus.settle();
    assert!(all.iter().all(|name| prometheus.is_quiet(name)));
    redis.kill();
    let lost = prometheus.await_alert("ResoundLinkLost");
    assert_eq!(lost, format!("Resound on {at} has lost Redis"));
    prometheus.await_alert("ResoundNotReady");
    for _ in 0..50 {
        node.publish("a", "e", &"x".repeat(1000));
    }
    let lost = prometheus.await_alert("ResoundEventsLost");
    assert!(lost.contains("events between nodes"), "{lost}");
    node.stop();
    prometheus.await_alert("ResoundDown");
    assert!(prometheus.is_quiet("ResoundRestarted"));
    redis.restart();
    let _node = start(at, &settings);
    prometheus.await_alert("ResoundRestarted");
    eventually("it is ready again", || {
        prometheus.is_quiet("ResoundNotReady")
    });
}

#[test]
fn clients_that_are_refused_are_too_slow_and_go() {
    let at = free_address();
    let node = start(at, &Settings::of(&[("RESOUND_MAX_BACKLOG", "1024")]));
    let prometheus = Prometheus::start(&[at]);
    let mut client = Client::connect(&node);
    client.subscribe("news");
    prometheus.await_value("sum(resound_connected) == 1");
    let all = [
        "ResoundConnectionsRefused",
        "ResoundPublishesRefused",
        "ResoundUnknownApplication",
        "ResoundSlowClients",
        "ResoundNobodyConnected",
    ];
    prometheus.settle();
    assert!(all.iter().all(|name| prometheus.is_quiet(name)));
    // One that does not read.
    for _ in 0..400 {
        if !is_connected(&node) {
            break;
        }
        node.publish("news", "e", &"x".repeat(90_000));
    }
    let slow = prometheus.await_alert("ResoundSlowClients");
    assert!(
        slow.starts_with(&format!("Resound on {at} has closed")),
        "{slow}"
    );
    drop(client);
    let nobody = prometheus.await_alert("ResoundNobodyConnected");
    assert_eq!(
        nobody,
        format!("Nobody is connected to Resound on {at} any more")
    );
    let mut http = Http::connect(&node);
    for _ in 0..60 {
        Client::open(&node, "/app/unknown?protocol=7", &[]);
        assert_eq!(http.request("POST", "/apps/1/events", "{}").status, 404);
    }
    let refused = prometheus.await_alert("ResoundConnectionsRefused");
    assert!(refused.ends_with("application_does_not_exist"), "{refused}");
    let unknown = prometheus.await_alert("ResoundUnknownApplication");
    assert!(unknown.contains(&at.to_string()), "{unknown}");
    assert!(prometheus.is_quiet("ResoundPublishesRefused"), "nobody's");
    for _ in 0..20 {
        assert_eq!(http.post("events", "{}").status, 422);
    }
    let refused = prometheus.await_alert("ResoundPublishesRefused");
    assert!(refused.ends_with("invalid_fields"), "{refused}");
}

fn is_connected(node: &crate::node::Node) -> bool {
    let connections = node.get("connections", &[]).body;
    connections == r#"{"connections":1}"#
}

#[test]
fn files_near_their_limit_and_lines_that_nobody_takes() {
    let (few, unread) = (free_address(), free_address());
    let limited = Unread::start("ulimit -n 100;", few, "");
    let verbose = Unread::start("", unread, "--debug");
    let prometheus = Prometheus::start(&[few, unread]);
    prometheus.await_value("count(resound_max_open_connections) == 2");
    let all = ["ResoundFilesNearLimit", "ResoundLogLinesDropped"];
    prometheus.settle();
    assert!(all.iter().all(|name| prometheus.is_quiet(name)));
    let clients: Vec<Client> = (0..49).map(|_| Client::connect(&limited.at)).collect();
    let files = prometheus.await_alert("ResoundFilesNearLimit");
    assert!(files.contains(&few.to_string()), "{files}");
    drop(clients);
    flood(&verbose);
    let dropped = prometheus.await_alert("ResoundLogLinesDropped");
    assert!(dropped.contains(&unread.to_string()), "{dropped}");
    assert!(prometheus.is_quiet("ResoundDown"));
}

#[test]
fn a_certificate_that_ends_soon_until_there_is_another() {
    let dir = tempfile::tempdir().unwrap();
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| dir.path().join(name));
    let write = |days: u64| {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let now = std::time::SystemTime::now();
        params.not_after = (now + Duration::from_secs(days * 86_400)).into();
        let pair = rcgen::KeyPair::generate().unwrap();
        std::fs::write(&cert, params.self_signed(&pair).unwrap().pem()).unwrap();
        std::fs::write(&key, pair.serialize_pem()).unwrap();
    };
    write(90);
    let [cert_file, key_file] = [&cert, &key].map(|path| path.to_str().unwrap());
    let settings = Settings::of(&[
        ("RESOUND_TLS_CERT", cert_file),
        ("RESOUND_TLS_KEY", key_file),
    ]);
    let at = free_address();
    let _node = start(at, &settings);
    let prometheus = Prometheus::start(&[at]);
    prometheus
        .await_value("resound_tls_certificate_expiry_timestamp_seconds - time() > 80 * 86400");
    prometheus.settle();
    assert!(prometheus.is_quiet("ResoundCertificateExpires"));
    write(13);
    let expires = prometheus.await_alert("ResoundCertificateExpires");
    let start = format!("The certificate {cert_file} of Resound on {at} ends in 12d");
    assert!(expires.starts_with(&start), "{expires}");
    write(90);
    eventually("the new one is loaded", || {
        prometheus.is_quiet("ResoundCertificateExpires")
    });
}

/// More lines than the log's queue and the pipe hold.
fn flood(server: &Unread) {
    let mut http = Http::connect(&server.at);
    let text = body(&["news"], "e", "x");
    for _ in 0..5000 {
        assert_eq!(http.post("events", &text).status, 200);
    }
}

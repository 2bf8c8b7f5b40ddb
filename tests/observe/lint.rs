//! What Prometheus's own tool says of the metrics and of the rules.

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::prometheus::file;
use crate::redis::Redis;
use crate::server::{Place, free_address, start};
use crate::support::Http;

/// Names of soketi's, which are as they are; and what is said of them.
const COMPATIBLE: &[&str] = &[
    "resound_socket_received_bytes counter metrics should have \"_total\" suffix",
    "resound_socket_transmitted_bytes counter metrics should have \"_total\" suffix",
    "resound_http_received_bytes counter metrics should have \"_total\" suffix",
    "resound_http_transmitted_bytes counter metrics should have \"_total\" suffix",
    "resound_horizontal_adapter_sent_requests counter metrics should have \"_total\" suffix",
    "resound_horizontal_adapter_received_requests counter metrics should have \"_total\" suffix",
    "resound_horizontal_adapter_received_responses counter metrics should have \"_total\" suffix",
    "resound_horizontal_adapter_resolved_promises counter metrics should have \"_total\" suffix",
    "resound_horizontal_adapter_uncomplete_promises counter metrics should have \"_total\" suffix",
];

fn promtool(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn the_metrics_are_as_prometheus_wants_them_but_for_names_of_others() {
    let redis = Redis::start();
    let at = free_address();
    let settings = redis.settings().with(&[("REVERB_SCALING_ENABLED", "true")]);
    let node = start(at, &settings);
    node.publish("a", "e", "x");
    let text = Http::connect(&Place(at))
        .request("GET", "/metrics", "")
        .body;
    assert!(text.contains("resound_cluster_up 1"), "{text}");
    // All that `/ready` says of the others is there.
    let said = text.matches("# TYPE resound_cluster_").count();
    let own = ["ready", "version", "uptime", "connections", "lifecycle"];
    let ready = node.ready();
    let keys = ready.as_object().unwrap().keys();
    assert_eq!(
        said,
        keys.filter(|key| !own.contains(&key.as_str())).count()
    );
    let output = promtool(&["check", "metrics"], &text);
    let said = String::from_utf8(output.stderr).unwrap();
    let mut said: Vec<&str> = said.lines().collect();
    let mut expected = COMPATIBLE.to_vec();
    said.sort_unstable();
    expected.sort_unstable();
    assert_eq!(said, expected);
}

#[test]
fn the_alerts_are_rules_with_a_severity_a_summary_and_a_heading() {
    let path = file("config/alerts.yml");
    let output = promtool(&["check", "rules", path.to_str().unwrap()], "");
    assert!(output.status.success(), "{output:?}");
    let rules = fs::read_to_string(path).unwrap();
    let docs = fs::read_to_string(file("docs/operate.md")).unwrap();
    let alerts = rules.split("- alert: ").skip(1);
    assert!(alerts.clone().count() >= 10);
    for alert in alerts {
        let name = alert.lines().next().unwrap();
        for part in ["severity: ", "summary: ", "description: "] {
            assert!(alert.contains(part), "{name} has no {part}");
        }
        let link = format!("runbook_url: \"docs/operate.md#{}\"", name.to_lowercase());
        assert!(alert.contains(&link), "{name} has another link");
        assert!(
            docs.contains(&format!("\n### {name}\n")),
            "{name} has no heading"
        );
    }
}

//! A real Prometheus, which scrapes every half second.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::port;
use crate::support::{At, Http};
use crate::wait::soon;

/// How long an alert or a sample may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Prometheus {
    child: Child,
    address: SocketAddr,
    _dir: TempDir,
}

/// A file of the project.
pub(crate) fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The shipped alerts, in a hurry: nobody waits minutes for a test.
fn hurried_alerts() -> String {
    let mut rules = fs::read_to_string(file("config/alerts.yml")).unwrap();
    for (slow, quick) in [
        ("for: 1h", "for: 1s"),
        ("for: 5m", "for: 1s"),
        ("for: 1m", "for: 1s"),
        ("for: 30s", "for: 1s"),
        ("[5m]", "[20s]"),
        ("[1h]", "[1m]"),
    ] {
        assert!(rules.contains(slow), "the alerts have no {slow}");
        rules = rules.replace(slow, quick);
    }
    rules
}

impl Prometheus {
    /// Scrapes these, as job `resound`.
    pub(crate) fn start(targets: &[SocketAddr]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("alerts.yml"), hurried_alerts()).unwrap();
        let targets: Vec<_> = targets.iter().map(|it| format!("\"{it}\"")).collect();
        let config = format!(
            "global: {{scrape_interval: 500ms, evaluation_interval: 500ms}}\n\
             rule_files: [alerts.yml]\n\
             scrape_configs:\n  - job_name: resound\n    static_configs: [{{targets: [{}]}}]\n",
            targets.join(", ")
        );
        fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port::free()));
        let child = Command::new("prometheus")
            .current_dir(dir.path())
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address={address}"))
            .stderr(Stdio::from(
                fs::File::create(dir.path().join("log")).unwrap(),
            ))
            .spawn()
            .unwrap();
        let prometheus = Self {
            child,
            address,
            _dir: dir,
        };
        let is_up = || {
            TcpStream::connect(address).is_ok()
                && Http::connect(&prometheus)
                    .request("GET", "/-/ready", "")
                    .status
                    == 200
        };
        assert!(soon(PATIENCE, is_up), "Prometheus does not start");
        prometheus
    }

    fn get(&self, target: &str) -> Option<Value> {
        // To HTTP/1.0 it answers without chunks.
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(stream, "GET {target} HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let is_good = head.split(' ').nth(1) == Some("200");
        is_good.then(|| serde_json::from_str::<Value>(body).unwrap()["data"].clone())
    }

    /// The series that an expression gives now.
    pub(crate) fn query(&self, expression: &str) -> Vec<Value> {
        let encoded: String = url::form_urlencoded::byte_serialize(expression.as_bytes()).collect();
        let data = self.get(&format!("/api/v1/query?query={encoded}"));
        let data = data.unwrap_or_else(|| panic!("refused: {expression}"));
        data["result"].as_array().unwrap().clone()
    }

    /// Waits until an expression gives something, and returns that.
    pub(crate) fn await_value(&self, expression: &str) -> Vec<Value> {
        let mut found = Vec::new();
        let is_there = || {
            found = self.query(expression);
            !found.is_empty()
        };
        assert!(soon(PATIENCE, is_there), "nothing: {expression}");
        found
    }

    /// The alert of this name if it fires.
    fn firing(&self, name: &str) -> Option<Value> {
        let alerts = self.get("/api/v1/alerts").expect("it answers");
        let is_it =
            |alert: &&Value| alert["labels"]["alertname"] == name && alert["state"] == "firing";
        let alerts = alerts["alerts"].as_array().unwrap();
        alerts.iter().find(is_it).cloned()
    }

    /// Whether the alert of this name does not fire, and would if it had a reason.
    pub(crate) fn is_quiet(&self, name: &str) -> bool {
        self.firing(name).is_none()
    }

    /// Waits until the rules were evaluated so often that an alert with a reason fires.
    pub(crate) fn settle(&self) {
        for _ in 0..6 {
            let before = self.evaluated();
            let again = soon(PATIENCE, || self.evaluated() != before);
            assert!(again, "the rules are not evaluated");
        }
    }

    /// When the rules were evaluated last.
    fn evaluated(&self) -> Value {
        let rules = self.get("/api/v1/rules").expect("it answers");
        rules["groups"][0]["lastEvaluation"].clone()
    }

    /// Waits until all that an expression gives are numbers, of which there are some.
    pub(crate) fn await_numbers(&self, expression: &str) {
        let is_number = |series: &Value| {
            let value = series["value"][1].as_str().unwrap();
            value.parse::<f64>().unwrap().is_finite()
        };
        let are_there = || {
            let found = self.query(expression);
            !found.is_empty() && found.iter().all(is_number)
        };
        assert!(soon(PATIENCE, are_there), "no numbers: {expression}");
    }

    /// Waits until an alert fires, and returns its summary.
    pub(crate) fn await_alert(&self, name: &str) -> String {
        let mut found = None;
        let fires = || {
            found = self.firing(name);
            found.is_some()
        };
        assert!(soon(PATIENCE, fires), "{name} does not fire");
        let summary = found.unwrap()["annotations"]["summary"].clone();
        summary.as_str().unwrap().to_owned()
    }
}

impl At for Prometheus {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

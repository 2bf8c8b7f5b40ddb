//! A real `resound`, as a process of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::running::Running;
use crate::settings::Settings;
use crate::support::http::{Answer, parsed};
use crate::support::{APP_ID, At, Http, KEY, PATIENCE, SECRET};
use crate::wait::LONG;

/// What is set for every node, unless a test says otherwise.
const BASE: &[(&str, &str)] = &[
    ("REVERB_APP_ID", APP_ID),
    ("REVERB_APP_KEY", KEY),
    ("REVERB_APP_SECRET", SECRET),
    ("REVERB_SCALING_ENABLED", "true"),
    // Two, so that every test also crosses threads.
    ("RESOUND_WORKERS", "2"),
    ("RESOUND_SHUTDOWN_GRACE", "1"),
    ("RESOUND_METRICS_PORT", "off"),
    // Nobody expects a ping.
    ("REVERB_APP_PING_INTERVAL", "600"),
];

pub(crate) struct Node {
    running: Running,
    address: SocketAddr,
    _dir: TempDir,
}

impl Node {
    pub(crate) fn start(settings: &Settings) -> Self {
        Self::with_flags(settings, &[])
    }

    pub(crate) fn with_flags(settings: &Settings, flags: &[&str]) -> Self {
        Self::of_program(&present(), settings, flags)
    }

    /// One of the version before this one.
    pub(crate) fn previous(settings: &Settings) -> Self {
        Self::of_program(&previous(), settings, &[])
    }

    fn of_program(program: &Path, settings: &Settings, flags: &[&str]) -> Self {
        let (mut running, dir) = launch(program, settings, flags);
        let Some(line) = running.line_with("server on ") else {
            panic!("the node ended:\n{}", running.log());
        };
        let address = line.split("server on ").nth(1).unwrap();
        Self {
            // A prefix of all routes may follow.
            address: address
                .split([' ', ',', '/'])
                .next()
                .unwrap()
                .parse()
                .unwrap(),
            running,
            _dir: dir,
        }
    }

    /// What one that is not to start says, and its exit code; `None` if it does start.
    pub(crate) fn refused(settings: &Settings, flags: &[&str]) -> (Option<i32>, String) {
        let (mut running, _dir) = launch(&present(), settings, flags);
        let status = running.ended(PATIENCE);
        (status.and_then(|status| status.code()), running.log())
    }

    /// The body of `/ready`.
    pub(crate) fn ready(&self) -> Value {
        self.ready_with_status().1
    }

    pub(crate) fn ready_with_status(&self) -> (u16, Value) {
        let answer = Http::connect(self).request("GET", "/ready", "");
        (answer.status, parsed(&answer))
    }

    /// A number that `/ready` has.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let ready = self.ready();
        ready[name]
            .as_u64()
            .unwrap_or_else(|| panic!("no number {name:?} in {ready}"))
    }

    /// Whether it is connected to Redis, as it says itself.
    pub(crate) fn is_connected(&self) -> bool {
        let (status, ready) = self.ready_with_status();
        let connected = ready["redis"] == "connected";
        assert_eq!(
            (status, &ready["ready"]),
            (if connected { 200 } else { 503 }, &Value::Bool(connected)),
            "{ready}"
        );
        connected
    }

    /// A signed GET on a connection of its own.
    pub(crate) fn get(&self, path: &str, query: &[(&str, &str)]) -> Answer {
        Http::connect(self).get(path, query)
    }

    pub(crate) fn publish(&self, channel: &str, name: &str, data: &str) {
        Http::connect(self).publish(&[channel], name, data);
    }

    pub(crate) fn log_contains(&self, text: &str) -> bool {
        self.running.log_contains(text)
    }

    pub(crate) fn log(&self) -> String {
        self.running.log()
    }

    /// Bytes of memory that it has for itself at the moment.
    pub(crate) fn resident(&self) -> u64 {
        self.running.resident()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.running.kill();
    }

    /// SIGTERM, and waits for its end, which has to be a good one.
    pub(crate) fn stop(&mut self) {
        self.terminate();
        assert_eq!(self.ended(LONG), Some(0), "{}", self.log());
    }

    /// SIGTERM.
    pub(crate) fn terminate(&mut self) {
        self.running.terminate();
    }

    /// The code it ends with by itself; `None` if it does not, or is killed.
    pub(crate) fn ended(&mut self, within: Duration) -> Option<i32> {
        let status = self.running.ended(within);
        status.and_then(|status| status.code())
    }

    /// SIGSTOP.
    pub(crate) fn pause(&mut self) {
        self.running.pause();
    }

    /// SIGCONT.
    pub(crate) fn resume(&mut self) {
        self.running.resume();
    }
}

/// The binary that is tested.
fn present() -> PathBuf {
    env!("CARGO_BIN_EXE_resound").into()
}

/// The binary that `RESOUND_PREVIOUS` names.
fn previous() -> PathBuf {
    const HOW: &str = "`export RESOUND_PREVIOUS=$(scripts/previous)` builds it";
    let Some(path) = std::env::var_os("RESOUND_PREVIOUS") else {
        panic!("RESOUND_PREVIOUS does not name the binary of the version before; {HOW}");
    };
    let path = PathBuf::from(path);
    assert!(
        path.is_file(),
        "RESOUND_PREVIOUS names {}, where there is no binary; {HOW}",
        path.display()
    );
    // Nodes run in directories of their own.
    path.canonicalize().unwrap()
}

fn launch(program: &Path, settings: &Settings, flags: &[&str]) -> (Running, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(program);
    command
        .args(["start", "--host", "127.0.0.1", "--port", "0"])
        .args(flags)
        .current_dir(dir.path())
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .envs(Settings::of(BASE).and(settings).pairs());
    (Running::start("node", &mut command), dir)
}

impl At for Node {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

//! The server as a process of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{APP_ID, At, KEY, PATIENCE, SECRET};

pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    /// What it has said since it listens.
    pub(crate) log: Arc<Mutex<String>>,
    pub(crate) dir: tempfile::TempDir,
}

impl Process {
    pub(crate) fn start(limits: &str) -> Self {
        Self::with(limits, &[])
    }

    pub(crate) fn with(limits: &str, settings: &[(&str, &str)]) -> Self {
        Self::within(tempfile::tempdir().unwrap(), limits, settings)
    }

    /// In a directory, which may have files for it.
    pub(crate) fn within(dir: tempfile::TempDir, limits: &str, settings: &[(&str, &str)]) -> Self {
        Self::run(dir, "", limits, settings)
    }

    /// With more arguments.
    pub(crate) fn run(
        dir: tempfile::TempDir,
        arguments: &str,
        limits: &str,
        settings: &[(&str, &str)],
    ) -> Self {
        let program = env!("CARGO_BIN_EXE_resound");
        let script =
            format!("{limits} exec {program} start --host 127.0.0.1 --workers 2 {arguments}");
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .current_dir(dir.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .envs([
                ("REVERB_APP_ID", APP_ID),
                ("REVERB_APP_KEY", KEY),
                ("REVERB_APP_SECRET", SECRET),
                ("REVERB_SERVER_PORT", "0"),
                ("RESOUND_METRICS_PORT", "off"),
            ])
            .envs(settings.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (said, later) = follow(&mut child);
        let address = said
            .split("server on ")
            .nth(1)
            .unwrap()
            .split([' ', '/', '\n'])
            .next()
            .unwrap();
        Self {
            child,
            address: address.parse().unwrap(),
            log: later,
            dir,
        }
    }

    /// Sends a signal, named as `kill` names it.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args([name, &id]).status().unwrap();
        assert!(status.success());
    }

    /// Waits until it has logged this.
    pub(crate) fn logged(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log.lock().unwrap().contains(text) {
            assert!(Instant::now() < deadline, "{text} is not logged");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Runs another command of the program where the server runs, and returns its exit
    /// code and what it says on standard output and standard error.
    pub(crate) fn command(
        &self,
        arguments: &[&str],
        settings: &[(&str, &str)],
    ) -> (i32, String, String) {
        let run = Command::new(env!("CARGO_BIN_EXE_resound"))
            .args(arguments)
            .current_dir(self.dir.path())
            .env_clear()
            .envs(settings.iter().copied())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let code = run.status.code().unwrap();
        (code, text(run.stdout), text(run.stderr))
    }

    /// Resident memory in KiB.
    pub(crate) fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most it ever had.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

/// Reads what a server says until it listens; what it says later is kept.
pub(crate) fn follow(child: &mut Child) -> (String, Arc<Mutex<String>>) {
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("server on ") {
        assert!(log.read_line(&mut said).unwrap() > 0, "it ended: {said}");
    }
    // What else it says must not block it.
    let later = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&later);
    std::thread::spawn(move || {
        for line in log.lines().map_while(Result::ok) {
            kept.lock().unwrap().push_str(&(line + "\n"));
        }
    });
    (said, later)
}

impl At for Process {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already, which the test has seen.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

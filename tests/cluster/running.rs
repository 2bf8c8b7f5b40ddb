//! A process that a test started: its log, its signals, its end.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::{LONG, eventually, soon};

/// Lines of its log that are kept for the message of a failure.
const KEPT_LINES: usize = 2000;

/// Lines that are shown when a test fails.
const SHOWN_LINES: usize = 60;

/// Ends with its owner, also when the test panics.
pub(crate) struct Running {
    name: String,
    child: Child,
    log: Arc<Mutex<VecDeque<String>>>,
    readers: Vec<std::thread::JoinHandle<()>>,
}

impl Running {
    pub(crate) fn start(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let log = Arc::default();
        let readers = vec![
            keep_lines(child.stdout.take().unwrap(), &log),
            keep_lines(child.stderr.take().unwrap(), &log),
        ];
        Self {
            name: name.to_owned(),
            child,
            log,
            readers,
        }
    }

    /// What it said lately.
    pub(crate) fn log(&self) -> String {
        text_of(&self.log)
    }

    pub(crate) fn log_contains(&self, text: &str) -> bool {
        self.log
            .lock()
            .unwrap()
            .iter()
            .any(|line| line.contains(text))
    }

    /// The first line that contains `text`; `None` if it ends without having said it.
    pub(crate) fn line_with(&mut self, text: &str) -> Option<String> {
        let mut found = None;
        let logged = soon(LONG, || {
            let ended = self.child.try_wait().unwrap().is_some();
            if ended {
                self.read_to_the_end();
            }
            let lines = self.log.lock().unwrap();
            found = lines.iter().find(|line| line.contains(text)).cloned();
            found.is_some() || ended
        });
        let name = &self.name;
        assert!(logged, "{name} does not say {text:?}:\n{}", self.log());
        found
    }

    /// Of a process that has ended.
    fn read_to_the_end(&mut self) {
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Bytes of memory that it has for itself at the moment.
    pub(crate) fn resident(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let mut lines = status.lines();
        let size = lines.find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kilobytes = size.trim().strip_suffix(" kB").unwrap();
        kilobytes.parse::<u64>().unwrap() * 1024
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM.
    pub(crate) fn terminate(&mut self) {
        self.signal(Signal::TERM);
    }

    /// SIGSTOP, and waits until it has stopped.
    pub(crate) fn pause(&mut self) {
        self.signal(Signal::STOP);
        let path = format!("/proc/{}/stat", self.child.id());
        eventually(&format!("{} stops", self.name), || {
            let stat = std::fs::read_to_string(&path).unwrap();
            // The state stands behind the name, which is in parentheses.
            stat.rsplit(") ")
                .next()
                .is_some_and(|rest| rest.starts_with('T'))
        });
    }

    /// SIGCONT.
    pub(crate) fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    /// Signals it, unless it has been waited for: its id may be another's by then.
    fn signal(&mut self, signal: Signal) {
        assert!(self.is_alive(), "{} has ended:\n{}", self.name, self.log());
        let id = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }

    /// How it ends by itself; `None` if it does not.
    pub(crate) fn ended(&mut self, within: Duration) -> Option<ExitStatus> {
        let mut status = None;
        soon(within, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        if status.is_some() {
            self.read_to_the_end();
        }
        status
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = text_of(&self.log);
            let lines: Vec<&str> = log.lines().collect();
            let from = lines.len().saturating_sub(SHOWN_LINES);
            eprintln!("--- {}:\n{}", self.name, lines[from..].join("\n"));
        }
    }
}

fn text_of(log: &Mutex<VecDeque<String>>) -> String {
    // A panic of another thread must not become a second one here.
    let lines = log
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn keep_lines(
    pipe: impl Read + Send + 'static,
    log: &Arc<Mutex<VecDeque<String>>>,
) -> std::thread::JoinHandle<()> {
    let log = Arc::clone(log);
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            let mut lines = log.lock().unwrap();
            if lines.len() == KEPT_LINES {
                lines.pop_front();
            }
            lines.push_back(text);
            line.clear();
        }
    })
}

//! What the kernel says about a process: the processor time it used, over all
//! its threads, the time it waited for a processor, and the memory it has
//! resident.

use crate::Outcome;
use crate::sys;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

#[derive(Clone, Copy)]
pub(crate) struct Process {
    pid: u32,
}

impl Process {
    pub(crate) fn with_pid(pid: u32) -> Self {
        Self { pid }
    }

    pub(crate) fn own() -> Self {
        Self {
            pid: std::process::id(),
        }
    }

    /// User and system time so far, in steps of a clock tick.
    pub(crate) fn cpu_time(self) -> Outcome<Duration> {
        let stat = self.read("stat")?;
        // The name before the last parenthesis may hold anything, spaces too.
        let (_, fields) = stat.rsplit_once(')').ok_or("/proc/PID/stat has no name")?;
        let mut fields = fields.split_ascii_whitespace().skip(11);
        let mut ticks = || -> Outcome<u64> {
            Ok(fields
                .next()
                .ok_or("/proc/PID/stat is too short")?
                .parse()?)
        };
        let micros = (ticks()? + ticks()?) * 1_000_000 / sys::ticks_per_second();
        Ok(Duration::from_micros(micros))
    }

    /// How long its threads were ready to run and did not have a core: on a core
    /// of its own, that is the time that other processes took from it. None if
    /// this kernel does not count it.
    pub(crate) fn waited(self) -> Option<Duration> {
        let mut total = Duration::ZERO;
        for task in fs::read_dir(format!("/proc/{}/task", self.pid)).ok()? {
            total += waited_for_a_core(&task.ok()?.path().join("schedstat"))?;
        }
        Some(total)
    }

    /// The same for the thread that asks.
    pub(crate) fn thread_waited() -> Option<Duration> {
        waited_for_a_core(Path::new("/proc/thread-self/schedstat"))
    }

    /// How many files it has open, connections among them.
    pub(crate) fn open_files(self) -> Outcome<usize> {
        let path = format!("/proc/{}/fd", self.pid);
        let list = fs::read_dir(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
        Ok(list.count())
    }

    /// Waits until it has no more files open than `before`; how many more it has
    /// when patience ends.
    pub(crate) fn files_left_open(self, before: usize, patience: Duration) -> Outcome<usize> {
        let end = Instant::now() + patience;
        loop {
            let left = self.open_files()?.saturating_sub(before);
            if left == 0 || Instant::now() >= end {
                return Ok(left);
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The resident memory in bytes.
    pub(crate) fn resident(self) -> Outcome<u64> {
        self.memory("VmRSS:")
    }

    /// The most resident memory that it ever had, in bytes.
    pub(crate) fn resident_peak(self) -> Outcome<u64> {
        self.memory("VmHWM:")
    }

    fn memory(self, name: &str) -> Outcome<u64> {
        let status = self.read("status")?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .ok_or_else(|| format!("/proc/PID/status has no {name} the process has ended"))?;
        let kilobytes: u64 = line.trim().trim_end_matches("kB").trim_end().parse()?;
        Ok(kilobytes * 1024)
    }

    fn read(self, file: &str) -> Outcome<String> {
        let path = format!("/proc/{}/{file}", self.pid);
        fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}").into())
    }
}

fn waited_for_a_core(schedstat: &Path) -> Option<Duration> {
    let line = fs::read_to_string(schedstat).ok()?;
    let nanos = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}

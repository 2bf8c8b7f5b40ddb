//! Lines that wait to be written, and the thread that writes them.
//!
//! Not tracing-appender: its queue is bounded in lines and not in bytes, what fails
//! to be written is lost without being counted, and nothing says in the log that lines
//! are missing.

use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::Level;

use super::{Format, json_of, text_of};

/// Bytes of lines that may wait; what comes then is dropped and counted.
const MAX_WAITING: usize = 1 << 20;

/// Lines are written together up to this size, which a pipe takes as one piece
/// (`PIPE_BUF`): lines of several processes then do not mix.
const MAX_PIECE: usize = 4096;

/// How often writing is tried again after an error: a full disk gets room.
const RETRY: Duration = Duration::from_millis(100);

/// How long the end of the process waits for what is still to be written.
const MAX_FLUSH: Duration = Duration::from_secs(1);

/// How often somebody is asked for lines that are due.
const TICK: Duration = Duration::from_secs(1);

/// Lines that wait to be written. Pushing never waits for the writer.
#[derive(Debug, Default)]
pub(super) struct Queue {
    format: Format,
    state: Mutex<State>,
    /// For the writer: there is something to do.
    wanted: Condvar,
    /// For whoever flushes: everything is written, or cannot be.
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Whole lines.
    waiting: Vec<u8>,
    /// Lines that were dropped since the writer last took what waits.
    dropped: u64,
    /// And since the start.
    all_dropped: u64,
    is_writing: bool,
    /// The process is ending: what cannot be written now is given up.
    is_closing: bool,
}

impl Queue {
    /// An empty one for lines of this format.
    pub(super) fn new(format: Format) -> Self {
        Self {
            format,
            ..Self::default()
        }
    }

    /// How lines are written.
    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Adds lines, each ended; drops them if too much waits.
    pub(super) fn push(&self, lines: &[u8]) {
        let mut state = self.state();
        if state.waiting.len() + lines.len() > MAX_WAITING {
            let dropped = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
            state.dropped += dropped;
            state.all_dropped += dropped;
            return;
        }
        state.waiting.extend_from_slice(lines);
        drop(state);
        self.wanted.notify_one();
    }

    /// Lines that were dropped since the start.
    pub(super) fn total_dropped(&self) -> u64 {
        self.state().all_dropped
    }

    /// Waits until everything is written or cannot be, but not for long.
    pub(super) fn flush(&self) {
        let mut state = self.state();
        state.is_closing = true;
        self.wanted.notify_one();
        let is_busy =
            |state: &mut State| state.is_writing || !state.waiting.is_empty() || state.dropped > 0;
        // Whether it was in time makes no difference.
        drop(self.done.wait_timeout_while(state, MAX_FLUSH, is_busy));
    }

    /// Writes lines as they come, for ever. `tick` is called about every second.
    pub(super) fn write_to(&self, mut out: impl Write, mut tick: impl FnMut(Instant)) {
        let mut lines = Vec::new();
        loop {
            tick(Instant::now());
            let dropped = self.take(&mut lines);
            self.write(&mut out, &lines);
            if dropped > 0 {
                let text =
                    format!("{dropped} log lines were dropped: standard error did not take them");
                let line = match self.format {
                    Format::Text => text_of(Level::WARN, &text),
                    Format::Json => json_of(Level::WARN, &text).finish(),
                };
                self.write(&mut out, line.as_bytes());
            }
            lines.clear();
        }
    }

    /// Swaps what waits with `lines`, which are written. Waits up to [`TICK`] for some.
    fn take(&self, lines: &mut Vec<u8>) -> u64 {
        let mut state = self.state();
        state.is_writing = false;
        self.done.notify_all();
        let is_idle = |state: &mut State| state.waiting.is_empty() && state.dropped == 0;
        let waited = self.wanted.wait_timeout_while(state, TICK, is_idle);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.is_writing = true;
        mem::swap(&mut state.waiting, lines);
        mem::take(&mut state.dropped)
    }

    /// Writes lines, however long it takes; once the process is ending, as far as it
    /// can be done at once.
    fn write(&self, out: &mut impl Write, mut lines: &[u8]) {
        while !lines.is_empty() {
            match out.write(&lines[..piece(lines)]) {
                Ok(0) => {}
                Ok(count) => {
                    lines = &lines[count..];
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => {}
            }
            let state = self.state();
            if state.is_closing {
                return;
            }
            let is_open = |state: &mut State| !state.is_closing;
            // After the last wait of all, it is tried once more.
            drop(self.wanted.wait_timeout_while(state, RETRY, is_open));
        }
    }

    /// Each change is whole before anything can panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much of `lines` is written at a time: whole lines, or one that is longer.
fn piece(lines: &[u8]) -> usize {
    let is_end = |byte: &u8| *byte == b'\n';
    let within = &lines[..lines.len().min(MAX_PIECE)];
    let end = within
        .iter()
        .rposition(is_end)
        .or_else(|| lines.iter().position(is_end));
    end.map_or(lines.len(), |at| at + 1)
}

/// What `tracing-subscriber` writes a whole line to at a time.
pub(super) struct Lines(pub(super) Arc<Queue>);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// A disk that may be full.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(bool, Vec<u8>)>>);

    impl Disk {
        fn set_full(&self, is_full: bool) {
            self.0.lock().unwrap().0 = is_full;
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().1.clone()).unwrap()
        }

        fn wait_for(&self, text: &str) {
            let deadline = Instant::now() + Duration::from_secs(10);
            while !self.text().contains(text) {
                assert!(Instant::now() < deadline, "{text:?} was not written");
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock().unwrap();
            if disk.0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            // As little at a time as may ever be written.
            let count = bytes.len().min(10);
            disk.1.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn queue_to(disk: &Disk) -> Arc<Queue> {
        let queue = Arc::new(Queue::default());
        let (writer, disk) = (Arc::clone(&queue), disk.clone());
        thread::spawn(move || writer.write_to(disk, |_| {}));
        queue
    }

    #[test]
    fn after_a_full_disk_lines_come_in_order_and_whole_and_the_dropped_are_counted() {
        let disk = Disk::default();
        let queue = queue_to(&disk);
        queue.push(b"before\n");
        disk.wait_for("before\n");
        disk.set_full(true);
        let line = format!("{}\n", "x".repeat(1023));
        let max = MAX_WAITING / line.len();
        // One is taken by the writer, which then waits for room.
        queue.push(line.as_bytes());
        while !queue.state().waiting.is_empty() {
            thread::yield_now();
        }
        for _ in 0..max + 5 {
            queue.push(line.as_bytes());
        }
        disk.set_full(false);
        disk.wait_for(" 5 log lines were dropped");
        queue.push(b"after\n");
        disk.wait_for("after\n");
        let text = disk.text();
        assert_eq!(text.lines().next(), Some("before"));
        assert_eq!(
            text.lines().filter(|line| line.len() == 1023).count(),
            max + 1
        );
        assert!(text.lines().rev().nth(1).unwrap().contains("dropped"));
    }

    #[test]
    fn the_end_waits_for_what_can_be_written_and_not_for_what_cannot() {
        let disk = Disk::default();
        let queue = queue_to(&disk);
        let text = "line\n".repeat(1000);
        queue.push(text.as_bytes());
        queue.flush();
        assert_eq!(disk.text(), text);
        disk.set_full(true);
        queue.push(b"lost\n");
        let start = Instant::now();
        queue.flush();
        assert!(start.elapsed() < MAX_FLUSH, "{:?}", start.elapsed());
    }

    #[test]
    fn whole_lines_are_written_together_up_to_what_a_pipe_takes_as_one_piece() {
        let long = format!("{}\n", "x".repeat(5000));
        let many = "line\n".repeat(1000);
        for (lines, expected) in [
            ("a\nb\n", 4),
            (&*long, 5001),
            (&*many, 4095),
            (&*format!("a\n{long}"), 2),
            ("cut off", 7),
        ] {
            assert_eq!(piece(lines.as_bytes()), expected);
        }
    }
}

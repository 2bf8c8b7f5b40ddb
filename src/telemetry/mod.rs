//! Logs, on standard error.
//!
//! Logging never stops, slows or ends the server: lines wait in a bounded queue for a
//! thread of their own (`queue`), no error of writing reaches whoever logs, what
//! clients can cause is limited ([`limit`]), and no field is longer than a glance or
//! can talk to a terminal (`fields`). Lines are text, or JSON (`json`).

mod fields;
mod json;
mod levels;
pub mod limit;
mod queue;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{Targets, filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

pub use json::JsonLine;
pub use levels::{InvalidLevels, Levels};
use queue::Queue;

/// The target of lines that have what clients and applications send in them: they are for
/// `--debug` only, whatever the levels are.
pub const FRAMES: &str = "resound::frames";

/// The process has one standard error, hence one queue.
static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();

/// [`Options::debug`] as it is now.
static DEBUG: AtomicBool = AtomicBool::new(false);

static FILTER: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people: prose, and then `key=value`.
    #[default]
    Text,
    /// For programs: an object on each line.
    Json,
}

impl FromStr for Format {
    type Err = &'static str;

    /// The error is what is accepted.
    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("text or json"),
        }
    }
}

/// Which lines are written, and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether to log what happens to each connection, and what is sent.
    pub debug: bool,
    /// How lines are written.
    pub format: Format,
    /// Which are, if it was said.
    pub levels: Levels,
}

/// Logging goes on until this is dropped, which writes what still waits.
#[derive(Debug)]
pub struct Guard(());

/// Starts logging: what the levels say, else everything of ours with `debug`,
/// else what a person on call wants to know.
///
/// # Errors
/// When the thread that writes cannot be had.
pub fn start(options: &Options) -> io::Result<Guard> {
    let Options { debug, format, .. } = *options;
    let queue = Arc::new(Queue::new(format));
    let writer = Arc::clone(&queue);
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || {
            writer.write_to(io::stderr(), limit::report);
        })?;
    let lines = Arc::clone(QUEUE.get_or_init(|| queue));
    std::panic::set_hook(Box::new(log_panic));
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(move || queue::Lines(Arc::clone(&lines)))
        .with_ansi(format == Format::Text && io::stderr().is_terminal())
        .with_target(false)
        .fmt_fields(fields::Fields)
        // It would write them to standard error itself, and panic if it cannot.
        .log_internal_errors(false);
    let layer = match format {
        Format::Text => layer.boxed(),
        Format::Json => layer.event_format(json::Events).boxed(),
    };
    DEBUG.store(debug, Ordering::Relaxed);
    let (filter, handle) = reload::Layer::new(options.levels.filter(debug));
    // The process has one subscriber.
    let _ = FILTER.set(handle);
    tracing_subscriber::registry()
        .with(filter)
        .with(filter_fn(|line| {
            may_be_shown(line, DEBUG.load(Ordering::Relaxed))
        }))
        .with(layer)
        .init();
    Ok(Guard(()))
}

/// Has other lines written from now on; how they are written stays.
pub fn change(options: &Options) {
    DEBUG.store(options.debug, Ordering::Relaxed);
    if let Some(filter) = FILTER.get() {
        // Also has what depends on `debug` asked again. It fails only without a subscriber.
        let _ = filter.reload(options.levels.filter(options.debug));
    }
}

/// Whatever the levels are. tungstenite logs whole messages with the signatures in them.
fn may_be_shown(line: &Metadata<'_>, debug: bool) -> bool {
    let target = line.target();
    !target.starts_with("tungstenite") && (debug || target != FRAMES)
}

/// A log file at its limit of size (`ulimit -f`) fails to be written, which is no reason
/// to end the process, as SIGXFSZ does if nobody handles it. Has to be called in a runtime.
///
/// # Errors
/// When the signal cannot be handled.
pub fn survive_size_limit() -> io::Result<()> {
    // Once it is handled, it stays so.
    signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).map(drop)
}

/// Writes what waits, for which it takes a second at most: a pipe that nobody reads
/// must not keep the process. To be called before the process ends.
pub fn flush() {
    limit::report_all();
    if let Some(queue) = QUEUE.get() {
        queue.flush();
    }
}

/// Lines that standard error has not taken and that were dropped, since the start.
pub fn dropped_lines() -> u64 {
    QUEUE.get().map_or(0, |queue| queue.total_dropped())
}

/// Writes something for a person on standard error, behind what was logged. An error is
/// ignored: nothing can be done about a terminal that is gone.
pub fn print(line: &str) {
    match QUEUE.get() {
        Some(queue) if queue.format() == Format::Json => {
            queue.push(json_of(Level::ERROR, line).finish().as_bytes());
        }
        Some(queue) => queue.push(format!("resound: {line}\n").as_bytes()),
        None => _ = writeln!(io::stderr(), "resound: {line}"),
    }
}

/// Adds a line to the log, whatever the levels are.
pub fn write(line: JsonLine) {
    if let Some(queue) = QUEUE.get() {
        queue.push(line.finish().as_bytes());
    }
}

fn json_of(level: Level, message: &str) -> JsonLine {
    let mut line = JsonLine::new(level, "resound");
    line.text("message", &message);
    line
}

impl Drop for Guard {
    fn drop(&mut self) {
        flush();
    }
}

/// The standard hook writes to standard error on the thread that panics, and so
/// waits for whoever reads it.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let Some(queue) = QUEUE.get() else { return };
    let thread = thread::current();
    let name = thread.name().unwrap_or("without a name");
    let message = format!("thread {name} {panic}");
    let backtrace = Backtrace::capture();
    let is_captured = backtrace.status() == BacktraceStatus::Captured;
    let backtrace: Option<&dyn Display> = is_captured.then_some(&backtrace);
    queue.push(line_of_panic(queue.format(), &message, backtrace).as_bytes());
}

/// The line, ended. The message may have something of a client in it.
fn line_of_panic(format: Format, message: &str, backtrace: Option<&dyn Display>) -> String {
    match format {
        Format::Json => {
            let mut line = json_of(Level::ERROR, message);
            if let Some(backtrace) = backtrace {
                line.text("backtrace", backtrace);
            }
            line.finish()
        }
        Format::Text => {
            let mut text = text_of(Level::ERROR, &fields::excerpt(message, fields::MAX_TEXT));
            if let Some(backtrace) = backtrace {
                text.push_str(&format!("{backtrace}\n"));
            }
            text
        }
    }
}

/// A line that no event has made, ended.
fn text_of(level: Level, message: &str) -> String {
    format!("{} {level:>5} {message}\n", now())
}

/// The time as it stands in front of every line.
fn now() -> String {
    let mut text = String::new();
    // It only fails if the text does, which grows.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_one_object_with_its_trace() {
        let message = "thread w panicked at src/x.rs:1:2:\n\"\u{1b}";
        let line = line_of_panic(Format::Json, message, Some(&"0: a\n1: b"));
        assert_eq!(line.lines().count(), 1, "{line}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["level"], "ERROR");
        assert_eq!(value["message"], message);
        assert_eq!(value["backtrace"], "0: a\n1: b");
        let text = line_of_panic(Format::Text, message, None);
        let expected = " ERROR thread w panicked at src/x.rs:1:2:\\n\"\\u{1b}\n";
        assert!(text.ends_with(expected), "{text:?}");
    }
}

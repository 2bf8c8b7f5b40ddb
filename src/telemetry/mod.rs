//! Logs, on standard error.
//!
//! Logging never stops, slows or ends the server: lines wait in a bounded queue for a
//! thread of their own (`queue`), no error of writing reaches whoever logs, what
//! clients can cause is limited ([`limit`]), and no field is longer than a glance or
//! can talk to a terminal (`fields`).

mod fields;
pub mod limit;
mod queue;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::sync::{Arc, OnceLock};
use std::thread;

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use queue::Queue;

/// rustls warns of what clients do wrong, without a limit. Of handshakes that fail, the
/// server logs itself.
const QUIET: &str = "rustls=error";

/// The process has one standard error, hence one queue.
static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();

/// Logging goes on until this is dropped, which writes what still waits.
#[derive(Debug)]
pub struct Guard(());

/// Starts logging: what `RUST_LOG` says, else everything of ours with `debug`,
/// else what a person on call wants to know.
///
/// # Errors
/// When the thread that writes cannot be had.
pub fn start(debug: bool) -> io::Result<Guard> {
    let queue = Arc::new(Queue::default());
    let writer = Arc::clone(&queue);
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || {
            writer.write_to(io::stderr(), limit::report);
        })?;
    let lines = Arc::clone(QUEUE.get_or_init(|| queue));
    std::panic::set_hook(Box::new(log_panic));
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter(debug))
        .with_writer(move || queue::Lines(Arc::clone(&lines)))
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .fmt_fields(fields::Fields)
        // It would write them to standard error itself, and panic if it cannot.
        .log_internal_errors(false);
    started.init();
    Ok(Guard(()))
}

fn filter(debug: bool) -> EnvFilter {
    let said = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let given = EnvFilter::try_from_default_env().ok();
    let filter = given
        .filter(|_| !said.is_empty())
        .unwrap_or_else(|| EnvFilter::new(if debug { "info,resound=debug" } else { "info" }));
    if said.contains("rustls") {
        return filter;
    }
    filter.add_directive(QUIET.parse().expect("it is a directive"))
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
        Some(queue) => queue.push(format!("{line}\n").as_bytes()),
        None => _ = writeln!(io::stderr(), "{line}"),
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        flush();
    }
}

/// The standard hook writes to standard error on the thread that panics, and so
/// waits for whoever reads it.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let name = thread.name().unwrap_or("without a name");
    let mut text = format!("{} ERROR thread {name} ", now());
    // The message may have something of a client in it.
    let message = fields::excerpt(&panic.to_string(), fields::MAX_TEXT);
    text.push_str(&message);
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        text.push_str(&format!("\n{backtrace}"));
    }
    print(&text);
}

/// The time as it stands in front of every line.
fn now() -> String {
    let mut text = String::new();
    // It only fails if the text does, which grows.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

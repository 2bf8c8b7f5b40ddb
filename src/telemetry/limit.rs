//! How many lines there are of one kind: what clients cause must not fill the log.

use std::collections::HashMap;
use std::fmt;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines of one cause and application that are written at once.
const MAX_BURST: f64 = 5.0;

/// Lines a second of one cause and application that are written then.
const MAX_PER_SECOND: f64 = 1.0;

/// After so long without another one, those that were left out are reported.
const QUIET: Duration = Duration::from_secs(2);

/// The process has one log, hence one limit.
static LIMITER: LazyLock<Limiter> = LazyLock::new(Limiter::default);

/// Logs a line unless there are too many of this cause and application; the next
/// line then says how many were left out.
///
/// Level, cause (a text of ours, never a client's), the id of a configured
/// application or `None`, fields, and what the line says.
macro_rules! limited {
    ($level:ident, $cause:expr, $app:expr, { $($fields:tt)* }, $text:expr) => {
        if $crate::telemetry::limit::enabled!($level) {
            let app: Option<&str> = $app;
            if let Some(more) = $crate::telemetry::limit::admit($cause, app) {
                tracing::$level!(app, $($fields)* "{}{more}", $text);
            }
        }
    };
}

macro_rules! enabled {
    (info) => {
        tracing::enabled!(tracing::Level::INFO)
    };
    (warn) => {
        tracing::enabled!(tracing::Level::WARN)
    };
    (error) => {
        tracing::enabled!(tracing::Level::ERROR)
    };
}

pub(crate) use {enabled, limited};

/// How many lines were left out before this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct More(u64);

impl fmt::Display for More {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            more => write!(f, " (and {more} more)"),
        }
    }
}

/// Counts a line; `None` if it has to be left out. `app` is the id of a configured
/// application: there is an entry for each.
pub fn admit(cause: &'static str, app: Option<&str>) -> Option<More> {
    LIMITER.admit(cause, app, Instant::now())
}

/// Reports how many lines were left out where no further one came to do it.
pub(super) fn report(now: Instant) {
    log_left_out(LIMITER.left_out(|seen| now.saturating_duration_since(seen) >= QUIET));
}

/// Reports all lines that were left out.
pub(super) fn report_all() {
    log_left_out(LIMITER.left_out(|_| true));
}

fn log_left_out(left_out: Vec<LeftOut>) {
    for LeftOut { cause, app, more } in left_out {
        tracing::info!(app, "{cause}: and {more} more");
    }
}

#[derive(Debug, PartialEq, Eq)]
struct LeftOut {
    cause: &'static str,
    app: Option<String>,
    more: u64,
}

/// By cause and application; the empty id stands for none.
#[derive(Debug, Default)]
struct Limiter(Mutex<HashMap<&'static str, HashMap<Box<str>, Entry>>>);

#[derive(Debug)]
struct Entry {
    tokens: f64,
    seen: Instant,
    left_out: u64,
}

impl Limiter {
    fn admit(&self, cause: &'static str, app: Option<&str>, now: Instant) -> Option<More> {
        // A map of counters is whole after any panic.
        let mut causes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let apps = causes.entry(cause).or_default();
        let app = app.unwrap_or_default();
        if !apps.contains_key(app) {
            let entry = Entry {
                tokens: MAX_BURST,
                seen: now,
                left_out: 0,
            };
            apps.insert(app.into(), entry);
        }
        let entry = apps.get_mut(app)?;
        let elapsed = now.saturating_duration_since(entry.seen).as_secs_f64();
        entry.tokens = (entry.tokens + elapsed * MAX_PER_SECOND).min(MAX_BURST);
        entry.seen = now;
        if entry.tokens < 1.0 {
            entry.left_out += 1;
            return None;
        }
        entry.tokens -= 1.0;
        Some(More(std::mem::take(&mut entry.left_out)))
    }

    /// What was left out and is due, which is then reported.
    fn left_out(&self, is_due: impl Fn(Instant) -> bool) -> Vec<LeftOut> {
        let mut causes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = Vec::new();
        for (cause, apps) in causes.iter_mut() {
            for (app, entry) in apps.iter_mut() {
                if entry.left_out > 0 && is_due(entry.seen) {
                    due.push(LeftOut {
                        cause,
                        app: (!app.is_empty()).then(|| app.to_string()),
                        more: std::mem::take(&mut entry.left_out),
                    });
                }
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_some_lines_that_say_how_many_more_there_were() {
        let limiter = Limiter::default();
        let start = Instant::now();
        let lines: Vec<u64> = (0..10_000)
            .filter_map(|n| limiter.admit("a", None, start + Duration::from_millis(n)))
            .map(|More(more)| more)
            .collect();
        assert_eq!(lines[..5], [0; 5]);
        assert_eq!(lines.len(), 14, "one a second after the first five");
        let end = start + Duration::from_secs(10);
        let due = |now: Instant| limiter.left_out(|seen| now - seen >= QUIET);
        assert_eq!(due(end), [], "the flood may go on");
        let last = LeftOut {
            cause: "a",
            app: None,
            more: 10_000 - 14 - lines.iter().sum::<u64>(),
        };
        assert_eq!(due(end + QUIET), [last]);
        assert_eq!(due(end + QUIET * 2), []);
    }

    #[test]
    fn causes_and_applications_do_not_hide_each_other() {
        let limiter = Limiter::default();
        let now = Instant::now();
        while limiter.admit("a", Some("shop"), now).is_some() {}
        for (cause, app) in [("b", Some("shop")), ("a", Some("blog")), ("a", None)] {
            assert_eq!(limiter.admit(cause, app, now), Some(More(0)));
        }
        let left_out = limiter.left_out(|_| true);
        assert_eq!(left_out[0].app.as_deref(), Some("shop"));
        assert_eq!(left_out[0].more, 1);
    }

    #[test]
    fn more_is_only_said_if_there_is_more() {
        assert_eq!(format!("refused{}", More(0)), "refused");
        assert_eq!(format!("refused{}", More(7)), "refused (and 7 more)");
    }
}

//! The deliveries of late, for `resound webhooks tail`.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

/// Deliveries that are kept.
const MAX_KEPT: usize = 1000;

/// One try to tell a receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Delivery {
    /// The first is 1, each has one more.
    pub number: u64,
    /// When it ended, in Unix milliseconds.
    pub at: u64,
    /// Of which application.
    pub app: String,
    /// Where, without its query.
    pub url: String,
    /// `X-Resound-Webhook-Id`.
    pub id: String,
    /// How many events.
    pub events: usize,
    /// The first try is 1.
    pub attempt: u32,
    /// How long it took.
    pub milliseconds: u64,
    /// `delivered`, `refused`, `timed_out` or `failed`.
    pub outcome: String,
    /// What went wrong, if something did.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// In how many milliseconds it is tried again, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_in: Option<u64>,
}

/// Some of them.
#[derive(Debug, Serialize)]
pub struct Deliveries {
    /// The number of the last one of all.
    pub last: u64,
    /// In the order in which they ended.
    pub deliveries: Vec<Delivery>,
    /// A line of each, for a person.
    pub lines: Vec<String>,
}

/// For a person: one line.
impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = UNIX_EPOCH + Duration::from_millis(self.at);
        let at = httpdate::fmt_http_date(at);
        let Self {
            app,
            url,
            id,
            events,
            ..
        } = self;
        let (attempt, took, outcome) = (self.attempt, self.milliseconds, &self.outcome);
        write!(
            f,
            "{at}  {outcome}  {events} events  try {attempt}  {took} ms  {app}  {url}  {id}"
        )?;
        if !self.error.is_empty() {
            write!(f, "  {}", self.error)?;
        }
        match self.retry_in {
            Some(milliseconds) => write!(f, "; again in {milliseconds} ms"),
            None if self.error.is_empty() => Ok(()),
            None => f.write_str("; given up"),
        }
    }
}

/// The last of them.
#[derive(Debug, Default)]
pub struct History(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    deliveries: VecDeque<Delivery>,
    count: u64,
}

impl History {
    /// Those that are kept and have a number above `number`, and the number of the last.
    pub fn after(&self, number: u64) -> Deliveries {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = |delivery: &&Delivery| delivery.number > number;
        let deliveries: Vec<_> = kept.deliveries.iter().filter(is_new).cloned().collect();
        Deliveries {
            last: kept.count,
            lines: deliveries.iter().map(ToString::to_string).collect(),
            deliveries,
        }
    }

    /// Adds one, which gets its number.
    pub(super) fn add(&self, delivery: Delivery) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.count += 1;
        let number = kept.count;
        if kept.deliveries.len() == MAX_KEPT {
            kept.deliveries.pop_front();
        }
        kept.deliveries.push_back(Delivery { number, ..delivery });
    }
}

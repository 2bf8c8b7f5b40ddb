//! Whether this node listens to as many topics as its sockets need: both numbers,
//! compared for as long as they differ.
//!
//! Pure. It should never find anything, since every session sends all; if it does, one
//! that has lost something does not miss events for ever, and says so.

use std::time::{Duration, Instant};

/// How often the numbers are compared.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// How long they may differ before all is sent again, and again.
const MAX_DIFFERENCE: Duration = Duration::from_secs(3);

/// What the numbers say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// They are the same.
    Complete,
    /// They differ, and it is to be seen for how long.
    Differs,
    /// They differ for too long.
    Incomplete,
}

/// Since when they differ.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    since: Option<Instant>,
}

impl Watchdog {
    /// Compares the topics that are needed with those that are listened to.
    pub(super) fn compare(&mut self, wanted: usize, listening: usize, now: Instant) -> Verdict {
        if wanted == listening {
            self.since = None;
            return Verdict::Complete;
        }
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) < MAX_DIFFERENCE {
            return Verdict::Differs;
        }
        // What is done about it gets as long.
        self.since = Some(now);
        Verdict::Incomplete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_that_lasts_is_reported_and_reported_again_until_it_is_gone() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watchdog = Watchdog::default();
        assert_eq!(watchdog.compare(0, 0, at(0)), Verdict::Complete);
        assert_eq!(watchdog.compare(812, 0, at(1)), Verdict::Differs);
        assert_eq!(watchdog.compare(813, 1, at(3)), Verdict::Differs);
        assert_eq!(watchdog.compare(812, 0, at(4)), Verdict::Incomplete);
        assert_eq!(watchdog.compare(812, 700, at(5)), Verdict::Differs);
        assert_eq!(watchdog.compare(812, 700, at(7)), Verdict::Incomplete);
        assert_eq!(watchdog.compare(812, 812, at(8)), Verdict::Complete);
        assert_eq!(watchdog.compare(0, 1, at(9)), Verdict::Differs);
        assert_eq!(watchdog.compare(0, 0, at(11)), Verdict::Complete);
        assert_eq!(
            watchdog.compare(0, 1, at(13)),
            Verdict::Differs,
            "a new one"
        );
        assert_eq!(watchdog.compare(0, 1, at(16)), Verdict::Incomplete);
    }
}

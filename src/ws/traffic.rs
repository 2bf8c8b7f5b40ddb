//! How long a connection has been open and what its client has sent.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// What times are counted from: an [`Instant`] takes twice as much of each connection.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A time, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened(u64);

impl Opened {
    /// So long ago.
    pub(super) fn ago(age: Duration) -> Self {
        let now = EPOCH.elapsed();
        // Before the epoch, if it comes from a process that had begun earlier.
        Self(millis(now).wrapping_sub(millis(age)))
    }

    /// How long ago it was.
    pub(super) fn elapsed(self) -> Duration {
        Duration::from_millis(millis(EPOCH.elapsed()).wrapping_sub(self.0))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_kept() {
        for age in [0, 1, 5_000_000_000] {
            let age = Duration::from_millis(age);
            let elapsed = Opened::ago(age).elapsed();
            assert!(elapsed >= age && elapsed - age < Duration::from_secs(5));
        }
    }
}

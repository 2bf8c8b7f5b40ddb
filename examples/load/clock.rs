//! Time in nanoseconds since the program began, which fits a number where an
//! `Instant` would need arithmetic.

use std::time::{Duration, Instant};

#[derive(Clone, Copy)]
pub(crate) struct Clock {
    began: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            began: Instant::now(),
        }
    }

    #[inline]
    pub(crate) fn now(self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }
}

pub(crate) const fn seconds(count: usize) -> u64 {
    Duration::from_secs(count as u64).as_nanos() as u64
}

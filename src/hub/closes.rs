//! How many connections ended, and why.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::protocol::CloseReason;

/// A count for each [`CloseReason`], since the start.
#[derive(Debug, Default)]
pub struct Closes([AtomicU64; CloseReason::COUNT]);

impl Closes {
    /// One more.
    pub fn count(&self, reason: CloseReason) {
        self.0[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn of(&self, reason: CloseReason) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }
}

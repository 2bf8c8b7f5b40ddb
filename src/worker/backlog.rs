//! What waits, in all workers together, for clients that do not read.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A count of bytes with a bound. It counts what sockets hold whose last write
/// would have blocked; what was not yet tried to write is not a client's fault.
#[derive(Debug)]
pub(super) struct Backlog {
    bytes: AtomicUsize,
    most: usize,
}

impl Backlog {
    pub(super) fn new(most: usize) -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            most,
        }
    }

    /// Whether clients that are behind get no more.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= self.most
    }

    /// A socket held `before` bytes and now holds `after`.
    pub(super) fn change(&self, before: usize, after: usize) {
        if after >= before {
            self.bytes.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.bytes.fetch_sub(before - after, Ordering::Relaxed);
        }
    }
}

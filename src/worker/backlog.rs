//! What waits to be written, in all workers together.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How far a worker's count may be from what the others know of it: no cache line is
/// shared for every message.
const STEP: usize = 128 * 1024;

/// The sum of what all workers have reported, and its bound. In bytes.
#[derive(Debug)]
pub struct Total {
    reported: AtomicUsize,
    max: AtomicUsize,
}

/// One worker's count of what waits in its out-buffers, large frames once.
#[derive(Debug)]
pub(super) struct Backlog {
    total: Arc<Total>,
    own: Cell<usize>,
    /// The part of the total that is its own.
    reported: Cell<usize>,
}

impl Total {
    /// Nothing waits, and so many bytes may.
    pub fn new(max: usize) -> Self {
        Self {
            reported: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
        }
    }

    /// How many there are, but for less than 128 KiB for each worker.
    pub fn bytes(&self) -> usize {
        self.reported.load(Ordering::Relaxed)
    }

    /// How many there may be.
    pub fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }
}

impl Backlog {
    pub(super) fn total(max: usize) -> Arc<Total> {
        Arc::new(Total::new(max))
    }

    pub(super) fn for_worker(total: &Arc<Total>) -> Rc<Self> {
        Rc::new(Self {
            total: Arc::clone(total),
            own: Cell::new(0),
            reported: Cell::new(0),
        })
    }

    /// Changes how many bytes may wait in all.
    pub(super) fn set_max(&self, max: usize) {
        self.total.max.store(max, Ordering::Relaxed);
    }

    /// Whether so much waits that clients that are far behind get no more.
    pub(super) fn is_high(&self) -> bool {
        self.waiting() >= self.total.max() / 4 * 3
    }

    /// Whether so much waits that no client that is behind gets more.
    pub(super) fn is_full(&self) -> bool {
        self.waiting() >= self.total.max()
    }

    /// What took `before` bytes now takes `after`.
    pub(super) fn change(&self, before: usize, after: usize) {
        let own = self.own.get() + after - before;
        self.own.set(own);
        let reported = self.reported.get();
        if own.abs_diff(reported) < STEP {
            return;
        }
        if own > reported {
            self.total
                .reported
                .fetch_add(own - reported, Ordering::Relaxed);
        } else {
            self.total
                .reported
                .fetch_sub(reported - own, Ordering::Relaxed);
        }
        self.reported.set(own);
    }

    fn waiting(&self) -> usize {
        self.total.reported.load(Ordering::Relaxed) + self.own.get() - self.reported.get()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.own.get() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_know_of_each_other_within_a_step() {
        let total = Backlog::total(10 * STEP);
        let (one, two) = (Backlog::for_worker(&total), Backlog::for_worker(&total));
        one.change(0, 6 * STEP);
        two.change(0, STEP - 1);
        assert!(!one.is_high() && !two.is_high());
        two.change(STEP - 1, 2 * STEP);
        assert!(one.is_high() && two.is_high() && !two.is_full());
        two.change(0, 2 * STEP);
        assert!(one.is_full() && two.is_full());
        one.change(6 * STEP, 0);
        two.change(4 * STEP, 0);
        assert!(!one.is_high() && one.is_empty() && two.is_empty());
        assert_eq!(total.reported.load(Ordering::Relaxed), 0);
    }
}

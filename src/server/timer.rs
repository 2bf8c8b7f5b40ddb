//! The clock that hyper waits for the head of a request by.
//!
//! hyper makes a new wait for each request and drops it when the head has come. tokio
//! would enter each into its timers and take it out again. Here a connection has one entry
//! that stays: it goes off at the earliest moment that was asked for, sees that a later
//! one is meant by now, and is set to that.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt;
use tokio::time::{Sleep, sleep_until};

/// The waits of one connection, of which there is one at a time.
pub(super) struct HeadTimer {
    entry: Arc<Mutex<Option<Pin<Box<Sleep>>>>>,
    /// What the first wait lasts at least; 0 afterwards.
    first_ms: AtomicU64,
}

impl HeadTimer {
    /// `first` is how long the first request may take, whatever hyper allows the others.
    pub(super) fn new(first: Duration) -> Self {
        let first_ms = u64::try_from(first.as_millis()).unwrap_or(u64::MAX);
        Self {
            entry: Arc::default(),
            first_ms: AtomicU64::new(first_ms),
        }
    }
}

struct Wait {
    until: Instant,
    entry: Arc<Mutex<Option<Pin<Box<Sleep>>>>>,
}

impl rt::Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn rt::Sleep>> {
        let first = Duration::from_millis(self.first_ms.swap(0, Ordering::Relaxed));
        Box::pin(Wait {
            until: deadline.max(self.now() + first),
            entry: Arc::clone(&self.entry),
        })
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into()
    }
}

impl rt::Sleep for Wait {}

impl Future for Wait {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let until = self.until.into();
        let mut entry = lock(&self.entry);
        let entry = entry.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if entry.deadline() > until {
            entry.as_mut().reset(until);
        }
        loop {
            ready!(entry.as_mut().poll(cx));
            if entry.deadline() >= until {
                return Poll::Ready(());
            }
            entry.as_mut().reset(until);
        }
    }
}

fn lock<T>(entry: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is locked.
    entry.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::HeadTimer;
    use hyper::rt::Timer;
    use std::time::Duration;
    use tokio::time::{Instant, timeout};

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn each_wait_ends_at_its_own_time() {
        let (timer, began) = (HeadTimer::new(Duration::ZERO), Instant::now());
        // One that is dropped leaves an entry that is too early for the next.
        assert!(timeout(SECOND, timer.sleep(2 * SECOND)).await.is_err());
        timer.sleep(10 * SECOND).await;
        assert_eq!(began.elapsed(), 11 * SECOND);
        // An earlier one than before, and one that is over already.
        assert!(timeout(SECOND, timer.sleep(60 * SECOND)).await.is_err());
        timer.sleep(3 * SECOND).await;
        assert_eq!(began.elapsed(), 15 * SECOND);
        timer.sleep(Duration::ZERO).await;
        assert_eq!(began.elapsed(), 15 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_wait_has_a_time_of_its_own() {
        let (timer, began) = (HeadTimer::new(10 * SECOND), Instant::now());
        timer.sleep(2 * SECOND).await;
        assert_eq!(began.elapsed(), 10 * SECOND);
        timer.sleep(2 * SECOND).await;
        assert_eq!(began.elapsed(), 12 * SECOND);
    }
}

//! A token bucket: so many at once, and so many in a time on average.

use std::time::{Duration, Instant};

use crate::apps::Rate;

/// What is left of a [`Rate`].
#[derive(Debug)]
pub(super) struct Bucket {
    rate: Rate,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(super) fn new(rate: Rate, now: Instant) -> Self {
        Self {
            rate,
            tokens: f64::from(rate.count),
            filled: now,
        }
    }

    /// One that will be full in so much time.
    pub(super) fn full_in(rate: Rate, time: Duration, now: Instant) -> Self {
        let missing = time.as_secs_f64() / rate.per.as_secs_f64();
        Self {
            rate,
            tokens: f64::from(rate.count) * (1.0 - missing.clamp(0.0, 1.0)),
            filled: now,
        }
    }

    /// In how much time it will be full.
    pub(super) fn time_left(&self, now: Instant) -> Duration {
        self.time_until(self.rate.count, now)
    }

    /// Takes one; false if there is none.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.tokens = self.level(now).min(f64::from(self.rate.count));
        self.filled = now;
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }

    /// Whether there is one.
    pub(super) fn has_one(&self, now: Instant) -> bool {
        self.level(now).min(f64::from(self.rate.count)) >= 1.0
    }

    /// How long it takes until there are so many, as far as they are less than there may be.
    pub(super) fn time_until(&self, count: u32, now: Instant) -> Duration {
        let missing = f64::from(count.min(self.rate.count)) - self.level(now);
        self.rate
            .per
            .mul_f64(missing.max(0.0) / f64::from(self.rate.count))
    }

    fn level(&self, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        let per_second = f64::from(self.rate.count) / self.rate.per.as_secs_f64();
        self.tokens + elapsed * per_second
    }

    /// Whether nothing is missing: a new one would be the same.
    pub(super) fn is_full(&self, now: Instant) -> bool {
        self.level(now) >= f64::from(self.rate.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_with_time_up_to_the_count() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut bucket = Bucket::new(
            Rate {
                count: 3,
                per: Duration::from_secs(6),
            },
            start,
        );
        let takes = |bucket: &mut Bucket, now| (0..5).filter(|_| bucket.take(now)).count();
        assert_eq!(takes(&mut bucket, at(0)), 3);
        assert!(!bucket.take(at(1)), "half a token");
        assert_eq!(takes(&mut bucket, at(4)), 2);
        assert!(!bucket.is_full(at(9)) && bucket.is_full(at(10)));
        assert_eq!(takes(&mut bucket, at(1000)), 3);
        let left = bucket.time_left(at(1001));
        assert!(left.abs_diff(Duration::from_secs(5)) < Duration::from_micros(1));
        let mut bucket = Bucket::full_in(bucket.rate, left, start);
        assert!(!bucket.take(at(0)), "half a token");
        assert_eq!(takes(&mut bucket, at(2)), 1);
    }
}

//! Closing sockets one after the other while a server drains, at a steady pace and in no
//! order: their clients are to come to another node as a stream and not as a wave.

use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Worker;
use super::socket::Socket;
use crate::lifecycle::State;
use crate::protocol::CloseReason;

/// How long to wait between two looks at what is due: as long as one socket has, so that
/// clients do not come in clusters, for which others would wait.
const PAUSES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_millis(100);

/// How often those that have come meanwhile are put among the others.
const SHUFFLE: Duration = Duration::from_secs(1);

/// How many of those that are left are due: so many that the last is when time is up.
#[derive(Default)]
struct Pace {
    /// The part of a socket that was due and not closed.
    rest: f64,
}

impl Pace {
    /// After `elapsed`, before which `left` was left for `count` sockets.
    fn due(&mut self, count: usize, elapsed: Duration, left: Duration) -> usize {
        if elapsed >= left {
            return count;
        }
        let part = elapsed.as_secs_f64() / left.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "nobody has 2^52 sockets")]
        let due = part.mul_add(count as f64, self.rest);
        self.rest = due.fract();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is between 0 and the count"
        )]
        let due = due as usize;
        due.min(count)
    }
}

/// How long to wait until another of so many is due, if `left` is left for them.
fn pause(count: usize, left: Duration) -> Duration {
    let each = left / u32::try_from(count).unwrap_or(u32::MAX).max(1);
    each.clamp(*PAUSES.start(), *PAUSES.end())
}

impl Worker {
    /// Closes all of its sockets while the server drains, those included that come
    /// meanwhile.
    pub(super) async fn drain(self: Rc<Self>) {
        self.lifecycle.closing().await;
        let State::Draining { deadline, .. } = self.lifecycle.state() else {
            return;
        };
        let mut pace = Pace::default();
        let mut queue: Vec<Rc<Socket>> = Vec::new();
        let mut shuffled: Option<Instant> = None;
        let mut last = Instant::now();
        loop {
            let now = Instant::now();
            if shuffled.is_none_or(|at| now - at >= SHUFFLE) {
                queue = self.shuffled_sockets();
                shuffled = Some(now);
            }
            let left = deadline.saturating_duration_since(last);
            let due = pace.due(queue.len(), now - last, left);
            for socket in queue.drain(queue.len() - due..) {
                self.close(&socket, CloseReason::Draining);
            }
            last = now;
            if now >= deadline {
                return;
            }
            let pause = pause(queue.len(), left);
            // Not at one moment with other workers and nodes.
            sleep(pause / 2 + pause.mul_f64(self.random_part())).await;
        }
    }

    /// Why sockets are closed when the server stops.
    pub fn closing_reason(&self) -> CloseReason {
        if self.lifecycle.has_drained() {
            CloseReason::Draining
        } else {
            CloseReason::ShuttingDown
        }
    }

    fn shuffled_sockets(&self) -> Vec<Rc<Socket>> {
        let mut all: Vec<Rc<Socket>> = {
            let sockets = self.sockets.borrow();
            let open = sockets.iter().map(|(_, socket)| socket);
            open.filter(|socket| socket.is_open()).cloned().collect()
        };
        // Fisher and Yates's.
        for at in (1..all.len()).rev() {
            let other = self.random() % (at as u64 + 1);
            all.swap(at, usize::try_from(other).unwrap_or_default());
        }
        all
    }

    /// From 0 to 1.
    fn random_part(&self) -> f64 {
        let [.., high, low] = self.random().to_be_bytes();
        f64::from(u16::from_be_bytes([high, low])) / f64::from(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_steady_and_the_last_is_due_when_time_is_up() {
        let (mut pace, mut count) = (Pace::default(), 1000);
        let (mut left, tick) = (Duration::from_secs(10), Duration::from_millis(10));
        let mut by_second = Vec::new();
        for _ in 0..10 {
            let before = count;
            for _ in 0..100 {
                count -= pace.due(count, tick, left);
                left -= tick;
            }
            by_second.push(before - count);
        }
        assert!(
            by_second.iter().all(|closed| (99..=101).contains(closed)),
            "{by_second:?}"
        );
        assert_eq!(count, 0);
        assert_eq!(pace.due(7, tick, Duration::ZERO), 7);
        assert_eq!(Pace::default().due(0, tick, tick * 2), 0);
    }

    #[test]
    fn they_are_looked_at_one_by_one_and_not_without_end() {
        let second = Duration::from_secs(1);
        assert_eq!(pause(100, second), Duration::from_millis(10));
        assert_eq!(pause(1_000_000, second), Duration::from_millis(1));
        assert_eq!(pause(usize::MAX, second), Duration::from_millis(1));
        assert_eq!(pause(1, second), Duration::from_millis(100));
        assert_eq!(pause(0, second), Duration::from_millis(100));
    }
}

//! Whether each worker's event loop turns: somebody asks, and each has to answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::time::timeout;

/// For whoever wants to know whether workers turn.
#[derive(Debug)]
pub struct Liveness(Box<[Turns]>);

/// One worker's.
#[derive(Debug, Default)]
struct Turns {
    asked: Notify,
    answers: AtomicU64,
    answered: Notify,
}

impl Liveness {
    /// For so many workers.
    pub fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Turns::default()).collect())
    }

    /// Workers that do not answer within `time`, by number from 0.
    pub async fn silent(&self, time: Duration) -> Vec<usize> {
        let asked = self.0.iter().map(|turns| timeout(time, turns.ask()));
        let answers = join_all(asked).await.into_iter().enumerate();
        answers
            .filter_map(|(worker, answer)| answer.is_err().then_some(worker))
            .collect()
    }

    /// Answers for a worker, as long as its event loop turns.
    pub(super) async fn answer(&self, worker: usize) {
        let Some(turns) = self.0.get(worker) else {
            return std::future::pending().await;
        };
        loop {
            turns.asked.notified().await;
            turns.answers.fetch_add(1, Ordering::Release);
            turns.answered.notify_waiters();
        }
    }
}

impl Turns {
    /// Is done when the worker has answered, whoever has asked it meanwhile.
    async fn ask(&self) {
        let before = self.answers.load(Ordering::Acquire);
        loop {
            let answered = self.answered.notified();
            if self.answers.load(Ordering::Acquire) != before {
                return;
            }
            self.asked.notify_one();
            answered.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn those_that_do_not_turn_are_named() {
        let liveness = std::sync::Arc::new(Liveness::new(3));
        for worker in [0, 2] {
            let liveness = std::sync::Arc::clone(&liveness);
            tokio::spawn(async move { liveness.answer(worker).await });
        }
        for _ in 0..3 {
            let (one, other) = tokio::join!(
                liveness.silent(Duration::from_secs(1)),
                liveness.silent(Duration::from_secs(1))
            );
            assert_eq!((one, other), (vec![1], vec![1]));
        }
    }
}

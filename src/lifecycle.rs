//! How far a server's life has got, for everybody who has to act on it.
//!
//! It only goes forward, and whoever has a clone can move it on:
//!
//! ```text
//! Running ──▶ Draining { begin, deadline } ──▶ Stopping
//!    └─────────────────────────────────────────────▲
//! ```
//!
//! While it drains, a server does all that it did before, except that it does not call
//! itself ready, that other nodes learn of it, and that from `begin` on its sockets are
//! closed one after the other. It knows nothing of signals, sockets or the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How far it has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It serves.
    Running,
    /// It serves, and is to get no more clients from a load balancer.
    Draining {
        /// From when on its sockets are closed, one after the other.
        begin: Instant,
        /// When the last of them is, and it stops by itself.
        deadline: Instant,
    },
    /// It accepts nothing and closes what there is.
    Stopping,
}

/// A server's state, shared by its clones.
#[derive(Clone, Debug)]
pub struct Lifecycle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: watch::Sender<State>,
    /// Whether it had begun to close sockets when it stopped.
    has_drained: AtomicBool,
}

/// Stops a [`Lifecycle`] when it is dropped, also with a future that is given up.
#[derive(Debug)]
pub struct StopOnDrop(Lifecycle);

impl State {
    /// Whether it closes sockets one after the other.
    fn is_closing(self) -> bool {
        matches!(self, Self::Draining { begin, .. } if begin <= Instant::now())
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self(Arc::new(Inner {
            state: watch::Sender::new(State::Running),
            has_drained: AtomicBool::new(false),
        }))
    }
}

impl Lifecycle {
    /// One that is running.
    pub fn new() -> Self {
        Self::default()
    }

    /// The present state.
    pub fn state(&self) -> State {
        *self.0.state.borrow()
    }

    /// Whether it is over, so that nothing may begin.
    pub fn is_stopping(&self) -> bool {
        self.state() == State::Stopping
    }

    /// Whether sockets are, or were, closed one after the other.
    pub fn has_drained(&self) -> bool {
        self.0.has_drained.load(Ordering::Acquire) || self.state().is_closing()
    }

    /// Begins to drain, or brings the deadline nearer if it drains already. Returns
    /// whether that has changed anything.
    pub fn drain(&self, begin: Instant, deadline: Instant) -> bool {
        self.0.state.send_if_modified(|state| {
            let is_earlier = match *state {
                State::Running => true,
                State::Draining {
                    deadline: present, ..
                } => deadline < present,
                State::Stopping => false,
            };
            if is_earlier {
                let begin = begin.min(deadline);
                *state = State::Draining { begin, deadline };
            }
            is_earlier
        })
    }

    /// Begins to stop. Returns whether that has changed anything.
    pub fn stop(&self) -> bool {
        self.0.state.send_if_modified(|state| {
            let before = std::mem::replace(state, State::Stopping);
            if before.is_closing() {
                self.0.has_drained.store(true, Ordering::Release);
            }
            before != State::Stopping
        })
    }

    /// Is done with the next state, counted from this call.
    pub fn changed(&self) -> impl Future<Output = State> + use<> {
        let mut states = self.0.state.subscribe();
        async move {
            // There are no more changes without anybody who could make one.
            match states.changed().await {
                Ok(()) => *states.borrow(),
                Err(_) => State::Stopping,
            }
        }
    }

    /// Is done when sockets are to be closed, one after the other or at once.
    pub async fn closing(&self) {
        loop {
            let changed = self.changed();
            match self.state() {
                State::Running => _ = changed.await,
                State::Draining { begin, .. } => tokio::select! {
                    () = sleep_until(begin) => return,
                    _ = changed => {}
                },
                State::Stopping => return,
            }
        }
    }

    /// Is done when it stops, or when nobody is left who could stop it.
    pub fn stopping(&self) -> impl Future<Output = ()> + use<> {
        let mut states = self.0.state.subscribe();
        async move {
            let _ = states.wait_for(|state| *state == State::Stopping).await;
        }
    }

    /// Stops it at the deadline of its draining; is done when it stops. One task does this
    /// for a server.
    pub async fn keep_deadline(&self) {
        loop {
            let changed = self.changed();
            match self.state() {
                State::Running => _ = changed.await,
                State::Draining { deadline, .. } => tokio::select! {
                    () = sleep_until(deadline) => { self.stop(); }
                    _ = changed => {}
                },
                State::Stopping => return,
            }
        }
    }

    /// What stops it when it is dropped.
    pub fn stop_on_drop(&self) -> StopOnDrop {
        StopOnDrop(self.clone())
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};
    use std::time::Duration;

    use super::*;

    fn draining(deadline: Instant) -> State {
        State::Draining {
            begin: deadline,
            deadline,
        }
    }

    fn drain(lifecycle: &Lifecycle, deadline: Instant) -> bool {
        lifecycle.drain(deadline, deadline)
    }

    #[tokio::test(start_paused = true)]
    async fn it_only_goes_forward() {
        let lifecycle = Lifecycle::new();
        let at = |seconds| Instant::now() + Duration::from_secs(seconds);
        assert_eq!(lifecycle.state(), State::Running);
        assert!(drain(&lifecycle, at(10)));
        assert!(!drain(&lifecycle, at(10)) && !drain(&lifecycle, at(11)));
        assert_eq!(lifecycle.state(), draining(at(10)));
        assert!(drain(&lifecycle, at(5)), "sooner is forward");
        assert_eq!(lifecycle.state(), draining(at(5)));
        assert!(!lifecycle.is_stopping());
        assert!(lifecycle.stop() && !lifecycle.stop());
        assert!(!drain(&lifecycle, at(1)));
        assert_eq!(lifecycle.state(), State::Stopping);
    }

    #[tokio::test(start_paused = true)]
    async fn it_stops_at_the_deadline_and_not_before() {
        let lifecycle = Lifecycle::new();
        let begin = Instant::now();
        let keeper = lifecycle.clone();
        let keeper = tokio::spawn(async move { keeper.keep_deadline().await });
        let later = begin + Duration::from_secs(100);
        let sooner = begin + Duration::from_secs(10);
        drain(&lifecycle, later);
        tokio::time::sleep(Duration::from_secs(5)).await;
        drain(&lifecycle, sooner);
        sleep_until(sooner - Duration::from_millis(10)).await;
        assert_eq!(lifecycle.state(), draining(sooner));
        lifecycle.stopping().await;
        assert!(begin.elapsed() < Duration::from_secs(11));
        keeper.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn sockets_are_closed_from_the_beginning_on_or_when_it_stops() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let lifecycle = Lifecycle::new();
        lifecycle.drain(at(20), at(30));
        // Sooner, and not later than the deadline.
        lifecycle.drain(at(10), at(5));
        lifecycle.closing().await;
        assert_eq!(Instant::now(), at(5));
        lifecycle.stop();
        assert!(lifecycle.has_drained());
        let lifecycle = Lifecycle::new();
        lifecycle.drain(at(10), at(20));
        let closing = lifecycle.closing();
        lifecycle.stop();
        closing.await;
        assert_eq!(Instant::now(), at(5));
        assert!(!lifecycle.has_drained(), "it stopped before that");
    }

    #[tokio::test]
    async fn who_waits_misses_nothing_that_comes_after_it_asked() {
        let lifecycle = Lifecycle::new();
        let (changed, mut stopping) = (lifecycle.changed(), Box::pin(lifecycle.stopping()));
        let deadline = Instant::now();
        drain(&lifecycle, deadline);
        assert_eq!(changed.await, draining(deadline));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(stopping.as_mut().poll(&mut cx).is_pending());
        let changed = lifecycle.changed();
        drop(lifecycle.stop_on_drop());
        assert_eq!(changed.await, State::Stopping);
        stopping.await;
        lifecycle.stopping().await;
    }

    #[tokio::test]
    async fn with_nobody_left_who_could_stop_it_it_stops() {
        let lifecycle = Lifecycle::new();
        let (changed, stopping) = (lifecycle.changed(), lifecycle.stopping());
        drop(lifecycle);
        assert_eq!(changed.await, State::Stopping);
        stopping.await;
    }
}

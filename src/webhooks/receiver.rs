//! One receiver: what it is still to be told, and a task that tells it.
//!
//! Several requests are on their way at a time. One that fails is tried again with pauses that
//! double, until its events are too old. Of a receiver that has failed several times in a row
//! only one request at a time is tried; when it takes that, all goes on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::time::sleep_until;

use super::Webhooks;
use super::event::{self, Event};
use super::history::Delivery;
use super::queue::{Batch, Queue};
use super::request::{Connections, Failure, Message};
use crate::apps::{AppHandle, Counter, Webhook, WebhookLoss, WebhookOutcome};
use crate::config::WebhookLimits;
use crate::telemetry::limit::limited;

/// The first pause before a request is tried again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Failures in a row after which only one request at a time is tried.
const MAX_FAILURES: u32 = 3;

/// How often it is looked whether something has become too old.
const EXPIRE: Duration = Duration::from_secs(1);

/// A receiver.
pub(super) struct Receiver {
    pub(super) app: AppHandle,
    webhook: ArcSwap<Webhook>,
    queue: Mutex<Queue>,
    woken: Notify,
    webhooks: Webhooks,
    connections: Connections,
    /// Events that it was not told of yet.
    waiting: AtomicU64,
    /// Whether nothing more comes.
    is_ending: AtomicBool,
    /// How often somebody else took over what it was to be told.
    handed_over: AtomicU64,
}

/// Events that go together, until they are taken or given up.
struct Attempt {
    batch: Batch,
    id: String,
    body: Bytes,
    /// When the first of them happened, in Unix milliseconds.
    oldest: u64,
    tries: u32,
    /// [`Receiver::handed_over`] when it was made.
    generation: u64,
}

/// What became of one try.
struct Tried {
    attempt: Attempt,
    took: Duration,
    outcome: Result<(), Failure>,
}

/// What the task alone knows.
#[derive(Default)]
struct Progress {
    /// By when they are tried again.
    retries: BTreeMap<(Instant, u64), Attempt>,
    next: u64,
    /// Failures since the last success, and since when.
    failures: u32,
    failing_since: Option<Instant>,
    /// While it fails, nothing is tried before.
    pause_until: Option<Instant>,
}

impl Receiver {
    pub(super) fn new(app: &AppHandle, webhook: &Arc<Webhook>, webhooks: &Webhooks) -> Self {
        Self {
            app: app.clone(),
            webhook: ArcSwap::new(Arc::clone(webhook)),
            queue: Mutex::default(),
            woken: Notify::new(),
            webhooks: webhooks.clone(),
            connections: Connections::default(),
            waiting: AtomicU64::new(0),
            is_ending: false.into(),
            handed_over: 0.into(),
        }
    }

    /// It is to be told of an event.
    pub(super) fn push(&self, event: Arc<Event>) {
        let max_bytes = self.webhooks.limits.load().max_bytes;
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.webhooks.waiting.fetch_add(1, Ordering::Relaxed);
        let lost = self.queue().push(event, Instant::now(), max_bytes);
        if lost > 0 {
            self.lose(lost, WebhookLoss::Overflow);
        }
        self.woken.notify_one();
    }

    /// Nothing more comes: what waits is told without waiting for more.
    pub(super) fn end(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
        self.woken.notify_one();
    }

    /// Where it is and what it wants to be told of.
    pub(super) fn webhook(&self) -> Guard<Arc<Webhook>> {
        self.webhook.load()
    }

    /// It goes by other settings from now on, with what waits.
    pub(super) fn change(&self, webhook: &Arc<Webhook>) {
        self.webhook.store(Arc::clone(webhook));
        self.woken.notify_one();
    }

    /// Somebody else tells what waits here, and what failed.
    pub(super) fn hand_over(&self) {
        let cleared = self.queue().clear();
        self.settled(cleared as u64);
        self.handed_over.fetch_add(1, Ordering::Relaxed);
        self.woken.notify_one();
    }

    /// So many events do not wait any more.
    fn settled(&self, events: u64) {
        self.waiting.fetch_sub(events, Ordering::Relaxed);
        self.webhooks.waiting.fetch_sub(events, Ordering::Relaxed);
    }

    /// Events that it was not told of yet.
    pub(super) fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Tells until it has ended and everything is told.
    pub(super) async fn run(&self) {
        let mut progress = Progress::default();
        let mut on_way = FuturesUnordered::new();
        loop {
            let limits = self.webhooks.limits.load_full();
            let now = Instant::now();
            self.expire(&limits);
            self.drop_handed_over(&mut progress, now);
            while on_way.len() < progress.max_requests(&limits)
                && let Some(attempt) = self.next_attempt(&mut progress, &limits, now, on_way.len())
            {
                on_way.push(self.attempt(attempt));
            }
            if self.is_ending.load(Ordering::Relaxed) && self.waiting() == 0 {
                return;
            }
            let has_place = on_way.len() < progress.max_requests(&limits);
            let due = self.next_due(&progress, &limits, has_place);
            tokio::select! {
                Some(tried) = on_way.next() => self.settle(tried, &mut progress, &limits),
                () = self.woken.notified() => {}
                () = sleep_until(due.into()) => {}
            }
        }
    }

    /// What is to be sent next, if it is time to.
    fn next_attempt(
        &self,
        progress: &mut Progress,
        limits: &WebhookLimits,
        now: Instant,
        on_way: usize,
    ) -> Option<Attempt> {
        if let Some(first) = progress.retries.first_entry()
            && first.key().0 <= now
        {
            return Some(first.remove());
        }
        // What failed takes the place of what is new.
        if progress.retries.len() >= limits.max_requests {
            return None;
        }
        if progress.is_failing() {
            let is_idle = on_way == 0 && progress.retries.is_empty();
            if !is_idle || progress.pause_until.is_some_and(|until| until > now) {
                return None;
            }
        }
        let mut queue = self.queue();
        let due = queue.next_due(now, limits.batch_events, self.batch_time(limits))?;
        let batch = (due <= now).then(|| queue.take(limits.batch_events, now))??;
        drop(queue);
        let generation = self.handed_over.load(Ordering::Relaxed);
        Some(Attempt::new(batch, generation))
    }

    /// What failed is told by somebody else now.
    fn drop_handed_over(&self, progress: &mut Progress, now: Instant) {
        let generation = self.handed_over.load(Ordering::Relaxed);
        let is_ours = |attempt: &Attempt| attempt.generation == generation;
        if progress.retries.values().all(is_ours) {
            return;
        }
        for (place, attempt) in std::mem::take(&mut progress.retries) {
            if is_ours(&attempt) {
                progress.retries.insert(place, attempt);
            } else {
                self.settled(attempt.batch.events.len() as u64);
                self.queue().release(attempt.batch, now);
            }
        }
    }

    /// When to look again, if nothing happens before.
    fn next_due(&self, progress: &Progress, limits: &WebhookLimits, has_place: bool) -> Instant {
        let now = Instant::now();
        let latest = now + EXPIRE;
        if !has_place {
            return latest;
        }
        let retry = progress.retries.first_key_value().map(|((at, _), _)| *at);
        let time = self.batch_time(limits);
        let batch = self.queue().next_due(now, limits.batch_events, time);
        // While it fails, that is not before what has failed, nor before the pause is over.
        let is_full = progress.retries.len() >= limits.max_requests;
        let is_held = is_full || (progress.is_failing() && !progress.retries.is_empty());
        let pause = progress.pause_until.filter(|_| progress.is_failing());
        let batch = batch
            .filter(|_| !is_held)
            .map(|at| pause.map_or(at, |pause| at.max(pause)));
        let earliest = [retry, batch, progress.pause_until.filter(|at| *at > now)];
        earliest
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(latest)
            .min(latest)
    }

    async fn attempt(&self, mut attempt: Attempt) -> Tried {
        attempt.tries += 1;
        let (began, limits, app) = (
            Instant::now(),
            self.webhooks.limits.load_full(),
            self.app.snapshot(),
        );
        let message = Message {
            id: &attempt.id,
            body: attempt.body.clone(),
        };
        let (webhook, held_to) = (
            self.webhook.load_full(),
            (limits.timeout, limits.allow_local),
        );
        let outcome = self
            .connections
            .post((&webhook, &app), &message, held_to)
            .await;
        Tried {
            attempt,
            took: began.elapsed(),
            outcome,
        }
    }

    fn settle(&self, tried: Tried, progress: &mut Progress, limits: &WebhookLimits) {
        let now = Instant::now();
        let Tried {
            attempt,
            took,
            outcome,
        } = tried;
        let result = outcome
            .as_ref()
            .err()
            .map_or(WebhookOutcome::Delivered, |it| it.outcome);
        let counters = self.app.counters();
        counters.count(Counter::WebhookRequests(result));
        let mut delivery = Delivery {
            number: 0,
            at: event::now(),
            app: self.app.id().to_owned(),
            url: self.webhook().shown(),
            id: attempt.id.clone(),
            events: attempt.batch.events.len(),
            attempt: attempt.tries,
            milliseconds: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            outcome: result.label().to_owned(),
            error: String::new(),
            retry_in: None,
        };
        match outcome {
            Ok(()) => {
                let events = attempt.batch.events.len() as u64;
                counters.add(Counter::WebhookEvents, events);
                self.settled(events);
                self.succeed(progress, now);
                self.queue().release(attempt.batch, now);
            }
            Err(failure) => {
                let pause = jittered(pause_after(attempt.tries));
                self.fail(&failure, progress, now + pause);
                delivery.error = failure.text;
                if let Some(attempt) = self.kept(attempt, limits, now) {
                    delivery.retry_in = u64::try_from(pause.as_millis()).ok();
                    let place = (now + pause, progress.next);
                    progress.retries.insert(place, attempt);
                    progress.next += 1;
                }
            }
        }
        self.webhooks.history.add(delivery);
    }

    /// What is tried again of events that were not taken: those that are not too old.
    fn kept(&self, mut attempt: Attempt, limits: &WebhookLimits, now: Instant) -> Option<Attempt> {
        let age = u64::try_from(limits.max_age.as_millis()).unwrap_or(u64::MAX);
        let oldest = event::now().saturating_sub(age);
        if attempt.oldest >= oldest {
            return Some(attempt);
        }
        let before = attempt.batch.events.len();
        attempt.batch.events.retain(|event| event.at >= oldest);
        self.lose(before - attempt.batch.events.len(), WebhookLoss::Expired);
        if attempt.batch.events.is_empty() {
            self.queue().release(attempt.batch, now);
            return None;
        }
        let tries = attempt.tries;
        Some(Attempt {
            tries,
            ..Attempt::new(attempt.batch, attempt.generation)
        })
    }

    fn succeed(&self, progress: &mut Progress, now: Instant) {
        if let Some(since) = progress.failing_since.take()
            && progress.is_failing()
        {
            let (url, seconds) = (self.webhook().shown(), since.elapsed().as_secs());
            tracing::info!(
                app = self.app.id(),
                url,
                seconds,
                "a webhook's receiver takes again what it is sent"
            );
            // Whatever waits for its next try has its turn.
            let waiting = std::mem::take(&mut progress.retries);
            let retries = waiting
                .into_iter()
                .map(|((_, number), it)| ((now, number), it));
            progress.retries = retries.collect();
        }
        progress.failures = 0;
        progress.pause_until = None;
    }

    fn fail(&self, failure: &Failure, progress: &mut Progress, until: Instant) {
        progress.failures = progress.failures.saturating_add(1);
        progress.failing_since.get_or_insert_with(Instant::now);
        progress.pause_until = Some(until);
        if progress.failures == MAX_FAILURES {
            let (url, error) = (self.webhook().shown(), &failure.text);
            tracing::warn!(
                app = self.app.id(),
                url,
                error,
                "a webhook's receiver does not take what it is sent; trying again"
            );
        }
    }

    fn expire(&self, limits: &WebhookLimits) {
        let age = u64::try_from(limits.max_age.as_millis()).unwrap_or(u64::MAX);
        let lost = self.queue().expire(event::now().saturating_sub(age));
        if lost > 0 {
            self.lose(lost, WebhookLoss::Expired);
        }
    }

    /// It is never told of so many events.
    pub(super) fn lose(&self, events: usize, why: WebhookLoss) {
        let count = events as u64;
        self.settled(count);
        let counter = Counter::WebhookEventsLost(why);
        self.app.counters().add(counter, count);
        let (text, url) = (
            "a webhook's receiver was not told of events",
            self.webhook().shown(),
        );
        let reason = why.label();
        limited!(warn, text, Some(self.app.id()), { events, reason, url, }, text);
    }

    fn batch_time(&self, limits: &WebhookLimits) -> Duration {
        match self.is_ending.load(Ordering::Relaxed) {
            true => Duration::ZERO,
            false => limits.batch_time,
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt {
    fn new(batch: Batch, generation: u64) -> Self {
        let events = &batch.events;
        let mut digest = Sha256::new();
        for event in events {
            digest.update(event.id().as_bytes());
            digest.update(b"\n");
        }
        Self {
            id: hex::encode(&digest.finalize()[..16]),
            body: event::body(events).into(),
            oldest: events
                .iter()
                .map(|event| event.at)
                .min()
                .unwrap_or_default(),
            tries: 0,
            generation,
            batch,
        }
    }
}

impl Progress {
    fn is_failing(&self) -> bool {
        self.failures >= MAX_FAILURES
    }

    fn max_requests(&self, limits: &WebhookLimits) -> usize {
        if self.is_failing() {
            1
        } else {
            limits.max_requests
        }
    }
}

/// The pause after so many tries.
fn pause_after(tries: u32) -> Duration {
    let doubled = 1_u32
        .checked_shl(tries.saturating_sub(1))
        .unwrap_or(u32::MAX);
    PAUSES.0.saturating_mul(doubled).min(PAUSES.1)
}

/// Between half of a pause and all of it, so that not all come at once.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0; 1];
    // Without random numbers the pause is whole.
    let part = getrandom::fill(&mut random).map_or(255, |()| random[0]);
    pause / 2 + pause / 2 * u32::from(part) / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        assert_eq!(pause_after(1), PAUSES.0);
        assert_eq!(pause_after(2), 2 * PAUSES.0);
        for tries in [7, 8, 31, 32, 33, u32::MAX] {
            assert_eq!(pause_after(tries), PAUSES.1, "{tries}");
        }
        for _ in 0..100 {
            let pause = jittered(PAUSES.1);
            assert!((PAUSES.1 / 2..=PAUSES.1).contains(&pause));
        }
    }
}

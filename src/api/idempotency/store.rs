//! What was asked before and answered, and what is being answered: in memory, without a clock.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// What an entry costs beside its answer: its places in the map and in the queue.
const ENTRY_COST: usize = 192;

/// Places in the queue that may be left of what is gone, beside as many as there are entries.
const MAX_LEFT: usize = 1024;

/// An answer of two bytes costs nothing more: they are part of the program.
const SMALL: &[u8] = b"{}";

/// What tells one request from others: of which application, and its key or signature.
pub(super) type Id = [u8; 16];

/// What tells two requests with the same key apart.
pub(super) type Fingerprint = [u8; 16];

/// A request that is to be carried out once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) id: Id,
    pub(super) fingerprint: Fingerprint,
    /// How long its answer is kept.
    pub(super) ttl: Duration,
}

/// The answer of a request that was carried out, which was a success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// JSON.
    pub(super) body: Bytes,
    /// What it says is missing of it, if something is.
    pub(super) partial: Option<Box<str>>,
}

/// What becomes of a request.
pub(super) enum Claimed {
    /// It is carried out by whoever has this.
    New(Claim),
    /// It was answered.
    Answered(Answer),
    /// The key was used for something else.
    Reused,
    /// It is being answered; this is done when that has ended.
    Pending(OwnedNotified),
}

/// The right to carry a request out. Dropped without an answer, it leaves that to whoever comes
/// next, who goes on behind the events that were published.
pub(super) struct Claim {
    store: Arc<Store>,
    request: Request,
    /// Events of the request that were published.
    published: Cell<usize>,
    is_answered: Cell<bool>,
}

/// All requests of late.
#[derive(Default)]
pub struct Store(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    by_id: HashMap<Id, Entry>,
    /// In the order in which they came; what has gone meanwhile is skipped by its number.
    order: VecDeque<(Id, u64)>,
    next: u64,
    bytes: usize,
}

struct Entry {
    number: u64,
    fingerprint: Fingerprint,
    expires: Instant,
    state: State,
}

enum State {
    Pending(Arc<Notify>),
    /// It was given up with so many of its events published.
    Begun(usize),
    Answered(Answer),
}

impl Entry {
    fn cost(&self) -> usize {
        match &self.state {
            State::Answered(answer) if *answer.body != *SMALL => {
                ENTRY_COST + answer.body.len() + answer.partial.as_ref().map_or(0, |it| it.len())
            }
            State::Answered(_) | State::Pending(_) | State::Begun(_) => ENTRY_COST,
        }
    }
}

impl Store {
    /// Claims a request, unless it was claimed before. What is over `max_bytes` then goes, the
    /// oldest first.
    pub(super) fn claim(
        self: &Arc<Self>,
        request: &Request,
        now: Instant,
        max_bytes: usize,
    ) -> Claimed {
        let mut entries = self.entries();
        entries.forget_expired(now);
        let mut published = 0;
        if let Some(entry) = entries.by_id.get(&request.id)
            && (entry.expires > now || matches!(entry.state, State::Pending(_)))
        {
            if entry.fingerprint != request.fingerprint {
                return Claimed::Reused;
            }
            match &entry.state {
                State::Pending(ended) => {
                    return Claimed::Pending(Arc::clone(ended).notified_owned());
                }
                State::Answered(answer) => return Claimed::Answered(answer.clone()),
                State::Begun(count) => published = *count,
            }
        }
        entries.put(request, State::Pending(Arc::default()), now);
        entries.shrink(max_bytes);
        Claimed::New(Claim {
            store: Arc::clone(self),
            request: *request,
            published: Cell::new(published),
            is_answered: Cell::new(false),
        })
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn put(&mut self, request: &Request, state: State, now: Instant) {
        self.remove(&request.id);
        let entry = Entry {
            number: self.next,
            fingerprint: request.fingerprint,
            expires: now + request.ttl,
            state,
        };
        self.next += 1;
        self.bytes += entry.cost();
        self.order.push_back((request.id, entry.number));
        self.by_id.insert(request.id, entry);
        // Of what was given up, the places in the queue are left.
        if self.order.len() > 2 * self.by_id.len() + MAX_LEFT {
            let by_id = &self.by_id;
            let is_there = |(id, number): &(Id, u64)| {
                by_id.get(id).is_some_and(|entry| entry.number == *number)
            };
            self.order.retain(is_there);
        }
    }

    fn remove(&mut self, id: &Id) -> Option<Entry> {
        let entry = self.by_id.remove(id)?;
        self.bytes -= entry.cost();
        Some(entry)
    }

    /// Changes an entry where it is; whoever waits for it is woken.
    fn settle(&mut self, request: &Request, state: State, now: Instant) {
        let Some(entry) = self.by_id.get_mut(&request.id) else {
            return;
        };
        let before = entry.cost();
        let was = std::mem::replace(&mut entry.state, state);
        entry.expires = now + request.ttl;
        let after = entry.cost();
        self.bytes = self.bytes - before + after;
        if let State::Pending(ended) = was {
            ended.notify_waiters();
        }
    }

    /// Forgets what is at the front and has expired, or is there no more.
    fn forget_expired(&mut self, now: Instant) {
        while let Some((id, number)) = self.order.front() {
            let entry = self.by_id.get(id).filter(|entry| entry.number == *number);
            let is_kept = entry.is_some_and(|entry| {
                entry.expires > now || matches!(entry.state, State::Pending(_))
            });
            if is_kept {
                return;
            }
            if entry.is_some() {
                let id = *id;
                self.remove(&id);
            }
            self.order.pop_front();
        }
    }

    /// Forgets the oldest until the bound holds; what is being answered stays, of which there
    /// is no more than there are requests.
    fn shrink(&mut self, max_bytes: usize) {
        let mut looked = self.order.len();
        while self.bytes > max_bytes && looked > 0 {
            looked -= 1;
            let Some((id, number)) = self.order.pop_front() else {
                return;
            };
            match self.by_id.get(&id) {
                Some(entry) if entry.number != number => {}
                Some(entry) if matches!(entry.state, State::Pending(_)) => {
                    self.order.push_back((id, number));
                }
                Some(_) => _ = self.remove(&id),
                None => {}
            }
        }
    }
}

impl Claim {
    /// What is claimed.
    pub(super) fn request(&self) -> &Request {
        &self.request
    }

    /// How many of the request's events were published, now and before.
    pub(super) fn published(&self) -> &Cell<usize> {
        &self.published
    }

    /// It was answered, and is answered so when it comes again.
    pub(super) fn answer(&self, answer: Answer) {
        self.is_answered.set(true);
        let mut entries = self.store.entries();
        entries.settle(&self.request, State::Answered(answer), Instant::now());
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.is_answered.get() {
            return;
        }
        let mut entries = self.store.entries();
        let (request, published) = (&self.request, self.published.get());
        entries.settle(request, State::Begun(published), Instant::now());
        if published == 0 {
            entries.remove(&request.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: usize = 1 << 20;

    fn request(id: u8, body: u8) -> Request {
        Request {
            id: [id; 16],
            fingerprint: [body; 16],
            ttl: Duration::from_secs(10),
        }
    }

    fn answer(text: &str) -> Answer {
        Answer {
            body: Bytes::from(text.to_owned()),
            partial: None,
        }
    }

    fn claim(store: &Arc<Store>, request: &Request, now: Instant) -> Claim {
        match store.claim(request, now, LARGE) {
            Claimed::New(claim) => claim,
            _ => panic!("it was claimed before"),
        }
    }

    #[test]
    fn the_second_gets_the_answer_of_the_first_until_it_expires() {
        let (store, now) = (Arc::new(Store::default()), Instant::now());
        claim(&store, &request(1, 1), now).answer(answer("{\"a\":1}"));
        let Claimed::Answered(again) = store.claim(&request(1, 1), now, LARGE) else {
            panic!("not answered");
        };
        assert_eq!(again, answer("{\"a\":1}"));
        let other = store.claim(&request(1, 2), now, LARGE);
        assert!(matches!(other, Claimed::Reused));
        let later = Instant::now() + Duration::from_secs(11);
        claim(&store, &request(1, 2), later);
    }

    #[test]
    fn what_was_given_up_is_free_and_goes_on_behind_what_was_published() {
        let (store, now) = (Arc::new(Store::default()), Instant::now());
        drop(claim(&store, &request(1, 1), now));
        assert_eq!(store.entries().bytes, 0);
        let second = claim(&store, &request(1, 2), now);
        assert_eq!(second.published().get(), 0, "nothing was published");
        second.published().set(3);
        drop(second);
        let other = store.claim(&request(1, 1), now, LARGE);
        assert!(matches!(other, Claimed::Reused), "it has begun");
        assert_eq!(claim(&store, &request(1, 2), now).published().get(), 3);
    }

    #[tokio::test]
    async fn whoever_comes_meanwhile_waits() {
        let (store, now) = (Arc::new(Store::default()), Instant::now());
        let first = claim(&store, &request(1, 1), now);
        let Claimed::Pending(ended) = store.claim(&request(1, 1), now, LARGE) else {
            panic!("it does not wait");
        };
        first.answer(answer("{}"));
        // Also if it begins to wait when it is over.
        ended.await;
        let again = store.claim(&request(1, 1), now, LARGE);
        assert!(matches!(again, Claimed::Answered(_)));
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_bytes() {
        let (store, now) = (Arc::new(Store::default()), Instant::now());
        let max = 4 * ENTRY_COST;
        let pending = claim(&store, &request(0, 0), now);
        for id in 1..100 {
            match store.claim(&request(id, id), now, max) {
                Claimed::New(claim) => claim.answer(answer("{}")),
                _ => panic!("it was claimed before"),
            }
            assert!(store.entries().bytes <= max);
        }
        let known = |id| {
            matches!(
                store.claim(&request(id, id), now, max),
                Claimed::Answered(_)
            )
        };
        assert!(known(99) && known(98) && !known(1));
        let still = store.claim(&request(0, 0), now, max);
        assert!(matches!(still, Claimed::Pending(_)), "it is being answered");
        drop(pending);
        let entries = store.entries();
        assert!(entries.by_id.len() <= 4);
        drop(entries);
        for _ in 0..10_000 {
            drop(claim(&store, &request(200, 0), now));
        }
        assert!(store.entries().order.len() <= 2 * MAX_LEFT);
    }

    #[test]
    fn a_large_answer_counts() {
        let (store, now) = (Arc::new(Store::default()), Instant::now());
        claim(&store, &request(1, 1), now).answer(answer(&"x".repeat(1000)));
        assert_eq!(store.entries().bytes, ENTRY_COST + 1000);
        let later = Instant::now() + Duration::from_secs(11);
        claim(&store, &request(2, 2), later).answer(answer("{}"));
        assert_eq!(store.entries().bytes, ENTRY_COST);
    }
}

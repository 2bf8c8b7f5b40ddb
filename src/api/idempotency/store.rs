//! What was asked before and answered, and what is being answered: in memory, without a clock.
//!
//! An entry is a cache line with its id: hundreds of thousands of them are looked at thousands of
//! times a second.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// What an entry costs beside its answer: its places in the map and in the queue.
const ENTRY_COST: usize = 128;

/// Places in the queue that may be left of what is gone, beside as many as there are entries.
const MAX_LEFT: usize = 1024;

/// Nearly all answers; they cost nothing more.
const EMPTY: &[u8] = b"{}";

/// What tells one request from others: of which application, and its key or signature. Random
/// to whoever does not know this process's secrets.
pub(super) type Id = [u8; 16];

/// What tells two requests with the same key apart.
pub(super) type Fingerprint = [u8; 16];

/// A request that is to be carried out once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) id: Id,
    pub(super) fingerprint: Fingerprint,
    /// How it is known again.
    pub(super) by: By,
    /// How long its answer is kept.
    pub(super) ttl: Duration,
}

/// How a request is known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum By {
    Key,
    Signature,
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
pub struct Store {
    entries: Mutex<Entries>,
    /// Make the halves of an id.
    hashers: [RandomState; 2],
    began: Instant,
}

#[derive(Default)]
struct Entries {
    by_id: HashMap<Id, Entry, BuildHasherDefault<IdHasher>>,
    /// In the order in which they came, of each kind for itself, since they are kept for
    /// different times; what has gone meanwhile is skipped by its number.
    orders: [VecDeque<(Id, u32)>; 2],
    next: u32,
    bytes: usize,
}

struct Entry {
    number: u32,
    /// In seconds since the store began, rounded up.
    expires: u32,
    fingerprint: Fingerprint,
    state: State,
}

enum State {
    /// With whom to wake, if anybody waits.
    Pending(Option<Arc<Notify>>),
    /// It was given up with so many of its events published.
    Begun(usize),
    /// With [`EMPTY`], if there is no other answer.
    Answered(Option<Box<Answer>>),
}

/// Takes what is random already for what it is.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().take(8) {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }

    /// The length, which all have.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Entry {
    fn cost(&self) -> usize {
        match &self.state {
            State::Answered(Some(answer)) => {
                let partial = answer.partial.as_ref().map_or(0, |it| it.len());
                ENTRY_COST + size_of::<Answer>() + answer.body.len() + partial
            }
            State::Answered(None) | State::Pending(_) | State::Begun(_) => ENTRY_COST,
        }
    }

    fn is_kept(&self, now: u32) -> bool {
        self.expires > now || matches!(self.state, State::Pending(_))
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            entries: Mutex::default(),
            hashers: [RandomState::new(), RandomState::new()],
            began: Instant::now(),
        }
    }
}

impl Store {
    /// The id of what these tell.
    pub(super) fn id(&self, app: u32, by: By, text: &[u8]) -> Id {
        let [first, second] = &self.hashers;
        let halves = [first, second].map(|hasher| hasher.hash_one((app, by, text)).to_le_bytes());
        let mut id = [0; 16];
        id[..8].copy_from_slice(&halves[0]);
        id[8..].copy_from_slice(&halves[1]);
        id
    }

    /// Claims a request, unless it was claimed before. What is over `max_bytes` then goes, the
    /// oldest first.
    pub(super) fn claim(
        self: &Arc<Self>,
        request: &Request,
        now: Instant,
        max_bytes: usize,
    ) -> Claimed {
        let now = self.seconds(now);
        let mut entries = self.entries();
        entries.forget_expired(now);
        let mut published = 0;
        if let Some(entry) = entries.by_id.get_mut(&request.id)
            && entry.is_kept(now)
        {
            if entry.fingerprint != request.fingerprint {
                return Claimed::Reused;
            }
            match &mut entry.state {
                State::Pending(ended) => {
                    let ended = ended.get_or_insert_default();
                    return Claimed::Pending(Arc::clone(ended).notified_owned());
                }
                State::Answered(answer) => return Claimed::Answered(Answer::of(answer.as_deref())),
                State::Begun(count) => published = *count,
            }
        }
        let ttl = u32::try_from(request.ttl.as_secs()).unwrap_or(u32::MAX);
        entries.put(request, now.saturating_add(ttl).saturating_add(1));
        entries.shrink(max_bytes);
        drop(entries);
        Claimed::New(Claim {
            store: Arc::clone(self),
            request: *request,
            published: Cell::new(published),
            is_answered: Cell::new(false),
        })
    }

    fn seconds(&self, now: Instant) -> u32 {
        let seconds = now.saturating_duration_since(self.began).as_secs();
        u32::try_from(seconds).unwrap_or(u32::MAX)
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answer {
    fn of(kept: Option<&Self>) -> Self {
        kept.cloned().unwrap_or(Self {
            body: Bytes::from_static(EMPTY),
            partial: None,
        })
    }

    /// As it is kept.
    fn boxed(self) -> Option<Box<Self>> {
        let is_empty = *self.body == *EMPTY && self.partial.is_none();
        (!is_empty).then(|| Box::new(self))
    }
}

impl Entries {
    fn put(&mut self, request: &Request, expires: u32) {
        let entry = Entry {
            number: self.next,
            expires,
            fingerprint: request.fingerprint,
            state: State::Pending(None),
        };
        self.next = self.next.wrapping_add(1);
        self.bytes += entry.cost();
        let order = &mut self.orders[request.by as usize];
        order.push_back((request.id, entry.number));
        if let Some(before) = self.by_id.insert(request.id, entry) {
            self.bytes -= before.cost();
        }
        // Of what was given up, the places in the queue are left.
        if order.len() > 2 * self.by_id.len() + MAX_LEFT {
            let by_id = &self.by_id;
            let is_there = |(id, number): &(Id, u32)| {
                by_id.get(id).is_some_and(|entry| entry.number == *number)
            };
            order.retain(is_there);
        }
    }

    fn remove(&mut self, id: &Id) {
        if let Some(entry) = self.by_id.remove(id) {
            self.bytes -= entry.cost();
        }
    }

    /// Changes an entry where it is; whoever waits for it is woken.
    fn settle(&mut self, id: &Id, state: State) {
        let Some(entry) = self.by_id.get_mut(id) else {
            return;
        };
        let before = entry.cost();
        let was = std::mem::replace(&mut entry.state, state);
        let after = entry.cost();
        self.bytes = self.bytes - before + after;
        if let State::Pending(Some(ended)) = was {
            ended.notify_waiters();
        }
    }

    /// Forgets what is at the front and has expired, or is there no more.
    fn forget_expired(&mut self, now: u32) {
        for by in [By::Key, By::Signature] {
            while let Some((id, number)) = self.orders[by as usize].front().copied() {
                let entry = self.by_id.get(&id).filter(|entry| entry.number == number);
                if entry.is_some_and(|entry| entry.is_kept(now)) {
                    break;
                }
                if entry.is_some() {
                    self.remove(&id);
                }
                self.orders[by as usize].pop_front();
            }
        }
    }

    /// Forgets the oldest until the bound holds, keys last; what is being answered stays, of
    /// which there is no more than there are requests.
    fn shrink(&mut self, max_bytes: usize) {
        for by in [By::Signature, By::Key] {
            let mut looked = self.orders[by as usize].len();
            while self.bytes > max_bytes && looked > 0 {
                looked -= 1;
                let Some((id, number)) = self.orders[by as usize].pop_front() else {
                    break;
                };
                match self.by_id.get(&id) {
                    Some(entry) if entry.number != number => {}
                    Some(entry) if matches!(entry.state, State::Pending(_)) => {
                        self.orders[by as usize].push_back((id, number));
                    }
                    Some(_) => self.remove(&id),
                    None => {}
                }
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
        let state = State::Answered(answer.boxed());
        self.store.entries().settle(&self.request.id, state);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.is_answered.get() {
            return;
        }
        let mut entries = self.store.entries();
        let (id, published) = (&self.request.id, self.published.get());
        entries.settle(id, State::Begun(published));
        if published == 0 {
            entries.remove(id);
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
            by: By::Key,
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
        let later = Instant::now() + Duration::from_secs(12);
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
        let [order, _] = &store.entries().orders;
        assert!(order.len() <= 2 * MAX_LEFT);
    }

    #[test]
    fn signatures_neither_keep_nor_displace_keys() {
        let (store, now) = (Arc::new(Store::default()), Instant::now());
        let short = |id| Request {
            by: By::Signature,
            ttl: Duration::from_secs(1),
            ..request(id, 0)
        };
        let max = 10 * ENTRY_COST;
        claim(&store, &request(1, 1), now).answer(answer("{}"));
        for id in 2..200 {
            match store.claim(&short(id), now, max) {
                Claimed::New(claim) => claim.answer(answer("{}")),
                _ => panic!("it was claimed before"),
            }
        }
        let known = store.claim(&request(1, 1), now, max);
        assert!(matches!(known, Claimed::Answered(_)));
        let later = now + Duration::from_secs(3);
        claim(&store, &short(201), later);
        assert_eq!(
            store.entries().by_id.len(),
            1,
            "those of signatures have expired"
        );
    }

    #[test]
    fn a_large_answer_counts() {
        let (store, now) = (Arc::new(Store::default()), Instant::now());
        claim(&store, &request(1, 1), now).answer(answer(&"x".repeat(1000)));
        let cost = ENTRY_COST + size_of::<Answer>() + 1000;
        assert_eq!(store.entries().bytes, cost);
        let later = Instant::now() + Duration::from_secs(12);
        claim(&store, &request(2, 2), later).answer(answer("{}"));
        assert_eq!(store.entries().bytes, ENTRY_COST);
    }
}

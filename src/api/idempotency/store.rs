//! What was asked before and answered, and what is being answered: in memory, without a clock.
//!
//! Hundreds of thousands of answers are kept, thousands are added a second, and hardly one is ever
//! asked for: what counts is that adding one touches little memory. So they are in two
//! generations, of which the older one is forgotten as a whole when it has expired, or when the
//! younger one has as many bytes as a generation may have.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// What an entry costs beside its answer.
const ENTRY_COST: usize = 128;

/// Nearly all answers; they cost nothing more.
const EMPTY: &[u8] = b"{}";

/// What tells one request from others: a hash of which application's it is, and of its key or
/// signature, random to whoever does not know this process's secret. Two that have the same are
/// told apart by their fingerprints; the second is refused then.
pub(super) type Id = u64;

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
    /// Since when, and when what becomes of it is forgotten, in seconds since the store began.
    since: u32,
    expires: u32,
    max_bytes: usize,
    /// Events of the request that were published.
    published: Cell<usize>,
    is_answered: Cell<bool>,
}

/// All requests of late.
pub struct Store {
    requests: Mutex<Requests>,
    /// Makes the ids.
    hasher: RandomState,
    began: Instant,
}

type ById<T> = HashMap<Id, T, BuildHasherDefault<IdHasher>>;

#[derive(Default)]
struct Requests {
    /// Those that are being carried out: few, whatever comes.
    pending: ById<Pending>,
    /// What became of the others, for each [`By`], since they are kept for different times.
    ended: [Generations; 2],
}

struct Pending {
    fingerprint: Fingerprint,
    /// Whom to wake, if anybody waits.
    ended: Option<Arc<Notify>>,
}

#[derive(Default)]
struct Generations {
    younger: Generation,
    older: Generation,
}

#[derive(Default)]
struct Generation {
    by_id: ById<Ended>,
    bytes: usize,
    /// When the first that came has expired, and when all have.
    first_expires: u32,
    expires: u32,
}

struct Ended {
    /// In seconds since the store began.
    expires: u32,
    fingerprint: Fingerprint,
    what: What,
}

enum What {
    /// It was given up with so many of its events published.
    Begun(usize),
    /// It was answered with [`EMPTY`], if there is no other answer.
    Answered(Option<Box<Answer>>),
}

/// Takes what is random already for what it is.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, _: &[u8]) {
        unreachable!("an id is a number");
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            requests: Mutex::default(),
            hasher: RandomState::new(),
            began: Instant::now(),
        }
    }
}

impl Store {
    /// The id of what these tell.
    pub(super) fn id(&self, app: u32, by: By, text: &[u8]) -> Id {
        self.hasher.hash_one((app, by, text))
    }

    /// Claims a request, unless it was claimed before. What becomes of it is kept within
    /// `max_bytes`, together with all others.
    pub(super) fn claim(
        self: &Arc<Self>,
        request: &Request,
        now: Instant,
        max_bytes: usize,
    ) -> Claimed {
        let now = self.seconds(now);
        let mut requests = self.requests();
        if let Some(pending) = requests.pending.get_mut(&request.id) {
            if pending.fingerprint != request.fingerprint {
                return Claimed::Reused;
            }
            let ended = pending.ended.get_or_insert_default();
            return Claimed::Pending(Arc::clone(ended).notified_owned());
        }
        let mut published = 0;
        if let Some(ended) = requests.ended[request.by as usize].find(&request.id, now) {
            if ended.fingerprint != request.fingerprint {
                return Claimed::Reused;
            }
            match &ended.what {
                What::Answered(answer) => return Claimed::Answered(Answer::of(answer.as_deref())),
                What::Begun(count) => published = *count,
            }
        }
        let pending = Pending {
            fingerprint: request.fingerprint,
            ended: None,
        };
        requests.pending.insert(request.id, pending);
        drop(requests);
        let ttl = u32::try_from(request.ttl.as_secs()).unwrap_or(u32::MAX);
        Claimed::New(Claim {
            store: Arc::clone(self),
            request: *request,
            since: now,
            // The second that has begun counts for nothing.
            expires: now.saturating_add(ttl).saturating_add(1),
            max_bytes,
            published: Cell::new(published),
            is_answered: Cell::new(false),
        })
    }

    fn seconds(&self, now: Instant) -> u32 {
        let seconds = now.saturating_duration_since(self.began).as_secs();
        u32::try_from(seconds).unwrap_or(u32::MAX)
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answer {
    /// The one that nearly all have.
    pub(super) fn empty() -> Self {
        Self::of(None)
    }

    /// Whether nearly all answers are as long.
    pub(super) fn is_empty(length: Option<u64>) -> bool {
        length == Some(EMPTY.len() as u64)
    }

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

impl Requests {
    /// A request has ended, so that something is known of it, or nothing is. Returns what was
    /// forgotten for it.
    fn end(&mut self, claim: &Claim, what: Option<What>) -> Generation {
        let Request { id, by, .. } = &claim.request;
        let was = self.pending.remove(id);
        if let Some(ended) = was.and_then(|pending| pending.ended) {
            ended.notify_waiters();
        }
        what.map(|what| self.ended[*by as usize].put(claim, what))
            .unwrap_or_default()
    }
}

impl Generations {
    fn find(&self, id: &Id, now: u32) -> Option<&Ended> {
        let found = self.younger.by_id.get(id);
        let found = found.or_else(|| self.older.by_id.get(id));
        found.filter(|ended| ended.expires > now)
    }

    /// Adds what became of a request; returns what was forgotten for it.
    fn put(&mut self, claim: &Claim, what: What) -> Generation {
        let (now, expires) = (claim.since, claim.expires);
        // Two generations of two kinds share the bound.
        let is_full = self.younger.bytes > claim.max_bytes / 4;
        let is_over = self.older.expires <= now && self.younger.first_expires <= now;
        let forgotten = match is_full || (is_over && !self.younger.by_id.is_empty()) {
            true => self.rotate(),
            false => Generation::default(),
        };
        let ended = Ended {
            expires,
            fingerprint: claim.request.fingerprint,
            what,
        };
        let younger = &mut self.younger;
        if younger.by_id.is_empty() {
            younger.first_expires = expires;
        }
        younger.expires = younger.expires.max(expires);
        younger.bytes += ended.cost();
        if let Some(before) = younger.by_id.insert(claim.request.id, ended) {
            younger.bytes -= before.cost();
        }
        forgotten
    }

    /// Forgets the older generation; what is younger is older from now on.
    fn rotate(&mut self) -> Generation {
        let next = Generation {
            // It will be as large, so that it need not grow.
            by_id: ById::with_capacity_and_hasher(self.younger.by_id.len(), Default::default()),
            ..Generation::default()
        };
        let younger = mem::replace(&mut self.younger, next);
        mem::replace(&mut self.older, younger)
    }
}

impl Ended {
    fn cost(&self) -> usize {
        match &self.what {
            What::Answered(Some(answer)) => {
                let partial = answer.partial.as_ref().map_or(0, |it| it.len());
                ENTRY_COST + size_of::<Answer>() + answer.body.len() + partial
            }
            What::Answered(None) | What::Begun(_) => ENTRY_COST,
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
        self.end(Some(What::Answered(answer.boxed())));
    }

    fn end(&self, what: Option<What>) {
        let forgotten = self.store.requests().end(self, what);
        // Nobody waits for the lock while it is freed.
        drop(forgotten);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.is_answered.get() {
            let published = self.published.get();
            self.end((published > 0).then_some(What::Begun(published)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: usize = 1 << 20;

    fn request(id: u8, body: u8) -> Request {
        Request {
            id: id.into(),
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
        assert_eq!(bytes(&store), 0);
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
        let max = 40 * ENTRY_COST;
        let pending = claim(&store, &request(0, 0), now);
        for id in 1..100 {
            match store.claim(&request(id, id), now, max) {
                Claimed::New(claim) => claim.answer(answer("{}")),
                _ => panic!("it was claimed before"),
            }
            assert!(bytes(&store) <= max / 2 + 2 * ENTRY_COST);
        }
        let known = |id| {
            let claimed = store.claim(&request(id, id), now, max);
            matches!(claimed, Claimed::Answered(_))
        };
        assert!((90..100).all(known), "the last ones are there");
        assert!(!known(1));
        let still = store.claim(&request(0, 0), now, max);
        assert!(matches!(still, Claimed::Pending(_)), "it is being answered");
        drop(pending);
        for _ in 0..1000 {
            drop(claim(&store, &request(200, 0), now));
        }
        assert!(store.requests().pending.is_empty());
    }

    fn bytes(store: &Store) -> usize {
        let requests = store.requests();
        let all = requests
            .ended
            .iter()
            .flat_map(|it| [&it.younger, &it.older]);
        all.map(|generation| generation.bytes).sum()
    }

    #[test]
    fn each_is_known_for_its_time_and_is_forgotten_then() {
        let store = Arc::new(Store::default());
        let at = |seconds: u64| Instant::now() + Duration::from_secs(seconds);
        for second in 0..=100 {
            let id = u8::try_from(second).unwrap();
            claim(&store, &request(id, id), at(second)).answer(answer("{}"));
            let known = (0..=id).filter(|id| {
                let claimed = store.claim(&request(*id, *id), at(second), LARGE);
                matches!(claimed, Claimed::Answered(_))
            });
            let first = id.saturating_sub(10);
            assert_eq!(known.collect::<Vec<_>>(), (first..=id).collect::<Vec<_>>());
            assert!(bytes(&store) <= 24 * ENTRY_COST);
        }
    }

    #[test]
    fn signatures_neither_keep_nor_displace_keys() {
        let (store, now) = (Arc::new(Store::default()), Instant::now());
        let short = |id| Request {
            by: By::Signature,
            ttl: Duration::from_secs(1),
            ..request(id, 0)
        };
        let max = 20 * ENTRY_COST;
        claim(&store, &request(1, 1), now).answer(answer("{}"));
        for id in 2..200 {
            match store.claim(&short(id), now, max) {
                Claimed::New(claim) => claim.answer(answer("{}")),
                _ => panic!("it was claimed before"),
            }
        }
        let known = store.claim(&request(1, 1), now, max);
        assert!(matches!(known, Claimed::Answered(_)));
    }

    #[test]
    fn a_large_answer_counts() {
        let (store, now) = (Arc::new(Store::default()), Instant::now());
        claim(&store, &request(1, 1), now).answer(answer(&"x".repeat(1000)));
        assert_eq!(bytes(&store), ENTRY_COST + size_of::<Answer>() + 1000);
    }
}

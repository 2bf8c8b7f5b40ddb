//! Mutexes with a rank in one order, which debug builds enforce.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Which mutex may be locked while which are held: a later one while earlier ones are,
/// never the other way round, and never two of a kind.
///
/// `Apps -> Registry -> Channel -> Cache -> Users -> CountsDue -> Inbox -> ClusterQueue`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// The list of applications, while it is changed.
    Apps,
    /// A shard of an application's channels.
    Registry,
    /// One channel.
    Channel,
    /// The last events of an application's cache channels.
    Cache,
    /// The users of an application.
    Users,
    /// Channels whose count was held back.
    CountsDue,
    /// A worker's inbox.
    Inbox,
    /// What other nodes have to be sent.
    ClusterQueue,
}

/// A mutex that panics in debug builds when it is locked out of order.
#[derive(Debug)]
pub(super) struct Lock<T> {
    #[cfg(debug_assertions)]
    rank: Rank,
    mutex: Mutex<T>,
}

/// The value, for as long as this is held.
pub(super) struct Guard<'a, T> {
    guard: MutexGuard<'a, T>,
    #[cfg(debug_assertions)]
    _held: held::Held,
}

impl<T> Lock<T> {
    #[cfg_attr(
        not(debug_assertions),
        expect(unused_variables, reason = "only debug builds check")
    )]
    pub(super) fn new(rank: Rank, value: T) -> Self {
        Self {
            #[cfg(debug_assertions)]
            rank,
            mutex: Mutex::new(value),
        }
    }

    /// Locks, also after a panic of another thread: no code under these locks leaves state
    /// half changed.
    pub(super) fn lock(&self) -> Guard<'_, T> {
        Guard {
            #[cfg(debug_assertions)]
            _held: held::Held::new(self.rank),
            guard: self.mutex.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

#[cfg(debug_assertions)]
mod held {
    use std::cell::RefCell;

    use super::Rank;

    thread_local! {
        static RANKS: RefCell<Vec<Rank>> = const { RefCell::new(Vec::new()) };
    }

    /// Says that this thread holds a lock of a rank.
    pub(super) struct Held(Rank);

    impl Held {
        pub(super) fn new(rank: Rank) -> Self {
            RANKS.with_borrow_mut(|ranks| {
                let highest = ranks.iter().max();
                assert!(
                    highest.is_none_or(|highest| *highest < rank),
                    "{rank:?} was locked while {highest:?} is held"
                );
                ranks.push(rank);
            });
            Self(rank)
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            RANKS.with_borrow_mut(|ranks| {
                if let Some(at) = ranks.iter().rposition(|rank| *rank == self.0) {
                    ranks.remove(at);
                }
            });
        }
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    #[test]
    fn locks_may_be_released_in_any_order_and_taken_again() {
        let (channel, inbox) = (Lock::new(Rank::Channel, 1), Lock::new(Rank::Inbox, 2));
        let first = channel.lock();
        let second = inbox.lock();
        drop(first);
        drop(second);
        assert_eq!((*channel.lock(), *inbox.lock()), (1, 2));
    }

    #[test]
    #[should_panic(expected = "Channel was locked while Some(Cache) is held")]
    fn an_earlier_lock_is_not_taken_while_a_later_one_is_held() {
        let (channel, cache) = (Lock::new(Rank::Channel, ()), Lock::new(Rank::Cache, ()));
        let _cache = cache.lock();
        let _channel = channel.lock();
    }

    #[test]
    #[should_panic(expected = "Channel was locked while Some(Channel) is held")]
    fn two_of_a_kind_are_not_held_at_once() {
        let (one, two) = (Lock::new(Rank::Channel, ()), Lock::new(Rank::Channel, ()));
        let _one = one.lock();
        let _two = two.lock();
    }
}

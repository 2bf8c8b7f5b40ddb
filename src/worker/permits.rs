//! Permits for connections, of any kind: each takes an open file.
//!
//! When they run short, each worker closes the HTTP connection that has waited longest
//! for a request, for each that it gets ([`Idle`]). So whoever connects and says
//! nothing takes no permit from a publish.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use lru::LruCache;
use tokio::sync::Notify;

use crate::proxies::Networks;

/// Permits that are kept free for connections that are accepted before those that were
/// closed for them are gone.
const SPARE: usize = 64;

/// Connections over an address's limit that are let in to be refused with a text.
const MAX_REFUSED: usize = 16;

/// How many connections there are, and may be.
#[derive(Debug)]
pub struct ConnectionPermits {
    taken: AtomicUsize,
    /// Connections that were closed before anybody served them.
    dropped: AtomicU64,
    max: usize,
    /// From how many on they are short.
    short: usize,
    /// Asks all workers to close an idle connection.
    wanted: Notify,
    /// [`usize::MAX`] for no limit.
    max_per_address: AtomicUsize,
    /// Proxies, whose connections are for others.
    trusted: ArcSwap<Networks>,
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection's permit; released when dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    permits: Arc<ConnectionPermits>,
    /// Boxed, since most have none and all are paid for.
    network: Option<Box<IpAddr>>,
    is_over_limit: bool,
}

impl ConnectionPermits {
    /// `max` connections, of which `sockets` may be WebSockets; `max_per_address` from
    /// one address, loopback excepted: everybody behind a proxy on this machine is there.
    pub fn new(max: usize, sockets: usize, max_per_address: Option<usize>) -> Self {
        Self {
            taken: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            max,
            short: max
                .saturating_sub(SPARE)
                .max(max.midpoint(sockets.min(max))),
            wanted: Notify::new(),
            max_per_address: AtomicUsize::new(max_per_address.unwrap_or(usize::MAX)),
            trusted: ArcSwap::default(),
            by_address: Mutex::default(),
        }
    }

    /// Changes how many connections there may be from one address, and who is excepted as
    /// a proxy. Those that came when there was no limit are not counted.
    pub fn set_max_per_address(&self, max: Option<usize>, trusted: Networks) {
        self.trusted.store(Arc::new(trusted));
        self.max_per_address
            .store(max.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// A connection was closed before anybody served it.
    pub(super) fn count_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were, since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// How many are taken, and how many there are.
    pub fn usage(&self) -> (usize, usize) {
        (self.taken.load(Ordering::Relaxed), self.max)
    }

    /// A permit for a connection from `address`; `None` if it has far more than it may
    /// have. Whoever accepts connections asks [`Self::are_taken`] before.
    ///
    /// One of a trusted proxy is not counted yet: [`ConnectionPermit::count_for`].
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Option<ConnectionPermit> {
        self.taken.fetch_add(1, Ordering::Relaxed);
        let mut permit = ConnectionPermit {
            permits: Arc::clone(self),
            network: None,
            is_over_limit: false,
        };
        let is_counted = address.to_canonical().is_loopback() || permit.count_for(address);
        is_counted.then_some(permit)
    }

    /// Whether idle connections have to go.
    pub fn are_short(&self) -> bool {
        self.taken.load(Ordering::Relaxed) > self.short
    }

    /// Whether there is none left.
    pub fn are_taken(&self) -> bool {
        self.taken.load(Ordering::Relaxed) >= self.max
    }

    /// Has every worker close the connection that has been idle longest.
    pub(super) fn ask_for_one(&self) {
        self.wanted.notify_waiters();
    }

    /// Is done when [`Self::ask_for_one`] is called.
    pub(super) async fn asked(&self) {
        self.wanted.notified().await;
    }

    /// Counts one more of an address; true if it is over its limit.
    fn count(&self, network: IpAddr, max: usize) -> Option<bool> {
        let mut by_address = self.by_address();
        let count = by_address.entry(network).or_insert(0);
        if *count >= max.saturating_add(MAX_REFUSED) {
            return None;
        }
        *count += 1;
        Some(*count > max)
    }

    fn by_address(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // A map of counters is whole after any panic.
        self.by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionPermit {
    /// Counts it for an address, unless it is counted already or a trusted proxy's. False if
    /// that has far more than it may have: then it is not counted.
    pub fn count_for(&mut self, address: IpAddr) -> bool {
        let max = self.permits.max_per_address.load(Ordering::Relaxed);
        if max == usize::MAX
            || self.network.is_some()
            || self.permits.trusted.load().contains(address)
        {
            return true;
        }
        let network = network(address);
        let Some(is_over_limit) = self.permits.count(network, max) else {
            return false;
        };
        self.network = Some(Box::new(network));
        self.is_over_limit = is_over_limit;
        true
    }

    /// It is closed before anybody served it.
    pub fn count_dropped(&self) {
        self.permits.count_dropped();
    }

    /// Whether its address has more connections than it may have: it is only refused with a text.
    pub fn is_over_limit(&self) -> bool {
        self.is_over_limit
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.permits.taken.fetch_sub(1, Ordering::Relaxed);
        let Some(network) = &self.network else { return };
        let mut by_address = self.permits.by_address();
        if let Some(count) = by_address.get_mut(network) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(network);
            }
        }
    }
}

/// What counts as one address: of IPv6 the /64 that one customer is given.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// A worker's HTTP connections, those that have waited longest for a request first.
#[derive(Debug)]
pub struct Idle {
    connections: RefCell<LruCache<u64, Rc<Waiter>>>,
    next: Cell<u64>,
}

/// An HTTP connection, as far as it waits for requests.
#[derive(Debug)]
pub struct Waiter {
    id: u64,
    is_waiting: Cell<bool>,
    since: Cell<Instant>,
    evicted: Notify,
}

impl Idle {
    pub(super) fn new() -> Self {
        Self {
            connections: RefCell::new(LruCache::unbounded()),
            next: Cell::new(0),
        }
    }

    /// A new connection, which waits for its first request.
    pub fn enter(&self) -> Rc<Waiter> {
        let id = self.next.get();
        self.next.set(id + 1);
        let waiter = Rc::new(Waiter {
            id,
            is_waiting: Cell::new(true),
            since: Cell::new(Instant::now()),
            evicted: Notify::new(),
        });
        self.connections.borrow_mut().put(id, Rc::clone(&waiter));
        waiter
    }

    /// It waits from now on.
    pub fn wait(&self, waiter: &Rc<Waiter>) {
        waiter.is_waiting.set(true);
        waiter.since.set(Instant::now());
        let mut connections = self.connections.borrow_mut();
        if connections.contains(&waiter.id) {
            connections.promote(&waiter.id);
        } else {
            // It was asked to go and had something to do.
            connections.put(waiter.id, Rc::clone(waiter));
        }
    }

    /// It waits for nothing any more.
    pub fn leave(&self, waiter: &Waiter) {
        self.connections.borrow_mut().pop(&waiter.id);
    }

    /// Asks the one to go that has waited longest. False if none has waited for
    /// `time`.
    pub(super) fn evict_longest(&self, time: Duration) -> bool {
        let mut connections = self.connections.borrow_mut();
        for _ in 0..connections.len() {
            let Some((id, waiter)) = connections.pop_lru() else {
                break;
            };
            if waiter.is_waiting.get() {
                if waiter.since.get().elapsed() < time {
                    connections.put(id, waiter);
                    connections.demote(&id);
                    return false;
                }
                waiter.evicted.notify_one();
                return true;
            }
            connections.put(id, waiter);
        }
        false
    }
}

impl Waiter {
    /// It has a request to serve.
    pub fn begin(&self) {
        self.is_waiting.set(false);
    }

    /// Is done when it is asked to go while it waits.
    pub async fn evicted(&self) {
        loop {
            self.evicted.notified().await;
            // What it has sent may be there, and not be read yet.
            tokio::task::yield_now().await;
            if self.is_waiting.get() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(max: usize, max_per_address: Option<usize>) -> Arc<ConnectionPermits> {
        Arc::new(ConnectionPermits::new(max, max / 2, max_per_address))
    }

    #[test]
    fn a_permit_is_released() {
        let permits = permits(4, None);
        let take = || permits.take("192.0.2.1".parse().unwrap());
        let mut taken: Vec<ConnectionPermit> = (0..4).map(|_| take().unwrap()).collect();
        assert!(permits.are_short() && permits.are_taken());
        taken.truncate(3);
        assert!(!permits.are_short() && !permits.are_taken());
        drop(take().unwrap());
        taken.clear();
        assert_eq!(permits.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn an_address_over_its_limit_is_refused_with_a_text_and_far_over_it_is_closed() {
        let permits = permits(1000, Some(2));
        let take = |address: &str| permits.take(address.parse().unwrap());
        let one = ["2001:db8::1", "2001:db8::2", "2001:db8::ffff"];
        let taken = one.map(|address| take(address).unwrap());
        assert_eq!(
            taken.each_ref().map(ConnectionPermit::is_over_limit),
            [false, false, true]
        );
        assert!(!take("2001:db8:0:1::1").unwrap().is_over_limit());
        let refused: Vec<ConnectionPermit> =
            (1..MAX_REFUSED).map(|_| take(one[0]).unwrap()).collect();
        assert!(take(one[0]).is_none());
        drop((taken, refused));
        assert!(!take(one[0]).unwrap().is_over_limit());
        assert!(permits.by_address().is_empty());
        for loopback in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            let taken: Vec<ConnectionPermit> = (0..50).map(|_| take(loopback).unwrap()).collect();
            assert!(taken.iter().all(|permit| !permit.is_over_limit()));
        }
        let mapped = ["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1"];
        let taken = mapped.map(|address| take(address).unwrap());
        assert!(taken[2].is_over_limit());
    }

    #[test]
    fn a_connection_of_a_proxy_counts_for_whom_it_is() {
        let permits = permits(1000, None);
        permits.set_max_per_address(Some(1), "10.0.0.1, ::1".parse().unwrap());
        let take = |address: &str| permits.take(address.parse().unwrap()).unwrap();
        let mut proxied: Vec<ConnectionPermit> = (0..40).map(|_| take("10.0.0.1")).collect();
        proxied.extend((0..40).map(|_| take("::1")));
        assert!(permits.by_address().is_empty());
        // Also a loopback address, if a proxy says so; but not the proxy's own.
        for (client, count) in [
            ("192.0.2.1", 1 + MAX_REFUSED),
            ("127.0.0.2", 1 + MAX_REFUSED),
        ] {
            let client: IpAddr = client.parse().unwrap();
            let mut counted = Vec::new();
            for mut permit in proxied.drain(..count + 1) {
                let is_counted = permit.count_for(client);
                assert_eq!(is_counted, counted.len() < count);
                counted.push(permit);
            }
            let over = counted.iter().filter(|permit| permit.is_over_limit());
            assert_eq!(over.count(), MAX_REFUSED);
            assert!(
                counted[0].count_for("192.0.2.9".parse().unwrap()),
                "once only"
            );
            assert_eq!(permits.by_address().get(&client), Some(&count));
            drop(counted);
            assert!(permits.by_address().is_empty());
        }
        assert!(proxied[0].count_for("10.0.0.1".parse().unwrap()));
        assert!(permits.by_address().is_empty());
    }

    #[test]
    fn who_waits_longest_goes_first_and_nobody_who_does_not_wait() {
        let idle = Idle::new();
        let waiters: Vec<Rc<Waiter>> = (0..4).map(|_| idle.enter()).collect();
        waiters[0].begin();
        waiters[1].begin();
        idle.wait(&waiters[0]);
        let evict = || idle.evict_longest(Duration::ZERO);
        assert!(
            !idle.evict_longest(Duration::from_secs(1)),
            "not for so long"
        );
        let asked = |waiter: &&Rc<Waiter>| {
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            std::pin::pin!(waiter.evicted.notified())
                .poll(&mut cx)
                .is_ready()
        };
        let mut order = Vec::new();
        while evict() {
            order.extend(waiters.iter().filter(asked).map(|waiter| waiter.id));
        }
        assert_eq!(order, [2, 3, 0]);
        idle.wait(&waiters[1]);
        idle.wait(&waiters[2]);
        assert!(evict() && evict() && !evict());
        idle.wait(&waiters[3]);
        waiters.iter().for_each(|waiter| idle.leave(waiter));
        assert!(!evict() && idle.connections.borrow().is_empty());
    }
}

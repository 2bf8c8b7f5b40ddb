//! How often new connections come from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::bucket::Bucket;
use crate::apps::Rate;
use crate::worker::network;

/// Addresses that are remembered before those without news are forgotten.
const MAX_ADDRESSES: usize = 10_000;

/// A limit on new connections per second and address.
#[derive(Debug)]
pub struct Arrivals {
    rate: Option<Rate>,
    by_address: Mutex<HashMap<IpAddr, Bucket>>,
}

impl Arrivals {
    /// `per_second` is `None` for no limit.
    pub fn new(per_second: Option<u32>) -> Self {
        let rate = per_second.map(|count| Rate {
            count,
            per: Duration::from_secs(1),
        });
        Self {
            rate,
            by_address: Mutex::default(),
        }
    }

    /// Whether both allow as many.
    pub fn has_same_limit(&self, other: &Self) -> bool {
        self.rate == other.rate
    }

    /// Whether there is a limit.
    pub fn is_limited(&self) -> bool {
        self.rate.is_some()
    }

    /// Counts a new connection; false if there were too many.
    pub fn allow(&self, address: IpAddr, now: Instant) -> bool {
        let Some(rate) = self.rate else { return true };
        let network = network(address);
        // A map of counters is whole after any panic.
        let mut known = self
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_ADDRESSES && !known.contains_key(&network) {
            known.retain(|_, bucket| !bucket.is_full(now));
            if known.len() >= MAX_ADDRESSES {
                return false;
            }
        }
        known
            .entry(network)
            .or_insert_with(|| Bucket::new(rate, now))
            .take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_ipv6_network_is_one_address() {
        let arrivals = Arrivals::new(Some(1));
        let now = Instant::now();
        let allow = |text: &str| arrivals.allow(text.parse().unwrap(), now);
        assert!(allow("2001:db8::1") && !allow("2001:db8::2"));
        assert!(allow("2001:db8:0:1::1"));
        assert!(allow("192.0.2.1") && allow("192.0.2.2") && !allow("::ffff:192.0.2.1"));
    }
}

//! Ports that a process may leave and come back to.

use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;

/// A port of 127.0.0.1 that nobody listens on.
///
/// It lies below those that the system gives to outgoing connections. While a
/// Redis is down, its port would else be taken by anybody's connection, and those
/// who try to reach it would now and then be connected to themselves.
pub(crate) fn free() -> u16 {
    let below = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse::<u64>().ok())
        .filter(|lowest| *lowest > 20_000)
        .unwrap_or(32_768);
    // Every hasher starts from other random numbers.
    let random = || RandomState::new().hash_one(0_u8);
    loop {
        let port = u16::try_from(10_000 + random() % (below - 10_000)).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

//! The last events of an application's cache channels.
//!
//! They outlive the channels, up to a time and a sum of bytes; whoever was not
//! asked for longest goes first.

use std::time::{Duration, Instant};

use lru::LruCache;

use crate::apps::CacheLimits;
use crate::protocol::{ChannelName, Frame};

/// Bytes that an entry costs beside its frame and its name.
const OVERHEAD: usize = 128;

pub(super) struct Cache {
    entries: LruCache<ChannelName, Entry>,
    bytes: usize,
}

struct Entry {
    frame: Frame,
    expires: Instant,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            entries: LruCache::unbounded(),
            bytes: 0,
        }
    }
}

impl Cache {
    /// Keeps a channel's last event. One that alone is over the bound is not kept,
    /// and neither is the one before, which is not the last any more.
    pub(super) fn put(
        &mut self,
        channel: &ChannelName,
        frame: Frame,
        now: Instant,
        limits: CacheLimits,
    ) {
        self.put_until(channel, frame, now + limits.ttl, limits);
    }

    /// The same, with another time to live.
    pub(super) fn put_until(
        &mut self,
        channel: &ChannelName,
        frame: Frame,
        expires: Instant,
        limits: CacheLimits,
    ) {
        let cost = cost(channel, &frame);
        self.remove(channel);
        if cost > limits.max_bytes {
            return;
        }
        self.bytes += cost;
        self.entries.put(channel.clone(), Entry { frame, expires });
        while self.bytes > limits.max_bytes
            && let Some((channel, entry)) = self.entries.pop_lru()
        {
            self.bytes -= self::cost(&channel, &entry.frame);
        }
    }

    /// A channel's last event and how long it will still be kept.
    pub(super) fn get(&mut self, channel: &ChannelName, now: Instant) -> Option<(Frame, Duration)> {
        let entry = self.entries.get(channel)?;
        let left = entry.expires.saturating_duration_since(now);
        if left.is_zero() {
            self.remove(channel);
            return None;
        }
        Some((entry.frame.clone(), left))
    }

    /// Forgets a channel's last event.
    pub(super) fn remove(&mut self, channel: &ChannelName) {
        if let Some(entry) = self.entries.pop(channel) {
            self.bytes -= cost(channel, &entry.frame);
        }
    }
}

fn cost(channel: &ChannelName, frame: &Frame) -> usize {
    cache_cost(channel, frame.len())
}

/// Bytes that a channel's last event of so many bytes takes of
/// [`crate::apps::CacheLimits::max_bytes`].
pub fn cache_cost(channel: &ChannelName, bytes: usize) -> usize {
    channel.as_str().len() + bytes + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message;

    fn limits(max_bytes: usize) -> CacheLimits {
        CacheLimits {
            max_bytes,
            ttl: Duration::from_secs(60),
        }
    }

    fn event(data: usize) -> (ChannelName, Frame) {
        let channel = ChannelName::parse("cache-a", 164).unwrap();
        let frame = message::event("\"e\"", &format!("\"{}\"", "x".repeat(data)), &channel);
        (channel, frame)
    }

    #[test]
    fn the_last_event_is_kept_for_its_time() {
        let now = Instant::now();
        let limits = limits(10_000);
        let mut cache = Cache::default();
        let (channel, first) = event(1);
        let (_, second) = event(2);
        assert!(cache.get(&channel, now).is_none());
        cache.put(&channel, first, now, limits);
        cache.put(
            &channel,
            second.clone(),
            now + Duration::from_secs(10),
            limits,
        );
        let at = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(
            cache.get(&channel, at(60)),
            Some((second, Duration::from_secs(10)))
        );
        assert!(cache.get(&channel, at(70)).is_none());
        assert_eq!(cache.bytes, 0, "what is over is freed");
    }

    #[test]
    fn the_bytes_are_bounded_and_the_least_asked_for_goes_first() {
        let now = Instant::now();
        let names: Vec<ChannelName> = (0..4)
            .map(|n| ChannelName::parse(&format!("cache-{n}"), 164).unwrap())
            .collect();
        let (_, frame) = event(100);
        let each = cost(&names[0], &frame);
        let limits = limits(3 * each);
        let mut cache = Cache::default();
        for name in &names[..3] {
            cache.put(name, frame.clone(), now, limits);
        }
        assert!(cache.get(&names[0], now).is_some());
        cache.put(&names[3], frame.clone(), now, limits);
        let kept: Vec<bool> = names
            .iter()
            .map(|name| cache.get(name, now).is_some())
            .collect();
        assert_eq!(kept, [true, false, true, true]);
        cache.put(&names[0], event(5000).1, now, limits);
        assert!(
            cache.get(&names[0], now).is_none(),
            "an old event is not the last one"
        );
        assert_eq!(cache.bytes, 2 * each);
        cache.put(&names[0], frame, now, self::limits(each));
        assert_eq!(cache.bytes, each, "the limit has become lower");
    }
}

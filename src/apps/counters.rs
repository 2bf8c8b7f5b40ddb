//! What is counted of an application, by each thread for itself.
//!
//! Each thread adds to a part of its own, so that counting takes no lock and shares no
//! cache line between workers, up to [`PARTS`] of them. Whoever reads adds the parts up.
//! Nothing is ever taken back: what goes up and down is the difference of two counts.

use std::array;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::labels::{
    HandshakeRefusal, PreviousCredential, ProxyClaim, RateLimit, RequestRefusal,
    SubscriptionRefusal, WebhookLoss, WebhookOutcome,
};
use crate::protocol::{ChannelKind, CloseReason};

/// Parts of the counts. All but the last belong to a thread each; those that come later
/// share the last.
const PARTS: usize = 64;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// WebSockets that were let in.
    ConnectionsOpened,
    /// Those that have ended.
    ConnectionsClosed(CloseReason),
    /// WebSockets that were let in only to be told why they are refused.
    ConnectionsRefused(CloseReason),
    /// Requests for a WebSocket that were no handshake.
    HandshakesRefused(HandshakeRefusal),
    /// Bytes that clients have sent after the handshake, decrypted.
    BytesReceived,
    /// Bytes that clients have taken after the handshake, before they are encrypted.
    BytesSent,
    /// Text and binary messages of clients.
    MessagesReceived,
    /// Frames for clients, ours and broadcasts, once for each of them.
    MessagesSent,
    /// Verified or not, requests of the HTTP API.
    HttpCalls,
    /// Bytes of their bodies.
    HttpBytesReceived,
    /// Bytes of the answers' bodies.
    HttpBytesSent,
    /// Publish requests that had come before and were answered as they were then.
    PublishesReplayed,
    /// Events that webhooks' receivers have taken, once for each.
    WebhookEvents,
    /// Those that they were not told of.
    WebhookEventsLost(WebhookLoss),
    /// Requests to them.
    WebhookRequests(WebhookOutcome),
    /// HTTP requests that were refused.
    RequestsRefused(RequestRefusal),
    /// Events that the application has published, once for each channel.
    EventsPublished(ChannelKind),
    /// Events of clients that were passed on.
    ClientEvents(ChannelKind),
    /// Channels that got a first subscriber on this node.
    ChannelsOccupied(ChannelKind),
    /// Channels that lost their last subscriber on this node.
    ChannelsVacated(ChannelKind),
    /// Subscriptions that have begun.
    Subscribed(ChannelKind),
    /// Those that have ended.
    Unsubscribed(ChannelKind),
    /// Users of a presence channel whose first connection to this node has joined.
    UsersJoined,
    /// Those whose last one has left.
    UsersLeft,
    /// Subscriptions that were refused.
    SubscriptionsRefused(SubscriptionRefusal),
    /// Subscribers of a cache channel that were sent its last event.
    CacheHits,
    /// Those for whom there was none.
    CacheMisses,
    /// Questions to other nodes, each to all of them.
    SurveysSent,
    /// Those that all have answered.
    SurveysComplete,
    /// Those that some have not answered, or that could not be sent.
    SurveysIncomplete,
    /// Answers of other nodes.
    SurveyAnswers,
    /// Questions of other nodes.
    SurveysReceived,
    /// Requests, connections, subscriptions and sign-ins that were let in with what is
    /// being replaced.
    PreviousUsed(PreviousCredential),
    /// Times that somebody said to be a proxy whom nobody trusts.
    ProxyClaimsIgnored(ProxyClaim),
    /// Times that a limit was looked at.
    RateChecked(RateLimit),
    /// Times that a limit was hit.
    RateLimited(RateLimit),
}

impl Counter {
    const CLOSED: usize = 1;
    const REFUSED: usize = Self::CLOSED + CloseReason::COUNT;
    const HANDSHAKES: usize = Self::REFUSED + CloseReason::COUNT;
    const SINGLE: usize = Self::HANDSHAKES + HandshakeRefusal::ALL.len();
    const REQUESTS: usize = Self::SINGLE + 18;
    const KINDS: usize = Self::REQUESTS + RequestRefusal::ALL.len();
    const SUBSCRIPTIONS: usize = Self::KINDS + 6 * ChannelKind::ALL.len();
    const RATES: usize = Self::SUBSCRIPTIONS + SubscriptionRefusal::ALL.len();
    const CHECKS: usize = Self::RATES + RateLimit::ALL.len();
    const PREVIOUS: usize = Self::CHECKS + RateLimit::ALL.len();
    const CLAIMS: usize = Self::PREVIOUS + PreviousCredential::ALL.len();
    const LOSSES: usize = Self::CLAIMS + ProxyClaim::ALL.len();
    const OUTCOMES: usize = Self::LOSSES + WebhookLoss::ALL.len();
    const COUNT: usize = Self::OUTCOMES + WebhookOutcome::ALL.len();

    fn index(self) -> usize {
        let of_kind = |row: usize, kind: ChannelKind| {
            Self::KINDS + row * ChannelKind::ALL.len() + kind as usize
        };
        match self {
            Self::ConnectionsOpened => 0,
            Self::ConnectionsClosed(reason) => Self::CLOSED + reason as usize,
            Self::ConnectionsRefused(reason) => Self::REFUSED + reason as usize,
            Self::HandshakesRefused(reason) => Self::HANDSHAKES + reason as usize,
            Self::BytesReceived => Self::SINGLE,
            Self::BytesSent => Self::SINGLE + 1,
            Self::MessagesReceived => Self::SINGLE + 2,
            Self::MessagesSent => Self::SINGLE + 3,
            Self::HttpCalls => Self::SINGLE + 4,
            Self::HttpBytesReceived => Self::SINGLE + 5,
            Self::HttpBytesSent => Self::SINGLE + 6,
            Self::UsersJoined => Self::SINGLE + 7,
            Self::UsersLeft => Self::SINGLE + 8,
            Self::CacheHits => Self::SINGLE + 9,
            Self::CacheMisses => Self::SINGLE + 10,
            Self::SurveysSent => Self::SINGLE + 11,
            Self::SurveysComplete => Self::SINGLE + 12,
            Self::SurveysIncomplete => Self::SINGLE + 13,
            Self::SurveyAnswers => Self::SINGLE + 14,
            Self::SurveysReceived => Self::SINGLE + 15,
            Self::PublishesReplayed => Self::SINGLE + 16,
            Self::WebhookEvents => Self::SINGLE + 17,
            Self::WebhookEventsLost(why) => Self::LOSSES + why as usize,
            Self::WebhookRequests(outcome) => Self::OUTCOMES + outcome as usize,
            Self::RequestsRefused(reason) => Self::REQUESTS + reason as usize,
            Self::EventsPublished(kind) => of_kind(0, kind),
            Self::ClientEvents(kind) => of_kind(1, kind),
            Self::ChannelsOccupied(kind) => of_kind(2, kind),
            Self::ChannelsVacated(kind) => of_kind(3, kind),
            Self::Subscribed(kind) => of_kind(4, kind),
            Self::Unsubscribed(kind) => of_kind(5, kind),
            Self::SubscriptionsRefused(kind) => Self::SUBSCRIPTIONS + kind as usize,
            Self::PreviousUsed(credential) => Self::PREVIOUS + credential as usize,
            Self::ProxyClaimsIgnored(claim) => Self::CLAIMS + claim as usize,
            Self::RateChecked(limit) => Self::CHECKS + limit as usize,
            Self::RateLimited(limit) => Self::RATES + limit as usize,
        }
    }
}

/// A time that is measured again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// From a publish request's head to its answer.
    Publish,
    /// From when an event was given its place in its channel on this node to when it was
    /// written to the last of a worker's sockets, if that takes it. Of each worker's events,
    /// one at a time is followed.
    Delivery,
    /// From a question to other nodes to their answers.
    Survey,
}

impl Timing {
    /// Upper bounds of the buckets, but the last, in seconds.
    pub const BOUNDS: [f64; 18] = [
        0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
        0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    ];
}

/// How often a time fell between two bounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// By bucket; the last is for what is over all bounds.
    pub counts: [u64; Timing::BOUNDS.len() + 1],
    /// All times together.
    pub sum: Duration,
}

/// The counts of an application.
pub struct Counters([OnceLock<Box<Part>>; PARTS]);

/// Its own cache lines: mostly, one thread alone writes there.
#[repr(align(128))]
struct Part {
    counts: [AtomicU64; Counter::COUNT],
    timings: [Times; 3],
}

#[derive(Default)]
struct Times {
    counts: [AtomicU64; Timing::BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

/// The part that threads share.
const SHARED: usize = PARTS - 1;

/// The number of the next thread that counts.
static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static PART: usize = NEXT.fetch_add(1, Ordering::Relaxed).min(SHARED);
}

impl Default for Counters {
    fn default() -> Self {
        Self(array::from_fn(|_| OnceLock::new()))
    }
}

impl Default for Part {
    fn default() -> Self {
        Self {
            counts: array::from_fn(|_| AtomicU64::new(0)),
            timings: Default::default(),
        }
    }
}

impl Counters {
    /// The thread's part, and whether it shares it.
    fn own(&self) -> (&Part, bool) {
        PART.with(|part| (&**self.0[*part].get_or_init(Box::default), *part == SHARED))
    }

    fn parts(&self) -> impl Iterator<Item = &Part> {
        self.0
            .iter()
            .filter_map(|part| part.get().map(|part| &**part))
    }

    /// Adds to a count.
    pub fn add(&self, counter: Counter, more: u64) {
        let (part, is_shared) = self.own();
        add(&part.counts[counter.index()], more, is_shared);
    }

    /// Adds one to a count.
    pub fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// How many there were.
    pub fn of(&self, counter: Counter) -> u64 {
        let index = counter.index();
        let counts = self.parts().map(|part| &part.counts[index]);
        counts.map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// A time was measured.
    pub fn observe(&self, timing: Timing, time: Duration) {
        let (part, is_shared) = self.own();
        let times = &part.timings[timing as usize];
        let seconds = time.as_secs_f64();
        let bucket = Timing::BOUNDS.partition_point(|bound| *bound < seconds);
        add(&times.counts[bucket], 1, is_shared);
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        add(&times.nanoseconds, nanoseconds, is_shared);
    }

    /// All times that were measured.
    pub fn distribution(&self, timing: Timing) -> Distribution {
        let mut all = Distribution::default();
        for part in self.parts() {
            let times = &part.timings[timing as usize];
            for (sum, count) in all.counts.iter_mut().zip(&times.counts) {
                *sum += count.load(Ordering::Relaxed);
            }
            all.sum += Duration::from_nanos(times.nanoseconds.load(Ordering::Relaxed));
        }
        all
    }
}

/// Adds without a locked instruction if nobody else does.
fn add(to: &AtomicU64, more: u64, is_shared: bool) {
    if is_shared {
        to.fetch_add(more, Ordering::Relaxed);
    } else {
        let sum = to.load(Ordering::Relaxed).wrapping_add(more);
        to.store(sum, Ordering::Relaxed);
    }
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counters")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::thread;

    fn all() -> Vec<Counter> {
        use Counter as C;
        let single = [
            C::ConnectionsOpened,
            C::BytesReceived,
            C::BytesSent,
            C::MessagesReceived,
            C::MessagesSent,
            C::HttpCalls,
            C::HttpBytesReceived,
            C::HttpBytesSent,
            C::UsersJoined,
            C::UsersLeft,
            C::CacheHits,
            C::CacheMisses,
            C::SurveysSent,
            C::SurveysComplete,
            C::SurveysIncomplete,
            C::SurveyAnswers,
            C::SurveysReceived,
            C::PublishesReplayed,
            C::WebhookEvents,
        ];
        let mut all = single.to_vec();
        let closes = CloseReason::ALL.iter().copied();
        all.extend(closes.clone().map(C::ConnectionsClosed));
        all.extend(closes.map(C::ConnectionsRefused));
        all.extend(
            HandshakeRefusal::ALL
                .iter()
                .copied()
                .map(C::HandshakesRefused),
        );
        all.extend(RequestRefusal::ALL.iter().copied().map(C::RequestsRefused));
        all.extend(
            SubscriptionRefusal::ALL
                .iter()
                .copied()
                .map(C::SubscriptionsRefused),
        );
        all.extend(PreviousCredential::ALL.iter().copied().map(C::PreviousUsed));
        all.extend(ProxyClaim::ALL.iter().copied().map(C::ProxyClaimsIgnored));
        all.extend(RateLimit::ALL.iter().copied().map(C::RateChecked));
        all.extend(RateLimit::ALL.iter().copied().map(C::RateLimited));
        all.extend(WebhookLoss::ALL.iter().copied().map(C::WebhookEventsLost));
        all.extend(WebhookOutcome::ALL.iter().copied().map(C::WebhookRequests));
        for of_kind in [
            C::EventsPublished,
            C::ClientEvents,
            C::ChannelsOccupied,
            C::ChannelsVacated,
            C::Subscribed,
            C::Unsubscribed,
        ] {
            all.extend(ChannelKind::ALL.iter().copied().map(of_kind));
        }
        all
    }

    #[test]
    fn each_has_a_place_of_its_own() {
        let places: HashSet<usize> = all().into_iter().map(Counter::index).collect();
        assert_eq!(places, (0..Counter::COUNT).collect());
    }

    #[test]
    fn what_all_threads_count_is_added_up() {
        let counters = Counters::default();
        thread::scope(|scope| {
            for _ in 0..PARTS + 3 {
                scope.spawn(|| {
                    for counter in all() {
                        counters.count(counter);
                    }
                    counters.add(Counter::BytesSent, 9);
                    counters.observe(Timing::Delivery, Duration::from_millis(1));
                });
            }
        });
        let threads = PARTS as u64 + 3;
        for counter in all() {
            let times = if counter == Counter::BytesSent { 10 } else { 1 };
            assert_eq!(counters.of(counter), times * threads, "{counter:?}");
        }
        let times = counters.distribution(Timing::Delivery);
        assert_eq!(
            times.counts[6], threads,
            "a bound is part of what is below it"
        );
        assert_eq!(times.sum, Duration::from_millis(threads));
        assert_eq!(
            counters.distribution(Timing::Publish),
            Distribution::default()
        );
    }

    #[test]
    fn what_is_over_all_bounds_has_a_bucket() {
        let counters = Counters::default();
        counters.observe(Timing::Publish, Duration::from_secs(6));
        counters.observe(Timing::Publish, Duration::ZERO);
        let times = counters.distribution(Timing::Publish);
        assert_eq!((times.counts[0], times.counts[18]), (1, 1));
    }
}

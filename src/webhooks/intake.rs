//! What the hub has said and nobody has looked at yet.
//!
//! Called under the hub's locks: it takes one lock of its own, the last of all, and for what
//! nobody wants not even that.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::event::{Event, Fields, Id, OF_CHANNELS, OF_MEMBERS, Topic};
use crate::apps::{App, AppHandle, WebhookKind, WebhookLoss};
use crate::hub::{HubEvent, HubEventKind, Sink};
use crate::protocol::{ChannelName, CloseReason, SocketId};

/// How long a cache channel that was found empty is not told of again: several who find it so at
/// once are told of once.
const MISS_PAUSE: Duration = Duration::from_secs(1);

/// Channels that were found empty of late.
const MAX_MISSES: usize = 10_000;

/// One thing that was said.
#[derive(Debug)]
pub(super) enum Item {
    /// It has come or gone, or both: the hub knows how it is. And whether it has come, however it
    /// is now.
    Topic(Topic, bool),
    /// It has happened.
    Event(Event),
    /// A channel has so many subscribers now.
    Count(Event, usize),
}

/// What was said.
#[derive(Debug)]
pub(super) struct Intake {
    waiting: Mutex<Waiting>,
    woken: Notify,
    max_bytes: AtomicUsize,
    is_closed: AtomicBool,
    /// Before the number of each event's id.
    prefix: String,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    items: Vec<Item>,
    /// Places of the topics among them: each is there once.
    topics: HashMap<Topic, usize>,
    /// Bytes of the events among them.
    bytes: usize,
    /// Since when connections are open, of applications that want to know how long they were.
    opened: HashMap<SocketId, Instant>,
    misses: Misses,
}

/// Cache channels that were found empty of late: in this pause and in the one before.
#[derive(Debug, Default)]
struct Misses {
    recent: HashSet<(u32, ChannelName)>,
    before: HashSet<(u32, ChannelName)>,
    since: Option<Instant>,
}

impl Misses {
    /// Whether a channel was not found empty before.
    fn is_first(&mut self, app: u32, channel: &ChannelName, now: Instant) -> bool {
        if self.since.is_none_or(|since| now >= since + MISS_PAUSE) {
            self.before = std::mem::take(&mut self.recent);
            if self
                .since
                .is_some_and(|since| now >= since + 2 * MISS_PAUSE)
            {
                self.before.clear();
            }
            self.since = Some(now);
        }
        let key = (app, channel.clone());
        !self.before.contains(&key) && (self.recent.len() >= MAX_MISSES || self.recent.insert(key))
    }
}

impl Intake {
    pub(super) fn new(max_bytes: usize) -> Self {
        let mut random = [0; 8];
        getrandom::fill(&mut random).expect("the system has random numbers");
        Self {
            waiting: Mutex::default(),
            woken: Notify::new(),
            max_bytes: AtomicUsize::new(max_bytes),
            is_closed: AtomicBool::new(false),
            prefix: hex::encode(random),
            next: AtomicU64::new(1),
        }
    }

    /// Bytes of events that may wait from now on.
    pub(super) fn set_max_bytes(&self, max_bytes: usize) {
        self.max_bytes.store(max_bytes, Ordering::Relaxed);
    }

    /// An id that no event has had, in any process.
    pub(super) fn next_id(&self) -> Id<'_> {
        Id::of(&self.prefix, self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Waits until something was said.
    pub(super) async fn woken(&self) {
        self.woken.notified().await;
    }

    /// Takes all that was said, in its order.
    pub(super) fn take(&self) -> Vec<Item> {
        let (items, topics) = {
            let mut waiting = self.waiting();
            waiting.bytes = 0;
            let topics = std::mem::take(&mut waiting.topics);
            (std::mem::take(&mut waiting.items), topics)
        };
        // Nobody waits for the lock while they are freed.
        drop(topics);
        items
    }

    /// Nobody takes anything any more.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        self.take();
    }

    /// Has it looked at how a topic is, which may have come.
    pub(super) fn mark(&self, topic: Topic, has_come: bool) {
        let mut waiting = self.waiting();
        if let Some(at) = waiting.topics.get(&topic).copied() {
            if let Some(Item::Topic(_, came)) = waiting.items.get_mut(at) {
                *came |= has_come;
            }
            return;
        }
        let at = waiting.items.len();
        waiting.topics.insert(topic.clone(), at);
        waiting.items.push(Item::Topic(topic, has_come));
        drop(waiting);
        self.woken.notify_one();
    }

    /// Nobody wants to know any more how long connections were open.
    pub(super) fn forget_opened(&self) {
        self.waiting().opened = HashMap::new();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, app: &AppHandle, cost: usize, item: Item) {
        let mut waiting = self.waiting();
        if waiting.bytes + cost > self.max_bytes.load(Ordering::Relaxed) {
            drop(waiting);
            super::lost(app, 1, WebhookLoss::Overflow);
            return;
        }
        waiting.bytes += cost;
        waiting.items.push(item);
        drop(waiting);
        self.woken.notify_one();
    }

    fn tell(
        &self,
        app: &AppHandle,
        kind: WebhookKind,
        channel: Option<Arc<str>>,
        fields: Fields<'_>,
    ) {
        let event = Event::new(app, kind, channel, self.next_id(), fields);
        self.push(app, event.cost(), Item::Event(event));
    }

    fn count(&self, app: &AppHandle, channel: &ChannelName, count: usize) {
        let fields = Fields {
            subscription_count: Some(count),
            ..Fields::default()
        };
        let kind = WebhookKind::SubscriptionCount;
        let event = Event::new(app, kind, Some(channel.to_arc()), self.next_id(), fields);
        self.push(app, event.cost(), Item::Count(event, count));
    }

    fn accept_wanted(&self, settings: &App, event: &HubEvent<'_>) {
        let (app, webhooks) = (event.app, &settings.webhooks);
        let want = |kind, channel: &str| webhooks.want(&[kind], channel);
        match event.kind {
            HubEventKind::ChannelOccupied { channel } => {
                self.mark_channel(app, settings, channel, true);
            }
            HubEventKind::ChannelVacated { channel } => {
                self.mark_channel(app, settings, channel, false);
            }
            HubEventKind::Subscribed { channel, user: Some(user), is_first_of_user: true } => {
                self.mark_member(app, settings, (channel, user), true);
            }
            HubEventKind::Unsubscribed { channel, user: Some(user), is_last_of_user: true } => {
                self.mark_member(app, settings, (channel, user), false);
            }
            HubEventKind::ClientEvent { socket, channel, event, data, user_id } => {
                let kind = WebhookKind::ClientEvent;
                if want(kind, channel.as_str()) {
                    let (data, user) = (data.map(text_of), user_id.map(text_of));
                    self.tell(app, kind, Some(channel.to_arc()), Fields {
                        event: Some(event),
                        data: data.as_deref(),
                        socket_id: Some(socket),
                        user_id: user.as_deref(),
                        ..Fields::default()
                    });
                }
            }
            HubEventKind::CacheMiss { channel } => {
                let kind = WebhookKind::CacheMiss;
                if want(kind, channel.as_str()) && self.waiting().misses.is_first(app.number(), channel, Instant::now()) {
                    self.tell(app, kind, Some(channel.to_arc()), Fields::default());
                }
            }
            HubEventKind::CountChanged { channel, count } => {
                if want(WebhookKind::SubscriptionCount, channel.as_str()) {
                    self.count(app, channel, count);
                }
            }
            HubEventKind::SubscriptionRefused { socket, channel, reason, .. } => {
                let kind = WebhookKind::SubscriptionRefused;
                if want(kind, channel) {
                    self.tell(app, kind, Some(channel.into()), Fields {
                        socket_id: Some(socket),
                        reason: Some(reason),
                        ..Fields::default()
                    });
                }
            }
            HubEventKind::ConnectionOpened { socket } => self.opened(app, settings, socket),
            HubEventKind::ConnectionClosed { socket, reason } => {
                self.closed(app, settings, socket, reason);
            }
            HubEventKind::Subscribed { .. }
            | HubEventKind::Unsubscribed { .. }
            // Each node says so of itself; what is so on all of them is found out here.
            | HubEventKind::ClusterChannelOccupied { .. }
            | HubEventKind::ClusterChannelVacated { .. }
            | HubEventKind::MemberAdded { .. }
            | HubEventKind::MemberRemoved { .. }
            | HubEventKind::EventPublished { .. }
            | HubEventKind::CacheHit { .. } => {}
        }
    }

    fn mark_channel(&self, app: &AppHandle, settings: &App, channel: &ChannelName, has_come: bool) {
        if settings.webhooks.want(&OF_CHANNELS, channel.as_str()) {
            let topic = Topic {
                app: app.clone(),
                channel: channel.clone(),
                user: None,
            };
            self.mark(topic, has_come);
        }
    }

    fn mark_member(
        &self,
        app: &AppHandle,
        settings: &App,
        (channel, user): (&ChannelName, &str),
        has_come: bool,
    ) {
        if settings.webhooks.want(&OF_MEMBERS, channel.as_str()) {
            let topic = Topic {
                app: app.clone(),
                channel: channel.clone(),
                user: Some(user.into()),
            };
            self.mark(topic, has_come);
        }
    }

    fn opened(&self, app: &AppHandle, settings: &App, socket: SocketId) {
        let kinds = settings.webhooks.kinds();
        if kinds.has(WebhookKind::ConnectionClosed) {
            self.waiting().opened.insert(socket, Instant::now());
        }
        if kinds.has(WebhookKind::ConnectionEstablished) {
            self.tell(
                app,
                WebhookKind::ConnectionEstablished,
                None,
                Fields {
                    socket_id: Some(socket),
                    ..Fields::default()
                },
            );
        }
    }

    fn closed(&self, app: &AppHandle, settings: &App, socket: SocketId, reason: CloseReason) {
        let kind = WebhookKind::ConnectionClosed;
        let opened = {
            let opened = &mut self.waiting().opened;
            (!opened.is_empty())
                .then(|| opened.remove(&socket))
                .flatten()
        };
        if !settings.webhooks.kinds().has(kind) {
            return;
        }
        self.tell(
            app,
            kind,
            None,
            Fields {
                socket_id: Some(socket),
                code: reason.code().map(|(code, _)| code),
                reason: Some(reason.label()),
                seconds: opened.map(|opened| opened.elapsed().as_secs()),
                ..Fields::default()
            },
        );
    }
}

impl Sink for Intake {
    fn accept(&self, event: &HubEvent<'_>) {
        // What there is most of, nobody is told of.
        if matches!(event.kind, HubEventKind::EventPublished { .. }) {
            return;
        }
        let settings = event.app.settings();
        if !settings.webhooks.is_empty() && !self.is_closed.load(Ordering::Relaxed) {
            self.accept_wanted(&settings, event);
        }
    }
}

/// The text that a JSON string stands for; of anything else its JSON, as Pusher does.
fn text_of(json: &str) -> Cow<'_, str> {
    serde_json::from_str(json).map_or(Cow::Borrowed(json), Cow::<str>::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::{AppRegistry, tests::app};
    use crate::apps::{Counter, Webhook, Webhooks};

    fn handle(kinds: &[WebhookKind]) -> AppHandle {
        let webhook = Webhook {
            url: "http://receiver/".parse().unwrap(),
            kinds: kinds.iter().copied().collect(),
            channels: Vec::new(),
            headers: Vec::new(),
        };
        let app = App {
            webhooks: Webhooks::new(vec![webhook]),
            ..app("a")
        };
        AppRegistry::new(vec![app]).unwrap().by_id("a").unwrap()
    }

    fn name(text: &str) -> ChannelName {
        ChannelName::parse(text, 100).unwrap()
    }

    #[test]
    fn what_comes_and_goes_is_looked_at_once() {
        let app = handle(&[WebhookKind::ChannelOccupied]);
        let intake = Intake::new(1 << 20);
        let channel = &name("a");
        for kind in [
            HubEventKind::ChannelOccupied { channel },
            HubEventKind::ChannelVacated { channel },
            HubEventKind::ChannelOccupied { channel },
            HubEventKind::Subscribed {
                channel,
                user: Some("7"),
                is_first_of_user: true,
            },
            HubEventKind::CacheMiss { channel },
        ] {
            intake.accept(&HubEvent { app: &app, kind });
        }
        let items = intake.take();
        assert!(matches!(
            &items.iter().collect::<Vec<_>>()[..],
            [Item::Topic(_, true)]
        ));
        let kind = HubEventKind::ChannelVacated { channel };
        intake.accept(&HubEvent { app: &app, kind });
        assert_eq!(intake.take().len(), 1, "after it was taken, again");
    }

    #[test]
    fn events_are_bounded_in_bytes_and_those_that_are_over_counted() {
        let app = handle(&[WebhookKind::ClientEvent]);
        let intake = Intake::new(1000);
        let channel = &name("presence-a");
        for _ in 0..100 {
            let kind = HubEventKind::ClientEvent {
                socket: SocketId::parse("1.2").unwrap(),
                channel,
                event: "client-a",
                data: Some("{\"a\":1}"),
                user_id: Some("\"7\""),
            };
            intake.accept(&HubEvent { app: &app, kind });
        }
        let items = intake.take();
        let lost = app
            .counters()
            .of(Counter::WebhookEventsLost(WebhookLoss::Overflow));
        assert!(!items.is_empty() && items.len() as u64 + lost == 100);
        let Item::Event(event) = &items[0] else {
            panic!("{items:?}");
        };
        let written: serde_json::Value = serde_json::from_str(&event.json).unwrap();
        assert_eq!(
            (&written["data"], &written["user_id"]),
            (&"{\"a\":1}".into(), &"7".into())
        );
    }

    #[test]
    fn several_who_find_a_channel_empty_are_told_of_once() {
        let app = handle(&[WebhookKind::CacheMiss]);
        let intake = Intake::new(1 << 20);
        for channel in ["cache-a", "cache-a", "cache-b"] {
            let channel = &name(channel);
            let kind = HubEventKind::CacheMiss { channel };
            intake.accept(&HubEvent { app: &app, kind });
        }
        assert_eq!(intake.take().len(), 2);
    }

    #[test]
    fn one_who_finds_a_channel_empty_later_is_told_of_again() {
        let (mut misses, begin) = (Misses::default(), Instant::now());
        let mut is_first = |channel: &str, after: u32| {
            misses.is_first(1, &name(channel), begin + after * MISS_PAUSE / 2)
        };
        assert!(is_first("cache-a", 0) && !is_first("cache-a", 1) && !is_first("cache-a", 3));
        for pauses in 2..6 {
            assert!(is_first("cache-a", 100 * pauses), "{pauses}");
        }
        assert!(is_first("cache-b", 500) && !is_first("cache-b", 500));
    }
}

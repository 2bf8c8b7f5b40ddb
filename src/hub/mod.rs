//! Who is subscribed to what: synchronous, in memory, without I/O.
//!
//! The hub knows, for each channel, how many subscribers each worker has; the
//! workers know which sockets those are. What has to be told, and to whom, is
//! decided under the channel's lock and put into the workers' inboxes under that
//! same lock, so all subscribers of a channel see one order.
//!
//! Lock order: a registry shard, then a channel, then an inbox. None is held
//! while anything is awaited; there is no `async fn` in here.

mod channel;
mod inbox;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::app::{App, Apps};
use crate::protocol::{ChannelName, Frame, SocketId};

pub use channel::Channel;
pub use inbox::{Cast, Inbox};

/// Shards of an application's channel registry: enough that two cores seldom meet.
const SHARDS: usize = 16;

/// All channels of all applications.
pub struct Hub {
    apps: Vec<AppState>,
    inboxes: Vec<Arc<Inbox>>,
    hasher: RandomState,
    next_channel_id: AtomicU64,
}

struct AppState {
    shards: [Mutex<HashMap<ChannelName, Arc<Channel>>>; SHARDS],
    connections: Arc<AtomicUsize>,
}

/// A subscription as it begins.
#[derive(Debug)]
pub struct Joined {
    /// The channel.
    pub channel: Arc<Channel>,
    /// The sequence number it stood at: the subscriber gets what comes after it.
    pub after: u64,
}

/// One place among an application's connections; given back when dropped.
#[derive(Debug)]
pub struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Hub {
    /// A hub without channels for `workers` workers, whose inboxes hold
    /// `inbox_bytes` each before publishers have to wait.
    pub fn new(apps: &Apps, workers: usize, inbox_bytes: usize) -> Self {
        let state = |_| AppState {
            shards: std::array::from_fn(|_| Mutex::default()),
            connections: Arc::default(),
        };
        Self {
            apps: apps.iter().map(state).collect(),
            inboxes: (0..workers)
                .map(|_| Arc::new(Inbox::new(inbox_bytes)))
                .collect(),
            hasher: RandomState::new(),
            next_channel_id: AtomicU64::new(0),
        }
    }

    /// The inbox of a worker.
    pub fn inbox(&self, worker: usize) -> &Arc<Inbox> {
        &self.inboxes[worker]
    }

    /// Whether every worker can take another message. Publishers ask before they
    /// publish; a message that was begun is always put in everywhere.
    pub fn has_room(&self) -> bool {
        self.inboxes.iter().all(|inbox| inbox.has_room())
    }

    /// Counts a new connection, unless the application has all it may have.
    pub fn admit(&self, app: &App) -> Option<Slot> {
        let connections = &self.apps[app.index].connections;
        let most = app.max_connections.unwrap_or(usize::MAX);
        let more = |count: usize| (count < most).then_some(count + 1);
        connections
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        Some(Slot(Arc::clone(connections)))
    }

    /// Connections of an application.
    pub fn connections(&self, app: &App) -> usize {
        self.apps[app.index].connections.load(Ordering::Relaxed)
    }

    /// Channels of an application that have a subscriber.
    pub fn occupied(&self, app: &App) -> usize {
        self.apps[app.index]
            .shards
            .iter()
            .map(|shard| lock(shard).len())
            .sum()
    }

    /// The channel of this name, if it has a subscriber.
    pub fn find(&self, app: &App, name: &str) -> Option<Arc<Channel>> {
        lock(self.shard(app, name)).get(name).cloned()
    }

    /// Adds a subscriber that lives on `worker`.
    pub fn subscribe(&self, app: &App, name: &ChannelName, worker: usize) -> Joined {
        // The shard stays locked so that the last subscriber's leaving cannot
        // take the channel out of the registry in between.
        let mut shard = lock(self.shard(app, name.as_str()));
        let channel = shard.entry(name.clone()).or_insert_with(|| {
            let id = self.next_channel_id.fetch_add(1, Ordering::Relaxed);
            Arc::new(Channel::new(
                id,
                app.index,
                name.clone(),
                self.inboxes.len(),
            ))
        });
        let after = channel.join(worker);
        Joined {
            channel: Arc::clone(channel),
            after,
        }
    }

    /// Takes away a subscriber that lives on `worker`; a channel without
    /// subscribers is forgotten.
    pub fn leave(&self, channel: &Channel, worker: usize) {
        let name = channel.name().as_str();
        let mut shard = lock(self.shard_of(channel.app(), name));
        if channel.leave(worker) == 0 {
            shard.remove(name);
        }
    }

    /// Sends an event to all subscribers of a channel but `except`. The frame is
    /// encoded only if there is somebody to get it. Gives back how many
    /// subscribers the channel has.
    pub fn publish(
        &self,
        app: &App,
        name: &ChannelName,
        except: Option<SocketId>,
        encode: impl FnOnce() -> Frame,
    ) -> usize {
        match self.find(app, name.as_str()) {
            Some(channel) => channel.cast(&encode(), except, &self.inboxes),
            None => 0,
        }
    }

    fn shard(&self, app: &App, name: &str) -> &Mutex<HashMap<ChannelName, Arc<Channel>>> {
        self.shard_of(app.index, name)
    }

    fn shard_of(&self, app: usize, name: &str) -> &Mutex<HashMap<ChannelName, Arc<Channel>>> {
        let hash =
            usize::try_from(self.hasher.hash_one(name) % SHARDS as u64).expect("it is below 16");
        &self.apps[app].shards[hash]
    }
}

/// Locks, also after a panic elsewhere: no code under these locks leaves state
/// half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{ClientEvents, Origins};
    use crate::protocol::message;
    use crate::protocol::signature::Secret;
    use std::time::Duration;

    fn apps(max_connections: Option<usize>) -> Apps {
        let app = |id: &str| App {
            index: 0,
            id: id.to_owned(),
            key: id.to_owned(),
            secret: Secret::new("s"),
            ping_interval: Duration::from_secs(60),
            activity_timeout: 30,
            max_connections,
            max_message_size: 1,
            client_events: ClientEvents::None,
            origins: Origins::new(Vec::new()),
        };
        Apps::new(vec![app("a"), app("b")])
    }

    fn name(text: &str) -> ChannelName {
        ChannelName::parse(text).unwrap()
    }

    fn casts(hub: &Hub, worker: usize) -> Vec<(u64, u64)> {
        hub.inbox(worker)
            .take()
            .into_iter()
            .map(|cast| (cast.channel, cast.seq))
            .collect()
    }

    #[test]
    fn each_worker_with_subscribers_gets_a_message_once_in_one_order() {
        let apps = apps(None);
        let app = apps.by_id("a").unwrap();
        let hub = Hub::new(&apps, 3, 1 << 20);
        let first = hub.subscribe(app, &name("c"), 0);
        hub.subscribe(app, &name("c"), 0);
        hub.subscribe(app, &name("c"), 2);
        assert_eq!(hub.publish(app, &name("c"), None, message::ping), 3);
        assert_eq!(hub.publish(app, &name("c"), None, message::ping), 3);
        let id = first.channel.id();
        assert_eq!(casts(&hub, 0), [(id, 1), (id, 2)]);
        assert_eq!(casts(&hub, 1), []);
        assert_eq!(casts(&hub, 2), [(id, 1), (id, 2)]);
        assert_eq!(
            hub.subscribe(app, &name("c"), 1).after,
            2,
            "what was before the subscription is not for it"
        );
    }

    #[test]
    fn a_channel_lives_from_its_first_subscriber_to_its_last() {
        let apps = apps(None);
        let (a, b) = (apps.by_id("a").unwrap(), apps.by_id("b").unwrap());
        let hub = Hub::new(&apps, 1, 1 << 20);
        assert_eq!(
            hub.publish(a, &name("c"), None, || unreachable!("nobody is there")),
            0
        );
        let one = hub.subscribe(a, &name("c"), 0);
        let two = hub.subscribe(a, &name("c"), 0);
        assert_eq!(
            (hub.occupied(a), hub.occupied(b)),
            (1, 0),
            "applications do not meet"
        );
        hub.leave(&one.channel, 0);
        assert_eq!(hub.occupied(a), 1);
        hub.leave(&two.channel, 0);
        assert_eq!(hub.occupied(a), 0);
        let again = hub.subscribe(a, &name("c"), 0);
        assert_ne!(
            again.channel.id(),
            one.channel.id(),
            "late casts of the old channel reach nobody"
        );
    }

    #[test]
    fn connections_are_counted_up_to_the_quota() {
        let apps = apps(Some(2));
        let (a, b) = (apps.by_id("a").unwrap(), apps.by_id("b").unwrap());
        let hub = Hub::new(&apps, 1, 1);
        let slots: Vec<_> = (0..2).map(|_| hub.admit(a).unwrap()).collect();
        assert!(hub.admit(a).is_none());
        assert!(hub.admit(b).is_some(), "each application has its own quota");
        drop(slots);
        assert_eq!(hub.connections(a), 0);
        assert!(hub.admit(a).is_some());
    }
}

//! Who is subscribed to what: synchronous, in memory, without I/O.
//!
//! The hub knows, for each channel, how many subscribers each worker has; the
//! workers know which sockets those are. What has to be told, and to whom, is
//! decided under the channel's lock and put into the workers' inboxes under that
//! same lock, so all subscribers of a channel see one order.
//!
//! Lock order: a registry shard, then a channel, then a cache, then the users of an
//! application, then the counts that are due, then an inbox, then the relay. None is held while anything is awaited; there is no
//! `async fn` in here.
//!
//! If there are other nodes, what they have to be told goes into the [`ClusterQueue`] under
//! the same locks; what they tell comes in through `cluster`.

mod cache;
mod channel;
mod closes;
mod cluster;
mod cluster_queue;
mod outputs;
mod remote;
mod users;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::app::{App, Apps};
use crate::protocol::{ChannelName, CloseReason, Frame, Member, SocketId, User, message};
use cache::Cache;
use channel::Settings;
use outputs::Outputs;
use users::Users;

pub use channel::{Channel, Counts, Full};
pub use closes::Closes;
pub use cluster_queue::{BufferLimits, ClusterQueue, ClusterUpdate, Event, Fact, NodeId, Topic};
pub use outputs::{Broadcast, ConnectionRef, Inbox, Recipients, WorkerMessage};
pub use remote::{NodeFacts, RemoteState};

/// Shards of an application's channel registry: enough that two cores seldom meet.
const SHARDS: usize = 16;

type Shard = Mutex<HashMap<ChannelName, Arc<Channel>>>;

/// All channels of all applications.
pub struct Hub {
    apps: Vec<AppState>,
    outputs: Arc<Outputs>,
    /// Notified when an inbox is down to half of what it may hold.
    freed: Arc<Notify>,
    sockets: Arc<AtomicUsize>,
    capacity: Capacity,
    hasher: RandomState,
    next_channel_id: AtomicU64,
    /// Channels whose count of subscribers was held back.
    counts_due: Mutex<Vec<Arc<Channel>>>,
    closes: Closes,
}

struct AppState {
    shards: [Shard; SHARDS],
    connections: Arc<AtomicUsize>,
    users: Users,
    cache: Mutex<Cache>,
    max_members: usize,
    counts: bool,
}

/// A subscription as it begins.
#[derive(Debug)]
pub struct Joined {
    /// The channel.
    pub channel: Arc<Channel>,
    /// The sequence number it stood at: the subscriber gets what comes after it.
    pub after: u64,
    /// What the subscriber is answered, as things stood then.
    ///
    /// Nothing, if it has to wait until it is known how things stand on other nodes;
    /// the answers then come as [`Recipients::Welcome`].
    pub answers: Answers,
}

/// What a subscriber is answered: success, and then the last event of a cache
/// channel, or that there is none.
pub type Answers = [Option<Frame>; 2];

/// What the process as a whole may hold.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Bytes in a worker's inbox before publishers have to wait.
    pub inbox_bytes: usize,
    /// WebSockets.
    pub sockets: usize,
}

/// A connection's places in its application's quota and in the process's; given
/// back when dropped.
#[derive(Debug)]
pub struct Slot {
    _permits: [Permit; 2],
    /// Set once it counts for a quota of all nodes together, which then is told.
    counted: Option<(usize, Arc<Outputs>)>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some((app, outputs)) = &self.counted {
            outputs.tell(|| ClusterUpdate::Released(*app));
        }
    }
}

#[derive(Debug)]
struct Permit(Arc<AtomicUsize>);

impl Permit {
    fn take(taken: &Arc<AtomicUsize>, max: usize) -> Option<Self> {
        let more = |count: usize| (count < max).then_some(count + 1);
        taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        Some(Self(Arc::clone(taken)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection's sign-in; dropping it signs out.
pub struct SignedIn {
    hub: Arc<Hub>,
    app: usize,
    socket: SocketId,
    user: User,
}

impl SignedIn {
    /// Who it is.
    pub fn user(&self) -> &User {
        &self.user
    }
}

impl Drop for SignedIn {
    fn drop(&mut self) {
        self.hub.apps[self.app].users.sign_out(
            &self.user.member.id,
            self.socket,
            &self.user.watchlist,
        );
    }
}

impl Hub {
    /// A hub without channels for `workers` workers, and without other nodes.
    pub fn new(apps: &Apps, workers: usize, capacity: Capacity) -> Self {
        Self::with_cluster(apps, workers, capacity, None)
    }

    /// One that tells other nodes what they have to know.
    pub fn with_cluster(
        apps: &Apps,
        workers: usize,
        capacity: Capacity,
        cluster_queue: Option<Arc<ClusterQueue>>,
    ) -> Self {
        let freed = Arc::new(Notify::new());
        let inboxes: Vec<_> = (0..workers)
            .map(|_| Arc::new(Inbox::new(capacity.inbox_bytes, Arc::clone(&freed))))
            .collect();
        let outputs = Arc::new(Outputs {
            inboxes,
            cluster_queue,
        });
        let state = |app: &Arc<App>| AppState {
            shards: std::array::from_fn(|_| Mutex::default()),
            connections: Arc::default(),
            users: Users::new(app.index, Arc::clone(&outputs)),
            cache: Mutex::new(Cache::new(app.cache.max_bytes, app.cache.ttl)),
            max_members: app.presence.max_members.unwrap_or(usize::MAX),
            counts: app.subscription_count,
        };
        Self {
            apps: apps.iter().map(state).collect(),
            outputs,
            freed,
            sockets: Arc::default(),
            capacity,
            hasher: RandomState::new(),
            next_channel_id: AtomicU64::new(0),
            counts_due: Mutex::default(),
            closes: Closes::default(),
        }
    }

    /// The inbox of a worker.
    pub fn inbox(&self, worker: usize) -> &Arc<Inbox> {
        &self.outputs.inboxes[worker]
    }

    /// Whether every worker can take another message. Publishers ask before they
    /// publish; a message that was begun is always put in everywhere.
    pub fn has_room(&self) -> bool {
        self.outputs.inboxes.iter().all(|inbox| inbox.has_room())
    }

    /// Is done when an inbox is down to half of what it may hold. Whoever waits enables it
    /// before asking [`Self::has_room`] once more, so that nothing is missed.
    pub fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }

    /// Counts a new connection, unless the application or the process has all it
    /// may have.
    pub fn admit(&self, app: &App) -> Result<Slot, CloseReason> {
        let max = app.max_connections.unwrap_or(usize::MAX);
        let own = Permit::take(&self.apps[app.index].connections, max)
            .ok_or(CloseReason::OverConnectionQuota)?;
        let all =
            Permit::take(&self.sockets, self.capacity.sockets).ok_or(CloseReason::OverCapacity)?;
        Ok(Slot {
            _permits: [own, all],
            counted: None,
        })
    }

    /// Connections of an application, in a channel or not.
    pub fn connections(&self, app: &App) -> usize {
        self.apps[app.index].connections.load(Ordering::Relaxed)
    }

    /// The channels of an application that have a subscriber and whose names
    /// begin with `prefix`.
    pub fn channels(&self, app: &App, prefix: &str) -> Vec<Arc<Channel>> {
        let mut found = Vec::new();
        for shard in &self.apps[app.index].shards {
            let shard = lock(shard);
            found.extend(
                shard
                    .values()
                    .filter(|channel| channel.name().as_str().starts_with(prefix))
                    .cloned(),
            );
        }
        found
    }

    /// The channel of this name, if it has a subscriber.
    pub fn find(&self, app: &App, name: &str) -> Option<Arc<Channel>> {
        lock(self.shard(app.index, name)).get(name).cloned()
    }

    /// Adds a subscriber; `member` is who it is in a presence channel.
    pub fn subscribe(
        &self,
        app: &App,
        name: &ChannelName,
        connection: ConnectionRef,
        member: Option<&Member>,
    ) -> Result<Joined, Full> {
        let state = &self.apps[app.index];
        // The shard stays locked so that the last subscriber's leaving cannot
        // take the channel out of the registry in between, and so that a cache
        // channel's event is either the cached one or comes later.
        let mut shard = lock(self.shard(app.index, name.as_str()));
        let is_new = !shard.contains_key(name);
        let channel = shard.entry(name.clone()).or_insert_with(|| {
            let id = self.next_channel_id.fetch_add(1, Ordering::Relaxed);
            Arc::new(Channel::new(
                id,
                app.index,
                name.clone(),
                self.outputs.inboxes.len(),
                Settings {
                    counts: state.counts,
                    has_others: self.outputs.cluster_queue.is_some(),
                },
            ))
        });
        let channel = Arc::clone(channel);
        if is_new {
            channel.listen(true, &self.outputs);
        }
        match channel.join(connection, member, state.max_members, &self.outputs) {
            Ok((after, welcome)) => {
                let last_event = welcome
                    .as_ref()
                    .and_then(|_| self.last_event(app.index, name));
                let answers = [welcome, last_event];
                drop(shard);
                if let Some(member) = member {
                    state.users.join(&member.id, connection);
                }
                self.queue_count(&channel);
                Ok(Joined {
                    channel,
                    after,
                    answers,
                })
            }
            Err(full) => {
                if is_new {
                    shard.remove(name);
                    self.outputs
                        .tell(|| ClusterUpdate::Unlisten(channel.topic()));
                }
                Err(full)
            }
        }
    }

    /// Answers a subscriber that subscribes again: in the channel's order, so that
    /// what it hears before is in the answer and what it hears after is not. False if
    /// its first answer is still to come, and answers this, too.
    pub fn answer_again(&self, channel: &Channel, to: ConnectionRef) -> bool {
        let _shard = lock(self.shard(channel.app(), channel.name().as_str()));
        let cached = self.last_event(channel.app(), channel.name());
        channel.answer_again(to, cached, &self.outputs)
    }

    /// Takes a subscriber away, who was `user` in a presence channel; a channel
    /// without subscribers is forgotten.
    pub fn leave(&self, channel: &Arc<Channel>, connection: ConnectionRef, user: Option<&str>) {
        let name = channel.name().as_str();
        let mut shard = lock(self.shard(channel.app(), name));
        if channel.leave(connection, user, &self.outputs) == 0 {
            shard.remove(name);
            self.outputs
                .tell(|| ClusterUpdate::Unlisten(channel.topic()));
        }
        drop(shard);
        if let Some(user) = user {
            self.apps[channel.app()].users.leave(user, connection.id);
        }
        self.queue_count(channel);
    }

    /// Sends an event to all subscribers of a channel but `except`, here and on
    /// other nodes. Returns how many subscribers the channel has here. The frame is
    /// encoded only if there may be somebody to get it.
    pub fn publish(
        &self,
        app: &App,
        name: &ChannelName,
        except: Option<SocketId>,
        encode: impl FnOnce() -> Frame,
    ) -> usize {
        let channel = self.find(app, name.as_str());
        if channel.is_none() && self.outputs.cluster_queue.is_none() {
            return 0;
        }
        let frame = encode();
        let subscribers = channel.map_or(0, |channel| {
            channel.broadcast(&frame, Recipients::from(except), &self.outputs)
        });
        self.tell_event(app, name, (except, false), frame);
        subscribers
    }

    /// Sends an event of a cache channel, and keeps it for later subscribers.
    pub fn publish_and_keep(
        &self,
        app: &App,
        name: &ChannelName,
        except: Option<SocketId>,
        frame: Frame,
    ) -> usize {
        let shard = lock(self.shard(app.index, name.as_str()));
        let subscribers = shard.get(name).map_or(0, |channel| {
            channel.note_last_event();
            channel.broadcast(&frame, Recipients::from(except), &self.outputs)
        });
        lock(&self.apps[app.index].cache).put(name, frame.clone(), Instant::now());
        // Under the lock, so that other nodes keep the same one.
        self.tell_event(app, name, (except, true), frame);
        subscribers
    }

    fn tell_event(
        &self,
        app: &App,
        name: &ChannelName,
        (except, is_kept): (Option<SocketId>, bool),
        frame: Frame,
    ) {
        self.outputs.tell(|| {
            ClusterUpdate::Event(Event {
                app: app.index,
                channel: name.clone(),
                except,
                frame,
                is_kept,
            })
        });
    }

    /// The last event of a cache channel, and how long it will be kept.
    pub fn cached(&self, app: &App, name: &ChannelName) -> Option<(Frame, Duration)> {
        lock(&self.apps[app.index].cache).get(name, Instant::now())
    }

    fn last_event(&self, app: usize, name: &ChannelName) -> Option<Frame> {
        if !name.kind().is_cache() {
            return None;
        }
        let cached = lock(&self.apps[app].cache).get(name, Instant::now());
        Some(cached.map_or_else(|| message::cache_miss(name), |(frame, _)| frame))
    }

    /// A connection has signed in. Gives `success` back if it is to be sent now;
    /// otherwise it is sent once other nodes can know of the user.
    pub fn sign_in(
        self: &Arc<Self>,
        app: &App,
        address: ConnectionRef,
        user: User,
        success: Frame,
    ) -> (SignedIn, Option<Frame>) {
        let users = &self.apps[app.index].users;
        let now = users.sign_in(&user.member.id, address, &user.watchlist, success);
        let signed_in = SignedIn {
            hub: Arc::clone(self),
            app: app.index,
            socket: address.id,
            user,
        };
        (signed_in, now)
    }

    /// Closes all connections of a user, signed in or in a presence channel, on all
    /// nodes. Returns how many there are here.
    pub fn terminate(&self, app: &App, user: &str) -> usize {
        self.outputs.tell(|| ClusterUpdate::Terminate {
            app: app.index,
            user: user.to_owned(),
        });
        self.apps[app.index].users.terminate(user)
    }

    /// Users of an application that are known of; for tests that look for leaks.
    pub fn users(&self, app: &App) -> usize {
        self.apps[app.index].users.len()
    }

    /// Sends counts of subscribers that were held back. To be called every second.
    pub fn tell_counts(&self) {
        let due = std::mem::take(&mut *lock(&self.counts_due));
        for channel in due {
            channel.tell_held_back_count(&self.outputs);
            self.queue_count(&channel);
        }
    }

    /// Why connections ended.
    pub fn closes(&self) -> &Closes {
        &self.closes
    }

    fn queue_count(&self, channel: &Arc<Channel>) {
        if channel.must_be_queued() {
            lock(&self.counts_due).push(Arc::clone(channel));
        }
    }

    fn shard(&self, app: usize, name: &str) -> &Shard {
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
mod tests;

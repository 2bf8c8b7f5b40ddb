//! Who is subscribed to what: synchronous, in memory, without I/O.
//!
//! The hub knows, for each channel, how many subscribers each worker has; the
//! workers know which sockets those are. What has to be told, and to whom, is
//! decided under the channel's lock and put into the workers' inboxes under that
//! same lock, so all subscribers of a channel see one order.
//!
//! Locks have one order (`lock`), which debug builds enforce. None is held while anything
//! is awaited; there is no `async fn` in here.
//!
//! Everything that the hub says goes through its `outputs`: the inboxes of the workers,
//! the [`ClusterQueue`] for other nodes, and any number of [`Sink`]s, each under the lock
//! under which it was decided. What other nodes say comes in through `cluster`.

mod cache;
mod channel;
mod closes;
mod cluster;
mod cluster_queue;
mod event;
mod lock;
mod outputs;
mod publish;
mod reconcile;
mod remote;
mod sync;
mod topic;
mod users;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::app::{App, Apps};
use crate::protocol::{ChannelName, CloseReason, Frame, Member, SocketId, User, message};
use cache::Cache;
use channel::Settings;
use lock::{Lock, Rank};
use outputs::Outputs;
use users::Users;

pub use cache::cache_cost;
pub use channel::{Channel, Counts, Full};
pub use closes::Closes;
pub use cluster_queue::{BufferLimits, ClusterQueue, ClusterUpdate};
pub use event::{HubEvent, HubEventKind, Origin, Sink, Sinks};
pub use outputs::{Broadcast, ConnectionRef, Inbox, Recipients, WorkerMessage};
pub use publish::Publisher;
pub use topic::{Event, Fact, LocalState, NodeFacts, NodeId, RemoteState, Topic};

/// Shards of an application's channel registry: enough that two cores seldom meet.
const SHARDS: usize = 16;

type Shard = Lock<HashMap<ChannelName, Arc<Channel>>>;

/// All channels of all applications.
pub struct Hub {
    apps: Vec<AppState>,
    outputs: Arc<Outputs>,
    /// Notified when an inbox is down to half of what it may hold.
    freed: Arc<Notify>,
    sockets: Arc<AtomicUsize>,
    capacity: Capacity,
    hasher: RandomState,
    /// Channels whose count of subscribers was held back.
    counts_due: Lock<Vec<Arc<Channel>>>,
    closes: Closes,
}

struct AppState {
    shards: [Shard; SHARDS],
    connections: Arc<AtomicUsize>,
    users: Users,
    cache: Lock<Cache>,
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
    /// Whether other nodes have to know of the channel who did not before.
    pub is_new: bool,
}

/// What a subscriber of a cache channel is sent after its answer.
struct LastEvent {
    frame: Frame,
    /// Whether it says that there is none.
    is_miss: bool,
}

impl LastEvent {
    fn emit_miss(&self, channel: &Channel, outputs: &Outputs) {
        if self.is_miss {
            let name = channel.name();
            let kind = || HubEventKind::CacheMiss { channel: name };
            outputs.sinks.emit(channel.app(), kind);
        }
    }
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
        if let Some((app, outputs)) = &self.counted
            && let Some(queue) = &outputs.cluster_queue
        {
            queue.release(*app);
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
    /// A hub without channels for `workers` workers, without other nodes and sinks.
    pub fn new(apps: &Apps, workers: usize, capacity: Capacity) -> Self {
        Self::with_outputs(apps, workers, capacity, None, Sinks::default())
    }

    /// One that tells other nodes what they have to know, and sinks what happens.
    pub fn with_outputs(
        apps: &Apps,
        workers: usize,
        capacity: Capacity,
        cluster_queue: Option<Arc<ClusterQueue>>,
        sinks: Sinks,
    ) -> Self {
        // One for all: whoever waits for room waits for that of both.
        let queue = cluster_queue.as_ref();
        let freed = queue.map_or_else(Arc::default, |queue| Arc::clone(queue.freed()));
        let inboxes: Vec<_> = (0..workers)
            .map(|_| Arc::new(Inbox::new(capacity.inbox_bytes, Arc::clone(&freed))))
            .collect();
        let outputs = Arc::new(Outputs::new(inboxes, cluster_queue, sinks));
        let state = |app: &Arc<App>| AppState {
            shards: std::array::from_fn(|_| Lock::new(Rank::Registry, HashMap::new())),
            connections: Arc::default(),
            users: Users::new(app.index, Arc::clone(&outputs)),
            cache: Lock::new(Rank::Cache, Cache::new(app.cache.max_bytes, app.cache.ttl)),
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
            counts_due: Lock::new(Rank::CountsDue, Vec::new()),
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

    /// Whether a client may change what other nodes have to know: it has to wait while more
    /// has changed than they could be told.
    pub fn has_room_for_changes(&self) -> bool {
        let queue = self.outputs.cluster_queue.as_ref();
        self.has_room() && queue.is_none_or(|queue| queue.has_room())
    }

    /// Is done when an inbox is down to half of what it may hold. Whoever waits enables it
    /// before asking [`Self::has_room`] once more, so that nothing is missed. The same holds
    /// for [`Self::has_room_for_changes`].
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
            let shard = shard.lock();
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
        self.shard(app.index, name).lock().get(name).cloned()
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
        let mut shard = self.shard(app.index, name.as_str()).lock();
        let existing = shard.get(name).map(Arc::clone);
        let is_new = existing.is_none();
        let channel = existing.unwrap_or_else(|| self.new_channel(app, name));
        // Of one that was left and is joined again before they were told, they do not.
        let is_unmarked = is_new && self.outputs.is_unmarked(|| channel.topic());
        let joined = channel.join(connection, member, state.max_members, &self.outputs);
        let (after, welcome) = joined?;
        if is_new {
            shard.insert(name.clone(), Arc::clone(&channel));
        }
        let last_event = match welcome {
            Some(_) => self.last_event(app.index, name),
            None => None,
        };
        if let Some(last_event) = &last_event {
            last_event.emit_miss(&channel, &self.outputs);
        }
        let answers = [welcome, last_event.map(|last_event| last_event.frame)];
        drop(shard);
        if let Some(member) = member {
            state.users.join(&member.id, connection);
        }
        self.queue_count(&channel);
        Ok(Joined {
            channel,
            after,
            answers,
            is_new: is_unmarked,
        })
    }

    fn new_channel(&self, app: &App, name: &ChannelName) -> Arc<Channel> {
        let outputs = &self.outputs;
        let settings = Settings {
            counts: self.apps[app.index].counts,
            has_others: outputs.cluster_queue.is_some(),
            is_linked: outputs.is_linked(),
        };
        let (id, workers) = (outputs.next_generation(), outputs.inboxes.len());
        let channel = Channel::new(id, app.index, name.clone(), workers, settings);
        Arc::new(channel)
    }

    /// Answers a subscriber that subscribes again: in the channel's order, so that
    /// what it hears before is in the answer and what it hears after is not. False if
    /// its first answer is still to come, and answers this, too.
    pub fn answer_again(&self, channel: &Channel, to: ConnectionRef) -> bool {
        let _shard = self.shard(channel.app(), channel.name().as_str()).lock();
        let last_event = self.last_event(channel.app(), channel.name());
        let frame = last_event.as_ref().map(|last_event| &last_event.frame);
        let is_answered = channel.answer_again(to, frame, &self.outputs);
        if is_answered && let Some(last_event) = &last_event {
            last_event.emit_miss(channel, &self.outputs);
        }
        is_answered
    }

    /// Takes a subscriber away, who was `user` in a presence channel; a channel
    /// without subscribers is forgotten.
    pub fn leave(&self, channel: &Arc<Channel>, connection: ConnectionRef, user: Option<&str>) {
        let name = channel.name().as_str();
        let mut shard = self.shard(channel.app(), name).lock();
        if channel.leave(connection, user, &self.outputs) == 0 {
            shard.remove(name);
            self.outputs.mark(|| channel.topic());
        }
        drop(shard);
        if let Some(user) = user {
            self.apps[channel.app()].users.leave(user, connection.id);
        }
        self.queue_count(channel);
    }

    /// The last event of a cache channel, and how long it will be kept.
    pub fn cached(&self, app: &App, name: &ChannelName) -> Option<(Frame, Duration)> {
        self.apps[app.index].cache.lock().get(name, Instant::now())
    }

    fn last_event(&self, app: usize, name: &ChannelName) -> Option<LastEvent> {
        if !name.kind().is_cache() {
            return None;
        }
        let cached = self.apps[app].cache.lock().get(name, Instant::now());
        let is_miss = cached.is_none();
        let frame = cached.map_or_else(|| message::cache_miss(name), |(frame, _)| frame);
        Some(LastEvent { frame, is_miss })
    }

    /// A connection has signed in. Gives `success` back if it is to be sent now;
    /// otherwise it is sent once other nodes can know of the user.
    pub fn sign_in(
        self: &Arc<Self>,
        app: &App,
        connection: ConnectionRef,
        user: User,
        success: Frame,
    ) -> (SignedIn, Option<Frame>) {
        let users = &self.apps[app.index].users;
        let now = users.sign_in(&user.member.id, connection, &user.watchlist, success);
        let signed_in = SignedIn {
            hub: Arc::clone(self),
            app: app.index,
            socket: connection.id,
            user,
        };
        (signed_in, now)
    }

    /// Closes all connections of a user, signed in or in a presence channel, on all
    /// nodes. Returns how many there are here.
    pub fn terminate(&self, app: &App, user: &str) -> usize {
        self.outputs.update(|| ClusterUpdate::Terminate {
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
    pub fn send_counts(&self) {
        let due = std::mem::take(&mut *self.counts_due.lock());
        for channel in due {
            channel.send_held_back_count(&self.outputs);
            self.queue_count(&channel);
        }
    }

    /// A connection that was let in begins.
    pub fn connection_opened(&self, app: &App, socket: SocketId) {
        let kind = || HubEventKind::ConnectionOpened { socket };
        self.outputs.sinks.emit(app.index, kind);
    }

    /// A connection that was let in has ended.
    pub fn connection_closed(&self, app: &App, socket: SocketId, reason: CloseReason) {
        self.closes.count(reason);
        let kind = || HubEventKind::ConnectionClosed { socket, reason };
        self.outputs.sinks.emit(app.index, kind);
    }

    /// A subscription was refused; `reason` is what the client is told.
    pub fn subscription_refused(&self, app: &App, socket: SocketId, channel: &str, reason: &str) {
        let kind = || HubEventKind::SubscriptionRefused {
            socket,
            channel,
            reason,
        };
        self.outputs.sinks.emit(app.index, kind);
    }

    /// Why connections ended.
    pub fn closes(&self) -> &Closes {
        &self.closes
    }

    fn queue_count(&self, channel: &Arc<Channel>) {
        if channel.queue_count() {
            self.counts_due.lock().push(Arc::clone(channel));
        }
    }

    fn shard(&self, app: usize, name: &str) -> &Shard {
        let hash =
            usize::try_from(self.hasher.hash_one(name) % SHARDS as u64).expect("it is below 16");
        &self.apps[app].shards[hash]
    }
}

#[cfg(test)]
mod tests;

//! Who is subscribed to what: synchronous, in memory, without I/O.
//!
//! The hub knows, for each channel, how many subscribers each worker has; the
//! workers know which sockets those are. What has to be sent, and to whom, is
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
mod frame_log;
mod lock;
mod outputs;
mod publish;
mod reconcile;
mod remote;
mod states;
mod summary;
mod sync;
mod topic;
mod transfer;
mod unsubscribe;
mod users;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::apps::{AppHandle, AppPermit, SubscriptionRefusal};
use crate::protocol::{ChannelName, CloseReason, Frame, Member, SocketId, User};
use channel::Settings;
use lock::{Lock, Rank};
use outputs::Outputs;
use states::{AppState, AppStates};

pub use cache::cache_cost;
pub use channel::{Channel, Counts, Full};
pub use closes::Closes;
pub use cluster_queue::{BufferLimits, ClusterQueue, ClusterUpdate, Unsubscribed};
pub use event::{HubEvent, HubEventKind, Origin, Sink, Sinks};
pub use frame_log::log_sent;
pub use outputs::{Broadcast, ConnectionRef, Inbox, Recipients, Unsubscription, WorkerMessage};
pub use publish::Publisher;
pub use states::Removed;
pub use summary::{ChannelSummary, Query};
pub use topic::{Event, Fact, LocalState, NodeFacts, NodeId, RemoteState, Topic};
pub use transfer::PendingSignIn;

/// All channels of all applications.
pub struct Hub {
    states: AppStates,
    outputs: Arc<Outputs>,
    /// Notified when an inbox is down to half of what it may hold.
    freed: Arc<Notify>,
    sockets: Arc<AtomicUsize>,
    capacity: Capacity,
    /// Channels whose count of subscribers was held back.
    counts_due: Lock<Vec<Arc<Channel>>>,
    closes: Closes,
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

/// A connection's permits in its application's quota and in the process's; released
/// when dropped.
#[derive(Debug)]
pub struct Slot {
    of_app: AppPermit,
    _of_all: Permit,
    /// Set once it counts for a quota of all nodes together: they are notified when it ends.
    counted: Option<Arc<Outputs>>,
}

impl Slot {
    /// Whose connection it is.
    pub fn app(&self) -> &AppHandle {
        self.of_app.app()
    }
}

/// Why a channel cannot be joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The presence channel has all its members.
    #[error(transparent)]
    Full(#[from] Full),
    /// Its application is gone.
    #[error(transparent)]
    Removed(#[from] Removed),
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(outputs) = &self.counted
            && let Some(queue) = &outputs.cluster_queue
        {
            queue.release(self.app());
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
    state: Arc<AppState>,
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
        let user = &self.user;
        let users = &self.state.users;
        users.sign_out(&user.member.id, self.socket, &user.watchlist);
        self.hub.states.forget_if_empty(&self.state.app);
    }
}

impl Hub {
    /// A hub without channels for `workers` workers, without other nodes and sinks.
    pub fn new(workers: usize, capacity: Capacity) -> Self {
        Self::with_outputs(workers, capacity, None, Sinks::default())
    }

    /// One that sends other nodes what they have to know, and sinks what happens.
    pub fn with_outputs(
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
        Self {
            states: AppStates::default(),
            outputs,
            freed,
            sockets: Arc::default(),
            capacity,
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
    /// has changed than they could be sent.
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
    pub fn admit(&self, app: &AppHandle) -> Result<Slot, CloseReason> {
        let of_app = app.take_permit().ok_or(CloseReason::OverConnectionQuota)?;
        let of_all =
            Permit::take(&self.sockets, self.capacity.sockets).ok_or(CloseReason::OverCapacity)?;
        Ok(Slot {
            of_app,
            _of_all: of_all,
            counted: None,
        })
    }

    /// Closes all sockets of an application that its registry has no more. What it has
    /// here goes with the last of them.
    pub fn remove_app(&self, app: &AppHandle) {
        for inbox in &self.outputs.inboxes {
            inbox.push(WorkerMessage::CloseApp(app.number()));
        }
        self.states.forget_if_empty(app);
    }

    /// Applications of which something is kept; for tests that look for leaks.
    pub fn apps(&self) -> usize {
        self.states.all().len()
    }

    /// The channels of an application that have a subscriber and whose names
    /// begin with `prefix`.
    pub fn channels(&self, app: &AppHandle, prefix: &str) -> Vec<Arc<Channel>> {
        let mut found = Vec::new();
        let Some(state) = self.states.find(app) else {
            return found;
        };
        for shard in &state.shards {
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
    pub fn find(&self, app: &AppHandle, name: &str) -> Option<Arc<Channel>> {
        let state = self.states.find(app)?;
        state.shard(name).lock().get(name).cloned()
    }

    /// Whether a channel has a subscriber on this node, or this user in it.
    pub fn has(&self, app: &AppHandle, name: &ChannelName, user: Option<&str>) -> bool {
        let channel = self.find(app, name.as_str());
        channel.is_some_and(|channel| user.is_none_or(|user| channel.has_local_member(user)))
    }

    /// Adds a subscriber; `member` is who it is in a presence channel.
    pub fn subscribe(
        &self,
        app: &AppHandle,
        name: &ChannelName,
        connection: ConnectionRef,
        member: Option<&Member>,
    ) -> Result<Joined, JoinError> {
        let state = self.states.find_or_add(app, &self.outputs)?;
        // The shard stays locked so that the last subscriber's leaving cannot
        // take the channel out of the registry in between, and so that a cache
        // channel's event is either the cached one or comes later.
        let mut shard = state.shard(name.as_str()).lock();
        if app.is_removed() {
            return Err(Removed.into());
        }
        let existing = shard.get(name).map(Arc::clone);
        let is_new = existing.is_none();
        let channel = existing.unwrap_or_else(|| self.new_channel(app, name));
        // Of one that was left and is joined again before it was sent, they do not.
        let is_unmarked = is_new && self.outputs.is_unmarked(|| channel.topic());
        let joined = channel.join(connection, member, &self.outputs);
        let (after, welcome) = joined?;
        if is_new {
            shard.insert(name.clone(), Arc::clone(&channel));
        }
        let last_event = match welcome {
            Some(_) => state.last_event(name),
            None => None,
        };
        if let Some(last_event) = &last_event {
            last_event.emit(&channel, &self.outputs);
        }
        let answers = [welcome, last_event.map(|last_event| last_event.frame)];
        if let Some(member) = member {
            // Whoever knows of the member can find it.
            state.users.join(&member.id, connection);
        }
        drop(shard);
        self.queue_count(&channel);
        Ok(Joined {
            channel,
            after,
            answers,
            is_new: is_unmarked,
        })
    }

    fn new_channel(&self, app: &AppHandle, name: &ChannelName) -> Arc<Channel> {
        let outputs = &self.outputs;
        let settings = Settings {
            counts: app.settings().subscription_count,
            has_others: outputs.cluster_queue.is_some(),
            is_linked: outputs.is_linked(),
        };
        let (id, workers) = (outputs.next_generation(), outputs.inboxes.len());
        let channel = Channel::new(id, app.clone(), name.clone(), workers, settings);
        Arc::new(channel)
    }

    /// Answers a subscriber that subscribes again: in the channel's order, so that
    /// what it gets before is in the answer and what it gets after is not. False if
    /// its first answer is still to come, and answers this, too.
    pub fn answer_again(&self, channel: &Channel, to: ConnectionRef) -> bool {
        let Some(state) = self.states.find(channel.app()) else {
            return false;
        };
        let _shard = state.shard(channel.name().as_str()).lock();
        let last_event = state.last_event(channel.name());
        let frame = last_event.as_ref().map(|last_event| &last_event.frame);
        let is_answered = channel.answer_again(to, frame, &self.outputs);
        if is_answered && let Some(last_event) = &last_event {
            last_event.emit(channel, &self.outputs);
        }
        is_answered
    }

    /// Takes a subscriber away, who was `user` in a presence channel; a channel
    /// without subscribers is forgotten.
    pub fn leave(&self, channel: &Arc<Channel>, connection: ConnectionRef, user: Option<&str>) {
        let name = channel.name().as_str();
        let Some(state) = self.states.find(channel.app()) else {
            return;
        };
        let mut shard = state.shard(name).lock();
        let is_last = channel.leave(connection, user, &self.outputs) == 0;
        if is_last {
            shard.remove(name);
            self.outputs.mark(|| channel.topic());
        }
        drop(shard);
        if let Some(user) = user {
            state.users.leave(user, connection.id);
        }
        if is_last {
            self.states.forget_if_empty(channel.app());
        }
        self.queue_count(channel);
    }

    /// The last event of a cache channel, and how long it will be kept.
    pub fn cached(&self, app: &AppHandle, name: &ChannelName) -> Option<(Frame, Duration)> {
        let state = self.states.find(app)?;
        state.cache.lock().get(name, Instant::now())
    }

    /// A connection has signed in. Returns `success` if it is to be sent now;
    /// otherwise it is sent once other nodes can know of the user.
    pub fn sign_in(
        self: &Arc<Self>,
        app: &AppHandle,
        connection: ConnectionRef,
        user: User,
        success: Frame,
    ) -> Result<(SignedIn, Option<Frame>), Removed> {
        // Kept, since it may be forgotten before its lock is taken below.
        let state = self.states.find_or_add(app, &self.outputs)?.keep();
        let (id, watchlist) = (&user.member.id, &user.watchlist);
        let now = state.users.sign_in(id, connection, watchlist, success);
        let signed_in = SignedIn {
            hub: Arc::clone(self),
            state,
            socket: connection.id,
            user,
        };
        Ok((signed_in, now))
    }

    /// Closes all connections of a user, signed in or in a presence channel, on all
    /// nodes; whether clients come back is said by `reconnect`, or else by the application's
    /// settings. Returns how many there are here.
    pub fn terminate(&self, app: &AppHandle, user: &str, reconnect: Option<bool>) -> usize {
        self.outputs.update(|| ClusterUpdate::Terminate {
            app: app.clone(),
            user: user.to_owned(),
            reconnect,
        });
        self.terminate_here(app, user, reconnect)
    }

    /// Users of an application that are known of; for tests that look for leaks.
    pub fn users(&self, app: &AppHandle) -> usize {
        let state = self.states.find(app);
        state.map_or(0, |state| state.users.len())
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
    pub fn connection_opened(&self, app: &AppHandle, socket: SocketId) {
        let kind = || HubEventKind::ConnectionOpened { socket };
        self.outputs.sinks.emit(app, kind);
    }

    /// A connection that was let in has ended.
    pub fn connection_closed(&self, app: &AppHandle, socket: SocketId, reason: CloseReason) {
        self.closes.count(reason);
        let kind = || HubEventKind::ConnectionClosed { socket, reason };
        self.outputs.sinks.emit(app, kind);
    }

    /// A subscription was refused; `reason` is what the client is told.
    pub fn emit_subscription_refused(
        &self,
        app: &AppHandle,
        socket: SocketId,
        channel: &str,
        (kind, reason): (SubscriptionRefusal, &str),
    ) {
        let kind = || HubEventKind::SubscriptionRefused {
            socket,
            channel,
            kind,
            reason,
        };
        self.outputs.sinks.emit(app, kind);
    }

    /// Connections that were let in, and how many there may be.
    pub fn sockets(&self) -> (usize, usize) {
        let open = self.sockets.load(Ordering::Relaxed);
        (open, self.capacity.sockets)
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
}

#[cfg(test)]
mod tests;

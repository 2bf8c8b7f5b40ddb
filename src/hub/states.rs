//! What the hub holds for each application, found from its handle without a lock.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::{ArcSwap, Guard};

use super::cache::Cache;
use super::channel::Channel;
use super::event::HubEventKind;
use super::lock::{Lock, Rank};
use super::outputs::Outputs;
use super::users::Users;
use crate::apps::AppHandle;
use crate::protocol::{ChannelName, Frame, message};

/// Shards of an application's channels: enough that two cores seldom meet.
const SHARDS: usize = 16;

pub(super) type Shard = Lock<HashMap<ChannelName, Arc<Channel>>>;

/// The application was removed: nothing may begin in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("The application does not exist")]
pub struct Removed;

/// One application's channels, users and last events.
pub(super) struct AppState {
    pub(super) app: AppHandle,
    pub(super) shards: [Shard; SHARDS],
    hasher: RandomState,
    pub(super) users: Users,
    pub(super) cache: Lock<Cache>,
}

impl AppState {
    fn new(app: &AppHandle, outputs: &Arc<Outputs>) -> Self {
        Self {
            app: app.clone(),
            shards: std::array::from_fn(|_| Lock::new(Rank::Registry, HashMap::new())),
            hasher: RandomState::new(),
            users: Users::new(app.clone(), Arc::clone(outputs)),
            cache: Lock::new(Rank::Cache, Cache::default()),
        }
    }

    /// The shard that a channel is in, if it is there.
    pub(super) fn shard(&self, name: &str) -> &Shard {
        let hash =
            usize::try_from(self.hasher.hash_one(name) % SHARDS as u64).expect("it is below 16");
        &self.shards[hash]
    }

    /// The last event of a cache channel, or that there is none; nothing of another.
    pub(super) fn last_event(&self, name: &ChannelName) -> Option<LastEvent> {
        if !name.kind().is_cache() {
            return None;
        }
        let cached = self.cache.lock().get(name, Instant::now());
        let is_miss = cached.is_none();
        let frame = cached.map_or_else(|| message::cache_miss(name), |(frame, _)| frame);
        Some(LastEvent { frame, is_miss })
    }

    fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.lock().is_empty()) && self.users.len() == 0
    }
}

/// What a subscriber of a cache channel is sent after its answer.
pub(super) struct LastEvent {
    pub(super) frame: Frame,
    /// Whether it says that there is none.
    is_miss: bool,
}

impl LastEvent {
    /// It was sent to a subscriber.
    pub(super) fn emit(&self, channel: &Channel, outputs: &Outputs) {
        let name = channel.name();
        outputs.sinks.emit(channel.app(), || match self.is_miss {
            true => HubEventKind::CacheMiss { channel: name },
            false => HubEventKind::CacheHit { channel: name },
        });
    }
}

type List = Vec<Arc<AppState>>;

/// The states of all applications that were used and are not gone.
pub(super) struct AppStates {
    /// By [`AppHandle::number`], ascending.
    current: ArcSwap<List>,
    /// One change at a time.
    changing: Lock<()>,
}

/// An application's state, to be let go of soon.
pub(super) struct Found {
    list: Guard<Arc<List>>,
    at: usize,
}

impl Found {
    /// The same, to be kept.
    pub(super) fn keep(&self) -> Arc<AppState> {
        Arc::clone(&self.list[self.at])
    }
}

impl Deref for Found {
    type Target = AppState;

    fn deref(&self) -> &AppState {
        &self.list[self.at]
    }
}

impl Default for AppStates {
    fn default() -> Self {
        Self {
            current: ArcSwap::default(),
            changing: Lock::new(Rank::Apps, ()),
        }
    }
}

impl AppStates {
    /// The state of an application in which something has begun.
    pub(super) fn find(&self, app: &AppHandle) -> Option<Found> {
        let list = self.current.load();
        let at = position(&list, app).ok()?;
        Some(Found { list, at })
    }

    /// The state of an application in which something is to begin.
    ///
    /// # Errors
    /// If there is none any more.
    pub(super) fn find_or_add(
        &self,
        app: &AppHandle,
        outputs: &Arc<Outputs>,
    ) -> Result<Found, Removed> {
        if let Some(found) = self.find(app) {
            return Ok(found);
        }
        let changing = self.changing.lock();
        let list = self.current.load();
        if let Err(at) = position(&list, app) {
            if app.is_removed() {
                return Err(Removed);
            }
            let mut more = List::clone(&list);
            more.insert(at, Arc::new(AppState::new(app, outputs)));
            self.current.store(Arc::new(more));
        }
        drop(changing);
        self.find(app).ok_or(Removed)
    }

    /// All of them; what is added later sees all that was done before.
    pub(super) fn all(&self) -> Arc<List> {
        let _changing = self.changing.lock();
        self.current.load_full()
    }

    /// Forgets a removed application in which nothing is left.
    ///
    /// Whoever adds a channel asks under its shard's lock whether the application is
    /// removed, so nothing is added to a state that was found to be empty here.
    pub(super) fn forget_if_empty(&self, app: &AppHandle) {
        if !app.is_removed() {
            return;
        }
        let _changing = self.changing.lock();
        let list = self.current.load();
        if let Ok(at) = position(&list, app)
            && list[at].is_empty()
        {
            let mut fewer = List::clone(&list);
            fewer.remove(at);
            self.current.store(Arc::new(fewer));
        }
    }
}

fn position(list: &List, app: &AppHandle) -> Result<usize, usize> {
    list.binary_search_by_key(&app.number(), |state| state.app.number())
}

//! One application's identity.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use arc_swap::{ArcSwap, Guard};

use super::{App, Counter, Counters, Credential, PreviousCredential};

/// An application that is served, from when it is added until it is removed.
///
/// A cheap clone; equal to its clones, and to no other, whatever its id: one that is
/// removed and added again is another application.
#[derive(Clone)]
pub struct AppHandle(Arc<Inner>);

struct Inner {
    number: u32,
    id: Box<str>,
    settings: ArcSwap<App>,
    connections: AtomicUsize,
    is_removed: AtomicBool,
    counters: Counters,
}

/// A connection that counts for its application, until it is dropped.
#[derive(Debug)]
pub struct AppPermit(AppHandle);

/// The number of the next handle.
static NEXT: AtomicU32 = AtomicU32::new(1);

impl AppHandle {
    pub(super) fn new(settings: App) -> Self {
        let more = |number: u32| number.checked_add(1);
        let number = NEXT
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .expect("nobody adds four billion applications");
        Self(Arc::new(Inner {
            number,
            id: settings.id.as_str().into(),
            settings: ArcSwap::from_pointee(settings),
            connections: AtomicUsize::new(0),
            is_removed: AtomicBool::new(false),
            counters: Counters::default(),
        }))
    }

    /// [`App::id`], which never changes.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// Unique in this process, never used again, and not 0.
    pub fn number(&self) -> u32 {
        self.0.number
    }

    /// Its settings as they are now, to be let go of soon: not to be held while anything
    /// is awaited.
    pub fn settings(&self) -> Guard<Arc<App>> {
        self.0.settings.load()
    }

    /// The same, to be kept.
    pub fn snapshot(&self) -> Arc<App> {
        self.0.settings.load_full()
    }

    /// Whether the registry has it no more. Then nothing may begin in it.
    pub fn is_removed(&self) -> bool {
        self.0.is_removed.load(Ordering::Acquire)
    }

    /// Its connections in this process, whether they have joined a channel or not.
    pub fn connections(&self) -> usize {
        self.0.connections.load(Ordering::Relaxed)
    }

    /// What is counted of it, for metrics.
    pub fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// Counts something that was let in by these credentials, if one of them is to be
    /// replaced.
    pub fn count_credentials(&self, key: Credential, secret: Credential) {
        for (credential, used) in [
            (PreviousCredential::Key, key),
            (PreviousCredential::Secret, secret),
        ] {
            if used == Credential::Previous {
                self.counters().count(Counter::PreviousUsed(credential));
            }
        }
    }

    /// Counts one more connection; `None` if there are [`App::max_connections`].
    pub fn take_permit(&self) -> Option<AppPermit> {
        let max = self.settings().max_connections.unwrap_or(usize::MAX);
        let more = |count: usize| (count < max).then_some(count + 1);
        self.0
            .connections
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        Some(AppPermit(self.clone()))
    }

    pub(super) fn change(&self, settings: App) {
        self.0.settings.store(Arc::new(settings));
    }

    pub(super) fn mark_removed(&self) {
        self.0.is_removed.store(true, Ordering::Release);
    }
}

impl AppPermit {
    /// Whose connection it is.
    pub fn app(&self) -> &AppHandle {
        &self.0
    }
}

impl Drop for AppPermit {
    fn drop(&mut self) {
        self.0.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl PartialEq for AppHandle {
    fn eq(&self, other: &Self) -> bool {
        self.0.number == other.0.number
    }
}

impl Eq for AppHandle {}

impl Hash for AppHandle {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.number.hash(state);
    }
}

impl fmt::Debug for AppHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppHandle")
            .field("number", &self.0.number)
            .field("id", &self.0.id)
            .finish_non_exhaustive()
    }
}

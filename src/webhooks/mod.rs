//! Tells applications what happens (Pusher Channels, "Webhooks").
//!
//! A [`crate::hub::Sink`] puts into the `intake` which channels and users have changed, and the
//! events that are told one by one. A thread of its own takes them from there: no socket, no
//! publish and no other node waits for a receiver.
//!
//! 1. **What is so, not what was**: of a channel or user only that it has changed is kept. The
//!    thread asks the hub how it is now, so that what waits is bounded by the number of channels
//!    and users, however often they come and go.
//! 2. `smoothing`: one that is gone may come back within three seconds, as if nothing had been.
//! 3. Who was the first and who is the last is decided here, if there are no other nodes, and
//!    otherwise in Redis (`shared`), at once with putting the event into a queue there. One node
//!    reads that queue and tells for all; when it dies another one does, which also takes out
//!    what the dead one had.
//! 4. Each receiver has its own `queue`, bounded in bytes and age, and its own connections
//!    (`receiver`, `request`). Events of one channel are told in their order: the next ones wait
//!    until those before were taken.
//!
//! It is told **at least once**: an event has an id, which stays when it is told again. Nothing
//! is told of what happens while nothing in the settings asks for it.

mod event;
mod history;
mod intake;
mod queue;
mod receiver;
mod receivers;
mod request;
mod shared;
mod smoothing;
mod thread;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use crate::apps::{AppHandle, AppRegistry, Counter, WebhookLoss};
use crate::cluster::Link;
use crate::config::WebhookLimits;
use crate::hub::{Hub, NodeId, Sink};
use crate::telemetry::limit::limited;
pub use history::{Deliveries, Delivery, History};
use intake::Intake;

/// Webhooks of all applications.
#[derive(Clone)]
pub struct Webhooks {
    intake: Arc<Intake>,
    limits: Arc<ArcSwap<WebhookLimits>>,
    history: Arc<History>,
    /// Events that receivers were not told of yet, once for each receiver.
    waiting: Arc<AtomicU64>,
    /// Notified when settings have changed.
    changed: Arc<Notify>,
}

/// The thread that tells.
pub struct Running {
    stop: watch::Sender<Option<Duration>>,
    thread: Option<JoinHandle<()>>,
}

/// A link to Redis, and which node this is there.
pub type Shared = (Link, NodeId);

impl Webhooks {
    /// Webhooks that nobody tells yet.
    pub fn new(limits: &WebhookLimits) -> Self {
        Self {
            intake: Arc::new(Intake::new(limits.max_bytes)),
            limits: Arc::new(ArcSwap::from_pointee(limits.clone())),
            history: Arc::default(),
            waiting: Arc::default(),
            changed: Arc::default(),
        }
    }

    /// What the hub has to tell.
    pub fn sink(&self) -> Arc<dyn Sink> {
        Arc::clone(&self.intake) as Arc<dyn Sink>
    }

    /// Goes by these from now on; those of applications are with the applications.
    pub fn change(&self, limits: &WebhookLimits) {
        self.limits.store(Arc::new(limits.clone()));
        self.look_at_settings();
    }

    /// Applications have other settings.
    pub fn look_at_settings(&self) {
        self.changed.notify_one();
    }

    /// Events that receivers were not told of yet, once for each receiver.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// The deliveries of late.
    pub fn history(&self) -> &Arc<History> {
        &self.history
    }

    /// Starts telling; `shared` if there may be other nodes.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn start(
        &self,
        hub: &Arc<Hub>,
        apps: &Arc<AppRegistry>,
        shared: Option<Shared>,
    ) -> io::Result<Running> {
        let (stop, stopped) = watch::channel(None);
        let parts = thread::Parts {
            webhooks: self.clone(),
            hub: Arc::clone(hub),
            apps: Arc::clone(apps),
            stopped,
        };
        let thread = thread::spawn(parts, shared)?;
        Ok(Running {
            stop,
            thread: Some(thread),
        })
    }
}

impl Running {
    /// Tells what is left, for so long at most, and ends. What could not be told is counted and
    /// logged; with other nodes, one of them tells it. Blocks.
    pub fn stop(mut self, time: Duration) {
        self.stop.send_replace(Some(time));
        self.join();
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // It has panicked, and said so.
            let _ = thread.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.send_replace(Some(Duration::ZERO));
        self.join();
    }
}

/// So many events are lost before they were any receiver's.
fn lost(app: &AppHandle, events: usize, why: WebhookLoss) {
    let counter = Counter::WebhookEventsLost(why);
    app.counters().add(counter, events as u64);
    let (text, reason) = ("events for webhooks are lost", why.label());
    limited!(warn, text, Some(app.id()), { events, reason, }, text);
}

//! The thread that tells: an explicit loop over all that can happen.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};

use super::Webhooks;
use super::event::{Event, OF_CHANNELS, OF_MEMBERS, Topic};
use super::intake::{Intake, Item};
use super::receivers::Receivers;
use super::shared::{Record, Shared, Surroundings};
use super::smoothing::Smoothing;
use crate::apps::{self, AppHandle, AppRegistry, WebhookKind, WebhookLoss};
use crate::config::WebhookLimits;
use crate::hub::Hub;

/// How long what is said gathers: whoever says it wakes nobody meanwhile.
const GATHER: Duration = Duration::from_millis(5);

/// How often other nodes' events are looked for.
const LOOK: Duration = Duration::from_millis(50);

/// How often it is looked around if nothing happens.
const IDLE: Duration = Duration::from_secs(1);

/// How much less of a core it gets than others, where there is not enough: a tenth.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// Items after which receivers have their turn.
const MAX_ITEMS: usize = 1000;

/// What the thread is made of.
pub(super) struct Parts {
    pub(super) webhooks: Webhooks,
    pub(super) hub: Arc<Hub>,
    pub(super) apps: Arc<AppRegistry>,
    /// Says how long what is left may take.
    pub(super) stopped: watch::Receiver<Option<Duration>>,
}

pub(super) fn spawn(parts: Parts, shared: Option<super::Shared>) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::Builder::new()
        .name("webhooks".to_owned())
        .spawn(move || {
            give_way();
            let _closing = CloseOnDrop(Arc::clone(&parts.webhooks.intake));
            runtime.block_on(Teller::new(parts, shared).run());
            // A name may be looked up for longer than anybody waits.
            runtime.shutdown_background();
        })
}

/// Whoever shares a core with this thread has the core first: receivers can wait, sockets not.
fn give_way() {
    // Of a thread, which it is on Linux only; best effort.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(NICE);
}

/// However the thread ends, nothing more waits for it.
struct CloseOnDrop(Arc<Intake>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
        if thread::panicking() {
            tracing::error!("webhooks have failed, and tell nobody any more");
        }
    }
}

struct Teller {
    parts: Parts,
    smoothing: Smoothing,
    receivers: Receivers,
    shared: Option<Shared>,
    /// The webhooks of each application as they were looked at last.
    known: HashMap<AppHandle, apps::Webhooks>,
}

impl Teller {
    fn new(parts: Parts, shared: Option<super::Shared>) -> Self {
        let webhooks = &parts.webhooks;
        Self {
            smoothing: Smoothing::default(),
            receivers: Receivers::new(webhooks),
            shared: shared.map(|shared| Shared::new(shared, &webhooks.intake)),
            known: HashMap::new(),
            parts,
        }
    }

    async fn run(mut self) {
        self.look_at_settings();
        let intake = Arc::clone(&self.parts.webhooks.intake);
        let changed = Arc::clone(&self.parts.webhooks.changed);
        let mut stopped = self.parts.stopped.clone();
        loop {
            let due = self.next_due();
            tokio::select! {
                () = intake.woken() => sleep(GATHER).await,
                () = changed.notified() => self.look_at_settings(),
                () = sleep_until(due.into()) => {}
                _ = stopped.wait_for(Option::is_some) => break,
            }
            if self.has_other_settings() {
                self.look_at_settings();
            }
            let limits = self.parts.webhooks.limits.load_full();
            self.take(&limits).await;
            // What was not carried out then is, or is compared, later.
            tokio::select! {
                () = self.share(&limits) => {}
                _ = stopped.wait_for(Option::is_some) => break,
            }
        }
        let time = stopped.borrow().unwrap_or_default();
        self.end(Instant::now() + time).await;
    }

    fn next_due(&self) -> Instant {
        let now = Instant::now();
        let idle = if self.shared.is_some() && !self.known.is_empty() {
            LOOK
        } else {
            IDLE
        };
        let due = self.smoothing.next_due().unwrap_or(now + idle);
        due.min(now + idle)
    }

    /// Looks at what was said, and at who is gone for long enough.
    async fn take(&mut self, limits: &WebhookLimits) {
        let items = self.parts.webhooks.intake.take();
        // One time for all, so that users leave before their channel does.
        let now = Instant::now();
        for (at, item) in items.into_iter().enumerate() {
            match item {
                Item::Topic(topic, has_come) => self.look_at(&topic, has_come, now, limits),
                Item::Event(event) => self.tell(event, limits),
                Item::Count(event, count) => self.tell_count(event, count, limits),
            }
            if at % MAX_ITEMS == MAX_ITEMS - 1 {
                tokio::task::yield_now().await;
            }
        }
        let now = Instant::now();
        while let Some(topic) = self.smoothing.next_gone(now) {
            self.change(&topic, false, limits);
        }
    }

    /// The hub knows whether it is there; it may have come and gone again.
    fn look_at(&mut self, topic: &Topic, has_come: bool, now: Instant, limits: &WebhookLimits) {
        let Topic { app, channel, user } = topic;
        // It was marked before settings were read anew.
        if !app
            .settings()
            .webhooks
            .want(topic.kinds(), channel.as_str())
        {
            return;
        }
        let is_there = self.parts.hub.has(app, channel, user.as_deref());
        let smoothing = limits.smoothing;
        if (is_there || has_come) && self.smoothing.update(topic, true, now, smoothing) {
            self.change(topic, true, limits);
        }
        if !is_there {
            self.smoothing.update(topic, false, now, smoothing);
        }
    }

    /// A topic has come to this node, or is gone from it.
    fn change(&mut self, topic: &Topic, is_there: bool, limits: &WebhookLimits) {
        let id = self.parts.webhooks.intake.next_id();
        match &mut self.shared {
            Some(shared) => shared.add(Record::topic(topic, is_there, id), limits),
            None => self.receivers.tell(topic.event(is_there, id)),
        }
    }

    fn tell(&mut self, event: Event, limits: &WebhookLimits) {
        match &mut self.shared {
            Some(shared) => shared.add(Record::tell(&event), limits),
            None => self.receivers.tell(event),
        }
    }

    fn tell_count(&mut self, event: Event, count: usize, limits: &WebhookLimits) {
        match &mut self.shared {
            Some(shared) => shared.add(Record::count(&event, count), limits),
            None => self.receivers.tell(event),
        }
    }

    async fn share(&mut self, limits: &WebhookLimits) {
        if let Some(shared) = &mut self.shared {
            let mut around = Surroundings {
                apps: &self.parts.apps,
                smoothing: &self.smoothing,
                receivers: &mut self.receivers,
                limits,
            };
            shared.step(&mut around).await;
        }
    }

    /// Whether an application has other webhooks than when they were looked at.
    fn has_other_settings(&self) -> bool {
        self.parts.apps.all().iter().any(|app| {
            let settings = app.settings();
            let is_same = |known: &apps::Webhooks| known.is_same(&settings.webhooks);
            match self.known.get(app) {
                Some(known) => !is_same(known),
                None => !settings.webhooks.is_empty(),
            }
        })
    }

    /// Settings may have changed: receivers go by them, and of applications that want to know
    /// something else, all that is there is looked at, and what nobody wants to know is forgotten.
    fn look_at_settings(&mut self) {
        let intake = Arc::clone(&self.parts.webhooks.intake);
        let limits = self.parts.webhooks.limits.load_full();
        intake.set_max_bytes(limits.max_bytes);
        self.receivers.change();
        let mut known = HashMap::new();
        for app in self.parts.apps.all().iter() {
            let webhooks = app.settings().webhooks.clone();
            if self.known.get(app).unwrap_or(&apps::Webhooks::default()) != &webhooks {
                mark_all(&self.parts, app, &webhooks);
            }
            if !webhooks.is_empty() {
                known.insert(app.clone(), webhooks);
            }
        }
        let is_wanted = |topic: &Topic| {
            let webhooks = known.get(&topic.app);
            webhooks.is_some_and(|webhooks: &apps::Webhooks| {
                webhooks.want(topic.kinds(), topic.channel.as_str())
            })
        };
        let topics = self.smoothing.topics();
        let unwanted: Vec<Topic> = topics.filter(|topic| !is_wanted(topic)).cloned().collect();
        for topic in unwanted {
            self.smoothing.forget(&topic);
            if let Some(shared) = &mut self.shared {
                shared.add(Record::forget(&topic), &limits);
            }
        }
        // Those that are known may have gone while nobody wanted to know.
        let again = self.smoothing.topics().cloned().collect::<Vec<_>>();
        again
            .into_iter()
            .for_each(|topic| intake.mark(topic, false));
        let wants_times = |it: &apps::Webhooks| it.kinds().has(WebhookKind::ConnectionClosed);
        let did_want = |(app, before): (&AppHandle, &apps::Webhooks)| {
            wants_times(before) && !known.get(app).is_some_and(wants_times)
        };
        // Those of others begin anew; without it, nobody would take out what is left.
        if self.known.iter().any(did_want) {
            intake.forget_opened();
        }
        self.known = known;
    }

    /// Tells what is left. Who has left without coming back is gone; with other nodes, clients
    /// may have come back there, and one of those nodes finds out.
    async fn end(mut self, deadline: Instant) {
        let limits = self.parts.webhooks.limits.load_full();
        if self.shared.is_none() {
            self.take(&limits).await;
            self.smoothing.end(Instant::now());
        }
        self.take(&limits).await;
        match &mut self.shared {
            Some(shared) => shared.stop(self.receivers, deadline).await,
            None => {
                let ended = self.receivers.end(deadline).await;
                ended.give_up(Some(WebhookLoss::Stopped));
            }
        }
    }
}

/// Has all that is there in an application looked at, as far as it wants to know of it.
fn mark_all(parts: &Parts, app: &AppHandle, webhooks: &apps::Webhooks) {
    let intake = &parts.webhooks.intake;
    for channel in parts.hub.channels(app, "") {
        let name = channel.name();
        let topic = |user| Topic {
            app: app.clone(),
            channel: name.clone(),
            user,
        };
        if webhooks.want(&OF_CHANNELS, name.as_str()) {
            intake.mark(topic(None), false);
        }
        if name.kind().is_presence() && webhooks.want(&OF_MEMBERS, name.as_str()) {
            for user in channel.summary(true).users {
                intake.mark(topic(Some(user.into())), false);
            }
        }
    }
}

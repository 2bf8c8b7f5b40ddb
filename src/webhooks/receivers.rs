//! All receivers, and who of them is told of what.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinHandle;
use tokio::time::timeout_at;

use super::Webhooks;
use super::event::Event;
use super::receiver::Receiver;
use crate::apps::{AppHandle, Webhook, WebhookLoss};

/// The receivers of all applications that have been told of something.
pub(super) struct Receivers {
    by_app: HashMap<AppHandle, Vec<Told>>,
    webhooks: Webhooks,
}

struct Told {
    receiver: Arc<Receiver>,
    task: JoinHandle<()>,
}

impl Receivers {
    pub(super) fn new(webhooks: &Webhooks) -> Self {
        Self {
            by_app: HashMap::new(),
            webhooks: webhooks.clone(),
        }
    }

    /// Has everybody told who wants to be.
    pub(super) fn tell(&mut self, event: Event) {
        let event = Arc::new(event);
        let settings = event.app.settings();
        for webhook in settings.webhooks.iter() {
            if webhook.wants(event.kind, event.channel()) {
                self.receiver(&event.app, webhook).push(Arc::clone(&event));
            }
        }
    }

    fn receiver(&mut self, app: &AppHandle, webhook: &Arc<Webhook>) -> &Receiver {
        if !self.by_app.contains_key(app) {
            self.by_app.insert(app.clone(), Vec::new());
        }
        let all = self.by_app.get_mut(app).expect("it was put there");
        let is_same = |told: &Told| Arc::ptr_eq(&told.receiver.webhook, webhook);
        // A reload makes others of the same.
        let is_equal = |told: &Told| *told.receiver.webhook == **webhook;
        let at = all.iter().position(is_same);
        let at = at.or_else(|| all.iter().position(is_equal));
        let at = at.unwrap_or_else(|| {
            let receiver = Arc::new(Receiver::new(app, webhook, &self.webhooks));
            let running = Arc::clone(&receiver);
            let task = tokio::spawn(async move { running.run().await });
            all.push(Told { receiver, task });
            all.len() - 1
        });
        &all[at].receiver
    }

    /// Gives up those that no settings name any more.
    pub(super) fn forget_unnamed(&mut self) {
        for (app, all) in &mut self.by_app {
            let settings = app.settings();
            let is_named = |told: &Told| {
                let mut named = settings.webhooks.iter();
                named.any(|webhook| **webhook == *told.receiver.webhook)
            };
            all.retain(|told| {
                let is_named = is_named(told);
                if !is_named {
                    told.give_up();
                }
                is_named
            });
        }
        self.by_app.retain(|_, all| !all.is_empty());
    }

    /// Somebody else tells for an application.
    pub(super) fn clear(&mut self, app: &AppHandle) {
        for told in self.by_app.get(app).into_iter().flatten() {
            told.receiver.clear();
        }
    }

    /// Tells what waits, until then; what is left is lost.
    pub(super) async fn end(self, deadline: Instant, why: Option<WebhookLoss>) {
        let mut all: Vec<Told> = self.by_app.into_values().flatten().collect();
        all.iter().for_each(|told| told.receiver.end());
        for told in &mut all {
            // It has ended, or is ended.
            let _ = timeout_at(deadline.into(), &mut told.task).await;
            told.task.abort();
            let left = told.receiver.waiting();
            if left > 0
                && let Some(why) = why
            {
                told.receiver
                    .lose(usize::try_from(left).unwrap_or(usize::MAX), why);
            }
        }
    }
}

impl Told {
    /// Ends it, whatever it was not told of.
    fn give_up(&self) {
        self.task.abort();
        let left = usize::try_from(self.receiver.waiting()).unwrap_or(usize::MAX);
        if left > 0 {
            self.receiver.lose(left, WebhookLoss::Stopped);
        }
    }
}

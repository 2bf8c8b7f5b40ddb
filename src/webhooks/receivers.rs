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
        // Nobody is told of what becomes of the rest of one that is gone.
        if event.app.is_removed() {
            return;
        }
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
        let is_same = |told: &Told| Arc::ptr_eq(&told.receiver.webhook(), webhook);
        // Settings may have been read anew just now.
        let is_equal = |told: &Told| **told.receiver.webhook() == **webhook;
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

    /// Settings have changed: a receiver with the same URL goes on with what waits for it, and
    /// one that nobody names any more is given up.
    pub(super) fn change(&mut self) {
        for (app, all) in &mut self.by_app {
            let settings = app.settings();
            let is_served = !app.is_removed();
            let mut named: Vec<_> = settings.webhooks.iter().filter(|_| is_served).collect();
            // The most alike first, so that none takes the place of another with its URL.
            let alike: [fn(&Webhook, &Webhook) -> bool; 3] = [
                |a, b| a == b,
                |a, b| a.url == b.url && a.kinds == b.kinds && a.channels == b.channels,
                |a, b| a.url == b.url,
            ];
            let mut is_kept = vec![false; all.len()];
            for is_alike in alike {
                for (told, is_kept) in all.iter().zip(&mut is_kept).filter(|(_, kept)| !**kept) {
                    let webhook = told.receiver.webhook();
                    if let Some(at) = named.iter().position(|it| is_alike(it, &webhook)) {
                        told.receiver.change(named.remove(at));
                        *is_kept = true;
                    }
                }
            }
            let mut is_kept = is_kept.into_iter();
            all.retain(|told| {
                let is_kept = is_kept.next().unwrap_or_default();
                if !is_kept {
                    told.give_up(Some(WebhookLoss::Stopped));
                }
                is_kept
            });
        }
        self.by_app.retain(|_, all| !all.is_empty());
    }

    /// Somebody else tells for an application.
    pub(super) fn hand_over(&mut self, app: &AppHandle) {
        for told in self.by_app.get(app).into_iter().flatten() {
            told.receiver.hand_over();
        }
    }

    /// Tells what waits, until then. What is left stays until it is given up.
    pub(super) async fn end(self, deadline: Instant) -> Ended {
        let mut all: Vec<Told> = self.by_app.into_values().flatten().collect();
        all.iter().for_each(|told| told.receiver.end());
        for told in &mut all {
            // It has ended, or goes on until it is given up.
            let _ = timeout_at(deadline.into(), &mut told.task).await;
        }
        Ended(all)
    }
}

/// Receivers that are told nothing more, and what they were not told of.
pub(super) struct Ended(Vec<Told>);

impl Ended {
    /// Gives up what is left, which is lost if there is a reason why.
    pub(super) fn give_up(self, why: Option<WebhookLoss>) {
        self.0.iter().for_each(|told| told.give_up(why));
    }
}

impl Told {
    fn give_up(&self, why: Option<WebhookLoss>) {
        self.task.abort();
        let left = usize::try_from(self.receiver.waiting()).unwrap_or(usize::MAX);
        if let Some(why) = why
            && left > 0
        {
            self.receiver.lose(left, why);
        }
    }
}

//! Takes nodes that are gone out of what is known of channels and users.

use std::collections::HashSet;
use std::time::Instant;

use super::{Record, Shared, Surroundings, record, users_first};
use crate::apps::AppHandle;
use crate::cluster::LinkError;
use crate::hub::NodeId;
use crate::webhooks::event::Topic;

impl Shared {
    /// Looks for nodes that are gone, and takes out those that are for long enough.
    pub(super) async fn reap(
        &mut self,
        apps: &[AppHandle],
        around: &Surroundings<'_>,
    ) -> Result<(), LinkError> {
        let alive: HashSet<NodeId> = self.link.nodes().await?.into_iter().collect();
        // Who is not known to be alive itself does not judge others.
        if !alive.contains(&self.node) {
            return Ok(());
        }
        let (now, smoothing) = (Instant::now(), around.limits.smoothing);
        self.gone.retain(|(_, node), _| !alive.contains(node));
        for app in apps {
            let keys = self.keys(app, self.node);
            let known = self.members(&keys.present, &keys.nodes).await?;
            let known = known
                .iter()
                .filter_map(|node| u64::from_str_radix(node, 16).ok());
            let known: Vec<NodeId> = known.map(NodeId).collect();
            if !known.contains(&self.node) {
                // It was taken for gone, or Redis has lost it.
                self.is_synced = false;
            }
            for node in known {
                if alive.contains(&node) {
                    continue;
                }
                let key = (app.clone(), node);
                let since = *self.gone.entry(key.clone()).or_insert(now);
                if now.duration_since(since) >= smoothing {
                    self.take_out(app, node).await?;
                    self.gone.remove(&key);
                }
            }
        }
        Ok(())
    }

    /// Takes a node out of all that it had of an application.
    async fn take_out(&mut self, app: &AppHandle, node: NodeId) -> Result<(), LinkError> {
        let keys = self.keys(app, node);
        let texts = self.members(&keys.present, &keys.own).await?;
        let topics: Vec<Topic> = texts
            .iter()
            .filter_map(|it| Topic::of_text(app, it))
            .collect();
        // Users leave before their channel is vacated.
        let leave = |topic| Record::topic(topic, false, self.intake.next_id());
        let records: Vec<Record> = users_first(&topics).map(leave).collect();
        self.send(app, node, &records).await?;
        let forget = record::forget_node(&keys, node);
        self.link.run(&keys.present, vec![forget]).await?;
        if !topics.is_empty() {
            tracing::info!(app = app.id(), %node, topics = topics.len(), "webhooks tell what a node had that is gone");
        }
        Ok(())
    }
}

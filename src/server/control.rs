//! What can be changed while the server runs.

use std::sync::Arc;

use crate::apps::{App, AppRegistry, Changes, DuplicateApp};
use crate::hub::Hub;
use crate::lifecycle::Lifecycle;

/// A hold on a server, which outlives [`super::Server::run`].
#[derive(Clone)]
pub struct Control {
    pub(super) apps: Arc<AppRegistry>,
    pub(super) hub: Arc<Hub>,
    pub(super) lifecycle: Lifecycle,
}

impl Control {
    /// The applications that are served.
    pub fn apps(&self) -> &Arc<AppRegistry> {
        &self.apps
    }

    /// How far the server's life has got, to have it drain or stop. The link to other
    /// nodes outlasts it, until all connections are closed and that is sent.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// Makes these the applications that are served. The sockets of those that are served
    /// no more are closed with 4001, within about a second; [`App`] says for whom the
    /// changed settings of the others hold.
    ///
    /// # Errors
    /// If two of them have the same id or key. Then nothing is changed.
    pub fn apply_apps(&self, apps: Vec<App>) -> Result<Changes, DuplicateApp> {
        let changes = self.apps.apply(apps)?;
        for app in &changes.removed {
            self.hub.remove_app(app);
        }
        tracing::info!(
            added = changes.added.len(),
            changed = changes.changed.len(),
            removed = changes.removed.len(),
            "applications changed"
        );
        Ok(changes)
    }
}

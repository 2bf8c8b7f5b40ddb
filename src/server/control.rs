//! What can be changed while the server runs.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::settings::{self, Settings};
use super::tls::TicketKeys;
use super::{Shared, StartError, listener};
use crate::apps::{App, AppRegistry, Changes, DuplicateApp};
use crate::cluster::Node;
use crate::config::{Config, Drain};
use crate::hub::Hub;
use crate::lifecycle::Lifecycle;
use crate::webhooks::Webhooks;
use crate::worker::{ConnectionPermits, Limits};

/// Over how long sockets are closed if nothing was said and there is another node.
const SPREAD: Duration = Duration::from_secs(4);

/// How long, with pause, spread and all, a drain of which nothing was said takes: Supervisor
/// and container engines kill after ten seconds.
const MAX_UNSAID: Duration = Duration::from_secs(8);

/// Of that, what the link to other nodes may take to say that this one goes.
pub(super) const LINK_STOP: Duration = Duration::from_secs(1);

/// A hold on a server, which outlives [`super::Server::run`].
#[derive(Clone)]
pub struct Control {
    pub(super) shared: Arc<Shared>,
    pub(super) hub: Arc<Hub>,
    pub(super) lifecycle: Lifecycle,
    pub(super) limits: Arc<ArcSwap<Limits>>,
    pub(super) permits: Arc<ConnectionPermits>,
    pub(super) webhooks: Webhooks,
    /// Whether clients have somewhere else to go when it drains.
    pub(super) has_others: bool,
    /// What a drain leaves of the time that sockets have to close.
    pub(super) max_grace: Arc<OnceLock<Duration>>,
}

impl Control {
    /// The applications that are served.
    pub fn apps(&self) -> &Arc<AppRegistry> {
        &self.shared.apps
    }

    /// How far the server's life has got, to have it drain or stop. The link to other
    /// nodes outlasts it, until all connections are closed and that is sent.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// Whether it is ready, and what `/ready` says.
    pub(super) fn health(&self) -> (bool, serde_json::Value) {
        self.shared.health.readiness()
    }

    /// How it stands, in a few words.
    pub(super) fn in_words(&self) -> String {
        self.shared.health.in_words()
    }

    /// Has it end as its settings say: after a drain, or at once. Returns how long the drain
    /// takes; zero for none.
    pub fn end(&self) -> Duration {
        let drain = self.shared.settings.load().drain;
        let Some((pause, spread)) = plan(drain, self.has_others) else {
            self.lifecycle.stop();
            return Duration::ZERO;
        };
        if drain.spread.is_none() {
            let left = MAX_UNSAID.saturating_sub(pause + spread + LINK_STOP);
            self.max_grace.get_or_init(|| left);
            self.limits.rcu(|limits| self.shortened(**limits));
        }
        let begin = Instant::now() + pause;
        self.lifecycle.drain(begin, begin + spread);
        pause + spread
    }

    /// Limits with what a drain has made of them.
    fn shortened(&self, limits: Limits) -> Limits {
        let max = self.max_grace.get().copied().unwrap_or(Duration::MAX);
        Limits {
            shutdown_grace: limits.shutdown_grace.min(max),
            ..limits
        }
    }

    /// The server's own keys of session tickets, for a successor: its clients come back
    /// quickly then. They are secret.
    pub fn ticket_keys(&self) -> TicketKeys {
        self.shared.tls.ticket_keys()
    }

    /// Goes on with the keys of a predecessor.
    pub fn set_ticket_keys(&self, keys: TicketKeys) {
        self.shared.tls.set_ticket_keys(keys);
    }

    /// Makes these the applications that are served. The sockets of those that are served
    /// no more are closed with 4001, within about a second; [`App`] says for whom the
    /// changed settings of the others hold.
    ///
    /// # Errors
    /// If two of them have the same id or key. Then nothing is changed.
    pub fn apply_apps(&self, apps: Vec<App>) -> Result<Changes, DuplicateApp> {
        let changes = self.shared.apps.apply(apps)?;
        for app in &changes.removed {
            self.hub.remove_app(app);
        }
        self.webhooks.look_at_settings();
        let (added, changed) = (changes.added.len(), changes.changed.len());
        let removed = changes.removed.len();
        if added + changed + removed > 0 {
            tracing::info!(added, changed, removed, "applications changed");
        }
        Ok(changes)
    }

    /// Goes by this configuration from now on, but for what needs a restart
    /// ([`crate::config::Effective::needs_restart`]). Returns what became of the
    /// applications, and warnings.
    ///
    /// # Errors
    /// If a certificate cannot be used, or two applications cannot be told apart, or if a
    /// server that is started with it would refuse it. Then nothing is changed.
    pub fn apply(&self, config: &Config) -> Result<(Changes, Vec<String>), StartError> {
        let server = &config.server;
        // What the next start would refuse is refused now.
        config.scaling.as_ref().map(Node::new).transpose()?;
        let socket = server.socket.as_ref();
        socket.map(listener::check_group).transpose()?;
        let tls = &self.shared.tls;
        let loaded = server.tls.as_ref().map(|files| tls.load(files));
        let loaded = loaded.transpose()?;
        let changes = self.apply_apps(config.apps.clone())?;
        self.webhooks.change(&config.webhooks);
        let warnings = tls.go_on_with(loaded);
        let services = (&self.shared.apps, &self.shared.broker);
        let before = self.shared.settings.load_full();
        let settings = Settings::new(server, services).with_state_of(&before);
        self.shared.settings.store(Arc::new(settings));
        let limits = self.shortened(settings::limits(server));
        self.limits.store(Arc::new(limits));
        self.permits.set_max_per_address(
            server.max_connections_per_address,
            server.proxies.trusted.clone(),
        );
        Ok((changes, warnings))
    }
}

/// The pause before sockets are closed, and over how long they are; `None` to close all at
/// once.
fn plan(drain: Drain, has_others: bool) -> Option<(Duration, Duration)> {
    let (pause, spread) = match drain.spread {
        Some(spread) => (drain.pause, spread),
        None if has_others => {
            let pause = drain.pause.min(MAX_UNSAID.saturating_sub(SPREAD));
            (pause, SPREAD)
        }
        None => return None,
    };
    (!spread.is_zero()).then_some((pause, spread))
}

#[cfg(test)]
mod tests {
    use super::super::Server;
    use super::*;
    use crate::config::Sources;

    #[test]
    fn a_reload_does_not_lengthen_a_drain_that_has_begun() {
        let said = [
            ("REVERB_APP_ID", "1"),
            ("REVERB_APP_KEY", "k"),
            ("REVERB_APP_SECRET", "s"),
            ("REVERB_SERVER_HOST", "127.0.0.1"),
            ("REVERB_SERVER_PORT", "0"),
            ("RESOUND_METRICS_PORT", "off"),
        ];
        let sources = Sources {
            environment: said.map(|(name, value)| (name.into(), value.into())).into(),
            ..Sources::default()
        };
        let config = Config::load(&sources).unwrap();
        let server = Server::bind(&config, false).unwrap();
        let control = Control {
            has_others: true,
            ..server.control()
        };
        let grace = || control.limits.load().shutdown_grace;
        assert_eq!(grace(), config.server.shutdown_grace);
        let left = MAX_UNSAID - control.end() - LINK_STOP;
        assert!(left < config.server.shutdown_grace);
        assert_eq!(grace(), left);
        control.apply(&config).unwrap();
        assert_eq!(grace(), left);
    }

    #[test]
    fn a_server_drains_if_there_are_others_or_if_it_was_said() {
        let seconds = Duration::from_secs;
        let drain = |spread: Option<u64>, pause| Drain {
            spread: spread.map(seconds),
            pause: seconds(pause),
        };
        for (drain, has_others, expected) in [
            (drain(None, 2), false, None),
            (drain(None, 2), true, Some((seconds(2), seconds(4)))),
            (drain(None, 60), true, Some((seconds(4), seconds(4)))),
            (drain(Some(0), 2), true, None),
            (drain(Some(30), 5), false, Some((seconds(5), seconds(30)))),
        ] {
            assert_eq!(plan(drain, has_others), expected, "{drain:?} {has_others}");
        }
    }
}

//! Keeping systemd informed while the server runs.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::health::Health;
use crate::lifecycle::State;
use crate::systemd;

/// How often it is told how many connections there are.
const STATUS_EVERY: Duration = Duration::from_secs(10);

impl Health {
    /// In a few words, for `systemctl status`.
    pub(super) fn in_words(&self) -> String {
        let apps = self.apps.all();
        let connections: usize = apps.iter().map(|app| app.connections()).sum();
        let state = match self.lifecycle.state() {
            State::Running => "serving",
            State::Draining { .. } => "draining",
            State::Stopping => "stopping",
        };
        format!(
            "{state}: {connections} connections, {} applications",
            apps.len()
        )
    }
}

/// Says that the server is ready, then how it stands, and that it is alive as long as every
/// worker is. Never done.
pub(super) async fn report(health: &Health) {
    if !systemd::is_notified() {
        return std::future::pending().await;
    }
    systemd::started(&health.in_words());
    // Half of the time, as sd_watchdog_enabled(3) has it.
    let alive_every = systemd::watchdog().map(|time| time / 2);
    let begin = Instant::now();
    let (mut next_status, mut next_alive) = (begin + STATUS_EVERY, begin);
    loop {
        let now = Instant::now();
        if let Some(every) = alive_every
            && next_alive <= now
        {
            let patience = every.min(Duration::from_secs(1));
            if health.liveness.silent(patience).await.is_empty() {
                systemd::alive();
            } else {
                tracing::error!(
                    "a worker does not turn: systemd's watchdog is not told that all is well"
                );
            }
            next_alive = now + every;
        }
        if next_status <= now {
            systemd::status(&health.in_words());
            next_status = now + STATUS_EVERY;
        }
        let next = match alive_every {
            Some(_) => next_status.min(next_alive),
            None => next_status,
        };
        sleep_until(next).await;
    }
}

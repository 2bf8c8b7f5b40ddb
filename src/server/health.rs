//! Whether the server lives, is ready, and is up.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::api::{Reply, json_with};
use crate::apps::AppRegistry;
use crate::broker::Broker;
use crate::lifecycle::{Lifecycle, State};
use crate::worker::Liveness;

/// How long a worker may take to answer.
const MAX_TURN: Duration = Duration::from_secs(1);

/// What the answers are made of.
#[derive(Clone)]
pub(super) struct Health {
    pub(super) apps: Arc<AppRegistry>,
    pub(super) broker: Broker,
    pub(super) lifecycle: Lifecycle,
    pub(super) liveness: Arc<Liveness>,
    pub(super) started: Instant,
    /// The same, for others.
    pub(super) started_at: SystemTime,
}

impl Health {
    /// Whether clients may be sent here: also without Redis, but not once it is to end.
    pub(super) fn up(&self) -> Reply {
        if self.lifecycle.state() != State::Running {
            json_with(StatusCode::SERVICE_UNAVAILABLE, r#"{"health":"DRAINING"}"#)
        } else {
            json_with(StatusCode::OK, r#"{"health":"OK"}"#)
        }
    }

    /// Whether it is to get clients, and how it stands.
    pub(super) fn ready(&self) -> Reply {
        let (is_ready, body) = self.readiness();
        answer(is_ready, &body)
    }

    /// The same as a document.
    pub(super) fn readiness(&self) -> (bool, Value) {
        let state = self.lifecycle.state();
        let (is_ready, mut body) = self.broker.readiness();
        let is_ready = is_ready && state == State::Running;
        let apps = self.apps.all();
        let connections: usize = apps.iter().map(|app| app.connections()).sum();
        body["ready"] = is_ready.into();
        body["version"] = env!("CARGO_PKG_VERSION").into();
        body["uptime"] = self.started.elapsed().as_secs().into();
        body["connections"] = connections.into();
        body["lifecycle"] = match state {
            State::Running => "running",
            State::Draining { .. } => "draining",
            State::Stopping => "stopping",
        }
        .into();
        (is_ready, body)
    }

    /// Whether every worker's event loop turns; if not, which ones do not.
    pub(super) async fn live(&self) -> Reply {
        // Those that have nothing left to close end before the others.
        let silent = if self.lifecycle.is_stopping() {
            Vec::new()
        } else {
            self.liveness.silent(MAX_TURN).await
        };
        let body = if silent.is_empty() {
            json!({ "live": true })
        } else {
            json!({ "live": false, "silent_workers": silent })
        };
        answer(silent.is_empty(), &body)
    }
}

fn answer(is_fine: bool, body: &Value) -> Reply {
    let status = if is_fine {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    json_with(status, body.to_string())
}

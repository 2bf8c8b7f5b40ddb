//! What a running server goes by and can be given anew as a whole.

use std::sync::Arc;
use std::time::Duration;

use crate::api::{Api, IdempotencyLimits};
use crate::apps::AppRegistry;
use crate::broker::Broker;
use crate::config::{self, Drain};
use crate::proxies::Proxies;
use crate::worker::Limits;
use crate::ws::arrivals::Arrivals;

/// What connections and requests are held to. A connection keeps what it began with until
/// its next request.
pub(super) struct Settings {
    pub(super) api: Api,
    pub(super) arrivals: Arc<Arrivals>,
    /// Of every route; empty for none.
    pub(super) prefix: String,
    pub(super) request_head_timeout: Duration,
    pub(super) keep_alive_timeout: Duration,
    pub(super) write_timeout: Duration,
    pub(super) drain: Drain,
    pub(super) proxies: Proxies,
}

impl Settings {
    pub(super) fn new(
        server: &config::Server,
        (apps, broker): (&Arc<AppRegistry>, &Broker),
    ) -> Self {
        let api = Api {
            apps: Arc::clone(apps),
            broker: broker.clone(),
            max_request_size: server.max_request_size,
            request_timeout: server.request_timeout,
            timestamp_tolerance: server.timestamp_tolerance,
            prefix: server.path.clone(),
            access_log: server.access_log,
            requests: Arc::default(),
            idempotency: IdempotencyLimits {
                ttl: server.idempotency_ttl,
                max_bytes: server.idempotency_max_bytes,
            },
        };
        Self {
            api,
            arrivals: Arc::new(Arrivals::new(server.max_connection_rate)),
            prefix: server.path.clone(),
            request_head_timeout: server.request_head_timeout,
            keep_alive_timeout: server.keep_alive_timeout,
            write_timeout: server.request_timeout,
            drain: server.drain,
            proxies: server.proxies.clone(),
        }
    }

    /// The same, with what was counted by those before, where that still holds.
    pub(super) fn with_state_of(self, before: &Self) -> Self {
        let arrivals = if self.arrivals.has_same_limit(&before.arrivals) {
            Arc::clone(&before.arrivals)
        } else {
            self.arrivals
        };
        let requests = Arc::clone(&before.api.requests);
        let api = Api {
            requests,
            ..self.api
        };
        Self {
            api,
            arrivals,
            ..self
        }
    }
}

/// What each socket is held to.
pub(super) fn limits(server: &config::Server) -> Limits {
    Limits {
        max_backlog: server.max_backlog,
        max_total_backlog: server.max_total_backlog,
        pong_timeout: server.pong_timeout,
        shutdown_grace: server.shutdown_grace,
    }
}

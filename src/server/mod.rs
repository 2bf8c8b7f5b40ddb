//! The listening socket, TLS, hyper, and the routes.

mod activity;
mod connection;
mod control;
mod demo;
mod descriptors;
mod health;
mod listener;
mod log;
mod observe;
mod route;
mod stream;
mod timer;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio_rustls::TlsAcceptor;

use crate::api::Api;
use crate::apps::{AppRegistry, Counter, DuplicateApp, RequestRefusal};
use crate::broker::Broker;
use crate::cluster::{ConnectError, Node, Running};
use crate::config::{self, Config};
use crate::hub::{Capacity, Hub, Sinks};
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::metrics::sink::CountingSink;
use crate::worker::{ConnectionPermits, Limits, Liveness, Pool, Setup};
use crate::ws::arrivals::Arrivals;
pub use control::Control;
use health::Health;
use observe::{Observed, Observer};
pub use tls::TlsError;

/// Bytes of messages that may wait for one worker before publishers have to wait.
const MAX_INBOX_BYTES: usize = 16 << 20;

/// A server that has its port and is not yet running.
pub struct Server {
    listener: std::net::TcpListener,
    hub: Arc<Hub>,
    shared: Arc<Shared>,
    limits: Limits,
    permits: Arc<ConnectionPermits>,
    workers: usize,
    lifecycle: Lifecycle,
    node: Option<Node>,
    /// Where metrics are served, if they are.
    observed_at: Option<std::net::TcpListener>,
    /// What whoever configured it should know, found in what was loaded.
    warnings: Vec<String>,
}

/// What every connection needs to know.
struct Shared {
    apps: Arc<AppRegistry>,
    api: Api,
    broker: Broker,
    health: Health,
    arrivals: Arrivals,
    prefix: String,
    request_head_timeout: Duration,
    keep_alive_timeout: Duration,
    write_timeout: Duration,
    tls: Option<TlsAcceptor>,
    demo: bool,
}

impl Shared {
    /// Counts a request that no application can be found for.
    fn count_refusal(&self, why: RequestRefusal) {
        let refused = Counter::RequestsRefused(why);
        self.apps.unattributed().count(refused);
    }
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Two applications cannot be told apart.
    #[error(transparent)]
    Apps(#[from] DuplicateApp),
    /// Redis cannot be used, which is required.
    #[error(transparent)]
    Redis(#[from] ConnectError),
    /// Threads or what they need cannot be had, or one of them has failed.
    #[error("{0}")]
    Failed(io::Error),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}{hint}")]
    Listen {
        /// `host:port`.
        address: String,
        /// What the system said.
        error: io::Error,
        /// What to do about it.
        hint: &'static str,
    },
}

impl StartError {
    /// Whether somebody has to change the configuration before it is of use to try again.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Tls(_) | Self::Apps(_) => true,
            Self::Redis(error) => error.is_configuration(),
            Self::Listen { .. } | Self::Failed(_) => false,
        }
    }
}

impl Server {
    /// Raises the limit of open files, loads the certificate and takes the port. `demo` adds the page `/demo` and
    /// its signing, which give everybody the application's signature.
    pub fn bind(config: &Config, demo: bool) -> Result<Self, StartError> {
        Self::bind_with_sinks(config, demo, Sinks::default())
    }

    /// The same, with sinks that get what happens.
    pub fn bind_with_sinks(config: &Config, demo: bool, sinks: Sinks) -> Result<Self, StartError> {
        let server = &config.server;
        let descriptors = descriptors::raise_limit(server.workers.get());
        let (tls, warnings) = match server.tls.as_ref().map(tls::load).transpose()? {
            Some(loaded) => (Some(loaded.acceptor), loaded.warnings),
            None => (None, Vec::new()),
        };
        let listener = listener::bind(&server.host, server.port, &listener::MAIN)?;
        let metrics = config.metrics.as_ref().filter(|_| !demo);
        let observed_at = metrics.map(observe::bind).transpose()?.flatten();
        let sinks = match observed_at {
            Some(_) => sinks.with(Arc::new(CountingSink)),
            None => sinks,
        };
        let workers = server.workers.get();
        let node = config.scaling.as_ref().map(Node::new).transpose()?;
        let capacity = Capacity {
            inbox_bytes: MAX_INBOX_BYTES,
            sockets: descriptors.sockets,
        };
        let permits = ConnectionPermits::new(
            descriptors.connections,
            descriptors.sockets,
            server.max_connections_per_address,
        );
        let queue = node.as_ref().map(|node| Arc::clone(node.queue()));
        let apps = Arc::new(AppRegistry::new(config.apps.clone())?);
        let hub = Arc::new(Hub::with_outputs(workers, capacity, queue, sinks));
        let cluster = node.as_ref().map(Node::cluster);
        let broker = Broker::new(Arc::clone(&hub), cluster);
        let api = api(server, &apps, &broker);
        let lifecycle = Lifecycle::new();
        let health = Health {
            apps: Arc::clone(&apps),
            broker: broker.clone(),
            lifecycle: lifecycle.clone(),
            liveness: Arc::new(Liveness::new(workers)),
            started: Instant::now(),
            started_at: SystemTime::now(),
        };
        let shared = Shared {
            apps,
            api,
            broker,
            health,
            arrivals: Arrivals::new(server.max_connection_rate),
            prefix: server.path.clone(),
            request_head_timeout: server.request_head_timeout,
            keep_alive_timeout: server.keep_alive_timeout,
            write_timeout: server.request_timeout,
            tls,
            demo,
        };
        Ok(Self {
            listener,
            hub,
            shared: Arc::new(shared),
            limits: limits(server),
            permits: Arc::new(permits),
            workers,
            lifecycle,
            node,
            observed_at,
            warnings,
        })
    }

    /// Checks what [`Self::bind`] would load, without taking the port. Returns warnings.
    pub fn check(config: &Config) -> Result<Vec<String>, StartError> {
        let loaded = config.server.tls.as_ref().map(tls::load).transpose()?;
        config.scaling.as_ref().map(Node::new).transpose()?;
        Ok(loaded.map(|loaded| loaded.warnings).unwrap_or_default())
    }

    /// The address it listens on.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The address that metrics are served on, if they are.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.observed_at.as_ref()?.local_addr().ok()
    }

    /// Says where it can be reached, and what whoever configured it should know.
    pub fn announce(&self, config: &Config) {
        let warnings = config.warnings.iter().chain(&self.warnings);
        warnings.for_each(|warning| tracing::warn!("{warning}"));
        config
            .notes
            .iter()
            .for_each(|note| tracing::info!("{note}"));
        let Ok(address) = self.address() else { return };
        let (secure, http) = if self.shared.tls.is_some() {
            ("secure ", "https")
        } else {
            ("", "http")
        };
        let name = config
            .server
            .hostname
            .as_deref()
            .map(|name| format!(" ({name})"))
            .unwrap_or_default();
        let prefix = &self.shared.prefix;
        tracing::info!(
            workers = self.workers,
            apps = self.shared.apps.len(),
            settings = config.read_from(),
            "Starting {secure}server on {address}{prefix}{name}"
        );
        if let Some(at) = self.metrics_address() {
            tracing::info!("Metrics on http://{at}/metrics");
        }
        if self.shared.demo {
            tracing::info!(
                "Open {http}://{address}{prefix}/demo in a browser; Ctrl+C ends the demo"
            );
        }
    }

    /// A hold on it, to change what it serves while it runs.
    pub fn control(&self) -> Control {
        Control {
            apps: Arc::clone(&self.shared.apps),
            hub: Arc::clone(&self.hub),
            lifecycle: self.lifecycle.clone(),
        }
    }

    /// The channels, for tests to look at.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Serves until `shutdown` is done or its [`Control::lifecycle`] has come to its end,
    /// then closes every connection and waits for them within the grace time.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), StartError> {
        let mut link = match self.node.take() {
            Some(node) => {
                let link = node.start(&self.hub, &self.shared.apps, &self.lifecycle);
                Some(link.await?)
            }
            None => None,
        };
        let served = self.serve(shutdown, link.as_mut()).await;
        if let Some(link) = link {
            link.stop().await;
        }
        served.map_err(StartError::Failed)
    }

    async fn serve(
        self,
        shutdown: impl Future<Output = ()>,
        link: Option<&mut Running>,
    ) -> io::Result<()> {
        let lifecycle = self.lifecycle.clone();
        let stop = lifecycle.stop_on_drop();
        let port = self.address()?.port();
        let shared = Arc::clone(&self.shared);
        let serve: Arc<crate::worker::Serve> = Arc::new(move |worker, incoming| {
            connection::spawn(worker, incoming, Arc::clone(&shared))
        });
        let setup = Setup {
            hub: self.hub,
            limits: self.limits,
            lifecycle: self.lifecycle,
            permits: self.permits,
            liveness: Arc::clone(&self.shared.health.liveness),
            serve,
        };
        let pool = Pool::start(self.workers, self.listener, &setup)?;
        let metrics = Metrics {
            apps: Arc::clone(&self.shared.apps),
            hub: setup.hub,
            broker: self.shared.broker.clone(),
            backlog: pool.backlog(),
            permits: setup.permits,
            workers: self.workers,
            lifecycle: setup.lifecycle,
            started: self.shared.health.started_at,
            port,
        };
        let health = self.shared.health.clone();
        let start = |at| Observer::start(at, Observed { metrics, health });
        let observer = self.observed_at.map(start).transpose()?;
        let broken = pool.broken();
        let unlinked = async {
            match link {
                Some(link) => link.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown => {}
            () = lifecycle.keep_deadline() => tracing::info!("closing connections"),
            () = unlinked => return Err(io::Error::other("the link to other nodes has failed")),
            () = broken => return Err(io::Error::other("a worker has failed; its connections are lost")),
        }
        drop(stop);
        // The workers' threads end by themselves; nothing else runs on this one.
        tokio::task::spawn_blocking(move || {
            pool.join();
            drop(observer);
        })
        .await
        .map_err(io::Error::other)
    }
}

fn api(server: &config::Server, apps: &Arc<AppRegistry>, broker: &Broker) -> Api {
    Api {
        apps: Arc::clone(apps),
        broker: broker.clone(),
        max_request_size: server.max_request_size,
        request_timeout: server.request_timeout,
        timestamp_tolerance: server.timestamp_tolerance,
        prefix: server.path.clone(),
        access_log: server.access_log,
    }
}

fn limits(server: &config::Server) -> Limits {
    Limits {
        max_backlog: server.max_backlog,
        max_total_backlog: server.max_total_backlog,
        pong_timeout: server.pong_timeout,
        shutdown_grace: server.shutdown_grace,
    }
}

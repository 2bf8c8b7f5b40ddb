//! The listening socket, TLS, hyper, and the routes.

mod activity;
mod client;
mod connection;
mod control;
mod control_socket;
mod demo;
mod descriptors;
mod health;
mod listener;
mod log;
mod observe;
mod pid_file;
mod reload;
mod route;
mod settings;
mod status;
mod stream;
mod supervised;
mod timer;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;

use crate::apps::{AppRegistry, Counter, DuplicateApp, RequestRefusal};
use crate::broker::Broker;
use crate::cluster::{ConnectError, Node, Running};
use crate::config::Config;
use crate::hub::{Capacity, Hub, Sinks};
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::metrics::sink::CountingSink;
use crate::webhooks::{self, Webhooks};
use crate::worker::{ConnectionPermits, Limits, Listener, ListenerSocket, Liveness, Pool, Setup};
pub use control::Control;
pub use control_socket::{Answer, ControlSocket};
use health::Health;
pub use listener::InheritedError;
use observe::{Observed, Observer};
pub use pid_file::PidFile;
pub use reload::{Last, Refused, Reloaded, Reloader};
use settings::Settings;
pub use tls::{CertificateInfo, TicketKeys, TicketKeysError, TlsError, ends_soon};

/// Bytes of messages that may wait for one worker before publishers have to wait.
const MAX_INBOX_BYTES: usize = 16 << 20;

/// How long webhooks may always take for what is left, however short the grace time is.
const MIN_WEBHOOK_STOP: Duration = Duration::from_secs(1);

/// How long the link to other nodes may take to end, where nobody waits for it.
const MAX_LINK_STOP: Duration = Duration::from_secs(8);

/// A server that has its ports and is not yet running.
pub struct Server {
    listeners: Vec<Listener>,
    has_inherited_listener: bool,
    /// Whether another process may listen where it does.
    leaves_to_successor: bool,
    hub: Arc<Hub>,
    shared: Arc<Shared>,
    limits: Arc<ArcSwap<Limits>>,
    max_grace: Arc<OnceLock<Duration>>,
    permits: Arc<ConnectionPermits>,
    workers: usize,
    lifecycle: Lifecycle,
    node: Option<Node>,
    webhooks: Webhooks,
    /// Where metrics are served, if they are.
    observed_at: Option<ListenerSocket>,
    /// How often the files of certificates are looked at.
    watch_interval: Duration,
}

/// What [`Server::check`] has found.
#[derive(Debug, Default)]
pub struct Checked {
    /// What whoever configured it should know.
    pub warnings: Vec<String>,
    /// What TLS would be served with.
    pub certificates: Vec<CertificateInfo>,
}

/// What every connection needs to know.
struct Shared {
    apps: Arc<AppRegistry>,
    broker: Broker,
    health: Health,
    settings: ArcSwap<Settings>,
    tls: Arc<tls::Live>,
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
    /// A socket that it was started with cannot be used.
    #[error(transparent)]
    Inherited(#[from] InheritedError),
    /// A Unix socket cannot be given to this group.
    #[error("server.socket_group = {0:?} (RESOUND_SOCKET_GROUP): there is no such group")]
    Group(String),
    /// Threads or what they need cannot be had, or one of them has failed.
    #[error("{0}")]
    Failed(io::Error),
    /// The file for the process's number cannot be written.
    #[error("cannot write {}: {error} (RESOUND_PID_FILE)", path.display())]
    PidFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}{hint}")]
    Listen {
        /// `host:port`, or the path of a Unix socket.
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
            Self::Tls(_) | Self::Apps(_) | Self::Inherited(_) | Self::Group(_) => true,
            Self::Redis(error) => error.is_configuration(),
            Self::PidFile { .. } | Self::Listen { .. } | Self::Failed(_) => false,
        }
    }
}

impl Server {
    /// Raises the limit of open files, loads the certificate and takes the ports. `demo` adds the page `/demo` and
    /// its signing, which give everybody the application's signature.
    pub fn bind(config: &Config, demo: bool) -> Result<Self, StartError> {
        Self::bind_with_sinks(config, demo, Sinks::default())
    }

    /// The same, with sinks that get what happens.
    pub fn bind_with_sinks(config: &Config, demo: bool, sinks: Sinks) -> Result<Self, StartError> {
        let server = &config.server;
        let descriptors = descriptors::raise_limit(server.workers.get());
        let tls = Arc::new(tls::Live::new(server.tls.as_ref())?);
        let listeners = listener::open(server)?;
        let metrics = config.metrics.as_ref().filter(|_| !demo);
        let observed_at = match (listeners.metrics, metrics) {
            (None, Some(metrics)) => observe::bind(metrics, server.reuse_port)?,
            (inherited, _) => inherited,
        };
        let sinks = match observed_at {
            Some(_) => sinks.with(Arc::new(CountingSink)),
            None => sinks,
        };
        let webhooks = Webhooks::new(&config.webhooks);
        let sinks = sinks.with(webhooks.sink());
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
        permits.set_max_per_address(
            server.max_connections_per_address,
            server.proxies.trusted.clone(),
        );
        let queue = node.as_ref().map(|node| Arc::clone(node.queue()));
        let apps = Arc::new(AppRegistry::new(config.apps.clone())?);
        let hub = Arc::new(Hub::with_outputs(workers, capacity, queue, sinks));
        let cluster = node.as_ref().map(Node::cluster);
        let broker = Broker::new(Arc::clone(&hub), cluster);
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
            settings: ArcSwap::from_pointee(Settings::new(server, (&apps, &broker))),
            tls,
            apps,
            broker,
            health,
            demo,
        };
        Ok(Self {
            listeners: listeners.all,
            has_inherited_listener: listeners.is_inherited,
            leaves_to_successor: listeners.is_inherited || server.reuse_port,
            hub,
            shared: Arc::new(shared),
            limits: Arc::new(ArcSwap::from_pointee(settings::limits(server))),
            max_grace: Arc::default(),
            permits: Arc::new(permits),
            workers,
            lifecycle,
            node,
            webhooks,
            observed_at,
            watch_interval: tls::INTERVAL,
        })
    }

    /// Checks what [`Self::bind`] would load, without taking the ports.
    pub fn check(config: &Config) -> Result<Checked, StartError> {
        let live = tls::Live::new(config.server.tls.as_ref())?;
        config.scaling.as_ref().map(Node::new).transpose()?;
        let socket = config.server.socket.as_ref();
        socket.map(listener::check_group).transpose()?;
        let loaded = live.loaded();
        Ok(loaded.map_or_else(Checked::default, |loaded| Checked {
            warnings: loaded.warnings.clone(),
            certificates: loaded.certificates.clone(),
        }))
    }

    /// Has the files of certificates looked at so often, and not every five seconds.
    #[doc(hidden)]
    pub fn watch_every(&mut self, interval: Duration) {
        self.watch_interval = interval;
    }

    /// The first address it listens on.
    ///
    /// # Errors
    /// If it has none: it listens on a Unix socket only.
    pub fn address(&self) -> io::Result<SocketAddr> {
        let none = io::ErrorKind::AddrNotAvailable;
        listener::main_address(&self.listeners).ok_or_else(|| none.into())
    }

    /// All it listens on.
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// Whether it was started with a socket for clients that outlives it: connections that
    /// come when it is gone wait there for whoever is started next.
    pub fn has_inherited_listener(&self) -> bool {
        self.has_inherited_listener
    }

    /// The address that metrics are served on, if they are.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.observed_at.as_ref()?.address()
    }

    /// Says where it can be reached, and what whoever configured it should know.
    pub fn announce(&self, config: &Config) {
        let warnings = config.warnings.iter();
        warnings.for_each(|warning| tracing::warn!("{warning}"));
        self.shared.tls.announce();
        config
            .notes
            .iter()
            .for_each(|note| tracing::info!("{note}"));
        let settings = self.shared.settings.load();
        let name = config
            .server
            .hostname
            .as_deref()
            .map(|name| format!(" ({name})"))
            .unwrap_or_default();
        let prefix = &settings.prefix;
        tracing::info!(
            workers = self.workers,
            apps = self.shared.apps.len(),
            settings = config.read_from(),
            "Starting {}{name}",
            listener::describe(&self.listeners, prefix)
        );
        if let Some(at) = self.metrics_address() {
            tracing::info!("Metrics on http://{at}/metrics");
        }
        if self.shared.demo
            && let Ok(address) = self.address()
        {
            let text = "in a browser; Ctrl+C ends the demo";
            tracing::info!("Open http://{address}{prefix}/demo {text}");
        }
    }

    /// A hold on it, to change what it serves while it runs.
    pub fn control(&self) -> Control {
        Control {
            shared: Arc::clone(&self.shared),
            hub: Arc::clone(&self.hub),
            lifecycle: self.lifecycle.clone(),
            limits: Arc::clone(&self.limits),
            webhooks: self.webhooks.clone(),
            permits: Arc::clone(&self.permits),
            has_others: self.node.is_some() || self.has_inherited_listener,
            max_grace: Arc::clone(&self.max_grace),
        }
    }

    /// The channels, for tests to look at.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Serves until `shutdown` is done or its [`Control::lifecycle`] has come to its end,
    /// then closes every connection and waits for them within the grace time.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), StartError> {
        let mut shutdown = pin!(shutdown);
        let max_grace = Arc::clone(&self.max_grace);
        let shared = self.node.as_ref().map(Node::link);
        let mut link = match self.node.take() {
            Some(node) => {
                let left = self.lifecycle.changed();
                let link = node.start(&self.hub, &self.shared.apps, &self.lifecycle);
                // Nobody was served yet, so that nobody has to be told.
                tokio::select! {
                    link = link => Some(link?),
                    () = &mut shutdown => return Ok(()),
                    _ = left => return Ok(()),
                }
            }
            None => None,
        };
        let webhooks = self.webhooks.start(&self.hub, &self.shared.apps, shared);
        let webhooks = webhooks.map_err(StartError::Failed)?;
        let served = self.serve(shutdown, link.as_mut(), webhooks).await;
        if let Some(link) = link {
            // If others do not hear it in time, they notice by the missing heartbeat.
            let time = match max_grace.get() {
                Some(_) => control::LINK_STOP,
                None => MAX_LINK_STOP,
            };
            let _ = tokio::time::timeout(time, link.stop()).await;
        }
        served.map_err(StartError::Failed)
    }

    async fn serve(
        self,
        shutdown: impl Future<Output = ()>,
        link: Option<&mut Running>,
        webhooks: webhooks::Running,
    ) -> io::Result<()> {
        let limits = Arc::clone(&self.limits);
        let lifecycle = self.lifecycle.clone();
        let stop = lifecycle.stop_on_drop();
        let port = self.address().map_or(0, |address| address.port());
        let shared = Arc::clone(&self.shared);
        let serve: Arc<crate::worker::Serve> = Arc::new(move |worker, incoming| {
            connection::spawn(worker, incoming, Arc::clone(&shared))
        });
        let setup = Setup {
            hub: self.hub,
            limits: self.limits,
            lifecycle: self.lifecycle,
            leaves_to_successor: self.leaves_to_successor,
            permits: self.permits,
            liveness: Arc::clone(&self.shared.health.liveness),
            serve,
        };
        let pool = Pool::start(self.workers, self.listeners, &setup)?;
        let metrics = Metrics {
            apps: Arc::clone(&self.shared.apps),
            hub: setup.hub,
            broker: self.shared.broker.clone(),
            backlog: pool.backlog(),
            permits: setup.permits,
            workers: self.workers,
            lifecycle: setup.lifecycle,
            certificates: self.shared.tls.ends(),
            webhooks: self.webhooks.clone(),
            started: self.shared.health.started_at,
            port,
        };
        let health = self.shared.health.clone();
        let start = |at| Observer::start(at, Observed { metrics, health });
        let observer = self.observed_at.map(start).transpose()?;
        let broken = pool.broken();
        let reported = self.shared.health.clone();
        let unlinked = async {
            match link {
                Some(link) => link.ended().await,
                None => std::future::pending().await,
            }
        };
        let watch = tls::watch(Arc::clone(&self.shared.tls), self.watch_interval);
        tokio::select! {
            () = shutdown => {}
            never = watch => match never {},
            () = lifecycle.keep_deadline() => tracing::info!("closing connections"),
            () = supervised::report(&reported) => {}
            () = unlinked => return Err(io::Error::other("the link to other nodes has failed")),
            () = broken => return Err(io::Error::other("a worker has failed; its connections are lost")),
        }
        drop(stop);
        let began = Instant::now();
        // The workers' threads end by themselves; nothing else runs on this one.
        tokio::task::spawn_blocking(move || {
            pool.join();
            let left = limits.load().shutdown_grace;
            let left = left.saturating_sub(began.elapsed());
            webhooks.stop(left.max(MIN_WEBHOOK_STOP));
            drop(observer);
        })
        .await
        .map_err(io::Error::other)
    }
}

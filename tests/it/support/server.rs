//! A server in a thread, with the credentials of the chat module.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use resound::apps::AppHandle;
use resound::config::{Config, Sources};
use resound::hub::{Hub, Sinks};
use resound::server::{Control, Server};
use tokio::sync::oneshot;

use super::{APP_ID, KEY, SECRET};

pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    /// Where metrics are served, if they are.
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) app: AppHandle,
    pub(crate) control: Control,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TestServer {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// With settings, named as in the environment.
    pub(crate) fn with(settings: &[(&str, &str)]) -> Self {
        Self::from_sources(&sources(settings), false)
    }

    pub(crate) fn demo() -> Self {
        Self::from_sources(&sources(&[]), true)
    }

    /// With sinks that get what happens.
    pub(crate) fn with_sinks(settings: &[(&str, &str)], sinks: Sinks) -> Self {
        let config = Config::load(&sources(settings)).unwrap();
        Self::run(Server::bind_with_sinks(&config, false, sinks).unwrap())
    }

    pub(crate) fn from_sources(sources: &Sources, demo: bool) -> Self {
        let config = Config::load(sources).unwrap();
        Self::run(Server::bind(&config, demo).unwrap())
    }

    pub(crate) fn run(server: Server) -> Self {
        let (address, hub) = (server.address().unwrap(), Arc::clone(server.hub()));
        let (control, metrics) = (server.control(), server.metrics_address());
        let app = control.apps().by_id(APP_ID).unwrap();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime
                .block_on(server.run(async { _ = stopped.await }))
                .unwrap();
        });
        Self {
            address,
            metrics,
            hub,
            app,
            control,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Channels with a subscriber.
    pub(crate) fn occupied(&self) -> usize {
        self.hub.channels(&self.app, "").len()
    }

    /// Waits until nothing is left: no connection, no channel, no user.
    pub(crate) fn expect_empty(&self) {
        let deadline = std::time::Instant::now() + super::PATIENCE;
        let left = || {
            let connections = self.app.connections();
            (connections, self.occupied(), self.hub.users(&self.app))
        };
        while left() != (0, 0, 0) {
            assert!(
                std::time::Instant::now() < deadline,
                "something is left: {:?}",
                left()
            );
            thread::yield_now();
        }
    }

    /// What SIGTERM does; the server ends meanwhile.
    pub(crate) fn begin_shutdown(&mut self) {
        drop(self.stop.take());
    }

    pub(crate) fn join(&mut self) {
        self.begin_shutdown();
        self.join_by_itself();
    }

    /// Waits for a server that ends without being asked here.
    pub(crate) fn join_by_itself(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl super::At for TestServer {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.begin_shutdown();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("the server ended with a panic");
        }
    }
}

pub(crate) fn sources(settings: &[(&str, &str)]) -> Sources {
    let base = [
        ("REVERB_APP_ID", APP_ID),
        ("REVERB_APP_KEY", KEY),
        ("REVERB_APP_SECRET", SECRET),
        ("REVERB_SERVER_HOST", "127.0.0.1"),
        ("REVERB_SERVER_PORT", "0"),
        // Two, so that every test also crosses threads.
        ("RESOUND_WORKERS", "2"),
        ("RESOUND_SHUTDOWN_GRACE", "1"),
        ("RESOUND_METRICS_PORT", "off"),
    ];
    let pairs = base.iter().chain(settings);
    Sources {
        environment: pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..Sources::default()
    }
}

//! A server whose metrics are scraped.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::node::Node;
use crate::port;
use crate::settings::Settings;
use crate::support::{APP_ID, At, Http, KEY, SECRET};
use crate::wait::eventually;

/// Where a server's metrics are: the same over a restart.
pub(crate) fn free_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port::free()))
}

/// One that is alone or has Redis, as the settings say.
pub(crate) fn start(metrics: SocketAddr, settings: &Settings) -> Node {
    let own = Settings::of(&[
        ("REVERB_SCALING_ENABLED", "false"),
        ("RESOUND_METRICS_PORT", &metrics.port().to_string()),
    ]);
    Node::start(&own.and(settings))
}

/// Asks at an address.
pub(crate) struct Place(pub(crate) SocketAddr);

impl At for Place {
    fn address(&self) -> SocketAddr {
        self.0
    }
}

/// One that a shell starts, and whose log nobody reads.
pub(crate) struct Unread {
    child: Child,
    pub(crate) at: Place,
}

impl Unread {
    /// `limits` is a shell command that comes before it.
    pub(crate) fn start(limits: &str, metrics: SocketAddr, flags: &str) -> Self {
        let at = Place(free_address());
        let script = format!(
            "{limits} exec {} start --host 127.0.0.1 --port {} --workers 2 --metrics-port {} {flags}",
            env!("CARGO_BIN_EXE_resound"),
            at.0.port(),
            metrics.port()
        );
        let child = Command::new("sh")
            .args(["-c", &script])
            .current_dir("/")
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .envs([
                ("REVERB_APP_ID", APP_ID),
                ("REVERB_APP_KEY", KEY),
                ("REVERB_APP_SECRET", SECRET),
            ])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        eventually("it serves", || std::net::TcpStream::connect(at.0).is_ok());
        assert_eq!(Http::connect(&at).request("GET", "/up", "").status, 200);
        Self { child, at }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

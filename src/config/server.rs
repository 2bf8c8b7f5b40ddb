//! How the whole process listens, and what it is held to.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::{Tls, UnixSocket};
use crate::proxies::Proxies;
use crate::telemetry;

/// Where and how to listen, and the limits of the whole process.
#[derive(Clone, Debug)]
pub struct Server {
    /// Addresses and host names to bind, all of them; none for no port at all.
    pub hosts: Vec<String>,
    /// Port to bind on each; 0 takes a free one.
    pub port: u16,
    /// Whether another process of this user may listen on the same ports.
    pub reuse_port: bool,
    /// A Unix socket to listen on as well.
    pub socket: Option<UnixSocket>,
    /// Prefix of every route: empty, or with a leading and no trailing slash.
    pub path: String,
    /// Public host name, for the start banner only.
    pub hostname: Option<String>,
    /// Threads that own sockets.
    pub workers: NonZeroUsize,
    /// What is logged, and how.
    pub log: telemetry::Options,
    /// Whether each publish request is a line of the log.
    pub access_log: bool,
    /// How TLS is served, if it is.
    pub tls: Option<Tls>,
    /// What is believed of proxies in front of it.
    pub proxies: Proxies,
    /// Bytes of an HTTP request's body.
    pub max_request_size: usize,
    /// How far `auth_timestamp` may be from the clock, and so how long a signed request can be
    /// replayed; `None` for any distance, and for ever.
    pub timestamp_tolerance: Option<Duration>,
    /// How long to wait for the answer to a ping.
    pub pong_timeout: Duration,
    /// How long a request's body may take.
    pub request_timeout: Duration,
    /// How long a new connection may take until its first request's head is there, the
    /// TLS handshake included.
    pub request_head_timeout: Duration,
    /// How long an HTTP connection may wait for its next request, and that request's
    /// head may take.
    pub keep_alive_timeout: Duration,
    /// How long the answer to a publish with an `Idempotency-Key` is kept.
    pub idempotency_ttl: Duration,
    /// Bytes of all such answers, and of what they are known by.
    pub idempotency_max_bytes: usize,
    /// Bytes that may wait for one connection before it is closed as too slow.
    pub max_backlog: usize,
    /// Bytes that may wait for all connections, taken together.
    pub max_total_backlog: usize,
    /// New WebSockets a second from one address, `None` for no limit.
    pub max_connection_rate: Option<u32>,
    /// Connections at a time from one address, loopback and trusted proxies excepted; `None` for no limit.
    pub max_connections_per_address: Option<usize>,
    /// How long connections get to end when the server stops.
    pub shutdown_grace: Duration,
    /// How connections are closed before it stops.
    pub drain: Drain,
    /// Where whoever looks after it can give it commands.
    pub control_socket: Option<PathBuf>,
    /// Where it writes its process's number.
    pub pid_file: Option<PathBuf>,
}

impl Server {
    /// Whether `port` itself speaks TLS.
    pub fn is_port_secure(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.port.is_none())
    }

    /// The ports that clients connect to, each with whether it speaks TLS.
    pub(crate) fn ports(&self) -> impl Iterator<Item = (u16, bool)> {
        let beside = self.tls.as_ref().and_then(|tls| tls.port);
        let beside = beside.map(|port| (port, true));
        [(self.port, self.is_port_secure())]
            .into_iter()
            .chain(beside)
    }
}

/// How connections are closed before a server stops, if they are not closed all at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Over how long they are closed; `None` for what suits the set-up, zero for at once.
    pub spread: Option<Duration>,
    /// How long before that load balancers get to look away.
    pub pause: Duration,
}

//! Where the server listens. Accepting is the first worker's (`worker::acceptor`).

mod inherited;
mod unix;

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::path::Path;
use std::{fs, io};

use socket2::{Domain, Protocol, Socket, Type};

use super::StartError;
use crate::config;
use crate::worker::{Listener, ListenerSocket};
pub use inherited::InheritedError;
pub(super) use unix::{SocketFile, check_group, listen_unix};

/// Connections that the kernel may hold until they are accepted; it takes no
/// more than `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// How often a free port is looked for that is free on every host.
const ATTEMPTS: usize = 16;

/// What to do about a port that is taken, and an address that is not ours.
pub(super) struct Hints {
    taken: &'static str,
    foreign: &'static str,
    other: &'static str,
}

/// Of the port for clients and publishes.
const MAIN: Hints = Hints {
    taken: "; is Reverb or another Resound still running? Another port: --port or REVERB_SERVER_PORT",
    foreign: "; this machine does not have that address (--host, REVERB_SERVER_HOST)",
    other: "",
};

/// Of the port that speaks TLS beside the other.
const TLS: Hints = Hints {
    taken: " (for TLS); is another Resound still running? Another port: --tls-port or RESOUND_TLS_PORT",
    ..MAIN
};

/// Of the port for metrics.
pub(super) const METRICS: Hints = Hints {
    taken: " (for metrics); another port, or off: --metrics-port or RESOUND_METRICS_PORT",
    foreign: " (for metrics); this machine does not have that address (RESOUND_METRICS_HOST)",
    other: " (for metrics: --metrics-host, RESOUND_METRICS_HOST)",
};

/// All that is listened on. What was taken is given back when it is dropped.
pub(super) struct Listeners {
    /// For clients and publishes.
    pub(super) all: Vec<Listener>,
    /// For metrics, if it was inherited.
    pub(super) metrics: Option<ListenerSocket>,
    /// Whether any of those for clients was.
    pub(super) is_inherited: bool,
}

/// Takes what was inherited, or the ports if nothing was, and makes the Unix socket. The
/// port for TLS is taken unless a socket for TLS was inherited.
pub(super) fn open(server: &config::Server) -> Result<Listeners, StartError> {
    let inherited::Inherited {
        clients: mut all,
        metrics,
        paths,
    } = inherited::take(server)?;
    let is_inherited = !all.is_empty();
    if !is_inherited {
        let main = bind_all(server, server.port, &MAIN)?;
        let is_tls = server.is_port_secure();
        all.extend(main.into_iter().map(|socket| tcp(socket, is_tls)));
    }
    let port = server.tls.as_ref().and_then(|tls| tls.port);
    if let Some(port) = port.filter(|_| !all.iter().any(|socket| socket.is_tls)) {
        let tls = bind_all(server, port, &TLS)?;
        all.extend(tls.into_iter().map(|socket| tcp(socket, true)));
    }
    if let Some(socket) = &server.socket
        && !paths.iter().any(|path| is_same(path, &socket.path))
    {
        all.push(unix::bind(socket)?);
    }
    Ok(Listeners {
        all,
        metrics,
        is_inherited,
    })
}

/// Whether two paths are of one file, whatever links lead there.
fn is_same(path: &Path, other: &Path) -> bool {
    let file = |path: &Path| fs::canonicalize(path).ok();
    path == other || (file(path).is_some() && file(path) == file(other))
}

fn tcp(socket: TcpListener, is_tls: bool) -> Listener {
    Listener {
        is_tls,
        ..socket.into()
    }
}

/// The first address that has a port, one without TLS if there is any.
pub(super) fn main_address(listeners: &[Listener]) -> Option<SocketAddr> {
    let with = |is_tls: bool| {
        let mut own = listeners.iter().filter(|own| own.is_tls == is_tls);
        own.find_map(|listener| listener.socket.address())
    };
    with(false).or_else(|| with(true))
}

/// All places, for a person: `server on 127.0.0.1:8080/ws and [::1]:8080/ws, secure server
/// on 127.0.0.1:8443/ws`.
pub(super) fn describe(listeners: &[Listener], prefix: &str) -> String {
    let mut text = String::new();
    for (is_tls, what) in [(false, "server on "), (true, "secure server on ")] {
        let own = listeners.iter().filter(|own| own.is_tls == is_tls);
        for (at, listener) in own.enumerate() {
            let before = match at {
                0 if text.is_empty() => "",
                0 => ", ",
                _ => " and ",
            };
            let what = if at == 0 { what } else { "" };
            let place = place(&listener.socket, prefix);
            // A String takes every text.
            let _ = write!(text, "{before}{what}{place}");
        }
    }
    text
}

fn place(socket: &ListenerSocket, prefix: &str) -> String {
    match socket {
        ListenerSocket::Tcp(listener) => match listener.local_addr() {
            Ok(address) => format!("{address}{prefix}"),
            Err(error) => error.to_string(),
        },
        ListenerSocket::Unix(listener) => {
            let address = listener.local_addr().ok();
            let path = address.as_ref().and_then(|address| address.as_pathname());
            let path = path.map_or_else(|| "(unnamed)".into(), |path| path.to_string_lossy());
            // As nginx writes it.
            let colon = if prefix.is_empty() { "" } else { ":" };
            format!("unix:{path}{colon}{prefix}")
        }
    }
}

/// Takes a port on every host. Of port 0 all get the same, which is free on each.
fn bind_all(
    server: &config::Server,
    port: u16,
    hints: &Hints,
) -> Result<Vec<TcpListener>, StartError> {
    let mut hosts: Vec<&str> = server.hosts.iter().map(String::as_str).collect();
    // What stands for many addresses comes first: the others are had with it.
    hosts.sort_by_key(|host| match bare(host).parse() {
        Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => 0,
        Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => 1,
        _ => 2,
    });
    let mut attempts = 1;
    loop {
        match bind_hosts(&hosts, port, server.reuse_port, hints) {
            Err(StartError::Listen { error, .. })
                if port == 0 && error.kind() == io::ErrorKind::AddrInUse && attempts < ATTEMPTS =>
            {
                attempts += 1;
            }
            bound => return bound,
        }
    }
}

fn bind_hosts(
    hosts: &[&str],
    mut port: u16,
    reuse_port: bool,
    hints: &Hints,
) -> Result<Vec<TcpListener>, StartError> {
    let mut own: Vec<TcpListener> = Vec::new();
    for host in hosts {
        let addresses = own.iter().filter_map(|own| own.local_addr().ok());
        let addresses: Vec<SocketAddr> = addresses.collect();
        let Some(listener) = bind_first(host, port, (&addresses, reuse_port), hints)? else {
            continue;
        };
        if port == 0 {
            port = listener.local_addr().map_err(StartError::Failed)?.port();
        }
        own.push(listener);
    }
    Ok(own)
}

/// Takes a port, on the first address of `host` that it can be had on.
pub(super) fn bind(
    host: &str,
    port: u16,
    reuse_port: bool,
    hints: &Hints,
) -> Result<TcpListener, StartError> {
    let bound = bind_first(host, port, (&[], reuse_port), hints)?;
    Ok(bound.expect("nothing else was taken that it could be had with"))
}

/// Takes a port, on the first address of `host` that it can be had on; nothing if that is
/// had with one of our `own` addresses.
fn bind_first(
    host: &str,
    port: u16,
    (own, reuse_port): (&[SocketAddr], bool),
    hints: &Hints,
) -> Result<Option<TcpListener>, StartError> {
    let fail = |error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => hints.taken,
            io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege",
            io::ErrorKind::AddrNotAvailable => hints.foreign,
            _ => hints.other,
        };
        StartError::Listen {
            address: format!("{host}:{port}"),
            error,
            hint,
        }
    };
    let addresses = (bare(host), port).to_socket_addrs().map_err(fail)?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
    for address in addresses {
        if own.iter().any(|own| has(own, &address)) {
            return Ok(None);
        }
        match listen(address, own, reuse_port) {
            Ok(listener) => return Ok(Some(listener)),
            Err(error) => last = error,
        }
    }
    Err(fail(last))
}

/// `[::1]` is `::1`.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Whether who listens on `own` has what comes to `other`, too.
fn has(own: &SocketAddr, other: &SocketAddr) -> bool {
    let any_v4 = Ipv4Addr::UNSPECIFIED;
    own.port() == other.port()
        && match (own.ip(), other.ip()) {
            (own, other) if own == other => true,
            (IpAddr::V4(own), IpAddr::V4(_)) => own == any_v4,
            // With 0.0.0.0 it would not have those of IPv4, but then they are had already.
            (IpAddr::V6(own), other) => own.is_unspecified() && other != IpAddr::V4(any_v4),
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
        }
}

fn listen(address: SocketAddr, own: &[SocketAddr], reuse_port: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restart must not wait for connections of the process before in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        // Said either way: what it would be otherwise depends on the system.
        let is_v4_taken = own.iter().any(|own| own.ip() == Ipv4Addr::UNSPECIFIED);
        socket.set_only_v6(is_v4_taken)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

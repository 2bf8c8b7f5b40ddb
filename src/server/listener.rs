//! The listening socket. Accepting is the first worker's (`worker::acceptor`).

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};

use socket2::{Domain, Protocol, Socket, Type};

use super::StartError;

/// Connections that the kernel may hold until they are accepted; it takes no
/// more than `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// What to do about a port that is taken, and an address that is not ours.
pub(super) struct Hints {
    taken: &'static str,
    foreign: &'static str,
    other: &'static str,
}

/// Of the port for clients and publishes.
pub(super) const MAIN: Hints = Hints {
    taken: "; is Reverb or another Resound still running? Another port: --port or REVERB_SERVER_PORT",
    foreign: "; this machine does not have that address (--host, REVERB_SERVER_HOST)",
    other: "",
};

/// Of the port for metrics.
pub(super) const METRICS: Hints = Hints {
    taken: " (for metrics); another port, or off: --metrics-port or RESOUND_METRICS_PORT",
    foreign: " (for metrics); this machine does not have that address (RESOUND_METRICS_HOST)",
    other: " (for metrics: --metrics-host, RESOUND_METRICS_HOST)",
};

/// Takes a port, on the first address of `host` that it can be had on.
pub(super) fn bind(host: &str, port: u16, hints: &Hints) -> Result<TcpListener, StartError> {
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
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = (bare, port).to_socket_addrs().map_err(fail)?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
    for address in addresses {
        match listen(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(fail(last))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restart must not wait for connections of the process before in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

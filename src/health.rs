//! `resound health`: asks a running server whether it is up, for containers and
//! supervisors. It reads the same settings as the server, so it asks the right
//! port and path.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::config::Server;

/// How long each step may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why a server does not count as up.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// It cannot be reached or does not answer.
    #[error("{address}: {error}")]
    Unreachable {
        /// Where it was asked.
        address: String,
        /// What the system said.
        error: io::Error,
    },
    /// It answers, but not that it is up.
    #[error("{address} answers: {status}")]
    NotUp {
        /// Where it was asked.
        address: String,
        /// The first line of its answer.
        status: String,
    },
}

/// Asks `/up`, on the port if it speaks no TLS, or else on the Unix socket. Of a server that
/// speaks only TLS merely that it accepts connections is looked at: its certificate is for
/// others to judge. All hosts were had when it started, so the first is asked.
pub fn check(server: &Server) -> Result<(), HealthError> {
    match (server.dialled_host(), &server.socket) {
        (Some(host), None) => check_port(server, host),
        (Some(host), Some(_)) if !server.is_port_secure() => check_port(server, host),
        (_, Some(socket)) => {
            let address = socket.path.display().to_string();
            let connect = || connect_unix(&socket.path);
            // As the server takes it.
            let own = |_: &Socket| Ok(Ipv4Addr::LOCALHOST.into());
            check_up(address, server, connect, own)
        }
        // The configuration does not let it come to this.
        (None, None) => Err(HealthError::Unreachable {
            address: "off".to_owned(),
            error: io::ErrorKind::AddrNotAvailable.into(),
        }),
    }
}

fn check_port(server: &Server, host: &str) -> Result<(), HealthError> {
    let address = format!("{host}:{}", server.port);
    let connect = || connect(host, server.port);
    if server.is_port_secure() {
        let connected = connect().map(drop);
        return connected.map_err(|error| HealthError::Unreachable { address, error });
    }
    let own = |stream: &TcpStream| stream.local_addr().map(|own| own.ip());
    check_up(address, server, connect, own)
}

/// `own` tells from which address the server is asked.
fn check_up<S: Read + Write>(
    address: String,
    server: &Server,
    connect: impl FnOnce() -> io::Result<S>,
    own: impl FnOnce(&S) -> io::Result<IpAddr>,
) -> Result<(), HealthError> {
    let asked = connect().and_then(|stream| {
        // One that trusts this machine wants to be told by it for whom it asks.
        let before = if server.proxies.expects_header_from(own(&stream)?) {
            "PROXY UNKNOWN\r\n"
        } else {
            ""
        };
        ask(stream, before, &server.path)
    });
    match asked {
        Ok(status) if status.split(' ').nth(1) == Some("200") => Ok(()),
        Ok(status) => Err(HealthError::NotUp { address, status }),
        Err(error) => Err(HealthError::Unreachable { address, error }),
    }
}

fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                limit(SockRef::from(&stream))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn connect_unix(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Connecting counts as writing: it waits while too many others do.
    limit(SockRef::from(&socket))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket)
}

fn limit(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))
}

fn ask(mut stream: impl Read + Write, before: &str, prefix: &str) -> io::Result<String> {
    write!(
        stream,
        "{before}GET {prefix}/up HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut status = String::new();
    BufReader::new(stream).read_line(&mut status)?;
    Ok(status.trim_end().to_owned())
}

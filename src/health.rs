//! `resound health`: asks a running server whether it is up, for containers and
//! supervisors. It reads the same settings as the server, so it asks the right
//! port and path.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

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

/// Asks `/up`. Of a server that speaks TLS only that it accepts connections is
/// looked at: its certificate is for others to judge.
pub fn check(server: &Server) -> Result<(), HealthError> {
    let host = match server.host.trim_matches(['[', ']']) {
        "0.0.0.0" => "127.0.0.1",
        "::" => "::1",
        other => other,
    };
    let address = format!("{host}:{}", server.port);
    let fail = |error| HealthError::Unreachable {
        address: address.clone(),
        error,
    };
    let stream = connect(host, server.port).map_err(fail)?;
    if server.tls.is_some() {
        return Ok(());
    }
    let status = ask(stream, &server.path).map_err(fail)?;
    if status.split(' ').nth(1) == Some("200") {
        Ok(())
    } else {
        Err(HealthError::NotUp { address, status })
    }
}

fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn ask(mut stream: TcpStream, prefix: &str) -> io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {prefix}/up HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut status = String::new();
    BufReader::new(stream).read_line(&mut status)?;
    Ok(status.trim_end().to_owned())
}

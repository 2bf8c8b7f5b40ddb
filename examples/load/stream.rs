//! Connections to the server or to its nodes, with TLS or without: where they go,
//! from which address they come, and how they are read and written.
//!
//! The TLS is rustls, driven by hand: a read decrypts what the socket has, a
//! write encrypts and sends at once. The handshake happens inside the first reads
//! and writes, so that nothing else needs to know of it.

use crate::Outcome;
use crate::args::Target;
use crate::sys;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use socket2::{Domain, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a server may take for one step.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
const NARROW_BUFFER: usize = 4096;
const NARROW_SEGMENT: u32 = 1400;

/// How to get to the server.
#[derive(Clone)]
pub(crate) struct Route {
    /// One, or several nodes.
    servers: Vec<SocketAddr>,
    sources: usize,
    /// Whether the kernel is to keep as little as it can of what is not read.
    narrow: bool,
    tls: Option<Arc<ClientConfig>>,
}

impl Route {
    /// The way to where subscribers go.
    pub(crate) fn of(target: &Target) -> Outcome<Self> {
        Self::to(&target.addr, target)
    }

    /// The way to where publishers go.
    pub(crate) fn for_publishing(target: &Target) -> Outcome<Self> {
        match &target.publish_addr[..] {
            [] => Self::to(&target.addr, target),
            servers => Self::to(servers, target),
        }
    }

    /// The way to each of the nodes.
    pub(crate) fn to_each(target: &Target) -> Outcome<Vec<Self>> {
        let one = |server: &SocketAddr| Self::to(&[*server], target);
        target.addr.iter().map(one).collect()
    }

    fn to(servers: &[SocketAddr], target: &Target) -> Outcome<Self> {
        Ok(Self {
            servers: servers.to_vec(),
            sources: target.sources,
            narrow: false,
            tls: target.tls.as_deref().map(trusting).transpose()?,
        })
    }

    /// The same way for connections that are not going to be read, which the server
    /// should notice before megabytes are in the kernel's buffers.
    pub(crate) fn narrow(self) -> Self {
        Self {
            narrow: true,
            ..self
        }
    }

    /// The node that is due for the one with this number.
    pub(crate) fn server(&self, number: usize) -> SocketAddr {
        self.servers[number % self.servers.len()]
    }

    /// Connects as the subscriber with this number, from the address that is due.
    pub(crate) fn open(&self, number: usize) -> Outcome<Stream> {
        self.connect(self.server(number), source(number, self.sources))
    }

    /// Connects as the publisher with this number, from whatever address the
    /// system chooses.
    pub(crate) fn open_from_anywhere(&self, number: usize) -> Outcome<Stream> {
        self.connect(self.server(number), None)
    }

    fn connect(&self, server: SocketAddr, source: Option<Ipv4Addr>) -> Outcome<Stream> {
        let tcp = match (server, source) {
            (SocketAddr::V4(server), Some(source)) if !self.narrow => {
                sys::connect_from(SocketAddrV4::new(source, 0), server, PATIENCE)
            }
            _ if self.narrow => connect_narrowly(server),
            _ => TcpStream::connect_timeout(&server, PATIENCE),
        }
        .map_err(|error| format!("cannot connect to {server}: {error}"))?;
        tcp.set_nodelay(true)?;
        let begin = |config: &Arc<ClientConfig>| {
            let name = ServerName::IpAddress(server.ip().into());
            ClientConnection::new(Arc::clone(config), name).map(Box::new)
        };
        let tls = self.tls.as_ref().map(begin).transpose()?;
        Ok(Stream { tcp, tls })
    }
}

/// With a small receive buffer and the segments of an Ethernet: with those of the
/// loopback, the kernel grants the sender a buffer of four megabytes.
fn connect_narrowly(server: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    socket.set_recv_buffer_size(NARROW_BUFFER)?;
    socket.set_tcp_mss(NARROW_SEGMENT)?;
    socket.connect_timeout(&server.into(), PATIENCE)?;
    Ok(socket.into())
}

/// Trusts the one certificate of a PEM file, and nobody else. Nothing is resumed,
/// so that every connection costs the server the same.
fn trusting(certificate: &Path) -> Outcome<Arc<ClientConfig>> {
    let name = certificate.display();
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(certificate)
        .map_err(|error| format!("cannot use the certificate {name}: {error}"))?;
    roots.add(certificate)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Which address of the loopback the subscriber with this number connects from;
/// none if the system may choose.
fn source(number: usize, sources: usize) -> Option<Ipv4Addr> {
    (sources > 1).then(|| Ipv4Addr::new(127, 0, 0, (1 + number % sources) as u8))
}

/// One connection.
pub(crate) struct Stream {
    tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl Stream {
    /// The socket, for what is about readiness and time and not about bytes.
    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Whether there is more to read that the socket's readiness does not show.
    #[inline]
    pub(crate) fn has_more(&mut self) -> bool {
        match &mut self.tls {
            None => false,
            Some(tls) => tls
                .process_new_packets()
                .is_ok_and(|state| state.plaintext_bytes_to_read() > 0),
        }
    }
}

impl Read for Stream {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.tcp.read(buffer),
            Some(tls) => read_tls(tls, &mut self.tcp, buffer),
        }
    }
}

impl Write for Stream {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.tcp.write(bytes);
        };
        let count = tls.writer().write(bytes)?;
        match send_tls(tls, &mut self.tcp) {
            Ok(()) => Ok(count),
            // They are encrypted and cannot be taken back.
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(io::Error::other(
                "what was encrypted did not fit the socket's send buffer",
            )),
            Err(error) => Err(error),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads what is decrypted already, or else from the socket until something is.
fn read_tls(
    tls: &mut ClientConnection,
    tcp: &mut TcpStream,
    buffer: &mut [u8],
) -> io::Result<usize> {
    loop {
        match tls.reader().read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // Not every server sends a close_notify before it closes.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
            done => return done,
        }
        tls.read_tls(tcp)?;
        let outcome = tls.process_new_packets();
        send_tls(tls, tcp)?;
        outcome.map_err(io::Error::other)?;
    }
}

fn send_tls(tls: &mut ClientConnection, tcp: &mut TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        tls.write_tls(tcp)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::source;
    use std::net::Ipv4Addr;

    #[test]
    fn subscribers_take_turns_with_the_addresses() {
        assert_eq!(source(5, 1), None, "the system may choose");
        assert_eq!(source(3, 4), Some(Ipv4Addr::new(127, 0, 0, 4)));
        assert_eq!(source(4, 4), Some(Ipv4Addr::new(127, 0, 0, 1)));
    }
}

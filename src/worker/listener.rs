//! Sockets that connections are accepted from: TCP, and Unix sockets.
//!
//! A connection over a Unix socket is a [`TcpStream`] from here on. Reading, writing, shutting
//! down and watching are the same system calls for every stream socket, and so no layer above
//! has two kinds of stream. What only TCP has, its addresses and `TCP_NODELAY`, nobody may ask
//! of it: [`super::Incoming::is_unix`] says so, and [`UNIX_PEER`] stands for its address.

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};

use tokio::net::TcpStream;

/// Who is at the other end of a Unix socket: somebody on this machine.
pub const UNIX_PEER: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));

/// A socket that listens, and what becomes of its connections.
pub struct Listener {
    /// Dropped when nobody listens any more, just before the socket is closed.
    pub on_close: Option<Box<dyn Send>>,
    /// The socket.
    pub socket: ListenerSocket,
    /// Whether its connections speak TLS.
    pub is_tls: bool,
}

/// A listening socket that does not block.
#[derive(Debug)]
pub enum ListenerSocket {
    /// Of an address and a port.
    Tcp(std::net::TcpListener),
    /// Of a file.
    Unix(std::os::unix::net::UnixListener),
}

impl From<std::net::TcpListener> for Listener {
    /// Without TLS.
    fn from(listener: std::net::TcpListener) -> Self {
        Self {
            on_close: None,
            socket: ListenerSocket::Tcp(listener),
            is_tls: false,
        }
    }
}

impl ListenerSocket {
    /// Its address and port, if it has them.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}

/// A listening socket in the event loop of a runtime.
pub struct WatchedSocket(Watched);

enum Watched {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

/// An accepted connection. Those over TCP are in the event loop, as tokio accepts them.
pub(super) enum Stream {
    Watched(TcpStream),
    Unwatched(std::net::TcpStream),
}

impl Stream {
    /// For this event loop.
    pub(super) fn into_watched(self) -> io::Result<TcpStream> {
        match self {
            Self::Watched(tcp) => Ok(tcp),
            Self::Unwatched(stream) => TcpStream::from_std(stream),
        }
    }

    /// For another one.
    pub(super) fn into_unwatched(self) -> io::Result<std::net::TcpStream> {
        match self {
            Self::Watched(tcp) => tcp.into_std(),
            Self::Unwatched(stream) => Ok(stream),
        }
    }
}

impl WatchedSocket {
    /// Has to be called in a runtime, which then watches the socket.
    ///
    /// # Errors
    /// If it cannot be watched.
    pub fn new(socket: ListenerSocket) -> io::Result<Self> {
        Ok(Self(match socket {
            ListenerSocket::Tcp(listener) => {
                Watched::Tcp(tokio::net::TcpListener::from_std(listener)?)
            }
            ListenerSocket::Unix(listener) => {
                Watched::Unix(tokio::net::UnixListener::from_std(listener)?)
            }
        }))
    }

    /// The next connection, and where it comes from.
    ///
    /// # Errors
    /// As the system says; the next call may succeed.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = poll_fn(|cx| self.poll_accept(cx)).await?;
        Ok((stream.into_watched()?, peer))
    }

    pub(super) fn is_unix(&self) -> bool {
        matches!(self.0, Watched::Unix(_))
    }

    pub(super) fn poll_accept(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(Stream, SocketAddr)>> {
        match &self.0 {
            Watched::Tcp(listener) => listener
                .poll_accept(cx)
                .map_ok(|(tcp, peer)| (Stream::Watched(tcp), peer)),
            Watched::Unix(listener) => listener.poll_accept(cx).map(|accepted| {
                let stream = OwnedFd::from(accepted?.0.into_std()?);
                Ok((Stream::Unwatched(stream.into()), UNIX_PEER))
            }),
        }
    }
}

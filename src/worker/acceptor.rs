//! Where a worker's connections come from. The first worker accepts them and gives
//! every worker its turn, itself included; the others get theirs through a queue.
//!
//! A thread of its own that accepts would have to wake a worker for every connection,
//! and every connection would be registered with two event loops, not only those that
//! another worker gets.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError::{Closed, Full};

use super::listener::{Listener, Stream, WatchedSocket};
use super::permits::{ConnectionPermit, ConnectionPermits};
use crate::telemetry::limit::limited;

/// A connection that is in no event loop.
type Accepted = Incoming<std::net::TcpStream>;

/// Accepted connections that may wait for a worker.
const MAX_QUEUED: usize = 1024;

/// Connections that are accepted in a row, before the worker looks after its others.
const MAX_IN_A_ROW: usize = 64;

/// An accepted connection, in the event loop of the worker that serves it.
pub struct Incoming<S = TcpStream> {
    /// Its socket.
    pub tcp: S,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// Its permit among all connections.
    pub permit: ConnectionPermit,
    /// Whether it speaks TLS.
    pub is_tls: bool,
    /// Whether its socket is a Unix one, of which nothing may be asked that only TCP has.
    pub is_unix: bool,
}

impl<S> Incoming<S> {
    fn try_map<T>(self, map: impl FnOnce(S) -> io::Result<T>) -> io::Result<Incoming<T>> {
        Ok(Incoming {
            tcp: map(self.tcp)?,
            peer: self.peer,
            permit: self.permit,
            is_tls: self.is_tls,
            is_unix: self.is_unix,
        })
    }
}

pub(super) enum ConnectionSource {
    Acceptor(Acceptor),
    Queue(mpsc::Receiver<Accepted>),
}

/// The listening sockets.
pub(super) struct Acceptor {
    sockets: Vec<Source>,
    /// Which of them is asked first: the one after that which gave the last connection.
    first: usize,
    /// Of the other workers.
    queues: Vec<mpsc::Sender<Accepted>>,
    /// Whose turn it is: the worker's own, then those of `queues`.
    turn: usize,
    /// Accepted since the worker last looked after its others.
    in_a_row: usize,
    permits: Arc<ConnectionPermits>,
    /// Since when all permits are taken.
    full_since: Option<Instant>,
}

/// One of them; its fields are dropped in this order.
struct Source {
    _on_close: Option<Box<dyn Send>>,
    socket: WatchedSocket,
    is_tls: bool,
}

/// The other workers' queues, both ends.
pub(super) fn queues(count: usize) -> (Vec<mpsc::Sender<Accepted>>, Vec<mpsc::Receiver<Accepted>>) {
    (0..count).map(|_| mpsc::channel(MAX_QUEUED)).unzip()
}

impl ConnectionSource {
    /// The next connection of this worker; `None` if there will be no more.
    pub(super) async fn next(&mut self) -> Option<Incoming> {
        let queue = match self {
            Self::Acceptor(acceptor) => return Some(acceptor.next().await),
            Self::Queue(queue) => queue,
        };
        loop {
            let accepted = queue.recv().await?;
            let peer = accepted.peer;
            match accepted.try_map(TcpStream::from_std) {
                Ok(incoming) => return Some(incoming),
                Err(error) => {
                    let text = "the connection cannot be watched; it is closed";
                    limited!(warn, text, None, { %peer, %error, }, text);
                }
            }
        }
    }
}

impl Acceptor {
    /// Has to be called in the worker's runtime, which then watches the sockets.
    pub(super) fn new(
        listeners: Vec<Listener>,
        queues: Vec<mpsc::Sender<Accepted>>,
        permits: Arc<ConnectionPermits>,
    ) -> io::Result<Self> {
        let watch = |listener: Listener| {
            Ok(Source {
                _on_close: listener.on_close,
                socket: WatchedSocket::new(listener.socket)?,
                is_tls: listener.is_tls,
            })
        };
        Ok(Self {
            sockets: listeners
                .into_iter()
                .map(watch)
                .collect::<io::Result<_>>()?,
            first: 0,
            queues,
            turn: 0,
            in_a_row: 0,
            permits,
            full_since: None,
        })
    }

    async fn next(&mut self) -> Incoming {
        loop {
            self.in_a_row += 1;
            if self.in_a_row > MAX_IN_A_ROW {
                self.in_a_row = 0;
                tokio::task::yield_now().await;
            }
            self.wait_for_place().await;
            match poll_fn(|cx| self.poll_accept(cx)).await {
                Ok((stream, peer, at)) => {
                    if let Some(incoming) = self.admit(stream, peer, at) {
                        return incoming;
                    }
                }
                // A client that went before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                // Mostly "too many open files": connections have to go first.
                Err(error) => {
                    let text = "cannot accept connections; trying again in 100 ms";
                    limited!(error, text, None, { %error, }, text);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// A connection, and which of the sockets it is from. Each has its turn, so that many
    /// connections to one keep nobody waiting who connects to another.
    fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(Stream, SocketAddr, usize)>> {
        let count = self.sockets.len();
        for further in 0..count {
            let at = (self.first + further) % count;
            if let Poll::Ready(accepted) = self.sockets[at].socket.poll_accept(cx) {
                self.first = at + 1;
                return Poll::Ready(accepted.map(|(stream, peer)| (stream, peer, at)));
            }
        }
        Poll::Pending
    }

    /// Gives a connection its permit; returns it if it is this worker's own.
    fn admit(&mut self, tcp: Stream, peer: SocketAddr, at: usize) -> Option<Incoming> {
        let Some(permit) = self.permits.take(peer.ip()) else {
            self.permits.count_dropped();
            let text = "closed a connection whose address has all that it may have \
                        (RESOUND_MAX_CONNECTIONS_PER_ADDRESS)";
            limited!(warn, text, None, { %peer, }, text);
            return None;
        };
        let source = &self.sockets[at];
        let incoming = Incoming {
            tcp,
            peer,
            permit,
            is_tls: source.is_tls,
            is_unix: source.socket.is_unix(),
        };
        self.turn = (self.turn + 1) % (self.queues.len() + 1);
        let moved = if self.turn == 0 {
            incoming.try_map(Stream::into_watched).map(Some)
        } else {
            let accepted = incoming.try_map(Stream::into_unwatched);
            accepted.map(|accepted| {
                self.hand_on(accepted);
                None
            })
        };
        moved.unwrap_or_else(|error| {
            let text = "an accepted connection is lost";
            limited!(warn, text, None, { %peer, %error, }, text);
            None
        })
    }

    /// Waits while all permits are taken, for idle connections that make room: those who
    /// connect meanwhile wait in the kernel's queue.
    async fn wait_for_place(&mut self) {
        while self.permits.are_taken() {
            let since = *self.full_since.get_or_insert_with(Instant::now);
            self.permits.ask_for_one();
            tokio::time::sleep(Duration::from_millis(1)).await;
            if since.elapsed() > Duration::from_secs(1) {
                self.full_since = None;
                let text = "cannot accept connections: for a second all permits were taken by connections \
                            that are in use; raise the limit of open files (ulimit -Hn, LimitNOFILE)";
                limited!(error, text, None, {}, text);
            }
        }
        self.full_since = None;
    }

    /// Gives a connection to the worker whose turn it is, or to the next that can
    /// take it; gives up, which closes it, if none of the others can: they have stalled.
    fn hand_on(&mut self, mut accepted: Accepted) {
        let peer = accepted.peer;
        for further in 0..self.queues.len() {
            let queue = &self.queues[(self.turn - 1 + further) % self.queues.len()];
            match queue.try_send(accepted) {
                Ok(()) => return,
                Err(Full(back) | Closed(back)) => accepted = back,
            }
        }
        self.permits.count_dropped();
        let text = "no worker can take another connection; it is closed";
        limited!(warn, text, None, { %peer, }, text);
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream as Dialled;

    use super::*;

    #[tokio::test]
    async fn whoever_connects_to_one_socket_does_not_wait_for_all_who_connect_to_another() {
        let listen = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let sockets = [listen(), listen(), listen()];
        let dial = |at: usize, count: usize| -> Vec<Dialled> {
            let address = sockets[at].local_addr().unwrap();
            let dial = |_| Dialled::connect(address).unwrap();
            (0..count).map(dial).collect()
        };
        let dialled = [dial(0, 50), dial(1, 2), dial(2, 50)];
        let listeners = sockets.map(|socket| {
            socket.set_nonblocking(true).unwrap();
            Listener::from(socket)
        });
        let permits = Arc::new(ConnectionPermits::new(1000, 500, None));
        let mut acceptor = Acceptor::new(listeners.into(), Vec::new(), permits).unwrap();
        // All of them are known to be ready.
        tokio::task::yield_now().await;
        let mut others = 0;
        let mut own = 0;
        while own < 2 {
            let incoming = acceptor.next().await;
            let mut own_peers = dialled[1].iter().map(|own| own.local_addr().unwrap());
            if own_peers.any(|peer| peer == incoming.peer) {
                own += 1;
            } else {
                others += 1;
            }
        }
        assert!(others <= 6, "{others} came before");
        for _ in 0..100 - others {
            acceptor.next().await;
        }
    }
}

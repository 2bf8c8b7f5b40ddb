//! Where a worker's connections come from. The first worker accepts them and gives
//! every worker its turn, itself included; the others get theirs through a queue.
//!
//! A thread of its own that accepts would have to wake a worker for every connection,
//! and every connection would be registered with two event loops, not only those that
//! another worker gets.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError::{Closed, Full};

use super::permits::{ConnectionPermit, ConnectionPermits};
use crate::telemetry::limit::limited;

/// A connection that is in no event loop.
type Accepted = (std::net::TcpStream, SocketAddr, ConnectionPermit);

/// Accepted connections that may wait for a worker.
const MAX_QUEUED: usize = 1024;

/// Connections that are accepted in a row, before the worker looks after its others.
const MAX_IN_A_ROW: usize = 64;

/// An accepted connection, in the event loop of the worker that serves it.
pub struct Incoming {
    /// Its socket.
    pub tcp: TcpStream,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// Its permit among all connections.
    pub permit: ConnectionPermit,
}

pub(super) enum ConnectionSource {
    Acceptor(Acceptor),
    Queue(mpsc::Receiver<Accepted>),
}

/// The listening socket.
pub(super) struct Acceptor {
    listener: TcpListener,
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
            let (stream, peer, permit) = queue.recv().await?;
            match TcpStream::from_std(stream) {
                Ok(tcp) => return Some(Incoming { tcp, peer, permit }),
                Err(error) => {
                    let text = "the connection cannot be watched; it is closed";
                    limited!(warn, text, None, { %peer, %error, }, text);
                }
            }
        }
    }
}

impl Acceptor {
    /// Has to be called in the worker's runtime, which then watches the socket.
    pub(super) fn new(
        listener: std::net::TcpListener,
        queues: Vec<mpsc::Sender<Accepted>>,
        permits: Arc<ConnectionPermits>,
    ) -> io::Result<Self> {
        Ok(Self {
            listener: TcpListener::from_std(listener)?,
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
            match self.listener.accept().await {
                Ok((tcp, peer)) => match self.permits.take(peer.ip()) {
                    Some(permit) => {
                        self.turn = (self.turn + 1) % (self.queues.len() + 1);
                        if self.turn == 0 {
                            return Incoming { tcp, peer, permit };
                        }
                        self.hand_on(tcp, peer, permit);
                    }
                    None => {
                        self.permits.count_dropped();
                        let text = "closed a connection whose address has all that it may have \
                                    (RESOUND_MAX_CONNECTIONS_PER_ADDRESS)";
                        limited!(warn, text, None, { %peer, }, text);
                    }
                },
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
    fn hand_on(&mut self, stream: TcpStream, peer: SocketAddr, permit: ConnectionPermit) {
        let mut accepted = match stream.into_std() {
            Ok(stream) => (stream, peer, permit),
            Err(error) => {
                let text = "an accepted connection is lost";
                limited!(warn, text, None, { %peer, %error, }, text);
                return;
            }
        };
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

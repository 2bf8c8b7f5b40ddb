//! Where a worker's connections come from. The first worker accepts them and gives
//! every worker its turn, itself included; the others get theirs through a queue.
//!
//! A thread of its own that accepts would have to wake a worker for every connection,
//! and every connection would be registered with two event loops, not only those that
//! another worker gets.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError::{Closed, Full};

/// A connection that is in no event loop.
type Accepted = (std::net::TcpStream, SocketAddr);

/// Accepted connections that may wait for a worker.
const QUEUE: usize = 1024;

/// Connections that are accepted in a row, before the worker looks after its others.
const IN_A_ROW: usize = 64;

pub(super) enum Intake {
    Door(Door),
    Queue(mpsc::Receiver<Accepted>),
}

/// The listening socket.
pub(super) struct Door {
    listener: TcpListener,
    /// Of the other workers.
    queues: Vec<mpsc::Sender<Accepted>>,
    /// Whose turn it is: the worker's own, then those of `queues`.
    turn: usize,
    /// Accepted since the worker last looked after its others.
    in_a_row: usize,
}

/// The other workers' queues, both ends.
pub(super) fn queues(count: usize) -> (Vec<mpsc::Sender<Accepted>>, Vec<mpsc::Receiver<Accepted>>) {
    (0..count).map(|_| mpsc::channel(QUEUE)).unzip()
}

impl Intake {
    /// The next connection of this worker; `None` if there will be no more.
    pub(super) async fn next(&mut self) -> Option<(TcpStream, SocketAddr)> {
        let queue = match self {
            Self::Door(door) => return Some(door.next().await),
            Self::Queue(queue) => queue,
        };
        loop {
            let (stream, peer) = queue.recv().await?;
            match TcpStream::from_std(stream) {
                Ok(stream) => return Some((stream, peer)),
                Err(error) => {
                    tracing::warn!(%peer, %error, "the connection cannot be watched; it is closed");
                }
            }
        }
    }
}

impl Door {
    /// Has to be called in the worker's runtime, which then watches the socket.
    pub(super) fn new(
        listener: std::net::TcpListener,
        queues: Vec<mpsc::Sender<Accepted>>,
    ) -> io::Result<Self> {
        Ok(Self {
            listener: TcpListener::from_std(listener)?,
            queues,
            turn: 0,
            in_a_row: 0,
        })
    }

    async fn next(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            self.in_a_row += 1;
            if self.in_a_row > IN_A_ROW {
                self.in_a_row = 0;
                tokio::task::yield_now().await;
            }
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    self.turn = (self.turn + 1) % (self.queues.len() + 1);
                    if self.turn == 0 {
                        return (stream, peer);
                    }
                    self.hand_on(stream, peer);
                }
                // A client that went before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                // Mostly "too many open files": connections have to go first.
                Err(error) => {
                    tracing::error!(%error, "cannot accept connections; trying again in 100 ms");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Gives a connection to the worker whose turn it is, or to the next that can
    /// take it; gives up, which closes it, if none of the others can: they have stalled.
    fn hand_on(&mut self, stream: TcpStream, peer: SocketAddr) {
        let mut accepted = match stream.into_std() {
            Ok(stream) => (stream, peer),
            Err(error) => return tracing::warn!(%peer, %error, "an accepted connection is lost"),
        };
        for further in 0..self.queues.len() {
            let queue = &self.queues[(self.turn - 1 + further) % self.queues.len()];
            match queue.try_send(accepted) {
                Ok(()) => return,
                Err(Full(back) | Closed(back)) => accepted = back,
            }
        }
        tracing::warn!(%peer, "no worker can take another connection; it is closed");
    }
}

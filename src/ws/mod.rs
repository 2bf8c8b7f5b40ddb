//! WebSocket connections.
//!
//! [`handshake`] decides whether a request becomes a WebSocket, and on which
//! terms; [`session`] answers what the client then sends.
//! A session that goes on in another worker is written down and read back in `state`.
//! [`arrivals`] counts connections by address; [`log`] logs why one is refused.

pub mod arrivals;
mod bucket;
mod dispatch;
pub mod handshake;
pub mod log;
pub mod session;
mod state;
mod subscription;
mod traffic;

//! Front door 2: WebSocket connections.
//!
//! [`handshake`] decides whether a request becomes a WebSocket, and on which
//! terms; [`session`] answers what the client then sends.
//! [`arrivals`] counts connections by address; [`log`] tells why one is refused.

pub mod arrivals;
mod bucket;
pub mod handshake;
pub mod log;
pub mod session;
mod subscription;

//! Front door 2: WebSocket connections.
//!
//! [`handshake`] decides whether a request becomes a WebSocket, and on which
//! terms; [`session`] answers what the client then sends.

pub mod handshake;
pub mod session;

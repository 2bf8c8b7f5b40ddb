//! The Pusher protocol, pure: bytes or text in, values out.
//!
//! Nothing in here knows a socket, a clock, a lock or a runtime; time and
//! randomness are passed in. Both interfaces ([`crate::ws`] and
//! [`crate::api`]) turn what they receive into the types of this module at
//! their edge, and everything that is sent is encoded here, once.
//!
//! Facts are those of Pusher's WebSocket protocol 7 and of what Laravel Reverb
//! really sends, where the two differ and an unchanged application would notice.

pub mod channel;
pub mod client;
pub mod close;
pub mod complexity;
pub mod frame;
pub mod member;
pub mod message;
pub mod publish;
pub mod signature;
pub mod socket_id;

pub use channel::{ChannelKind, ChannelName, ChannelNameError};
pub use client::{ClientFrame, InvalidFrame};
pub use close::{CloseReason, ErrorCode};
pub use frame::Frame;
pub use member::{Member, User};
pub use socket_id::SocketId;

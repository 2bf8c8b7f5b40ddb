//! The link to other nodes through Redis: connections, the session, and what it sends and
//! receives.

pub(super) mod connect;
pub(super) mod keys;
pub(super) mod link;
mod occupancy;
mod pipeline;
mod receive;
pub(super) mod scripts;
mod session;
pub mod snapshot;
pub(super) mod state;
pub(super) mod supervisor;
mod sync;

//! The commands that ask a server of Pusher's protocol: `publish`, `listen`, `channels`,
//! `users`, `terminate`, and `apps new`, which asks nobody.
//!
//! They take the credentials from the settings that the server is started with, so that on
//! its machine, or in the directory of the Laravel project, they need no flags; with `--url`
//! they ask any other one.

mod access;
mod apps;
mod listen;
mod output;
mod publish;
mod queries;

use std::io;

pub use access::{AccessError, choose, credentials, local};
pub use apps::new_app;
pub use listen::listen;
pub use output::visible;
pub use publish::publish;
pub use queries::{channels, terminate, users};

use crate::client::ClientError;
use crate::client::socket::SocketError;

/// Why a command has not done what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The settings do not say which server or application is meant.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// An argument cannot be used.
    #[error("{0}")]
    Argument(String),
    /// The server was not asked, or has not done it.
    #[error("{0}{1}")]
    Client(#[source] ClientError, &'static str),
    /// The socket has ended.
    #[error("{0}{1}")]
    Socket(#[source] SocketError, &'static str),
    /// The server has refused a channel.
    #[error("{channel}: {reason}")]
    Subscription {
        /// Which.
        channel: String,
        /// What it said.
        reason: String,
    },
    /// Standard input could not be read.
    #[error("cannot read standard input: {0}")]
    Input(io::Error),
    /// Standard output could not be written.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    /// The system has no random numbers, or no more of something else.
    #[error("{0}")]
    System(String),
}

impl ToolError {
    /// Whether the person who called it has to change something, rather than the server.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Access(_) | Self::Argument(_))
    }
}

//! A connection as plain data.
//!
//! [`ConnectionState`] is everything that a live connection is, in values that mean the
//! same in another worker and in another process: no place in a table, no instant, no
//! handle. Channels are names, deadlines are times left, frames are bytes. It can be
//! written down with any serde format and read back.
//!
//! What cannot be written down goes beside it, in [`Frozen`]: the TCP stream, and the
//! permits that the connection holds in the quotas ([`Guards`]). A move within the process
//! passes both on; a move to another process passes the stream on, and takes the permits
//! anew there.
//!
//! Not in here: the settings of the application, which whoever thaws looks up by its id,
//! and TLS, whose session rustls does not export: freezing a TLS connection is refused.
//!
//! # At any byte
//!
//! The parser's state is private to tungstenite. What it was given and has not returned as
//! a message is kept beside it (`unfinished`) and is part of [`Input::bytes`]: a fresh
//! parser that is given these bytes is where the old one was. Control frames that were
//! returned are not among them, so that no ping is answered twice.

use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::permits::ConnectionPermit;
use crate::hub::Slot;
use crate::protocol::{CloseReason, Member, User};

/// A connection that is served by nobody now: its state, and what cannot be written down.
#[derive(Debug)]
pub struct Frozen {
    /// What it is.
    pub state: ConnectionState,
    /// Its stream, non-blocking. What the client has sent and nobody has read is in it.
    pub tcp: TcpStream,
    /// The permits that it holds.
    pub guards: Guards,
}

/// The permits that a connection holds until they are dropped.
#[derive(Debug)]
pub struct Guards {
    /// In its application's quota and the process's.
    pub slot: Option<Slot>,
    /// Among all connections.
    pub permit: Option<ConnectionPermit>,
}

/// Why a connection cannot be frozen. It is as it was, but has ended if its stream is gone.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// Its TLS session cannot be exported.
    #[error("a TLS connection cannot be frozen: rustls does not export its session")]
    Tls,
    /// It has ended.
    #[error("the connection has ended")]
    Ended,
    /// The event loop does not let go of its stream.
    #[error("the stream cannot be taken out of the event loop: {0}")]
    Stream(std::io::Error),
}

/// Everything that a connection is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionState {
    /// As the client was told, `123.456`.
    pub socket_id: String,
    /// The page that it was opened from: the `Origin` header.
    pub origin: Option<String>,
    /// How far it is on its way to the end.
    pub phase: PhaseState,
    /// The channels that it has joined.
    pub subscriptions: Vec<SubscriptionState>,
    /// When something happens if the client is silent.
    pub deadlines: Deadlines,
    /// What was read and is not handled.
    pub input: Input,
    /// What is to be written.
    pub output: Output,
    /// What the layer above knows of it.
    pub session: SessionState,
}

/// How far a connection is on its way to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PhaseState {
    /// It is used.
    Open,
    /// It has left all channels; a close frame is in the output, or was written.
    Closing {
        /// Why.
        reason: CloseReason,
        /// How long its client may take to go.
        time_left: Duration,
        /// Whether everything is written, and our half of the stream is shut.
        is_shut: bool,
    },
}

/// A channel that a connection has joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionState {
    /// Its name.
    pub channel: String,
    /// Who the connection is in it, if it is a presence channel.
    pub member: Option<MemberState>,
    /// The number of the last message of the channel that it got or that is in the output;
    /// none while it waits for the answer to its subscription.
    pub position: Option<u64>,
    /// Whether the answer to a further subscription is in the output.
    pub is_answer_pending: bool,
}

/// Who somebody is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberState {
    /// The id, as text.
    pub id: String,
    /// The id as JSON.
    pub id_json: String,
    /// `user_info` as JSON.
    pub info_json: String,
}

/// A sign-in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserState {
    /// Who it is.
    pub member: MemberState,
    /// Ids of the users that it watches.
    pub watchlist: Vec<String>,
    /// The frame that answers the sign-in, if it waits until other nodes can know of it.
    /// It waits in the hub, which a move within the process does not touch.
    pub waiting_answer: Option<Vec<u8>>,
    /// Whether it has not been sent yet who of its watchlist is online.
    pub awaits_watchlist: bool,
}

/// When something happens to a connection whose client is silent, as time left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadlines {
    /// Until it is pinged.
    pub ping: Duration,
    /// Until it is closed for want of a pong, if it was pinged.
    pub pong: Option<Duration>,
    /// Until it is closed unless it has signed in or joined a private channel, if it has to.
    pub authorization: Option<Duration>,
}

/// What was read and is not handled.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// A message that waits for room in the workers' inboxes.
    pub waiting_message: Option<String>,
    /// The bytes that follow the last message that was returned: WebSocket frames of which
    /// the last may be cut off anywhere. Fragments of an unfinished message are one frame.
    #[serde(with = "base64")]
    pub bytes: Vec<u8>,
    /// Whether a frame could not be read: where the next one begins is not known.
    pub is_unreadable: bool,
}

/// What is to be written.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// The answer to the handshake, as far as it was kept, and whole frames.
    #[serde(with = "base64")]
    pub bytes: Vec<u8>,
    /// How many of these bytes are the handshake's.
    pub head: usize,
    /// How many were written: part of the first frame, or of the head.
    pub written: usize,
    /// How many are answers to what the client has asked for, at most.
    pub answers: usize,
}

/// What the layer above knows of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionState {
    /// The application's id.
    pub app: String,
    /// Who has connected.
    pub peer: SocketAddr,
    /// Who it is, if it has signed in.
    pub user: Option<UserState>,
    /// Until it may send as many messages at once as the limit allows, if there is one.
    pub full_message_rate_in: Option<Duration>,
    /// The same for client events.
    pub full_client_event_rate_in: Option<Duration>,
    /// The same for channels that it may be the first here to join; none if it may join all.
    pub full_new_topic_rate_in: Option<Duration>,
    /// Whether the next message has waited for room long enough.
    pub has_waited: bool,
    /// How long ago it was opened.
    pub age: Duration,
    /// Messages of the client that were handled.
    pub received: u32,
    /// Bytes of them.
    pub received_bytes: u64,
}

/// Bytes as text: written as a list of numbers they would take four times as much.
mod base64 {
    use data_encoding::BASE64;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        BASE64.decode(text.as_bytes()).map_err(D::Error::custom)
    }
}

/// Without what the client has said.
impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input")
            .field("waiting", &self.waiting_message.as_ref().map(String::len))
            .field("len", &self.bytes.len())
            .field("is_unreadable", &self.is_unreadable)
            .finish()
    }
}

/// Without what is to be said.
impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output")
            .field("len", &self.bytes.len())
            .field("head", &self.head)
            .field("written", &self.written)
            .field("answers", &self.answers)
            .finish()
    }
}

impl From<&Member> for MemberState {
    fn from(member: &Member) -> Self {
        Self {
            id: member.id.to_string(),
            id_json: member.id_json.to_string(),
            info_json: member.info_json.to_string(),
        }
    }
}

impl From<&User> for UserState {
    /// As if its sign-in was answered.
    fn from(user: &User) -> Self {
        Self {
            member: (&user.member).into(),
            watchlist: user.watchlist.iter().map(ToString::to_string).collect(),
            waiting_answer: None,
            awaits_watchlist: false,
        }
    }
}

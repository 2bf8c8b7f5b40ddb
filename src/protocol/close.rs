//! Error codes of the Pusher protocol, and the reasons for which a connection ends.

use serde::{Deserialize, Serialize};

/// Codes of `pusher:error` (Pusher's WebSocket protocol, "Error codes").
///
/// 4000–4099 tell a client not to come back unchanged, 4100–4199 to come back
/// after a second, 4200–4299 to come back at once; 43xx are only ever sent as
/// frames, because pusher-js gives up for good when it is closed with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum ErrorCode {
    /// The application key is unknown.
    ApplicationDoesNotExist = 4001,
    /// The application has all the connections it may have.
    OverConnectionQuota = 4004,
    /// Not authorised: a signature, an origin.
    Unauthorized = 4009,
    /// The server cannot keep up with this client.
    OverCapacity = 4100,
    /// A frame that makes no sense.
    InvalidMessage = 4200,
    /// The client did not answer a ping.
    PongNotReceived = 4201,
    /// A client event was refused, or a rate limit exceeded.
    ClientEventRejected = 4301,
    /// A watchlist was cut.
    WatchlistLimit = 4302,
}

impl ErrorCode {
    /// The number on the wire.
    pub fn number(self) -> u16 {
        self as u16
    }
}

/// Why a connection ended. Every end has exactly one; it is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CloseReason {
    /// The client sent a close frame.
    ByClient,
    /// The TCP connection ended or broke without a close frame.
    Gone,
    /// No application has this key.
    ApplicationDoesNotExist,
    /// The application's `max_connections` is reached.
    OverConnectionQuota,
    /// The process has all the connections that its open files allow.
    OverCapacity,
    /// The `Origin` header is not among the application's `allowed_origins`.
    OriginNotAllowed,
    /// Neither signed in nor subscribed to a private or presence channel in time.
    NotAuthorized,
    /// The application had the user's connections closed.
    Terminated,
    /// The same, and clients come back, to be authorised again.
    TerminatedToReconnect,
    /// More messages than allowed, and the application wants that closed.
    RateLimited,
    /// Too many connections in a short time from one address.
    TooManyConnections,
    /// Silent for too long, pings included.
    PongNotReceived,
    /// A message over the application's `max_message_size`.
    MessageTooBig,
    /// Against RFC 6455.
    ProtocolError,
    /// Text that is not UTF-8.
    InvalidPayload,
    /// The client reads slower than its channels send.
    TooSlow,
    /// The server is going down.
    ShuttingDown,
    /// The server is going down, and another one is there to connect to.
    Draining,
}

impl CloseReason {
    /// All reasons, in the order of their numbers.
    pub const ALL: &'static [Self] = &[
        Self::ByClient,
        Self::Gone,
        Self::ApplicationDoesNotExist,
        Self::OverConnectionQuota,
        Self::OverCapacity,
        Self::OriginNotAllowed,
        Self::NotAuthorized,
        Self::Terminated,
        Self::TerminatedToReconnect,
        Self::RateLimited,
        Self::TooManyConnections,
        Self::PongNotReceived,
        Self::MessageTooBig,
        Self::ProtocolError,
        Self::InvalidPayload,
        Self::TooSlow,
        Self::ShuttingDown,
        Self::Draining,
    ];

    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Its name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::ByClient => "by_client",
            Self::Gone => "gone",
            Self::ApplicationDoesNotExist => "application_does_not_exist",
            Self::OverConnectionQuota => "over_connection_quota",
            Self::OverCapacity => "over_capacity",
            Self::OriginNotAllowed => "origin_not_allowed",
            Self::NotAuthorized => "not_authorized",
            Self::Terminated => "terminated",
            Self::TerminatedToReconnect => "terminated_to_reconnect",
            Self::RateLimited => "rate_limited",
            Self::TooManyConnections => "too_many_connections",
            Self::PongNotReceived => "pong_not_received",
            Self::MessageTooBig => "message_too_big",
            Self::ProtocolError => "protocol_error",
            Self::InvalidPayload => "invalid_payload",
            Self::TooSlow => "too_slow",
            Self::ShuttingDown => "shutting_down",
            Self::Draining => "draining",
        }
    }

    /// The close code of RFC 6455 or of Pusher's table, and its text; `None`
    /// where there is nobody left to tell.
    pub fn code(self) -> Option<(u16, &'static str)> {
        match self {
            Self::ByClient | Self::Gone => None,
            Self::ApplicationDoesNotExist => Some((4001, "Application does not exist")),
            Self::OverConnectionQuota => Some((4004, "Application is over connection quota")),
            Self::OverCapacity => Some((4100, "Server is over capacity")),
            Self::OriginNotAllowed => Some((4009, "Origin not allowed")),
            Self::NotAuthorized => Some((4009, "Connection not authorized in time")),
            Self::Terminated => Some((4009, "Connection terminated by the application")),
            Self::TerminatedToReconnect => {
                Some((4200, "Connection terminated by the application, reconnect"))
            }
            // Not 4301: pusher-js would give up for good.
            Self::RateLimited => Some((4100, "Rate limit exceeded")),
            Self::TooManyConnections => Some((4100, "Too many connections from this address")),
            Self::PongNotReceived => Some((4201, "Pong reply not received in time")),
            Self::MessageTooBig => Some((
                1009,
                "Maximum message size exceeded (max_message_size, REVERB_APP_MAX_MESSAGE_SIZE)",
            )),
            Self::ProtocolError => Some((1002, "WebSocket protocol error")),
            Self::InvalidPayload => Some((1007, "Text is not valid UTF-8")),
            Self::TooSlow => Some((4100, "Messages are not read fast enough")),
            Self::ShuttingDown => Some((1001, "Server is shutting down")),
            // Clients connect again at once (Pusher's protocol, "4200-4299").
            Self::Draining => Some((4200, "Server is going down, reconnect")),
        }
    }

    /// The `pusher:error` that goes before the close frame, for clients that
    /// cannot see close codes.
    pub fn error(self) -> Option<ErrorCode> {
        match self {
            Self::ApplicationDoesNotExist => Some(ErrorCode::ApplicationDoesNotExist),
            Self::OverConnectionQuota => Some(ErrorCode::OverConnectionQuota),
            Self::OriginNotAllowed | Self::NotAuthorized | Self::Terminated => {
                Some(ErrorCode::Unauthorized)
            }
            Self::RateLimited => Some(ErrorCode::ClientEventRejected),
            Self::PongNotReceived => Some(ErrorCode::PongNotReceived),
            Self::OverCapacity | Self::TooSlow | Self::TooManyConnections => {
                Some(ErrorCode::OverCapacity)
            }
            Self::ByClient
            | Self::Gone
            | Self::MessageTooBig
            | Self::ProtocolError
            | Self::InvalidPayload
            | Self::TerminatedToReconnect
            | Self::ShuttingDown
            | Self::Draining => None,
        }
    }
}

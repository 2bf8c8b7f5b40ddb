//! A WebSocket that speaks Pusher's protocol: connected, subscribed, kept alive.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Message as Frame, protocol::WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::http::{AGENT, cut, escape};
use super::{ClientError, Credentials, Endpoint, Stream, connect};

/// How long a server may take for its pong (pusher-js waits as long).
const PONG_TIMEOUT: Duration = Duration::from_secs(30);

/// Silence after which a ping is sent to a server that asks for none (pusher-js' own).
const DEFAULT_ACTIVITY_TIMEOUT: u64 = 120;

/// Bytes of a message of the server.
const MAX_MESSAGE: usize = 64 << 20;

/// A socket that the server has taken.
pub struct Socket {
    stream: WebSocketStream<Stream>,
    endpoint: String,
    /// What the server calls it.
    pub id: String,
    /// Silence after which the client pings.
    activity_timeout: Duration,
    last_received: Instant,
    /// Until when a pong has to be there, if one is waited for.
    pong_by: Option<Instant>,
}

/// A message of the server.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// Its event, as on the wire.
    pub event: String,
    /// Its channel, if it has one.
    pub channel: Option<String>,
    /// What it carries: a text that is JSON is taken apart, any other is left as it is.
    pub data: Value,
    /// Who sent it, for client events of presence channels.
    pub user_id: Option<String>,
}

/// Why a socket is none, or none any more.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// It could not be connected.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The server has refused or closed it, and said why.
    #[error("{endpoint} closed the connection: {code} {reason}")]
    Closed {
        /// Who.
        endpoint: String,
        /// Pusher's code, or that of RFC 6455.
        code: u16,
        /// What it said.
        reason: String,
    },
    /// The connection was lost.
    #[error("{endpoint}: the connection was lost ({error})")]
    Lost {
        /// Who.
        endpoint: String,
        /// How.
        error: String,
    },
}

impl SocketError {
    /// How long to wait before the next try, at least; `None` if there is no use in one
    /// (Pusher's protocol, "Error codes", and what pusher-js makes of them).
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Closed { code, .. } => match code {
                4000..=4099 | 4300..=4999 => None,
                4200..=4299 => Some(Duration::ZERO),
                _ => Some(Duration::from_secs(1)),
            },
            Self::Client(ClientError::Refused { status, .. }) if *status < 500 => None,
            Self::Client(ClientError::Roots(_) | ClientError::Foreign { .. }) => None,
            Self::Client(_) | Self::Lost { .. } => Some(Duration::from_secs(1)),
        }
    }
}

#[derive(Deserialize)]
struct Wire {
    event: String,
    channel: Option<String>,
    #[serde(default)]
    data: Value,
    user_id: Option<Value>,
}

impl Socket {
    /// Connects as a browser of the page `origin` would, or as no browser does without one,
    /// and waits until the server has taken it.
    ///
    /// # Errors
    /// If that has not succeeded within `limit`.
    pub async fn connect(
        endpoint: &Endpoint,
        key: &str,
        origin: Option<&str>,
        limit: Duration,
    ) -> Result<Self, SocketError> {
        let opened = timeout(limit, Self::open(endpoint, key, origin)).await;
        opened.unwrap_or_else(|_| {
            Err(SocketError::Client(ClientError::TimedOut {
                endpoint: endpoint.to_string(),
                limit,
            }))
        })
    }

    async fn open(
        endpoint: &Endpoint,
        key: &str,
        origin: Option<&str>,
    ) -> Result<Self, SocketError> {
        let foreign = |what: String| ClientError::Foreign {
            endpoint: endpoint.to_string(),
            what,
        };
        let path = format!("{}/app/{}", endpoint.prefix, escape(key));
        let version = env!("CARGO_PKG_VERSION");
        let uri = format!(
            "ws://{}{path}?protocol=7&client=resound&version={version}",
            endpoint.authority()
        );
        let mut request = uri
            .into_client_request()
            .map_err(|error| foreign(error.to_string()))?;
        let headers = request.headers_mut();
        headers.insert("user-agent", HeaderValue::from_static(AGENT));
        if let Some(origin) = origin {
            let origin = HeaderValue::from_str(origin);
            let origin =
                origin.map_err(|_| foreign("the origin is no header's value".to_owned()))?;
            headers.insert("origin", origin);
        }
        let stream = connect(endpoint).await?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let opened = client_async_with_config(request, stream, Some(config)).await;
        let (stream, _) = opened.map_err(|error| match error {
            WsError::Http(answer) => ClientError::Refused {
                endpoint: endpoint.to_string(),
                request: format!("GET {path}"),
                status: answer.status().as_u16(),
                body: cut(&String::from_utf8_lossy(
                    answer.body().as_deref().unwrap_or_default(),
                )),
            },
            other => ClientError::Lost {
                endpoint: endpoint.to_string(),
                error: other.to_string(),
            },
        })?;
        let mut socket = Self {
            stream,
            endpoint: endpoint.to_string(),
            id: String::new(),
            activity_timeout: Duration::from_secs(DEFAULT_ACTIVITY_TIMEOUT),
            last_received: Instant::now(),
            pong_by: None,
        };
        socket.wait_until_established().await?;
        Ok(socket)
    }

    async fn wait_until_established(&mut self) -> Result<(), SocketError> {
        let message = self.next().await?;
        let data = &message.data;
        match message.event.as_str() {
            "pusher:connection_established" => {
                self.id = data["socket_id"].as_str().unwrap_or_default().to_owned();
                let seconds = data["activity_timeout"].as_u64().filter(|it| *it > 0);
                let seconds = seconds.unwrap_or(DEFAULT_ACTIVITY_TIMEOUT);
                self.activity_timeout = Duration::from_secs(seconds.min(DEFAULT_ACTIVITY_TIMEOUT));
                Ok(())
            }
            "pusher:error" => Err(SocketError::Closed {
                endpoint: self.endpoint.clone(),
                code: data["code"]
                    .as_u64()
                    .and_then(|code| code.try_into().ok())
                    .unwrap_or_default(),
                reason: data["message"].as_str().unwrap_or_default().to_owned(),
            }),
            other => Err(SocketError::Client(ClientError::Foreign {
                endpoint: self.endpoint.clone(),
                what: format!(
                    "its first message is {other:?}: it does not speak Pusher's protocol"
                ),
            })),
        }
    }

    /// Silence after which it pings.
    pub fn activity_timeout(&self) -> Duration {
        self.activity_timeout
    }

    /// Asks to join a channel; the application signs where that is needed. `member` is the
    /// data of presence channels, JSON with `user_id`. The answer comes as a message.
    ///
    /// # Errors
    /// If the connection is lost.
    pub async fn subscribe(
        &mut self,
        app: &Credentials,
        channel: &str,
        member: &str,
    ) -> Result<(), SocketError> {
        use crate::protocol::channel::ChannelKind;
        let kind = ChannelKind::of(channel);
        let member = kind.is_presence().then_some(member);
        let mut data = json!({ "channel": channel });
        if kind.needs_signature() {
            data["auth"] = app.sign_subscription(&self.id, channel, member).into();
        }
        if let Some(member) = member {
            data["channel_data"] = member.into();
        }
        self.send(&json!({ "event": "pusher:subscribe", "data": data }))
            .await
    }

    /// Returns the next message, and answers pings meanwhile.
    ///
    /// # Errors
    /// If the connection has ended, or nothing is received from the server.
    pub async fn next(&mut self) -> Result<Message, SocketError> {
        loop {
            let due = self
                .pong_by
                .unwrap_or(self.last_received + self.activity_timeout);
            let Ok(read) = timeout_at(due, self.stream.next()).await else {
                if self.pong_by.is_some() {
                    return Err(self.lost("the server does not answer a ping"));
                }
                self.pong_by = Some(Instant::now() + PONG_TIMEOUT);
                self.send(&json!({ "event": "pusher:ping", "data": {} }))
                    .await?;
                continue;
            };
            self.last_received = Instant::now();
            self.pong_by = None;
            let text = match read {
                Some(Ok(Frame::Text(text))) => text,
                Some(Ok(Frame::Close(frame))) => {
                    let (code, reason) = frame.map_or((1005, String::new()), |frame| {
                        (frame.code.into(), frame.reason.to_string())
                    });
                    return Err(SocketError::Closed {
                        endpoint: self.endpoint.clone(),
                        code,
                        reason: cut(&reason),
                    });
                }
                // tungstenite answers pings.
                Some(Ok(_)) => continue,
                Some(Err(error)) => return Err(self.lost(&error.to_string())),
                None => return Err(self.lost("it was closed without a word")),
            };
            let message = self.read(&text)?;
            match message.event.as_str() {
                "pusher:ping" => {
                    self.send(&json!({ "event": "pusher:pong", "data": {} }))
                        .await?;
                }
                "pusher:pong" => {}
                _ => return Ok(message),
            }
        }
    }

    fn read(&self, text: &str) -> Result<Message, SocketError> {
        let wire: Wire = serde_json::from_str(text).map_err(|_| ClientError::Foreign {
            endpoint: self.endpoint.clone(),
            what: format!(
                "it sent what is no message of Pusher's protocol: {}",
                cut(text)
            ),
        })?;
        let data = match wire.data {
            Value::String(text) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
            other => other,
        };
        let text_of = |id| match id {
            Value::String(text) => text,
            other => other.to_string(),
        };
        Ok(Message {
            event: wire.event,
            channel: wire.channel,
            data,
            user_id: wire.user_id.map(text_of),
        })
    }

    async fn send(&mut self, message: &Value) -> Result<(), SocketError> {
        let frame = Frame::text(message.to_string());
        let sent = timeout(PONG_TIMEOUT, self.stream.send(frame)).await;
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.lost(&error.to_string())),
            Err(_) => Err(self.lost("the server does not read")),
        }
    }

    fn lost(&self, error: &str) -> SocketError {
        SocketError::Lost {
            endpoint: self.endpoint.clone(),
            error: error.to_owned(),
        }
    }
}

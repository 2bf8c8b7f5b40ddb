//! The signed HTTP API.
//!
//! A request is verified into [`auth::Authorized`] before anything else looks at
//! it; its body becomes typed values; from there on nothing is checked again.

mod access;
pub mod auth;
mod body;
mod connections;
mod events;
mod idempotency;
mod log;
mod queries;
mod reply;
mod request_id;

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hyper::body::{Body, Incoming};
use hyper::http::request::Parts;
use hyper::{Method, Request};
use percent_encoding::percent_decode_str;

use crate::apps::{AppHandle, AppRegistry, Counter, Timing};
use crate::broker::Broker;
use crate::proxies::Client;
use access::Access;
use auth::{Authorized, Signed};
pub use idempotency::{Limits as IdempotencyLimits, Store as Requests};
pub use reply::{ApiError, Reply, json, json_with, text};
pub use request_id::RequestIds;

/// The applications, where their events go, and what requests are held to.
#[derive(Clone)]
pub struct Api {
    /// The applications.
    pub apps: Arc<AppRegistry>,
    /// Where events go.
    pub broker: Broker,
    /// Bytes of a request's body.
    pub max_request_size: usize,
    /// How long a body may take to arrive.
    pub request_timeout: Duration,
    /// How far a request's clock may be off.
    pub timestamp_tolerance: Option<Duration>,
    /// Prefix of every route; a client may sign with or without it.
    pub prefix: String,
    /// Whether each publish request is a line of the log.
    pub access_log: bool,
    /// Publishes of late, so that those that come again are known.
    pub requests: Arc<Requests>,
    /// What those are held to.
    pub idempotency: IdempotencyLimits,
}

/// What is logged of one request.
struct RequestLog<'h> {
    ids: RequestIds<'h>,
    access: Option<Box<Access>>,
}

/// A call below `/apps/{id}/`; names are decoded and not yet checked.
#[derive(Debug)]
enum Call {
    Events,
    BatchEvents,
    /// Deprecated by Pusher: the body is the data.
    ChannelEvents(String),
    Channels,
    Channel(String),
    Users(String),
    /// Deprecated by Pusher.
    Stats(String),
    Terminate(String),
    /// Resound's own: a user, or one connection, leaves a channel.
    Unsubscribe(String, Whom),
    /// Reverb's own, which Laravel Pulse asks.
    Connections,
}

/// Who leaves a channel.
#[derive(Debug)]
enum Whom {
    /// The user with this id.
    User(String),
    /// The connection with this id.
    Socket(String),
}

impl Call {
    fn is_publish(&self) -> bool {
        matches!(
            self,
            Self::Events | Self::BatchEvents | Self::ChannelEvents(_)
        )
    }

    /// The call that a path names, and the method that it takes.
    fn parse(path: &str) -> Option<(Self, Method)> {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        // One more than any call has, for whatever else there is.
        let (mut parts, mut count) = ([""; 6], 0);
        for (place, part) in parts.iter_mut().zip(path.splitn(6, '/')) {
            *place = part;
            count += 1;
        }
        Some(match parts[..count] {
            ["events"] => (Self::Events, Method::POST),
            ["batch_events"] => (Self::BatchEvents, Method::POST),
            ["channels"] => (Self::Channels, Method::GET),
            ["channels", name] => (Self::Channel(decoded(name)), Method::GET),
            ["channels", name, "users"] => (Self::Users(decoded(name)), Method::GET),
            ["channels", name, "stats"] => (Self::Stats(decoded(name)), Method::GET),
            ["channels", name, "events"] => (Self::ChannelEvents(decoded(name)), Method::POST),
            ["users", id, "terminate_connections"] => (Self::Terminate(decoded(id)), Method::POST),
            ["channels", name, whose, id, "unsubscribe"] => {
                let whom = match whose {
                    "users" => Whom::User(decoded(id)),
                    "sockets" => Whom::Socket(decoded(id)),
                    _ => return None,
                };
                (Self::Unsubscribe(decoded(name), whom), Method::POST)
            }
            ["connections"] => (Self::Connections, Method::GET),
            _ => return None,
        })
    }
}

impl Api {
    /// Answers a request for `/apps/{id}/{path}`. Calls `on_refusal` once it is clear
    /// that nobody wants the body, before that is read.
    pub async fn handle(
        &self,
        request: Request<Incoming>,
        (id, path): (&str, &str),
        client: Client,
        on_refusal: impl FnOnce(),
    ) -> Reply {
        let began = Instant::now();
        let (head, body) = request.into_parts();
        let app = self.apps.by_id(id);
        let counters = app.as_ref().map(AppHandle::counters);
        let counters = counters.unwrap_or(self.apps.unattributed());
        counters.count(Counter::HttpCalls);
        let call = Call::parse(path);
        let is_publish = call
            .as_ref()
            .is_some_and(|(call, method)| call.is_publish() && head.method == *method);
        let logged = RequestLog {
            ids: RequestIds::of(&head.headers),
            access: (self.access_log && is_publish).then(|| Access::new(began)),
        };
        let answer = async {
            let (call, signed) = match self.check(&head, (app.as_ref(), id), call) {
                Ok(checked) => checked,
                Err(error) => {
                    on_refusal();
                    body::discard(body, self.request_timeout).await;
                    return Err(error);
                }
            };
            let body = body::read(&head, body, self.max_request_size, self.request_timeout).await?;
            counters.add(Counter::HttpBytesReceived, body.len() as u64);
            if let Some(access) = &logged.access {
                access.read(body.len());
            }
            let request = signed.with_body(body)?;
            if request.app().is_removed() {
                return Err(ApiError::UnknownApp(id.to_owned()));
            }
            let reply = self
                .run_once(call, (&head.headers, began), &request, &logged)
                .await?;
            if is_publish {
                counters.observe(Timing::Publish, began.elapsed());
            }
            Ok(reply)
        };
        let mut reply = answer.await.unwrap_or_else(|error: ApiError| {
            counters.count(Counter::RequestsRefused(error.label()));
            log::refused(&error, app.as_ref(), (&head, &logged.ids), client);
            error.into_reply()
        });
        logged.ids.add_to(reply.headers_mut());
        if let Some(access) = &logged.access {
            access.end((&head, &logged.ids), app.as_ref(), client, &reply);
        }
        let size = reply.body().size_hint().lower();
        counters.add(Counter::HttpBytesSent, size);
        reply
    }

    /// Everything that can be checked before the body is read.
    fn check<'q>(
        &self,
        head: &'q Parts,
        (app, id): (Option<&AppHandle>, &str),
        call: Option<(Call, Method)>,
    ) -> Result<(Call, Signed<'q>), ApiError> {
        let (call, method) = call.ok_or(ApiError::NotFound)?;
        if head.method != method {
            return Err(ApiError::Method(if method == Method::GET {
                "GET"
            } else {
                "POST"
            }));
        }
        let app = app
            .cloned()
            .ok_or_else(|| ApiError::UnknownApp(id.to_owned()))?;
        let rules = auth::Rules {
            tolerance: self.timestamp_tolerance,
            prefix: &self.prefix,
            now: SystemTime::now(),
        };
        Ok((call, Signed::verify(head, app, &rules)?))
    }

    async fn run(
        &self,
        call: Call,
        request: &Authorized<'_>,
        logged: &RequestLog<'_>,
        published: &Cell<usize>,
    ) -> Result<Reply, ApiError> {
        // All but the most frequent call are boxed, or else each request would be as big as
        // the biggest of them.
        match call {
            Call::Events => self.events(request, logged, published).await,
            Call::BatchEvents => Box::pin(self.batch_events(request, logged, published)).await,
            Call::ChannelEvents(channel) => {
                Box::pin(self.channel_events(request, logged, &channel)).await
            }
            Call::Channels => Ok(Box::pin(self.channels(request)).await),
            Call::Channel(name) => Box::pin(self.channel(request, &name)).await,
            Call::Users(name) => Box::pin(self.users(request, &name)).await,
            Call::Stats(name) => Box::pin(self.stats(request, &name)).await,
            Call::Terminate(user) => self.terminate(request, &user),
            Call::Unsubscribe(channel, whom) => self.unsubscribe(request, &channel, whom),
            Call::Connections => Ok(Box::pin(self.connections(request)).await),
        }
    }
}

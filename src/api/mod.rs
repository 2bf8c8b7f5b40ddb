//! Front door 1: the signed HTTP API.
//!
//! A request is verified into [`auth::Authorized`] before anything else looks at
//! it; its body becomes typed values; from there on nothing is checked again.

pub mod auth;
mod body;
mod reply;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Method, Request};

use crate::app::{App, Apps};
use crate::broker::Broker;
use crate::protocol::publish::Publish;
use auth::Authorized;
pub use reply::{ApiError, Reply, health, json, text};

/// What the API needs to know of the configuration.
#[derive(Clone)]
pub struct Api {
    /// The applications.
    pub apps: Apps,
    /// Where events go.
    pub broker: Broker,
    /// Bytes of a request's body.
    pub max_request_size: usize,
    /// Bytes of an event's `data`.
    pub max_event_size: usize,
    /// How long a body may take to arrive.
    pub request_timeout: Duration,
    /// How far a request's clock may be off.
    pub timestamp_tolerance: Option<Duration>,
    /// Prefix of every route; a client may sign with or without it.
    pub prefix: String,
}

/// How long a publish waits for the workers to catch up before it is refused.
const MOST_WAIT: Duration = Duration::from_secs(5);

/// A call below `/apps/{id}/`.
#[derive(Clone, Copy)]
enum Call {
    Events,
    BatchEvents,
}

impl Api {
    /// Answers a request for `/apps/{id}/{call}`.
    pub async fn handle(&self, request: Request<Incoming>, id: &str, call: &str) -> Reply {
        let (head, body) = request.into_parts();
        let answer = async {
            let call = match call {
                "events" => Call::Events,
                "batch_events" => Call::BatchEvents,
                _ => return Err(ApiError::NotFound),
            };
            if head.method != Method::POST {
                return Err(ApiError::Method("POST"));
            }
            let app = self
                .apps
                .by_id(id)
                .ok_or_else(|| ApiError::UnknownApp(id.to_owned()))?;
            let body = body::read(&head, body, self.max_request_size, self.request_timeout).await?;
            let request = self.authorize(&head, body, app)?;
            self.run(call, &request).await
        };
        answer.await.unwrap_or_else(|error: ApiError| {
            tracing::info!(app = id, method = %head.method, path = head.uri.path(), %error, "refused a request");
            error.into_reply()
        })
    }

    fn authorize(
        &self,
        head: &Parts,
        body: bytes::Bytes,
        app: &Arc<App>,
    ) -> Result<Authorized, ApiError> {
        let rules = auth::Rules {
            tolerance: self.timestamp_tolerance,
            prefix: &self.prefix,
            now: SystemTime::now(),
        };
        Ok(Authorized::verify(head, body, app, &rules)?)
    }

    async fn run(&self, call: Call, request: &Authorized) -> Result<Reply, ApiError> {
        match call {
            Call::Events => {
                let publish = Publish::parse(&request.body, self.max_event_size)?;
                self.wait_for_room().await?;
                self.broker.publish(&request.app, &publish);
                Ok(json("{}"))
            }
            Call::BatchEvents => {
                let batch = Publish::parse_batch(&request.body, self.max_event_size)?;
                self.wait_for_room().await?;
                for publish in &batch {
                    self.broker.publish(&request.app, publish);
                }
                Ok(json(r#"{"batch":{}}"#))
            }
        }
    }

    /// Slows publishers down to what the workers can deliver.
    async fn wait_for_room(&self) -> Result<(), ApiError> {
        const STEP: Duration = Duration::from_millis(2);
        let mut waited = Duration::ZERO;
        while !self.broker.has_room() {
            if waited >= MOST_WAIT {
                return Err(ApiError::OverCapacity);
            }
            tokio::time::sleep(STEP).await;
            waited += STEP;
        }
        Ok(())
    }
}

//! The publish calls.

use std::borrow::Cow;
use std::cell::Cell;
use std::time::Duration;

use futures_util::future::join_all;
use hyper::StatusCode;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout_at};

use super::auth::Authorized;
use super::reply::{self, ApiError, Reply};
use super::{Api, RequestLog, queries};
use crate::protocol::publish::Publish;

/// How long a publish request waits for the workers to catch up before it is refused.
const MAX_WAIT: Duration = Duration::from_secs(5);

impl Api {
    /// `POST /events`; not published again if `published` says that it was.
    pub(super) async fn events(
        &self,
        request: &Authorized<'_>,
        logged: &RequestLog<'_>,
        published: &Cell<usize>,
    ) -> Result<Reply, ApiError> {
        let body = event_of(request);
        let publish = Publish::parse(&body, &request.settings().events)?;
        if published.get() == 0 {
            self.wait_for_room(0, Instant::now() + MAX_WAIT).await?;
            self.publish(request, logged, &publish);
            published.set(1);
        }
        let Some(info) = publish.info else {
            return Ok(reply::json("{}"));
        };
        let broker = &self.broker;
        let asked = publish
            .channels
            .iter()
            .map(|channel| queries::attributes(broker, request, channel.as_str(), info));
        let mut missing = None;
        let mut channels = Map::new();
        for (channel, (attributes, _, partial)) in
            publish.channels.iter().zip(join_all(asked).await)
        {
            missing = missing.or(partial);
            channels.insert(channel.as_str().to_owned(), attributes.into());
        }
        let reply = reply::json(json!({ "channels": channels }).to_string());
        Ok(reply::partly(reply, missing))
    }

    /// `POST /batch_events`, but for as many events as were published before.
    pub(super) async fn batch_events(
        &self,
        request: &Authorized<'_>,
        logged: &RequestLog<'_>,
        published: &Cell<usize>,
    ) -> Result<Reply, ApiError> {
        let batch = Publish::parse_batch(request.body(), &request.settings().events)?;
        let deadline = Instant::now() + MAX_WAIT;
        for publish in batch.iter().skip(published.get()) {
            // Asked for each: a batch may be as big as the room itself.
            self.wait_for_room(published.get(), deadline).await?;
            self.publish(request, logged, publish);
            published.set(published.get() + 1);
        }
        if batch.iter().all(|publish| publish.info.is_none()) {
            // Pusher's SDK for Go fails on `{"batch":{}}`, which is Reverb's.
            return Ok(reply::json("{}"));
        }
        let broker = &self.broker;
        let asked =
            batch.iter().map(
                async |publish| match (publish.info, publish.channels.first()) {
                    (Some(info), Some(channel)) => {
                        queries::attributes(broker, request, channel.as_str(), info).await
                    }
                    _ => (Map::new(), false, None),
                },
            );
        let mut missing = None;
        let mut answers = Vec::new();
        for (attributes, _, partial) in join_all(asked).await {
            missing = missing.or(partial);
            answers.push(attributes);
        }
        let reply = reply::json(json!({ "batch": answers }).to_string());
        Ok(reply::partly(reply, missing))
    }

    /// `POST /channels/{name}/events?name=…&socket_id=…`, whose body is the data.
    pub(super) async fn channel_events(
        &self,
        request: &Authorized<'_>,
        logged: &RequestLog<'_>,
        channel: &str,
    ) -> Result<Reply, ApiError> {
        let data = std::str::from_utf8(request.body())
            .map_err(|_| ApiError::Broken("it is not UTF-8".to_owned()))?;
        let mut event = json!({ "channel": channel, "data": data });
        for name in ["name", "socket_id"] {
            if let Some(value) = request.parameter(name) {
                event[name] = value.into();
            }
        }
        let body = event.to_string();
        let publish = Publish::parse(body.as_bytes(), &request.settings().events)?;
        self.wait_for_room(0, Instant::now() + MAX_WAIT).await?;
        self.publish(request, logged, &publish);
        Ok(reply::text(StatusCode::ACCEPTED, ""))
    }

    fn publish(&self, request: &Authorized<'_>, logged: &RequestLog<'_>, publish: &Publish<'_>) {
        let (app, ids) = (request.app(), &logged.ids);
        let reached = self.broker.publish(app, publish, |channel, subscribers| {
            tracing::debug!(
                app = app.id(),
                %channel,
                event = &*text_of(publish.name),
                subscribers,
                request_id = ids.id(),
                trace_id = ids.trace_id(),
                span_id = ids.span_id(),
                "published"
            );
        });
        if let Some(access) = &logged.access {
            access.published(&publish.channels, reached);
        }
    }

    /// Slows publishers down to what the workers can deliver.
    async fn wait_for_room(&self, published: usize, deadline: Instant) -> Result<(), ApiError> {
        if self.broker.has_room() {
            return Ok(());
        }
        timeout_at(deadline, self.broker.wait_for_room())
            .await
            .map_err(|_| ApiError::OverCapacity { published })
    }
}

/// The text that a JSON string stands for.
fn text_of(json: &str) -> Cow<'_, str> {
    serde_json::from_str(json).map_or(Cow::Borrowed(json), Cow::Owned::<str>)
}

/// The event of a request: its body, or, without one, the parameters of its query,
/// which Pusher allows.
fn event_of<'a>(request: &'a Authorized<'_>) -> Cow<'a, [u8]> {
    if !request.body().is_empty() || request.parameter("name").is_none() {
        return Cow::Borrowed(request.body());
    }
    let mut event = Map::new();
    for name in ["name", "data", "channel", "socket_id"] {
        if let Some(value) = request.parameter(name) {
            event.insert(name.to_owned(), value.into());
        }
    }
    if let Some(info) = request.list("info") {
        event.insert("info".to_owned(), info.into());
    }
    let channels: Vec<Value> = request
        .parameters()
        .iter()
        .filter(|(key, _)| key == "channels" || key.starts_with("channels["))
        .map(|(_, value)| (**value).into())
        .collect();
    if !channels.is_empty() {
        event.insert("channels".to_owned(), channels.into());
    }
    Cow::Owned(Value::Object(event).to_string().into_bytes())
}

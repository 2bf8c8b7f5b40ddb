//! The calls that ask about channels.
//!
//! As with Reverb, attributes that do not apply to a channel are left out where
//! Pusher answers 400: an application that asked Reverb goes on working.

use hyper::StatusCode;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::Api;
use super::auth::Authorized;
use super::reply::{self, ApiError, Reply};
use crate::apps::AppHandle;
use crate::broker::{Broker, ChannelSummaries, ChannelSummary, Partial, Query};
use crate::protocol::publish::Info;
use crate::protocol::{ChannelKind, ChannelName, Frame, message};

impl Api {
    /// `GET /channels?filter_by_prefix=…&info=…`: those with a subscriber.
    pub(super) async fn channels(&self, request: &Authorized<'_>) -> Reply {
        let (app, info) = (request.app(), info_of(request));
        let prefix = request.parameter("filter_by_prefix").unwrap_or_default();
        let query = Query::Channels {
            prefix: prefix.to_owned(),
            users: info.user_count,
        };
        let summaries = self.broker.channels(app, query).await;
        let mut channels = Map::new();
        for (name, summary) in &summaries.channels {
            let Ok(name) = ChannelName::parse(name, request.settings().events.channel) else {
                continue;
            };
            let attributes = attributes_of(&self.broker, app, &name, Some(summary), info).await;
            channels.insert(name.as_str().to_owned(), attributes.into());
            // With thousands of channels nobody else is to wait for the whole list.
            if channels.len().is_multiple_of(256) {
                tokio::task::yield_now().await;
            }
        }
        let reply = reply::json(json!({ "channels": channels }).to_string());
        reply::partly(reply, summaries.partial)
    }

    /// `GET /channels/{name}?info=…`.
    pub(super) async fn channel(
        &self,
        request: &Authorized<'_>,
        name: &str,
    ) -> Result<Reply, ApiError> {
        let info = info_of(request);
        let (mut attributes, occupied, partial) =
            attributes(&self.broker, request, name, info).await;
        attributes.insert("occupied".to_owned(), occupied.into());
        let reply = reply::json(Value::Object(attributes).to_string());
        Ok(reply::partly(reply, partial))
    }

    /// `GET /channels/{name}/users`: of a presence channel, each user once; 400 of
    /// any other. As with Pusher, an id is a text whatever it was in `channel_data`,
    /// and a channel that nobody is in has no users: Reverb answers with numbers and
    /// with 404, on both of which Pusher's SDK for Go fails.
    pub(super) async fn users(
        &self,
        request: &Authorized<'_>,
        name: &str,
    ) -> Result<Reply, ApiError> {
        if !ChannelKind::of(name).is_presence() {
            return Ok(reply::json_with(StatusCode::BAD_REQUEST, "{}"));
        }
        let ChannelSummaries { channels, partial } = self.one(request, name, true).await;
        let here = channels.get(name).into_iter();
        let users: Vec<Value> = here
            .flat_map(|summary| &summary.users)
            .map(|id| json!({ "id": id }))
            .collect();
        let reply = reply::json(json!({ "users": users }).to_string());
        Ok(reply::partly(reply, partial))
    }

    /// `GET /channels/{name}/stats`, deprecated by Pusher.
    pub(super) async fn stats(
        &self,
        request: &Authorized<'_>,
        name: &str,
    ) -> Result<Reply, ApiError> {
        let is_presence = ChannelKind::of(name).is_presence();
        let ChannelSummaries { channels, partial } = self.one(request, name, is_presence).await;
        let summary = channels.get(name);
        let mut attributes = json!({
            "occupied": summary.is_some(),
            "connection_count": summary.map_or(0, |summary| summary.subscriptions),
        });
        if is_presence {
            attributes["user_count"] = summary.map_or(0, |summary| summary.users.len()).into();
        }
        let reply = reply::json(attributes.to_string());
        Ok(reply::partly(reply, partial))
    }

    /// `GET /connections`.
    pub(super) async fn connections(&self, request: &Authorized<'_>) -> Reply {
        let (connections, partial) = self.broker.connections(request.app()).await;
        let reply = reply::json(format!(r#"{{"connections":{connections}}}"#));
        reply::partly(reply, partial)
    }

    async fn one(&self, request: &Authorized<'_>, name: &str, users: bool) -> ChannelSummaries {
        let query = Query::Channel {
            name: name.to_owned(),
            users,
        };
        self.broker.channels(request.app(), query).await
    }
}

fn info_of(request: &Authorized<'_>) -> Info {
    request
        .list("info")
        .map(|list| Info::parse(&list))
        .unwrap_or_default()
}

/// What was asked of a channel, as far as it applies; whether it is occupied; and what
/// is missing. Counts are only given of a channel that is occupied; a cached event
/// outlives that.
pub(super) async fn attributes(
    broker: &Broker,
    request: &Authorized<'_>,
    name: &str,
    info: Info,
) -> (Map<String, Value>, bool, Option<Partial>) {
    let (app, limits) = (request.app(), &request.settings().events);
    let Ok(name) = ChannelName::parse(name, limits.channel) else {
        return (Map::new(), false, None);
    };
    let query = Query::Channel {
        name: name.as_str().to_owned(),
        users: info.user_count && name.kind().is_presence(),
    };
    let ChannelSummaries { channels, partial } = broker.channels(app, query).await;
    let summary = channels.get(name.as_str());
    let attributes = attributes_of(broker, app, &name, summary, info).await;
    (attributes, summary.is_some(), partial)
}

async fn attributes_of(
    broker: &Broker,
    app: &AppHandle,
    name: &ChannelName,
    summary: Option<&ChannelSummary>,
    info: Info,
) -> Map<String, Value> {
    let kind = name.kind();
    let mut attributes = Map::new();
    if let Some(summary) = summary {
        if info.user_count && kind.is_presence() {
            attributes.insert("user_count".to_owned(), summary.users.len().into());
        }
        if info.subscription_count && !kind.is_presence() {
            attributes.insert(
                "subscription_count".to_owned(),
                summary.subscriptions.into(),
            );
        }
    }
    if info.cache && kind.is_cache() {
        let cached = broker.cached(app, name).await.map_or(
            Value::Null,
            |(frame, left)| json!({ "data": data_of(&frame), "ttl": left.as_secs() }),
        );
        attributes.insert("cache".to_owned(), cached);
    }
    attributes
}

/// The `data` of an encoded event.
fn data_of(frame: &Frame) -> Value {
    #[derive(serde::Deserialize)]
    struct Event<'a> {
        #[serde(borrow)]
        data: &'a RawValue,
    }
    let event: Option<Event<'_>> = serde_json::from_str(message::text(frame)).ok();
    event
        .and_then(|event| serde_json::from_str(event.data.get()).ok())
        .unwrap_or_default()
}

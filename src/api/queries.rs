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
use crate::app::App;
use crate::broker::{Broker, Counts};
use crate::protocol::publish::Info;
use crate::protocol::{ChannelKind, ChannelName, Frame, message};

impl Api {
    /// `GET /channels?filter_by_prefix=…&info=…`: those with a subscriber.
    pub(super) async fn channels(&self, request: &Authorized) -> Reply {
        let info = info_of(request);
        let prefix = request.parameter("filter_by_prefix").unwrap_or_default();
        let mut channels = Map::new();
        for channel in self.broker.channels(request.app(), prefix) {
            let told = told_of(
                &self.broker,
                request.app(),
                channel.name(),
                Some(channel.counts()),
                info,
            );
            channels.insert(channel.name().as_str().to_owned(), told.into());
            // With thousands of channels nobody else is to wait for the whole list.
            if channels.len().is_multiple_of(256) {
                tokio::task::yield_now().await;
            }
        }
        reply::json(json!({ "channels": channels }).to_string())
    }

    /// `GET /channels/{name}?info=…`.
    pub(super) fn channel(&self, request: &Authorized, name: &str) -> Result<Reply, ApiError> {
        let mut told = Map::new();
        told.insert(
            "occupied".to_owned(),
            self.broker.counts(request.app(), name).is_some().into(),
        );
        told.extend(attributes(
            &self.broker,
            request.app(),
            name,
            info_of(request),
        ));
        Ok(reply::json(Value::Object(told).to_string()))
    }

    /// `GET /channels/{name}/users`: of a presence channel, each user once. 404 and
    /// 400 are Reverb's for an empty channel and for one of another kind.
    pub(super) fn users(&self, request: &Authorized, name: &str) -> Result<Reply, ApiError> {
        let Some(ids) = self.broker.member_ids(request.app(), name) else {
            return Ok(reply::json_with(StatusCode::NOT_FOUND, "{}"));
        };
        if !ChannelKind::of(name).is_presence() {
            return Ok(reply::json_with(StatusCode::BAD_REQUEST, "{}"));
        }
        let users: Vec<String> = ids.iter().map(|id| format!(r#"{{"id":{id}}}"#)).collect();
        Ok(reply::json(format!(r#"{{"users":[{}]}}"#, users.join(","))))
    }

    /// `GET /channels/{name}/stats`, deprecated by Pusher.
    pub(super) fn stats(&self, request: &Authorized, name: &str) -> Result<Reply, ApiError> {
        let counts = self.broker.counts(request.app(), name);
        let mut told = json!({
            "occupied": counts.is_some(),
            "connection_count": counts.unwrap_or_default().subscriptions,
        });
        if ChannelKind::of(name).is_presence() {
            told["user_count"] = counts.unwrap_or_default().users.into();
        }
        Ok(reply::json(told.to_string()))
    }
}

fn info_of(request: &Authorized) -> Info {
    request
        .parameter("info")
        .map(Info::parse)
        .unwrap_or_default()
}

/// What was asked of a channel, as far as it applies. Counts are only told of a
/// channel that is occupied; a cached event outlives that.
pub(super) fn attributes(broker: &Broker, app: &App, name: &str, info: Info) -> Map<String, Value> {
    match ChannelName::parse(name, app.events.channel) {
        Ok(name) => told_of(broker, app, &name, broker.counts(app, name.as_str()), info),
        Err(_) => Map::new(),
    }
}

fn told_of(
    broker: &Broker,
    app: &App,
    name: &ChannelName,
    counts: Option<Counts>,
    info: Info,
) -> Map<String, Value> {
    let kind = name.kind();
    let mut told = Map::new();
    if let Some(counts) = counts {
        if info.user_count && kind.is_presence() {
            told.insert("user_count".to_owned(), counts.users.into());
        }
        if info.subscription_count && !kind.is_presence() {
            told.insert("subscription_count".to_owned(), counts.subscriptions.into());
        }
    }
    if info.cache && kind.is_cache() {
        let cached = broker.cached(app, name).map_or(
            Value::Null,
            |(frame, left)| json!({ "data": data_of(&frame), "ttl": left.as_secs() }),
        );
        told.insert("cache".to_owned(), cached);
    }
    told
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

//! `resound demo`: a page that shows a message arrive, and the signing it needs.
//!
//! In an application the secret stays on the back end. Here the server signs for
//! the page, and does so for everybody: that is why it only listens on 127.0.0.1
//! and why its credentials are public anyway.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, StatusCode};
use md5::{Digest, Md5};
use percent_encoding::percent_decode_str;
use serde::Serialize;

use super::Shared;
use crate::api::{ApiError, Reply, json, text};
use crate::app::App;

const PAGE: &str = include_str!("demo.html");

/// What the page may send to be signed.
const MOST_BYTES: usize = 64 * 1024;

/// The channel of the chat module, whose first chat the page shows.
const CHANNEL: &str = "private-chat.1";

#[derive(Serialize)]
struct Settings<'a> {
    key: &'a str,
    app_id: &'a str,
    channel: &'a str,
    event: &'a str,
    path: &'a str,
}

pub(super) async fn answer(shared: &Shared, request: Request<Incoming>, rest: &[&str]) -> Reply {
    let Some(app) = shared.apps.iter().next() else {
        return ApiError::NotFound.into_reply();
    };
    match (request.method(), rest) {
        (&Method::GET | &Method::HEAD, []) => page(shared, app),
        (&Method::POST, ["auth"]) => with_body(request, |body| authorize(app, body)).await,
        (&Method::POST, ["sign"]) => with_body(request, |body| sign(shared, app, body)).await,
        (_, []) => ApiError::Method("GET, HEAD").into_reply(),
        (_, ["auth" | "sign"]) => ApiError::Method("POST").into_reply(),
        _ => ApiError::NotFound.into_reply(),
    }
}

fn page(shared: &Shared, app: &App) -> Reply {
    let settings = Settings {
        key: &app.key,
        app_id: &app.id,
        channel: CHANNEL,
        event: "message.sent",
        path: &shared.prefix,
    };
    let settings = serde_json::to_string(&settings)
        .expect("texts are plain data")
        .replace('<', "\\u003c");
    let mut reply = text(StatusCode::OK, PAGE.replace("{{settings}}", &settings));
    reply.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    reply
}

async fn with_body(request: Request<Incoming>, answer: impl FnOnce(&str) -> Reply) -> Reply {
    let body = Limited::new(request.into_body(), MOST_BYTES)
        .collect()
        .await;
    match body.map(|body| String::from_utf8(body.to_bytes().into())) {
        Ok(Ok(body)) => answer(&body),
        _ => text(
            StatusCode::BAD_REQUEST,
            "The body is broken, is not UTF-8 or is too large.",
        ),
    }
}

/// What Laravel's `/broadcasting/auth` does, for everybody and only for the demo's channel.
fn authorize(app: &App, form: &str) -> Reply {
    let field = |name: &str| {
        let value = form
            .split('&')
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
        percent_decode_str(value)
            .decode_utf8()
            .ok()
            .map(|value| value.into_owned())
    };
    match (field("socket_id"), field("channel_name")) {
        (Some(socket_id), Some(channel)) if channel == CHANNEL => {
            let signature = app
                .secret
                .sign(&[socket_id.as_bytes(), b":", channel.as_bytes()]);
            json(format!(r#"{{"auth":"{}:{signature}"}}"#, app.key))
        }
        (Some(_), Some(_)) => text(
            StatusCode::FORBIDDEN,
            format!("The demo only signs for {CHANNEL}."),
        ),
        _ => text(
            StatusCode::BAD_REQUEST,
            "Expected the form fields socket_id and channel_name.",
        ),
    }
}

/// The address to which the page then posts the very same body itself.
fn sign(shared: &Shared, app: &Arc<App>, body: &str) -> Reply {
    let digest = hex::encode(Md5::digest(body));
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let path = format!("/apps/{}/events", app.id);
    let query = format!(
        "auth_key={}&auth_timestamp={now}&auth_version=1.0&body_md5={digest}",
        app.key
    );
    let signature = app
        .secret
        .sign(&[b"POST\n", path.as_bytes(), b"\n", query.as_bytes()]);
    json(Bytes::from(format!(
        r#"{{"url":"{}{path}?{query}&auth_signature={signature}"}}"#,
        shared.prefix
    )))
}

//! `resound demo`: a page that shows a message arrive, and the signing it needs.
//!
//! In an application the secret stays on the back end. Here the server signs for
//! the page, and does so for everybody: that is why it only listens on 127.0.0.1
//! and why its credentials are public anyway. A page of another site, whose name was
//! made to lead to 127.0.0.1 (DNS rebinding), is told from ours by the `Host` header.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{Method, Request, StatusCode};
use md5::{Digest, Md5};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use tokio::time::timeout;

use super::{Settings, Shared};
use crate::api::{ApiError, Reply, json, text};
use crate::apps::{App, AppHandle};

const PAGE: &str = include_str!("demo.html");

/// What the page may send to be signed.
const MAX_BYTES: usize = 64 * 1024;

/// The channel of the chat module, whose first chat the page shows.
const CHANNEL: &str = "private-chat.1";

#[derive(Serialize)]
struct PageSettings<'a> {
    key: &'a str,
    app_id: &'a str,
    channel: &'a str,
    event: &'a str,
    path: &'a str,
    /// The lines to paste into a `.env`.
    env: String,
}

pub(super) async fn answer(
    (shared, settings): (&Shared, &Settings),
    request: Request<Incoming>,
    rest: &[&str],
) -> Reply {
    let Some(app) = shared.apps.all().first().map(AppHandle::snapshot) else {
        return ApiError::NotFound.into_reply();
    };
    let app = &*app;
    let Some(port) = own_port(&request) else {
        return misdirected();
    };
    let time = settings.api.request_timeout;
    match (request.method(), rest) {
        (&Method::GET | &Method::HEAD, []) => page(settings, app, port),
        (&Method::GET | &Method::HEAD, [""]) => to_page(settings),
        (&Method::POST, ["auth"]) => with_body(request, time, |body| authorize(app, body)).await,
        (&Method::POST, ["sign"]) => {
            with_body(request, time, |body| sign(settings, app, body)).await
        }
        (_, [] | [""]) => ApiError::Method("GET, HEAD").into_reply(),
        (_, ["auth" | "sign"]) => ApiError::Method("POST").into_reply(),
        _ => ApiError::NotFound.into_reply(),
    }
}

/// The answer to a request that is for another host: of a page whose name leads here.
/// The secret is public, so the demo's whole server answers this machine only.
pub(super) fn misdirected() -> Reply {
    text(
        StatusCode::MISDIRECTED_REQUEST,
        "The demo answers only requests whose Host is 127.0.0.1, localhost or [::1].",
    )
}

/// The port under which this machine reaches the server, if it is this machine that was
/// meant, by each name that the request has for it.
pub(super) fn own_port<B>(request: &Request<B>) -> Option<u16> {
    let hosts = request.headers().get_all(header::HOST).iter();
    let mut named: Vec<Authority> = hosts
        .map(|host| Authority::try_from(host.as_bytes()).ok())
        .collect::<Option<_>>()?;
    named.extend(request.uri().authority().cloned());
    let is_local = |authority: &Authority| {
        // Without the `user@` that an authority may begin with.
        !authority.as_str().contains('@')
            && ["127.0.0.1", "localhost", "[::1]"]
                .iter()
                .any(|own| authority.host().eq_ignore_ascii_case(own))
    };
    if !named.iter().all(is_local) {
        return None;
    }
    Some(named.first()?.port_u16().unwrap_or(80))
}

/// Leads to the page those who leave off or add a slash.
fn to_page(settings: &Settings) -> Reply {
    let place = format!("{}/demo", settings.prefix);
    let mut reply = text(StatusCode::TEMPORARY_REDIRECT, format!("See {place}"));
    let place = HeaderValue::from_str(&place).expect("a prefix has only characters of a path");
    reply.headers_mut().insert(header::LOCATION, place);
    reply
}

/// What goes into a project's `.env` to have this application at this port. `REVERB_PORT` is
/// where Laravel looks for a server, `REVERB_SERVER_PORT` where `resound start` is.
fn env(app: &App, port: u16) -> String {
    const DEFAULT_PORT: u16 = 8080;
    let own_port = if port == DEFAULT_PORT {
        String::new()
    } else {
        format!("REVERB_SERVER_PORT={port}\n")
    };
    format!(
        "BROADCAST_CONNECTION=reverb\nBROADCAST_DRIVER=reverb\n\nREVERB_APP_ID={}\nREVERB_APP_KEY={}\n\
         REVERB_APP_SECRET=my-app-secret\nREVERB_HOST=\"localhost\"\nREVERB_PORT={port}\n{own_port}REVERB_SCHEME=http\n",
        app.id, app.key
    )
}

fn page(settings: &Settings, app: &App, port: u16) -> Reply {
    let page = PageSettings {
        key: &app.key,
        app_id: &app.id,
        channel: CHANNEL,
        event: "message.sent",
        path: &settings.prefix,
        env: env(app, port),
    };
    let settings = serde_json::to_string(&page)
        .expect("texts are plain data")
        .replace('<', "\\u003c");
    let mut reply = text(StatusCode::OK, PAGE.replace("{{settings}}", &settings));
    reply.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    reply
}

async fn with_body(
    request: Request<Incoming>,
    time: Duration,
    answer: impl FnOnce(&str) -> Reply,
) -> Reply {
    let body = Limited::new(request.into_body(), MAX_BYTES).collect();
    let Ok(body) = timeout(time, body).await else {
        return ApiError::Timeout.into_reply();
    };
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
fn sign(settings: &Settings, app: &App, body: &str) -> Reply {
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
        settings.prefix
    )))
}

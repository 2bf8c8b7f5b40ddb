//! The routes.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};

use super::{Shared, demo};
use crate::api::{ApiError, Reply, health, text};
use crate::worker::Worker;
use crate::ws::handshake::{self, Handshake, HandshakeError};

/// What the requests of one connection share.
pub(super) struct Exchange {
    pub(super) worker: Rc<Worker>,
    pub(super) shared: Arc<Shared>,
    /// Set when a request was answered with 101.
    pub(super) upgrade: RefCell<Option<Handshake>>,
}

/// Answers one request. Routes are found with the configured prefix and without
/// it, since a proxy may have taken it off.
pub(super) async fn answer(exchange: &Exchange, request: Request<Incoming>) -> Reply {
    let shared = &exchange.shared;
    let full = request.uri().path().to_owned();
    let path = full
        .strip_prefix(&shared.prefix)
        .filter(|rest| rest.starts_with('/'))
        .unwrap_or(&full);
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match segments[..] {
        ["app", key] if !key.is_empty() => open(exchange, &request.into_parts().0, key),
        ["apps", id, call] => shared.api.handle(request, id, call).await,
        ["up"] => up(exchange, &request),
        ["demo", ref rest @ ..] if shared.demo => demo::answer(shared, request, rest).await,
        _ => ApiError::NotFound.into_reply(),
    }
}

fn up(exchange: &Exchange, request: &Request<Incoming>) -> Reply {
    match *request.method() {
        Method::GET | Method::HEAD => health(*exchange.worker.shutdown().borrow()),
        _ => ApiError::Method("GET, HEAD").into_reply(),
    }
}

fn open(exchange: &Exchange, request: &Parts, key: &str) -> Reply {
    match handshake::check(request, key, &exchange.shared.apps, exchange.worker.hub()) {
        Ok(handshake) => {
            let reply = switching(&handshake.accept);
            *exchange.upgrade.borrow_mut() = Some(handshake);
            reply
        }
        Err(error) => refused(error),
    }
}

fn switching(accept: &str) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::new()));
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = reply.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    let accept = HeaderValue::from_str(accept).expect("base64 is a header value");
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    reply
}

fn refused(error: HandshakeError) -> Reply {
    let mut reply = text(error.status(), error.to_string());
    if let Some((name, value)) = error.header() {
        reply.headers_mut().insert(name, value);
    }
    reply
}

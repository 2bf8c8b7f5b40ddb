//! The routes.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Version};
use tracing::field::display;

use super::activity::Activity;
use super::{Settings, Shared, client, demo};
use crate::api::{ApiError, Reply, RequestIds, text};
use crate::apps::{AppHandle, Counter, Credential, RateLimit, RequestRefusal};
use crate::protocol::CloseReason;
use crate::proxies::Client;
use crate::telemetry::limit::limited;
use crate::worker::{ConnectionPermit, Worker};
use crate::ws::handshake::{self, Handshake, HandshakeError};
use crate::ws::log::Caller;

const WITHOUT_HOST: &str =
    "Bad request. A request of HTTP/1.1 has one header Host, with a host and perhaps a port.";

const MORE_PER_ADDRESS: &str = "raise RESOUND_MAX_CONNECTIONS_PER_ADDRESS";

/// What the requests of one connection share.
pub(super) struct Exchange {
    pub(super) worker: Rc<Worker>,
    pub(super) shared: Arc<Shared>,
    /// Until it goes on as a WebSocket.
    pub(super) permit: RefCell<Option<ConnectionPermit>>,
    /// Set when a request was answered with 101.
    pub(super) upgrade: RefCell<Option<Handshake>>,
    pub(super) activity: Rc<Activity>,
}

impl Exchange {
    /// Whether its address has more connections than it may have.
    fn is_over_limit(&self) -> bool {
        let permit = self.permit.borrow();
        permit.as_ref().is_some_and(ConnectionPermit::is_over_limit)
    }

    /// It is a WebSocket of this client from now on, unless the client's address has far more
    /// of them than it may have: then false.
    fn belong_to(&self, client: Client) -> bool {
        // Of one who has connected itself it was counted when it was accepted.
        if client.proxy.is_some()
            && let Some(permit) = &mut *self.permit.borrow_mut()
            && !permit.count_for(client.address.ip())
        {
            return false;
        }
        self.activity.client.set(client);
        true
    }
}

/// Where a path leads.
enum Route<'a> {
    /// The WebSocket of the application with this key.
    App(&'a str),
    /// The HTTP API of the application with this id, and the rest of the path.
    Api(&'a str, &'a str),
    Up,
    Ready,
    Live,
    Demo(Vec<&'a str>),
}

impl<'a> Route<'a> {
    fn parse(path: &'a str, demo: bool) -> Option<Self> {
        let path = path.strip_prefix('/')?;
        let (first, rest) = match path.split_once('/') {
            Some((first, rest)) => (first, Some(rest)),
            None => (path, None),
        };
        match (first, rest) {
            ("app", Some(key)) if !key.is_empty() && !key.contains('/') => Some(Self::App(key)),
            ("apps", Some(rest)) => rest.split_once('/').map(|(id, call)| Self::Api(id, call)),
            ("up", None) => Some(Self::Up),
            ("ready", None) => Some(Self::Ready),
            ("live", None) => Some(Self::Live),
            // It leads to the page, as /demo/ does.
            ("", None) if demo => Some(Self::Demo(vec![""])),
            ("demo", rest) if demo => {
                let rest = rest.map(|rest| rest.split('/').collect());
                Some(Self::Demo(rest.unwrap_or_default()))
            }
            _ => None,
        }
    }
}

/// Answers one request. Routes are found with the configured prefix and without
/// it, since a proxy may have taken it off.
pub(super) async fn answer(exchange: &Exchange, request: Request<Incoming>) -> Reply {
    exchange.activity.begin_request();
    let reply = route(exchange, request).await;
    if exchange.upgrade.borrow().is_none() {
        exchange.activity.wait();
    }
    reply
}

async fn route(exchange: &Exchange, request: Request<Incoming>) -> Reply {
    let shared = &exchange.shared;
    // For all of this request: they may be changed meanwhile.
    let settings = shared.settings.load_full();
    let connection = exchange.activity.client.get();
    let client = client::of_request(connection, request.headers(), &settings, shared);
    let proxy = client.proxy.map(display);
    if !names_one_host(&request) {
        let cause = "request refused: not for one host (400)";
        limited!(info, cause, None, { peer = %client, proxy, method = %request.method(), }, cause);
        shared.count_refusal(RequestRefusal::Host);
        return text(StatusCode::BAD_REQUEST, WITHOUT_HOST);
    }
    if shared.demo && demo::own_port(&request).is_none() {
        let cause = "request refused: the demo is for this machine only (421)";
        limited!(info, cause, None, { peer = %client, proxy, method = %request.method(), }, cause);
        return demo::misdirected();
    }
    // It shares its text, which is not copied.
    let uri = request.uri().clone();
    let full = uri.path();
    tracing::debug!(peer = %client, proxy, method = %request.method(), path = full, "request");
    let bare = full
        .strip_prefix(&settings.prefix)
        .and_then(|path| Route::parse(path, shared.demo));
    let mut reply = match bare.or_else(|| Route::parse(full, shared.demo)) {
        Some(Route::App(key)) => {
            let head = request.into_parts().0;
            Box::pin(open((exchange, &settings), client, &head, key)).await
        }
        _ if exchange.is_over_limit() => too_many(shared, client, request.headers()),
        Some(Route::Api(id, call)) => {
            let refused = || exchange.activity.wait();
            settings
                .api
                .handle(request, (id, call), client, refused)
                .await
        }
        Some(Route::Up | Route::Ready | Route::Live)
            if !matches!(*request.method(), Method::GET | Method::HEAD) =>
        {
            ApiError::Method("GET, HEAD").into_reply()
        }
        Some(Route::Up) => shared.health.up(),
        Some(Route::Ready) => shared.health.ready(),
        Some(Route::Live) => Box::pin(shared.health.live()).await,
        Some(Route::Demo(rest)) => {
            Box::pin(demo::answer((shared, &settings), request, &rest)).await
        }
        None => {
            let text = "request refused: no such address (404)";
            limited!(info, text, None, { peer = %client, proxy, method = %request.method(), path = full, }, text);
            shared.count_refusal(RequestRefusal::NotFound);
            ApiError::NotFound.into_reply()
        }
    };
    tracing::debug!(peer = %client, status = reply.status().as_u16(), "answered");
    // Whoever keeps it for a next request is to connect to somebody else.
    if exchange.worker.lifecycle().has_drained()
        && reply.status() != StatusCode::SWITCHING_PROTOCOLS
    {
        let close = HeaderValue::from_static("close");
        reply.headers_mut().insert(header::CONNECTION, close);
    }
    reply
}

/// Refuses a request of an address that has more connections than it may have.
fn too_many(shared: &Shared, client: Client, headers: &HeaderMap) -> Reply {
    shared.count_refusal(RequestRefusal::TooManyConnections);
    let cause = "request refused: too many connections from this address (429)";
    let ids = RequestIds::of(headers);
    limited!(info, cause, None, {
        peer = %client,
        proxy = client.proxy.map(display),
        request_id = ids.id(),
        help = MORE_PER_ADDRESS,
    }, cause);
    let mut reply = text(
        StatusCode::TOO_MANY_REQUESTS,
        "Too many connections from this address (max_connections_per_address, \
         RESOUND_MAX_CONNECTIONS_PER_ADDRESS).",
    );
    ids.add_to(reply.headers_mut());
    reply
}

/// Whether a request says for which host it is, once: otherwise a proxy and this
/// server may take it for different ones (RFC 9112, 3.2).
fn names_one_host(request: &Request<Incoming>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let is_host = |host: &HeaderValue| {
        let mut bytes = host.as_bytes().iter();
        bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(byte))
    };
    match (hosts.next(), hosts.next()) {
        (None, _) => request.version() < Version::HTTP_11,
        (Some(host), None) => is_host(host),
        (Some(_), Some(_)) => false,
    }
}

async fn open(
    (exchange, settings): (&Exchange, &Settings),
    client: Client,
    request: &Parts,
    key: &str,
) -> Reply {
    let shared = &exchange.shared;
    let app = shared.apps.by_key(key);
    let caller = Caller {
        client,
        request,
        key,
        app: app.as_ref(),
    };
    caller.log_connecting();
    let counters = app.as_ref().map(AppHandle::counters);
    let counters = counters.unwrap_or(shared.apps.unattributed());
    let allowed = settings.arrivals.allow(client.address.ip(), Instant::now());
    match handshake::check(request, app.as_ref(), exchange.worker.hub()) {
        Ok(mut handshake) => {
            if !exchange.belong_to(client) {
                return too_many(shared, client, &request.headers);
            }
            let is_over_limit = exchange.is_over_limit();
            if settings.arrivals.is_limited() {
                counters.count(Counter::RateChecked(RateLimit::Connections));
            }
            if !allowed {
                counters.count(Counter::RateLimited(RateLimit::Connections));
            }
            if !allowed || is_over_limit {
                handshake.outcome = Err(CloseReason::TooManyConnections);
            }
            if let Ok((app, slot)) = &mut handshake.outcome
                && let Err(reason) = shared.broker.admit(app, slot).await
            {
                handshake.outcome = Err(reason);
            }
            match &handshake.outcome {
                Ok((app, _)) => {
                    let key = app.settings().find_key(key);
                    app.count_credentials(key.unwrap_or(Credential::Current), Credential::Current);
                }
                Err(reason) => counters.count(Counter::ConnectionsRefused(*reason)),
            }
            if is_over_limit {
                caller.log_over_limit(MORE_PER_ADDRESS);
            } else if let Err(reason) = handshake.outcome {
                caller.log_refused(reason);
            }
            let reply = switching(&handshake.accept);
            *exchange.upgrade.borrow_mut() = Some(handshake);
            exchange.activity.is_held.set(true);
            reply
        }
        Err(error) => {
            counters.count(Counter::HandshakesRefused(error.label()));
            caller.log_bad_handshake(error);
            refused(error)
        }
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

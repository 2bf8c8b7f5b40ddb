//! One accepted connection: TLS, HTTP, and the step to a WebSocket.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::activity::Activity;
use super::route::{self, Exchange};
use super::stream::{Deadline, HEAD_BYTES, Stream};
use super::timer::HeadTimer;
use super::{Shared, log};
use crate::apps::{AppHandle, Counter, HandshakeRefusal, RequestRefusal};
use crate::protocol::CloseReason;
use crate::worker::{Admission, Connection, Incoming, Upgraded, Worker};
use crate::ws::handshake::Handshake;
use crate::ws::session;

/// How long the shutdown of the stream may take.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long, and how many bytes, a client whose head is too large may go on sending:
/// closed at once, it would lose the answer that says so.
const LAST_WORDS: (Duration, usize) = (Duration::from_secs(2), 1 << 20);

/// Terms of a connection that is only told why it is refused.
const REFUSED: Admission = Admission {
    ping_interval: Duration::from_secs(60),
    max_message_size: 4096,
    authorization_timeout: None,
    slot: None,
};

/// Serves a connection in a task on this worker.
pub(super) fn spawn(worker: Rc<Worker>, incoming: Incoming, shared: Arc<Shared>) {
    let running = worker.running();
    tokio::task::spawn_local(async move {
        let _running = running;
        let peer = incoming.peer;
        if let Err(error) = incoming.tcp.set_nodelay(true) {
            tracing::debug!(%peer, %error, "the client went at once");
            return;
        }
        // Boxed: an HTTP connection is big, and most end as a small WebSocket.
        Box::pin(serve_unless_idle(worker, incoming, shared)).await;
    });
}

/// Serves a connection until it ends, is upgraded, or takes a permit for nothing.
async fn serve_unless_idle(worker: Rc<Worker>, incoming: Incoming, shared: Arc<Shared>) {
    let activity = Rc::new(Activity::new(&worker));
    let (peer, apps) = (incoming.peer, Arc::clone(&shared.apps));
    let time = shared.request_head_timeout;
    tokio::select! {
        // First what has come, then whether it is too late for it.
        biased;
        () = serve(worker, incoming, shared, Rc::clone(&activity)) => {}
        () = activity.evicted() => {
            apps.unattributed().count(Counter::RequestsRefused(RequestRefusal::Evicted));
            tracing::debug!(%peer, "closed an idle connection: places for connections are short");
        }
        () = activity.is_overdue(time) => {
            apps.unattributed().count(Counter::RequestsRefused(RequestRefusal::HeadTimeout));
            tracing::debug!(%peer, "closed a connection whose first request did not come in time");
        }
    }
}

async fn secure(tcp: TcpStream, peer: SocketAddr, shared: &Shared) -> Option<Stream> {
    let Some(tls) = &shared.tls else {
        return Some(Stream::Plain(tcp));
    };
    match tls.accept(tcp).await {
        Ok(stream) => Some(Stream::Tls(Box::new(stream))),
        Err(error) => {
            if !log::has_gone(&error) {
                let failed = Counter::HandshakesRefused(HandshakeRefusal::Tls);
                shared.apps.unattributed().count(failed);
            }
            log::tls_failed(&error, peer);
            None
        }
    }
}

/// Speaks HTTP until the connection ends or becomes a WebSocket.
async fn serve(
    worker: Rc<Worker>,
    incoming: Incoming,
    shared: Arc<Shared>,
    activity: Rc<Activity>,
) {
    let Incoming { tcp, peer, permit } = incoming;
    let Some(stream) = secure(tcp, peer, &shared).await else {
        return;
    };
    let exchange = Rc::new(Exchange {
        worker: Rc::clone(&worker),
        shared,
        peer,
        is_over_limit: permit.is_over_limit(),
        upgrade: RefCell::new(None),
        activity: Rc::clone(&activity),
    });
    let service = {
        let exchange = Rc::clone(&exchange);
        service_fn(move |request| {
            let exchange = Rc::clone(&exchange);
            // Boxed because hyper only gives its socket back if the future can be moved.
            Box::pin(async move {
                Ok::<_, std::convert::Infallible>(route::answer(&exchange, request).await)
            })
        })
    };
    let io = Deadline::new(stream, exchange.shared.write_timeout, activity);
    let mut http = http1::Builder::new()
        .timer(HeadTimer::new(exchange.shared.request_head_timeout))
        .header_read_timeout(exchange.shared.keep_alive_timeout)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(io), service);
    let mut stopping = pin!(worker.lifecycle().stopping());
    let ended = tokio::select! {
        ended = poll_fn(|cx| http.poll_without_shutdown(cx)) => ended,
        () = &mut stopping => {
            std::pin::Pin::new(&mut http).graceful_shutdown();
            poll_fn(|cx| http.poll_without_shutdown(cx)).await
        }
    };
    let parts = http.into_parts();
    if let Err(error) = &ended {
        if let Some(why) = log::refusal(error) {
            exchange.shared.count_refusal(why);
        }
        log::http_ended(error, &parts.read_buf, peer);
    }
    let (stream, answer) = parts.io.into_inner().into_parts();
    match exchange.upgrade.take() {
        Some(mut handshake) if ended.is_ok() => {
            let (tcp, tls) = stream.into_parts();
            let upgraded = Upgraded {
                tcp,
                tls,
                leftover: parts.read_buf,
                answer,
                permit,
                origin: handshake.origin.take(),
            };
            start_session(&worker, upgraded, handshake, &exchange);
        }
        _ => {
            let sending = ended.is_err_and(|error| error.is_parse_too_large());
            close(stream, sending).await;
        }
    }
}

async fn close(mut stream: Stream, still_sending: bool) {
    // The connection is over; whether the client learns of it does not matter.
    let _ = timeout(SHUTDOWN_TIMEOUT, stream.shutdown()).await;
    if still_sending {
        let (time, size) = LAST_WORDS;
        let _ = timeout(time, read_past(&mut stream, size)).await;
    }
}

/// Reads and drops what a client still sends.
async fn read_past(stream: &mut Stream, mut size: usize) {
    let mut piece = vec![0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut piece).await {
        size = size.saturating_sub(count);
        if size == 0 {
            return;
        }
    }
}

/// Gives a WebSocket a small task of its own.
fn start_session(
    worker: &Rc<Worker>,
    upgraded: Upgraded,
    handshake: Handshake,
    exchange: &Exchange,
) {
    // A handshake that was under way when the server began to go down, or when its
    // application was removed; from here on it is among the worker's sockets.
    let late = |app: &AppHandle, reason| {
        let refused = Counter::ConnectionsRefused(reason);
        app.counters().count(refused);
        Err(reason)
    };
    let outcome = match handshake.outcome {
        Ok((app, _)) if worker.lifecycle().is_stopping() => late(&app, CloseReason::ShuttingDown),
        Ok((app, _)) if app.is_removed() => late(&app, CloseReason::ApplicationDoesNotExist),
        outcome => outcome,
    };
    match outcome {
        Ok((app, slot)) => {
            let settings = app.settings();
            let admission = Admission {
                ping_interval: settings.ping_interval,
                max_message_size: settings.max_message_size,
                authorization_timeout: settings.authorization_timeout,
                slot: Some(slot),
            };
            drop(settings);
            let connection = Connection::new(worker, upgraded, admission);
            let (hub, broker) = (Arc::clone(worker.hub()), exchange.shared.broker.clone());
            let peer = exchange.peer;
            tokio::task::spawn_local(session::run(connection, app, peer, hub, broker));
        }
        Err(reason) => {
            let connection = Connection::new(worker, upgraded, REFUSED);
            tokio::task::spawn_local(session::refuse(connection, exchange.peer, reason));
        }
    }
}

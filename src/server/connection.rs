//! One accepted connection: TLS, HTTP, and the step to a WebSocket.

use std::cell::RefCell;
use std::future::poll_fn;
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
use super::{Settings, Shared, client, log};
use crate::apps::{AppHandle, Counter, HandshakeRefusal, RequestRefusal};
use crate::protocol::CloseReason;
use crate::proxies::Client;
use crate::worker::{Admission, Connection, ConnectionPermit, Incoming, Upgraded, Worker};
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
        // A Unix socket delays nothing, and would say that it knows of no such option.
        if !incoming.is_unix
            && let Err(error) = incoming.tcp.set_nodelay(true)
        {
            tracing::debug!(%peer, %error, "the client went at once");
            return;
        }
        // Boxed: an HTTP connection is big, and most end as a small WebSocket.
        Box::pin(serve_unless_idle(worker, incoming, shared)).await;
    });
}

/// Serves a connection until it ends, is upgraded, or takes a permit for nothing.
async fn serve_unless_idle(worker: Rc<Worker>, incoming: Incoming, shared: Arc<Shared>) {
    let activity = Rc::new(Activity::new(&worker, Client::direct(incoming.peer)));
    let apps = Arc::clone(&shared.apps);
    let peer = || activity.client.get();
    let time = shared.settings.load().request_head_timeout;
    tokio::select! {
        // First what has come, then whether it is too late for it.
        biased;
        () = serve(worker, incoming, shared, Rc::clone(&activity)) => {}
        () = activity.evicted() => {
            apps.unattributed().count(Counter::RequestsRefused(RequestRefusal::Evicted));
            tracing::debug!(peer = %peer(), "closed an idle connection: places for connections are short");
        }
        () = activity.is_overdue(time) => {
            apps.unattributed().count(Counter::RequestsRefused(RequestRefusal::HeadTimeout));
            tracing::debug!(peer = %peer(), "closed a connection whose first request did not come in time");
        }
    }
}

/// Finds out who a new connection is from, and makes it secure if it is to be.
async fn begin(
    incoming: Incoming,
    shared: &Shared,
    activity: &Activity,
) -> Option<(Stream, ConnectionPermit)> {
    let Incoming {
        tcp,
        peer,
        mut permit,
        is_tls,
        ..
    } = incoming;
    let client = client::of_connection(&tcp, peer, &mut permit, shared).await?;
    activity.client.set(client);
    let stream = match is_tls {
        true => secure(tcp, client, shared).await?,
        false => Stream::Plain(tcp),
    };
    Some((stream, permit))
}

async fn secure(tcp: TcpStream, client: Client, shared: &Shared) -> Option<Stream> {
    // There is one as long as a socket speaks TLS.
    let acceptor = shared.tls.acceptor()?;
    match acceptor.accept(tcp).await {
        Ok(stream) => Some(Stream::Tls(Box::new(stream))),
        Err(failed) => {
            if !log::has_gone(&failed.error) {
                let refused = Counter::HandshakesRefused(HandshakeRefusal::Tls);
                shared.apps.unattributed().count(refused);
            }
            log::tls_failed(&failed.error, client);
            failed.tell().await;
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
    let Some((stream, permit)) = begin(incoming, &shared, &activity).await else {
        return;
    };
    let exchange = Rc::new(Exchange {
        worker: Rc::clone(&worker),
        shared,
        permit: RefCell::new(Some(permit)),
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
    let settings = exchange.shared.settings.load();
    let io = Deadline::new(stream, settings.write_timeout, activity);
    let mut http = protocol(&settings).serve_connection(TokioIo::new(io), service);
    drop(settings);
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
        log::http_ended(error, &parts.read_buf, exchange.activity.client.get());
    }
    let (stream, answer) = parts.io.into_inner().into_parts();
    match (exchange.upgrade.take(), exchange.permit.take()) {
        (Some(mut handshake), Some(permit)) if ended.is_ok() => {
            let (tcp, tls, leftover) = stream.into_parts(parts.read_buf);
            let upgraded = Upgraded {
                tcp,
                tls,
                leftover,
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

/// HTTP/1 with the limits that hold now.
fn protocol(settings: &Settings) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(HeadTimer::new(settings.request_head_timeout))
        .header_read_timeout(settings.keep_alive_timeout)
        .max_buf_size(HEAD_BYTES);
    http
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
        Ok((app, _)) if worker.lifecycle().is_stopping() => late(&app, worker.closing_reason()),
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
            let peer = exchange.activity.client.get().address;
            tokio::task::spawn_local(session::run(connection, app, peer, hub, broker));
        }
        Err(reason) => {
            let connection = Connection::new(worker, upgraded, REFUSED);
            let peer = exchange.activity.client.get().address;
            tokio::task::spawn_local(session::refuse(connection, peer, reason));
        }
    }
}

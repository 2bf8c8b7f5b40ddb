//! The listener for whoever looks after the server: `/metrics`, `/live`, `/ready`, `/up`.
//!
//! It has a thread of its own: neither a scrape nor whoever reads one slowly takes time
//! from a worker or from the link to other nodes. A connection is for one request and has
//! [`MAX_HEAD_TIME`] for it and [`MAX_TIME`] in all; there are [`MAX_CONNECTIONS`] at a time,
//! of which the oldest goes for one more: whoever says nothing keeps no probe waiting.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::StartError;
use super::health::Health;
use super::listener::{self, METRICS};
use crate::api::{ApiError, Reply, text};
use crate::config;
use crate::metrics::Metrics;
use crate::telemetry::limit::limited;
use crate::worker::{ListenerSocket, WatchedSocket};

/// How long a connection may take for its request.
const MAX_HEAD_TIME: Duration = Duration::from_secs(1);

/// How long it may take in all, until the answer is read.
const MAX_TIME: Duration = Duration::from_secs(10);

/// Bytes that the kernel holds for one that does not read; by itself it takes megabytes.
const SEND_BUFFER: usize = 64 * 1024;

/// Connections at a time.
pub(super) const MAX_CONNECTIONS: usize = 32;

/// How long accepting rests after an error: mostly, too many files are open.
const PAUSE: Duration = Duration::from_millis(100);

/// The content type of what [`Metrics::render`] returns.
const FORMAT: HeaderValue = HeaderValue::from_static(prometheus::TEXT_FORMAT);

/// What is asked.
pub(super) struct Observed {
    pub(super) metrics: Metrics,
    pub(super) health: Health,
}

/// The thread; it ends when this is dropped.
pub(super) struct Observer {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Takes the port; nothing if it is taken by somebody else and nobody has asked for it.
pub(super) fn bind(
    settings: &config::Metrics,
    reuse_port: bool,
) -> Result<Option<ListenerSocket>, StartError> {
    match listener::bind(&settings.host, settings.port, reuse_port, &METRICS) {
        Ok(listener) => Ok(Some(ListenerSocket::Tcp(listener))),
        Err(error) if settings.is_required => Err(error),
        Err(error) => {
            tracing::warn!("{error}; going on without metrics");
            Ok(None)
        }
    }
}

impl Observer {
    pub(super) fn start(listener: ListenerSocket, observed: Observed) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = {
            let _inside = runtime.enter();
            WatchedSocket::new(listener)?
        };
        let thread = thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = accept(listener, Arc::new(observed)) => {}
                        _ = stopped => {}
                    }
                });
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has panicked, and said so.
            let _ = thread.join();
        }
    }
}

async fn accept(listener: WatchedSocket, observed: Arc<Observed>) {
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        match listener.accept().await {
            Ok((tcp, peer)) => {
                open.retain(|connection| !connection.is_finished());
                if open.len() >= MAX_CONNECTIONS
                    && let Some(oldest) = open.pop_front()
                {
                    oldest.abort();
                }
                let served = tokio::spawn(serve(tcp, peer, Arc::clone(&observed)));
                open.push_back(served.abort_handle());
            }
            Err(error) => {
                let text = "cannot accept a scraper; trying again in 100 ms";
                limited!(warn, text, None, { %error, }, text);
                sleep(PAUSE).await;
            }
        }
    }
}

async fn serve(tcp: TcpStream, peer: SocketAddr, observed: Arc<Observed>) {
    // If it cannot be set, slow scrapers only take more memory.
    let _ = SockRef::from(&tcp).set_send_buffer_size(SEND_BUFFER);
    let service = service_fn(|request| {
        let observed = Arc::clone(&observed);
        async move { Ok::<_, std::convert::Infallible>(answer(&request, &observed).await) }
    });
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(MAX_HEAD_TIME)
        .keep_alive(false)
        .serve_connection(TokioIo::new(tcp), service);
    match timeout(MAX_TIME, http).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%peer, %error, "a scrape has failed"),
        Err(_) => tracing::debug!(%peer, "a scrape took too long"),
    }
}

async fn answer(request: &Request<Incoming>, observed: &Observed) -> Reply {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return ApiError::Method("GET, HEAD").into_reply();
    }
    match request.uri().path() {
        "/metrics" => {
            let mut reply = text(StatusCode::OK, observed.metrics.render());
            reply.headers_mut().insert(header::CONTENT_TYPE, FORMAT);
            reply
        }
        "/live" => observed.health.live().await,
        "/ready" => observed.health.ready(),
        "/up" => observed.health.up(),
        _ => ApiError::NotFound.into_reply(),
    }
}

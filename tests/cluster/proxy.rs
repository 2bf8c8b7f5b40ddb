//! The network between a node and its Redis, which a test can spoil.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::port;

/// What happens to connections and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Everything gets through.
    Fair,
    /// Connections end, and new ones are refused.
    Cut,
    /// Connections are accepted, what is sent is swallowed, and nobody says
    /// anything. Those that lost bytes end with it, since TCP never loses some.
    BlackHole,
    /// What the node says arrives, and it receives nothing: its answers are swallowed.
    Deaf,
    /// Nothing moves, and nothing is lost: it goes on where it stood.
    Still,
    /// Every byte is this late, each way.
    Slow(Duration),
    /// What the node says gets through up to this text; the rest waits. It has to be
    /// in what the node writes at once. What Redis says gets through.
    UpTo(&'static str),
}

/// A TCP proxy in a thread of its own.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    weather: Option<watch::Sender<Weather>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// To a port of 127.0.0.1.
    pub(crate) fn to(target: u16) -> Self {
        let port = port::free();
        let (weather, seen) = watch::channel(Weather::Fair);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, serve(port, target, seen));
        });
        let proxy = Self {
            port,
            weather: Some(weather),
            thread: Some(thread),
        };
        crate::wait::eventually("the proxy listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        proxy
    }

    pub(crate) fn set(&self, weather: Weather) {
        self.weather.as_ref().unwrap().send_replace(weather);
    }

    pub(crate) fn heal(&self) {
        self.set(Weather::Fair);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.weather.take());
        // Its panic was printed; a second one would hide why the test failed.
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(
            std::thread::panicking() || matches!(ended, Some(Ok(()))),
            "the proxy panicked"
        );
    }
}

/// Until the proxy is dropped.
async fn serve(port: u16, target: u16, mut weather: watch::Receiver<Weather>) {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    loop {
        if *weather.borrow_and_update() == Weather::Cut {
            if weather.changed().await.is_err() {
                return;
            }
            continue;
        }
        let listener = TcpListener::bind(address).await.unwrap();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (stream, _) = accepted.unwrap();
                    tokio::task::spawn_local(connection(stream, target, weather.clone()));
                }
                changed = weather.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if *weather.borrow_and_update() == Weather::Cut {
                        break;
                    }
                }
            }
        }
    }
}

/// One connection of the node, until an end is closed, or cut, or has lost bytes.
async fn connection(node: TcpStream, target: u16, weather: watch::Receiver<Weather>) {
    let mut changes = weather.clone();
    if *changes.borrow() == Weather::BlackHole {
        return swallow(node, changes).await;
    }
    while *changes.borrow_and_update() == Weather::Still {
        if changes.changed().await.is_err() {
            return;
        }
    }
    let Ok(redis) = TcpStream::connect(("127.0.0.1", target)).await else {
        return;
    };
    node.set_nodelay(true).unwrap();
    redis.set_nodelay(true).unwrap();
    let (from_node, to_node) = node.into_split();
    let (from_redis, to_redis) = redis.into_split();
    tokio::select! {
        () = carry(from_node, to_redis, Weather::BlackHole, weather.clone()) => {}
        () = carry(from_redis, to_node, Weather::Deaf, weather) => {}
        // Dropping both ends closes them.
        () = cut(changes) => {}
    }
}

/// Until connections are cut, or the proxy ends.
async fn cut(mut weather: watch::Receiver<Weather>) {
    let _ = weather.wait_for(|now| *now == Weather::Cut).await;
}

/// Reads and forgets, until the black hole is gone.
async fn swallow(mut node: TcpStream, mut weather: watch::Receiver<Weather>) {
    let mut scratch = vec![0; 16 * 1024];
    loop {
        tokio::select! {
            read = node.read(&mut scratch) => {
                if !matches!(read, Ok(1..)) {
                    return;
                }
            }
            _ = weather.wait_for(|now| *now != Weather::BlackHole) => return,
        }
    }
}

/// Carries bytes one way, which also `hole` swallows, beside a black hole. Returns
/// when the connection has to end.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    hole: Weather,
    mut weather: watch::Receiver<Weather>,
) {
    let swallows = |now: Weather| now == Weather::BlackHole || now == hole;
    let mut waiting: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    // What waits because of `Weather::UpTo`.
    let mut rest: Vec<u8> = Vec::new();
    let mut lost = false;
    let mut scratch = vec![0; 64 * 1024];
    loop {
        let now = *weather.borrow_and_update();
        if !rest.is_empty() && !matches!(now, Weather::UpTo(_)) {
            waiting.push_back((Instant::now(), std::mem::take(&mut rest)));
        }
        if lost && !swallows(now) {
            return;
        }
        let still = now == Weather::Still;
        let due = waiting.front().map(|(due, _)| *due);
        tokio::select! {
            read = from.read(&mut scratch), if !still && rest.is_empty() && waiting.len() < 1024 => {
                let Ok(count @ 1..) = read else {
                    // What is on its way still arrives.
                    return flush(waiting, &mut to).await;
                };
                // It may have changed since.
                match *weather.borrow() {
                    now if swallows(now) => lost = true,
                    Weather::Slow(by) => waiting.push_back((Instant::now() + by, scratch[..count].to_vec())),
                    Weather::UpTo(text) if hole == Weather::BlackHole => {
                        let bytes = &scratch[..count];
                        let is_it = |window: &[u8]| window == text.as_bytes();
                        let at = bytes.windows(text.len()).position(is_it).unwrap_or(count);
                        rest = bytes[at..].to_vec();
                        waiting.push_back((Instant::now(), bytes[..at].to_vec()));
                    }
                    _ => waiting.push_back((Instant::now(), scratch[..count].to_vec())),
                }
            }
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if !still && due.is_some() => {
                let (_, bytes) = waiting.pop_front().unwrap();
                if swallows(now) {
                    lost = true;
                } else if to.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            changed = weather.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

async fn flush(waiting: VecDeque<(Instant, Vec<u8>)>, to: &mut OwnedWriteHalf) {
    for (due, bytes) in waiting {
        tokio::time::sleep_until(due).await;
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

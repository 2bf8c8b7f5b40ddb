//! Workers between which connections are moved, and clients that miss nothing.

use std::collections::HashMap;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use resound::apps::{AppHandle, AppRegistry};
use resound::broker::Broker;
use resound::cluster::{Node, Running};
use resound::config::Config;
use resound::hub::{
    BufferLimits, Capacity, ClusterQueue, ConnectionRef, Hub, Publisher as By, Sinks,
};
use resound::lifecycle::Lifecycle;
use resound::protocol::{ChannelName, message};
use resound::tls::Session;
use resound::worker::state::ConnectionState;
use resound::worker::{
    self, Admission, Connection, ConnectionPermits, Limits, ListenerSocket, Liveness, MoveError,
    MoveRequest, Pool, Serve, Setup, Upgraded,
};
use resound::ws::session;
use serde_json::{Value, json};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Message, WebSocket};

use crate::support::{APP_ID, Client, KEY, PATIENCE, SECRET, hmac, server};

/// How many workers connections are moved between.
pub(crate) const WORKERS: usize = 3;

/// One more, which does nothing: whether there is room is for the test to say.
const STALLED: usize = WORKERS;

/// Makes the TLS session of a connection, if it is to have one.
pub(crate) type Tls = fn() -> Option<Box<Session>>;

pub(crate) struct Workers {
    pub(crate) hub: Arc<Hub>,
    pub(crate) app: AppHandle,
    apps: Arc<AppRegistry>,
    address: SocketAddr,
    /// Where its Unix socket is.
    dir: tempfile::TempDir,
    pool: Option<Pool>,
    lifecycle: Lifecycle,
    /// Where connections live, by the address that they come from.
    homes: Homes,
    link: Option<(Running, Runtime)>,
}

/// What is known of other nodes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Others {
    /// There are none.
    None,
    /// They never answer.
    Silent,
    /// There is Redis, by its settings.
    Redis,
}

impl Workers {
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        Self::with(settings, Others::None, || None)
    }

    pub(crate) fn linked(settings: &[(&str, &str)], others: Others) -> Self {
        Self::with(settings, others, || None)
    }

    pub(crate) fn with(settings: &[(&str, &str)], others: Others, tls: Tls) -> Self {
        let config = Config::load(&server::sources(settings)).unwrap();
        let apps = Arc::new(AppRegistry::new(config.apps.clone()).unwrap());
        let node = match others {
            Others::Redis => Some(Node::new(config.scaling.as_ref().unwrap()).unwrap()),
            Others::None | Others::Silent => None,
        };
        let app = apps.by_id(APP_ID).unwrap();
        let capacity = Capacity {
            inbox_bytes: 1 << 20,
            sockets: usize::MAX,
        };
        let queue = queue(node.as_ref(), others);
        let hub = Hub::with_outputs(WORKERS + 1, capacity, queue, Sinks::default());
        let hub = Arc::new(hub);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let unix = unix_listener(&dir.path().join("s"));
        let lifecycle = Lifecycle::new();
        let homes = Homes::default();
        let broker = Broker::new(Arc::clone(&hub), None);
        let link = node.map(|node| {
            let runtime = Runtime::new().unwrap();
            let link = runtime.block_on(node.start(&hub, &apps, &lifecycle));
            (link.unwrap(), runtime)
        });
        let setup = Setup {
            hub: Arc::clone(&hub),
            limits: Arc::new(arc_swap::ArcSwap::from_pointee(Limits {
                max_backlog: config.server.max_backlog,
                max_total_backlog: config.server.max_total_backlog,
                pong_timeout: config.server.pong_timeout,
                shutdown_grace: config.server.shutdown_grace,
            })),
            lifecycle: lifecycle.clone(),
            leaves_to_successor: false,
            permits: Arc::new(ConnectionPermits::new(usize::MAX, usize::MAX, None)),
            liveness: Arc::new(Liveness::new(WORKERS)),
            serve: serve(app.clone(), Arc::clone(&homes), broker, tls),
        };
        let pool = Pool::start(WORKERS, vec![listener.into(), unix], &setup).unwrap();
        let workers = Self {
            hub,
            app,
            apps,
            address,
            dir,
            pool: Some(pool),
            lifecycle,
            homes,
            link,
        };
        let stalled = ConnectionRef {
            worker: STALLED,
            key: 0,
            id: resound::protocol::SocketId::from_random(1),
        };
        let name = channel("stalled");
        let deadline = Instant::now() + PATIENCE;
        while others == Others::Redis && !workers.hub.cluster_queue().unwrap().is_up() {
            assert!(Instant::now() < deadline, "there is no link");
            thread::sleep(Duration::from_millis(1));
        }
        let subscribed = workers.hub.subscribe(&workers.app, &name, stalled, None);
        subscribed.unwrap();
        workers
    }

    /// A TCP connection that is a WebSocket from its first byte.
    pub(crate) fn dial(&self) -> TcpStream {
        let tcp = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // Both ends have small buffers, so that it blocks before long.
        tcp.set_recv_buffer_size(64 * 1024).unwrap();
        tcp.connect(&self.address.into()).unwrap();
        let tcp = TcpStream::from(tcp);
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.set_nodelay(true).unwrap();
        tcp
    }

    pub(crate) fn connect(&self) -> Listener {
        Self::established(self.dial())
    }

    /// Over its Unix socket; all of these have one address.
    pub(crate) fn connect_unix(&self) -> Listener {
        let stream = UnixStream::connect(self.dir.path().join("s")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::established(OwnedFd::from(stream).into())
    }

    fn established(raw: TcpStream) -> Listener {
        let stream = Box::new(raw.try_clone().unwrap());
        let mut client = Client {
            socket: WebSocket::from_raw_socket(stream, Role::Client, None),
            id: String::new(),
        };
        client.established();
        Listener {
            client,
            raw,
            last: HashMap::new(),
        }
    }

    /// Where the connection from an address lives.
    pub(crate) fn home(&self, address: SocketAddr) -> ConnectionRef {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(home) = self.homes.lock().unwrap().get(&address) {
                return *home;
            }
            assert!(Instant::now() < deadline, "it is not served");
            thread::yield_now();
        }
    }

    /// Moves a connection to the next worker, by way of its written form, which is
    /// returned.
    pub(crate) fn try_move(&self, address: SocketAddr) -> Result<ConnectionState, MoveError> {
        let target = (self.home(address).worker + 1) % WORKERS;
        self.begin_move(address, target).end(self)
    }

    /// Asks for a move to a worker.
    pub(crate) fn begin_move(&self, address: SocketAddr, target: usize) -> Move {
        let connection = self.home(address);
        let (seen, state) = std::sync::mpsc::sync_channel(1);
        let (done, moved) = oneshot::channel();
        self.pool.as_ref().unwrap().request_move(MoveRequest {
            connection,
            target,
            observe: Box::new(move |state: ConnectionState| {
                let written = serde_json::to_string(&state).unwrap();
                let read: ConnectionState = serde_json::from_str(&written).unwrap();
                assert_eq!(read, state);
                seen.send(state).unwrap();
                read
            }),
            done,
        });
        Move {
            address,
            state,
            moved,
        }
    }

    pub(crate) fn move_on(&self, listener: &Listener) -> ConnectionState {
        self.try_move(listener.address()).unwrap()
    }

    /// Moves a connection on and on until it was moved in the state that is meant.
    pub(crate) fn move_until(
        &self,
        listener: &Listener,
        is_meant: impl Fn(&ConnectionState) -> bool,
    ) -> ConnectionState {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let state = self.move_on(listener);
            if is_meant(&state) {
                return state;
            }
            assert!(Instant::now() < deadline, "never in this state: {state:?}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn publish(&self, name: &str, data: &str) {
        publish(&self.hub, &self.app, name, data);
    }

    /// Publishes increasing numbers to channels until it is stopped, with so many bytes
    /// beside each.
    pub(crate) fn publisher(&self, channels: &[&str], padding: fn(u64) -> usize) -> Publisher {
        let (hub, app) = (Arc::clone(&self.hub), self.app.clone());
        let channels: Vec<String> = channels.iter().map(ToString::to_string).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let pause = Arc::new(AtomicU64::new(500));
        let (stopped, paused) = (Arc::clone(&stop), Arc::clone(&pause));
        let thread = thread::spawn(move || {
            let mut number = 0;
            loop {
                // One more round, for who has just subscribed.
                let is_last = stopped.load(Ordering::Relaxed);
                number += 1;
                let data = format!("{number} {}", "x".repeat(padding(number)));
                for name in &channels {
                    publish(&hub, &app, name, &data);
                }
                if is_last {
                    return number;
                }
                thread::sleep(Duration::from_micros(paused.load(Ordering::Relaxed)));
            }
        });
        Publisher {
            stop,
            pause,
            thread,
        }
    }

    /// There is no room from now on.
    pub(crate) fn fall_behind(&self) {
        self.publish("stalled", &"x".repeat(1 << 20));
        assert!(!self.hub.has_room());
    }

    pub(crate) fn catch_up(&self) {
        let inbox = self.hub.inbox(STALLED);
        let done = inbox.take().iter().map(|waiting| waiting.cost()).sum();
        inbox.release(done);
    }

    /// Waits until there is no connection and nothing of any.
    pub(crate) fn expect_empty(&self) {
        let deadline = Instant::now() + PATIENCE;
        let left = || {
            let (hub, app) = (&self.hub, &self.app);
            let channels = hub.channels(app, "").len() - 1;
            (channels, hub.users(app), app.connections())
        };
        while left() != (0, 0, 0) {
            assert!(Instant::now() < deadline, "left: {:?}", left());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The application is served no more.
    pub(crate) fn remove_app(&self) {
        self.apps.apply(Vec::new()).unwrap();
        self.hub.remove_app(&self.app);
    }

    pub(crate) fn go_down(&self) {
        self.lifecycle.stop();
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.go_down();
        if let Some(pool) = self.pool.take() {
            pool.join();
        }
        if let Some((link, runtime)) = self.link.take() {
            runtime.block_on(link.stop());
        }
    }
}

/// Where what others have to know is queued.
fn queue(node: Option<&Node>, others: Others) -> Option<Arc<ClusterQueue>> {
    if let Some(node) = node {
        return Some(Arc::clone(node.queue()));
    }
    let kept = BufferLimits {
        bytes: 0,
        time: Duration::ZERO,
    };
    let queue = Arc::new(ClusterQueue::new(kept));
    queue.go_up();
    (others == Others::Silent).then_some(queue)
}

type Homes = Arc<Mutex<HashMap<SocketAddr, ConnectionRef>>>;

/// Serves each TCP connection as a WebSocket from its first byte.
fn serve(served: AppHandle, homes: Homes, broker: Broker, tls: Tls) -> Arc<Serve> {
    Arc::new(move |worker, incoming| {
        let (app, peer) = (served.clone(), incoming.peer);
        let tcp = SockRef::from(&incoming.tcp);
        tcp.set_send_buffer_size(64 * 1024).unwrap();
        let settings = app.snapshot();
        let admission = Admission {
            ping_interval: settings.ping_interval,
            max_message_size: settings.max_message_size,
            authorization_timeout: settings.authorization_timeout,
            slot: Some(worker.hub().admit(&app).unwrap()),
        };
        let upgraded = Upgraded {
            tcp: incoming.tcp,
            tls: tls(),
            leftover: bytes::Bytes::new(),
            answer: Vec::new(),
            permit: incoming.permit,
            origin: Some("https://example.com".to_owned()),
        };
        let connection = Connection::new(&worker, upgraded, admission);
        homes.lock().unwrap().insert(peer, connection.address());
        let hub = Arc::clone(worker.hub());
        let session = session::run(connection, app, peer, hub, broker.clone());
        tokio::task::spawn_local(session);
    })
}

fn unix_listener(path: &Path) -> worker::Listener {
    let listener = UnixListener::bind(path).unwrap();
    listener.set_nonblocking(true).unwrap();
    worker::Listener {
        on_close: None,
        socket: ListenerSocket::Unix(listener),
        is_tls: false,
    }
}

fn publish(hub: &Hub, app: &AppHandle, name: &str, data: &str) {
    let name = channel(name);
    let encode = || message::event("\"n\"", &format!("\"{data}\""), &name);
    hub.publish(app, &name, By::Application { except: None }, encode);
}

pub(crate) fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name, 164).unwrap()
}

/// A move that was asked for.
pub(crate) struct Move {
    address: SocketAddr,
    state: std::sync::mpsc::Receiver<ConnectionState>,
    moved: oneshot::Receiver<Result<ConnectionRef, MoveError>>,
}

impl Move {
    /// Waits for it. Returns the connection's written form.
    pub(crate) fn end(self, workers: &Workers) -> Result<ConnectionState, MoveError> {
        let home = self
            .moved
            .blocking_recv()
            .expect("the request is answered")?;
        workers.homes.lock().unwrap().insert(self.address, home);
        Ok(self.state.recv().unwrap())
    }
}

/// A thread that publishes.
pub(crate) struct Publisher {
    stop: Arc<AtomicBool>,
    /// Microseconds between two numbers.
    pause: Arc<AtomicU64>,
    thread: JoinHandle<u64>,
}

impl Publisher {
    /// So that a client catches up that is slow.
    pub(crate) fn slow_down(&self) {
        self.pause.store(20_000, Ordering::Relaxed);
    }

    /// Returns the last number.
    pub(crate) fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// A client that gets every number of each of its channels once and in order.
pub(crate) struct Listener {
    pub(crate) client: Client,
    raw: TcpStream,
    /// The last number that came, by channel.
    last: HashMap<String, u64>,
}

impl Listener {
    pub(crate) fn address(&self) -> SocketAddr {
        self.raw.local_addr().unwrap()
    }

    /// Writes bytes as they are.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.raw.write_all(bytes).unwrap();
    }

    /// Whether a message is a number, which has to be the next one.
    fn count(&mut self, message: &Message) -> bool {
        let Message::Text(text) = message else {
            return false;
        };
        let Ok(event) = serde_json::from_str::<Value>(text) else {
            return false;
        };
        if event["event"] != "n" {
            return false;
        }
        let data = event["data"].as_str().unwrap();
        let number: u64 = data.split(' ').next().unwrap().parse().unwrap();
        let channel = event["channel"].as_str().unwrap().to_owned();
        if let Some(last) = self.last.insert(channel.clone(), number) {
            assert_eq!(number, last + 1, "of {channel}");
        }
        true
    }

    /// The next message that is not a number.
    pub(crate) fn next(&mut self) -> Message {
        loop {
            let message = self.client.next();
            if !self.count(&message) {
                return message;
            }
        }
    }

    pub(crate) fn expect(&mut self, text: &str) {
        assert_eq!(self.next(), Message::text(text));
    }

    /// Expects that all numbers up to this have come, and nothing else.
    pub(crate) fn expect_all(&mut self, channel: &str, number: u64) {
        while self.last(channel) != Some(number) {
            let message = self.client.socket.read();
            let message = message.unwrap_or_else(|error| {
                panic!("{error} after {:?} of {channel} {number}", self.last)
            });
            assert!(self.count(&message), "{message:?}");
        }
    }

    /// The last number of a channel that has come.
    pub(crate) fn last(&self, channel: &str) -> Option<u64> {
        self.last.get(channel).copied()
    }

    /// Expects a number, of any channel.
    pub(crate) fn step(&mut self) {
        let message = self.client.next();
        assert!(self.count(&message), "{message:?}");
    }

    pub(crate) fn subscribe(&mut self, channel: &str) {
        self.client.ask(channel);
        self.expect(&succeeded(channel));
    }

    /// Asks to sign in. Returns the answer.
    pub(crate) fn sign_in(&mut self, user_data: &str) -> String {
        let signed = format!("{}::user::{user_data}", self.client.id);
        let auth = format!("{KEY}:{}", hmac(SECRET, &signed));
        let data = json!({ "auth": auth, "user_data": user_data });
        let request = json!({ "event": "pusher:signin", "data": data }).to_string();
        self.client.send(&request);
        let data = json!({ "user_data": user_data });
        format!(r#"{{"event":"pusher:signin_success","data":{data}}}"#)
    }

    /// Asks to join a presence channel.
    pub(crate) fn join(&mut self, name: &str, data: &str) {
        let auth = hmac(SECRET, &format!("{}:{name}:{data}", self.client.id));
        let auth = format!("{KEY}:{auth}");
        let data = json!({ "channel": name, "auth": auth, "channel_data": data });
        let request = json!({ "event": "pusher:subscribe", "data": data }).to_string();
        self.client.send(&request);
    }

    /// Forgets which number of a channel was the last.
    pub(crate) fn forget(&mut self, channel: &str) {
        self.last.remove(channel);
    }

    pub(crate) fn expect_alive(&mut self) {
        self.client.send(PING);
        self.expect(PONG);
    }
}

pub(crate) const PING: &str = r#"{"event":"pusher:ping","data":{}}"#;
pub(crate) const PONG: &str = r#"{"event":"pusher:pong"}"#;

pub(crate) fn succeeded(channel: &str) -> String {
    format!(
        r#"{{"event":"pusher_internal:subscription_succeeded","data":"{{}}","channel":"{channel}"}}"#
    )
}

/// A masked frame.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    let mask = [0x12, 0x34, 0x56, 0x78];
    let mut frame = vec![first, 0x80 | payload.len() as u8];
    frame.extend_from_slice(&mask);
    frame.extend(
        payload
            .iter()
            .zip(0..)
            .map(|(byte, at)| byte ^ mask[at % 4]),
    );
    frame
}

//! Workers that are behind: publishers and clients wait for room, nothing else does.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use resound::apps::{AppHandle, AppRegistry};
use resound::broker::Broker;
use resound::config::Config;
use resound::hub::{Capacity, ConnectionRef, Hub, Publisher};
use resound::lifecycle::Lifecycle;
use resound::protocol::{ChannelName, SocketId, message};
use resound::worker::{
    Admission, Connection, ConnectionPermits, Handled, Limits, Liveness, Pool, Received, Setup,
    Upgraded,
};
use resound::ws::session;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Message, WebSocket};

use crate::support::{self, APP_ID, Client, PATIENCE};

/// A worker, and a second one that is so far behind that it does nothing: whether
/// there is room is for the test to say.
const APPLICATION: Publisher<'_> = Publisher::Application { except: None };

struct Workers {
    hub: Arc<Hub>,
    app: AppHandle,
    address: SocketAddr,
    pool: Option<Pool>,
    lifecycle: Lifecycle,
}

const STALLED: usize = 1;

/// What is done with a connection.
type Serve = fn(Connection, AppHandle, SocketAddr, Broker);

impl Workers {
    fn start(settings: &[(&str, &str)]) -> Self {
        Self::serving(settings, |connection, app, peer, broker| {
            let hub = Arc::clone(connection.worker().hub());
            tokio::task::spawn_local(session::run(connection, app, peer, hub, broker));
        })
    }

    fn serving(settings: &[(&str, &str)], serve: Serve) -> Self {
        let config = Config::load(&support::server::sources(settings)).unwrap();
        let apps = AppRegistry::new(config.apps.clone()).unwrap();
        let app = apps.by_id(APP_ID).unwrap();
        let capacity = Capacity {
            inbox_bytes: 1,
            sockets: usize::MAX,
        };
        let hub = Arc::new(Hub::new(2, capacity));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let lifecycle = Lifecycle::new();
        let broker = Broker::new(Arc::clone(&hub), None);
        let served = app.clone();
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
            liveness: Arc::new(Liveness::new(1)),
            serve: Arc::new(move |worker, incoming| {
                let (app, peer) = (served.clone(), incoming.peer);
                let settings = app.snapshot();
                let admission = Admission {
                    ping_interval: settings.ping_interval,
                    max_message_size: settings.max_message_size,
                    authorization_timeout: None,
                    slot: None,
                };
                let upgraded = Upgraded {
                    tcp: incoming.tcp,
                    tls: None,
                    leftover: bytes::Bytes::new(),
                    answer: Vec::new(),
                    permit: incoming.permit,
                    origin: None,
                };
                let connection = Connection::new(&worker, upgraded, admission);
                serve(connection, app, peer, broker.clone());
            }),
        };
        let pool = Pool::start(1, vec![listener.into()], &setup).unwrap();
        let workers = Self {
            hub,
            app,
            address,
            pool: Some(pool),
            lifecycle,
        };
        let connection_ref = ConnectionRef {
            worker: STALLED,
            key: 0,
            id: SocketId::from_random(1),
        };
        let name = channel("stalled");
        workers
            .hub
            .subscribe(&workers.app, &name, connection_ref, None)
            .unwrap();
        workers
    }

    fn connect(&self) -> Client {
        let mut client = self.open();
        client.established();
        client
    }

    fn open(&self) -> Client {
        let tcp = TcpStream::connect(self.address).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.set_nodelay(true).unwrap();
        Client {
            socket: WebSocket::from_raw_socket(Box::new(tcp), Role::Client, None),
            id: String::new(),
        }
    }

    fn publish(&self, name: &str, data: &str) {
        let name = channel(name);
        let encode = || message::event("\"ev\"", &format!("\"{data}\""), &name);
        self.hub.publish(&self.app, &name, APPLICATION, encode);
    }

    fn fall_behind(&self) {
        self.publish("stalled", "x");
        assert!(!self.hub.has_room());
    }

    fn catch_up(&self) {
        let inbox = self.hub.inbox(STALLED);
        let done = inbox.take().iter().map(|waiting| waiting.cost()).sum();
        inbox.release(done);
        assert!(self.hub.has_room());
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.lifecycle.stop();
        if let Some(pool) = self.pool.take() {
            pool.join();
        }
    }
}

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name, 164).unwrap()
}

/// It used to poll nothing while it waited: what it was sent piled up until it was
/// closed as too slow, and its pongs were not read.
#[test]
fn a_client_whose_message_waits_for_room_is_written_to_and_not_taken_for_silent() {
    let workers = Workers::start(&[
        ("REVERB_APP_PING_INTERVAL", "1"),
        ("RESOUND_PONG_TIMEOUT", "1"),
        ("RESOUND_MAX_BACKLOG", "100000000"),
    ]);
    let mut client = workers.connect();
    client.subscribe("lobby");
    workers.fall_behind();
    client.expect_alive();
    client.ask("later");
    client.send(r#"{"event":"pusher:ping","data":{}}"#);
    thread::sleep(Duration::from_millis(100));
    // More than the kernel's buffers take: it blocks, and has to go on when it can.
    let data = "x".repeat(100_000);
    const MESSAGES: usize = 300;
    (0..MESSAGES).for_each(|_| workers.publish("lobby", &data));
    thread::sleep(Duration::from_secs(4));
    let event = format!(r#"{{"event":"ev","data":"{data}","channel":"lobby"}}"#);
    (0..MESSAGES).for_each(|_| client.expect(&event));
    assert!(workers.hub.find(&workers.app, "later").is_none());
    workers.catch_up();
    client.expect(
        r#"{"event":"pusher_internal:subscription_succeeded","data":"{}","channel":"later"}"#,
    );
    client.expect(r#"{"event":"pusher:pong"}"#);
    client.expect(r#"{"event":"pusher:ping"}"#);
}

#[test]
fn a_client_that_goes_while_its_message_waits_leaves_nothing() {
    let mut workers = Workers::start(&[]);
    let mut client = workers.connect();
    workers.fall_behind();
    client.ask("later");
    thread::sleep(Duration::from_millis(50));
    workers.lifecycle.stop();
    loop {
        match client.next() {
            Message::Close(Some(frame)) => {
                assert_eq!(u16::from(frame.code), 1001);
                break;
            }
            Message::Text(text) => assert!(text.contains("pusher:error"), "{text}"),
            other => panic!("{other:?}"),
        }
    }
    let began = Instant::now();
    drop(client);
    workers.pool.take().unwrap().join();
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "it held up the end"
    );
    assert!(workers.hub.find(&workers.app, "later").is_none());
}

#[test]
fn publishers_are_answered_as_soon_as_there_is_room() {
    let workers = Workers::start(&[]);
    let broker = Broker::new(Arc::clone(&workers.hub), None);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(broker.wait_for_room());
    workers.fall_behind();
    let mut waiting = std::pin::pin!(broker.wait_for_room());
    runtime.block_on(async {
        let short = Duration::from_millis(50);
        let waited = tokio::time::timeout(short, waiting.as_mut()).await;
        assert!(waited.is_err(), "there is no room");
        workers.catch_up();
        tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    });
}

/// One that floods kept the others waiting for all that it had sent.
#[test]
fn clients_whose_messages_take_long_take_turns() {
    static ORDER: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let workers = Workers::serving(&[], |connection, _, _, _| {
        tokio::task::spawn_local(async move {
            // Until both have sent all.
            tokio::time::sleep(Duration::from_millis(300)).await;
            let handle = |_: &Connection, text: &str| {
                ORDER.lock().unwrap().push(text.to_owned());
                thread::sleep(Duration::from_millis(2));
                Handled::Done
            };
            while let Ok(received) = connection.receive(handle).await {
                if received == Received::TurnOver {
                    tokio::task::yield_now().await;
                }
            }
        });
    });
    let mut clients = [workers.open(), workers.open()];
    for (client, name) in clients.iter_mut().zip(["a", "b"]) {
        for n in 0..4 {
            client
                .socket
                .write(Message::text(format!("{name}{n}")))
                .unwrap();
        }
        client.socket.flush().unwrap();
    }
    let deadline = Instant::now() + PATIENCE;
    while ORDER.lock().unwrap().len() < 8 {
        assert!(Instant::now() < deadline, "{:?}", ORDER.lock().unwrap());
        thread::sleep(Duration::from_millis(10));
    }
    let order = ORDER.lock().unwrap();
    for (n, turn) in order.chunks(2).enumerate() {
        let mut turn = turn.to_vec();
        turn.sort();
        assert_eq!(turn, [format!("a{n}"), format!("b{n}")], "{order:?}");
    }
}

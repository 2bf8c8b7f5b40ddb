//! Resound: a server that speaks the Pusher protocol and replaces Laravel Reverb
//! without a change in the application.
//!
//! A library that a test can start on port 0, and a thin `main`. A pure
//! [`protocol`] (no I/O, no clock). A synchronous, in-memory [`hub`] that knows who
//! is subscribed to what. A few [`worker`] threads, each of which owns its sockets
//! outright. One [`broker`] that both interfaces call: the signed HTTP [`api`] and
//! the sockets of [`ws`]. A broadcast is encoded once into the bytes of a whole
//! WebSocket frame, handed to each worker once, and written once per socket,
//! however many messages are waiting.
//!
//! # Who may import whom
//!
//! Downwards only, and no two modules each other; neighbours on one row never:
//!
//! ```text
//! main → cli, generate, import, doctor, tools, health, control, config, telemetry, shutdown, systemd, server
//! cli, health → config
//! doctor → cli, import, tools, client, config, protocol, server
//! import → cli, config
//! generate → cli
//! tools → cli, client, config, apps, protocol
//! control → config, server
//! server → metrics, webhooks, api, ws, worker, broker, cluster, hub
//! metrics
//! webhooks → client, cluster, hub
//! client → protocol
//! api | ws
//! broker, worker
//! cluster
//! hub
//! config
//! apps
//! protocol, lifecycle, shutdown, systemd, proxies, tls
//! telemetry
//! ```
//!
//! `tests/it/layers.rs` fails on anything else, on circles within a layer, on a runtime in
//! [`protocol`], on an `async fn` in [`hub`], and on files and functions that grow too long.
//!
//! # A publish, from HTTP to the sockets
//!
//! 1. The first worker accepts and gives every worker its turn; TLS and hyper run
//!    there ([`server`]).
//! 2. [`api`] reads the body up to its limit and verifies the request into
//!    [`api::auth::Authorized`]; nothing else can be made of an unverified one.
//! 3. The body is parsed into [`protocol::publish::Publish`]. From here nothing is
//!    checked again.
//! 4. [`broker::Broker::publish`] asks the [`hub`] for each channel, which encodes
//!    the frame once, gives it the channel's next sequence number, and pushes it to
//!    the inbox of each worker that has subscribers, under the channel's lock.
//! 5. Each worker drains its inbox, the channels in turn, appends frames to the out-buffers of its
//!    subscribers, and writes the touched sockets, each once, in slices between
//!    which the event loop turns. A socket that would block keeps its bytes; past
//!    its bound, or the bound of all together, it is closed as too slow.
//!
//! # Several nodes
//!
//! Local subscribers never wait for another node. What the others have to know, the hub
//! puts into its [`hub::ClusterQueue`], under the same lock as the messages to its own
//! workers: events in their order, and of everything else only which topics have changed.
//! [`cluster`] takes them from there, reads how a topic is now, sends Redis the difference
//! to what it has, and confirms to the hub what others know; and it brings what others say
//! into the hub. A node subscribes to one Redis channel for each Pusher channel that it has
//! subscribers in, so its work grows with what its own sockets want. Whoever is on
//! another node is announced and counted by each node for its own subscribers, out of its
//! own view, so that everybody sees each user come and go once.
//!
//! # Sinks: who gets what happens
//!
//! Everything that the hub decides goes through its outputs, under the lock under which it
//! was decided: the workers' inboxes, the queue for other nodes, and any number of
//! [`hub::Sink`]s, which get a [`hub::HubEvent`] for each connection, channel, member,
//! event, count and refusal. Without a sink, none is made. Metrics are one; [`webhooks`] are
//! another, which keeps only what has changed, and has a thread of its own look at it.
//!
//! # A client frame
//!
//! 1. A worker reads into a buffer that its sockets share, and handles a millisecond's
//!    worth of it before the others have their turn; tungstenite unmasks and parses; a
//!    text message becomes a [`protocol::ClientFrame`] or is answered with an error.
//! 2. One `match` in `ws::dispatch` runs it.
//! 3. Any way out drops the [`worker::Connection`], which leaves every channel
//!    exactly once.
//!
//! # Invariants
//!
//! - Once it is handed on, a socket is touched by its own worker's thread and by
//!   nobody else.
//! - The hub never awaits and does no I/O; no lock is held across an await. Its locks are
//!   taken in one order, and debug builds panic on another:
//!   `Apps -> Registry -> Channel -> Cache -> Users -> CountsDue -> Inbox -> ClusterQueue`.
//! - All subscribers of a channel see its events in one order. A subscriber gets
//!   nothing twice and nothing from before it joined: it skips frames whose number
//!   is not above the one it joined at.
//! - An out-buffer starts at a frame's first byte, at first behind the answer to the
//!   handshake, and holds whole frames, so that
//!   broadcasts, tungstenite's pongs and close frames, and cuts meet only at frame
//!   boundaries.
//! - A frame of 8 KiB or more is shared by the out-buffers that hold it.
//! - An idle connection holds no buffer, encrypted or not.
//! - An application is known by its [`apps::AppHandle`], never by an index; what is kept
//!   for one that was removed goes with its last socket.
//! - A connection can be written down at any byte ([`worker::state`]). One that goes on in
//!   another worker misses nothing and gets nothing twice: it changes hands at one number of
//!   each of its channels.
//! - Disconnecting costs O(own subscriptions); finding a socket or a channel is a
//!   look-up.
//! - Every queue has a bound in bytes and every wait a deadline. When a worker is
//!   behind, publishers wait; only a socket that does not take what we tried to
//!   write is slow.

pub mod cli;
pub mod control;
pub mod doctor;
pub mod generate;
pub mod health;
pub mod import;
pub mod server;
pub mod tools;

pub mod metrics;
pub mod webhooks;

pub mod client;

pub mod api;
pub mod ws;

pub mod broker;
pub mod worker;

pub mod cluster;

pub mod hub;

pub mod apps;
pub mod config;
pub mod lifecycle;
pub mod protocol;
pub mod proxies;
pub mod shutdown;
pub mod systemd;
pub mod telemetry;
pub mod tls;

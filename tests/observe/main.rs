//! What a real Prometheus sees of running servers: every expression of the board and every
//! alert. `scripts/test observe` installs it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(missing_docs, reason = "tests are read, not linked to")]

#[path = "../it/support/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "it also serves tests of one server"
)]
mod support;

// What the tests are made of, some of it shared with those of several nodes.
#[path = "../cluster/node.rs"]
#[allow(dead_code, reason = "it also serves tests of several nodes")]
mod node;
#[path = "../cluster/port.rs"]
mod port;
mod prometheus;
#[path = "../cluster/redis.rs"]
#[allow(dead_code, reason = "it also serves tests of several nodes")]
mod redis;
#[path = "../cluster/running.rs"]
#[allow(dead_code, reason = "it also serves tests of several nodes")]
mod running;
mod server;
#[path = "../cluster/settings.rs"]
#[allow(dead_code, reason = "it also serves tests of several nodes")]
mod settings;
#[path = "../cluster/wait.rs"]
#[allow(dead_code, reason = "it also serves tests of several nodes")]
mod wait;

// The tests.
mod alerts;
mod board;
mod lint;

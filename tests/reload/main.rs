//! A server among what it is run with: real proxies in front of it. `scripts/test reload`
//! installs them.
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
#[path = "../cluster/frames.rs"]
#[allow(dead_code, reason = "it also serves tests of several nodes")]
mod frames;
mod manual;
mod net;
mod nginx_program;
#[path = "../cluster/node.rs"]
#[allow(dead_code, reason = "it also serves tests of several nodes")]
mod node;
mod openssl;
#[path = "../cluster/people.rs"]
#[allow(dead_code, reason = "it also serves tests of several nodes")]
mod people;
#[path = "../cluster/port.rs"]
mod port;
mod proxy;
#[path = "../cluster/redis.rs"]
#[allow(dead_code, reason = "it also serves tests of several nodes")]
mod redis;
#[path = "../cluster/running.rs"]
#[allow(dead_code, reason = "it also serves tests of several nodes")]
mod running;
#[path = "../it/tls/openssl.rs"]
#[allow(dead_code, reason = "it also serves tests of one server")]
mod s_client;
mod server;
#[path = "../cluster/settings.rs"]
#[allow(dead_code, reason = "it also serves tests of several nodes")]
mod settings;
#[path = "../cluster/wait.rs"]
#[allow(dead_code, reason = "it also serves tests of several nodes")]
mod wait;

// The tests.
mod apache;
mod caddy;
mod drain;
mod haproxy;
mod listen;
mod nginx;
mod tls;

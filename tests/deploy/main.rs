//! The set-ups of `config/` and `docs/deploy`: each file is given to the program that it is
//! for, as it stands there, with nothing but addresses, folders and certificates replaced.
//! `scripts/test deploy` installs the programs.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(missing_docs, reason = "tests are read, not linked to")]

#[path = "../it/support/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "it also serves tests of one server"
)]
mod support;

// What the tests are made of, most of it shared with those of proxies and of several nodes.
mod file;
mod front;
mod laravel;
#[path = "../reload/manual.rs"]
#[allow(dead_code, reason = "it also serves tests of the manual")]
mod manual;
#[path = "../reload/net.rs"]
#[allow(dead_code, reason = "it also serves tests of proxies")]
mod net;
#[path = "../reload/nginx_program.rs"]
mod nginx_program;
#[path = "../cluster/node.rs"]
#[allow(dead_code, reason = "it also serves tests of several nodes")]
mod node;
#[path = "../cluster/port.rs"]
mod port;
#[path = "../reload/proxy.rs"]
#[allow(dead_code, reason = "it also serves tests of proxies")]
mod proxy;
#[path = "../cluster/running.rs"]
#[allow(dead_code, reason = "it also serves tests of several nodes")]
mod running;
#[path = "../it/tls/openssl.rs"]
#[allow(dead_code, reason = "it also serves tests of one server")]
mod s_client;
#[path = "../reload/server.rs"]
#[allow(dead_code, reason = "it also serves tests of proxies")]
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
mod compose;
mod haproxy;
mod idle;
mod nginx;
mod pages;
mod supervisor;

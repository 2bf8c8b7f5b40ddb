//! Integration tests: a whole server on a free port of 127.0.0.1, real TCP, exact
//! frames in and out.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(missing_docs, reason = "tests are read, not linked to")]
#![allow(
    clippy::too_many_lines,
    reason = "a table of cases is as long as it has to be"
)]

mod apps;
mod auth;
mod book;
mod cache;
mod check;
mod cli;
mod client_events;
mod connect;
mod demo;
mod doctor;
mod drain;
mod events;
mod frames;
mod fuzz;
mod heartbeat;
mod http;
mod idempotency;
mod import;
mod layers;
mod limits;
mod listen;
mod logs;
mod metrics;
mod moves;
mod operate;
mod overload;
mod presence;
mod process;
mod proxies;
mod queries;
mod rates;
mod readme;
mod reload;
mod shutdown;
mod sinks;
mod slow;
mod subscribe;
mod support;
mod systemd;
mod tls;
mod tools;
mod unsubscribe;
mod users;
mod webhooks;

//! Several nodes through Redis: real `resound` processes, real `redis-server`s, and
//! a network between them that can be spoilt.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(missing_docs, reason = "tests are read, not linked to")]

#[path = "../it/support/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "it also serves tests of one server"
)]
mod support;

// What the tests are made of.
mod bus;
mod frames;
mod node;
mod nodes;
mod people;
mod port;
mod proxy;
mod random;
mod redis;
mod running;
mod settings;
mod topologies;
mod wait;

// The tests.
mod apps;
mod bad_input;
mod cache;
mod churn;
mod delivery;
mod first_lists;
mod forged_counts;
mod harness;
mod idempotency;
mod isolation;
mod keys;
mod kinds;
mod limits;
mod liveness;
mod model;
mod moves;
mod network_faults;
mod node_faults;
mod occupancy;
mod order;
mod outages;
mod permissions;
mod presence;
mod queries;
mod redis_away;
mod redis_faults;
mod users;
mod versions;
mod webhooks;
mod wrong_types;

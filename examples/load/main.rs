//! A load generator for servers that speak the Pusher protocol: many
//! subscribers and a few publishers, as a rule in one thread, on one core.
//!
//! It measures how fast one channel is fanned out (`fanout`), how long a
//! delivery takes at a fixed rate (`rate`), how fast publishes to many channels
//! are taken (`publish`) and client events passed on (`whisper`), what it costs
//! when connections, subscriptions and members of a presence channel come and go
//! (`churn`, `resubscribe`, `presence`), what others feel when thousands of
//! connections end at once (`disconnect`), while they move to another node (`drain`) or
//! while others keep the server busy (`fairness`, `greedy`, `floods`), and what idle
//! connections cost the server in memory, before and after a burst (`idle`, `burst`). It accounts for every single
//! delivery, and it ends with a failure if one was lost, repeated or out of order.
//!
//! With several addresses it speaks to several nodes of one server, and it may publish
//! to others than those where its subscribers are. Of nodes it also measures how fast
//! all of them know who is there (`gather`), and of the Redis between them what a
//! message through it takes at least (`redis`).
//!
//! It is not a conformance test, and it sends nothing but well-formed requests.
//! Publishing and receiving share one thread, so a latency includes the time
//! a frame waited in the generator's own socket; the generator's own load is
//! reported for that reason.

mod app;
mod args;
mod burst;
mod churn;
mod clock;
mod crowd;
mod disconnect;
mod drain;
mod entry;
mod fairness;
mod floods;
mod gather;
mod greedy;
mod idle;
mod latency;
mod ledger;
mod message;
mod pinger;
mod presence;
mod probe;
mod process;
mod publisher;
mod reconnect;
mod redis;
mod report;
mod resubscribe;
mod roster;
mod run;
mod stalled;
mod stream;
mod subscriber;
#[allow(dead_code, reason = "the ceiling uses the rest of it")]
mod sys;
mod whisper;
mod wire;

use args::{Args, Command};
use clap::Parser;
use std::error::Error;
use std::process::ExitCode;

/// What can go wrong here ends the program with one sentence, so the errors
/// need no types of their own.
type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let outcome = match Args::parse().command {
        Command::Fanout(options) => {
            let pace = run::Pace::window(options.window);
            run::run(&options.traffic, 1, pace, 0)
        }
        Command::Publish(traffic) => {
            // Several messages per publisher, so that it is the answers that are
            // waited for, and not the deliveries.
            let pace = run::Pace::window(traffic.publishers * 4);
            run::run(&traffic, traffic.subscribers, pace, 0)
        }
        Command::Rate(options) => {
            let pace = run::Pace::rate(options.rate);
            run::run(&options.traffic, 1, pace, options.stalled)
        }
        Command::Whisper(options) => whisper::run(&options),
        Command::Churn(options) => churn::run(&options),
        Command::Resubscribe(options) => resubscribe::run(&options),
        Command::Presence(options) => presence::run(&options),
        Command::Gather(options) => gather::run(&options),
        Command::Redis(options) => redis::run(&options),
        Command::Disconnect(options) => disconnect::run(&options),
        Command::Drain(options) => drain::run(&options),
        Command::Idle(options) => idle::run(&options),
        Command::Burst(options) => burst::run(&options),
        Command::Fairness(options) => fairness::run(&options),
        Command::Greedy(options) => greedy::run(&options),
        Command::Floods(options) => floods::run(&options),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::from(2)
        }
    }
}

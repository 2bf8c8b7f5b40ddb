//! A load generator for servers that speak the Pusher protocol: many
//! subscribers and a few publishers in one thread on one core.
//!
//! It measures how fast one channel is fanned out (`fanout`), how long a
//! delivery takes at a fixed rate (`rate`), how fast publishes to many channels
//! are taken (`publish`) and client events passed on (`whisper`), what it costs
//! when connections, subscriptions and members of a presence channel come and go
//! (`churn`, `resubscribe`, `presence`), what others feel when thousands of
//! connections end at once (`disconnect`), and what an idle connection costs the
//! server in memory (`idle`). It accounts for every single delivery, and it ends
//! with a failure if one was lost, repeated or out of order.
//!
//! It is not a conformance test, and it sends nothing but well-formed requests.
//! Publishing and receiving share the one thread, so a latency includes the time
//! a frame waited in the generator's own socket; the generator's own load is
//! reported for that reason.

mod app;
mod args;
mod churn;
mod clock;
mod disconnect;
mod entry;
mod idle;
mod ledger;
mod message;
mod presence;
mod process;
mod publisher;
mod report;
mod resubscribe;
mod roster;
mod run;
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
            run::run(&options.traffic, 1, pace)
        }
        Command::Publish(traffic) => {
            // Several messages per publisher, so that it is the answers that are
            // waited for, and not the deliveries.
            let pace = run::Pace::window(traffic.publishers * 4);
            run::run(&traffic, traffic.subscribers, pace)
        }
        Command::Rate(options) => {
            let pace = run::Pace::rate(options.rate);
            run::run(&options.traffic, 1, pace)
        }
        Command::Whisper(options) => whisper::run(&options),
        Command::Churn(options) => churn::run(&options),
        Command::Resubscribe(options) => resubscribe::run(&options),
        Command::Presence(options) => presence::run(&options),
        Command::Disconnect(options) => disconnect::run(&options),
        Command::Idle(options) => idle::run(&options),
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

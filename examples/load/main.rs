//! A load generator for servers that speak the Pusher protocol: many
//! subscribers and a few publishers in one thread on one core.
//!
//! It measures how fast one channel is fanned out (`fanout`), how long a
//! delivery takes at a fixed rate (`rate`), and what an idle connection costs
//! the server in memory (`idle`). It accounts for every single delivery, and it
//! ends with a failure if one was lost, repeated or out of order.
//!
//! It is not a conformance test, and it sends nothing but well-formed requests.
//! Publishing and receiving share the one thread, so a latency includes the time
//! a frame waited in the generator's own socket; the generator's own load is
//! reported for that reason.

mod app;
mod args;
mod clock;
mod idle;
mod ledger;
mod message;
mod process;
mod publisher;
mod report;
mod run;
mod subscriber;
#[allow(dead_code, reason = "the ceiling uses the rest of it")]
mod sys;
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
            run::run(&options.traffic, pace)
        }
        Command::Rate(options) => {
            let pace = run::Pace::rate(options.rate);
            run::run(&options.traffic, pace)
        }
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

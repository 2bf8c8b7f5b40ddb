//! The link to Redis over its whole life: it comes up, it breaks, it comes up again,
//! for as long as the server runs.

use std::pin::pin;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::connect::{ConnectError, Connector, Shards};
use super::session::{End, Session, TICK};
use super::state::State;

/// Pauses between attempts to connect: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// How often a problem that lasts is logged again.
const REMIND: Duration = Duration::from_secs(60);

/// Runs until the server stops. `shards` is the link that is already up, if it is.
pub(in crate::cluster) async fn run(
    mut state: State,
    connector: Connector,
    mut shards: Option<Shards>,
) {
    let mut pause = PAUSES.0;
    let mut logged: Option<(String, Instant)> = None;
    loop {
        let connected = match shards.take() {
            Some(shards) => Ok(shards),
            None => connect_alone(&mut state, &connector).await,
        };
        let problem = match connected {
            Ok(shards) => {
                let began = Instant::now();
                match Session::run(&mut state, shards).await {
                    End::Stopped => return,
                    End::Broken(problem) => {
                        if began.elapsed() > PAUSES.1 {
                            pause = PAUSES.0;
                        }
                        state.go_alone();
                        problem
                    }
                }
            }
            Err(None) => return,
            Err(Some(error)) => error.to_string(),
        };
        // The same problem is not logged every two seconds.
        let is_known = |(text, at): &(String, Instant)| *text == problem && at.elapsed() < REMIND;
        if !logged.as_ref().is_some_and(is_known) {
            tracing::warn!(
                node = %state.node,
                "no link to other nodes: {problem}; local subscribers are served, trying again"
            );
            logged = Some((problem, Instant::now()));
        }
        if !stay_alone(&mut state, jittered(pause)).await {
            return;
        }
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Connects, while what is alone is looked after. `Err(None)` when the server stops.
async fn connect_alone(
    state: &mut State,
    connector: &Connector,
) -> Result<Shards, Option<ConnectError>> {
    let mut connecting = connector.connect();
    loop {
        tokio::select! {
            connected = &mut connecting => return connected.map_err(Some),
            goes_on = stay_alone(state, TICK) => if !goes_on { return Err(None) },
        }
    }
}

/// Looks after what is to be done without a link. False when the server stops.
async fn stay_alone(state: &mut State, time: Duration) -> bool {
    let until = tokio::time::Instant::now() + time;
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stopping = pin!(state.lifecycle.stopping());
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(until) => return true,
            () = &mut stopping => return false,
            // Dropping it says that there is no link.
            Some(ask) = state.asks.recv() => drop(ask),
            _ = ticks.tick() => state.tick_alone(),
        }
    }
}

/// Between half of a pause and all of it, so that nodes do not all come at once.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0; 1];
    // Without random numbers the pause is whole.
    let part = getrandom::fill(&mut random).map_or(255, |()| random[0]);
    pause / 2 + pause / 2 * u32::from(part) / 255
}

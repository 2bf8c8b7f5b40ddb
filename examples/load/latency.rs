//! Publishes at fixed times, one after the other, in a thread of its own: how long each
//! takes from when it was due until it is answered, by the part of the run it was due in.
//!
//! It looks at the answers only, and not at who gets what was published.

use crate::Outcome;
use crate::app::App;
use crate::clock::{Clock, seconds};
use crate::message::{MIN_SIZE, Mark, Template};
use crate::publisher::Publisher;
use crate::stream::{PATIENCE, Route};
use crate::sys::{self, Epoll, Events};
use hdrhistogram::Histogram;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Times longer than this many nanoseconds count as this long.
const MAX_NANOS: u64 = 60_000_000_000;
/// Failures after which there is no point in going on.
const MAX_ERRORS: u64 = 100;

/// Which part of a run it is; past the last one, it is over.
pub(crate) struct Phase(AtomicUsize);

impl Phase {
    pub(crate) fn begin(number: usize) -> Self {
        Self(AtomicUsize::new(number))
    }

    pub(crate) fn set(&self, number: usize) {
        self.0.store(number, Ordering::Relaxed);
    }

    fn now(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// What came of the publishes.
pub(crate) struct Latencies {
    /// Of each phase.
    pub(crate) times: Vec<Histogram<u64>>,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    /// Whether its thread ran before others.
    pub(crate) goes_first: bool,
}

impl Latencies {
    /// Publishes until the phases are over.
    pub(crate) fn measure(
        (route, app): (&Route, &App),
        channel: &str,
        rate: usize,
        phases: usize,
        phase: &Phase,
    ) -> Outcome<Self> {
        let times = || Histogram::new_with_bounds(1, MAX_NANOS, 3);
        let mut latencies = Self {
            times: (0..phases).map(|_| times()).collect::<Result<_, _>>()?,
            errors: 0,
            first_error: None,
            goes_first: sys::go_first(),
        };
        let clock = Clock::start();
        let interval = seconds(1) / rate as u64;
        let template = Template::new(channel, MIN_SIZE);
        let mut line = Line::connect(route)?;
        let (mut due, mut sequence, mut body) = (0, 0, String::new());
        loop {
            let now = clock.now();
            thread::sleep(Duration::from_nanos(u64::saturating_sub(due, now)));
            let number = phase.now();
            if number >= phases {
                return Ok(latencies);
            }
            sequence += 1;
            let mark = Mark {
                publisher: 0,
                sequence,
            };
            template.write_body(mark, &mut body);
            match line.publish(&app.publish_target(&body), &body) {
                Ok(()) => latencies.times[number].saturating_record(clock.now() - due),
                Err(error) => {
                    latencies.errors += 1;
                    if latencies.errors >= MAX_ERRORS {
                        return Err(format!("too many publishes failed: {error}").into());
                    }
                    latencies.first_error.get_or_insert(error.to_string());
                    line = Line::connect(route)?;
                }
            }
            due += interval;
        }
    }
}

/// A publisher whose answers are waited for.
struct Line {
    publisher: Publisher,
    arrivals: Epoll,
}

impl Line {
    fn connect(route: &Route) -> Outcome<Self> {
        let line = Self {
            publisher: Publisher::connect(route, 0, true)?,
            arrivals: Epoll::new()?,
        };
        line.arrivals.add(line.publisher.stream(), 0)?;
        Ok(line)
    }

    fn publish(&mut self, target: &str, body: &str) -> Outcome<()> {
        self.publisher.prepare(target, body);
        self.publisher.send()?;
        let mut events = Events::with_capacity(1);
        loop {
            self.arrivals.wait(&mut events, PATIENCE)?;
            if events.len() == 0 {
                return Err("a publish was not answered".into());
            }
            match self.publisher.receive()? {
                Some(answer) if answer.status == 200 => return Ok(()),
                Some(answer) => {
                    let (status, body) = (answer.status, answer.body.trim().to_owned());
                    return Err(format!("a publish was answered with {status}: {body}").into());
                }
                None => {}
            }
        }
    }
}

//! A presence channel with thousands of members, and a few visitors who join and
//! leave in turn. Each join has to be answered with everybody who is there, and
//! each join and leave has to be sent to every member once and in one order.
//!
//! Setting up sends every member all who come after it, tens of millions of
//! times in all; that is read and not accounted for. The account begins once the
//! first visitor has come and gone: whatever is read after that is news of
//! visitors, or an error.

use crate::Outcome;
use crate::app::App;
use crate::args::Presence;
use crate::clock::{Clock, seconds};
use crate::crowd::Crowd;
use crate::entry;
use crate::ledger::Ledger;
use crate::message::Mark;
use crate::process::Process;
use crate::report::{self, Tally, Usage};
use crate::roster::{self, Gazette, News};
use crate::stream::Route;
use crate::subscriber::{self, Subscriber};
use crate::sys::Events;
use hdrhistogram::Histogram;
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// How long to wait for what is still on its way when the visiting is over.
const DRAIN: u64 = seconds(10);
/// How long to wait for the first visitor to have come and gone.
const SETTLE: u64 = seconds(300);
const BATCH: usize = 64;
const BUFFER: usize = 128 * 1024;
/// Times longer than this many nanoseconds count as this long.
const MAX_NANOS: u64 = 60_000_000_000;

/// Runs, reports, and says whether every delivery was as it should be.
pub(crate) fn run(options: &Presence) -> Outcome<bool> {
    subscriber::make_room_for(options.members + options.visitors)?;
    let mut hall = Hall::connect(options)?;
    let began = hall.clock.now();
    hall.fill()?;
    let filled = hall.clock.now() - began;
    let server = options.target.pid.map(Process::with_pid);
    hall.work_until(hall.clock.now() + seconds(options.span.warmup), true)?;
    let (before, cycles_before) = (hall.ledger.counts(), hall.cycles);
    let usage = Usage::before(server)?;
    hall.ledger.begin_to_measure();
    hall.answers.reset();
    hall.work_until(hall.clock.now() + seconds(options.span.seconds), true)?;
    let measured = hall.ledger.counts().since(before);
    let cycles = hall.cycles - cycles_before;
    let usage = usage.until_now()?;
    hall.work_until(hall.clock.now() + DRAIN, false)?;
    let tally = Tally::of(&hall.ledger, measured, usage);
    let orders: HashSet<&u64> = hall.orders.iter().collect();
    let mut object = tally.describe(hall.ledger.latencies());
    tally.usage.describe("cycles", cycles, &mut object);
    object["members"] = json!(options.members);
    object["visitors"] = json!(options.visitors);
    object["cycles"] = json!(cycles);
    object["fill_seconds"] = json!(filled as f64 / 1e9);
    object["list_us"] = report::quantiles(&hall.answers);
    object["orders"] = json!(orders.len());
    report::print(&object, options.target.json)?;
    Ok(tally.is_clean() && orders.len() == 1)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Away,
    /// Has subscribed, and waits for the list.
    Joining,
    /// Has got the list and unsubscribed, and waits until all members know.
    Leaving,
}

struct Visitor {
    socket: Subscriber,
    id: String,
    state: State,
    /// Who it is this time.
    user: u32,
    came: u64,
    /// Its news that have not reached every member.
    untold: usize,
    /// The other visitors who are there as far as it has been sent.
    others: HashSet<u32>,
}

struct Hall<'a> {
    options: &'a Presence,
    clock: Clock,
    app: App,
    ledger: Ledger,
    gazette: Gazette,
    /// The news that are on their way.
    marks: HashMap<News, Mark>,
    crowd: Crowd,
    visitors: Vec<Visitor>,
    /// The next visitor's number as a user.
    next_user: u32,
    /// Per member, a hash of the news in the order in which they came.
    orders: Vec<u64>,
    /// Whether a visitor has come and gone, so that all is read from before.
    settled: bool,
    cycles: u64,
    /// How long the lists took.
    answers: Histogram<u64>,
    buffer: Vec<u8>,
}

impl<'a> Hall<'a> {
    fn connect(options: &'a Presence) -> Outcome<Self> {
        let target = &options.target;
        let (app, route) = (App::of(target), Route::of(target)?);
        let crowd = Crowd::connect(&route, &app, options.members)?;
        let mut visitors = Vec::new();
        for number in options.members..options.members + options.visitors {
            let (socket, id) = Subscriber::connect(&route, number, &app)?;
            crowd.arrivals.add(socket.stream(), number as u64)?;
            visitors.push(Visitor {
                socket,
                id,
                state: State::Away,
                user: 0,
                came: 0,
                untold: 0,
                others: HashSet::new(),
            });
        }
        Ok(Self {
            options,
            clock: Clock::start(),
            app,
            ledger: Ledger::new(options.members, visitors.len(), visitors.len() * 4),
            gazette: Gazette::new(visitors.len() * 4),
            marks: HashMap::new(),
            orders: vec![0; options.members],
            next_user: options.members as u32,
            crowd,
            visitors,
            settled: false,
            cycles: 0,
            answers: Histogram::new_with_bounds(1, MAX_NANOS, 3)?,
            buffer: vec![0; BUFFER],
        })
    }

    /// Lets all members join, and reads until nothing is left of that.
    fn fill(&mut self) -> Outcome<()> {
        self.crowd
            .join(&self.app, &self.options.channel, self.clock)?;
        let end = self.clock.now() + SETTLE;
        while !self.settled {
            if self.clock.now() >= end {
                return Err("the members do not get what they are told".into());
            }
            self.work_until(self.clock.now() + seconds(1) / 10, true)?;
        }
        Ok(())
    }

    /// Works until a moment, or, when nobody is to come any more, until every
    /// visitor is gone and every member knows.
    fn work_until(&mut self, end: u64, visiting: bool) -> Outcome<()> {
        let mut events = Events::with_capacity(BATCH);
        loop {
            for number in 0..self.visitors.len() {
                if visiting && self.visitors[number].state == State::Away {
                    self.come(number)?;
                }
            }
            let now = self.clock.now();
            let away = |visitor: &Visitor| visitor.state == State::Away;
            if now >= end || (!visiting && self.visitors.iter().all(away)) {
                return Ok(());
            }
            self.crowd
                .arrivals
                .wait(&mut events, Duration::from_nanos(end - now))?;
            for index in 0..events.len() {
                let number = events.get(index).token as usize;
                match number.checked_sub(self.crowd.members.len()) {
                    None => self.receive_as_member(number)?,
                    Some(number) => self.receive_as_visitor(number)?,
                }
            }
        }
    }

    fn come(&mut self, number: usize) -> Outcome<()> {
        let user = self.next_user;
        self.next_user += 1;
        let data = roster::member_data(user);
        let visitor = &self.visitors[number];
        let request =
            entry::subscription(&self.app, &visitor.id, &self.options.channel, Some(&data));
        self.announce(number, News { user, joined: true });
        let visitor = &mut self.visitors[number];
        visitor.user = user;
        visitor.state = State::Joining;
        visitor.came = self.clock.now();
        visitor.socket.send(&request)
    }

    fn go(&mut self, number: usize) -> Outcome<()> {
        let user = self.visitors[number].user;
        let joined = false;
        self.announce(number, News { user, joined });
        let visitor = &mut self.visitors[number];
        visitor.state = State::Leaving;
        let request = entry::unsubscription(&self.options.channel);
        visitor.socket.send(&request)
    }

    /// Enters news that every member is to get.
    fn announce(&mut self, number: usize, news: News) {
        let mark = self.ledger.publish(number as u32);
        self.marks.insert(news, mark);
        self.ledger.sent(mark, self.clock.now());
        self.visitors[number].untold += 1;
    }

    /// Reads one member once and enters the news.
    fn receive_as_member(&mut self, number: usize) -> Outcome<()> {
        let Self {
            options,
            ledger,
            gazette,
            marks,
            visitors,
            orders,
            settled,
            cycles,
            ..
        } = self;
        let order = &mut orders[number];
        self.crowd.members[number].receive(&mut self.buffer, self.clock, |text, now| {
            let mark = match gazette.find(text) {
                Some(mark) => mark,
                None if !*settled && roster::is_joining_of_one_below(options.members, text) => {
                    return Ok(true);
                }
                None => {
                    let Some(news) = roster::news(text, &options.channel)? else {
                        return Ok(false);
                    };
                    // What nobody has announced gets a mark that the ledger does not know.
                    let mark = marks.remove(&news).unwrap_or(Mark {
                        publisher: u32::MAX,
                        sequence: 0,
                    });
                    gazette.enter(text, mark);
                    mark
                }
            };
            *order = (*order ^ u64::from(mark.sequence)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            if ledger.deliver(number, mark, now) {
                let visitor = &mut visitors[mark.publisher as usize];
                visitor.untold -= 1;
                if visitor.untold == 0 && visitor.state == State::Leaving {
                    visitor.state = State::Away;
                    *cycles += 1;
                    *settled = true;
                }
            }
            Ok(true)
        })
    }

    /// Reads one visitor once: its list, and what it is sent after that.
    fn receive_as_visitor(&mut self, number: usize) -> Outcome<()> {
        let channel = &self.options.channel;
        let members = self.crowd.members.len();
        let visitor = &mut self.visitors[number];
        let (user, others) = (visitor.user, &mut visitor.others);
        let mut state = visitor.state;
        let (answers, came) = (&mut self.answers, visitor.came);
        visitor
            .socket
            .receive(&mut self.buffer, self.clock, |text, now| {
                if state == State::Joining
                    && let Some(users) = roster::users_listed(text, channel)?
                {
                    answers.saturating_record(now - came);
                    *others = others_listed(&users, user, members)?;
                    state = State::Leaving;
                    return Ok(true);
                }
                let Some(news) = roster::news(text, channel)? else {
                    return Ok(false);
                };
                // Before the list, it is sent the time before.
                let consistent = state == State::Joining
                    || match news.joined {
                        true => news.user != user && others.insert(news.user),
                        false => others.remove(&news.user),
                    };
                match consistent {
                    true => Ok(true),
                    false => Err(format!("{news:?} contradicts the list before it").into()),
                }
            })?;
        match state != visitor.state {
            true => self.go(number),
            false => Ok(()),
        }
    }
}

/// The other visitors in a list, which has to have every member and the one who
/// asked, each once.
fn others_listed(users: &[u32], own: u32, members: usize) -> Outcome<HashSet<u32>> {
    let mut present = vec![false; members];
    let mut visitors = HashSet::new();
    for &user in users {
        let is_new = match present.get_mut(user as usize) {
            Some(present) => !std::mem::replace(present, true),
            None => visitors.insert(user),
        };
        if !is_new {
            return Err(format!("a list has the user {user} twice").into());
        }
    }
    if !visitors.remove(&own) || users.len() != members + visitors.len() + 1 {
        return Err(format!("a list of {} users is not complete", users.len()).into());
    }
    Ok(visitors)
}

//! A presence channel that fills, on one node or on several: how long it takes until
//! each node lists every member when it is asked for the users of the channel.
//!
//! What the members are sent meanwhile is kept, and looked at when the clock has
//! stopped: each has to know of every other one once, from the list with which its
//! own joining was answered or from the news after it.

use crate::Outcome;
use crate::app::App;
use crate::args::Gather;
use crate::clock::{Clock, seconds};
use crate::entry;
use crate::process::Process;
use crate::publisher::{Answer, Publisher};
use crate::report::{self, Usage};
use crate::roster;
use crate::stream::Route;
use crate::subscriber::{self, Subscriber};
use crate::sys::{Epoll, Events};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::time::Duration;

/// How long the members may take to join, and the nodes to list them.
const PATIENCE: u64 = seconds(120);
/// How long to wait for what the members have to be sent.
const DRAIN: u64 = seconds(30);
/// From a list that was not complete to the next question: so long that asking is no
/// work, and so short that it adds nothing to speak of.
const PAUSE: u64 = seconds(1) / 200;
const BATCH: usize = 64;
const BUFFER: usize = 128 * 1024;
/// Times longer than this many nanoseconds count as this long.
const MAX_NANOS: u64 = 60_000_000_000;

/// Runs, reports, and says whether every member knows of every other one.
pub(crate) fn run(options: &Gather) -> Outcome<bool> {
    let target = &options.target;
    subscriber::make_room_for(options.members + target.addr.len())?;
    let mut hall = Hall::connect(options)?;
    let usage = Usage::before(target.pid.map(Process::with_pid))?;
    let began = hall.clock.now();
    if !hall.work_until(began + PATIENCE, Hall::all_joined)? {
        return Err(format!("only {} members could join", hall.joined).into());
    }
    let joined = hall.clock.now() - began;
    if !hall.work_until(began + PATIENCE, Hall::all_listed)? {
        return Err(hall.who_does_not_list().into());
    }
    let usage = usage.until_now()?;
    hall.read_lists()?;
    // Who does not know everybody then is counted.
    let _ = hall.work_until(hall.clock.now() + DRAIN, Hall::all_known)?;
    let (missing, repeated) = (hall.missing(), hall.repeated);
    let mut object = json!({
        "members": options.members,
        "nodes": target.addr.len(),
        "joined_seconds": joined as f64 / 1e9,
        "join_us": report::quantiles(&hall.times),
        "questions": hall.desks.iter().map(|desk| desk.asked).sum::<u64>(),
        "missing": missing,
        "repeated": repeated,
    });
    usage.describe("joins", options.members as u64, &mut object);
    report::print(&object, target.json)?;
    Ok(missing + repeated == 0)
}

struct Member {
    socket: Subscriber,
    id: String,
    /// When it asked to join.
    came: u64,
    /// The answer to that, once it is there.
    list: Option<Vec<u8>>,
    /// By user, whether it knows of this one.
    knows: Vec<bool>,
}

/// Where one node is asked for the users.
struct Desk {
    publisher: Publisher,
    /// When to ask next; none while an answer is awaited.
    due: Option<u64>,
    asked: u64,
    /// How many users its last answer had.
    listed: usize,
}

struct Hall<'a> {
    options: &'a Gather,
    clock: Clock,
    app: App,
    members: Vec<Member>,
    desks: Vec<Desk>,
    /// Members who have asked to join, and those who have their answer.
    begun: usize,
    joined: usize,
    /// How many of the members' `knows` are true.
    known: usize,
    /// How often a member was sent one whom it knew.
    repeated: usize,
    /// How long the answers took.
    times: Histogram<u64>,
    /// Watches the members by number, and the desks after them.
    arrivals: Epoll,
    buffer: Vec<u8>,
}

impl<'a> Hall<'a> {
    fn connect(options: &'a Gather) -> Outcome<Self> {
        let target = &options.target;
        let (app, route) = (App::of(target), Route::of(target)?);
        let arrivals = Epoll::new()?;
        let mut members = Vec::with_capacity(options.members);
        for number in 0..options.members {
            let (socket, id) = Subscriber::connect(&route, number, &app)?;
            arrivals.add(socket.stream(), number as u64)?;
            members.push(Member {
                socket,
                id,
                came: 0,
                list: None,
                knows: vec![false; options.members],
            });
        }
        let mut desks = Vec::new();
        for route in Route::to_each(target)? {
            let publisher = Publisher::connect(&route, 0, true)?;
            arrivals.add(publisher.stream(), (members.len() + desks.len()) as u64)?;
            desks.push(Desk {
                publisher,
                due: Some(0),
                asked: 0,
                listed: 0,
            });
        }
        Ok(Self {
            options,
            clock: Clock::start(),
            app,
            members,
            desks,
            begun: 0,
            joined: 0,
            known: 0,
            repeated: 0,
            times: Histogram::new_with_bounds(1, MAX_NANOS, 3)?,
            arrivals,
            buffer: vec![0; BUFFER],
        })
    }

    fn all_joined(&self) -> bool {
        self.joined == self.members.len()
    }

    fn all_listed(&self) -> bool {
        let all = self.members.len();
        self.desks.iter().all(|desk| desk.listed == all)
    }

    fn all_known(&self) -> bool {
        self.missing() == 0
    }

    fn missing(&self) -> usize {
        self.members.len().pow(2) - self.known
    }

    fn who_does_not_list(&self) -> String {
        let counts: Vec<usize> = self.desks.iter().map(|desk| desk.listed).collect();
        let all = self.members.len();
        format!("{all} members have joined, and the nodes list {counts:?}")
    }

    /// Lets members join, then asks, and reads all the while; whether it is done, or
    /// the end has come first.
    fn work_until(&mut self, end: u64, done: impl Fn(&Self) -> bool) -> Outcome<bool> {
        let mut events = Events::with_capacity(BATCH);
        while !done(self) {
            let now = self.clock.now();
            if now >= end {
                return Ok(false);
            }
            self.begin_to_join()?;
            let mut wake = end;
            if self.all_joined() {
                wake = self.ask(now)?.min(end);
            }
            self.arrivals
                .wait(&mut events, Duration::from_nanos(wake - now))?;
            for index in 0..events.len() {
                let number = events.get(index).token as usize;
                match number.checked_sub(self.members.len()) {
                    None => self.listen(number)?,
                    Some(desk) => self.take_answer(desk)?,
                }
            }
        }
        Ok(true)
    }

    /// Lets as many members ask to join as may do so at a time.
    fn begin_to_join(&mut self) -> Outcome<()> {
        let most = self.members.len().min(self.joined + self.options.joining);
        while self.begun < most {
            let data = roster::member_data(self.begun as u32);
            let member = &mut self.members[self.begun];
            let channel = &self.options.channel;
            let request = entry::subscription(&self.app, &member.id, channel, Some(&data));
            member.came = self.clock.now();
            member.socket.send(&request)?;
            self.begun += 1;
        }
        Ok(())
    }

    /// Reads one member once: its list, and what it is sent.
    fn listen(&mut self, number: usize) -> Outcome<()> {
        let Self {
            options,
            joined,
            known,
            repeated,
            times,
            buffer,
            ..
        } = self;
        let Member {
            socket,
            came,
            list,
            knows,
            ..
        } = &mut self.members[number];
        socket.receive(buffer, self.clock, |text, now| {
            if let Some(user) = roster::user_joined(text) {
                match learn(knows, user)? {
                    true => *known += 1,
                    false => *repeated += 1,
                }
                return Ok(true);
            }
            if list.is_some() || !roster::is_list(text, &options.channel)? {
                return Ok(false);
            }
            *list = Some(text.to_vec());
            *joined += 1;
            times.saturating_record(now - *came);
            Ok(true)
        })
    }

    /// Asks those nodes whose turn it is and who do not list everybody; the moment
    /// of the next turn.
    fn ask(&mut self, now: u64) -> Outcome<u64> {
        let mut wake = u64::MAX;
        for desk in &mut self.desks {
            if desk.listed == self.members.len() {
                continue;
            }
            match desk.due {
                None => {}
                Some(due) if due > now => wake = wake.min(due),
                Some(_) => {
                    let target = self.app.users_target(&self.options.channel);
                    desk.publisher.prepare_query(&target);
                    desk.publisher.send()?;
                    desk.due = None;
                    desk.asked += 1;
                }
            }
        }
        Ok(wake)
    }

    fn take_answer(&mut self, number: usize) -> Outcome<()> {
        let desk = &mut self.desks[number];
        let Some(Answer { status, body }) = desk.publisher.receive()? else {
            // Nothing may be asked of a connection that has ended.
            return match desk.publisher.revive()? {
                true => Err("a node closed a connection on which it was to be asked".into()),
                false => Ok(()),
            };
        };
        desk.due = Some(self.clock.now() + PAUSE);
        // A node that knows of nobody yet does not know the channel.
        if status != 200 && status != 404 {
            return Err(format!("a node does not list the users: {status} {body}").into());
        }
        let answer: Value = serde_json::from_str(&body)?;
        desk.listed = answer["users"].as_array().map_or(0, Vec::len);
        if desk.listed > self.members.len() {
            return Err(format!("a node lists {} users", desk.listed).into());
        }
        Ok(())
    }

    /// Enters whom the members knew when they joined.
    fn read_lists(&mut self) -> Outcome<()> {
        for member in &mut self.members {
            let list = member.list.as_deref().unwrap_or_default();
            let users = roster::users_listed(list, &self.options.channel)?;
            for user in users.ok_or("a list is none")? {
                match learn(&mut member.knows, user)? {
                    true => self.known += 1,
                    false => self.repeated += 1,
                }
            }
        }
        Ok(())
    }
}

/// Enters that a user is known; whether that is new.
fn learn(knows: &mut [bool], user: u32) -> Outcome<bool> {
    let known = knows
        .get_mut(user as usize)
        .ok_or_else(|| format!("there is no user {user}"))?;
    Ok(!std::mem::replace(known, true))
}

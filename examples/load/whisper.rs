//! Client events: in many small rooms, members in turn say something, and every
//! other member of the room has to get it once.
//!
//! Each room has a window of events in flight of its own, so that a room whose
//! events are late does not stop the others. As there is no answer to a client
//! event, one that the server drops shows as lost.

use crate::Outcome;
use crate::app::App;
use crate::args::Whisper;
use crate::clock::{Clock, seconds};
use crate::ledger::{Audience, Ledger};
use crate::message::{Reader, Template};
use crate::process::Process;
use crate::report::{self, Tally, Usage};
use crate::stream::Route;
use crate::subscriber::{self, Subscriber};
use crate::sys::{Epoll, Events};
use crate::wire;
use serde_json::json;
use std::time::Duration;

/// How long to wait for what is still on its way when the talking is over.
const DRAIN: u64 = seconds(5);
/// Sockets served before the rooms get their turn.
const BATCH: usize = 64;
const BUFFER: usize = 64 * 1024;

/// Runs, reports, and says whether every delivery was as it should be.
pub(crate) fn run(options: &Whisper) -> Outcome<bool> {
    subscriber::make_room_for(options.rooms * options.members)?;
    let mut talk = Talk::begin(options)?;
    let tally = talk.go()?;
    let mut object = tally.describe(talk.ledger.latencies());
    object["rooms"] = json!(options.rooms);
    object["members"] = json!(options.members);
    object["size"] = json!(options.size);
    object["window"] = json!(options.window);
    report::print(&object, options.target.json)?;
    Ok(tally.is_clean())
}

struct Room {
    template: Template,
    reader: Reader,
    in_flight: usize,
    /// The member who speaks next.
    next: usize,
}

struct Talk<'a> {
    options: &'a Whisper,
    clock: Clock,
    ledger: Ledger,
    rooms: Vec<Room>,
    /// The members of the first room, then those of the second, and so on.
    sockets: Vec<Subscriber>,
    arrivals: Epoll,
    buffer: Vec<u8>,
    text: String,
}

impl<'a> Talk<'a> {
    fn begin(options: &'a Whisper) -> Outcome<Self> {
        let target = &options.target;
        let (app, route) = (App::of(target), Route::of(target)?);
        let arrivals = Epoll::new()?;
        let mut rooms = Vec::new();
        let mut sockets = Vec::new();
        for number in 0..options.rooms {
            let channel = subscriber::channel(&options.channel, number, options.rooms);
            for _ in 0..options.members {
                let socket = Subscriber::join(&route, sockets.len(), &app, &channel)?;
                arrivals.add(socket.stream(), sockets.len() as u64)?;
                sockets.push(socket);
            }
            let template = Template::whisper(&channel, options.size);
            rooms.push(Room {
                reader: Reader::new(template.clone()),
                template,
                in_flight: 0,
                next: 0,
            });
        }
        let span = options.rooms * options.window * 2;
        Ok(Self {
            options,
            clock: Clock::start(),
            ledger: Ledger::with_audiences(options.members, sockets.len(), options.members, span),
            rooms,
            sockets,
            arrivals,
            buffer: vec![0; BUFFER],
            text: String::new(),
        })
    }

    fn go(&mut self) -> Outcome<Tally> {
        let server = self.options.target.pid.map(Process::with_pid);
        self.work_until(self.clock.now() + seconds(self.options.span.warmup), true)?;
        let before = self.ledger.counts();
        let usage = Usage::before(server)?;
        self.ledger.begin_to_measure();
        self.work_until(self.clock.now() + seconds(self.options.span.seconds), true)?;
        let measured = self.ledger.counts().since(before);
        let usage = usage.until_now()?;
        self.work_until(self.clock.now() + DRAIN, false)?;
        Ok(Tally::of(&self.ledger, measured, usage))
    }

    /// Works until a moment, or, when nobody is to send any more, until nothing
    /// is on its way.
    fn work_until(&mut self, end: u64, talking: bool) -> Outcome<()> {
        let mut events = Events::with_capacity(BATCH);
        loop {
            let now = self.clock.now();
            if now >= end || (!talking && self.ledger.in_flight() == 0) {
                return Ok(());
            }
            if talking {
                for room in 0..self.rooms.len() {
                    self.send_whispers(room)?;
                }
            }
            self.arrivals
                .wait(&mut events, Duration::from_nanos(end - now))?;
            for index in 0..events.len() {
                self.receive(events.get(index).token as usize)?;
            }
        }
    }

    /// Lets members of a room send as far as its window allows.
    fn send_whispers(&mut self, number: usize) -> Outcome<()> {
        let room = &mut self.rooms[number];
        let first = number * self.options.members;
        while room.in_flight < self.options.window && self.ledger.has_room() {
            let sender = first + room.next;
            let audience = Audience {
                first: first as u32,
                count: self.options.members as u32,
                sender: Some(sender as u32),
            };
            let mark = self.ledger.publish_to(audience, room.next as u32);
            room.template.write_body(mark, &mut self.text);
            room.next = (room.next + 1) % self.options.members;
            room.in_flight += 1;
            let frame = wire::masked(wire::TEXT, self.text.as_bytes());
            self.ledger.sent(mark, self.clock.now());
            self.sockets[sender].send(&frame)?;
        }
        Ok(())
    }

    fn receive(&mut self, number: usize) -> Outcome<()> {
        let room = &mut self.rooms[number / self.options.members];
        let ledger = &mut self.ledger;
        self.sockets[number].receive(&mut self.buffer, self.clock, |text, now| {
            let Some(mark) = room.reader.read(text)? else {
                return Ok(false);
            };
            room.in_flight -= usize::from(ledger.deliver(number, mark, now));
            Ok(true)
        })
    }
}

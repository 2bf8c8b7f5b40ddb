//! The yardstick: how fast one thread can deliver if it writes every message to
//! every subscriber with a system call of its own, and does nothing else.
//!
//! It answers WebSocket upgrades, subscriptions, client events, pings and
//! publishes just well enough for the load generator beside it. It checks no
//! signature and parses no JSON, it leaves `Sec-WebSocket-Accept` out (the
//! generator does not look at it), and a message goes out with one write per
//! subscriber (std's `write` is one `send(2)`), never together with another. A
//! server that stays below it wastes time; a server that exceeds it must have
//! found a way to make fewer calls.
//!
//! This is not a server for anything else: no limits, no pings, no errors.

#[path = "ceiling/presence.rs"]
mod presence;
#[allow(dead_code, reason = "the load generator uses the rest of it")]
#[path = "load/sys.rs"]
mod sys;
#[path = "ceiling/text.rs"]
mod text;

use clap::Parser;
use presence::Roster;
use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;
use sys::{Epoll, Events};
use text::{content_length, position, quoted_after, text_frame};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The token under which the listener is watched.
const LISTENER: u64 = u64::MAX;
/// Enough for as many subscribers as one address can connect.
const OPEN_FILES: u64 = 65_536;

/// Serves until it is killed.
#[derive(Parser)]
struct Args {
    /// The address to listen on.
    #[arg(long, default_value = "127.0.0.1:8080")]
    addr: SocketAddr,
    /// Up to so many members of a presence channel come and go without the others
    /// being sent it, so that a channel of thousands is set up in seconds. The next
    /// ones are sent to everybody.
    #[arg(long, default_value_t = 0)]
    quiet_members: usize,
}

fn main() -> Outcome<()> {
    let args = Args::parse();
    // If the limit stays too low, accepting fails and says so.
    sys::raise_open_files(OPEN_FILES)?;
    let listener = TcpListener::bind(args.addr)?;
    listener.set_nonblocking(true)?;
    let mut server = Server {
        epoll: Epoll::new()?,
        peers: Vec::new(),
        free: Vec::new(),
        channels: HashMap::new(),
        sockets: 0,
        quiet_members: args.quiet_members,
        buffer: vec![0; 64 * 1024],
    };
    server.epoll.add(&listener, LISTENER)?;
    let mut events = Events::with_capacity(256);
    loop {
        server.epoll.wait(&mut events, Duration::from_secs(60))?;
        for index in 0..events.len() {
            let ready = events.get(index);
            if ready.token == LISTENER {
                server.accept(&listener)?;
                continue;
            }
            let number = ready.token as usize;
            if ready.writable {
                server.flush(number)?;
            } else if server.serve(number).is_err() {
                server.drop_peer(number);
            }
        }
    }
}

/// One connection, of a subscriber or of a publisher.
struct Peer {
    stream: TcpStream,
    /// What was read and is not a whole request or frame yet.
    inbox: Vec<u8>,
    /// Frames that did not fit the send buffer; the first is gone up to `written`.
    outbox: VecDeque<Rc<[u8]>>,
    written: usize,
    upgraded: bool,
    channels: Vec<Rc<[u8]>>,
}

/// Who gets what is sent to it.
#[derive(Default)]
struct Channel {
    subscribers: Vec<usize>,
    /// Nobody if it is not a presence channel.
    roster: Roster,
}

struct Server {
    epoll: Epoll,
    peers: Vec<Option<Peer>>,
    free: Vec<usize>,
    channels: HashMap<Rc<[u8]>, Channel>,
    sockets: u64,
    quiet_members: usize,
    buffer: Vec<u8>,
}

impl Server {
    fn accept(&mut self, listener: &TcpListener) -> Outcome<()> {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let number = self.free.pop().unwrap_or_else(|| {
                self.peers.push(None);
                self.peers.len() - 1
            });
            self.epoll.add(&stream, number as u64)?;
            self.peers[number] = Some(Peer {
                stream,
                inbox: Vec::new(),
                outbox: VecDeque::new(),
                written: 0,
                upgraded: false,
                channels: Vec::new(),
            });
        }
    }

    fn drop_peer(&mut self, number: usize) {
        let Some(peer) = self.peers[number].take() else {
            return;
        };
        for channel in peer.channels {
            self.leave(number, &channel);
        }
        self.free.push(number);
    }

    /// Reads once and does whatever has become whole; an error ends the peer.
    fn serve(&mut self, number: usize) -> Outcome<()> {
        let peer = self.peers[number].as_mut().ok_or("the peer is gone")?;
        match peer.stream.read(&mut self.buffer) {
            Ok(0) => return Err("the peer closed".into()),
            Ok(count) => peer.inbox.extend_from_slice(&self.buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let mut inbox = std::mem::take(&mut peer.inbox);
        let mut upgraded = peer.upgraded;
        let mut done = 0;
        loop {
            let rest = &mut inbox[done..];
            let taken = match upgraded {
                true => self.take_frame(number, rest)?,
                false => self.take_request(number, rest)?,
            };
            let Some(taken) = taken else {
                break;
            };
            done += taken;
            upgraded = self.peers[number]
                .as_ref()
                .is_some_and(|peer| peer.upgraded);
        }
        inbox.drain(..done);
        let peer = self.peers[number].as_mut().ok_or("the peer is gone")?;
        // An idle subscriber holds no buffer, a publisher keeps its own.
        if !(upgraded && inbox.is_empty()) {
            peer.inbox = inbox;
        }
        Ok(())
    }

    /// Does one HTTP request, if it is whole; the bytes it took.
    fn take_request(&mut self, number: usize, bytes: &[u8]) -> Outcome<Option<usize>> {
        let Some(head) = position(bytes, b"\r\n\r\n") else {
            return Ok(None);
        };
        if bytes.starts_with(b"GET /app/") {
            self.upgrade(number)?;
            return Ok(Some(head + 4));
        }
        let body = head + 4;
        let length = content_length(&bytes[..head])?;
        if bytes.len() < body + length {
            return Ok(None);
        }
        self.publish(&bytes[body..body + length])?;
        let answer =
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
        self.send(number, &Rc::from(answer.as_slice()))?;
        Ok(Some(body + length))
    }

    fn upgrade(&mut self, number: usize) -> Outcome<()> {
        self.sockets += 1;
        let id = self.sockets;
        let hello = format!(
            r#"{{"event":"pusher:connection_established","data":"{{\"socket_id\":\"{id}.{id}\",\"activity_timeout\":30}}"}}"#
        );
        let mut answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n".to_vec();
        answer.extend_from_slice(&text_frame(&[hello.as_bytes()]));
        self.peers[number]
            .as_mut()
            .ok_or("the peer is gone")?
            .upgraded = true;
        self.send(number, &answer.into())
    }

    /// One write to every subscriber of the channel.
    fn publish(&mut self, body: &[u8]) -> Outcome<()> {
        let data = quoted_after(body, b"\"data\":\"").ok_or("the publish has no data")?;
        let channel =
            quoted_after(body, b"\"channels\":[\"").ok_or("the publish has no channel")?;
        let frame = text_frame(&[
            b"{\"event\":\"message\",\"data\":\"",
            data,
            b"\",\"channel\":\"",
            channel,
            b"\"}",
        ]);
        self.broadcast(channel, &frame.into(), None);
        Ok(())
    }

    /// One write to every subscriber of the channel, or every other one.
    fn broadcast(&mut self, channel: &[u8], frame: &Rc<[u8]>, except: Option<usize>) {
        let Some(of) = self.channels.get_mut(channel) else {
            return;
        };
        let subscribers = std::mem::take(&mut of.subscribers);
        for &subscriber in &subscribers {
            if Some(subscriber) != except && self.send(subscriber, frame).is_err() {
                eprintln!("ceiling: a subscriber is gone");
            }
        }
        if let Some(of) = self.channels.get_mut(channel) {
            of.subscribers = subscribers;
        }
    }

    /// Takes one masked frame, if it is whole; the bytes it took.
    fn take_frame(&mut self, number: usize, bytes: &mut [u8]) -> Outcome<Option<usize>> {
        let (header, length) = match *bytes {
            [_, short @ 0x80..=0xFD, ..] => (2, usize::from(short & 0x7F)),
            [_, 0xFE, high, low, ..] => (4, usize::from(u16::from_be_bytes([high, low]))),
            [_, _, ..] => return Err("the frame is not masked, or too long".into()),
            _ => return Ok(None),
        };
        let whole = header + 4 + length;
        if bytes.len() < whole {
            return Ok(None);
        }
        let (opening, payload) = bytes[..whole].split_at_mut(header + 4);
        for (byte, mask) in payload.iter_mut().zip(opening[header..].iter().cycle()) {
            *byte ^= mask;
        }
        match opening[0] {
            0x81 => self.obey(number, payload)?,
            0x88 => return Err("the peer sent a close frame".into()),
            _ => {}
        }
        Ok(Some(whole))
    }

    fn obey(&mut self, number: usize, payload: &[u8]) -> Outcome<()> {
        let event = quoted_after(payload, b"\"event\":\"").ok_or("no event was named")?;
        if event == b"pusher:ping" {
            let pong = text_frame(&[br#"{"event":"pusher:pong"}"#]);
            return self.send(number, &pong.into());
        }
        let Some(channel) = quoted_after(payload, b"\"channel\":\"") else {
            return Ok(());
        };
        match event {
            b"pusher:subscribe" => {
                let member = quoted_after(payload, b"\"channel_data\":\"");
                return self.subscribe(number, channel, member);
            }
            b"pusher:unsubscribe" => {
                let peer = self.peers[number].as_mut().ok_or("the peer is gone")?;
                if let Some(at) = peer.channels.iter().position(|own| **own == *channel) {
                    peer.channels.swap_remove(at);
                    self.leave(number, channel);
                }
            }
            _ if event.starts_with(b"client-") => {
                let frame = text_frame(&[payload]);
                self.broadcast(channel, &frame.into(), Some(number));
            }
            _ => {}
        }
        Ok(())
    }

    fn subscribe(&mut self, number: usize, channel: &[u8], member: Option<&[u8]>) -> Outcome<()> {
        let name = match self.channels.get_key_value(channel) {
            Some((name, _)) => Rc::clone(name),
            None => Rc::from(channel),
        };
        let of = self.channels.entry(Rc::clone(&name)).or_default();
        let mut announce = false;
        let answer = match member {
            Some(member) => {
                announce = of.roster.len() >= self.quiet_members;
                of.roster.join(number, member)?;
                of.roster.welcome(channel)
            }
            None => text_frame(&[
                br#"{"event":"pusher_internal:subscription_succeeded","data":"{}","channel":""#,
                channel,
                b"\"}",
            ]),
        };
        if let (true, Some(member)) = (announce, member) {
            let frame = presence::member_added(member, channel);
            self.broadcast(channel, &frame.into(), None);
        }
        let of = self.channels.entry(Rc::clone(&name)).or_default();
        of.subscribers.push(number);
        let peer = self.peers[number].as_mut().ok_or("the peer is gone")?;
        peer.channels.push(name);
        self.send(number, &answer.into())
    }

    /// Takes a peer out of a channel, and announces it to the others if it was a member.
    fn leave(&mut self, number: usize, channel: &[u8]) {
        let Some(of) = self.channels.get_mut(channel) else {
            return;
        };
        if let Some(at) = of.subscribers.iter().position(|other| *other == number) {
            of.subscribers.swap_remove(at);
        }
        let gone = of.roster.leave(number, channel);
        let announce = of.roster.len() >= self.quiet_members;
        if of.subscribers.is_empty() {
            self.channels.remove(channel);
        } else if let (true, Some(frame)) = (announce, gone) {
            self.broadcast(channel, &frame.into(), None);
        }
    }

    /// Writes once, or queues behind what an earlier write left.
    fn send(&mut self, number: usize, frame: &Rc<[u8]>) -> Outcome<()> {
        let peer = self.peers[number].as_mut().ok_or("the peer is gone")?;
        if peer.outbox.is_empty() {
            peer.written = match peer.stream.write(frame) {
                Ok(count) if count == frame.len() => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error.into()),
            };
            self.epoll.watch_writes(&peer.stream, number as u64, true)?;
        }
        peer.outbox.push_back(Rc::clone(frame));
        Ok(())
    }

    /// Goes on with what did not fit, still with one write per frame.
    fn flush(&mut self, number: usize) -> Outcome<()> {
        let Some(peer) = self.peers[number].as_mut() else {
            return Ok(());
        };
        while let Some(frame) = peer.outbox.front() {
            match peer.stream.write(&frame[peer.written..]) {
                Ok(count) => peer.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(_) => {
                    self.drop_peer(number);
                    return Ok(());
                }
            }
            if peer.written == frame.len() {
                peer.outbox.pop_front();
                peer.written = 0;
            }
        }
        self.epoll
            .watch_writes(&peer.stream, number as u64, false)?;
        Ok(())
    }
}

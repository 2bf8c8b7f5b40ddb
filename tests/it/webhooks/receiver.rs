//! A receiver of webhooks: it verifies what it gets, and answers as it was told to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{KEY, PATIENCE, SECRET, hmac};

/// How it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Status(u16),
    /// 301, to there.
    Redirect(String),
    /// 200, after a while.
    After(Duration),
    /// Nothing.
    Hang,
    /// What is no HTTP.
    Garbage,
    /// A body without an end.
    Endless,
    /// It closes behind half of the head.
    HalfWay,
}

/// What it has got.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) head: String,
    pub(crate) id: String,
    pub(crate) body: String,
    pub(crate) answer: Answer,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    answer: Option<Answer>,
    got: Vec<Got>,
    /// Events that [`Receiver::events`] has returned.
    taken: usize,
    connections: usize,
}

pub(crate) struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Receiver {
    pub(crate) fn start() -> Self {
        Self::listen(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    pub(crate) fn listen(listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&of_thread);
                shared.state.lock().unwrap().connections += 1;
                thread::spawn(move || serve(stream.unwrap(), &shared));
            }
        });
        Self { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook?token=secret", self.address)
    }

    /// From now on it answers so.
    pub(crate) fn answer(&self, answer: Answer) {
        self.shared.state.lock().unwrap().answer = Some(answer);
    }

    /// Everything that it got, taken or not.
    pub(crate) fn got(&self) -> Vec<Got> {
        self.shared.state.lock().unwrap().got.clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.state.lock().unwrap().connections
    }

    /// The events that it has taken.
    pub(crate) fn taken(&self) -> Vec<Value> {
        taken(&self.shared.state.lock().unwrap().got)
    }

    /// Waits until it got so many requests, taken or not.
    pub(crate) fn requests(&self, count: usize) -> Vec<Got> {
        self.wait(|state| (state.got.len() >= count).then(|| state.got.clone()))
    }

    /// The next events that it has taken.
    pub(crate) fn events(&self, count: usize) -> Vec<Value> {
        self.wait(|state| {
            let all = taken(&state.got);
            let next = all.get(state.taken..state.taken + count)?.to_vec();
            state.taken += count;
            Some(next)
        })
    }

    fn wait<T>(&self, mut until: impl FnMut(&mut State) -> Option<T>) -> T {
        let deadline = Instant::now() + 2 * PATIENCE;
        let mut state = self.shared.state.lock().unwrap();
        loop {
            if let Some(found) = until(&mut state) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "it got {:#?}", state.got);
            state = self.shared.changed.wait_timeout(state, left).unwrap().0;
        }
    }
}

/// The events that were taken, in the order in which they came.
fn taken(got: &[Got]) -> Vec<Value> {
    let is_taken = |got: &&Got| {
        matches!(
            got.answer,
            Answer::Status(200..=299) | Answer::After(_) | Answer::Endless
        )
    };
    let events = got
        .iter()
        .filter(is_taken)
        .flat_map(|got| events_of(&got.body));
    events.collect()
}

pub(crate) fn events_of(body: &str) -> Vec<Value> {
    let body: Value = serde_json::from_str(body).unwrap();
    assert!(
        body["time_ms"].as_u64().unwrap() > 1_700_000_000_000,
        "{body}"
    );
    body["events"].as_array().unwrap().clone()
}

fn serve(stream: TcpStream, shared: &Shared) {
    let mut reader = BufReader::new(stream);
    while let Some((head, body)) = read(&mut reader) {
        let header = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            let found = lines.find(|(found, _)| found.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        assert_eq!(header("content-type"), "application/json");
        assert!([KEY, "other"].contains(&&*header("x-pusher-key")));
        assert_eq!(header("x-pusher-signature"), hmac(SECRET, &body));
        let mut state = shared.state.lock().unwrap();
        let answer = state.answer.clone().unwrap_or(Answer::Status(200));
        let id = header("x-resound-webhook-id");
        assert_eq!(id.len(), 32, "{head}");
        let is_late = matches!(answer, Answer::After(_));
        let got = Got {
            head,
            id,
            body,
            answer: answer.clone(),
        };
        if !is_late {
            state.got.push(got.clone());
            shared.changed.notify_all();
        }
        drop(state);
        let goes_on = write(reader.get_mut(), &answer);
        if is_late {
            shared.state.lock().unwrap().got.push(got);
            shared.changed.notify_all();
        }
        if !goes_on {
            return;
        }
    }
}

/// Returns whether another request may come.
fn write(stream: &mut TcpStream, answer: &Answer) -> bool {
    let written = match answer {
        Answer::Status(status) => stream
            .write_all(format!("HTTP/1.1 {status} A\r\nContent-Length: 2\r\n\r\nok").as_bytes()),
        Answer::Redirect(to) => stream.write_all(
            format!("HTTP/1.1 301 A\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").as_bytes(),
        ),
        Answer::After(time) => {
            thread::sleep(*time);
            stream.write_all(b"HTTP/1.1 204 A\r\n\r\n")
        }
        Answer::Hang => {
            thread::sleep(PATIENCE);
            return false;
        }
        Answer::Garbage => {
            // Whether it is read or not.
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n");
            return false;
        }
        Answer::Endless => {
            let _ = stream.write_all(b"HTTP/1.1 200 A\r\nTransfer-Encoding: chunked\r\n\r\n");
            while stream.write_all(b"400\r\n").is_ok()
                && stream.write_all(&[b'x'; 1024]).is_ok()
                && stream.write_all(b"\r\n").is_ok()
            {}
            return false;
        }
        Answer::HalfWay => {
            let _ = stream.write_all(b"HTTP/1.1 200 A\r\nContent-");
            return false;
        }
    };
    written.is_ok()
}

/// Head and body of the next request, if there is one.
fn read(reader: &mut BufReader<TcpStream>) -> Option<(String, String)> {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let lengths = head.lines().filter_map(|line| line.split_once(": "));
    let length = lengths
        .filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .find_map(|(_, value)| value.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((head, String::from_utf8(body).unwrap()))
}

//! `resound reload`, `resound status` and `resound webhooks tail`: asks a running server through its control socket.
//! It reads the same settings as the server, so it finds the right one. A reload can go by
//! the file of the process's number, too, with a signal.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::ControlPaths;
use crate::server::Answer;

/// How long a reload may take. A server that is busy answers later.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of an answer: more than the status of any number of applications.
const MAX_ANSWER: u64 = 64 << 20;

/// How often it is asked what was delivered meanwhile.
const FOLLOW_PAUSE: Duration = Duration::from_millis(500);

/// How long to wait between two looks at a file.
const PAUSE: Duration = Duration::from_millis(20);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The settings do not say where.
    #[error(
        "no control socket is set: set RESOUND_CONTROL_SOCKET (--control-socket) for the server and here{0}"
    )]
    NotSet(&'static str),
    /// It cannot be reached or does not answer.
    #[error("{}: {error}{hint}", path.display())]
    Unreachable {
        /// The socket, or the file with the process's number.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
        /// What to do about it.
        hint: &'static str,
    },
}

/// Has the server read its settings anew.
///
/// # Errors
/// If there is no answer.
pub fn reload(server: &ControlPaths) -> Result<Answer, ControlError> {
    match (&server.control_socket, &server.pid_file) {
        (Some(socket), _) => ask(socket, "reload"),
        (None, Some(file)) => signal(file),
        (None, None) => Err(ControlError::NotSet(
            ", or RESOUND_PID_FILE; or send the server SIGHUP, and look into its log",
        )),
    }
}

/// Asks how the server stands.
///
/// # Errors
/// If there is no answer.
pub fn status(server: &ControlPaths) -> Result<Answer, ControlError> {
    match &server.control_socket {
        Some(socket) => ask(socket, "status"),
        None => Err(ControlError::NotSet("")),
    }
}

/// Asks for the deliveries to webhooks of late, and goes on asking. Calls `each` with every one,
/// as a document and as a line, from the last `lines` on, until it returns false.
///
/// # Errors
/// If there is no answer.
pub fn follow_webhooks(
    server: &ControlPaths,
    lines: usize,
    mut each: impl FnMut(&Value, &str) -> bool,
) -> Result<(), ControlError> {
    let Some(socket) = &server.control_socket else {
        return Err(ControlError::NotSet(""));
    };
    let (mut last, mut is_first) = (0, true);
    loop {
        let told = ask(socket, &format!("webhooks {last}"))?.status;
        let list = |name: &str| told[name].as_array().map(Vec::as_slice);
        let all = list("deliveries").zip(list("lines"));
        let (Some((deliveries, texts)), Some(number)) = (all, told["last"].as_u64()) else {
            return Err(ControlError::Unreachable {
                path: socket.clone(),
                error: io::Error::new(io::ErrorKind::InvalidData, "it does not know of webhooks"),
                hint: "; is it another release?",
            });
        };
        // One that was started anew begins with 1.
        if number < last {
            last = 0;
            continue;
        }
        let skipped = match is_first {
            true => deliveries.len().saturating_sub(lines),
            false => 0,
        };
        let mut all = deliveries.iter().zip(texts).skip(skipped);
        if !all.all(|(delivery, line)| each(delivery, line.as_str().unwrap_or_default())) {
            return Ok(());
        }
        last = number;
        is_first = false;
        thread::sleep(FOLLOW_PAUSE);
    }
}

fn ask(path: &Path, command: &str) -> Result<Answer, ControlError> {
    let exchange = || {
        let mut stream = connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        writeln!(stream, "{command}")?;
        let mut line = String::new();
        BufReader::new(stream.take(MAX_ANSWER)).read_line(&mut line)?;
        serde_json::from_str(&line).map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "it answers, but not as Resound does",
            )
        })
    };
    exchange().map_err(|error: io::Error| ControlError::Unreachable {
        path: path.to_owned(),
        hint: match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                "; no server with this control socket is running"
            }
            io::ErrorKind::PermissionDenied => {
                "; it is for the server's own user: sudo -u that user"
            }
            io::ErrorKind::WouldBlock => "; the server has not answered in 30 s",
            _ => "",
        },
        error,
    })
}

/// Waits no longer than [`PATIENCE`] for a server whose queue is full.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let deadline = Instant::now() + PATIENCE;
    let address = SockAddr::unix(path)?;
    loop {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&address) {
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline =>
            {
                thread::sleep(PAUSE);
            }
            connected => {
                connected?;
                socket.set_nonblocking(false)?;
                return Ok(OwnedFd::from(socket).into());
            }
        }
    }
}

/// Sends SIGHUP, and waits until the file says what came of it, or of a reload that began
/// after this was called.
fn signal(path: &Path) -> Result<Answer, ControlError> {
    let fail = |error: io::Error, hint| ControlError::Unreachable {
        path: path.to_owned(),
        error,
        hint,
    };
    let read = || PidFile::read(path);
    let before = read().map_err(|error| fail(error, "; is the server running?"))?;
    if !is_resound(before.pid) {
        let error = io::Error::new(io::ErrorKind::NotFound, "its process is no Resound");
        return Err(fail(
            error,
            "; it seems that the server has ended and left the file",
        ));
    }
    kill_process(before.pid, Signal::HUP).map_err(|error| {
        fail(
            error.into(),
            "; it is for the server's own user: sudo -u that user",
        )
    })?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        // It is replaced as a whole.
        if let Ok(now) = read()
            && now.reload > before.reload
            && !now.is_running
        {
            return Ok(now.into_answer());
        }
        if Instant::now() >= deadline {
            let error = io::Error::new(io::ErrorKind::TimedOut, "nothing was written in 30 s");
            return Err(fail(error, "; look into the server's log"));
        }
        thread::sleep(PAUSE);
    }
}

/// What the server has written ([`crate::server::PidFile`]).
struct PidFile {
    pid: Pid,
    /// The number of the last reload that has begun.
    reload: u64,
    is_running: bool,
    is_refused: bool,
    text: String,
}

/// Whether a process has the same program as this one, or one of that name. Where processes
/// are in no files, the number has to do.
fn is_resound(pid: Pid) -> bool {
    let files = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    let program = |files: &Path| std::fs::read_link(files.join("exe")).ok();
    let own = program(Path::new("/proc/self"));
    if own.is_some() && own == program(&files) {
        return true;
    }
    let name = std::fs::read_to_string(files.join("comm"));
    name.map_or(own.is_none(), |name| name.starts_with("resound"))
}

impl PidFile {
    fn read(path: &Path) -> io::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        let mut lines = text.lines();
        // A negative one would be a group of processes, or all.
        let pid = lines
            .next()
            .and_then(|line| line.trim().parse::<u32>().ok());
        let pid = pid.and_then(|pid| pid.try_into().ok());
        let pid = pid.and_then(Pid::from_raw).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "it does not begin with the number of a process",
            )
        })?;
        let (reload, outcome) = lines
            .next()
            .and_then(|line| line.split_once(' '))
            .unwrap_or(("0", ""));
        Ok(Self {
            pid,
            reload: reload.parse().unwrap_or_default(),
            is_running: outcome == "running",
            is_refused: outcome != "ok",
            text: lines.collect::<Vec<_>>().join("\n"),
        })
    }

    fn into_answer(self) -> Answer {
        Answer {
            ok: !self.is_refused,
            text: self.text,
            status: Value::Null,
        }
    }
}

//! Subscribers who stop reading once they have joined: a server must close them
//! and not wait for them, nor keep for them whatever they do not read.

use crate::Outcome;
use crate::app::App;
use crate::args::Target;
use crate::process::Process;
use crate::stream::Route;
use crate::subscriber::Subscriber;
use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

/// How long it may take until what was sent to one of them has an end.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Stalled {
    sockets: Vec<Subscriber>,
    server: Option<Process>,
    /// The server's open files, with these connections among them.
    open_files: usize,
}

impl Stalled {
    /// Joins last, when all others are connected.
    pub(crate) fn join(target: &Target, channel: &str, count: usize) -> Outcome<Self> {
        let (app, route) = (App::of(target), Route::of(target)?.narrow());
        let mut sockets = Vec::with_capacity(count);
        for number in 0..count {
            sockets.push(Subscriber::join(&route, number, &app, channel)?);
        }
        let server = target.pid.map(Process::with_pid);
        let open_files = server.map(Process::open_files).transpose()?;
        Ok(Self {
            sockets,
            server,
            open_files: open_files.unwrap_or_default(),
        })
    }

    pub(crate) fn count(&self) -> usize {
        self.sockets.len()
    }

    /// How many the server has not closed. It is asked first, because reading is
    /// what they must not do before; it is an error if it has closed others.
    pub(crate) fn still_open(&mut self) -> Outcome<usize> {
        let count = self.sockets.len();
        if count == 0 {
            return Ok(0);
        }
        if let Some(server) = self.server {
            let closed = self.open_files.saturating_sub(server.open_files()?);
            if closed > count {
                return Err(format!("the server closed {closed} connections, not {count}").into());
            }
            if closed < count {
                return Ok(count - closed);
            }
        }
        let end = Instant::now() + PATIENCE;
        let mut open = 0;
        for socket in &mut self.sockets {
            open += usize::from(!has_ended(socket, end)?);
        }
        Ok(open)
    }
}

/// Whether what was sent has an end, however that came.
fn has_ended(socket: &mut Subscriber, end: Instant) -> Outcome<bool> {
    while Instant::now() < end {
        match socket.skip() {
            Ok(0) => return Ok(true),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(10));
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

//! Sockets that systemd, or whoever else starts the server, has opened for it
//! (sd_listen_fds(3)): `LISTEN_PID`, `LISTEN_FDS`, `LISTEN_FDNAMES`.
//!
//! They are nonblocking and not passed on from here on. The variables stay: other threads may
//! read the environment, and no other process is started that could take them for its own.

use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{Domain, Socket, Type};

use crate::config;
use crate::worker::{Listener, ListenerSocket};

/// Whether they were taken: there is one owner.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Why an inherited socket is of no use.
#[derive(Debug, thiserror::Error)]
pub enum InheritedError {
    /// What the variables say makes no sense.
    #[error("LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES: {0}")]
    Variables(io::Error),
    /// It is not what its name says, or not what a server can use.
    #[error("the inherited socket {number} ({name:?} in LISTEN_FDNAMES): {why}")]
    Socket {
        /// The descriptor, from 3.
        number: RawFd,
        /// What it is called.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
}

/// What was inherited.
#[derive(Default)]
pub(super) struct Inherited {
    pub(super) clients: Vec<Listener>,
    pub(super) metrics: Option<ListenerSocket>,
    /// Of Unix sockets.
    pub(super) paths: Vec<PathBuf>,
}

/// What a socket is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Whatever the main port would be for.
    Main,
    Plain,
    Tls,
    Metrics,
}

/// Takes the sockets that are meant for this process.
pub(super) fn take(server: &config::Server) -> Result<Inherited, InheritedError> {
    let mut inherited = Inherited::default();
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(inherited);
    }
    for (number, name) in descriptors().map_err(InheritedError::Variables)? {
        let added = role(&name)
            .ok_or("the name is none of plain, tls and metrics (FileDescriptorName=)")
            .and_then(|role| Ok((role, listener(number)?)))
            .and_then(|(role, socket)| inherited.add(role, socket, server));
        added.map_err(|why| InheritedError::Socket { number, name, why })?;
    }
    Ok(inherited)
}

/// What is meant for this process, with the names; those are looked at only then.
fn descriptors() -> io::Result<Vec<(RawFd, String)>> {
    let numbers = sd_notify::listen_fds()?;
    if numbers.len() == 0 {
        return Ok(Vec::new());
    }
    let names: Vec<String> = match std::env::var("LISTEN_FDNAMES") {
        Ok(names) => names.split(':').map(str::to_owned).collect(),
        Err(_) => vec![String::new(); numbers.len()],
    };
    if names.len() != numbers.len() {
        let text = "there are not as many names as sockets";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(numbers.zip(names).collect())
}

/// systemd calls a socket after its unit, unless it is told another name.
fn role(name: &str) -> Option<Role> {
    match name {
        "plain" | "http" => Some(Role::Plain),
        "tls" | "https" => Some(Role::Tls),
        "metrics" => Some(Role::Metrics),
        "" | "unknown" => Some(Role::Main),
        _ if name.ends_with(".socket") => Some(Role::Main),
        _ => None,
    }
}

/// The listening socket that this descriptor is.
fn listener(number: RawFd) -> Result<ListenerSocket, &'static str> {
    // SAFETY: it is open, which was looked at; whoever has started the process means it for
    // the process, and there it is taken once.
    let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(number) });
    let checked = check(&socket);
    match checked {
        Ok(Domain::UNIX) => Ok(ListenerSocket::Unix(socket.into())),
        Ok(_) => Ok(ListenerSocket::Tcp(socket.into())),
        Err(why) => {
            // It may be somebody else's, if the variables are wrong.
            let _ = socket.into_raw_fd();
            Err(why)
        }
    }
}

/// Returns its domain if it can be accepted from.
fn check(socket: &Socket) -> Result<Domain, &'static str> {
    let domain = socket.domain().map_err(|_| "it is no socket")?;
    if ![Domain::IPV4, Domain::IPV6, Domain::UNIX].contains(&domain) {
        return Err("it is neither TCP nor a Unix socket");
    }
    if !socket.r#type().is_ok_and(|kind| kind == Type::STREAM) {
        return Err("it is no stream socket (ListenStream=)");
    }
    if !socket.is_listener().is_ok_and(|listens| listens) {
        return Err("it does not listen (Accept=no)");
    }
    socket
        .set_nonblocking(true)
        .map_err(|_| "it cannot be made nonblocking")?;
    Ok(domain)
}

impl Inherited {
    fn add(
        &mut self,
        role: Role,
        socket: ListenerSocket,
        server: &config::Server,
    ) -> Result<(), &'static str> {
        let is_unix = match &socket {
            ListenerSocket::Tcp(_) => false,
            ListenerSocket::Unix(listener) => {
                let address = listener.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                self.paths.extend(path.map(PathBuf::from));
                true
            }
        };
        let is_tls = match role {
            Role::Main => server.is_port_secure() && !is_unix,
            Role::Plain => false,
            Role::Tls if server.tls.is_none() => {
                return Err("for TLS a certificate is needed (RESOUND_TLS_CERT, RESOUND_TLS_KEY)");
            }
            Role::Tls if is_unix => return Err("a Unix socket does not speak TLS"),
            Role::Tls => true,
            Role::Metrics if self.metrics.is_some() => return Err("there are two for metrics"),
            Role::Metrics => {
                self.metrics = Some(socket);
                return Ok(());
            }
        };
        self.clients.push(Listener {
            on_close: None,
            socket,
            is_tls,
        });
        Ok(())
    }
}

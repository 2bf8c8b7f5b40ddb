//! A Unix socket: a file that clients of this machine connect to.
//!
//! A file that a dead server has left is replaced. One that somebody listens on is not, and
//! neither is anything that is no socket.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::unistd::Group;
use rustix::fs::{FlockOperation, Mode, fchmod, flock};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{BACKLOG, StartError};
use crate::config::UnixSocket;
use crate::worker::{Listener, ListenerSocket};

/// Makes the socket and listens on it.
pub(super) fn bind(settings: &UnixSocket) -> Result<Listener, StartError> {
    let UnixSocket { path, mode, group } = settings;
    let group = group.as_deref().map(find_group).transpose()?;
    let fail = |error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "; its directory has to be there",
            io::ErrorKind::PermissionDenied => {
                "; the server's user has to be allowed to make files in its directory, and to give them that group"
            }
            _ => " (--socket, RESOUND_SOCKET)",
        };
        StartError::Listen {
            address: path.display().to_string(),
            error,
            hint,
        }
    };
    let (socket, file) = listen_unix(path, *mode, group).map_err(fail)?;
    Ok(Listener {
        on_close: Some(Box::new(file)),
        socket: ListenerSocket::Unix(socket.into()),
        is_tls: false,
    })
}

/// Listens on a new socket, in place of one that a dead server has left. Nobody can connect
/// before the file has its permissions and its group: it is made with no more than those,
/// and listened on last.
pub(in crate::server) fn listen_unix(
    path: &Path,
    mode: u32,
    group: Option<u32>,
) -> io::Result<(Socket, SocketFile)> {
    let _lock = lock_directory(path);
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    fchmod(&socket, Mode::from_raw_mode(mode))?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::new(path)?;
    if group.is_some() {
        chown(path, None, group)?;
    }
    // The process's umask may have taken something away.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok((socket, file))
}

/// Keeps other servers that start from taking the socket for a dead server's before it is
/// listened on. Where the directory cannot be opened or locked, they are not kept.
fn lock_directory(path: &Path) -> Option<fs::File> {
    let parent = path.parent().filter(|path| !path.as_os_str().is_empty());
    let directory = fs::File::open(parent.unwrap_or(Path::new("."))).ok()?;
    flock(&directory, FlockOperation::LockExclusive).ok()?;
    Some(directory)
}

/// Whether the group of a Unix socket is known.
pub(in crate::server) fn check_group(settings: &UnixSocket) -> Result<(), StartError> {
    settings
        .group
        .as_deref()
        .map_or(Ok(()), |group| find_group(group).map(drop))
}

/// The number of a group, which may be a number already.
fn find_group(name: &str) -> Result<u32, StartError> {
    match name.parse() {
        // It stands for none in chown(2).
        Ok(u32::MAX) => return Err(StartError::Group(name.to_owned())),
        Ok(number) => return Ok(number),
        Err(_) => {}
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(StartError::Group(name.to_owned())),
        Err(error) => Err(StartError::Failed(error.into())),
    }
}

/// Removes the socket of a server that is gone.
fn remove_stale(path: &Path) -> io::Result<()> {
    let there = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        there => there?,
    };
    if !there.file_type().is_socket() {
        let text = "something is there that is no socket, and is left alone";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // One whose queue is full would be waited for otherwise.
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        _ => {
            let text = "another server listens there";
            Err(io::Error::new(io::ErrorKind::AddrInUse, text))
        }
    }
}

/// The file of a socket; removed when this is dropped, unless it is another one by then.
/// That has to be before the socket is closed: until then no other file has its number.
#[derive(Debug)]
pub(in crate::server) struct SocketFile {
    path: PathBuf,
    id: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: std::path::absolute(path)?,
            id: id(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if id(&self.path).is_ok_and(|id| id == self.id) {
            // Whoever starts next finds that nobody listens on it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn id(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

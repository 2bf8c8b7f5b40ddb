//! The program that listens on a port of this machine.

use std::fmt;
use std::fs;

/// A process of this machine.
pub(super) struct Program {
    pub(super) process: String,
    /// What it was started as, without flags and what follows them, which may be secrets.
    pub(super) name: String,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}: {}", self.process, self.name)
    }
}

impl Program {
    /// How many files it may have open.
    pub(super) fn max_files(&self) -> Option<u64> {
        let limits = fs::read_to_string(format!("/proc/{}/limits", self.process)).ok()?;
        let line = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"))?;
        line.split_whitespace().next()?.parse().ok()
    }
}

/// Which it is, if it can be seen: Linux shows only one's own processes, and root all.
#[cold]
pub(super) fn listener_of(port: u16) -> Option<Program> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let tables = tables
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok());
    let sockets: Vec<String> = tables.flat_map(|table| sockets_of(&table, port)).collect();
    let has_socket = |folder: &fs::DirEntry| {
        let Ok(files) = fs::read_dir(folder.path().join("fd")) else {
            return false;
        };
        let mut targets = files
            .flatten()
            .filter_map(|it| fs::read_link(it.path()).ok());
        targets.any(|target| {
            sockets
                .iter()
                .any(|socket| target.as_os_str() == socket.as_str())
        })
    };
    let is_process = |folder: &fs::DirEntry| {
        let name = folder.file_name();
        name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
    };
    let folders = fs::read_dir("/proc").ok()?.flatten();
    let folder = folders.filter(is_process).find(has_socket)?;
    let line = fs::read(folder.path().join("cmdline")).ok()?;
    let line = String::from_utf8_lossy(&line);
    let words = line.split('\0').take_while(|word| !word.starts_with('-'));
    Some(Program {
        process: folder.file_name().to_string_lossy().into_owned(),
        name: words.collect::<Vec<_>>().join(" ").trim().to_owned(),
    })
}

/// The sockets, as links name them, that listen on a port (proc(5), "/proc/net/tcp").
fn sockets_of(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let of_line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (words.get(1)?, words.get(3)?, words.get(9)?);
        let (_, own) = local.rsplit_once(':')?;
        let is_it = *state == LISTEN && u16::from_str_radix(own, 16) == Ok(port);
        is_it.then(|| format!("socket:[{inode}]"))
    };
    table.lines().skip(1).filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn the_program_on_a_port_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let own = listener_of(port).unwrap();
        assert_eq!(own.process, std::process::id().to_string(), "{own}");
        assert!(!own.name.contains("--"), "{own}");
        assert!(own.max_files().unwrap() > 2);
        drop(listener);
        assert!(listener_of(port).is_none());
    }
}

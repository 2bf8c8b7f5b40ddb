//! The program that listens on a port of this machine.

use std::fs;

/// Its process and command line, if it can be seen: Linux shows only one's own processes, and
/// root all.
#[cold]
pub(super) fn listener_of(port: u16) -> Option<String> {
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
    let words = String::from_utf8_lossy(&line).replace('\0', " ");
    let number = folder.file_name();
    Some(format!("process {}: {}", number.display(), words.trim()))
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
        assert!(
            own.starts_with(&format!("process {}: ", std::process::id())),
            "{own}"
        );
        drop(listener);
        assert_eq!(listener_of(port), None);
    }
}

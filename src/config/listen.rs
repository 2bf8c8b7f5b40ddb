//! Where a server listens, as its settings say it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::Server;
use super::read::{Group, Reader};

/// Bytes of a Unix socket's path (unix(7): 108, of which one is 0).
const MAX_PATH: usize = 107;

/// A Unix socket to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixSocket {
    /// Its file, which is made when the server starts.
    pub path: PathBuf,
    /// The file's permissions.
    pub mode: u32,
    /// The file's group, a name or a number; `None` for that of the process.
    pub group: Option<String>,
}

impl Server {
    /// The hosts with a port, for a person.
    pub(super) fn places(&self, port: u16) -> String {
        let place = |host: &String| format!("{host}:{port}");
        let places: Vec<String> = self.hosts.iter().map(place).collect();
        places.join(", ")
    }

    /// The first host, as it is dialled from this machine, an IPv6 address without brackets;
    /// `None` if it has no port.
    pub(crate) fn dialled_host(&self) -> Option<&str> {
        let bare = self.hosts.first()?.trim_matches(['[', ']']);
        Some(match bare {
            "0.0.0.0" => "127.0.0.1",
            "::" => "::1",
            other => other,
        })
    }

    /// Whether only this machine can reach it.
    pub(super) fn is_local(&self) -> bool {
        self.hosts.iter().all(|host| is_loopback(host))
    }

    /// Whether a listener on `host` is where one of its own is.
    pub(super) fn meets(&self, host: &str) -> bool {
        let is_any = |host: &str| ["0.0.0.0", "::", "[::]"].contains(&host);
        let meet = |own: &String| own == host || is_any(own) || is_any(host);
        self.hosts.iter().any(meet)
    }
}

/// Whether only this machine can reach an address.
fn is_loopback(host: &str) -> bool {
    let bare = host.trim_matches(['[', ']']);
    match bare.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => bare.eq_ignore_ascii_case("localhost"),
    }
}

impl Reader {
    /// `host` where it is one.
    pub(super) fn host(&mut self, group: &Group<'_>) -> String {
        self.take(group, "host", host).unwrap_or_default()
    }

    /// `host` where it may be several.
    pub(super) fn hosts(&mut self, group: &Group<'_>) -> Vec<String> {
        self.take(group, "host", hosts).unwrap_or_default()
    }

    /// `socket`, `socket_mode` and `socket_group`.
    pub(super) fn unix_socket(&mut self, group: &Group<'_>) -> Option<UnixSocket> {
        let path = self.take(group, "socket", path);
        let mode = self.take(group, "socket_mode", mode);
        let owner = self.text(group, "socket_group");
        Some(UnixSocket {
            path: path.flatten()?,
            mode: mode?,
            group: owner,
        })
    }

    /// Each has to be a file of its own.
    pub(super) fn refuse_one_path_for_two(&mut self, server: &Server) {
        let socket = server.socket.as_ref().map(|socket| &socket.path);
        let paths = [
            ("server.socket (RESOUND_SOCKET)", socket),
            (
                "server.control_socket (RESOUND_CONTROL_SOCKET)",
                server.control_socket.as_ref(),
            ),
            (
                "server.pid_file (RESOUND_PID_FILE)",
                server.pid_file.as_ref(),
            ),
        ];
        for (at, (name, path)) in paths.iter().enumerate() {
            let is_same = |other: &&(_, _)| path.is_some() && other.1 == *path;
            if let Some((before, _)) = paths[..at].iter().find(is_same) {
                let problem =
                    format!("{before} and {name} are the same path: expected one for each");
                self.problems.push(problem);
            }
        }
    }

    /// A server that listens on nothing is none.
    pub(super) fn refuse_nowhere(&mut self, server: &Server) {
        if server.hosts.is_empty() && server.socket.is_none() && self.problems.is_empty() {
            self.problems.push(
                "server.host = \"off\" (REVERB_SERVER_HOST): expected an address, or server.socket (RESOUND_SOCKET) as well"
                    .to_owned(),
            );
        }
    }
}

fn host(text: &str) -> Result<String, String> {
    if is_host(text) {
        Ok(text.to_owned())
    } else {
        Err("an address without a port, such as 0.0.0.0, :: or localhost".to_owned())
    }
}

fn is_host(text: &str) -> bool {
    // An address with a port is none: that has a setting of its own.
    let has_port = text.parse::<SocketAddr>().is_ok()
        || text
            .rsplit_once(':')
            .is_some_and(|(host, _)| !host.contains(':') && !host.is_empty());
    !text.is_empty() && !has_port && !text.contains(|c: char| c.is_whitespace() || c == '/')
}

/// Several with commas, each taken once; `off` for none.
fn hosts(text: &str) -> Result<Vec<String>, String> {
    let mut hosts: Vec<String> = Vec::new();
    if text == "off" {
        return Ok(hosts);
    }
    for item in text.split(',').map(str::trim) {
        if !is_host(item) || item == "off" {
            return Err(
                "an address without a port, such as 0.0.0.0, :: or localhost, several with commas between, or off"
                    .to_owned(),
            );
        }
        if !hosts.iter().any(|host| host == item) {
            hosts.push(item.to_owned());
        }
    }
    Ok(hosts)
}

fn path(text: &str) -> Result<Option<PathBuf>, String> {
    match text {
        "" => Ok(None),
        _ if text.len() <= MAX_PATH && !text.contains('\0') => Ok(Some(PathBuf::from(text))),
        _ => Err(format!(
            "a path of at most {MAX_PATH} bytes, which is what a socket can have"
        )),
    }
}

/// As `chmod` takes it.
fn mode(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let is_octal = !digits.is_empty() && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
    u32::from_str_radix(digits, 8)
        .ok()
        .filter(|mode| is_octal && *mode <= 0o777)
        .ok_or_else(|| "permissions in octal, such as 0660".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_a_list_without_repetition() {
        for (text, expected) in [
            ("0.0.0.0", Some(&["0.0.0.0"][..])),
            (
                "127.0.0.1, ::1,localhost",
                Some(&["127.0.0.1", "::1", "localhost"]),
            ),
            ("::,::", Some(&["::"])),
            ("off", Some(&[])),
            ("", None),
            ("a,", None),
            ("a b", None),
            ("http://a", None),
            ("off,::1", None),
            ("127.0.0.1:80", None),
            ("localhost:80", None),
            ("[::1]:80", None),
            ("[::1]", Some(&["[::1]"])),
        ] {
            let found = hosts(text).ok();
            let expected =
                expected.map(|hosts| hosts.iter().map(|host| (*host).to_owned()).collect());
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn permissions_are_octal() {
        for (text, expected) in [
            ("0660", Some(0o660)),
            ("600", Some(0o600)),
            ("0o777", Some(0o777)),
            ("0", Some(0)),
            ("1000", None),
            ("0680", None),
            ("+660", None),
            ("rw", None),
            ("", None),
        ] {
            assert_eq!(mode(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_refused() {
        assert_eq!(path("").unwrap(), None);
        assert!(path(&"x".repeat(MAX_PATH)).is_ok());
        assert!(path(&"x".repeat(MAX_PATH + 1)).is_err());
    }
}

//! Where a server is: a URL as a person writes it, or the settings of one on this machine.

use std::fmt;
use std::path::PathBuf;

use url::{Host, Url};

/// A server's address, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether it speaks TLS.
    pub is_secure: bool,
    /// The name that it goes by: in `Host`, and in its certificate. An IPv6 address is in
    /// brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What is before every path: empty, or with a leading and no trailing slash.
    pub prefix: String,
    /// How it is connected to.
    pub via: Via,
    /// Whether it wants to be told by the PROXY protocol for whom it is asked.
    pub wants_proxy_header: bool,
}

/// How a server is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// By the name it goes by.
    Name,
    /// By another name or address.
    Host(String),
    /// Over a Unix socket.
    Unix(PathBuf),
}

/// Why a text is not the address of a server.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// It is no URL.
    #[error(
        "{0:?} is no URL: {1}. Expected something like https://ws.example.com or http://127.0.0.1:8080"
    )]
    Url(String, url::ParseError),
    /// It has another scheme.
    #[error("{0:?}: expected a URL that begins with https://, http://, wss:// or ws://")]
    Scheme(String),
    /// It has parts that mean nothing here.
    #[error("{0:?}: leave {1} away: the address of the server is enough")]
    TooMuch(String, &'static str),
}

impl Endpoint {
    /// Reads `http`, `https`, `ws` or `wss`, a host, and perhaps a port and a prefix.
    ///
    /// # Errors
    /// If it is anything else, or has credentials, a query, or the path of one application.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        let url = Url::parse(text).map_err(|error| EndpointError::Url(text.to_owned(), error))?;
        let is_secure = match url.scheme() {
            "https" | "wss" => true,
            "http" | "ws" => false,
            _ => return Err(EndpointError::Scheme(text.to_owned())),
        };
        let too_much = |part| EndpointError::TooMuch(without_user(&url), part);
        if !url.username().is_empty() || url.password().is_some() {
            return Err(too_much("what is before the @"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(too_much("what is behind the path"));
        }
        let prefix = url.path().trim_end_matches('/');
        if ["/app/", "/apps/"].iter().any(|part| prefix.contains(part)) {
            return Err(too_much("/app/… and /apps/…"));
        }
        let host = match url.host() {
            Some(Host::Ipv6(address)) => format!("[{address}]"),
            Some(host) => host.to_string(),
            None => return Err(EndpointError::Scheme(text.to_owned())),
        };
        Ok(Self {
            is_secure,
            host,
            port: url
                .port_or_known_default()
                .unwrap_or(if is_secure { 443 } else { 80 }),
            prefix: prefix.to_owned(),
            via: Via::Name,
            wants_proxy_header: false,
        })
    }

    /// What goes into the `Host` header: the port only if it is not the scheme's own.
    pub fn authority(&self) -> String {
        let own = if self.is_secure { 443 } else { 80 };
        if self.port == own {
            self.host.clone()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The host and port that are dialled.
    pub(super) fn dialled(&self) -> (&str, u16) {
        let host = match &self.via {
            Via::Host(host) => host,
            Via::Name | Via::Unix(_) => &self.host,
        };
        (host.trim_matches(['[', ']']), self.port)
    }
}

/// The address as a URL, or the path of the socket.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Via::Unix(path) = &self.via {
            return write!(f, "{}", path.display());
        }
        let scheme = if self.is_secure { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.prefix)
    }
}

/// So that no password is shown.
fn without_user(url: &Url) -> String {
    let mut url = url.clone();
    // Neither fails for a URL that has a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_scheme_host_port_and_prefix() {
        for (text, shown, host, port, prefix) in [
            (
                "https://ws.example.com",
                "https://ws.example.com",
                "ws.example.com",
                443,
                "",
            ),
            (
                "wss://ws.example.com/",
                "https://ws.example.com",
                "ws.example.com",
                443,
                "",
            ),
            (
                "http://127.0.0.1:8080",
                "http://127.0.0.1:8080",
                "127.0.0.1",
                8080,
                "",
            ),
            ("ws://h:81/a/b/", "http://h:81/a/b", "h", 81, "/a/b"),
            ("http://[::1]:8080", "http://[::1]:8080", "[::1]", 8080, ""),
            ("https://h:80", "https://h:80", "h", 80, ""),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(endpoint.to_string(), shown);
            assert_eq!(endpoint.host, host);
            assert_eq!((endpoint.port, endpoint.prefix.as_str()), (port, prefix));
        }
    }

    #[test]
    fn what_is_no_servers_address_is_told_without_passwords() {
        for (text, told) in [
            ("ws.example.com", "is no URL"),
            ("", "is no URL"),
            ("ws.example.com:8080", "begins with https://"),
            ("ftp://h", "begins with https://"),
            ("http://", "is no URL"),
            ("http://h:99999", "is no URL"),
            ("http://me:hunter2@h", "leave what is before the @ away"),
            ("http://h/?a=b", "leave what is behind the path away"),
            ("wss://h/app/key", "leave /app/… and /apps/… away"),
            ("https://h/x/apps/1", "leave /app/… and /apps/… away"),
        ] {
            let error = Endpoint::parse(text).unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}

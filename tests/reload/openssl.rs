//! openssl, which makes certificates and connects.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::support::KEY;
use crate::wait::eventually;

/// Runs it; what it says.
pub(crate) fn openssl(arguments: &[&str]) -> String {
    let run = Command::new("openssl").args(arguments).output().unwrap();
    assert!(run.status.success(), "{arguments:?}: {run:?}");
    String::from_utf8(run.stdout).unwrap()
}

/// A certificate that is its own authority, and its key, in files.
pub(crate) struct Pair {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Pair {
    /// `kind` is what `openssl req -newkey` takes.
    pub(crate) fn make(dir: &Path, name: &str, kind: &[&str]) -> Self {
        let pair = Self::in_dir(dir, name);
        let (subject, alternative) = (format!("/CN={name}"), format!("subjectAltName=DNS:{name}"));
        let files = ["-keyout", pair.key(), "-out", pair.cert()];
        let names = ["-subj", &subject, "-addext", &alternative];
        let common = ["req", "-x509", "-nodes", "-days", "90", "-newkey"];
        openssl(&[&common, kind, &files, &names].concat());
        pair
    }

    fn in_dir(dir: &Path, name: &str) -> Self {
        Self {
            cert: dir.join(format!("{name}.pem")),
            key: dir.join(format!("{name}.key")),
        }
    }

    pub(crate) fn cert(&self) -> &str {
        self.cert.to_str().unwrap()
    }

    pub(crate) fn key(&self) -> &str {
        self.key.to_str().unwrap()
    }

    /// A copy under another name.
    pub(crate) fn copy(&self, dir: &Path, name: &str) -> Self {
        let copy = Self::in_dir(dir, name);
        std::fs::copy(&self.cert, &copy.cert).unwrap();
        std::fs::copy(&self.key, &copy.key).unwrap();
        copy
    }
}

/// `openssl s_client`, which stays connected.
pub(crate) struct Connection {
    child: Child,
    input: ChildStdin,
    said: Arc<Mutex<String>>,
}

impl Connection {
    pub(crate) fn open(to: SocketAddr, arguments: &[&str]) -> Self {
        let mut child = Command::new("openssl")
            .args(["s_client", "-ign_eof", "-connect", &to.to_string()])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let (keeper, output) = (Arc::clone(&said), child.stdout.take().unwrap());
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut piece = Vec::new();
            // Frames end in no line, but each of JSON's objects in a brace.
            while output.read_until(b'}', &mut piece).is_ok_and(|n| n > 0) {
                keeper
                    .lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&piece));
                piece.clear();
            }
        });
        Self {
            input: child.stdin.take().unwrap(),
            child,
            said,
        }
    }

    /// A WebSocket that has subscribed to `lobby`.
    pub(crate) fn websocket(to: SocketAddr, arguments: &[&str]) -> Self {
        let mut connection = Self::open(to, arguments);
        let request = format!(
            "GET /app/{KEY} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        connection.say(request.as_bytes());
        connection.expect("pusher:connection_established");
        let message = r#"{"event":"pusher:subscribe","data":{"channel":"lobby"}}"#;
        // One frame of text, whose mask changes nothing.
        let head = [
            0x81,
            0x80 | u8::try_from(message.len()).unwrap(),
            0,
            0,
            0,
            0,
        ];
        connection.say(&[&head, message.as_bytes()].concat());
        connection.expect("subscription_succeeded");
        connection
    }

    pub(crate) fn say(&mut self, bytes: &[u8]) {
        self.input.write_all(bytes).unwrap();
        self.input.flush().unwrap();
    }

    /// Waits until it has said this.
    pub(crate) fn expect(&self, text: &str) {
        eventually(&format!("openssl says {text:?}"), || {
            self.said.lock().unwrap().contains(text)
        });
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

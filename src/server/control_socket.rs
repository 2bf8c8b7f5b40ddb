//! The socket for `resound reload` and `resound status`, for the server's own user only.
//!
//! A client writes one line, a command, and gets one JSON document, an [`Answer`]; then the
//! connection ends. Nothing else is read, so nobody is waited for longer than [`MAX_TIME`].

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};

use super::listener::{SocketFile, listen_unix};
use super::{Reloader, StartError};
use crate::telemetry::limit::limited;

/// How long a client may take for its command, and to read the answer.
const MAX_TIME: Duration = Duration::from_secs(5);

/// Bytes of a command.
const MAX_COMMAND: u64 = 64;

/// Who may connect: the server's user.
const MODE: u32 = 0o600;

/// How long accepting rests after an error.
const PAUSE: Duration = Duration::from_millis(100);

/// What a client is answered.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Whether the command was carried out.
    pub ok: bool,
    /// What came of it, for a person.
    pub text: String,
    /// What was asked for, for programs.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub status: Value,
}

/// The socket; its file goes when this is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: StdListener,
    file: SocketFile,
}

impl ControlSocket {
    /// Takes the path, in place of one that a dead server has left.
    ///
    /// # Errors
    /// If another server listens there, if it is something else or another user's, or if
    /// its directory cannot be written to.
    pub fn bind(path: &Path) -> Result<Self, StartError> {
        let bound = refuse_anothers(path).and_then(|()| listen_unix(path, MODE, None));
        let (listener, file) = bound.map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
                    " (RESOUND_CONTROL_SOCKET: its directory has to exist and be writable)"
                }
                _ => " (RESOUND_CONTROL_SOCKET)",
            };
            StartError::Listen {
                address: path.display().to_string(),
                error,
                hint,
            }
        })?;
        Ok(Self {
            listener: listener.into(),
            file,
        })
    }

    /// Answers until it is given up. Has to be called in a runtime.
    ///
    /// # Errors
    /// If the runtime cannot watch the socket.
    pub fn serve(self, reloader: Arc<Reloader>) -> io::Result<impl Future<Output = ()>> {
        let listener = UnixListener::from_std(self.listener)?;
        let file = self.file;
        Ok(async move {
            let _file = file;
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        tokio::spawn(answer(stream, Arc::clone(&reloader)));
                    }
                    Err(error) => {
                        let text = "the control socket cannot accept; trying again in 100 ms";
                        limited!(warn, text, None, { %error, }, text);
                        sleep(PAUSE).await;
                    }
                }
            }
        })
    }
}

/// One that a dead server has left is replaced, but not another user's.
fn refuse_anothers(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.uid() != rustix::process::geteuid().as_raw() => {
            let text = "it is another user's; name another path";
            Err(io::Error::new(io::ErrorKind::AlreadyExists, text))
        }
        _ => Ok(()),
    }
}

async fn answer(stream: UnixStream, reloader: Arc<Reloader>) {
    let own = rustix::process::geteuid().as_raw();
    // The mode keeps others away, but not those who connected to what it once was.
    if !stream
        .peer_cred()
        .is_ok_and(|peer| [own, 0].contains(&peer.uid()))
    {
        let text = "closed a connection of another user to the control socket";
        limited!(warn, text, None, {}, text);
        return;
    }
    let mut reader = BufReader::new(stream).take(MAX_COMMAND);
    let mut command = String::new();
    match timeout(MAX_TIME, reader.read_line(&mut command)).await {
        Ok(Ok(_)) => {}
        // Whoever says nothing is told nothing.
        Ok(Err(_)) | Err(_) => return,
    }
    let answer = run(command.trim(), reloader).await;
    let mut text = serde_json::to_vec(&answer).expect("it is texts and numbers");
    text.push(b'\n');
    let mut stream = reader.into_inner().into_inner();
    // Whoever does not read it does not want it.
    let _ = timeout(MAX_TIME, stream.write_all(&text)).await;
}

async fn run(command: &str, reloader: Arc<Reloader>) -> Answer {
    match command {
        "reload" => {
            // It reads files.
            let reloaded = tokio::task::spawn_blocking(move || reloader.reload()).await;
            let (ok, text) = match reloaded {
                Ok(Ok(reloaded)) => (true, reloaded.to_string()),
                Ok(Err(refused)) => (false, refused.to_string()),
                Err(error) => (false, format!("the reload has failed: {error}")),
            };
            let status = Value::Null;
            Answer { ok, text, status }
        }
        "status" => {
            let status = reloader.status();
            let text = super::status::in_lines(&status);
            Answer {
                ok: true,
                text,
                status,
            }
        }
        other => match other.strip_prefix("webhooks ").map(str::parse) {
            Some(Ok(number)) => {
                let deliveries = reloader.control().webhooks.history().after(number);
                let status = serde_json::to_value(deliveries);
                Answer {
                    ok: true,
                    text: String::new(),
                    status: status.expect("it is texts and numbers"),
                }
            }
            Some(Err(_)) | None => Answer {
                ok: false,
                text: format!(
                    "there is no command {other:?}: expected reload, status or webhooks NUMBER"
                ),
                status: Value::Null,
            },
        },
    }
}

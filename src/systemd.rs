//! What systemd is told: when the server is ready, reloads and stops, how it stands, and
//! that it is alive (sd_notify(3)). Without `NOTIFY_SOCKET`, nothing.
//!
//! What is sent is `sd_notify`'s; how is not, because it would wait for a receiver that does not
//! read, and knows no abstract addresses.

use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::telemetry::limit::limited;

/// How often systemd wants to hear that the process is alive, at the latest; `None` if it
/// does not.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|time| !time.is_zero())
}

/// How long a message may wait to be taken. Others wait for whoever sends it.
const PATIENCE: Duration = Duration::from_millis(100);

/// Whether anybody is told.
pub fn is_notified() -> bool {
    receiver().is_some()
}

/// Who is told; `@` begins an abstract address.
fn receiver() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty())
}

/// Whether it was told that the start is over.
static IS_STARTED: AtomicBool = AtomicBool::new(false);

/// It serves.
pub fn started(status: &str) {
    IS_STARTED.store(true, Ordering::Relaxed);
    ready(status);
}

/// Whether it was told that it serves.
pub fn is_started() -> bool {
    IS_STARTED.load(Ordering::Relaxed)
}

/// It has read its settings anew.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// It reads its settings anew. [`ready`] has to follow, whatever comes of it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "systemd is not told of a reload"),
    }
}

/// It will serve no more.
pub fn stopping(status: &str) {
    notify(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// How it stands, for `systemctl status`.
pub fn status(status: &str) {
    notify(&[NotifyState::Status(status)]);
}

/// It is alive.
pub fn alive() {
    notify(&[NotifyState::Watchdog]);
}

fn notify(state: &[NotifyState<'_>]) {
    let Some(receiver) = receiver() else { return };
    let mut message = String::new();
    for line in state {
        writeln!(message, "{line}").expect("a String takes every text");
    }
    if let Err(error) = send(&receiver, &message) {
        let text = "systemd cannot be notified (NOTIFY_SOCKET)";
        limited!(warn, text, None, { %error, }, text);
    }
}

fn send(receiver: &OsStr, message: &str) -> io::Result<()> {
    let address = match receiver.as_bytes().strip_prefix(b"@") {
        #[cfg(target_os = "linux")]
        Some(name) => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(receiver)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.send_to_addr(message.as_bytes(), &address).map(drop)
}

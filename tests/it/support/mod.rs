//! A server to test against, a WebSocket client and an HTTP client.

pub(crate) mod client;
pub(crate) mod http;
pub(crate) mod process;
pub(crate) mod server;

pub(crate) use client::Client;
pub(crate) use http::{Http, Signed, body};
pub(crate) use process::Process;
pub(crate) use server::TestServer;

use std::net::SocketAddr;
use std::time::Duration;

/// A server that listens somewhere: in this process, or in one of its own.
pub(crate) trait At {
    fn address(&self) -> SocketAddr;
}

/// Longer than anything takes, so that only a real failure waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) const APP_ID: &str = "my-app-id";
pub(crate) const KEY: &str = "my-app-key";
pub(crate) const SECRET: &str = "my-app-secret";

/// Hex HMAC-SHA256, made without the code under test.
pub(crate) fn hmac(secret: &str, text: &str) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(text.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

//! The application the generator speaks for, and the two signatures the Pusher
//! protocol asks of it.

use crate::args::Target;
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) struct App {
    id: String,
    key: String,
    /// The keyed hash before any message, so that the key is set up only once.
    keyed: Hmac<Sha256>,
}

impl App {
    pub(crate) fn of(target: &Target) -> Self {
        Self {
            id: target.app_id.clone(),
            key: target.key.clone(),
            keyed: Hmac::new_from_slice(target.secret.as_bytes())
                .expect("HMAC takes keys of every length"),
        }
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// What a subscription needs to show, if the channel is not a public one.
    /// `member` is the data of a member of a presence channel.
    pub(crate) fn authorize(
        &self,
        socket_id: &str,
        channel: &str,
        member: Option<&str>,
    ) -> Option<String> {
        let needed = channel.starts_with("private-") || channel.starts_with("presence-");
        needed.then(|| {
            let text = match member {
                Some(member) => format!("{socket_id}:{channel}:{member}"),
                None => format!("{socket_id}:{channel}"),
            };
            format!("{}:{}", self.key, self.sign(&text))
        })
    }

    /// The signed path and query of a publish request.
    pub(crate) fn publish_target(&self, body: &str) -> String {
        let digest = hex(&Md5::digest(body.as_bytes()));
        self.signed("POST", "events", &format!("&body_md5={digest}"))
    }

    /// The signed path and query of a question for the users of a presence channel.
    pub(crate) fn users_target(&self, channel: &str) -> String {
        self.signed("GET", &format!("channels/{channel}/users"), "")
    }

    fn signed(&self, method: &str, call: &str, last: &str) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("the clock is set to a time after 1970")
            .as_secs();
        let path = format!("/apps/{}/{call}", self.id);
        let (key, rest) = (
            &self.key,
            format!("auth_timestamp={now}&auth_version=1.0{last}"),
        );
        let signature = self.sign(&format!("{method}\n{path}\nauth_key={key}&{rest}"));
        format!("{path}?auth_key={key}&auth_signature={signature}&{rest}")
    }

    fn sign(&self, text: &str) -> String {
        let mut keyed = self.keyed.clone();
        keyed.update(text.as_bytes());
        hex(&keyed.finalize().into_bytes())
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
    }
    text
}

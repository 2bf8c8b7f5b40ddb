//! Members of presence channels and signed-in users, and what they see.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::frames::{arrived, ask_to_join, data_of};
use crate::support::http::parsed;
use crate::support::{At, Client, Http, KEY, SECRET, hmac};
use crate::wait::{LONG, eventually_is, soon};

/// What a user joins with.
pub(crate) fn who(user: &str) -> String {
    json!({ "user_id": user, "user_info": { "name": user } }).to_string()
}

/// A connection that is in a presence channel, and whom it knows to be there. That
/// nobody is added twice, or removed who is not there, is looked at with every frame.
pub(crate) struct Member {
    pub(crate) client: Client,
    channel: String,
    pub(crate) here: BTreeSet<String>,
    /// Who came (`+`) and went (`-`) since it was looked at.
    changes: Vec<String>,
    /// The other frames.
    others: Vec<Value>,
}

impl Member {
    /// Subscribes as a user.
    pub(crate) fn join(server: &impl At, channel: &str, user: &str) -> Self {
        let mut client = Client::connect(server);
        ask_to_join(&mut client, channel, &who(user));
        let member = Self::of(client, channel);
        let here = &member.here;
        assert!(here.contains(user), "it is not in its own list: {here:?}");
        member
    }

    /// One that has asked; what comes before the answer is about other channels.
    pub(crate) fn of(mut client: Client, channel: &str) -> Self {
        let mut answer = client.next_json();
        while answer["channel"] != channel {
            answer = client.next_json();
        }
        assert_eq!(
            answer["event"], "pusher_internal:subscription_succeeded",
            "{answer}"
        );
        let here = listed(&answer);
        Self {
            client,
            channel: channel.to_owned(),
            here,
            changes: Vec::new(),
            others: Vec::new(),
        }
    }

    /// Takes in what has come.
    pub(crate) fn look(&mut self) {
        for frame in arrived(&mut self.client) {
            self.take(frame);
        }
    }

    fn take(&mut self, frame: Value) {
        let event = frame["event"].as_str().unwrap();
        if !event.starts_with("pusher_internal:member_") {
            self.others.push(frame);
            return;
        }
        assert_eq!(frame["channel"], *self.channel);
        let data = data_of(&frame);
        let user = data["user_id"].as_str().unwrap().to_owned();
        if event == "pusher_internal:member_added" {
            assert_eq!(data["user_info"]["name"], user, "{frame}");
            self.changes.push(format!("+{user}"));
            assert!(self.here.insert(user), "added twice: {:?}", self.changes);
        } else {
            self.changes.push(format!("-{user}"));
            assert!(self.here.remove(&user), "never came: {:?}", self.changes);
        }
    }

    /// Waits until it sees exactly these users.
    pub(crate) fn sees(&mut self, users: &[&str]) {
        let expected: BTreeSet<String> = users.iter().map(|user| (*user).to_owned()).collect();
        let seen = soon(LONG, || {
            self.look();
            self.here == expected
        });
        assert!(
            seen,
            "it should see {expected:?}, but sees {:?} after {:?}",
            self.here, self.changes
        );
    }

    /// Who came and went since the last call.
    pub(crate) fn changes(&mut self) -> Vec<String> {
        self.look();
        std::mem::take(&mut self.changes)
    }

    /// Waits until just these have come and gone since the last call.
    pub(crate) fn sees_changes(&mut self, expected: &[&str]) {
        let mut seen = Vec::new();
        let done = soon(LONG, || {
            seen.extend(self.changes());
            seen.len() >= expected.len()
        });
        assert!(
            done && seen == expected,
            "expected {expected:?}, saw {seen:?}"
        );
    }

    /// Frames other than joins and leaves, since the last call.
    pub(crate) fn others(&mut self) -> Vec<Value> {
        self.look();
        std::mem::take(&mut self.others)
    }
}

/// The users in the list of an answer, which have to be its ids, its hash and its count.
pub(crate) fn listed(answer: &Value) -> BTreeSet<String> {
    let presence = data_of(answer)["presence"].take();
    let ids = presence["ids"].as_array().unwrap();
    let listed: BTreeSet<String> = ids
        .iter()
        .map(|id| id.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(listed.len(), ids.len(), "somebody is listed twice");
    assert_eq!(presence["count"], ids.len());
    let hash = presence["hash"].as_object().unwrap();
    assert_eq!(
        hash.keys().cloned().collect::<BTreeSet<_>>(),
        listed,
        "the hash has whom the ids have"
    );
    listed
}

/// The users of a channel, as the HTTP API returns them.
pub(crate) fn users_of(server: &impl At, channel: &str) -> BTreeSet<String> {
    let answer = Http::connect(server).get(&format!("channels/{channel}/users"), &[]);
    let users = parsed(&answer)["users"].take();
    let ids = users.as_array().cloned().unwrap_or_default();
    let all: BTreeSet<String> = ids
        .iter()
        .map(|user| user["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(all.len(), ids.len(), "somebody is listed twice: {ids:?}");
    all
}

/// Waits until a server returns exactly these users of a channel.
pub(crate) fn has_users(server: &impl At, channel: &str, users: &[&str]) {
    let expected: BTreeSet<String> = users.iter().map(|user| (*user).to_owned()).collect();
    eventually_is(&format!("users of {channel}"), &expected, || {
        users_of(server, channel)
    });
}

/// A connection that is signed in with this `user_data`.
pub(crate) fn signed_in(server: &impl At, user_data: &Value) -> Client {
    let mut client = Client::connect(server);
    let user_data = user_data.to_string();
    let text = format!("{}::user::{user_data}", client.id);
    let auth = format!("{KEY}:{}", hmac(SECRET, &text));
    let data = json!({ "auth": auth, "user_data": user_data });
    client.send(&json!({ "event": "pusher:signin", "data": data }).to_string());
    let data = json!({ "user_data": user_data });
    client.expect(&format!(
        r#"{{"event":"pusher:signin_success","data":{data}}}"#
    ));
    client
}

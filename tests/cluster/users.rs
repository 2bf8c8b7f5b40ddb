//! Signed-in users over several nodes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::frames::{arrived, data_of};
use crate::nodes::{Cluster, HASTY};
use crate::people::{Member, signed_in};
use crate::support::{At, Client, Http, Signed};
use crate::wait::{LONG, soon};

/// A signed-in user and whom of its watchlist it believes to be online.
struct Watcher {
    client: Client,
    online: BTreeSet<String>,
    offline: BTreeSet<String>,
    changes: Vec<String>,
}

impl Watcher {
    fn of(server: &impl At, user: &str, watchlist: &[&str]) -> Self {
        let data = json!({ "id": user, "watchlist": watchlist });
        Self {
            client: signed_in(server, &data),
            online: BTreeSet::new(),
            offline: BTreeSet::new(),
            changes: Vec::new(),
        }
    }

    fn take(&mut self, frame: &Value) {
        assert_eq!(frame["event"], "pusher_internal:watchlist_events");
        for event in data_of(frame)["events"].as_array().unwrap() {
            for user in event["user_ids"].as_array().unwrap() {
                let user = user.as_str().unwrap().to_owned();
                let is_online = event["name"] == "online";
                let sign = if is_online { '+' } else { '-' };
                self.changes.push(format!("{sign}{user}"));
                let (to, from) = if is_online {
                    (&mut self.online, &mut self.offline)
                } else {
                    (&mut self.offline, &mut self.online)
                };
                from.remove(&user);
                assert!(to.insert(user), "sent twice: {:?}", self.changes);
            }
        }
    }

    /// Waits until it believes just these to be online, and nobody of the list is missing.
    fn sees(&mut self, online: &[&str], offline: &[&str]) {
        let set = |users: &[&str]| -> BTreeSet<String> {
            users.iter().map(|user| (*user).to_owned()).collect()
        };
        let expected = (set(online), set(offline));
        let seen = soon(LONG, || {
            for frame in arrived(&mut self.client) {
                self.take(&frame);
            }
            (&self.online, &self.offline) == (&expected.0, &expected.1)
        });
        let (online, offline) = (&self.online, &self.offline);
        assert!(
            seen,
            "online {online:?}, offline {offline:?} after {:?}, expected {expected:?}",
            self.changes
        );
    }

    /// What it was sent since the last call, after something else that was sent last.
    fn changes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.changes)
    }
}

#[test]
fn a_watcher_is_sent_who_comes_and_goes_on_every_node() {
    let cluster = Cluster::start(3, &[]);
    let ben = signed_in(&cluster[1], &json!({ "id": "ben" }));
    let mut ana = Watcher::of(&cluster[0], "ana", &["ben", "eve"]);
    ana.sees(&["ben"], &["eve"]);
    ana.changes();
    let eve = signed_in(&cluster[2], &json!({ "id": "eve" }));
    ana.sees(&["ben", "eve"], &[]);
    let second = signed_in(&cluster[1], &json!({ "id": "eve" }));
    drop(eve);
    // It is behind the tab that closed on the other node, so wait for that node's word.
    let third = signed_in(&cluster[2], &json!({ "id": "eve" }));
    drop(ben);
    ana.sees(&["eve"], &["ben"]);
    assert_eq!(ana.changes(), ["+eve", "-ben"], "eve never went");
    drop((second, third));
    ana.sees(&[], &["ben", "eve"]);
    assert_eq!(ana.changes(), ["-eve"]);
}

#[test]
fn users_of_a_node_that_dies_are_reported_offline() {
    let mut cluster = Cluster::start(2, &[HASTY]);
    let mut ana = Watcher::of(&cluster[0], "ana", &["ben", "eve"]);
    let _ben = signed_in(&cluster[1], &json!({ "id": "ben" }));
    let _eve = [0, 1].map(|node| signed_in(&cluster[node], &json!({ "id": "eve" })));
    ana.sees(&["ben", "eve"], &[]);
    ana.changes();
    cluster[1].kill();
    ana.sees(&["eve"], &["ben"]);
    assert_eq!(ana.changes(), ["-ben"]);
}

#[test]
fn terminating_a_user_closes_its_connections_on_every_node() {
    let cluster = Cluster::start(3, &[]);
    for (round, node) in cluster.nodes().iter().enumerate() {
        let user = format!("u{round}");
        let mut signed: Vec<Client> = (cluster.nodes().iter())
            .map(|node| signed_in(node, &json!({ "id": user })))
            .collect();
        signed.extend(
            (cluster.nodes().iter())
                .map(|node| Member::join(node, &format!("presence-{round}"), &user).client),
        );
        let mut other = signed_in(node, &json!({ "id": "other" }));
        let path = format!("users/{user}/terminate_connections");
        let answer = Http::connect(node).post(&path, "{}");
        assert_eq!((answer.status, &*answer.body), (200, "{}"));
        for client in &mut signed {
            client.expect_error(4009, "Connection terminated by the application");
            client.closed_with(4009, "Connection terminated by the application");
        }
        other.expect_silence();
    }
}

/// It is the same user that comes back: it may.
#[test]
fn a_user_that_was_terminated_may_sign_in_again_at_once() {
    let cluster = Cluster::start(2, &[]);
    let mut ana = Watcher::of(&cluster[0], "ana", &["ben"]);
    for _ in 0..10 {
        let mut ben = signed_in(&cluster[1], &json!({ "id": "ben" }));
        ana.sees(&["ben"], &[]);
        let answer = Http::connect(&cluster[0]).post("users/ben/terminate_connections", "{}");
        assert_eq!(answer.status, 200);
        ben.expect_error(4009, "Connection terminated by the application");
        ben.closed_with(4009, "Connection terminated by the application");
        ana.sees(&[], &["ben"]);
    }
}

#[test]
fn a_user_is_taken_out_of_a_channel_on_all_nodes() {
    let cluster = Cluster::start(3, &[]);
    let nodes = [0, 1, 2].map(|node| &cluster[node]);
    let mut clients = nodes.map(|node| signed_in(node, &json!({ "id": "ana" })));
    let mut other = signed_in(&cluster[1], &json!({ "id": "ben" }));
    for client in clients.iter_mut().chain([&mut other]) {
        client.subscribe("private-a");
    }
    let mut http = Http::connect(&cluster[2]);
    let answer = http.post("channels/private-a/users/ana/unsubscribe", "{}");
    assert_eq!((answer.status, &*answer.body), (200, "{}"));
    for client in &mut clients {
        let frame = client.next_json();
        assert_eq!(frame["event"], "pusher:subscription_error", "{frame}");
        assert_eq!(data_of(&frame)["type"], "Unsubscribed");
    }
    http.publish(&["private-a"], "e", "1");
    assert_eq!(other.next_json()["event"], "e");
    clients.iter_mut().for_each(Client::expect_silence);
    // One connection, by the node that has it.
    let path = format!("channels/private-a/sockets/{}/unsubscribe", other.id);
    http.post(&path, "");
    assert_eq!(other.next_json()["event"], "pusher:subscription_error");
    // Another node closes with the code that was asked for.
    let mut call = Signed::post("users/ben/terminate_connections", "");
    call = call.set("reconnect", "true");
    assert_eq!(http.request("POST", &call.target(), "").status, 200);
    let text = "Connection terminated by the application, reconnect";
    other.closed_with(4200, text);
}

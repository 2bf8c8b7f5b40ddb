//! Presence channels over several nodes.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use crate::frames::{arrived, ask_to_join, data_of, member_added, member_removed};
use crate::nodes::{Cluster, HASTY};
use crate::people::{Member, has_users, listed, users_of, who};
use crate::proxy::Weather;
use crate::support::Client;
use crate::wait::{eventually, soon};

#[test]
fn who_joins_on_any_node_is_sent_who_is_there_and_the_others_are_sent_it_once() {
    let cluster = Cluster::start(3, &[]);
    let mut ana = Client::connect(&cluster[0]);
    ask_to_join(&mut ana, "presence-r", &who("ana"));
    assert_eq!(listed(&ana.next_json()), BTreeSet::from(["ana".to_owned()]));
    let mut ben = Member::join(&cluster[1], "presence-r", "ben");
    assert_eq!(ben.here.len(), 2, "the first of its node sees everybody");
    ana.expect(&member_added(&who("ben"), "presence-r"));
    let mut eve = Member::join(&cluster[2], "presence-r", "eve");
    assert_eq!(eve.here.len(), 3);
    ana.expect(&member_added(&who("eve"), "presence-r"));
    ben.sees_changes(&["+eve"]);
    ben.client.unsubscribe("presence-r");
    ana.expect(&member_removed("ben", "presence-r"));
    eve.sees_changes(&["-ben"]);
    drop(eve);
    ana.expect(&member_removed("eve", "presence-r"));
    ana.expect_silence();
    assert_eq!(ben.changes(), [""; 0], "who has left is sent nothing");
}

#[test]
fn who_joins_a_node_that_knows_the_channel_is_listed_with_everybody() {
    let cluster = Cluster::start(2, &[]);
    let mut watcher = Member::join(&cluster[0], "presence-r", "watcher");
    let mut there = Vec::new();
    for n in 0..20 {
        there.push(Member::join(&cluster[1], "presence-r", &format!("u{n}")));
        watcher.sees_changes(&[&format!("+u{n}")]);
        let late = Member::join(&cluster[0], "presence-r", "watcher");
        assert_eq!(late.here, watcher.here);
    }
}

#[test]
fn a_user_with_tabs_on_several_nodes_is_one_member_until_the_last_one_closes() {
    let cluster = Cluster::start(3, &[]);
    let mut watcher = Member::join(&cluster[2], "presence-r", "watcher");
    let mut tabs: Vec<Member> = [0, 0, 1]
        .map(|node| Member::join(&cluster[node], "presence-r", "ana"))
        .into();
    let mut neighbour = Member::join(&cluster[0], "presence-r", "ben");
    watcher.sees_changes(&["+ana", "+ben"]);
    for node in cluster.nodes() {
        has_users(node, "presence-r", &["ana", "ben", "watcher"]);
    }
    // One tab of the first node, then its other one: the user is still on another node.
    tabs.remove(0);
    tabs.remove(0);
    // What another user does there comes behind it.
    neighbour.client.unsubscribe("presence-r");
    watcher.sees_changes(&["-ben"]);
    has_users(&cluster[0], "presence-r", &["ana", "watcher"]);
    tabs.clear();
    watcher.sees_changes(&["-ana"]);
    assert_eq!(watcher.changes(), [""; 0]);
    for node in cluster.nodes() {
        has_users(node, "presence-r", &["watcher"]);
    }
}

/// The user is somewhere all the time, so that a third node may not see it go. (The
/// node that it leaves may, if it has not received yet where else it is.)
#[test]
fn a_user_that_moves_from_node_to_node_never_goes() {
    let cluster = Cluster::start(3, &[]);
    let mut watcher = Member::join(&cluster[0], "presence-r", "watcher");
    let mut tab = Member::join(&cluster[1], "presence-r", "ana");
    watcher.sees_changes(&["+ana"]);
    for round in 0..30 {
        let node = [2, 1][round % 2];
        let next = Member::join(&cluster[node], "presence-r", "ana");
        tab.client.unsubscribe("presence-r");
        tab.client.expect_alive();
        tab = next;
    }
    has_users(&cluster[0], "presence-r", &["ana", "watcher"]);
    drop(tab);
    watcher.sees_changes(&["-ana"]);
}

#[test]
fn user_info_of_any_shape_and_numeric_ids_cross_as_they_came() {
    let cluster = Cluster::start(2, &[]);
    for (n, data) in [
        r#"{"user_id":"9","user_info":{"name":"é\"\\ 😀","deep":[{"a":null}]}}"#,
        r#"{"user_id":"9","user_info":null}"#,
        r#"{"user_id":"9","user_info":[]}"#,
        r#"{"user_id":"9","user_info":"text"}"#,
        r#"{"user_id":7,"user_info":{"id":7}}"#,
    ]
    .iter()
    .enumerate()
    {
        let channel = format!("presence-{n}");
        let mut watcher = Member::join(&cluster[1], &channel, "watcher");
        let mut client = Client::connect(&cluster[0]);
        ask_to_join(&mut client, &channel, data);
        client.next();
        watcher.client.expect(&member_added(data, &channel));
        let mut late = Client::connect(&cluster[1]);
        ask_to_join(&mut late, &channel, &who("late"));
        let presence = data_of(&late.next_json())["presence"].take();
        let sent: serde_json::Value = serde_json::from_str(data).unwrap();
        let id = &sent["user_id"];
        assert!(presence["ids"].as_array().unwrap().contains(id));
        let key = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
        assert_eq!(presence["hash"][key], sent["user_info"], "{data}");
    }
}

#[test]
fn the_answer_to_a_second_subscription_lists_the_whole_cluster() {
    let cluster = Cluster::start(2, &[]);
    let mut ana = Member::join(&cluster[0], "presence-r", "ana");
    let _ben = Member::join(&cluster[1], "presence-r", "ben");
    ana.sees(&["ana", "ben"]);
    ask_to_join(&mut ana.client, "presence-r", &who("ana"));
    assert_eq!(listed(&ana.client.next_json()), ana.here);
}

#[test]
fn a_member_whose_connection_is_terminated_is_gone_everywhere() {
    let cluster = Cluster::start(2, &[]);
    let mut watcher = Member::join(&cluster[0], "presence-r", "watcher");
    let _ana = Member::join(&cluster[1], "presence-r", "ana");
    watcher.sees_changes(&["+ana"]);
    let answer =
        crate::support::Http::connect(&cluster[0]).post("users/ana/terminate_connections", "{}");
    assert_eq!(answer.status, 200);
    watcher.sees_changes(&["-ana"]);
    has_users(&cluster[1], "presence-r", &["watcher"]);
}

#[test]
fn the_members_of_a_node_that_is_stopped_go_at_once() {
    let mut cluster = Cluster::start(2, &[("RESOUND_NODE_TIMEOUT", "600")]);
    let mut watcher = Member::join(&cluster[0], "presence-r", "watcher");
    let _there = ["ana", "ben"].map(|user| Member::join(&cluster[1], "presence-r", user));
    watcher.sees_changes(&["+ana", "+ben"]);
    cluster[1].stop();
    watcher.sees(&["watcher"]);
    assert_eq!(watcher.changes().len(), 2, "each goes once");
    has_users(&cluster[0], "presence-r", &["watcher"]);
    eventually("the node is not counted any more", || {
        cluster[0].ready()["nodes"] == 1
    });
}

#[test]
fn the_members_of_a_node_that_dies_go_once_unless_they_are_on_another_too() {
    let mut cluster = Cluster::start(3, &[HASTY]);
    let mut watchers = [0, 1].map(|node| Member::join(&cluster[node], "presence-r", "watcher"));
    let mut lost = ["ana", "ben"].map(|user| Member::join(&cluster[2], "presence-r", user));
    let _other_tab = Member::join(&cluster[1], "presence-r", "ana");
    for member in watchers.iter_mut().chain(&mut lost) {
        member.sees(&["ana", "ben", "watcher"]);
        member.changes();
    }
    cluster[2].kill();
    for watcher in &mut watchers {
        watcher.sees_changes(&["-ben"]);
    }
    for node in 0..2 {
        has_users(&cluster[node], "presence-r", &["ana", "watcher"]);
    }
    // And they may come back on the one that takes its place.
    cluster.replace(2);
    cluster.await_whole();
    let mut back = Member::join(&cluster[2], "presence-r", "ben");
    assert_eq!(back.here.len(), 3);
    for watcher in &mut watchers {
        watcher.sees_changes(&["+ben"]);
    }
    assert_eq!(back.changes(), [""; 0]);
}

/// Joins and leaves by all ways, on all nodes, of a few users: nobody is added twice
/// or removed who is not there, and in the end everybody sees who is there.
#[test]
fn every_view_is_right_under_churn() {
    let cluster = Cluster::start(3, &[]);
    let mut watchers: Vec<Member> = (cluster.nodes().iter())
        .map(|node| Member::join(node, "presence-r", "watcher"))
        .collect();
    std::thread::scope(|scope| {
        for (thread, node) in cluster.nodes().iter().chain(cluster.nodes()).enumerate() {
            scope.spawn(move || {
                for round in 0..20 {
                    let user = format!("u{}", (thread + round) % 4);
                    let mut member = Member::join(node, "presence-r", &user);
                    match round % 3 {
                        0 => drop(member),
                        1 => _ = member.client.socket.close(None),
                        _ => {
                            member.client.unsubscribe("presence-r");
                            member.look();
                        }
                    }
                }
            });
        }
        let looking = soon(Duration::from_secs(1), || {
            watchers.iter_mut().for_each(Member::look);
            false
        });
        assert!(!looking);
    });
    let last = Member::join(&cluster[1], "presence-r", "last");
    for watcher in &mut watchers {
        watcher.sees(&["last", "watcher"]);
    }
    for node in cluster.nodes() {
        has_users(node, "presence-r", &["last", "watcher"]);
    }
    drop((last, watchers));
    for node in cluster.nodes() {
        has_users(node, "presence-r", &[]);
        eventually("the channel is vacant", || {
            node.get("channels", &[]).body == r#"{"channels":{}}"#
        });
    }
}

#[test]
fn a_crowd_that_comes_on_all_nodes_at_once_is_seen_by_all() {
    const EACH: usize = 30;
    let cluster = Cluster::start(3, &[]);
    let mut members: Vec<Member> = std::thread::scope(|scope| {
        let threads: Vec<_> = (cluster.nodes().iter().enumerate())
            .map(|(n, node)| {
                scope.spawn(move || {
                    (0..EACH)
                        .map(|i| Member::join(node, "presence-r", &format!("u{n}-{i}")))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    let names: Vec<String> = (0..3)
        .flat_map(|n| (0..EACH).map(move |i| format!("u{n}-{i}")))
        .collect();
    let users: Vec<&str> = names.iter().map(String::as_str).collect();
    for member in &mut members {
        member.sees(&users);
    }
    for node in cluster.nodes() {
        assert_eq!(users_of(node, "presence-r").len(), users.len());
    }
    members.truncate(1);
    members[0].sees(&[users[0]]);
    let rest = arrived(&mut members[0].client);
    assert_eq!(json!(rest), json!([]), "and nothing more");
}

/// As a page does that mounts its component twice: the three requests go to Redis
/// together, and each of the answers is for one of the two subscriptions.
#[test]
fn who_leaves_and_comes_back_in_one_breath_sees_who_joins_meanwhile() {
    let cluster = Cluster::start(2, &[]);
    let _there = Member::join(&cluster[1], "presence-r", "there");
    cluster.set_network(0, Weather::Slow(Duration::from_millis(150)));
    let mut client = Client::connect(&cluster[0]);
    // While this is under way, nothing else is sent.
    client.ask("other");
    std::thread::sleep(Duration::from_millis(20));
    ask_to_join(&mut client, "presence-r", &who("me"));
    client.unsubscribe("presence-r");
    ask_to_join(&mut client, "presence-r", &who("me"));
    let others: Vec<Member> = (0..20)
        .map(|n| {
            std::thread::sleep(Duration::from_millis(30));
            Member::join(&cluster[1], "presence-r", &n.to_string())
        })
        .collect();
    let mut me = Member::of(client, "presence-r");
    let mut expected: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    expected.extend(["me", "there"].map(str::to_owned));
    me.sees(&expected.iter().map(String::as_str).collect::<Vec<_>>());
    cluster.heal_network(0);
    drop(others);
    me.sees(&["me", "there"]);
}

//! Redis is away for a while, for all nodes alike: nobody is taken for gone who had no
//! way to be received from, and who really goes meanwhile is taken out in time.

use std::time::{Duration, Instant};

use crate::nodes::Cluster;
use crate::people::{Member, has_users};
use crate::proxy::Weather;
use crate::wait::{eventually, soon};

/// How long Redis is away.
const AWAY: Duration = Duration::from_secs(6);

/// How long nobody may be seen going after that.
const AFTER: Duration = Duration::from_secs(6);

const NODES: usize = 3;

/// How Redis goes away, and how it comes back.
struct Absence {
    /// In seconds: longer than it is away.
    node_timeout: u64,
    begin: fn(&mut Cluster),
    end: fn(&mut Cluster),
}

/// How long ago a node's last heartbeat was, as Redis sees it.
fn heartbeat_age(cluster: &Cluster, node: &str) -> Duration {
    const AGE: &str = "local time = redis.call('TIME') \
        local now = time[1] * 1000 + math.floor(time[2] / 1000) \
        return now - redis.call('ZSCORE', KEYS[1], ARGV[1])";
    let nodes = "reverb:{*}:nodes";
    let age = cluster.redis.command(&["EVAL", AGE, "1", nodes, node]);
    Duration::from_millis(age.parse().unwrap())
}

/// Waits until just before a node's heartbeat, since it learns with its own how old those
/// of the others are: it knows least of them then. Those that started after it were
/// received last nearly two heartbeats ago.
fn await_old_news(cluster: &Cluster, node: usize, node_timeout: u64) {
    let ready = cluster[node].ready();
    let id = ready["node"].as_str().unwrap();
    let every = Duration::from_secs(node_timeout) / 5;
    let await_age = |is_it: fn(Duration, Duration) -> bool| {
        eventually("the age of its heartbeat", || {
            is_it(heartbeat_age(cluster, id), every)
        });
    };
    // What was said at the start is newer than the heartbeats.
    await_age(|age, every| age > every / 2);
    await_age(|age, every| age < every / 2);
    await_age(|age, every| age > every * 9 / 10);
}

/// Who was seen coming and going while Redis was away and some time after, by watcher.
fn seen_during(absence: &Absence) -> Vec<Vec<String>> {
    let timeout = absence.node_timeout.to_string();
    let mut cluster = Cluster::start(NODES, &[("RESOUND_NODE_TIMEOUT", &timeout)]);
    let names: Vec<String> = (0..NODES).map(|n| format!("u{n}")).collect();
    let users: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut members: Vec<Member> = (cluster.nodes().iter().zip(&users))
        .map(|(node, user)| Member::join(node, "presence-r", user))
        .collect();
    for member in &mut members {
        member.sees(&users);
        member.changes();
    }
    await_old_news(&cluster, 0, absence.node_timeout);
    let began = Instant::now();
    let mut seen = vec![Vec::new(); NODES];
    let mut look_until = |until: Duration, members: &mut [Member]| {
        soon(until.saturating_sub(began.elapsed()), || {
            for (member, seen) in members.iter_mut().zip(&mut seen) {
                let changes = member.changes();
                let at = began.elapsed().as_secs_f32();
                seen.extend(changes.iter().map(|change| format!("{change} at {at:.1}")));
            }
            false
        });
    };
    (absence.begin)(&mut cluster);
    look_until(AWAY, &mut members);
    (absence.end)(&mut cluster);
    look_until(AWAY + AFTER, &mut members);
    // And all is well again.
    cluster.await_whole();
    for node in cluster.nodes() {
        has_users(node, "presence-r", &users);
    }
    seen
}

const NOTHING: [&[String]; NODES] = [&[]; NODES];

#[test]
fn nobody_goes_while_redis_is_killed_for_some_seconds_and_keeps_its_data() {
    let seen = seen_during(&Absence {
        node_timeout: 15,
        begin: |cluster| cluster.redis.kill(),
        end: |cluster| cluster.redis.restart(),
    });
    assert_eq!(seen, NOTHING);
}

#[test]
fn nobody_goes_while_redis_is_killed_for_some_seconds_and_comes_back_empty() {
    let seen = seen_during(&Absence {
        node_timeout: 10,
        begin: |cluster| cluster.redis.kill(),
        end: |cluster| cluster.redis.restart_empty(),
    });
    assert_eq!(seen, NOTHING);
}

#[test]
fn nobody_goes_while_redis_hangs_for_some_seconds() {
    let seen = seen_during(&Absence {
        node_timeout: 10,
        begin: |cluster| cluster.redis.pause(),
        end: |cluster| cluster.redis.resume(),
    });
    assert_eq!(seen, NOTHING);
}

#[test]
fn nobody_goes_while_the_network_swallows_everything_for_some_seconds() {
    let seen = seen_during(&Absence {
        node_timeout: 10,
        begin: |cluster| (0..NODES).for_each(|n| cluster.set_network(n, Weather::BlackHole)),
        end: |cluster| (0..NODES).for_each(|n| cluster.heal_network(n)),
    });
    assert_eq!(seen, NOTHING);
}

/// A node that is given up soon, so that the test need not wait for long.
const TIMEOUT: Duration = Duration::from_secs(8);

/// How long it may take until a node notices that its link is broken.
const NOTICED: Duration = Duration::from_secs(3);

/// For a machine that is busy, and a look now and then.
const SLACK: Duration = Duration::from_millis(1500);

/// When the member of a node that dies while Redis is away is seen going, counted from
/// the moment when the link broke. Redis comes back after a time, if it does.
fn removal_of_a_dead_node(returns: Option<Duration>) -> Duration {
    let timeout = TIMEOUT.as_secs().to_string();
    let mut cluster = Cluster::start(3, &[("RESOUND_NODE_TIMEOUT", &timeout)]);
    let mut watcher = Member::join(&cluster[0], "presence-r", "watcher");
    let _living = Member::join(&cluster[1], "presence-r", "living");
    let _dying = Member::join(&cluster[2], "presence-r", "dying");
    watcher.sees(&["dying", "living", "watcher"]);
    watcher.changes();
    // Some heartbeats later.
    std::thread::sleep(Duration::from_secs(2));
    let broken = Instant::now();
    (0..3).for_each(|node| cluster.set_network(node, Weather::Cut));
    std::thread::sleep(Duration::from_millis(500));
    cluster[2].kill();
    let mut back = returns;
    let mut gone = Vec::new();
    let mut removed = None;
    soon(TIMEOUT + NOTICED + SLACK, || {
        if back.is_some_and(|back| broken.elapsed() >= back) {
            back = None;
            (0..3).for_each(|node| cluster.heal_network(node));
        }
        gone.extend(watcher.changes());
        if removed.is_none() && gone.iter().any(|change| change == "-dying") {
            removed = Some(broken.elapsed());
        }
        removed.is_some()
    });
    let removed = removed.unwrap_or_else(|| panic!("it was not taken out: {gone:?}"));
    // Without a link, this one is late, too.
    assert!(
        returns.is_none() || !gone.contains(&"-living".to_owned()),
        "{gone:?}"
    );
    removed
}

#[test]
fn a_node_that_dies_while_redis_is_away_is_taken_out_after_the_time_out() {
    let removed = removal_of_a_dead_node(None);
    let expected = TIMEOUT..=TIMEOUT + NOTICED + SLACK;
    assert!(expected.contains(&removed), "after {removed:?}");
}

#[test]
fn a_node_that_dies_while_redis_is_away_is_taken_out_in_time_after_its_return() {
    let removed = removal_of_a_dead_node(Some(Duration::from_secs(3)));
    let expected = TIMEOUT..=TIMEOUT + NOTICED + SLACK;
    assert!(expected.contains(&removed), "after {removed:?}");
}

/// It answers whoever connects, and then takes nothing: each attempt fails anew.
#[test]
fn a_node_that_dies_while_redis_refuses_everything_is_taken_out_in_time() {
    const TIME: u64 = 4;
    let mut cluster = Cluster::start(2, &[("RESOUND_NODE_TIMEOUT", &TIME.to_string())]);
    let mut watcher = Member::join(&cluster[0], "presence-r", "living");
    let dying = Member::join(&cluster[1], "presence-r", "dying");
    watcher.sees(&["living", "dying"]);
    watcher.changes();
    cluster.redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    cluster.await_connected(0, false);
    cluster[1].kill();
    drop(dying);
    let gone = soon(Duration::from_secs(TIME) + NOTICED + SLACK, || {
        watcher.changes().contains(&"-dying".to_owned())
    });
    assert!(gone, "{}", cluster[0].log());
}

//! The hub as a whole, without a runtime.

use super::*;
use crate::apps::tests::app;
use crate::apps::{App, AppRegistry};
use crate::protocol::{ChannelKind, message};

const CAPACITY: Capacity = Capacity {
    inbox_bytes: 1 << 20,
    sockets: 1000,
};

const APPLICATION: Publisher<'_> = Publisher::Application { except: None };

fn apps(change: impl Fn(&mut App)) -> AppRegistry {
    let mut pair = ["a", "b"].map(app);
    pair.iter_mut().for_each(change);
    AppRegistry::new(pair.into()).unwrap()
}

fn name(text: &str) -> ChannelName {
    ChannelName::parse(text, 164).unwrap()
}

fn connection(worker: usize, key: usize) -> ConnectionRef {
    ConnectionRef {
        worker,
        key,
        id: SocketId::from_random(key as u64),
    }
}

fn member(id: &str) -> Member {
    Member::parse(
        &format!(r#"{{"user_id":"{id}","user_info":{{"n":"{id}"}}}}"#),
        1000,
    )
    .unwrap()
}

fn broadcasts(hub: &Hub, worker: usize) -> Vec<Broadcast> {
    let broadcast = |message| match message {
        WorkerMessage::Broadcast(broadcast) => broadcast,
        other => panic!("{other:?}"),
    };
    hub.inbox(worker)
        .take()
        .into_iter()
        .map(broadcast)
        .collect()
}

fn text(frame: &Frame) -> String {
    message::text(frame).to_owned()
}

/// What each worker is sent: numbers and texts.
fn sent(hub: &Hub, worker: usize) -> Vec<(u64, String)> {
    broadcasts(hub, worker)
        .iter()
        .map(|broadcast| (broadcast.seq, text(&broadcast.frame)))
        .collect()
}

#[test]
fn each_worker_with_subscribers_gets_a_message_once_in_one_order() {
    let apps = apps(|_| ());
    let app = &apps.by_id("a").unwrap();
    let hub = Hub::new(3, CAPACITY);
    for (worker, key) in [(0, 0), (0, 1), (2, 2)] {
        hub.subscribe(app, &name("c"), connection(worker, key), None)
            .unwrap();
    }
    assert_eq!(hub.publish(app, &name("c"), APPLICATION, message::ping), 3);
    assert_eq!(hub.publish(app, &name("c"), APPLICATION, message::ping), 3);
    for (worker, expected) in [(0, &[1, 2][..]), (1, &[]), (2, &[1, 2])] {
        assert_eq!(
            broadcasts(&hub, worker)
                .iter()
                .map(|broadcast| broadcast.seq)
                .collect::<Vec<_>>(),
            expected
        );
    }
    let after = hub
        .subscribe(app, &name("c"), connection(1, 3), None)
        .unwrap()
        .after;
    assert_eq!(after, 2, "what was before the subscription is not for it");
}

#[test]
fn a_channel_lives_from_its_first_subscriber_to_its_last() {
    let apps = apps(|_| ());
    let (a, b) = (&apps.by_id("a").unwrap(), &apps.by_id("b").unwrap());
    let hub = Hub::new(1, CAPACITY);
    assert_eq!(
        hub.publish(a, &name("c"), APPLICATION, || unreachable!(
            "nobody is remote_node"
        )),
        0
    );
    let one = hub
        .subscribe(a, &name("c"), connection(0, 1), None)
        .unwrap();
    let two = hub
        .subscribe(a, &name("c"), connection(0, 2), None)
        .unwrap();
    assert_eq!(
        (hub.channels(a, "").len(), hub.channels(b, "").len()),
        (1, 0),
        "applications do not meet"
    );
    hub.leave(&one.channel, connection(0, 1), None);
    assert_eq!(hub.channels(a, "").len(), 1);
    hub.leave(&two.channel, connection(0, 2), None);
    assert_eq!(hub.channels(a, "").len(), 0);
    let again = hub
        .subscribe(a, &name("c"), connection(0, 1), None)
        .unwrap();
    assert_ne!(
        again.channel.id(),
        one.channel.id(),
        "late broadcasts of the old channel reach nobody"
    );
}

#[test]
fn connections_are_counted_up_to_the_quota() {
    let apps = apps(|app| app.max_connections = Some(2));
    let (a, b) = (&apps.by_id("a").unwrap(), &apps.by_id("b").unwrap());
    let hub = Hub::new(
        1,
        Capacity {
            sockets: 4,
            ..CAPACITY
        },
    );
    let slots: Vec<_> = (0..2).map(|_| hub.admit(a).unwrap()).collect();
    assert_eq!(hub.admit(a).unwrap_err(), CloseReason::OverConnectionQuota);
    let others: Vec<_> = (0..2).map(|_| hub.admit(b).unwrap()).collect();
    assert_eq!(others.len(), 2, "each application has its own quota");
    drop(slots);
    assert_eq!(a.connections(), 0);
    let more: Vec<_> = (0..2).map(|_| hub.admit(a).unwrap()).collect();
    drop(others);
    assert_eq!((more.len(), b.connections()), (2, 0));
}

#[test]
fn the_process_as_a_whole_has_a_bound() {
    let apps = apps(|_| ());
    let (a, b) = (&apps.by_id("a").unwrap(), &apps.by_id("b").unwrap());
    let hub = Hub::new(
        1,
        Capacity {
            sockets: 2,
            ..CAPACITY
        },
    );
    let _slots = [hub.admit(a).unwrap(), hub.admit(b).unwrap()];
    assert_eq!(hub.admit(a).unwrap_err(), CloseReason::OverCapacity);
    assert_eq!(a.connections(), 1, "who is refused does not count");
}

#[test]
fn a_user_joins_with_its_first_connection_and_leaves_with_its_last() {
    let apps = apps(|_| ());
    let app = &apps.by_id("a").unwrap();
    let hub = Hub::new(1, CAPACITY);
    let room = name("presence-r");
    assert_eq!(room.kind(), ChannelKind::Presence);
    let ana = hub
        .subscribe(app, &room, connection(0, 1), Some(&member("ana")))
        .unwrap();
    assert_eq!(sent(&hub, 0), [], "nobody is there to be sent it");
    hub.subscribe(app, &room, connection(0, 2), Some(&member("ana")))
        .unwrap();
    assert_eq!(sent(&hub, 0), [], "a second tab is no news");
    let ben = hub
        .subscribe(app, &room, connection(0, 3), Some(&member("ben")))
        .unwrap();
    let news = sent(&hub, 0);
    assert_eq!(news.len(), 1);
    assert!(
        news[0].1.contains("member_added") && news[0].1.contains("ben"),
        "{news:?}"
    );
    assert_eq!(ben.after, news[0].0, "who joins is not sent itself");
    let welcome = text(ben.answers[0].as_ref().unwrap());
    assert!(
        welcome.contains(r#"\"count\":2,\"ids\":[\"ana\",\"ben\"]"#),
        "{welcome}"
    );
    assert_eq!(
        ana.channel.counts(),
        Counts {
            subscriptions: 3,
            users: 2
        }
    );
    hub.leave(&ana.channel, connection(0, 1), Some("ana"));
    assert_eq!(sent(&hub, 0), []);
    hub.leave(&ana.channel, connection(0, 2), Some("ana"));
    assert!(
        sent(&hub, 0)[0]
            .1
            .contains(r#"member_removed","data":"{\"user_id\":\"ana\"}"#)
    );
    hub.leave(&ana.channel, connection(0, 3), Some("ben"));
    assert_eq!(
        (hub.channels(app, "").len(), hub.users(app)),
        (0, 0),
        "nothing is left"
    );
}

#[test]
fn a_full_presence_channel_takes_connections_of_its_members_only() {
    let apps = apps(|app| app.presence.max_members = Some(1));
    let app = &apps.by_id("a").unwrap();
    let hub = Hub::new(1, CAPACITY);
    let room = name("presence-r");
    let ana = hub
        .subscribe(app, &room, connection(0, 1), Some(&member("ana")))
        .unwrap();
    assert_eq!(
        hub.subscribe(app, &room, connection(0, 2), Some(&member("ben")))
            .unwrap_err(),
        JoinError::Full(Full(1))
    );
    assert!(
        hub.subscribe(app, &room, connection(0, 3), Some(&member("ana")))
            .is_ok()
    );
    assert_eq!(
        ana.channel.counts(),
        Counts {
            subscriptions: 2,
            users: 1
        }
    );
}

#[test]
fn the_last_event_of_a_cache_channel_outlives_its_subscribers() {
    let apps = apps(|_| ());
    let (a, b) = (&apps.by_id("a").unwrap(), &apps.by_id("b").unwrap());
    let hub = Hub::new(1, CAPACITY);
    let channel = name("cache-c");
    let answer = |app| {
        text(
            hub.subscribe(app, &channel, connection(0, 1), None)
                .unwrap()
                .answers[1]
                .as_ref()
                .unwrap(),
        )
    };
    assert!(answer(a).contains("pusher:cache_miss"));
    let event = |data: &str| message::event("\"e\"", &format!("\"{data}\""), &channel);
    assert_eq!(hub.publish_and_keep(a, &channel, None, event("first")), 1);
    assert_eq!(broadcasts(&hub, 0).len(), 1);
    hub.leave(&hub.find(a, "cache-c").unwrap(), connection(0, 1), None);
    assert_eq!(hub.publish_and_keep(a, &channel, None, event("second")), 0);
    assert!(answer(a).contains("second"));
    assert!(
        answer(b).contains("pusher:cache_miss"),
        "applications do not meet"
    );
}

#[test]
fn counts_are_sent_at_once_to_few_and_held_back_from_many() {
    let apps = apps(|app| app.subscription_count = true);
    let app = &apps.by_id("a").unwrap();
    let hub = Hub::new(1, CAPACITY);
    let mut last = None;
    for key in 0..=100 {
        last = Some(
            hub.subscribe(app, &name("c"), connection(0, key), None)
                .unwrap(),
        );
    }
    let counts = sent(&hub, 0);
    assert_eq!(counts.len(), 100, "the 101st is held back");
    assert!(
        counts[99].1.contains(r#"{\"subscription_count\":100}"#),
        "{:?}",
        counts[99]
    );
    assert_eq!(last.unwrap().after, counts[99].0);
    hub.send_counts();
    assert_eq!(sent(&hub, 0), [], "five seconds are not over");
    hub.subscribe(
        app,
        &name("presence-c"),
        connection(0, 1),
        Some(&member("ana")),
    )
    .unwrap();
    assert_eq!(sent(&hub, 0), [], "presence channels have members instead");
}

#[test]
fn nothing_begins_in_a_removed_application_and_its_state_goes_with_its_last_channel() {
    let apps = apps(|_| ());
    let a = &apps.by_id("a").unwrap();
    let hub = Arc::new(Hub::new(2, CAPACITY));
    let cached = name("cache-c");
    let joined = hub.subscribe(a, &cached, connection(0, 1), None).unwrap();
    hub.publish_and_keep(a, &cached, None, message::ping());
    hub.publish_and_keep(&apps.by_id("b").unwrap(), &cached, None, message::ping());
    assert_eq!(hub.apps(), 2);
    apps.apply(vec![app("b")]).unwrap();
    hub.remove_app(a);
    for worker in 0..2 {
        let sent = hub.inbox(worker).take();
        let is_close = |message| matches!(message, WorkerMessage::CloseApp(n) if n == a.number());
        assert!(sent.into_iter().any(is_close), "all workers are sent it");
    }
    let refused = hub.subscribe(a, &name("d"), connection(0, 2), None);
    assert_eq!(refused.unwrap_err(), JoinError::Removed(Removed));
    assert!(hub.cached(a, &cached).is_some() && hub.apps() == 2);
    hub.leave(&joined.channel, connection(0, 1), None);
    assert!(hub.cached(a, &cached).is_none() && hub.apps() == 1);
    assert_eq!(hub.publish_and_keep(a, &cached, None, message::ping()), 0);
    let user = User::parse(r#"{"id":"ana"}"#, 1000).unwrap();
    let signed_in = hub.sign_in(a, connection(0, 2), user, message::ping());
    assert!(signed_in.is_err() && hub.apps() == 1);
}

/// A channel that was added to a state while that was taken out would be lost.
#[test]
fn an_application_is_removed_while_others_join_and_leave() {
    for _ in 0..200 {
        let apps = apps(|_| ());
        let a = &apps.by_id("a").unwrap();
        let hub = &Arc::new(Hub::new(1, CAPACITY));
        std::thread::scope(|scope| {
            for key in 0..4 {
                scope.spawn(move || {
                    let room = name(&format!("presence-{}", key % 2));
                    let ana = member("ana");
                    let user = User::parse(r#"{"id":"ana"}"#, 1000).unwrap();
                    let to = connection(0, key);
                    while let Ok(joined) = hub.subscribe(a, &room, to, Some(&ana)) {
                        let signed_in = hub.sign_in(a, to, user.clone(), message::ping());
                        assert!(hub.find(a, room.as_str()).is_some());
                        hub.leave(&joined.channel, to, Some("ana"));
                        drop(signed_in);
                    }
                });
            }
            std::thread::yield_now();
            apps.apply(Vec::new()).unwrap();
            hub.remove_app(a);
        });
        assert_eq!((hub.apps(), hub.users(a)), (0, 0));
    }
}

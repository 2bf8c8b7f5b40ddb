//! What happens in the hub is emitted to every sink, in its order.

use std::sync::{Arc, Mutex};

use resound::hub::{HubEvent, HubEventKind, Sink, Sinks};
use serde_json::json;

use crate::support::{Client, Http, KEY, SECRET, TestServer, hmac};

/// Keeps what it gets, as texts.
#[derive(Default)]
struct Recorder(Mutex<Vec<String>>);

impl Sink for Recorder {
    fn accept(&self, event: &HubEvent<'_>) {
        let text = match event.kind {
            HubEventKind::ConnectionOpened { socket } => format!("opened {socket}"),
            HubEventKind::ConnectionClosed { socket, reason } => {
                format!("closed {socket} {reason:?}")
            }
            HubEventKind::Subscribed {
                channel,
                user,
                is_first_of_user,
            } => format!("subscribed {channel} {user:?} {is_first_of_user}"),
            HubEventKind::Unsubscribed {
                channel,
                user,
                is_last_of_user,
            } => format!("unsubscribed {channel} {user:?} {is_last_of_user}"),
            HubEventKind::ChannelOccupied { channel } => format!("occupied {channel}"),
            HubEventKind::ChannelVacated { channel } => format!("vacated {channel}"),
            HubEventKind::ClusterChannelOccupied { channel } => format!("all occupied {channel}"),
            HubEventKind::ClusterChannelVacated { channel } => format!("all vacated {channel}"),
            HubEventKind::MemberAdded {
                channel,
                member,
                origin,
            } => format!("added {} to {channel} {origin:?}", member.id),
            HubEventKind::MemberRemoved {
                channel,
                id_json,
                origin,
            } => format!("removed {id_json} from {channel} {origin:?}"),
            HubEventKind::SubscriptionRefused {
                socket,
                channel,
                kind,
                reason,
            } => format!("refused {socket} {channel}: {} {reason}", kind.label()),
            HubEventKind::EventPublished {
                channel,
                bytes,
                subscribers,
            } => format!("published {bytes} to {subscribers} of {channel}"),
            HubEventKind::ClientEvent {
                socket,
                channel,
                event,
                data,
                user_id,
            } => format!("client event {event} {data:?} of {user_id:?} {socket} in {channel}"),
            HubEventKind::CacheHit { channel } => format!("cache hit {channel}"),
            HubEventKind::CacheMiss { channel } => format!("cache miss {channel}"),
            HubEventKind::CountChanged { channel, count } => format!("count {channel} {count}"),
        };
        assert_eq!(event.app.id(), crate::support::APP_ID);
        self.0.lock().unwrap().push(text);
    }
}

impl Recorder {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn server(settings: &[(&str, &str)]) -> (TestServer, [Arc<Recorder>; 2]) {
    let recorders = [(); 2].map(|()| Arc::new(Recorder::default()));
    let sinks = recorders.iter().map(|it| Arc::clone(it) as Arc<dyn Sink>);
    let server = TestServer::with_sinks(settings, Sinks::new(sinks.collect()));
    (server, recorders)
}

fn join(client: &mut Client, channel: &str, user: &str) {
    let data = json!({ "user_id": user }).to_string();
    let auth = hmac(SECRET, &format!("{}:{channel}:{data}", client.id));
    let data = json!({ "channel": channel, "auth": format!("{KEY}:{auth}"), "channel_data": data });
    client.send(&json!({ "event": "pusher:subscribe", "data": data }).to_string());
    assert_eq!(
        client.next_json()["event"],
        "pusher_internal:subscription_succeeded"
    );
}

#[test]
fn connections_channels_and_members_are_emitted_as_they_come_and_go() {
    let (server, [recorder, other]) = server(&[]);
    let (mut ana, mut ben) = (Client::connect(&server), Client::connect(&server));
    let ids = [ana.id.clone(), ben.id.clone()];
    join(&mut ana, "presence-r", "ana");
    join(&mut ben, "presence-r", "ben");
    ben.unsubscribe("presence-r");
    ben.expect_alive();
    drop(ben);
    server_has(&server, 1);
    drop(ana);
    server.expect_empty();
    let events = recorder.take();
    let expected = [
        format!("opened {}", ids[0]),
        format!("opened {}", ids[1]),
        "added ana to presence-r Local".to_owned(),
        "occupied presence-r".to_owned(),
        "subscribed presence-r Some(\"ana\") true".to_owned(),
        "added ben to presence-r Local".to_owned(),
        "subscribed presence-r Some(\"ben\") true".to_owned(),
        r#"removed "ben" from presence-r Local"#.to_owned(),
        "unsubscribed presence-r Some(\"ben\") true".to_owned(),
        format!("closed {} Gone", ids[1]),
        format!("closed {} Gone", ids[0]),
        r#"removed "ana" from presence-r Local"#.to_owned(),
        "unsubscribed presence-r Some(\"ana\") true".to_owned(),
        "vacated presence-r".to_owned(),
    ];
    assert_eq!(events, expected);
    assert_eq!(other.take(), expected, "every sink gets it");
}

fn server_has(server: &TestServer, connections: usize) {
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    while server.app.connections() != connections {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
}

#[test]
fn events_counts_misses_and_refusals_are_emitted() {
    let (server, [recorder, _]) = server(&[("RESOUND_SUBSCRIPTION_COUNT", "true")]);
    let mut client = Client::connect(&server);
    let id = client.id.clone();
    client.subscribe("cache-c");
    assert_eq!(client.next_json()["event"], "pusher:cache_miss");
    assert_eq!(
        client.next_json()["event"],
        "pusher_internal:subscription_count"
    );
    client.send(r#"{"event":"client-e","channel":"cache-c","data":{"a":1}}"#);
    client.send(r#"{"event":"pusher:subscribe","data":{"channel":"private-p","auth":"x:y"}}"#);
    assert_eq!(client.next_json()["event"], "pusher:subscription_error");
    assert_eq!(client.next_json()["event"], "pusher:error");
    Http::connect(&server).publish(&["cache-c", "nobody"], "e", "data");
    assert_eq!(client.next_json()["event"], "e");
    let events = recorder.take();
    let starts = [
        format!("opened {id}"),
        "occupied cache-c".to_owned(),
        "subscribed cache-c None false".to_owned(),
        "count cache-c 1".to_owned(),
        "cache miss cache-c".to_owned(),
        format!("client event client-e Some(\"{{\\\"a\\\":1}}\") of None {id} in cache-c"),
        format!("refused {id} private-p: auth_key "),
        "published ".to_owned(),
        "published ".to_owned(),
    ];
    assert_eq!(events.len(), starts.len(), "{events:#?}");
    for (events, start) in events.iter().zip(&starts) {
        assert!(events.starts_with(start), "{events} is not {start}…");
    }
    assert!(events[7].ends_with(" to 1 of cache-c"), "{events:#?}");
    assert!(events[8].ends_with(" to 0 of nobody"), "{events:#?}");
}

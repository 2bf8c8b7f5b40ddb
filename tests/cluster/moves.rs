//! Connections that are moved to other workers while they wait for a real Redis, whose
//! answer comes before, while or after they move. `tests/it/moves.rs` has all other states.

#[path = "../it/moves/workers.rs"]
#[allow(dead_code, reason = "it also serves tests of one server")]
mod workers;

use std::thread;
use std::time::Duration;

use resound::worker::state::ConnectionState;

use crate::proxy::{Proxy, Weather};
use crate::redis::Redis;
use crate::settings::Settings;
use workers::{Others, Workers, succeeded};

const ME: &str = r#"{"user_id":"u","user_info":{"n":"é"}}"#;
const ANSWERS: usize = 4;

fn node(redis: Settings) -> Workers {
    let settings = redis.with(&[("REVERB_SCALING_ENABLED", "true")]);
    let settings: Vec<_> = settings.pairs().collect();
    Workers::linked(&settings, Others::Redis)
}

fn waits(state: &ConnectionState) -> bool {
    let user = state.session.user.as_ref();
    state.subscriptions.len() == 2 && user.is_some_and(|user| user.waiting_answer.is_some())
}

#[test]
fn an_answer_of_redis_finds_who_waits_for_it_on_whichever_worker_it_is() {
    for round in 0..8 {
        let redis = Redis::start();
        let proxy = Proxy::to(redis.port);
        let [elsewhere, workers] = [redis.settings(), redis.settings_by(proxy.port)].map(node);
        let mut other = elsewhere.connect();
        other.join("presence-b", r#"{"user_id":"v"}"#);
        assert!(other.next().into_text().unwrap().contains("succeeded"));
        let mut listener = workers.connect();
        proxy.set(Weather::Still);
        let publisher = workers.publisher(&["a", "presence-b"], |_| 0);
        listener.client.ask("a");
        listener.join("presence-b", ME);
        let success = listener.sign_in(r#"{"id":"u","watchlist":["w"]}"#);
        let state = workers.move_until(&listener, waits);
        assert!(
            state.subscriptions.iter().all(|s| s.position.is_none()),
            "{state:?}"
        );
        thread::scope(|scope| {
            let (workers, address) = (&workers, listener.address());
            let moving = scope.spawn(move || {
                // The last one begins before Redis answers, or after.
                for _ in 0..=round * 4 {
                    workers.try_move(address).unwrap();
                }
            });
            thread::sleep(Duration::from_millis(1));
            proxy.heal();
            moving.join().unwrap();
        });
        let mut answers: Vec<String> = (0..ANSWERS)
            .map(|_| listener.next().into_text().unwrap().to_string())
            .collect();
        answers.sort();
        assert_eq!(answers[0], success);
        for id in [r#"\"u\""#, r#"\"v\""#] {
            assert!(answers[1].contains(id), "the list is complete: {answers:?}");
        }
        assert_eq!(answers[2], succeeded("a"));
        assert!(answers[3].contains("watchlist_events"), "{answers:?}");
        assert!(other.next().into_text().unwrap().contains("member_added"));
        let state = workers.move_on(&listener);
        assert!(state.subscriptions.iter().all(|s| s.position.is_some()));
        assert!(state.session.user.unwrap().waiting_answer.is_none());
        let last = publisher.stop();
        listener.expect_all("a", last);
        listener.expect_all("presence-b", last);
        listener.expect_alive();
        drop(listener);
        workers.expect_empty();
        assert!(other.next().into_text().unwrap().contains("member_removed"));
    }
}

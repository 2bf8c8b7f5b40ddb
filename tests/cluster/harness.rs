//! The harness itself: what the other tests rest on is what it says it is.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::bus::Bystander;
use crate::proxy::{Proxy, Weather};
use crate::redis::{Certificates, Options, Redis};
use crate::support::PATIENCE;
use crate::topologies::{Sentinels, Shards};
use crate::wait::{eventually, eventually_is};

#[test]
fn a_redis_keeps_its_data_over_a_restart_unless_it_is_told_to_forget_them() {
    let mut redis = Redis::start();
    assert_eq!(redis.command(&["SET", "k", "v"]), "OK");
    redis.restart();
    assert_eq!(redis.command(&["GET", "k"]), "v");
    redis.restart_empty();
    assert_eq!(redis.command(&["GET", "k"]), "");
    redis.kill();
    assert!(!redis.is_alive());
    assert!(redis.command(&["PING"]).contains("Connection refused"));
}

#[test]
fn a_paused_redis_answers_when_it_is_resumed() {
    let mut redis = Redis::start();
    redis.pause();
    let mut stream = TcpStream::connect(("127.0.0.1", redis.port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    stream.write_all(b"PING\r\n").unwrap();
    let mut answer = [0; 7];
    assert!(stream.read(&mut answer).is_err(), "nobody answers");
    redis.resume();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+PONG\r\n");
}

#[test]
fn a_redis_with_a_password_or_a_user_or_tls_lets_in_who_has_them() {
    for options in [
        Options {
            password: Some("s3cret"),
            ..Options::default()
        },
        Options {
            user: Some(("worker", "s3cret")),
            ..Options::default()
        },
        Options {
            tls: Some(Rc::new(Certificates::new())),
            password: Some("s3cret"),
            ..Options::default()
        },
    ] {
        let is_tls = options.tls.is_some();
        let mut redis = Redis::single(options);
        assert_eq!(redis.command(&["SET", "k", "v"]), "OK");
        let answer = crate::redis::redis_cli(redis.port, &[], &["GET", "k"]);
        assert_ne!(answer, "v");
        assert_eq!(answer.contains("NOAUTH"), !is_tls, "{answer}");
        redis.restart();
        assert_eq!(redis.command(&["GET", "k"]), "v");
    }
}

#[test]
fn a_redis_cluster_serves_all_slots_and_promotes_a_replica() {
    let mut shards = Shards::with_replicas();
    for n in 0..10 {
        let key = format!("k{n}");
        let answer = crate::redis::redis_cli(
            shards.servers[0].port,
            &["-c".to_owned()],
            &["SET", &key, "v"],
        );
        assert_eq!(answer, "OK");
    }
    let masters = shards.masters();
    assert_eq!(masters.len(), 3);
    shards.servers[masters[0]].kill();
    eventually("a replica is promoted", || {
        let now = shards.masters();
        now.len() == 3 && now != masters
    });
    shards.await_ok();
}

#[test]
fn sentinels_promote_the_replica() {
    let mut sentinels = Sentinels::start();
    let first = sentinels.servers[0].port;
    assert_eq!(sentinels.master_port(), Some(first));
    sentinels.servers[0].kill();
    eventually_is("the master", &Some(sentinels.servers[1].port), || {
        sentinels.master_port()
    });
}

/// Sends a line to a Redis and waits for the answer, if one comes within the time.
fn ping(stream: &mut TcpStream, within: Duration) -> bool {
    stream.set_read_timeout(Some(within)).unwrap();
    stream.write_all(b"PING\r\n").is_ok() && stream.read_exact(&mut [0; 7]).is_ok()
}

#[test]
fn a_proxy_passes_delays_holds_swallows_and_cuts() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port);
    let connect = || TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
    let (mut lucky, mut unlucky) = (connect(), connect());
    assert!(ping(&mut lucky, PATIENCE) && ping(&mut unlucky, PATIENCE));

    proxy.set(Weather::Slow(Duration::from_millis(150)));
    let begin = Instant::now();
    assert!(ping(&mut lucky, PATIENCE));
    assert!(begin.elapsed() >= Duration::from_millis(300), "each way");

    proxy.set(Weather::Still);
    assert!(!ping(&mut lucky, Duration::from_millis(200)));
    proxy.heal();
    lucky.set_read_timeout(Some(PATIENCE)).unwrap();
    lucky.read_exact(&mut [0; 7]).unwrap();

    proxy.set(Weather::BlackHole);
    let mut newcomer = connect();
    assert!(!ping(&mut unlucky, Duration::from_millis(200)));
    assert!(!ping(&mut newcomer, Duration::from_millis(200)));
    proxy.heal();
    // Who lost bytes cannot go on; who lost none can.
    assert!(!ping(&mut unlucky, PATIENCE) && !ping(&mut newcomer, PATIENCE));
    assert!(ping(&mut lucky, PATIENCE));

    proxy.set(Weather::Deaf);
    let mut cut_off = connect();
    cut_off.write_all(b"SET received yes\r\n").unwrap();
    eventually("what is said arrives", || {
        redis.command(&["GET", "received"]) == "yes"
    });
    assert!(!ping(&mut cut_off, Duration::from_millis(200)));
    proxy.heal();
    assert!(!ping(&mut cut_off, PATIENCE) && ping(&mut lucky, PATIENCE));

    proxy.set(Weather::Cut);
    assert!(!ping(&mut lucky, PATIENCE));
    eventually("connections are refused", || {
        TcpStream::connect(("127.0.0.1", proxy.port)).is_err()
    });
    proxy.heal();
    eventually("connections are accepted", || {
        TcpStream::connect(("127.0.0.1", proxy.port))
            .is_ok_and(|mut stream| ping(&mut stream, PATIENCE))
    });
}

#[test]
fn a_bystander_receives_and_publishes_any_bytes() {
    let redis = Redis::start();
    let mut listener = Bystander::listening(redis.port);
    let mut speaker = Bystander::connect(redis.port);
    assert_eq!(speaker.publish(b"a\r\n b", b"\0\xff\r\n"), 1);
    assert_eq!(
        listener.next_message(),
        (b"a\r\n b".to_vec(), b"\0\xff\r\n".to_vec())
    );
}

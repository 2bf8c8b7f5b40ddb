//! A WebSocket on which nothing happens, behind each proxy with its own time-outs.

use std::time::{Duration, Instant};

use crate::file::File;
use crate::front::{self, Front};
use crate::support::At;
use crate::{apache, caddy, compose, haproxy, nginx};

/// How much quicker time passes. Resound pings after 60 seconds and waits another 30 for the
/// answer: with less than 80, here 4, a proxy cuts off who is there.
const TIMES: u64 = 20;
const PING_INTERVAL: (&str, &str) = ("REVERB_APP_PING_INTERVAL", "4");

/// More than any time-out of the files that is for WebSockets.
const LONG: Duration = Duration::from_secs(7);

/// Answers pings for a while, as Echo does, and nothing else.
fn idle(front: &Front) -> usize {
    let mut client = front.connect(7);
    let begin = Instant::now();
    let mut pings = 0;
    while begin.elapsed() < LONG {
        let message = client.next();
        // Those of the WebSocket protocol are answered by the next look.
        if !message.is_ping() {
            assert_eq!(message.to_text().unwrap(), r#"{"event":"pusher:ping"}"#);
            client.send(r#"{"event":"pusher:pong","data":{}}"#);
        }
        pings += 1;
    }
    pings
}

#[test]
fn an_idle_socket_is_kept_by_every_proxy() {
    let server = front::server(&[PING_INTERVAL]);
    let below = front::server(&[PING_INTERVAL, ("REVERB_SERVER_PATH", "/ws")]);
    let folder = tempfile::tempdir().unwrap();
    let hurried = |name: &str, words: &[&str]| File::read(name).hurried(TIMES, words);
    let words = ["proxy_read_timeout ", "proxy_send_timeout "];
    let of_nginx = |name: &str| hurried(&format!("nginx/{name}.conf"), &words);
    let of_compose = compose::start(hurried("compose/nginx.conf", &words), &server);
    let own_host = nginx::own_host(of_nginx("own-host"), &server);
    let sub_path = nginx::sub_path(of_nginx("sub-path"), &below);
    let same_host = nginx::same_host(of_nginx("same-host"), &server, folder.path());
    let to = server.address();
    let apache = apache::start(hurried("apache/resound.conf", &[" timeout="]), to);
    let caddy = caddy::start(File::read("caddy/Caddyfile"), "ws.example.com", to);
    let words = ["timeout client ", "timeout server ", "timeout tunnel "];
    let haproxy = haproxy::start(hurried("haproxy/haproxy.cfg", &words), to);
    let fronts = [
        &own_host.front,
        &sub_path.front,
        &same_host.front,
        &of_compose.0,
        &apache.0,
        &caddy.0,
        &haproxy.0,
    ];
    std::thread::scope(|scope| {
        let idle = fronts.map(|front| scope.spawn(|| idle(front)));
        for thread in idle {
            assert!(thread.join().unwrap() > 0);
        }
    });
}

//! nginx in front.

use crate::manual;
use crate::net;
use crate::nginx_program;
use crate::node::Node;
use crate::proxy::{Proxy, SETTINGS};
use crate::server;
use crate::support::At;
use crate::wait::eventually;

fn http(server: &Node) -> Proxy {
    let lines = manual::settings("nginx", "upstream resound", server.address());
    nginx_program::start(|address| {
        let listening = format!("server {{ listen {address};");
        let lines = manual::replaced(&lines, "server {", &listening);
        nginx_program::http(&lines)
    })
}

#[test]
fn clients_and_publishes_come_through_nginx() {
    let server = server::start(&SETTINGS);
    http(&server).check(&server);
}

/// 127.0.0.1 is trusted, and says in front of nginx who it is there for.
#[test]
fn a_proxy_in_front_of_nginx_is_believed_if_it_is_trusted() {
    let server = server::start(&SETTINGS);
    let proxy = http(&server);
    let from = |client: &str| {
        let headers = [("x-forwarded-for", client)];
        net::open(1, proxy.address, &headers)
    };
    let mut held = [0; 2].map(|_| from("6.6.6.6, 192.0.2.1"));
    held.iter_mut().for_each(|client| client.established());
    from("7.7.7.7, 192.0.2.1").expect_error(4100, "Too many connections from this address");
    from("[2001:db8::1]:4711").established();
    let line = ["connecting", "peer=[2001:db8::1]:4711", "proxy=127.0.0.1:"];
    eventually("its line is there", || server::has_logged(&server, &line));
}

/// All of its connections to the server are its own, and few.
#[test]
fn nginx_publishes_for_many_over_few_connections() {
    let server = server::start(&SETTINGS);
    let proxy = http(&server);
    for number in 20..60 {
        net::http(number, proxy.address).publish(&["lobby"], "ev", "x");
    }
    let is_publish = |line: &&str| line.contains("method=POST");
    eventually("all lines are there", || {
        server.log().lines().filter(is_publish).count() >= 40
    });
    let log = server.log();
    let proxies = log.lines().filter(is_publish);
    let mut proxies: Vec<&str> = proxies
        .filter_map(|line| line.split("proxy=").nth(1)?.split(' ').next())
        .collect();
    assert_eq!(proxies.len(), 40, "{log}");
    proxies.sort_unstable();
    proxies.dedup();
    assert!(proxies.len() <= 4, "{proxies:?}");
}

#[test]
fn clients_and_publishes_come_through_nginx_with_a_proxy_header() {
    let settings = [&SETTINGS[..], &[("RESOUND_PROXY_PROTOCOL", "on")]].concat();
    let server = server::start(&settings);
    let lines = manual::settings("nginx", "stream {", server.address());
    let proxy = nginx_program::start(|address| {
        manual::replaced(&lines, "listen 443;", &format!("listen {address};"))
    });
    proxy.check(&server);
}

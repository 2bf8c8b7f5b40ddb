//! HAProxy in front.

use std::net::SocketAddr;

use crate::manual;
use crate::proxy::{Proxy, SETTINGS};
use crate::server;
use crate::support::At;
use crate::wait::eventually;

/// `mode`, more lines of the frontend, and how the server is reached.
pub(crate) fn start(to: SocketAddr, mode: &str, frontend: &str, with: &str) -> Proxy {
    // Not in the background, and one process.
    let arguments = ["-db", "-f", "{config}"];
    Proxy::start("haproxy", &arguments, |address, _| {
        format!(
            "defaults
    mode {mode}
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h
frontend clients
    bind {address}
{frontend}
    default_backend resound
backend resound
    option httpchk GET /up
    server resound {to} check inter 200ms {with}
"
        )
    })
}

fn settings(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    [&SETTINGS[..], more].concat()
}

#[test]
fn clients_and_publishes_come_through_haproxy() {
    let server = server::start(&settings(&[]));
    let lines = manual::settings("haproxy", "option forwardfor", server.address());
    let arguments = ["-db", "-f", "{config}"];
    let proxy = Proxy::start("haproxy", &arguments, |address, _| {
        let bind = "bind :443 ssl crt /etc/haproxy/site.pem";
        let lines = manual::replaced(&lines, bind, &format!("bind {address}"));
        format!(
            "defaults\n    timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n{lines}"
        )
    });
    proxy.check(&server);
}

#[test]
fn clients_and_publishes_come_through_haproxy_with_forwarded() {
    let server = server::start(&settings(&[("RESOUND_FORWARDED_HEADER", "forwarded")]));
    let page = include_str!("../../docs/operate.md");
    let begin = page.find("http-request set-header Forwarded").unwrap();
    let line = page[begin..].split('`').next().unwrap();
    start(server.address(), "http", &format!("    {line}"), "").check(&server);
}

/// It says in its checks that they are its own.
#[test]
fn clients_and_publishes_come_through_haproxy_with_a_proxy_header() {
    for with in [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 proxy-v2-options unique-id,crc32c",
    ] {
        let server = server::start(&settings(&[("RESOUND_PROXY_PROTOCOL", "on")]));
        let proxy = start(
            server.address(),
            "tcp",
            "    unique-id-format %{+X}o%ci-%cp-%rt",
            with,
        );
        eventually("it checks", || {
            server::has_logged(&server, &["request", "path=/up"])
        });
        proxy.check(&server);
    }
}

//! Caddy in front.

use crate::manual;
use crate::proxy::{Proxy, SETTINGS};
use crate::server;
use crate::support::At;

#[test]
fn clients_and_publishes_come_through_caddy() {
    let server = server::start(&SETTINGS);
    let lines = manual::settings("caddy", "reverse_proxy", server.address());
    let arguments = ["run", "--adapter", "caddyfile", "--config", "{config}"];
    let proxy = Proxy::start("caddy", &arguments, |address, _| {
        let lines = manual::replaced(
            &lines,
            "ws.example.com",
            &format!("http://:{}", address.port()),
        );
        format!(
            "{{\n    admin off\n    default_bind {}\n    grace_period 1s\n}}\n{lines}",
            address.ip()
        )
    });
    proxy.check(&server);
}

//! A server that is alone, as a process of its own.

use crate::net;
use crate::node::Node;
use crate::settings::Settings;
use crate::support::At;

/// One on a free port of 127.0.0.1 that is ready, with these settings, named as in the
/// environment; without metrics unless they say so.
pub(crate) fn start(settings: &[(&str, &str)]) -> Node {
    let alone = Settings::of(&[("REVERB_SCALING_ENABLED", "false")]);
    Node::start(&alone.with(settings))
}

/// Whether one line of its log has all of this.
pub(crate) fn has_logged(server: &Node, parts: &[&str]) -> bool {
    let log = server.log();
    log.lines()
        .any(|line| parts.iter().all(|part| line.contains(part)))
}

/// Publishes on a connection from 127.0.0.`number`.
pub(crate) fn publish_from(number: u8, server: &Node, channel: &str, data: &str) {
    net::http(number, server.address()).publish(&[channel], "ev", data);
}

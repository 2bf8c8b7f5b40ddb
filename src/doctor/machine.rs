//! The machine, if the server is on it: limits, the program on a port, Redis.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use super::places::{Dialled, Places};
use super::port::listener_of;
use super::reach;
use super::report::Report;
use crate::config::Config;
use crate::tools;

/// Open files below which a busy chat runs out.
const FEW_FILES: u64 = 10_000;

/// Connections that may wait to be accepted; fewer are lost when all clients come back at once.
const FEW_WAITING: u64 = 1024;

/// How long this machine's own server may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Looks at what is only to be seen from here.
pub(super) async fn check(report: &mut Report<'_>, config: &Config, places: &Places) {
    if !places.is_own {
        report.note(
            "machine",
            "not looked at: the URL may be of another machine",
        );
        return;
    }
    let own = Dialled {
        endpoint: tools::local(&config.server),
        said: "the settings of the server".to_owned(),
    };
    let port = own.endpoint.port;
    let Ok(reply) = reach::get(&own, "/ready", PATIENCE).await else {
        report.note(
            "machine",
            format!("nothing answers on port {port} of this machine"),
        );
        return;
    };
    let state: Value = serde_json::from_str(&reply.body).unwrap_or_default();
    let Some(version) = state["version"]
        .as_str()
        .filter(|_| state["lifecycle"].is_string())
    else {
        tell_other_program(report, port);
        return;
    };
    report.ok(
        "machine",
        format!("Resound {version} answers on port {port}"),
    );
    check_limits(report, port);
    if state["lifecycle"] != "running" {
        report.warn(
            "machine",
            format!("it is {}", state["lifecycle"]),
            "wait for its successor, or start it again",
        );
    }
    match state["redis"].as_str() {
        Some("connected") => report.ok("redis", format!("connected, {} nodes", state["nodes"])),
        Some(_) => report.warn(
            "redis",
            "the server does not reach its Redis: events do not get to other nodes",
            format!("start Redis, or correct {}", places_of_redis(config)),
        ),
        None => {}
    }
}

/// Something answers that is not Resound.
fn tell_other_program(report: &mut Report<'_>, port: u16) {
    match listener_of(port) {
        Some(program) if program.name.contains("reverb:start") => report.note(
            "machine",
            format!(
                "port {port} is Laravel Reverb's ({program}); stop it where it is started before Resound is"
            ),
        ),
        Some(program) => report.note("machine", format!("port {port} is that of {program}")),
        None => report.note("machine", format!("port {port} is not Resound's")),
    }
}

/// Where the settings say what Redis is.
fn places_of_redis(config: &Config) -> String {
    let names = ["scaling.url", "scaling.host", "scaling.port"];
    let said = config
        .effective
        .iter()
        .filter(|it| names.contains(&it.name.as_str()));
    let places: Vec<String> = said
        .filter(|it| !it.is_default)
        .map(|it| format!("{} ({})", it.name, it.source))
        .collect();
    if places.is_empty() {
        "REDIS_HOST and REDIS_PORT, which are left at 127.0.0.1:6379".to_owned()
    } else {
        places.join(", ")
    }
}

fn check_limits(report: &mut Report<'_>, port: u16) {
    let files = listener_of(port).and_then(|program| program.max_files());
    if let Some(files) = files.filter(|files| *files < FEW_FILES) {
        report.warn(
            "machine",
            format!("the server may have {files} open files, and each connection takes one"),
            "LimitNOFILE=65536 in the systemd unit, minfds=65536 in supervisord.conf, or nofile in /etc/security/limits.conf",
        );
    }
    let waiting = fs::read_to_string("/proc/sys/net/core/somaxconn");
    let waiting = waiting
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok());
    if let Some(waiting) = waiting.filter(|waiting| *waiting < FEW_WAITING) {
        report.warn(
            "machine",
            format!("net.core.somaxconn is {waiting}: when all clients connect again at once, some are turned away"),
            "sysctl -w net.core.somaxconn=4096, and the same line in /etc/sysctl.d",
        );
    }
}

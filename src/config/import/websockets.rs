//! laravel-websockets' configuration, `config/websockets.php`.

use super::node::Node;
use super::parts::{note_others, read_origins, read_redis, read_tls, say_true};
use super::{Imported, Said, say_client_events, take_app, take_kilobytes};
use crate::config::ConfigError;
use crate::config::setting::Section;

/// KiB that it allows of a request unless somebody says otherwise.
const USUAL_REQUEST_KB: &str = "250";

/// Of an application: the name there, and here.
const APP: [(&str, &str); 4] = [
    ("id", "id"),
    ("key", "key"),
    ("secret", "secret"),
    ("capacity", "max_connections"),
];

/// What is understood of an application in another way, or without a counterpart the same.
const OTHERS: [&str; 6] = [
    "allowed_origins",
    "enable_client_messages",
    "path",
    "name",
    "host",
    // Counted for all of them, as metrics.
    "enable_statistics",
];

pub(super) fn read(
    imported: &mut Imported,
    websockets: &Node<'_>,
    document: &Node<'_>,
) -> Result<(), ConfigError> {
    imported.take(Section::Server, "port", &websockets.at("dashboard.port"))?;
    read_tls(imported, &websockets.at("ssl"))?;
    let size = websockets.at("max_request_size_in_kb");
    if size.text()?.as_deref() == Some(USUAL_REQUEST_KB) {
        imported.notes.push(format!(
            "{} is 250, the default of laravel-websockets: left at Resound's 1 MiB",
            size.path
        ));
    } else {
        let key = "max_request_size";
        take_kilobytes(&mut imported.shared, Section::Server, key, &size)?;
    }
    let mode = websockets.at("replication.mode");
    if mode.text()?.as_deref() == Some("redis") {
        say_true(imported, "enabled", &mode);
        let name = websockets.at("replication.modes.redis.connection").text()?;
        let name = name.as_deref().unwrap_or("default");
        read_redis(imported, &document.at(&format!("redis.{name}")))?;
    }
    let apps = websockets.at("apps");
    for node in apps.items()? {
        let app = read_app(imported, &node)?;
        imported.apps.push(app);
    }
    if imported.apps.is_empty() {
        return Err(apps.expected("an application"));
    }
    imported.notes.push(
        "the dashboard and the statistics of laravel-websockets have no counterpart; what they show is in the metrics"
            .to_owned(),
    );
    Ok(())
}

fn read_app(imported: &mut Imported, node: &Node<'_>) -> Result<Said, ConfigError> {
    let mut app = Said::new();
    for (name, key) in APP {
        take_app(&mut app, key, &node.at(name))?;
    }
    // Without any, every page may connect.
    if !node.at("allowed_origins").is_nothing() {
        read_origins(&mut app, node)?;
    }
    say_client_events(&mut app, &node.at("enable_client_messages"));
    let path = node.at("path");
    if !path.is_nothing() {
        imported.notes.push(format!(
            "{} is not carried over: here all applications share server.path (REVERB_SERVER_PATH)",
            path.path
        ));
    }
    let known = APP.iter().map(|(name, _)| *name).chain(OTHERS);
    note_others(imported, node, &known.collect::<Vec<_>>());
    Ok(app)
}

//! Reverb's configuration, `config/reverb.php`.

use super::node::Node;
use super::parts::{note_others, read_origins, read_redis, read_tls, say_true};
use super::{Imported, Said, say_app, take_app};
use crate::config::ConfigError;
use crate::config::setting::Section;

/// Bytes that Reverb allows of a request unless somebody says otherwise.
const USUAL_REQUEST_SIZE: &str = "10000";

/// Of an application of Reverb.
const APP: [(&str, &str); 7] = [
    ("app_id", "id"),
    ("key", "key"),
    ("secret", "secret"),
    ("ping_interval", "ping_interval"),
    ("activity_timeout", "activity_timeout"),
    ("max_connections", "max_connections"),
    ("max_message_size", "max_message_size"),
];

pub(super) fn read(
    imported: &mut Imported,
    reverb: &Node<'_>,
    document: &Node<'_>,
) -> Result<(), ConfigError> {
    let name = reverb.at("default").text()?;
    let server = reverb.at(&format!("servers.{}", name.as_deref().unwrap_or("reverb")));
    for key in ["host", "port", "path", "hostname"] {
        imported.take(Section::Server, key, &server.at(key))?;
    }
    read_tls(imported, &server.at("options.tls"))?;
    let size = server.at("max_request_size");
    if size.text()?.is_some_and(|size| size == USUAL_REQUEST_SIZE) {
        imported.notes.push(format!(
            "{} is 10000, Reverb's default: left at Resound's 1048576, so that larger events arrive",
            size.path
        ));
    } else {
        imported.take(Section::Server, "max_request_size", &size)?;
    }
    if server.at("scaling.enabled").is_truthy() {
        say_true(imported, "enabled", &server.at("scaling.enabled"));
        imported.take(Section::Scaling, "channel", &server.at("scaling.channel"))?;
        let own = server.at("scaling.server");
        let connection = if own.is_nothing() {
            document.at("redis.default")
        } else {
            own
        };
        read_redis(imported, &connection)?;
    }
    let known = [
        "host",
        "port",
        "path",
        "hostname",
        "options",
        "max_request_size",
        "scaling",
        // About Laravel's own tools.
        "pulse_ingest_interval",
        "telescope_ingest_interval",
    ];
    note_others(imported, &server, &known);
    note_others(imported, &server.at("options"), &["tls"]);
    read_apps(imported, &reverb.at("apps"))
}

fn read_apps(imported: &mut Imported, apps: &Node<'_>) -> Result<(), ConfigError> {
    let provider = apps.at("provider").text()?;
    if let Some(provider) = provider.filter(|provider| provider != "config") {
        imported.notes.push(format!(
            "{}.provider is {provider:?}: its applications are copied as they are now, and later ones have to be \
             added by hand",
            apps.path
        ));
    }
    for node in apps.at("apps").items()? {
        let mut app = Said::new();
        for (name, key) in APP {
            take_app(&mut app, key, &node.at(name))?;
        }
        read_origins(&mut app, &node)?;
        read_client_events(imported, &mut app, &node)?;
        read_rate(imported, &mut app, &node.at("rate_limiting"))?;
        let known: Vec<&str> = APP
            .iter()
            .map(|(name, _)| *name)
            // Where clients and Laravel find the server.
            .chain([
                "options",
                "allowed_origins",
                "accept_client_events_from",
                "rate_limiting",
                "name",
            ])
            .collect();
        note_others(imported, &node, &known);
        imported.apps.push(app);
    }
    if imported.apps.is_empty() {
        return Err(apps.at("apps").expected("an application"));
    }
    Ok(())
}

/// Reverb lets everybody send them if nothing is said, and nobody if it is another word.
fn read_client_events(
    imported: &mut Imported,
    app: &mut Said,
    node: &Node<'_>,
) -> Result<(), ConfigError> {
    let node = node.at("accept_client_events_from");
    let text = node.text()?;
    let from = match text.as_deref() {
        None if node.value.is_null() => {
            imported.notes.push(format!(
                "{} is not set, which Reverb takes for \"all\": anybody who knows the key may send client events to \
                 any channel. \"members\" is safer",
                node.path
            ));
            "all"
        }
        Some(from @ ("all" | "members")) => from,
        _ => "none",
    };
    say_app(app, "accept_client_events_from", from.to_owned(), &node);
    Ok(())
}

fn read_rate(imported: &mut Imported, app: &mut Said, node: &Node<'_>) -> Result<(), ConfigError> {
    let enabled = node.at("enabled");
    // Reverb looks for true itself.
    if enabled.value != &serde_json::Value::Bool(true) {
        if enabled.is_truthy() {
            imported.notes.push(format!(
                "{} is {}, which Reverb does not take for true: messages are not limited",
                enabled.path, enabled.value
            ));
        }
        return Ok(());
    }
    say_app(app, "rate_limiting.enabled", "true".to_owned(), &enabled);
    take_app(app, "rate_limiting.max_attempts", &node.at("max_attempts"))?;
    let decay = node.at("decay_seconds");
    if decay.is_nothing() {
        say_app(app, "rate_limiting.decay_seconds", "1".to_owned(), &decay);
    }
    take_app(app, "rate_limiting.decay_seconds", &decay)?;
    let terminate = node.at("terminate_on_limit");
    let is_closed = terminate.is_truthy().to_string();
    say_app(
        app,
        "rate_limiting.terminate_on_limit",
        is_closed,
        &terminate,
    );
    Ok(())
}

//! What Reverb's configuration and that of laravel-websockets say alike.

use super::node::Node;
use super::{Imported, Said, say, say_app};
use crate::config::ConfigError;
use crate::config::setting::Section;

/// Of a Redis connection: the name in Laravel, and here.
const REDIS: [(&str, &str); 8] = [
    ("url", "url"),
    ("scheme", "scheme"),
    ("host", "host"),
    ("port", "port"),
    ("username", "username"),
    ("password", "password"),
    ("database", "database"),
    ("timeout", "timeout"),
];

pub(super) fn say_true(imported: &mut Imported, key: &str, node: &Node<'_>) {
    say(
        &mut imported.shared,
        Section::Scaling,
        key,
        "true".to_owned(),
        node,
    );
}

/// Options of PHP's SSL contexts.
pub(super) fn read_tls(imported: &mut Imported, tls: &Node<'_>) -> Result<(), ConfigError> {
    let (cert, key) = (tls.at("local_cert"), tls.at("local_pk"));
    if cert.is_nothing() && key.is_nothing() {
        return Ok(());
    }
    // One file may have both.
    imported.take(
        Section::Server,
        "tls_cert",
        if cert.is_nothing() { &key } else { &cert },
    )?;
    imported.take(
        Section::Server,
        "tls_key",
        if key.is_nothing() { &cert } else { &key },
    )?;
    let passphrase = tls.at("passphrase");
    if !passphrase.is_nothing() {
        imported.notes.push(format!(
            "{} has no counterpart: write the key without one, with openssl pkey -in OLD -out NEW",
            passphrase.path
        ));
    }
    if tls.at("verify_peer").is_truthy() && !tls.at("cafile").is_nothing() {
        imported.take(Section::Server, "tls_client_ca", &tls.at("cafile"))?;
    }
    let known = [
        "local_cert",
        "local_pk",
        "passphrase",
        "verify_peer",
        "cafile",
    ];
    note_others(imported, tls, &known);
    Ok(())
}

pub(super) fn read_redis(
    imported: &mut Imported,
    connection: &Node<'_>,
) -> Result<(), ConfigError> {
    for (name, key) in REDIS {
        imported.take(Section::Scaling, key, &connection.at(name))?;
    }
    // Reverb does not use the prefix of Laravel's connections.
    let known: Vec<&str> = REDIS
        .iter()
        .map(|(name, _)| *name)
        .chain(["options"])
        .collect();
    note_others(imported, connection, &known);
    Ok(())
}

pub(super) fn read_origins(app: &mut Said, node: &Node<'_>) -> Result<(), ConfigError> {
    let node = node.at("allowed_origins");
    if node.value.is_null() {
        return Ok(());
    }
    let origins = node.texts()?;
    if origins.is_empty() {
        return Err(node.expected("a host, or *: with none, nobody may connect"));
    }
    if let Some(origin) = origins.iter().find(|origin| origin.contains(',')) {
        return Err(node.expected(&format!("hosts, and {origin:?} is none")));
    }
    say_app(app, "allowed_origins", origins.join(","), &node);
    Ok(())
}

/// Says what is set and not carried over.
pub(super) fn note_others(imported: &mut Imported, node: &Node<'_>, known: &[&str]) {
    for (key, value) in node.fields() {
        if !known.contains(&key) && !value.is_nothing() {
            imported
                .notes
                .push(format!("{} has no counterpart", value.path));
        }
    }
}

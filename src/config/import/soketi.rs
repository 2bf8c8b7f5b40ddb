//! soketi's configuration: its JSON file, or its `SOKETI_` variables.

use serde_json::{Map, Value, json};

use super::node::Node;
use super::{Imported, Said, say, say_app, say_client_events, take_app, take_kilobytes};
use crate::config::ConfigError;
use crate::config::setting::Section;

/// soketi's variables, without their prefix, and their places in its file (its `src/cli`).
const VARIABLES: [(&str, &str); 38] = [
    ("ADAPTER_DRIVER", "adapter.driver"),
    ("ADAPTER_REDIS_PREFIX", "adapter.redis.prefix"),
    ("APP_MANAGER_DRIVER", "appManager.driver"),
    (
        "CHANNEL_LIMITS_MAX_NAME_LENGTH",
        "channelLimits.maxNameLength",
    ),
    ("CHANNEL_CACHE_TTL", "channelLimits.cacheTtl"),
    ("DB_REDIS_HOST", "database.redis.host"),
    ("DB_REDIS_PORT", "database.redis.port"),
    ("DB_REDIS_DB", "database.redis.db"),
    ("DB_REDIS_USERNAME", "database.redis.username"),
    ("DB_REDIS_PASSWORD", "database.redis.password"),
    ("DB_REDIS_KEY_PREFIX", "database.redis.keyPrefix"),
    ("DEBUG", "debug"),
    ("DEFAULT_APP_ID", "app.id"),
    ("DEFAULT_APP_KEY", "app.key"),
    ("DEFAULT_APP_SECRET", "app.secret"),
    ("DEFAULT_APP_MAX_CONNS", "app.maxConnections"),
    (
        "DEFAULT_APP_ENABLE_CLIENT_MESSAGES",
        "app.enableClientMessages",
    ),
    ("DEFAULT_APP_ENABLED", "app.enabled"),
    (
        "DEFAULT_APP_MAX_BACKEND_EVENTS_PER_SEC",
        "app.maxBackendEventsPerSecond",
    ),
    (
        "DEFAULT_APP_MAX_CLIENT_EVENTS_PER_SEC",
        "app.maxClientEventsPerSecond",
    ),
    (
        "DEFAULT_APP_MAX_READ_REQ_PER_SEC",
        "app.maxReadRequestsPerSecond",
    ),
    (
        "DEFAULT_APP_USER_AUTHENTICATION",
        "app.enableUserAuthentication",
    ),
    ("DEFAULT_APP_WEBHOOKS", "app.webhooks"),
    ("EVENT_MAX_BATCH_SIZE", "eventLimits.maxBatchSize"),
    (
        "EVENT_MAX_CHANNELS_AT_ONCE",
        "eventLimits.maxChannelsAtOnce",
    ),
    ("EVENT_MAX_NAME_LENGTH", "eventLimits.maxNameLength"),
    ("EVENT_MAX_SIZE_IN_KB", "eventLimits.maxPayloadInKb"),
    ("HOST", "host"),
    ("METRICS_ENABLED", "metrics.enabled"),
    ("METRICS_HOST", "metrics.host"),
    ("METRICS_SERVER_PORT", "metrics.port"),
    ("PORT", "port"),
    ("PATH_PREFIX", "pathPrefix"),
    ("PRESENCE_MAX_MEMBER_SIZE", "presence.maxMemberSizeInKb"),
    ("PRESENCE_MAX_MEMBERS", "presence.maxMembersPerChannel"),
    ("SSL_CERT", "ssl.certPath"),
    ("SSL_KEY", "ssl.keyPath"),
    ("USER_AUTHENTICATION_TIMEOUT", "userAuthenticationTimeout"),
];

/// Where soketi listens unless somebody says otherwise.
const PORT: &str = "6001";

/// Seconds that soketi's cache channels keep an event.
const CACHE_TTL: &str = "3600";

/// Milliseconds that soketi waits for a sign-in.
const AUTHENTICATION_MS: u64 = 30_000;

/// What soketi's variables say, in the form of its file.
pub(super) fn document_of_variables(pairs: impl Iterator<Item = (String, String)>) -> Value {
    let mut document = json!({});
    let mut app = Map::new();
    for (name, text) in pairs {
        let Some(name) = name.strip_prefix("SOKETI_") else {
            continue;
        };
        // As soketi itself does.
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        match VARIABLES.iter().find(|(variable, _)| *variable == name) {
            Some((_, path)) => match path.strip_prefix("app.") {
                Some(key) => {
                    app.insert(key.to_owned(), value);
                }
                None => set(&mut document, path, value),
            },
            None => {
                document[format!("SOKETI_{name}")] = value;
            }
        }
    }
    if !app.is_empty() {
        set(&mut document, "appManager.array.apps", json!([app]));
    }
    document
}

fn set(document: &mut Value, path: &str, value: Value) {
    let mut place = document;
    for key in path.split('.') {
        place = &mut place[key];
    }
    *place = value;
}

pub(super) fn read(document: &Node<'_>) -> Result<Imported, ConfigError> {
    let mut imported = Imported::default();
    imported.take(Section::Server, "host", &document.at("host"))?;
    let port = document.at("port");
    if port.is_nothing() {
        say(
            &mut imported.shared,
            Section::Server,
            "port",
            PORT.to_owned(),
            &port,
        );
    }
    imported.take(Section::Server, "port", &port)?;
    imported.take(Section::Server, "path", &document.at("pathPrefix"))?;
    imported.take(Section::Server, "tls_cert", &document.at("ssl.certPath"))?;
    imported.take(Section::Server, "tls_key", &document.at("ssl.keyPath"))?;
    if document.at("debug").is_truthy() {
        imported.take(Section::Server, "debug", &document.at("debug"))?;
    }
    if document.at("metrics.enabled").is_truthy() {
        imported.take(Section::Metrics, "host", &document.at("metrics.host"))?;
        imported.take(Section::Metrics, "port", &document.at("metrics.port"))?;
    }
    read_adapter(&mut imported, document)?;
    read_apps(&mut imported, document)?;
    let known = [
        "host",
        "port",
        "pathPrefix",
        "ssl",
        "debug",
        "metrics",
        "adapter",
        "database",
        "appManager",
        "channelLimits",
        "eventLimits",
        "presence",
        "userAuthenticationTimeout",
        // Of how soketi is built, or the same without a setting.
        "cache",
        "cluster",
        "databasePooling",
        "httpApi",
        "instance",
        "mode",
        "queue",
        "rateLimiter",
    ];
    for (key, value) in document.fields() {
        if !known.contains(&key) && !value.is_nothing() {
            imported
                .notes
                .push(format!("{} has no counterpart", value.path));
        }
    }
    if !document.at("ssl.passphrase").is_nothing() {
        imported.notes.push(
            "ssl.passphrase has no counterpart: write the key without one, with openssl pkey -in OLD -out NEW"
                .to_owned(),
        );
    }
    Ok(imported)
}

fn read_adapter(imported: &mut Imported, document: &Node<'_>) -> Result<(), ConfigError> {
    let driver = document.at("adapter.driver");
    match driver.text()?.as_deref() {
        None | Some("local") => return Ok(()),
        Some("redis") => {}
        Some(other) => {
            imported.notes.push(format!(
                "{} is {other:?}: here nodes find each other through Redis (REVERB_SCALING_ENABLED)",
                driver.path
            ));
            return Ok(());
        }
    }
    say(
        &mut imported.shared,
        Section::Scaling,
        "enabled",
        "true".to_owned(),
        &driver,
    );
    let redis = document.at("database.redis");
    for (name, key) in [
        ("host", "host"),
        ("port", "port"),
        ("username", "username"),
        ("password", "password"),
        ("db", "database"),
        ("keyPrefix", "prefix"),
    ] {
        imported.take(Section::Scaling, key, &redis.at(name))?;
    }
    for key in ["sentinels", "clusterNodes"] {
        let node = redis.at(key);
        if !node.is_nothing() {
            imported.notes.push(format!(
                "{} is not carried over: RESOUND_REDIS_SENTINELS and RESOUND_REDIS_CLUSTER",
                node.path
            ));
        }
    }
    Ok(())
}

fn read_apps(imported: &mut Imported, document: &Node<'_>) -> Result<(), ConfigError> {
    let driver = document.at("appManager.driver");
    if let Some(other) = driver.text()?.filter(|driver| driver != "array") {
        imported.notes.push(format!(
            "{} is {other:?}: applications of a database are not read; those of the file are",
            driver.path
        ));
    }
    let apps = document.at("appManager.array.apps");
    for node in apps.items()? {
        if node.at("enabled").value == &Value::Bool(false) {
            imported
                .notes
                .push(format!("{} is not enabled, and left out", node.path));
            continue;
        }
        let app = read_app(imported, document, &node)?;
        imported.apps.push(app);
    }
    if imported.apps.is_empty() {
        return Err(apps.expected("an application that is enabled"));
    }
    Ok(())
}

/// Limits of an application, where all applications have them, and here. -1 is no limit.
const COUNTS: [(&str, &str, &str); 7] = [
    ("maxConnections", "", "max_connections"),
    (
        "maxClientEventsPerSecond",
        "",
        "client_events.max_per_second",
    ),
    (
        "maxPresenceMembersPerChannel",
        "presence.maxMembersPerChannel",
        "presence.max_members",
    ),
    (
        "maxChannelNameLength",
        "channelLimits.maxNameLength",
        "max_channel_name_length",
    ),
    (
        "maxEventChannelsAtOnce",
        "eventLimits.maxChannelsAtOnce",
        "max_channels_per_event",
    ),
    (
        "maxEventNameLength",
        "eventLimits.maxNameLength",
        "max_event_name_length",
    ),
    (
        "maxEventBatchSize",
        "eventLimits.maxBatchSize",
        "max_events_per_batch",
    ),
];

/// The same, in KiB.
const SIZES: [(&str, &str, &str); 2] = [
    (
        "maxPresenceMemberSizeInKb",
        "presence.maxMemberSizeInKb",
        "presence.max_member_size",
    ),
    (
        "maxEventPayloadInKb",
        "eventLimits.maxPayloadInKb",
        "max_event_size",
    ),
];

/// What an application cannot be told here, and why.
const MISSING: [(&str, &str); 3] = [
    (
        "webhooks",
        "is not taken over: write [[apps.webhooks]] (docs/webhooks.md)",
    ),
    (
        "maxBackendEventsPerSecond",
        "has no counterpart: whoever has the secret is trusted",
    ),
    (
        "maxReadRequestsPerSecond",
        "has no counterpart: whoever has the secret is trusted",
    ),
];

fn read_app(
    imported: &mut Imported,
    document: &Node<'_>,
    node: &Node<'_>,
) -> Result<Said, ConfigError> {
    let mut app = Said::new();
    for key in ["id", "key", "secret"] {
        take_app(&mut app, key, &node.at(key))?;
    }
    for (own, common, key) in COUNTS {
        let limit = own_or_common(document, node, own, common);
        if !is_unlimited(&limit) {
            take_app(&mut app, key, &limit)?;
        }
    }
    for (own, common, key) in SIZES {
        let limit = own_or_common(document, node, own, common);
        take_kilobytes(&mut app, Section::App, key, &limit)?;
    }
    let ttl = document.at("channelLimits.cacheTtl");
    let seconds = ttl.text()?.unwrap_or_else(|| CACHE_TTL.to_owned());
    say_app(&mut app, "cache.ttl", seconds, &ttl);
    say_client_events(&mut app, &node.at("enableClientMessages"));
    if node.at("enableUserAuthentication").is_truthy() {
        let wait = document.at("userAuthenticationTimeout");
        let ms = wait.value.as_u64().unwrap_or(AUTHENTICATION_MS);
        let seconds = ms.div_ceil(1000).to_string();
        say_app(&mut app, "authorization_timeout", seconds, &wait);
    }
    for (key, what) in MISSING {
        let said = node.at(key);
        if !said.is_nothing() && !is_unlimited(&said) {
            imported.notes.push(format!("{} {what}", said.path));
        }
    }
    Ok(app)
}

fn is_unlimited(limit: &Node<'_>) -> bool {
    let text = limit.text().ok().flatten();
    text.is_some_and(|text| text.starts_with('-'))
}

/// What is said of the application, or of all.
fn own_or_common<'a>(document: &Node<'a>, app: &Node<'a>, own: &str, common: &str) -> Node<'a> {
    let limit = app.at(own);
    if limit.is_nothing() && !common.is_empty() {
        document.at(common)
    } else {
        limit
    }
}

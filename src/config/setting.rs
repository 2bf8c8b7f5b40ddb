//! Every setting there is: its names, its default, what it means.
//!
//! This table is what the sources are read by, what `resound check` prints and
//! what `config/resound.toml` is proved against.

/// Which part of the configuration a setting belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    /// `[server]`.
    Server,
    /// `[metrics]`.
    Metrics,
    /// `[scaling]`.
    Scaling,
    /// `[webhooks]`.
    Webhooks,
    /// One `[[apps]]`.
    App,
    /// One `[[apps.webhooks]]`.
    Webhook,
}

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its section.
    pub section: Section,
    /// Its key in the TOML file, below the section.
    pub key: &'static str,
    /// Its variable, in `.env` and in the environment; empty if it has none.
    pub variable: &'static str,
    /// Its flag, dashes included; empty if it has none.
    pub flag: &'static str,
    /// Its built-in value; empty for "not set".
    pub default: &'static str,
    /// Whether it must not be printed.
    pub secret: bool,
    /// Whether a list is expected: a comma list in variables, an array in TOML.
    pub list: bool,
    /// Whether it is a table of texts in TOML, and a line for each in here.
    pub table: bool,
    /// Whether a change holds only for a server that is started after it.
    pub restart: bool,
}

const fn setting(
    section: Section,
    key: &'static str,
    variable: &'static str,
    flag: &'static str,
    default: &'static str,
) -> Setting {
    Setting {
        section,
        key,
        variable,
        flag,
        default,
        secret: false,
        list: false,
        table: false,
        // Sockets and links are set up once.
        restart: matches!(section, Section::Metrics | Section::Scaling),
    }
}

/// One that holds only for a server that is started after it.
const fn fixed(setting: Setting) -> Setting {
    Setting {
        restart: true,
        ..setting
    }
}

const fn secret(setting: Setting) -> Setting {
    Setting {
        secret: true,
        ..setting
    }
}

const fn list(setting: Setting) -> Setting {
    Setting {
        list: true,
        ..setting
    }
}

const fn server(
    key: &'static str,
    variable: &'static str,
    flag: &'static str,
    default: &'static str,
) -> Setting {
    setting(Section::Server, key, variable, flag, default)
}

const fn scaling(key: &'static str, variable: &'static str, default: &'static str) -> Setting {
    setting(Section::Scaling, key, variable, "", default)
}

const fn webhooks(key: &'static str, variable: &'static str, default: &'static str) -> Setting {
    setting(Section::Webhooks, key, variable, "", default)
}

const fn webhook(key: &'static str, variable: &'static str, default: &'static str) -> Setting {
    setting(Section::Webhook, key, variable, "", default)
}

const fn app(
    key: &'static str,
    variable: &'static str,
    flag: &'static str,
    default: &'static str,
) -> Setting {
    setting(Section::App, key, variable, flag, default)
}

/// All settings, in the order in which they are printed.
#[rustfmt::skip] // A table is read by its columns.
pub const SETTINGS: &[Setting] = &[
    list(fixed(server("host", "REVERB_SERVER_HOST", "--host", "0.0.0.0"))),
    fixed(server("port", "REVERB_SERVER_PORT", "--port", "8080")),
    fixed(server("reuse_port", "RESOUND_REUSE_PORT", "", "false")),
    fixed(server("socket", "RESOUND_SOCKET", "--socket", "")),
    fixed(server("socket_mode", "RESOUND_SOCKET_MODE", "", "0660")),
    fixed(server("socket_group", "RESOUND_SOCKET_GROUP", "", "")),
    server("path", "REVERB_SERVER_PATH", "--path", ""),
    fixed(server("hostname", "REVERB_HOST", "--hostname", "")),
    fixed(server("workers", "RESOUND_WORKERS", "--workers", "auto")),
    fixed(server("control_socket", "RESOUND_CONTROL_SOCKET", "--control-socket", "")),
    fixed(server("pid_file", "RESOUND_PID_FILE", "--pid-file", "")),
    server("debug", "RESOUND_DEBUG", "--debug", "false"),
    fixed(server("log_format", "RESOUND_LOG_FORMAT", "--log-format", "text")),
    server("log_levels", "RUST_LOG", "", ""),
    server("access_log", "RESOUND_ACCESS_LOG", "", "false"),
    list(server("tls_cert", "RESOUND_TLS_CERT", "--tls-cert", "")),
    list(server("tls_key", "RESOUND_TLS_KEY", "--tls-key", "")),
    fixed(server("tls_port", "RESOUND_TLS_PORT", "--tls-port", "")),
    server("tls_min_version", "RESOUND_TLS_MIN_VERSION", "", "1.2"),
    server("tls_client_ca", "RESOUND_TLS_CLIENT_CA", "", ""),
    list(server("tls_ticket_keys", "RESOUND_TLS_TICKET_KEYS", "", "")),
    list(server("trusted_proxies", "RESOUND_TRUSTED_PROXIES", "", "")),
    server("forwarded_header", "RESOUND_FORWARDED_HEADER", "", "x-forwarded-for"),
    server("proxy_protocol", "RESOUND_PROXY_PROTOCOL", "", "false"),
    server("max_request_size", "REVERB_MAX_REQUEST_SIZE", "", "1048576"),
    server("timestamp_tolerance", "RESOUND_TIMESTAMP_TOLERANCE", "", "600"),
    server("pong_timeout", "RESOUND_PONG_TIMEOUT", "", "30"),
    server("request_timeout", "RESOUND_REQUEST_TIMEOUT", "", "30"),
    server("request_head_timeout", "RESOUND_REQUEST_HEAD_TIMEOUT", "", "10"),
    server("keep_alive_timeout", "RESOUND_KEEP_ALIVE_TIMEOUT", "", "75"),
    server("idempotency_ttl", "RESOUND_IDEMPOTENCY_TTL", "", "600"),
    server("idempotency_max_bytes", "RESOUND_IDEMPOTENCY_MAX_BYTES", "", "67108864"),
    server("max_backlog", "RESOUND_MAX_BACKLOG", "", "4194304"),
    server("max_total_backlog", "RESOUND_MAX_TOTAL_BACKLOG", "", "268435456"),
    server("max_connection_rate", "RESOUND_MAX_CONNECTION_RATE", "", ""),
    server("max_connections_per_address", "RESOUND_MAX_CONNECTIONS_PER_ADDRESS", "", ""),
    server("shutdown_grace", "RESOUND_SHUTDOWN_GRACE", "", "5"),
    server("drain_seconds", "RESOUND_DRAIN_SECONDS", "", "auto"),
    server("drain_pause", "RESOUND_DRAIN_PAUSE", "", "2"),
    server("pulse_ingest_interval", "REVERB_PULSE_INGEST_INTERVAL", "", "15"),
    server("telescope_ingest_interval", "REVERB_TELESCOPE_INGEST_INTERVAL", "", "15"),
    setting(Section::Metrics, "host", "RESOUND_METRICS_HOST", "--metrics-host", "127.0.0.1"),
    setting(Section::Metrics, "port", "RESOUND_METRICS_PORT", "--metrics-port", "9601"),
    scaling("enabled", "REVERB_SCALING_ENABLED", "false"),
    scaling("channel", "REVERB_SCALING_CHANNEL", "reverb"),
    secret(scaling("url", "REDIS_URL", "")),
    scaling("url_file", "REDIS_URL_FILE", ""),
    scaling("scheme", "REDIS_SCHEME", ""),
    scaling("host", "REDIS_HOST", "127.0.0.1"),
    scaling("port", "REDIS_PORT", "6379"),
    scaling("username", "REDIS_USERNAME", ""),
    secret(scaling("password", "REDIS_PASSWORD", "")),
    scaling("password_file", "REDIS_PASSWORD_FILE", ""),
    scaling("database", "REDIS_DB", "0"),
    scaling("timeout", "REDIS_TIMEOUT", "60"),
    scaling("prefix", "REDIS_PREFIX", ""),
    list(scaling("cluster", "RESOUND_REDIS_CLUSTER", "")),
    list(scaling("sentinels", "RESOUND_REDIS_SENTINELS", "")),
    scaling("sentinel_master", "RESOUND_REDIS_SENTINEL_MASTER", "mymaster"),
    secret(scaling("sentinel_password", "RESOUND_REDIS_SENTINEL_PASSWORD", "")),
    scaling("sentinel_password_file", "RESOUND_REDIS_SENTINEL_PASSWORD_FILE", ""),
    scaling("tls_ca", "RESOUND_REDIS_TLS_CA", ""),
    scaling("tls_cert", "RESOUND_REDIS_TLS_CERT", ""),
    scaling("tls_key", "RESOUND_REDIS_TLS_KEY", ""),
    scaling("node_timeout", "RESOUND_NODE_TIMEOUT", "15"),
    Setting { flag: "--require-redis", ..scaling("require_redis", "RESOUND_REQUIRE_REDIS", "false") },
    scaling("track_occupancy", "RESOUND_TRACK_OCCUPANCY", "false"),
    scaling("buffer_bytes", "RESOUND_CLUSTER_BUFFER_BYTES", "16777216"),
    scaling("buffer_seconds", "RESOUND_CLUSTER_BUFFER_SECONDS", "60"),
    webhooks("batch_ms", "RESOUND_WEBHOOK_BATCH_MS", "250"),
    webhooks("batch_events", "RESOUND_WEBHOOK_BATCH_EVENTS", "20"),
    webhooks("smoothing_ms", "RESOUND_WEBHOOK_SMOOTHING_MS", "3000"),
    webhooks("timeout", "RESOUND_WEBHOOK_TIMEOUT", "4"),
    webhooks("retry_seconds", "RESOUND_WEBHOOK_RETRY_SECONDS", "300"),
    webhooks("max_requests", "RESOUND_WEBHOOK_MAX_REQUESTS", "16"),
    webhooks("max_bytes", "RESOUND_WEBHOOK_MAX_BYTES", "16777216"),
    webhooks("allow_local", "RESOUND_WEBHOOK_ALLOW_LOCAL", "false"),
    app("id", "REVERB_APP_ID", "--app-id", ""),
    app("key", "REVERB_APP_KEY", "--app-key", ""),
    secret(app("secret", "REVERB_APP_SECRET", "--app-secret", "")),
    app("secret_file", "REVERB_APP_SECRET_FILE", "", ""),
    app("previous_key", "RESOUND_APP_PREVIOUS_KEY", "", ""),
    secret(app("previous_secret", "RESOUND_APP_PREVIOUS_SECRET", "", "")),
    app("previous_secret_file", "RESOUND_APP_PREVIOUS_SECRET_FILE", "", ""),
    list(app("allowed_origins", "REVERB_ALLOWED_ORIGINS", "", "*")),
    app("allow_missing_origin", "RESOUND_ALLOW_MISSING_ORIGIN", "", "false"),
    app("ping_interval", "REVERB_APP_PING_INTERVAL", "", "60"),
    app("activity_timeout", "REVERB_APP_ACTIVITY_TIMEOUT", "", "30"),
    app("max_connections", "REVERB_APP_MAX_CONNECTIONS", "", ""),
    app("max_subscriptions", "RESOUND_MAX_SUBSCRIPTIONS", "", "10000"),
    app("max_message_size", "REVERB_APP_MAX_MESSAGE_SIZE", "", "10000"),
    app("max_event_size", "RESOUND_MAX_EVENT_SIZE", "", "102400"),
    app("max_event_name_length", "RESOUND_MAX_EVENT_NAME_LENGTH", "", "200"),
    app("max_channel_name_length", "RESOUND_MAX_CHANNEL_NAME_LENGTH", "", "164"),
    app("max_channels_per_event", "RESOUND_MAX_CHANNELS_PER_EVENT", "", "100"),
    app("max_events_per_batch", "RESOUND_MAX_EVENTS_PER_BATCH", "", ""),
    app("accept_client_events_from", "REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM", "", "members"),
    app("rate_limiting.enabled", "REVERB_APP_RATE_LIMITING_ENABLED", "", "false"),
    app("rate_limiting.max_attempts", "REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS", "", "60"),
    app("rate_limiting.decay_seconds", "REVERB_APP_RATE_LIMIT_DECAY_SECONDS", "", "60"),
    app("rate_limiting.terminate_on_limit", "REVERB_APP_RATE_LIMIT_TERMINATE", "", "false"),
    app("client_events.max_size", "RESOUND_CLIENT_EVENT_MAX_SIZE", "", ""),
    app("client_events.max_per_second", "RESOUND_CLIENT_EVENT_MAX_PER_SECOND", "", ""),
    app("presence.max_members", "RESOUND_PRESENCE_MAX_MEMBERS", "", ""),
    app("presence.max_member_size", "RESOUND_PRESENCE_MAX_MEMBER_SIZE", "", "10000"),
    app("cache.ttl", "RESOUND_CACHE_TTL", "", "1800"),
    app("cache.max_bytes", "RESOUND_CACHE_MAX_BYTES", "", "67108864"),
    app("subscription_count", "RESOUND_SUBSCRIPTION_COUNT", "", "false"),
    app("authorization_timeout", "RESOUND_AUTHORIZATION_TIMEOUT", "", "0"),
    app("duplicate_window", "RESOUND_DUPLICATE_WINDOW", "", "0"),
    app("terminate_code", "RESOUND_TERMINATE_CODE", "", "4009"),
    webhook("url", "RESOUND_WEBHOOK_URL", ""),
    list(webhook("events", "RESOUND_WEBHOOK_EVENTS", "channel_occupied,channel_vacated,member_added,member_removed")),
    list(webhook("channels", "RESOUND_WEBHOOK_CHANNELS", "")),
    secret(Setting { table: true, ..webhook("headers", "", "") }),
];

/// Variables of a Reverb project that are for Laravel's broadcaster and for the
/// browser, not for a server; known, so that they are not taken for mistakes.
pub const FOR_OTHERS: &[&str] = &["REVERB_PORT", "REVERB_SCHEME"];

/// More of Laravel's variables, and of its pages: what `resound doctor` compares with.
pub(super) const OF_LARAVEL: &[&str] = &[
    "APP_URL",
    "BROADCAST_CONNECTION",
    "BROADCAST_DRIVER",
    "QUEUE_CONNECTION",
    "REVERB_APP_ID",
    "REVERB_APP_KEY",
    "REVERB_APP_SECRET",
    "REVERB_HOST",
    "VITE_REVERB_APP_KEY",
    "VITE_REVERB_HOST",
    "VITE_REVERB_PORT",
    "VITE_REVERB_SCHEME",
];

/// The variables that Laravel uses for Pusher's own service.
pub(super) const OF_PUSHER: &[&str] = &["PUSHER_APP_ID", "PUSHER_APP_KEY", "PUSHER_APP_SECRET"];

impl Section {
    /// The name in TOML.
    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Metrics => "metrics",
            Self::Scaling => "scaling",
            Self::Webhooks => "webhooks",
            Self::App => "apps",
            Self::Webhook => "apps.webhooks",
        }
    }
}

impl Setting {
    /// The setting of this key, for keys that the program itself names.
    pub fn of(section: Section, key: &str) -> &'static Self {
        Self::find(section, key).expect("the program only asks for settings of its table")
    }

    /// The setting that a file calls `key` in `section`.
    pub fn find(section: Section, key: &str) -> Option<&'static Self> {
        SETTINGS
            .iter()
            .find(|setting| setting.section == section && setting.key == key)
    }

    /// What may be printed of a value.
    pub fn shown<'a>(&self, value: &'a str) -> &'a str {
        let is_address = matches!(self.section, Section::Scaling | Section::Webhook);
        // What should be an address may be a URL with a password.
        let has_password = is_address && value.contains('@');
        if (self.secret && !value.is_empty()) || has_password {
            return "(hidden)";
        }
        match (self.section, self.key) {
            // A token may be behind it.
            (Section::Webhook, "url") => value.split('?').next().unwrap_or_default(),
            _ => value,
        }
    }
}

/// What a text means where true or false is expected.
pub(super) fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "on" | "yes" => Some(true),
        "false" | "0" | "off" | "no" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_settings_share_a_name() {
        let (mut keys, mut variables, mut flags) = (HashSet::new(), HashSet::new(), HashSet::new());
        for setting in SETTINGS {
            assert!(
                keys.insert((setting.section, setting.key)),
                "{}",
                setting.key
            );
            assert!(
                setting.variable.is_empty() || variables.insert(setting.variable),
                "{}",
                setting.variable
            );
            assert!(
                setting.flag.is_empty() || flags.insert(setting.flag),
                "{}",
                setting.flag
            );
        }
    }
}

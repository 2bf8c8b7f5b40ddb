//! Turns texts into the typed configuration, collecting every mistake.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::report::Effective;
use super::setting::{self, Section, Setting};
use super::source::{Layers, Source, Value, Values};
use super::{Config, ConfigError, Drain, Metrics, Server};
use super::{advice, reverb_php};
use crate::apps::{App, CacheLimits, ClientEvents, Origins, PresenceLimits, Rate, Webhooks};
use crate::protocol::publish::EventLimits;
use crate::protocol::signature::Secret;
use crate::proxies::Proxies;
use crate::telemetry;

pub(super) fn config(mut layers: Layers) -> Result<Config, ConfigError> {
    let mut reader = Reader::new(&mut layers);
    let server = reader.server(&layers.shared);
    let metrics = reader.metrics(&layers.shared);
    let scaling = reader.scaling(&layers.shared);
    let apps: Vec<App> = layers
        .apps
        .iter()
        .enumerate()
        .map(|(index, values)| {
            let webhooks = reader.webhooks_of(index, &layers);
            App {
                webhooks,
                ..reader.app(index, values)
            }
        })
        .collect();
    let webhooks = reader.webhooks(&layers.shared, &apps);
    reader.refuse_a_webhook_for_several(&layers);
    if apps.is_empty() {
        reader.problems.push(advice::no_application(&layers));
    }
    reader.refuse_duplicates(&apps);
    reader.refuse_one_port_for_two(&server, metrics.as_ref());
    if !reader.problems.is_empty() {
        return Err(ConfigError {
            problems: reader.problems,
        });
    }
    reader
        .warnings
        .extend(reverb_php::warnings(&layers, &server));
    reader
        .warnings
        .extend(advice::known_secrets(&layers, &server));
    Ok(Config {
        notes: std::mem::take(&mut layers.notes)
            .into_iter()
            .chain(advice::broadcaster_mismatch(&layers, &server))
            .collect(),
        server,
        metrics,
        scaling,
        webhooks,
        apps,
        effective: reader.effective,
        warnings: reader.warnings,
        laravel: layers.for_others,
        files: layers.files,
        certificates: Vec::new(),
    })
}

/// Only `[server]`, whatever is said of the rest.
pub(super) fn server(layers: &Layers) -> Result<Server, ConfigError> {
    let mut reader = Reader::default();
    let server = reader.server(&layers.shared);
    if reader.problems.is_empty() {
        Ok(server)
    } else {
        Err(ConfigError {
            problems: reader.problems,
        })
    }
}

#[derive(Default)]
pub(super) struct Reader {
    pub(super) problems: Vec<String>,
    effective: Vec<Effective>,
    warnings: Vec<String>,
    /// Where settings were looked for.
    looked: String,
}

/// One section's values while they are read.
pub(super) struct Group<'a> {
    pub(super) section: Section,
    /// Of the application.
    pub(super) index: usize,
    /// Of the webhook among the application's.
    pub(super) webhook: usize,
    pub(super) values: &'a Values,
}

impl<'a> Group<'a> {
    /// A section that there is once.
    pub(super) fn of(section: Section, values: &'a Values) -> Self {
        Self {
            section,
            index: 0,
            webhook: 0,
            values,
        }
    }

    fn value(&self, setting: &Setting) -> Value {
        self.values
            .get(&setting.id())
            .cloned()
            .unwrap_or_else(|| Value {
                text: setting.default.to_owned(),
                source: Source::Default,
            })
    }
}

impl Reader {
    fn new(layers: &mut Layers) -> Self {
        Self {
            warnings: std::mem::take(&mut layers.warnings),
            looked: advice::looked(layers),
            ..Self::default()
        }
    }

    /// Reads one setting. A wrong one is recorded; what is returned then is never used.
    pub(super) fn take<T>(
        &mut self,
        group: &Group<'_>,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let setting = Setting::of(group.section, key);
        let value = group.value(setting);
        let shown = setting.shown(&value.text);
        self.effective.push(Effective::new(
            setting,
            (group.index, group.webhook),
            &value,
        ));
        match parse(&value.text) {
            Ok(parsed) => Some(parsed),
            Err(expected) => {
                self.problems.push(format!(
                    "{}.{key} = {shown:?} ({}): expected {expected}",
                    group.section.name(),
                    value.source
                ));
                None
            }
        }
    }

    pub(super) fn number(
        &mut self,
        group: &Group<'_>,
        key: &'static str,
        range: std::ops::RangeInclusive<u64>,
    ) -> u64 {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.take(group, key, |text| {
            text.parse()
                .ok()
                .filter(|n| range.contains(n))
                .ok_or_else(|| expected.clone())
        })
        .unwrap_or(*range.start())
    }

    fn count(&mut self, group: &Group<'_>, key: &'static str) -> u32 {
        let count = self.number(group, key, 1..=u64::from(u32::MAX));
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    pub(super) fn seconds(&mut self, group: &Group<'_>, key: &'static str, least: u64) -> Duration {
        Duration::from_secs(self.number(group, key, least..=u64::from(u32::MAX)))
    }

    pub(super) fn flag(&mut self, group: &Group<'_>, key: &'static str) -> bool {
        self.take(group, key, |text| {
            setting::truth(text).ok_or_else(|| "true or false".to_owned())
        })
        .unwrap_or(false)
    }

    /// A value whose type says what is accepted.
    pub(super) fn parsed<T>(&mut self, group: &Group<'_>, key: &'static str) -> T
    where
        T: std::str::FromStr<Err: ToString> + Default,
    {
        let parse = |text: &str| text.parse().map_err(|error: T::Err| error.to_string());
        self.take(group, key, parse).unwrap_or_default()
    }

    pub(super) fn text(&mut self, group: &Group<'_>, key: &'static str) -> Option<String> {
        self.take(group, key, |text| Ok(text.to_owned()))
            .filter(|text| !text.is_empty())
    }

    fn metrics(&mut self, values: &Values) -> Option<Metrics> {
        let group = Group::of(Section::Metrics, values);
        let is_said = |key| group.value(Setting::of(group.section, key)).source != Source::Default;
        let is_required = is_said("host") || is_said("port");
        let host = self.host(&group);
        let port = self.take(&group, "port", |text| match text {
            "off" => Ok(None),
            _ => text
                .parse()
                .map(Some)
                .map_err(|_| "a whole number from 0 to 65535, or off".to_owned()),
        });
        port.flatten().map(|port| Metrics {
            host,
            port,
            is_required,
        })
    }

    /// TLS has a port of its own, or the only one; and metrics that were asked for cannot be
    /// where clients connect to.
    fn refuse_one_port_for_two(&mut self, server: &Server, metrics: Option<&Metrics>) {
        let tls_port = server.tls.as_ref().and_then(|tls| tls.port);
        if server.port != 0 && tls_port == Some(server.port) {
            self.problems.push(format!(
                "server.tls_port = {} (RESOUND_TLS_PORT) is server.port, too: expected another one, or nothing for TLS \
                 on server.port",
                server.port
            ));
        }
        let Some(metrics) = metrics.filter(|metrics| metrics.is_required) else {
            return;
        };
        let meet = server.meets(&metrics.host);
        let ports = [("port", Some(server.port)), ("tls_port", tls_port)];
        for (key, _) in ports.iter().filter(|(_, port)| *port == Some(metrics.port)) {
            if metrics.port != 0 && meet {
                self.problems.push(format!(
                    "metrics.port = {} (RESOUND_METRICS_PORT) is server.{key}, too: expected another one, or off",
                    metrics.port
                ));
            }
        }
    }

    fn server(&mut self, values: &Values) -> Server {
        let group = Group::of(Section::Server, values);
        let bytes = 1024..=1 << 30;
        let server = Server {
            hosts: self.hosts(&group),
            port: u16::try_from(self.number(&group, "port", 0..=65_535)).unwrap_or_default(),
            reuse_port: self.flag(&group, "reuse_port"),
            socket: self.unix_socket(&group),
            path: self.take(&group, "path", path).unwrap_or_default(),
            hostname: self.text(&group, "hostname"),
            workers: self
                .take(&group, "workers", workers)
                .unwrap_or(NonZeroUsize::MIN),
            log: telemetry::Options {
                debug: self.flag(&group, "debug"),
                format: self.parsed(&group, "log_format"),
                levels: self.parsed(&group, "log_levels"),
            },
            access_log: self.flag(&group, "access_log"),
            tls: self.tls(&group),
            proxies: self.proxies(&group),
            max_request_size: self.size(&group, "max_request_size", &bytes),
            timestamp_tolerance: Some(self.seconds(&group, "timestamp_tolerance", 0))
                .filter(|t| !t.is_zero()),
            pong_timeout: self.seconds(&group, "pong_timeout", 1),
            request_timeout: self.seconds(&group, "request_timeout", 1),
            request_head_timeout: self.seconds(&group, "request_head_timeout", 1),
            keep_alive_timeout: self.seconds(&group, "keep_alive_timeout", 1),
            idempotency_ttl: self.seconds(&group, "idempotency_ttl", 1),
            idempotency_max_bytes: self.size(&group, "idempotency_max_bytes", &(0..=1 << 40)),
            max_backlog: self.size(&group, "max_backlog", &bytes),
            max_total_backlog: self.size(&group, "max_total_backlog", &bytes),
            max_connection_rate: self.optional(&group, "max_connection_rate"),
            max_connections_per_address: self.optional(&group, "max_connections_per_address"),
            shutdown_grace: self.seconds(&group, "shutdown_grace", 0),
            drain: self.drain(&group),
            control_socket: self.text(&group, "control_socket").map(PathBuf::from),
            pid_file: self.text(&group, "pid_file").map(PathBuf::from),
        };
        // Known so that a Reverb project's settings are understood; they are about Laravel's own tools.
        self.number(&group, "pulse_ingest_interval", 0..=u64::from(u32::MAX));
        self.number(&group, "telescope_ingest_interval", 0..=u64::from(u32::MAX));
        self.refuse_nowhere(&server);
        self.refuse_one_path_for_two(&server);
        server
    }

    /// `trusted_proxies` and how they say for whom they are there.
    fn proxies(&mut self, group: &Group<'_>) -> Proxies {
        let proxies = Proxies {
            trusted: self.parsed(group, "trusted_proxies"),
            forwarded_header: self.parsed(group, "forwarded_header"),
            proxy_protocol: self.flag(group, "proxy_protocol"),
        };
        if proxies.proxy_protocol && proxies.trusted.is_empty() {
            self.warnings.push(
                "server.proxy_protocol is on, and nobody may use it: name the proxies in \
                 server.trusted_proxies (RESOUND_TRUSTED_PROXIES)"
                    .to_owned(),
            );
        }
        proxies
    }

    /// `drain_seconds` and `drain_pause`.
    fn drain(&mut self, group: &Group<'_>) -> Drain {
        let expected = "auto or a whole number from 0 to 86400";
        let spread = self.take(group, "drain_seconds", |text| match text {
            "auto" => Ok(None),
            _ => text
                .parse()
                .ok()
                .filter(|seconds| *seconds <= 86_400)
                .map(|seconds| Some(Duration::from_secs(seconds)))
                .ok_or_else(|| expected.to_owned()),
        });
        Drain {
            spread: spread.flatten(),
            pause: Duration::from_secs(self.number(group, "drain_pause", 0..=3600)),
        }
    }

    pub(super) fn size(
        &mut self,
        group: &Group<'_>,
        key: &'static str,
        range: &std::ops::RangeInclusive<u64>,
    ) -> usize {
        usize::try_from(self.number(group, key, range.clone())).unwrap_or(usize::MAX)
    }

    fn app(&mut self, index: usize, values: &Values) -> App {
        let group = Group {
            index,
            ..Group::of(Section::App, values)
        };
        let id = self.credential(&group, "id");
        let key = self.credential(&group, "key");
        let secret = self.credential(&group, "secret");
        let previous_key = self.text(&group, "previous_key");
        let previous_secret = self.text(&group, "previous_secret");
        // They have become the secrets.
        for key in ["secret_file", "previous_secret_file"] {
            self.text(&group, key);
        }
        let bytes = 1..=1 << 30;
        App {
            id,
            key,
            secret: Secret::new(&secret),
            previous_key,
            previous_secret: previous_secret.as_deref().map(Secret::new),
            origins: Origins::new(
                self.take(&group, "allowed_origins", origins)
                    .unwrap_or_default(),
                self.flag(&group, "allow_missing_origin"),
            ),
            ping_interval: self.seconds(&group, "ping_interval", 1),
            activity_timeout: self.count(&group, "activity_timeout"),
            max_connections: self.optional(&group, "max_connections"),
            max_subscriptions: self.size(&group, "max_subscriptions", &(1..=1 << 30)),
            max_message_size: self.size(&group, "max_message_size", &bytes),
            events: EventLimits {
                data: self.size(&group, "max_event_size", &bytes),
                name: self.size(&group, "max_event_name_length", &bytes),
                channel: self.size(&group, "max_channel_name_length", &(1..=4096)),
                channels: self.size(&group, "max_channels_per_event", &(1..=10_000)),
                batch: self
                    .optional(&group, "max_events_per_batch")
                    .unwrap_or(usize::MAX),
            },
            client_events: self
                .take(&group, "accept_client_events_from", client_events)
                .unwrap_or(ClientEvents::None),
            message_rate: self.message_rate(&group),
            terminate_on_limit: self.flag(&group, "rate_limiting.terminate_on_limit"),
            max_client_event_size: self
                .optional(&group, "client_events.max_size")
                .unwrap_or(usize::MAX),
            client_event_rate: self
                .optional(&group, "client_events.max_per_second")
                .map(|count| Rate {
                    count,
                    per: Duration::from_secs(1),
                }),
            presence: PresenceLimits {
                max_members: self.optional(&group, "presence.max_members"),
                max_member_size: self.size(&group, "presence.max_member_size", &bytes),
            },
            cache: self.cache(&group),
            subscription_count: self.flag(&group, "subscription_count"),
            authorization_timeout: self.window(&group, "authorization_timeout"),
            // Read beside it.
            webhooks: Webhooks::default(),
            duplicate_window: self.window(&group, "duplicate_window"),
            terminate_to_reconnect: self
                .take(&group, "terminate_code", terminate_code)
                .unwrap_or(false),
        }
    }

    /// Seconds, where zero is nothing at all.
    fn window(&mut self, group: &Group<'_>, key: &'static str) -> Option<Duration> {
        Some(self.seconds(group, key, 0)).filter(|time| !time.is_zero())
    }

    fn cache(&mut self, group: &Group<'_>) -> CacheLimits {
        CacheLimits {
            ttl: self.seconds(group, "cache.ttl", 1),
            max_bytes: self.size(group, "cache.max_bytes", &(0..=1 << 40)),
        }
    }

    /// `rate_limiting.*`, which does nothing until it is enabled.
    fn message_rate(&mut self, group: &Group<'_>) -> Option<Rate> {
        let enabled = self.flag(group, "rate_limiting.enabled");
        let count = self.count(group, "rate_limiting.max_attempts");
        let per = self.seconds(group, "rate_limiting.decay_seconds", 1);
        enabled.then_some(Rate { count, per })
    }

    /// A count, or nothing for no limit.
    fn optional<T: std::str::FromStr>(
        &mut self,
        group: &Group<'_>,
        key: &'static str,
    ) -> Option<T> {
        self.take(group, key, |text| match text {
            "" => Ok(None),
            _ => text
                .parse()
                .map(Some)
                .map_err(|_| "a whole number, or nothing for no limit".to_owned()),
        })
        .flatten()
    }

    fn credential(&mut self, group: &Group<'_>, key: &'static str) -> String {
        if let Some(text) = self.text(group, key) {
            return text;
        }
        let setting = Setting::of(Section::App, key);
        let number = if group.index == 0 {
            String::new()
        } else {
            format!(" of application {}", group.index + 1)
        };
        self.problems.push(format!(
            "apps.{key}{number} is missing: set {} in .env or in the environment, give {}, or write {key} under [[apps]] ({})",
            setting.variable, setting.flag, self.looked
        ));
        String::new()
    }

    fn refuse_duplicates(&mut self, apps: &[App]) {
        let (mut ids, mut keys) = (HashSet::new(), HashSet::new());
        for app in apps
            .iter()
            .filter(|app| !app.id.is_empty() && !app.key.is_empty())
        {
            if !ids.insert(&app.id) {
                self.problems
                    .push(format!("two applications have the id {:?}", app.id));
            }
            if app.previous_key.as_ref() == Some(&app.key) {
                self.problems.push(format!(
                    "previous_key (RESOUND_APP_PREVIOUS_KEY) of application {:?} is its key",
                    app.id
                ));
                continue;
            }
            let own = [Some(&app.key), app.previous_key.as_ref()];
            for key in own.into_iter().flatten() {
                if !keys.insert(key) {
                    self.problems
                        .push(format!("two applications have the key {key:?}"));
                }
            }
        }
    }
}

/// `ws`, `/ws` and `/ws/` are all the prefix `/ws`.
fn path(text: &str) -> Result<String, String> {
    let inner = text.trim_matches('/');
    let valid = inner
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-._~/".contains(&b))
        && !inner.contains("//");
    match (valid, inner.is_empty()) {
        (false, _) => Err("a path such as /ws, of letters, digits and - . _ ~ /".to_owned()),
        (true, true) => Ok(String::new()),
        (true, false) => Ok(format!("/{inner}")),
    }
}

fn workers(text: &str) -> Result<NonZeroUsize, String> {
    if text == "auto" {
        return Ok(std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN));
    }
    text.parse::<NonZeroUsize>()
        .ok()
        .filter(|n| n.get() <= 1024)
        .ok_or_else(|| "auto or a whole number from 1 to 1024".to_owned())
}

fn origins(text: &str) -> Result<Vec<String>, String> {
    let origins: Vec<String> = text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(str::to_owned)
        .collect();
    if origins.is_empty() {
        Err("a list of hosts, or *".to_owned())
    } else {
        Ok(origins)
    }
}

/// The code that clients are closed with: 4009 keeps them away, on 4200 they come back at once.
fn terminate_code(text: &str) -> Result<bool, String> {
    match text {
        "4009" => Ok(false),
        "4200" => Ok(true),
        _ => Err("4009 or 4200".to_owned()),
    }
}

fn client_events(text: &str) -> Result<ClientEvents, String> {
    match text {
        "none" | "false" => Ok(ClientEvents::None),
        "private" => Ok(ClientEvents::Private),
        "members" => Ok(ClientEvents::Members),
        "all" => Ok(ClientEvents::All),
        _ => Err("none, private, members or all".to_owned()),
    }
}

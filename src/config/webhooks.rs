//! `[webhooks]`, and the `[[apps.webhooks]]` of each application.

use std::time::Duration;

use url::Url;

use super::read::{Group, Reader};
use super::setting::Section;
use super::source::{Layers, Values};
use crate::apps::{App, ChannelPattern, Webhook, WebhookKind, WebhookKinds, Webhooks};

/// How receivers of webhooks are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookLimits {
    /// How long an event waits for others that go with it.
    pub batch_time: Duration,
    /// Most events of a request.
    pub batch_events: usize,
    /// How long a channel that is vacated, and a user who has left, may take to come back, as if
    /// nothing had been.
    pub smoothing: Duration,
    /// How long a receiver may take for its answer.
    pub timeout: Duration,
    /// How long it is tried to tell of an event.
    pub max_age: Duration,
    /// Most requests to a receiver at a time.
    pub max_requests: usize,
    /// Bytes that may wait for a receiver.
    pub max_bytes: usize,
    /// Whether this machine and its link may be receivers.
    pub allow_local: bool,
}

/// Headers that are ours, or are no one's to set.
const OWN_HEADERS: [&str; 9] = [
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl Reader {
    pub(super) fn webhooks(&mut self, values: &Values, apps: &[App]) -> WebhookLimits {
        let group = Group::of(Section::Webhooks, values);
        let milliseconds =
            |reader: &mut Self, key| Duration::from_millis(reader.number(&group, key, 0..=60_000));
        let limits = WebhookLimits {
            batch_time: milliseconds(self, "batch_ms"),
            batch_events: self.size(&group, "batch_events", &(1..=1000)),
            smoothing: milliseconds(self, "smoothing_ms"),
            timeout: self.seconds(&group, "timeout", 1),
            max_age: self.seconds(&group, "retry_seconds", 1),
            max_requests: self.size(&group, "max_requests", &(1..=256)),
            max_bytes: self.size(&group, "max_bytes", &(65_536..=1 << 40)),
            allow_local: self.flag(&group, "allow_local"),
        };
        let all = apps.iter().flat_map(|app| app.webhooks.iter());
        for webhook in all.filter(|webhook| webhook.is_local() && !limits.allow_local) {
            self.problems.push(format!(
                "apps.webhooks.url = {:?} is this machine's own: allow that with webhooks.allow_local = true \
                 (RESOUND_WEBHOOK_ALLOW_LOCAL), or name another one",
                webhook.shown()
            ));
        }
        limits
    }

    /// The webhooks of one application.
    pub(super) fn webhooks_of(&mut self, index: usize, layers: &Layers) -> Webhooks {
        let of_variables =
            (!layers.webhook.is_empty() && layers.apps.len() == 1).then_some(&layers.webhook);
        let all = layers.webhooks[index].iter().chain(of_variables);
        let all = all.enumerate().map(|(webhook, values)| {
            self.webhook(&Group {
                index,
                webhook,
                ..Group::of(Section::Webhook, values)
            })
        });
        let all: Vec<Webhook> = all.flatten().collect();
        for (at, webhook) in all.iter().enumerate() {
            if all[..at].contains(webhook) {
                self.problems.push(format!(
                    "apps.webhooks.url = {:?} is there twice with the same settings: each event would be told twice",
                    webhook.shown()
                ));
            }
        }
        Webhooks::new(all)
    }

    /// What variables say of one is said of a single application.
    pub(super) fn refuse_a_webhook_for_several(&mut self, layers: &Layers) {
        if layers.apps.len() > 1
            && let Some(value) = layers.webhook.values().next()
        {
            self.problems.push(format!(
                "webhooks in variables ({}) are for a single application, and there are {}: write [[apps.webhooks]] \
                 below each [[apps]]",
                value.source,
                layers.apps.len()
            ));
        }
    }

    fn webhook(&mut self, group: &Group<'_>) -> Option<Webhook> {
        let url = self.take(group, "url", url);
        let kinds = self.take(group, "events", kinds);
        let channels = self.take(group, "channels", channels);
        let headers = self.take(group, "headers", headers);
        Some(Webhook {
            url: url?,
            kinds: kinds?,
            channels: channels?,
            headers: headers?,
        })
    }
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|it| !it.is_empty())
}

fn url(text: &str) -> Result<Url, String> {
    let expected = "an http:// or https:// URL with a host and without user and password";
    let url = Url::parse(text).map_err(|error| format!("{expected} ({error})"))?;
    let is_usable = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.port() != Some(0);
    is_usable.then_some(url).ok_or_else(|| expected.to_owned())
}

fn kinds(text: &str) -> Result<WebhookKinds, String> {
    let kinds: Option<WebhookKinds> = items(text).map(WebhookKind::of).collect::<Option<_>>();
    kinds.filter(|kinds| !kinds.is_empty()).ok_or_else(|| {
        let names = WebhookKind::ALL.map(WebhookKind::name).join(", ");
        format!("a list of {names}")
    })
}

fn channels(text: &str) -> Result<Vec<ChannelPattern>, String> {
    let patterns: Option<Vec<_>> = items(text).map(ChannelPattern::parse).collect();
    patterns.ok_or_else(|| "a list of names such as news, presence-* and *-orders".to_owned())
}

fn headers(text: &str) -> Result<Vec<(String, String)>, String> {
    text.lines().map(header).collect()
}

fn header(line: &str) -> Result<(String, String), String> {
    let (name, value) = line.split_once(": ").unwrap_or((line, ""));
    let expected = || format!("names and values of HTTP headers, which {name:?} has not");
    let lower = name.to_ascii_lowercase();
    if OWN_HEADERS.contains(&&*lower)
        || lower.starts_with("x-pusher-")
        || lower.starts_with("x-resound-")
    {
        return Err(format!("no header {name:?}, which is set by this server"));
    }
    let is_name =
        !lower.is_empty() && hyper::header::HeaderName::from_bytes(lower.as_bytes()).is_ok();
    let is_value = hyper::header::HeaderValue::from_str(value).is_ok();
    (is_name && is_value)
        .then(|| (lower, value.to_owned()))
        .ok_or_else(expected)
}

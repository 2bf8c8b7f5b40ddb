//! What `resound check` prints of a configuration: for a person a table and a verdict, for
//! a program one JSON document. It reads nothing and prints nothing itself.

use std::borrow::Cow;
use std::fmt::{self, Write};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::setting::{Section, Setting};
use super::source::{Source, Value};
use super::{Config, ConfigError, Server};

/// Characters up to which a column grows with its longest text.
const MAX_WIDTH: usize = 40;

/// One setting as it is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Effective {
    /// `server.port`, or `apps[0].key`.
    pub name: String,
    /// Its value as it was written, empty for none; secrets are hidden.
    pub value: String,
    /// Where it was said.
    pub source: String,
    /// Whether it was said nowhere.
    #[serde(rename = "default")]
    pub is_default: bool,
    /// Whether a change of it holds only for a server that is started after it.
    pub needs_restart: bool,
    #[serde(skip)]
    pub(super) section: Section,
    /// Of the application; 0 for everything else.
    #[serde(skip)]
    pub(super) index: usize,
    #[serde(skip)]
    pub(super) key: &'static str,
    /// Of the value, also of one that is hidden.
    #[serde(skip)]
    pub(super) fingerprint: Fingerprint,
}

/// A certificate that would be served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// Its file.
    pub path: String,
    /// The host names and addresses that it is for.
    pub names: Vec<String>,
    /// When it ends, as RFC 3339 says.
    pub not_after: String,
}

/// Tells a text from others without having it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint")
    }
}

impl Effective {
    /// Of which application, and which of its webhooks.
    pub(super) fn new(
        setting: &'static Setting,
        (index, webhook): (usize, usize),
        value: &Value,
    ) -> Self {
        let name = match setting.section {
            Section::App => format!("apps[{index}].{}", setting.key),
            Section::Webhook => format!("apps[{index}].webhooks[{webhook}].{}", setting.key),
            Section::Server | Section::Metrics | Section::Scaling | Section::Webhooks => {
                format!("{}.{}", setting.section.name(), setting.key)
            }
        };
        Self {
            name,
            value: setting.shown(&value.text).to_owned(),
            source: value.source.to_string(),
            is_default: value.source == Source::Default,
            needs_restart: setting.restart,
            section: setting.section,
            index,
            key: setting.key,
            fingerprint: Fingerprint(Sha256::digest(&value.text).into()),
        }
    }

    /// The value in one line of a table.
    fn cell(&self) -> Cow<'_, str> {
        if self.value.is_empty() {
            "-".into()
        } else if self.value.contains(char::is_control) {
            // It would end the line, or talk to the terminal.
            format!("{:?}", self.value).into()
        } else {
            self.value.as_str().into()
        }
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = match &*self.names {
            [] => "no name".to_owned(),
            names => names.join(", "),
        };
        let (path, end) = (&self.path, &self.not_after);
        write!(f, "certificate {path} for {names} ends at {end}")
    }
}

/// For a person: the settings that were set, or all of them, and a verdict as the last line.
pub fn text(config: &Config, all: bool) -> String {
    let is_shown = |setting: &&Effective| all || !setting.is_default;
    let shown: Vec<&Effective> = config.effective.iter().filter(is_shown).collect();
    let mut text = table(&shown);
    let hidden = config.effective.len() - shown.len();
    if hidden > 0 {
        let settings = count(hidden, "setting");
        let rest = format!("left at their defaults: {settings} (--all shows them)");
        line(&mut text, &rest);
    }
    for certificate in &config.certificates {
        line(&mut text, &certificate.to_string());
    }
    line(&mut text, &verdict(config));
    text
}

/// How it ends for a configuration that cannot be used, after its problems were told.
pub fn not_usable(error: &ConfigError) -> String {
    format!("not usable: {}", count(error.problems.len(), "problem"))
}

/// For a program: everything in one document, whatever came of it.
pub fn json(checked: Result<&Config, &ConfigError>) -> String {
    let document = match checked {
        Ok(config) => Document::Usable {
            ok: true,
            files: config
                .files
                .iter()
                .map(|path| path.to_string_lossy())
                .collect(),
            settings: &config.effective,
            certificates: &config.certificates,
            warnings: &config.warnings,
            notes: &config.notes,
        },
        Err(error) => Document::NotUsable {
            ok: false,
            problems: &error.problems,
        },
    };
    let mut text = serde_json::to_string_pretty(&document).expect("it is texts and truth values");
    text.push('\n');
    text
}

#[derive(Serialize)]
#[serde(untagged)]
enum Document<'a> {
    Usable {
        ok: bool,
        files: Vec<Cow<'a, str>>,
        settings: &'a [Effective],
        certificates: &'a [Certificate],
        warnings: &'a [String],
        notes: &'a [String],
    },
    NotUsable {
        ok: bool,
        problems: &'a [String],
    },
}

/// One line a setting: its name, its value, where it was said.
fn table(settings: &[&Effective]) -> String {
    let cells: Vec<Cow<'_, str>> = settings.iter().map(|setting| setting.cell()).collect();
    let names = width(settings.iter().map(|setting| setting.name.as_str()));
    let values = width(cells.iter().map(AsRef::as_ref));
    let mut out = String::new();
    for (Effective { name, source, .. }, value) in settings.iter().zip(&cells) {
        let row = format!("{name:names$}  {value:values$}  {source}");
        line(&mut out, &row);
    }
    out
}

fn width<'a>(texts: impl Iterator<Item = &'a str>) -> usize {
    let lengths = texts.map(|text| text.chars().count());
    lengths.max().unwrap_or_default().min(MAX_WIDTH)
}

/// What would start, in one line.
fn verdict(config: &Config) -> String {
    let server = &config.server;
    let mut parts = vec![count(config.apps.len(), "application")];
    parts.extend(listening(server));
    if config.scaling.is_some() {
        parts.push("scaling through Redis".to_owned());
    }
    parts.push(count(config.warnings.len(), "warning"));
    if !config.notes.is_empty() {
        parts.push(count(config.notes.len(), "note"));
    }
    format!("ok: {}", parts.join(", "))
}

/// Where it would listen, and how.
fn listening(server: &Server) -> Vec<String> {
    let mut parts = match &*server.hosts {
        [] => Vec::new(),
        [host] => vec![format!("host {host}"), format!("port {}", server.port)],
        hosts => vec![
            format!("hosts {}", hosts.join(" and ")),
            format!("port {}", server.port),
        ],
    };
    parts.extend(
        server
            .socket
            .as_ref()
            .map(|socket| format!("socket {}", socket.path.display())),
    );
    if !server.path.is_empty() {
        parts.push(format!("path {}", server.path));
    }
    match server.tls.as_ref().map(|tls| tls.port) {
        Some(Some(port)) => parts.push(format!("TLS on port {port}")),
        Some(None) => parts.push("TLS".to_owned()),
        None => {}
    }
    parts
}

fn count(number: usize, what: &str) -> String {
    match number {
        0 => format!("no {what}s"),
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a String takes every text");
}

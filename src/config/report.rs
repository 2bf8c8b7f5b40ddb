//! The effective settings as `resound check` prints them.

use std::fmt::Write;

use super::Config;
use super::setting::{Section, Setting};
use super::source::Source;

/// One setting as it is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// `server.port`, or `apps[0].key`.
    pub name: String,
    /// Its value; secrets are hidden.
    pub value: String,
    /// Where it was said.
    pub source: String,
}

impl Effective {
    pub(super) fn new(setting: &Setting, index: usize, shown: &str, source: &Source) -> Self {
        let name = match setting.section {
            Section::App => format!("apps[{index}].{}", setting.key),
            Section::Server | Section::Metrics | Section::Scaling => {
                format!("{}.{}", setting.section.name(), setting.key)
            }
        };
        Self {
            name,
            value: shown.to_owned(),
            source: source.to_string(),
        }
    }
}

/// A table of all settings, one a line.
pub fn table(config: &Config) -> String {
    let width = |text: fn(&Effective) -> &str| {
        config
            .effective
            .iter()
            .map(|e| text(e).chars().count())
            .max()
            .unwrap_or_default()
            .min(40)
    };
    let (names, values) = (width(|e| &e.name), width(|e| &e.value));
    let mut out = String::new();
    for Effective {
        name,
        value,
        source,
    } in &config.effective
    {
        let value = if value.is_empty() { "-" } else { value };
        writeln!(out, "{name:names$}  {value:values$}  {source}")
            .expect("a String takes every text");
    }
    out
}

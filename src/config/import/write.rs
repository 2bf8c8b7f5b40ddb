//! What was imported, as a settings file.

use std::fmt::Write;

use super::{Imported, Said};
use crate::config::setting::{SETTINGS, Section, Setting};

pub(super) fn toml(imported: &Imported, comment: &str) -> String {
    let mut out = String::new();
    for line in comment.lines() {
        push(&mut out, format_args!("# {line}"));
    }
    for section in [Section::Server, Section::Metrics, Section::Scaling] {
        table(
            &mut out,
            &format!("[{}]", section.name()),
            section,
            &imported.shared,
        );
    }
    for app in &imported.apps {
        table(&mut out, "[[apps]]", Section::App, app);
    }
    out
}

fn table(out: &mut String, head: &str, section: Section, said: &Said) {
    let settings = SETTINGS.iter().filter(|it| it.section == section);
    let values: Vec<(&Setting, &str)> = settings
        .filter_map(|it| Some((it, said.get(&(section, it.key))?.0.as_str())))
        .collect();
    if values.is_empty() {
        return;
    }
    push(out, format_args!("\n{head}"));
    for (setting, text) in values {
        push(
            out,
            format_args!("{} = {}", setting.key, value(setting, text)),
        );
    }
}

fn push(out: &mut String, line: std::fmt::Arguments<'_>) {
    // A String takes every text.
    let _ = writeln!(out, "{line}");
}

/// A list, a number, true or false, or else a text in quotes.
fn value(setting: &Setting, text: &str) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    if setting.list {
        let items: Vec<String> = text.split(',').map(quoted).collect();
        return format!("[{}]", items.join(", "));
    }
    // Of what is a name, a number is one, too.
    let is_name = setting.secret
        || matches!(
            setting.key,
            "id" | "key" | "previous_key" | "username" | "channel" | "prefix" | "hostname"
        );
    let is_plain = text
        .parse::<i64>()
        .is_ok_and(|number| number.to_string() == text)
        || matches!(text, "true" | "false");
    if is_plain && !is_name {
        text.to_owned()
    } else {
        quoted(text)
    }
}

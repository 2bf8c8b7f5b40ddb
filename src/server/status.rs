//! How a server stands, for whoever looks after it.

use std::fmt::Write;

use serde_json::{Value, json};

use super::Reloader;

impl Reloader {
    /// What `/ready` says and more: the process, the applications and the last reload.
    pub fn status(&self) -> Value {
        let (is_ready, mut status) = self.control().health();
        status["ready"] = is_ready.into();
        status["pid"] = std::process::id().into();
        let apps = self.control().apps().all();
        status["apps"] = apps
            .iter()
            .map(|app| json!({ "id": app.id(), "connections": app.connections() }))
            .collect();
        let (count, last) = self.last();
        status["reloads"] = count.into();
        status["last_reload"] = json!(last);
        status["needs_restart"] = json!(self.pending());
        status
    }
}

/// The same, for a person.
pub(super) fn in_lines(status: &Value) -> String {
    let mut lines = String::new();
    let mut line = |name: &str, value: &str| {
        writeln!(lines, "{name:<13}{value}").expect("a String takes every text");
    };
    let number = |name: &str| status[name].to_string();
    line("version", status["version"].as_str().unwrap_or_default());
    line("process", &number("pid"));
    line("uptime", &format!("{} s", number("uptime")));
    let ready = if status["ready"] == true {
        "ready"
    } else {
        "not ready"
    };
    let state = status["lifecycle"].as_str().unwrap_or_default();
    line("state", &format!("{state}, {ready}"));
    line("connections", &number("connections"));
    for app in status["apps"].as_array().into_iter().flatten() {
        let id = app["id"].as_str().unwrap_or_default();
        line(
            "application",
            &format!("{id}, {} connections", app["connections"]),
        );
    }
    let last = &status["last_reload"];
    match last["text"].as_str() {
        None => line("reloads", "none"),
        Some(text) => {
            line("reloads", &number("reloads"));
            for said in text.lines() {
                line("last reload", said);
            }
        }
    }
    for setting in status["needs_restart"].as_array().into_iter().flatten() {
        line("restart for", setting.as_str().unwrap_or_default());
    }
    lines
}

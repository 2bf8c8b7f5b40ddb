//! What is different in a configuration that was read anew.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::report::Effective;
use super::setting::Section;

/// A setting that has another value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `server.pong_timeout`, or `apps["my-app-id"].max_connections`.
    pub setting: String,
    /// As it was written before, secrets hidden; empty for none.
    pub before: String,
    /// As it is written now.
    pub after: String,
    /// Whether it holds only for a server that is started after the change.
    pub needs_restart: bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &str| match value {
            "" => "(none)".to_owned(),
            value if value.contains(char::is_control) => format!("{value:?}"),
            value => value.to_owned(),
        };
        let (before, after) = (shown(&self.before), shown(&self.after));
        write!(f, "{}: {before} -> {after}", self.setting)?;
        if self.needs_restart {
            f.write_str(" (needs a restart)")?;
        }
        Ok(())
    }
}

/// Compares what is the same thing in both. An application that only one of them has is no
/// difference of settings.
pub fn between(before: &[Effective], after: &[Effective]) -> Vec<Difference> {
    let (before, after) = (by_name(before), by_name(after));
    let changed = after.into_iter().filter_map(|(name, new)| {
        let old = before.get(&name)?;
        (old.fingerprint != new.fingerprint).then(|| Difference {
            setting: name,
            before: old.value.clone(),
            after: new.value.clone(),
            needs_restart: needs_restart(old, new),
        })
    });
    changed.collect()
}

/// The settings that hold in a server with `before` that was given `after`: of those that
/// need a restart, the former ones.
pub fn in_force(before: &[Effective], after: Vec<Effective>) -> Vec<Effective> {
    let running = by_name(before);
    let in_force = after.into_iter().map(|new| {
        let old = running.get(&new.name);
        let old = old.filter(|old| needs_restart(old, &new));
        old.map_or(new, |old| (*old).clone())
    });
    in_force.collect()
}

/// Whether a change holds after a restart only. Certificates can be exchanged; whether there
/// are any decides what a port speaks.
fn needs_restart(old: &Effective, new: &Effective) -> bool {
    let is_switch = matches!(&*new.name, "server.tls_cert" | "server.tls_key");
    new.needs_restart || (is_switch && old.value.is_empty() != new.value.is_empty())
}

/// Each setting by a name that has the application's id in it and not its place.
fn by_name(settings: &[Effective]) -> BTreeMap<String, &Effective> {
    let ids: BTreeMap<usize, &str> = settings
        .iter()
        .filter(|setting| setting.section == Section::App && setting.key == "id")
        .map(|setting| (setting.index, setting.value.as_str()))
        .collect();
    let name = |setting: &Effective| match ids.get(&setting.index) {
        Some(id) if matches!(setting.section, Section::App | Section::Webhook) => {
            let rest = setting.name.split_once("].").map_or("", |(_, rest)| rest);
            format!("apps[{id:?}].{rest}")
        }
        _ => setting.name.clone(),
    };
    settings
        .iter()
        .map(|setting| (name(setting), setting))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    fn effective(toml: &str) -> Vec<Effective> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resound.toml");
        std::fs::write(&path, toml).unwrap();
        let sources = Sources {
            config_file: Some(path),
            ..Sources::default()
        };
        Config::load(&sources).unwrap().effective
    }

    const A: &str = "[[apps]]\nid = \"a\"\nkey = \"ka\"\nsecret = \"sa\"\n";
    const B: &str = "[[apps]]\nid = \"b\"\nkey = \"kb\"\nsecret = \"sb\"\n";

    #[test]
    fn tls_is_switched_by_a_restart_and_certificates_are_not() {
        let with = |cert: &str| {
            let tls = format!("[server]\ntls_cert = \"{cert}\"\ntls_key = \"k\"\n");
            effective(&(tls + A))
        };
        let (plain, first, second) = (effective(A), with("a"), with("b"));
        let restarts = |before: &[Effective], after: &[Effective]| {
            let all = between(before, after);
            let all = all.iter().filter(|it| it.setting.starts_with("server.tls"));
            all.map(|it| it.needs_restart).collect::<Vec<_>>()
        };
        assert_eq!(restarts(&plain, &first), [true, true]);
        assert_eq!(restarts(&first, &plain), [true, true]);
        assert_eq!(restarts(&first, &second), [false]);
        let held = in_force(&first, plain);
        assert_eq!(restarts(&held, &first), [false; 0], "as it is");
    }

    #[test]
    fn settings_are_compared_with_those_of_the_same_application() {
        let before = effective(&format!("{A}{B}"));
        let after = effective(&format!("{B}max_connections = 5\n{A}"));
        let shown: Vec<String> = between(&before, &after)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(shown, ["apps[\"b\"].max_connections: (none) -> 5"]);
        assert_eq!(between(&before, &effective(A)), [], "one is gone");
        assert_eq!(between(&effective(A), &before), [], "one is new");
    }

    #[test]
    fn a_secret_is_compared_and_not_shown() {
        let changed = A.replace("sa", "other");
        let differences = between(&effective(A), &effective(&changed));
        assert_eq!(
            differences[0].to_string(),
            "apps[\"a\"].secret: (hidden) -> (hidden)"
        );
        assert_eq!(differences.len(), 1);
    }

    #[test]
    fn what_needs_a_restart_stays_different_until_it_comes() {
        let before = effective(&format!("[server]\nport = 1\npath = \"/a\"\n{A}"));
        let after = effective(&format!("[server]\nport = 2\npath = \"/b\"\n{A}"));
        let shown = |before: &[Effective]| -> Vec<String> {
            let differences = between(before, &after);
            differences.iter().map(ToString::to_string).collect()
        };
        let port = "server.port: 1 -> 2 (needs a restart)";
        assert_eq!(shown(&before), ["server.path: /a -> /b", port]);
        assert_eq!(shown(&in_force(&before, after.clone())), [port]);
    }
}

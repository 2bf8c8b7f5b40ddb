//! What the configuration of another server means here.
//!
//! A Laravel project's comes as one JSON document, made by the project's own PHP, since only
//! PHP knows what its files mean: `resound import` asks for it, `resound start --config-json`
//! takes it from whoever has it. Its form, every part optional but one of `reverb` and
//! `websockets`:
//!
//! ```json
//! {
//!   "format": 1,
//!   "app_url": "config('app.url')",
//!   "reverb": "config('reverb')",
//!   "broadcasting": "config('broadcasting')",
//!   "redis": "config('database.redis')",
//!   "websockets": "config('websockets'), of laravel-websockets"
//! }
//! ```
//!
//! soketi's comes as its own JSON file, or as its variables.
//!
//! What is imported is held to the rules of a settings file afterwards; a value
//! is named by its path in the document.

mod laravel;
mod node;
mod parts;
mod reverb;
mod soketi;
mod websockets;
mod write;

use std::collections::BTreeMap;

use self::node::Node;
use super::setting::{Section, Setting};
use super::{ConfigError, dotenv};

/// The form of Laravel's document that is understood.
pub const FORMAT: u64 = 1;

/// The settings of another server, as settings of this one.
#[derive(Clone, Debug, Default)]
pub struct Imported {
    /// Of the whole server.
    pub(super) shared: Said,
    /// Of each application.
    pub(super) apps: Vec<Said>,
    /// What could not be carried over, and what was left out on purpose; a sentence each.
    pub notes: Vec<String>,
}

/// Texts, lists joined by commas, and where in the document they were said.
pub(super) type Said = BTreeMap<(Section, &'static str), (String, String)>;

impl Imported {
    /// Reads a Laravel project's document.
    ///
    /// # Errors
    /// If it is of another form, or a value cannot be one of a setting.
    pub fn from_laravel(text: &str) -> Result<Self, ConfigError> {
        let document = parse(text)?;
        laravel::read(&Node::root(&document))
    }

    /// Reads soketi's configuration: its JSON file, or a file of its variables.
    ///
    /// # Errors
    /// If it is neither, or a value cannot be one of a setting.
    pub fn from_soketi(text: &str) -> Result<Self, ConfigError> {
        let document = if text.trim_start().starts_with('{') {
            parse(text)?
        } else {
            let entries = dotenv::parse(text, |_| None);
            let entries = entries.map_err(|error| ConfigError::one(error.to_string()))?;
            let pairs = entries
                .into_iter()
                .filter_map(|entry| Some((entry.name, entry.value?)));
            soketi::document_of_variables(pairs)
        };
        soketi::read(&Node::root(&document))
    }

    /// As a settings file, TOML, that begins with this comment.
    pub fn to_toml(&self, comment: &str) -> String {
        write::toml(self, comment)
    }

    /// Takes a value over, if there is one.
    fn take(
        &mut self,
        section: Section,
        key: &'static str,
        node: &Node<'_>,
    ) -> Result<(), ConfigError> {
        if let Some(text) = node.text()? {
            say(&mut self.shared, section, key, text, node);
        }
        Ok(())
    }
}

fn say(said: &mut Said, section: Section, key: &str, text: String, node: &Node<'_>) {
    let setting = Setting::of(section, key);
    said.insert((section, setting.key), (text, node.path.clone()));
}

fn take_app(app: &mut Said, key: &str, node: &Node<'_>) -> Result<(), ConfigError> {
    if let Some(text) = node.text()? {
        say_app(app, key, text, node);
    }
    Ok(())
}

fn say_app(app: &mut Said, key: &str, text: String, node: &Node<'_>) {
    say(app, Section::App, key, text, node);
}

/// Client events are let through for members, or for nobody.
fn say_client_events(app: &mut Said, enabled: &Node<'_>) {
    let from = if enabled.is_truthy() {
        "members"
    } else {
        "none"
    };
    say_app(app, "accept_client_events_from", from.to_owned(), enabled);
}

/// Takes over what is there a number of KiB, and here of bytes.
fn take_kilobytes(
    said: &mut Said,
    section: Section,
    key: &str,
    node: &Node<'_>,
) -> Result<(), ConfigError> {
    let Some(text) = node.text()? else {
        return Ok(());
    };
    let bytes = text
        .parse::<f64>()
        .ok()
        .map(|number| number * 1024.0)
        .filter(|bytes| (0.0..1e15).contains(bytes))
        .ok_or_else(|| node.expected("a number of kilobytes"))?;
    say(
        said,
        section,
        Setting::of(section, key).key,
        format!("{bytes:.0}"),
        node,
    );
    Ok(())
}

fn parse(text: &str) -> Result<serde_json::Value, ConfigError> {
    serde_json::from_str(text).map_err(|error| ConfigError::one(format!("not JSON: {error}")))
}

//! Lines of JSON: one object each, whose values are those of its fields.

use std::fmt::{self, Debug, Display, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::fields::{Escape, cut, max_of};
use super::now;

/// A line while it is written; it begins with its time, its level and its target.
#[derive(Debug)]
pub struct JsonLine(String);

impl JsonLine {
    /// A line of this level, about this.
    pub fn new(level: tracing::Level, target: &str) -> Self {
        let mut line = Self(format!("{{\"timestamp\":\"{}\"", now()));
        line.text("level", &level);
        line.text("target", &target);
        line
    }

    /// Adds a text, of which no more is written than of a field of an event.
    pub fn text(&mut self, name: &str, value: &dyn Display) {
        self.begin(name);
        self.string(max_of(name), value);
    }

    /// Adds texts.
    pub fn texts<'a>(&mut self, name: &str, values: impl Iterator<Item = &'a str>) {
        self.begin(name);
        self.0.push('[');
        for (at, value) in values.enumerate() {
            if at > 0 {
                self.0.push(',');
            }
            self.string(max_of(name), &value);
        }
        self.0.push(']');
    }

    /// Adds a number.
    pub fn number(&mut self, name: &str, value: impl Into<serde_json::Number>) {
        let number: serde_json::Number = value.into();
        self.value(name, &number);
    }

    /// The whole line, ended.
    pub fn finish(mut self) -> String {
        self.0.push_str("}\n");
        self.0
    }

    /// Adds what is JSON as it is displayed.
    fn value(&mut self, name: &str, value: &dyn Display) {
        self.begin(name);
        // A text grows.
        let _ = write!(self.0, "{value}");
    }

    fn begin(&mut self, name: &str) {
        self.0.push(',');
        self.string(max_of(""), &name);
        self.0.push(':');
    }

    fn string(&mut self, max: usize, value: &dyn Display) {
        self.0.push('"');
        // A text grows.
        let _ = cut(&mut self.0, Escape::Json, max, &format_args!("{value}"));
        self.0.push('"');
    }
}

/// Formats events as lines of JSON.
pub(super) struct Events;

impl<S, N> FormatEvent<S, N> for Events
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let mut origin = Origin(None);
        if metadata.target() == "log" {
            event.record(&mut origin);
        }
        let target = origin.0.as_deref().unwrap_or(metadata.target());
        let mut line = JsonLine::new(*metadata.level(), target);
        event.record(&mut line);
        writer.write_str(&line.finish())
    }
}

impl Visit for JsonLine {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // Infinity and what is no number have none in JSON.
        self.add(field, &serde_json::Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if is_ours(field) {
            self.text(field.name(), &value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if is_ours(field) {
            self.text(field.name(), &format_args!("{value:?}"));
        }
    }
}

impl JsonLine {
    fn add(&mut self, field: &Field, value: &dyn Display) {
        if is_ours(field) {
            self.value(field.name(), value);
        }
    }
}

/// Not where in its source another crate has logged it, and no name that the line has.
fn is_ours(field: &Field) -> bool {
    let name = field.name();
    !name.starts_with("log.") && !["timestamp", "level", "target"].contains(&name)
}

/// The target of a line that another crate has logged by `log`.
struct Origin(Option<String>);

impl Visit for Origin {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "log.target" {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn a_line_is_one_object_in_which_nothing_is_obeyed() {
        let mut line = JsonLine::new(tracing::Level::WARN, "t");
        let text = "a\"b\\c\nd\u{1b}[31m\u{202e}ü\u{9b}";
        line.text("said", &text);
        line.number("count", 7_u64);
        line.texts("names", ["a", "b\""].into_iter());
        line.text("long", &"x".repeat(500));
        let line = line.finish();
        assert!(line.ends_with("}\n") && line.lines().count() == 1);
        assert!(
            !line
                .trim_end()
                .contains(|char: char| char.is_control() || char == '\u{202e}')
        );
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&value["level"], &value["target"]),
            (&"WARN".into(), &"t".into())
        );
        assert_eq!(value["said"], text);
        assert_eq!(value["count"], 7);
        assert_eq!(value["names"], serde_json::json!(["a", "b\""]));
        assert_eq!(value["long"].as_str().unwrap().chars().count(), 201);
    }
}

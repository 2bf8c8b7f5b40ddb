//! What a line says: each field cut at a sane length, and nothing in it that a
//! terminal would obey or that would pass for another line or another field.
//!
//! A line is prose and then `key=value`. A value that has a space, a quote, an equals
//! sign or a backslash in it, or is empty, stands in quotes, in which `\"` and `\\` are
//! themselves.

use std::fmt::{self, Debug, Write};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

/// Bytes of a field: much of it is what clients say.
pub(super) const MAX_FIELD: usize = 200;

/// Bytes of a message or an error, which are mostly our own words.
pub(super) const MAX_TEXT: usize = 1000;

/// Bytes of a WebSocket frame, or of the trace of a panic.
const MAX_WHOLE: usize = 64 * 1024;

/// How much is written of a field.
pub(super) fn max_of(name: &str) -> usize {
    match name {
        "message" | "error" | "help" => MAX_TEXT,
        "frame" | "backtrace" => MAX_WHOLE,
        _ => MAX_FIELD,
    }
}

/// Formats the fields of an event as text.
pub(super) struct Fields;

impl<'w> FormatFields<'w> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut line = Line {
            writer,
            value: String::new(),
            is_empty: true,
            result: Ok(()),
        };
        fields.record(&mut line);
        line.result
    }
}

struct Line<'w> {
    writer: Writer<'w>,
    value: String,
    is_empty: bool,
    result: fmt::Result,
}

impl Line<'_> {
    fn add(&mut self, name: &str, value: &dyn Debug) -> fmt::Result {
        if !self.is_empty {
            self.writer.write_char(' ')?;
        }
        self.is_empty = false;
        let max = max_of(name);
        if name == "message" {
            return cut(&mut self.writer, Escape::Prose, max, value).map(drop);
        }
        self.value.clear();
        let is_bare = cut(&mut self.value, Escape::Quoted, max, value)?;
        if is_bare && !self.value.is_empty() {
            write!(self.writer, "{name}={}", self.value)
        } else {
            write!(self.writer, "{name}=\"{}\"", self.value)
        }
    }
}

impl Visit for Line<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Where in its source another crate has logged it.
        if field.name().starts_with("log.") || self.result.is_err() {
            return;
        }
        self.result = self.add(field.name(), value);
    }
}

/// The beginning of a text, fit for a log.
pub(super) fn excerpt(text: &str, max: usize) -> String {
    let mut excerpt = String::new();
    // A text grows.
    let _ = cut(&mut excerpt, Escape::Prose, max, &format_args!("{text}"));
    excerpt
}

/// What must not stand as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escape {
    /// What a terminal obeys.
    Prose,
    /// That, and what ends a text in quotes.
    Quoted,
    /// The same, as JSON has it.
    Json,
}

/// Writes the first bytes of a value. Returns whether it can stand without quotes.
pub(super) fn cut(
    out: &mut dyn Write,
    escape: Escape,
    max: usize,
    value: &dyn Debug,
) -> Result<bool, fmt::Error> {
    let mut excerpt = Excerpt {
        out,
        escape,
        left: max,
        is_cut: false,
        is_bare: true,
    };
    let written = write!(excerpt, "{value:?}");
    let is_bare = excerpt.is_bare;
    match written {
        Err(fmt::Error) if excerpt.is_cut => out.write_char('…')?,
        written => written?,
    }
    Ok(is_bare)
}

/// Passes on so many bytes, and then ends the formatting with an error.
struct Excerpt<'a> {
    out: &'a mut dyn Write,
    escape: Escape,
    left: usize,
    is_cut: bool,
    is_bare: bool,
}

impl Excerpt<'_> {
    fn escaped(&self, char: char) -> Option<String> {
        let is_obeyed = is_obeyed(char);
        let ends_text = self.escape != Escape::Prose && matches!(char, '"' | '\\');
        match char {
            _ if !is_obeyed && !ends_text => None,
            '"' | '\\' | '\n' | '\r' | '\t' => Some(char.escape_default().collect()),
            // None of them is above U+FFFF.
            _ if self.escape == Escape::Json => Some(format!("\\u{:04x}", u32::from(char))),
            _ => Some(char.escape_default().collect()),
        }
    }
}

impl Write for Excerpt<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            let escaped = self.escaped(char);
            let size = escaped.as_ref().map_or(char.len_utf8(), String::len);
            let Some(left) = self.left.checked_sub(size) else {
                self.is_cut = true;
                return Err(fmt::Error);
            };
            self.left = left;
            if escaped.is_some() || char.is_whitespace() || char == '=' {
                self.is_bare = false;
            }
            match escaped {
                Some(escaped) => self.out.write_str(&escaped)?,
                None => self.out.write_char(char)?,
            }
        }
        Ok(())
    }
}

/// Whether a terminal or a viewer does something else than show it: control
/// characters, line separators and those that turn the direction of writing.
fn is_obeyed(char: char) -> bool {
    char.is_control()
        || matches!(
            char,
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        for (text, expected) in [
            ("plain, größer, 中", "plain, größer, 中"),
            ("a\u{1b}[31mred", r"a\u{1b}[31mred"),
            ("a\nb\r\tc", r"a\nb\r\tc"),
            ("\u{7f}\u{9b}\0", r"\u{7f}\u{9b}\u{0}"),
            (
                "\u{202e}\u{2066}\u{200f}\u{2028}",
                r"\u{202e}\u{2066}\u{200f}\u{2028}",
            ),
        ] {
            assert_eq!(excerpt(text, 100), expected);
        }
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        assert_eq!(
            excerpt(&"x".repeat(500), 200),
            format!("{}…", "x".repeat(200))
        );
        assert_eq!(excerpt("größe", 3), "gr…");
        assert_eq!(excerpt("größe", 7), "größe");
    }

    #[test]
    fn a_value_is_quoted_once_if_it_has_to_be() {
        for (value, expected) in [
            ("plain", "k=plain"),
            ("[::1]:80", "k=[::1]:80"),
            ("größe", "k=größe"),
            ("", r#"k="""#),
            ("a b", r#"k="a b""#),
            ("a=b", r#"k="a=b""#),
            (r#""x""#, r#"k="\"x\"""#),
            (r"a\b", r#"k="a\\b""#),
            ("a\nb", r#"k="a\nb""#),
            ("\u{1b}", r#"k="\u{1b}""#),
        ] {
            let mut text = String::new();
            let mut line = Line {
                writer: Writer::new(&mut text),
                value: String::new(),
                is_empty: true,
                result: Ok(()),
            };
            line.add("k", &format_args!("{value}")).unwrap();
            assert_eq!(text, expected);
        }
    }
}

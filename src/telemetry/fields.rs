//! What a line says: each field cut at a sane length, and nothing in it that a
//! terminal would obey or that would pass for another line.

use std::fmt::{self, Debug, Write};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

/// Bytes of a field: much of it is what clients say.
const MAX_FIELD: usize = 200;

/// Bytes of a message or an error, which are mostly our own words.
pub(super) const MAX_TEXT: usize = 1000;

/// Formats the fields of an event as `tracing-subscriber` does by default.
pub(super) struct Fields;

impl<'w> FormatFields<'w> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut line = Line {
            writer,
            is_empty: true,
            result: Ok(()),
        };
        fields.record(&mut line);
        line.result
    }
}

struct Line<'w> {
    writer: Writer<'w>,
    is_empty: bool,
    result: fmt::Result,
}

impl Line<'_> {
    fn add(&mut self, name: &str, value: &dyn Debug) -> fmt::Result {
        if !self.is_empty {
            self.writer.write_char(' ')?;
        }
        self.is_empty = false;
        match name {
            "message" => cut(&mut self.writer, MAX_TEXT, value),
            "error" | "help" => {
                write!(self.writer, "{name}=")?;
                cut(&mut self.writer, MAX_TEXT, value)
            }
            _ => {
                write!(self.writer, "{name}=")?;
                cut(&mut self.writer, MAX_FIELD, value)
            }
        }
    }
}

impl Visit for Line<'_> {
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
    let _ = cut(&mut excerpt, max, &format_args!("{text}"));
    excerpt
}

fn cut(out: &mut dyn Write, max: usize, value: &dyn Debug) -> fmt::Result {
    let mut excerpt = Excerpt {
        out,
        left: max,
        is_cut: false,
    };
    match write!(excerpt, "{value:?}") {
        Err(fmt::Error) if excerpt.is_cut => out.write_char('…'),
        written => written,
    }
}

/// Passes on so many bytes, and then ends the formatting with an error.
struct Excerpt<'a> {
    out: &'a mut dyn Write,
    left: usize,
    is_cut: bool,
}

impl Write for Excerpt<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            let escape = is_obeyed(char).then(|| char.escape_default());
            let size = escape
                .as_ref()
                .map_or(char.len_utf8(), ExactSizeIterator::len);
            let Some(left) = self.left.checked_sub(size) else {
                self.is_cut = true;
                return Err(fmt::Error);
            };
            self.left = left;
            match escape {
                Some(escape) => write!(self.out, "{escape}")?,
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
}

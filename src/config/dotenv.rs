//! A Laravel `.env`, read as phpdotenv 5 reads it.
//!
//! `export`, quotes, escapes in double quotes, values over several lines in
//! double quotes, `#` comments, `${OTHER}` (not in single quotes), and its
//! errors: unquoted white space inside a value, a missing closing quote, an
//! unknown escape.

use std::collections::HashMap;

/// Bytes of a value, its `${OTHER}` filled in.
const MAX_VALUE: usize = 64 * 1024;

/// Bytes of all values of a file. Ten lines that each name the one before twice, ten times
/// over, would fill any memory.
const MAX_VALUES: usize = 4 << 20;

/// One variable of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: String,
    /// The value with everything resolved; `None` for a name without `=`.
    pub value: Option<String>,
    /// The line it starts on, from 1.
    pub line: usize,
}

/// What is wrong, and where.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct DotenvError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong, with the variable's name if it is about its value.
    pub message: String,
}

/// Reads a file's text. `environment` is asked first when `${OTHER}` is
/// resolved, since the real environment wins over the file.
pub fn parse(
    text: &str,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Vec<Entry>, DotenvError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut known: HashMap<String, String> = HashMap::new();
    let mut reader = Reader {
        rest: text.strip_prefix('\u{feff}').unwrap_or(text),
        line: 1,
    };
    let mut total = 0;
    while let Some(line) = reader.next_line() {
        let number = reader.line - 1;
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let fail = |message: &str| DotenvError {
            line: number,
            message: message.to_owned(),
        };
        let Some((name, value)) = line.split_once('=') else {
            entries.push(Entry {
                name: parse_name(trimmed).map_err(fail)?,
                value: None,
                line: number,
            });
            continue;
        };
        let name = parse_name(name.trim()).map_err(fail)?;
        let fail_value = |message: &str| fail(&format!("{name}: {message}"));
        let mut value = value.trim().to_owned();
        let mut is_escaped = false;
        let mut is_open = value
            .strip_prefix('"')
            .is_some_and(|rest| !has_quote(rest, &mut is_escaped));
        while is_open {
            let next = reader
                .next_line()
                .ok_or_else(|| fail_value("a double quote is not closed"))?;
            value.push('\n');
            value.push_str(next);
            is_open = !has_quote("\n", &mut is_escaped) && !has_quote(next, &mut is_escaped);
            within_limit(&value).map_err(fail_value)?;
        }
        let look_up = |name: &str| environment(name).or_else(|| known.get(name).cloned());
        let value = parse_value(&value, look_up).map_err(fail_value)?;
        total += value.len();
        if total > MAX_VALUES {
            return Err(fail_value(
                "with this one, the values of the file have more than 4 MiB, ${…} filled in",
            ));
        }
        known.insert(name.clone(), value.clone());
        entries.push(Entry {
            name,
            value: Some(value),
            line: number,
        });
    }
    Ok(entries)
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Reader<'a> {
    fn next_line(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        let (line, rest) = self.rest.split_once('\n').unwrap_or((self.rest, ""));
        self.rest = rest;
        self.line += 1;
        Some(line.strip_suffix('\r').unwrap_or(line))
    }
}

fn parse_name(text: &str) -> Result<String, &'static str> {
    let text = match text.strip_prefix("export") {
        Some(rest) if rest.starts_with(char::is_whitespace) => rest.trim_start(),
        _ => text,
    };
    let quoted = |quote: char| text.strip_prefix(quote).and_then(|t| t.strip_suffix(quote));
    let text = quoted('"').or_else(|| quoted('\'')).unwrap_or(text);
    let valid = !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_alphanumeric() || c == '_' || c == '.');
    if valid {
        Ok(text.to_owned())
    } else {
        Err("the name before = has characters that are not allowed")
    }
}

/// Whether a piece of a value has the double quote that closes it. `is_escaped` is whether a
/// backslash stands before the piece, and then whether it ends in one.
fn has_quote(piece: &str, is_escaped: &mut bool) -> bool {
    piece.chars().any(|c| {
        let was_escaped = std::mem::replace(is_escaped, false);
        *is_escaped = !was_escaped && c == '\\';
        !was_escaped && c == '"'
    })
}

fn within_limit(value: &str) -> Result<(), &'static str> {
    if value.len() > MAX_VALUE {
        Err("the value has more than 65536 bytes, ${…} filled in")
    } else {
        Ok(())
    }
}

fn parse_value(
    value: &str,
    look_up: impl Fn(&str) -> Option<String>,
) -> Result<String, &'static str> {
    let mut out = String::new();
    let mut chars = value.chars();
    let after = match chars.next() {
        None | Some('#') => return Ok(out),
        Some('\'') => {
            let (text, after) = chars
                .as_str()
                .split_once('\'')
                .ok_or("a single quote is not closed")?;
            out.push_str(text);
            after
        }
        Some('"') => double_quoted(chars.as_str(), &mut out, look_up)?,
        Some(_) => {
            let end = value
                .find(|c: char| c.is_whitespace() || c == '#')
                .unwrap_or(value.len());
            let (mut text, after) = value.split_at(end);
            while let Some(c) = text.chars().next() {
                text = &text[take_one(c, text, &mut out, &look_up)..];
                within_limit(&out)?;
            }
            after
        }
    };
    within_limit(&out)?;
    let after = after.trim_start();
    if after.is_empty() || after.starts_with('#') {
        Ok(out)
    } else {
        Err("white space inside a value needs quotes around the value")
    }
}

/// Reads up to the closing quote and returns what follows it.
fn double_quoted<'a>(
    mut text: &'a str,
    out: &mut String,
    look_up: impl Fn(&str) -> Option<String>,
) -> Result<&'a str, &'static str> {
    while let Some(c) = text.chars().next() {
        match c {
            '"' => return Ok(&text[1..]),
            '\\' => {
                let escaped = text[1..]
                    .chars()
                    .next()
                    .ok_or("a double quote is not closed")?;
                out.push(match escaped {
                    '"' | '\\' | '$' => escaped,
                    'f' => '\u{c}',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'v' => '\u{b}',
                    _ => {
                        return Err(
                            "a backslash in double quotes stands before one of \" \\ $ f n r t v",
                        );
                    }
                });
                text = &text[2..];
            }
            c => text = &text[take_one(c, text, out, &look_up)..],
        }
        within_limit(out)?;
    }
    Err("a double quote is not closed")
}

/// Takes one character, or one `${NAME}` that is known; tells how many bytes.
fn take_one(
    c: char,
    text: &str,
    out: &mut String,
    look_up: &impl Fn(&str) -> Option<String>,
) -> usize {
    let reference = text
        .strip_prefix("${")
        .and_then(|t| t.split_once('}'))
        .map(|(name, _)| name);
    let valid = |name: &&str| {
        name.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.')
    };
    if let Some(name) = reference.filter(valid)
        && let Some(value) = look_up(name)
    {
        out.push_str(&value);
        return name.len() + 3;
    }
    out.push(c);
    c.len_utf8()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<(String, Option<String>)> {
        let entries = parse(text, |name| {
            (name == "HOME_DIR").then(|| "/home/real".to_owned())
        })
        .unwrap();
        entries
            .into_iter()
            .map(|entry| (entry.name, entry.value))
            .collect()
    }

    #[test]
    fn values_are_read_as_phpdotenv_reads_them() {
        for (text, expected) in [
            ("A=b", Some("b")),
            ("A = b  ", Some("b")),
            ("export A=b", Some("b")),
            ("'A'=b", Some("b")),
            ("A=", Some("")),
            ("A", None),
            ("A=\"\"", Some("")),
            ("A=b # comment", Some("b")),
            ("A=b#comment", Some("b")),
            ("A=#comment", Some("")),
            ("A='b # c'", Some("b # c")),
            ("A=\"b # c\" # d", Some("b # c")),
            ("A='b\\n${X}'", Some("b\\n${X}")),
            (r#"A="a\"b\\c\$d\ne""#, Some("a\"b\\c$d\ne")),
            ("A=\"two\nlines\"", Some("two\nlines")),
            ("A=${HOME_DIR}/x", Some("/home/real/x")),
            ("A=\"${HOME_DIR}\"", Some("/home/real")),
            (r#"A="\${HOME_DIR}""#, Some("${HOME_DIR}")),
            ("A=${NOT_KNOWN}", Some("${NOT_KNOWN}")),
            ("A=pa$$word", Some("pa$$word")),
            ("A=back\\slash", Some("back\\slash")),
            ("A=é\"x", Some("é\"x")),
            ("\u{feff}A=b\r", Some("b")),
        ] {
            assert_eq!(
                values(text),
                [("A".to_owned(), expected.map(str::to_owned))],
                "{text}"
            );
        }
    }

    #[test]
    fn earlier_lines_are_known_and_the_environment_wins() {
        let text = "# a comment\n\nREVERB_HOST=\"localhost\"\nHOME_DIR=/file\nVITE=\"${REVERB_HOST}:${HOME_DIR}\"\n";
        let last = values(text).pop().unwrap();
        assert_eq!(
            last,
            ("VITE".to_owned(), Some("localhost:/home/real".to_owned()))
        );
    }

    #[test]
    fn errors_name_their_line() {
        for (text, line, message) in [
            (
                "\nA=b c",
                2,
                "A: white space inside a value needs quotes around the value",
            ),
            (
                "A=\"b\" c",
                1,
                "A: white space inside a value needs quotes around the value",
            ),
            ("A='b", 1, "A: a single quote is not closed"),
            ("A=1\nB=\"b\nC=d", 2, "B: a double quote is not closed"),
            (
                "A=\"b\\x\"",
                1,
                "A: a backslash in double quotes stands before one of \" \\ $ f n r t v",
            ),
            (
                "=b",
                1,
                "the name before = has characters that are not allowed",
            ),
            (
                "A B=c",
                1,
                "the name before = has characters that are not allowed",
            ),
        ] {
            let error = parse(text, |_| None).unwrap_err();
            assert_eq!(
                (error.line, error.message.as_str()),
                (line, message),
                "{text}"
            );
        }
    }

    /// Each line doubles, or more, what the one before it has.
    #[test]
    fn expansions_that_grow_without_end_are_refused_with_line_and_name() {
        let line = |n: u32| format!("A{n}=\"{}\"\n", format!("${{A{}}}", n - 1).repeat(10));
        let text: String = std::iter::once("A0=0123456789\n".to_owned())
            .chain((1..=10).map(line))
            .collect();
        let error = parse(&text, |_| None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 5: A4: the value has more than 65536 bytes, ${…} filled in"
        );
        for (text, what) in [
            (format!("B={}", "x".repeat(65_537)), "B: the value has"),
            (format!("B='{}'", "x".repeat(65_537)), "B: the value has"),
            (format!("B=\"{}", "x\n".repeat(40_000)), "B: the value has"),
        ] {
            let error = parse(&text, |_| None).unwrap_err();
            assert!(error.message.starts_with(what), "{error}");
        }
        let wide = format!("W={}\n{}", "x".repeat(65_536), "V=${W}\n".repeat(64));
        let error = parse(&wide, |_| None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 65: V: with this one, the values of the file have more than 4 MiB, ${…} filled in"
        );
    }
}

//! How deep JSON may be nested and how long its numbers may be.
//!
//! What one client sends, the libraries of the others have to read, and some of them
//! fail on what is nested deeper, or on numbers that are longer, than anything that
//! an application writes.

/// Lists and objects that may be inside each other: what PHP reads unless it is told
/// otherwise.
pub const MAX_DEPTH: usize = 512;

/// Characters of a number, sign and exponent included.
pub const MAX_NUMBER_LENGTH: usize = 64;

/// What is over a limit. The texts go on after what they are about, and are sent to
/// clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooComplex {
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("is nested more than {MAX_DEPTH} deep")]
    Depth,
    /// A number over [`MAX_NUMBER_LENGTH`].
    #[error("has a number of more than {MAX_NUMBER_LENGTH} characters")]
    Number,
}

/// Checks a text that is known to be JSON.
pub fn check_complexity(json: &str) -> Result<(), TooComplex> {
    // Most texts are too short for either.
    if json.len() <= MAX_NUMBER_LENGTH {
        return Ok(());
    }
    let (mut depth, mut number, mut at) = (0_usize, 0, 0);
    while let Some(byte) = json.as_bytes().get(at) {
        at += 1;
        match byte {
            // An `e` of a word, such as `true`, counts for one until the next character.
            b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E' => {
                number += 1;
                if number > MAX_NUMBER_LENGTH {
                    return Err(TooComplex::Number);
                }
                continue;
            }
            b'"' => at = end_of_string(json, at),
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(TooComplex::Depth);
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        number = 0;
    }
    Ok(())
}

/// What follows the string whose content begins at `start`. It looks for quotes only,
/// which is several times as fast as looking at each byte.
fn end_of_string(json: &str, start: usize) -> usize {
    let mut from = start;
    while let Some(quote) = json[from..].find('"').map(|found| from + found) {
        let before = json.as_bytes()[start..quote].iter().rev();
        let backslashes = before.take_while(|byte| **byte == b'\\').count();
        from = quote + 1;
        if backslashes.is_multiple_of(2) {
            return from;
        }
    }
    json.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> String {
        let (open, close): (Vec<_>, Vec<_>) = (0..depth)
            .map(|n| {
                if n % 2 == 0 {
                    ("[", "]")
                } else {
                    (r#"{"a":"#, "}")
                }
            })
            .unzip();
        let close: String = close.into_iter().rev().collect();
        format!("{}1{close}", open.concat())
    }

    #[test]
    fn depth_and_numbers_have_a_limit() {
        let digits = |count: usize| "1".repeat(count);
        for (json, expected) in [
            (nested(512), Ok(())),
            (nested(513), Err(TooComplex::Depth)),
            (nested(100_000), Err(TooComplex::Depth)),
            (digits(64), Ok(())),
            (digits(65), Err(TooComplex::Number)),
            (format!("[1,-{}]", digits(63)), Ok(())),
            (format!("[1,-{}]", digits(64)), Err(TooComplex::Number)),
            (format!("[0.{}e+3]", digits(60)), Err(TooComplex::Number)),
            (
                format!("{{\"a\":{},\"b\":0}}", digits(65)),
                Err(TooComplex::Number),
            ),
            // What is in a string counts for nothing, quotes and backslashes included.
            (
                format!(r#"["{}","{}"]"#, digits(65), "[".repeat(600)),
                Ok(()),
            ),
            (format!(r#"["\"{}\\",{}]"#, digits(65), digits(64)), Ok(())),
            (
                format!(r#"["\\\\",{}]"#, digits(65)),
                Err(TooComplex::Number),
            ),
            (format!("[{}1]", "[],".repeat(600)), Ok(())),
            (format!("[{}1]", "1,".repeat(600)), Ok(())),
            (format!("[{}1]", "true,false,null, ".repeat(60)), Ok(())),
        ] {
            assert_eq!(
                check_complexity(&json),
                expected,
                "{}",
                &json[..json.len().min(80)]
            );
        }
    }
}

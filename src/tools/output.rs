//! What people see of what servers say.

/// The text with control characters escaped: what strangers have sent must not move the
/// cursor.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// Columns, the first to the left and all others, which are numbers, to the right.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|it| (*it).to_owned()).collect();
    let width = |at: usize| {
        let cells = rows
            .iter()
            .chain([&head])
            .map(|row| row[at].chars().count());
        cells.max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut out = String::new();
    for row in [&head].into_iter().chain(rows) {
        let mut line = format!("{:<width$}", row[0], width = widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            line.push_str(&format!("  {cell:>width$}"));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [("a", "1"), ("longer", "10000")]
            .map(|(name, count)| vec![name.to_owned(), count.to_owned()]);
        let expected = "NAME    COUNT\na           1\nlonger  10000\n";
        assert_eq!(table(&["NAME", "COUNT"], &rows), expected);
    }

    #[test]
    fn nothing_moves_the_cursor() {
        assert_eq!(visible("a\x1b[2Jü\n"), "a\\u{1b}[2Jü\\u{a}");
    }
}

//! Just enough of HTTP, JSON and WebSocket frames: what is looked for is searched
//! as bytes and not parsed.

use crate::Outcome;

pub(crate) fn text_frame(parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut frame = Vec::with_capacity(length + 10);
    frame.push(0x81);
    match u16::try_from(length) {
        Ok(length @ 0..=125) => frame.push(length as u8),
        Ok(length) => {
            frame.push(126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
        Err(_) => {
            frame.push(127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend(parts.iter().copied().flatten());
    frame
}

pub(crate) fn position(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let last = bytes.len().checked_sub(needle.len())?;
    (0..=last).find(|&at| bytes[at] == needle[0] && bytes[at..].starts_with(needle))
}

/// The JSON string that follows, with its escapes, up to its closing quote.
pub(crate) fn quoted_after<'a>(bytes: &'a [u8], needle: &[u8]) -> Option<&'a [u8]> {
    let rest = &bytes[position(bytes, needle)? + needle.len()..];
    let mut escaped = false;
    let end = rest.iter().position(|&byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })?;
    Some(&rest[..end])
}

pub(crate) fn content_length(head: &[u8]) -> Outcome<usize> {
    let head = std::str::from_utf8(head)?.to_ascii_lowercase();
    let line = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    Ok(line.ok_or("the request has no length")?.trim().parse()?)
}

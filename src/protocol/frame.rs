//! Server-to-client WebSocket frames (RFC 6455 section 5.2), encoded once.

use bytes::Bytes;

/// The bytes of one or more whole, unmasked WebSocket frames.
///
/// A broadcast is encoded into this once and its bytes are shared by everybody
/// who receives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame(Bytes);

/// Room kept in front of a payload for the longest header (2 + 8 bytes).
const HEADER_ROOM: usize = 10;

const FINAL_TEXT: u8 = 0x81;

impl Frame {
    /// The frames' bytes, headers included.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes, headers included.
    #[expect(clippy::len_without_is_empty, reason = "a frame is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// Collects a text payload and puts its header in front without copying.
pub(crate) struct TextFrame(Vec<u8>);

impl TextFrame {
    /// An empty payload with room for `capacity` bytes.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        let mut buffer = Vec::with_capacity(HEADER_ROOM + capacity);
        buffer.resize(HEADER_ROOM, 0);
        Self(buffer)
    }

    /// Appends text as it is.
    pub(crate) fn raw(mut self, text: &str) -> Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    /// Appends a value as JSON.
    pub(crate) fn json<T: serde::Serialize + ?Sized>(mut self, value: &T) -> Self {
        serde_json::to_writer(&mut self.0, value)
            .expect("a Vec takes every byte and the values are plain data");
        self
    }

    /// The finished frame.
    pub(crate) fn finish(mut self) -> Frame {
        let length = self.0.len() - HEADER_ROOM;
        let start = if let Ok(short) = u8::try_from(length)
            && short < 126
        {
            self.0[HEADER_ROOM - 1] = short;
            HEADER_ROOM - 2
        } else if let Ok(medium) = u16::try_from(length) {
            self.0[HEADER_ROOM - 3] = 126;
            self.0[HEADER_ROOM - 2..HEADER_ROOM].copy_from_slice(&medium.to_be_bytes());
            HEADER_ROOM - 4
        } else {
            self.0[HEADER_ROOM - 9] = 127;
            self.0[HEADER_ROOM - 8..HEADER_ROOM].copy_from_slice(&(length as u64).to_be_bytes());
            HEADER_ROOM - 10
        };
        self.0[start] = FINAL_TEXT;
        Frame(Bytes::from(self.0).slice(start..))
    }
}

/// The frame boundaries around position `at`: the last one not after it and the
/// first one not before it (the same, when `at` is one), for a buffer that
/// starts at a frame's first byte.
///
/// `None` when a header is cut off: the buffer is not a run of whole frames.
pub fn boundaries_around(buffer: &[u8], at: usize) -> Option<(usize, usize)> {
    let mut before = 0;
    let mut position = 0;
    while position < at {
        before = position;
        let short = usize::from(buffer.get(position + 1)? & 0x7f);
        let field = |range: std::ops::Range<usize>| {
            let bytes = buffer.get(position + range.start..position + range.end)?;
            bytes.iter().try_fold(0usize, |n, byte| {
                n.checked_mul(256)?.checked_add(usize::from(*byte))
            })
        };
        position += match short {
            126 => 4 + field(2..4)?,
            127 => 10 + field(2..10)?,
            length => 2 + length,
        };
    }
    if position == at {
        Some((at, at))
    } else {
        Some((before, position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame_of(length: usize) -> Frame {
        TextFrame::with_capacity(length)
            .raw(&"x".repeat(length))
            .finish()
    }

    #[test]
    fn headers_take_the_shortest_form() {
        for (length, header) in [
            (0usize, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65_535, vec![0x81, 126, 0xff, 0xff]),
            (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let frame = frame_of(length);
            assert_eq!(frame.as_bytes()[..header.len()], header, "{length}");
            assert_eq!(frame.len(), header.len() + length);
        }
    }

    #[test]
    fn boundaries_are_found_in_a_run_of_frames() {
        let mut run = Vec::new();
        let mut ends = vec![0];
        for length in [3, 125, 126, 70_000, 0] {
            run.extend_from_slice(frame_of(length).as_bytes());
            ends.push(run.len());
        }
        for at in 0..=run.len() {
            let before = ends.iter().copied().rfind(|end| *end <= at);
            let after = ends.iter().copied().find(|end| *end >= at);
            assert_eq!(boundaries_around(&run, at), before.zip(after), "{at}");
        }
        assert_eq!(boundaries_around(&run, run.len() + 1), None);
    }
}

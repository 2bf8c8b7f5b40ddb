//! What waits to be written to one socket: a run of whole frames.

use crate::protocol::frame::boundaries_around;

/// Written bytes that are kept in front before the rest is moved down.
const COMPACT_BYTES: usize = 16 * 1024;

/// Frames that wait, of which the first may be partly written.
///
/// The buffer always starts at a frame's first byte, behind the head if there is
/// one, and is given back as soon as it is empty: an idle socket has none.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    written: usize,
    /// Bytes in front of the frames: the answer to the handshake.
    head: usize,
}

impl Outbox {
    /// Puts what is no frame in front of all frames.
    pub(super) fn begin_with(&mut self, head: Vec<u8>) {
        debug_assert!(
            self.bytes.is_empty(),
            "it is what the connection begins with"
        );
        self.head = head.len();
        self.bytes = head;
    }

    /// Appends whole frames.
    pub(super) fn push(&mut self, frames: &[u8]) {
        self.bytes.extend_from_slice(frames);
    }

    /// What is to be written next.
    pub(super) fn waiting(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Notes that the first `count` bytes of [`Self::waiting`] were written.
    pub(super) fn advance(&mut self, count: usize) {
        self.written += count;
        if self.written == self.bytes.len() {
            *self = Self::default();
        } else if self.written >= COMPACT_BYTES
            && self.written >= self.bytes.len() / 2
            && let Some((before, _)) = self.boundaries()
        {
            self.bytes.drain(..before);
            self.written -= before;
            self.head = self.head.saturating_sub(before);
        }
    }

    /// Drops every frame of which nothing was written yet.
    pub(super) fn cut(&mut self) {
        let end = self.boundaries().map_or(self.written, |(_, after)| after);
        self.bytes.truncate(end);
        self.bytes.shrink_to_fit();
        self.advance(0);
    }

    /// Where the frame begins and ends of which the next byte to write is one.
    fn boundaries(&self) -> Option<(usize, usize)> {
        let Some(written) = self.written.checked_sub(self.head) else {
            return Some((0, self.head));
        };
        let (before, after) = boundaries_around(&self.bytes[self.head..], written)?;
        Some((self.head + before, self.head + after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message;

    #[test]
    fn a_partly_written_frame_is_finished_and_later_ones_can_be_cut() {
        let (ping, pong) = (message::ping(), message::pong());
        let mut out = Outbox::default();
        for frame in [&ping, &pong, &ping] {
            out.push(frame.as_bytes());
        }
        out.advance(ping.len() + 3);
        out.cut();
        assert_eq!(out.waiting(), &pong.as_bytes()[3..]);
        out.push(ping.as_bytes());
        assert_eq!(out.len(), pong.len() - 3 + ping.len());
        out.advance(out.len());
        assert_eq!((out.len(), out.bytes.capacity()), (0, 0), "nothing is kept");
        out.cut();
        assert_eq!(out.len(), 0);
    }

    #[test]
    fn the_head_is_no_frame() {
        let ping = message::ping();
        let head = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
        for written in [0, 10, head.len(), head.len() + 1] {
            let mut out = Outbox::default();
            out.begin_with(head.to_vec());
            out.push(ping.as_bytes());
            out.push(ping.as_bytes());
            out.advance(written);
            out.cut();
            let started = [&head[..], ping.as_bytes()].concat();
            let end = if written <= head.len() {
                head.len()
            } else {
                started.len()
            };
            assert_eq!(out.waiting(), &started[written..end], "{written}");
        }
    }

    #[test]
    fn a_reader_that_is_always_behind_does_not_make_the_buffer_grow() {
        let frame = message::ping();
        let mut out = Outbox::default();
        let mut expected = Vec::new();
        let mut got = Vec::new();
        for _ in 0..50_000 {
            out.push(frame.as_bytes());
            expected.extend_from_slice(frame.as_bytes());
            let count = frame.len().min(out.len() - 1);
            got.extend_from_slice(&out.waiting()[..count]);
            out.advance(count);
        }
        assert!(out.bytes.len() < 3 * COMPACT_BYTES, "{}", out.bytes.len());
        got.extend_from_slice(out.waiting());
        assert_eq!(got, expected);
    }
}

//! What waits to be written to one socket: a run of whole frames.

use crate::protocol::frame::boundaries_around;

/// Written bytes that are kept in front before the rest is moved down.
const COMPACT_BYTES: usize = 16 * 1024;

/// Frames that wait, of which the first may be partly written.
///
/// The buffer always starts at a frame's first byte, and is given back as soon as
/// it is empty: an idle socket has none.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    written: usize,
}

impl Outbox {
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
            && let Some((before, _)) = boundaries_around(&self.bytes, self.written)
        {
            self.bytes.drain(..before);
            self.written -= before;
        }
    }

    /// Drops every frame of which nothing was written yet.
    pub(super) fn cut(&mut self) {
        let end =
            boundaries_around(&self.bytes, self.written).map_or(self.written, |(_, after)| after);
        self.bytes.truncate(end);
        self.bytes.shrink_to_fit();
        self.advance(0);
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

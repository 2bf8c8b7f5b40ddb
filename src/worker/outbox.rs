//! What waits to be written to one socket: a run of whole frames.
//!
//! Small frames are copied into one buffer, which one system call writes. Large ones
//! are shared by all sockets of the worker that get them: copied, one event of 100 kB
//! for 2000 sockets would take 200 MB.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::rc::Rc;

use super::backlog::Backlog;
use crate::protocol::Frame;
use crate::protocol::frame::boundaries_around;

/// Written bytes that are kept in front before the rest is moved down.
const COMPACT_BYTES: usize = 16 * 1024;

/// Bytes from which on a frame is shared. Copying less costs about as much as an entry
/// of its own.
const SHARED_BYTES: usize = 8 * 1024;

/// What a shared frame costs each socket that it waits for.
const SHARED_OVERHEAD: usize = 64;

/// Pieces that one system call writes.
pub(super) const MAX_PIECES: usize = 16;

/// A frame on its way into out-buffers.
#[derive(Debug)]
pub(super) enum Outgoing<'a> {
    /// To be copied.
    Small(&'a Frame),
    /// To be shared.
    Large(Rc<LargeFrame>),
}

/// A frame that waits for several sockets, and counts once while it does.
#[derive(Debug)]
pub(super) struct LargeFrame {
    frame: Frame,
    backlog: Rc<Backlog>,
}

impl<'a> Outgoing<'a> {
    pub(super) fn new(frame: &'a Frame, backlog: &Rc<Backlog>) -> Self {
        if !is_large(frame) {
            return Self::Small(frame);
        }
        backlog.change(0, frame.len());
        Self::Large(Rc::new(LargeFrame {
            frame: frame.clone(),
            backlog: Rc::clone(backlog),
        }))
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Small(frame) => frame.len(),
            Self::Large(large) => large.frame.len(),
        }
    }

    /// What it costs each socket alone.
    pub(super) fn cost(&self) -> usize {
        match self {
            Self::Small(frame) => frame.len(),
            Self::Large(_) => SHARED_OVERHEAD,
        }
    }
}

/// Whether a frame is shared and not copied.
pub(super) fn is_large(frame: &Frame) -> bool {
    frame.len() >= SHARED_BYTES
}

impl Drop for LargeFrame {
    fn drop(&mut self) {
        self.backlog.change(self.frame.len(), 0);
    }
}

/// Frames that wait, of which the first may be partly written.
///
/// The buffer always starts at a frame's first byte, behind the head if there is
/// one, and is freed as soon as it is empty: an idle socket has none.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    written: usize,
    /// Bytes in front of the frames: the answer to the handshake.
    head: usize,
    /// What comes after `bytes`; only while a large frame waits.
    later: Option<Box<Later>>,
}

#[derive(Debug, Default)]
struct Later {
    pieces: VecDeque<Piece>,
    /// Bytes that wait in them.
    len: usize,
    /// What they cost this socket alone.
    cost: usize,
}

#[derive(Debug)]
enum Piece {
    /// Small frames.
    Copied(Vec<u8>),
    /// A large one, and how much of it is written.
    Large(Rc<LargeFrame>, usize),
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

    /// All that waits, behind the written part of the first frame: how many of the bytes are
    /// the head, how many are written, and the bytes.
    pub(super) fn into_bytes(mut self) -> (usize, usize, Vec<u8>) {
        if let Some((before, _)) = self.boundaries() {
            self.bytes.drain(..before);
            self.written -= before;
            self.head = self.head.saturating_sub(before);
        }
        let later = self.later.take();
        for piece in later.into_iter().flat_map(|later| later.pieces) {
            match piece {
                Piece::Copied(bytes) => self.bytes.extend_from_slice(&bytes),
                Piece::Large(large, written) => {
                    // Only what comes first can be partly written.
                    self.written += written;
                    self.bytes.extend_from_slice(large.frame.as_bytes());
                }
            }
        }
        (self.head, self.written, self.bytes)
    }

    /// What [`Self::into_bytes`] has returned.
    pub(super) fn from_bytes(bytes: Vec<u8>, head: usize, written: usize) -> Self {
        let mut out = Self {
            head: head.min(bytes.len()),
            written: written.min(bytes.len()),
            bytes,
            later: None,
        };
        out.advance(0);
        out
    }

    /// Puts bytes before all that waits, of which nothing is written.
    pub(super) fn put_after(&mut self, before: Self) {
        let after = std::mem::replace(self, before);
        self.copy(&after.bytes);
        self.later = after.later;
    }

    /// Appends a frame.
    pub(super) fn push(&mut self, frame: &Outgoing<'_>) {
        match frame {
            Outgoing::Small(frame) => self.copy(frame.as_bytes()),
            Outgoing::Large(large) => {
                let later = self.later.get_or_insert_default();
                later.len += large.frame.len();
                later.cost += SHARED_OVERHEAD;
                later.pieces.push_back(Piece::Large(Rc::clone(large), 0));
            }
        }
    }

    /// Appends a copy of whole frames.
    pub(super) fn copy(&mut self, frames: &[u8]) {
        let Some(later) = &mut self.later else {
            self.bytes.extend_from_slice(frames);
            return;
        };
        later.len += frames.len();
        later.cost += frames.len();
        if let Some(Piece::Copied(bytes)) = later.pieces.back_mut() {
            bytes.extend_from_slice(frames);
        } else {
            later.pieces.push_back(Piece::Copied(frames.to_vec()));
        }
    }

    /// What is to be written next, in one piece; not all that waits, if there are more.
    pub(super) fn waiting(&self) -> &[u8] {
        if self.written < self.bytes.len() {
            return &self.bytes[self.written..];
        }
        let first = self.later.as_ref().and_then(|later| later.pieces.front());
        first.map_or(&[], Piece::waiting)
    }

    /// Whether [`Self::waiting`] is all that waits.
    pub(super) fn is_one_piece(&self) -> bool {
        self.later.is_none()
    }

    /// What is to be written next. Returns how many slices that is.
    pub(super) fn waiting_slices<'a>(&'a self, slices: &mut [IoSlice<'a>; MAX_PIECES]) -> usize {
        let copied = &self.bytes[self.written..];
        let first = (!copied.is_empty()).then_some(copied);
        let later = self.later.iter().flat_map(|later| &later.pieces);
        let waiting = first.into_iter().chain(later.map(Piece::waiting));
        slices
            .iter_mut()
            .zip(waiting)
            .map(|(slice, bytes)| *slice = IoSlice::new(bytes))
            .count()
    }

    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.written + self.later.as_ref().map_or(0, |later| later.len)
    }

    /// Bytes that it takes, without those that are shared.
    pub(super) fn cost(&self) -> usize {
        self.bytes.len() + self.later.as_ref().map_or(0, |later| later.cost)
    }

    /// Records that the first `count` bytes of what waits were written.
    pub(super) fn advance(&mut self, count: usize) {
        let copied = count.min(self.bytes.len() - self.written);
        self.written += copied;
        if self.written == self.bytes.len() {
            (self.bytes, self.written, self.head) = (Vec::new(), 0, 0);
            if self.later.is_some() {
                self.advance_later(count - copied);
            }
        } else if self.written >= COMPACT_BYTES
            && self.written >= self.bytes.len() / 2
            && let Some((before, _)) = self.boundaries()
        {
            self.bytes.drain(..before);
            self.written -= before;
            self.head = self.head.saturating_sub(before);
        }
    }

    /// The same, when nothing waits in `bytes`: small frames that are next get there.
    fn advance_later(&mut self, mut count: usize) {
        while let Some(later) = &mut self.later {
            match later.pieces.pop_front() {
                None => self.later = None,
                Some(Piece::Large(large, written)) => {
                    let left = large.frame.len() - written;
                    if count < left {
                        later.len -= count;
                        let piece = Piece::Large(large, written + count);
                        later.pieces.push_front(piece);
                        return;
                    }
                    count -= left;
                    later.len -= left;
                    later.cost -= SHARED_OVERHEAD;
                }
                Some(Piece::Copied(bytes)) => {
                    later.len -= bytes.len();
                    later.cost -= bytes.len();
                    if later.pieces.is_empty() {
                        self.later = None;
                    }
                    if count < bytes.len() {
                        (self.bytes, self.written) = (bytes, count);
                        return;
                    }
                    count -= bytes.len();
                }
            }
        }
    }

    /// Drops every frame of which nothing was written yet.
    pub(super) fn cut(&mut self) {
        let started = self.later.take().and_then(|mut later| {
            let first = later.pieces.pop_front();
            first.filter(|piece| matches!(piece, Piece::Large(_, written) if *written > 0))
        });
        if let Some(piece) = started {
            self.later = Some(Box::new(Later {
                len: piece.waiting().len(),
                cost: SHARED_OVERHEAD,
                pieces: VecDeque::from([piece]),
            }));
            return;
        }
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

impl Piece {
    fn waiting(&self) -> &[u8] {
        match self {
            Self::Copied(bytes) => bytes,
            Self::Large(large, written) => &large.frame.as_bytes()[*written..],
        }
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
            out.copy(frame.as_bytes());
        }
        out.advance(ping.len() + 3);
        out.cut();
        assert_eq!(out.waiting(), &pong.as_bytes()[3..]);
        out.copy(ping.as_bytes());
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
            out.copy(ping.as_bytes());
            out.copy(ping.as_bytes());
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
            out.copy(frame.as_bytes());
            expected.extend_from_slice(frame.as_bytes());
            let count = frame.len().min(out.len() - 1);
            got.extend_from_slice(&out.waiting()[..count]);
            out.advance(count);
        }
        assert!(out.bytes.len() < 3 * COMPACT_BYTES, "{}", out.bytes.len());
        got.extend_from_slice(out.waiting());
        assert_eq!(got, expected);
    }

    /// Random steps beside a plain list of frames, which is what it stands for.
    #[test]
    fn large_frames_keep_their_place_among_small_ones() {
        let channel = crate::protocol::ChannelName::parse("a", 164).unwrap();
        let backlog = Backlog::for_worker(&Backlog::total(usize::MAX));
        let mut random = 1u32;
        let mut next = |below: usize| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 8) as usize % below
        };
        let mut out = Outbox::default();
        // Frames, and how much of the first is written.
        let mut expected: VecDeque<Vec<u8>> = VecDeque::new();
        let mut written = 0;
        for _ in 0..1500 {
            match next(8) {
                0..=3 if out.len() < 200_000 => {
                    let size = [10, 3000, 9000, 20_000][next(4)];
                    let data = format!("\"{}\"", "x".repeat(size + next(10)));
                    let frame = message::event("\"e\"", &data, &channel);
                    expected.push_back(frame.as_bytes().to_vec());
                    out.push(&Outgoing::new(&frame, &backlog));
                }
                4..=6 => {
                    let mut count = next(out.len().min(40_000) + 1);
                    out.advance(count);
                    while count > 0 {
                        let left = expected[0].len() - written;
                        if count < left {
                            written += count;
                            break;
                        }
                        count -= left;
                        written = 0;
                        expected.pop_front();
                    }
                }
                _ if next(20) == 0 => {
                    out.cut();
                    expected.truncate(usize::from(written > 0));
                }
                _ => {}
            }
            let flat: Vec<u8> = expected.iter().flatten().skip(written).copied().collect();
            assert_eq!(out.len(), flat.len());
            let mut slices = [IoSlice::new(&[]); MAX_PIECES];
            let count = out.waiting_slices(&mut slices);
            let written: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
            assert_eq!(written, flat[..written.len()]);
            assert!(flat.starts_with(out.waiting()) && (flat.is_empty() || count > 0));
            assert!(!out.is_one_piece() || out.waiting().len() == flat.len());
            assert!(out.cost() <= flat.len() + 3 * COMPACT_BYTES);
        }
        out.advance(out.len());
        assert!(out.later.is_none() && out.cost() == 0);
        assert!(backlog.is_empty(), "a large frame counts while it waits");
    }
}

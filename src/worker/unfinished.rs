//! What the parser of a connection holds: bytes that it was given and has not returned as
//! a message.
//!
//! tungstenite's state cannot be read, and it takes more than it has parsed. So the headers
//! of the frames that it was given are followed here. Between messages, where nearly all
//! connections are nearly always, there is nothing to keep.
//!
//! What is kept is bounded by what the parser takes: fragments are put together, as it
//! does, so that empty ones add nothing; control frames that it has returned are dropped.

/// Bit of a frame's first byte: it is a message's last.
const FINAL: u8 = 0x80;

/// Bits that only extensions set.
const RESERVED: u8 = 0x70;

const OPCODE: u8 = 0x0f;

/// Bit of a frame's second byte.
const MASKED: u8 = 0x80;

/// Bytes of the longest header.
const MAX_HEADER: usize = 14;

/// What the parser holds of a message that is not whole.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Unfinished {
    /// The opcode of the message whose fragments these are; 0 if there are none.
    opcode: u8,
    /// The payload of the fragments, unmasked.
    payload: Vec<u8>,
    /// What follows them.
    frames: Vec<u8>,
}

/// The header of a frame, and how long the frame is.
struct Header {
    first: u8,
    mask: Option<[u8; 4]>,
    header_len: usize,
    frame_len: usize,
}

impl Header {
    /// `None` if it is cut off.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let [first, second, ..] = *bytes else {
            return None;
        };
        let (mut header_len, payload_len) = match second & !MASKED {
            126 => {
                let length = bytes.get(2..4)?.try_into().ok()?;
                (4, u64::from(u16::from_be_bytes(length)))
            }
            127 => {
                let length = bytes.get(2..10)?.try_into().ok()?;
                (10, u64::from_be_bytes(length))
            }
            length => (2, u64::from(length)),
        };
        let mut mask = None;
        if second & MASKED != 0 {
            mask = Some(bytes.get(header_len..header_len + 4)?.try_into().ok()?);
            header_len += 4;
        }
        let payload_len = usize::try_from(payload_len).unwrap_or(usize::MAX);
        Some(Self {
            first,
            mask,
            header_len,
            frame_len: header_len.saturating_add(payload_len),
        })
    }

    /// The header of the next frame, if all of it is there.
    fn of_whole(bytes: &[u8]) -> Option<Self> {
        Self::parse(bytes).filter(|header| header.frame_len <= bytes.len())
    }

    fn opcode(&self) -> u8 {
        self.first & OPCODE
    }

    fn is_control(&self) -> bool {
        self.opcode() >= 8
    }

    fn is_final(&self) -> bool {
        self.first & FINAL != 0
    }
}

impl Unfinished {
    /// What the parser holds that held `held`, was given `read`, and has returned so many
    /// messages, control frames among them.
    pub(super) fn after(
        held: Option<Box<Self>>,
        read: &[u8],
        messages: usize,
    ) -> Option<Box<Self>> {
        // Nearly all that is read is whole messages of one frame: only their headers are
        // looked at, and only what follows them is copied.
        let mut held = held.unwrap_or_default();
        let (read, messages) = held.complete(read, messages);
        let (read, messages) = if held.is_empty() {
            skip_messages(read, messages)
        } else {
            (read, messages)
        };
        held.frames.extend_from_slice(read);
        held.drop_returned(messages);
        (!held.is_empty()).then_some(held)
    }

    fn is_empty(&self) -> bool {
        self.opcode == 0 && self.frames.is_empty()
    }

    /// Drops the frame that is held if what is read completes it and it is a message, and
    /// returns what follows.
    fn complete<'r>(&mut self, read: &'r [u8], messages: usize) -> (&'r [u8], usize) {
        let begin = self.frames.len();
        if self.opcode != 0 || begin == 0 || messages == 0 {
            return (read, messages);
        }
        let header = &read[..read.len().min(MAX_HEADER)];
        self.frames.extend_from_slice(header);
        let whole = Header::parse(&self.frames).filter(|header| {
            header.is_final() && (begin..=begin + read.len()).contains(&header.frame_len)
        });
        let Some(whole) = whole else {
            self.frames.truncate(begin);
            return (read, messages);
        };
        self.frames.clear();
        (&read[whole.frame_len - begin..], messages - 1)
    }

    /// Drops what the messages were made of, and puts the fragments after them together.
    fn drop_returned(&mut self, mut messages: usize) {
        let mut at = 0;
        while let Some(header) = Header::of_whole(&self.frames[at..]) {
            if messages == 0 && !self.continues_with(&header) {
                break;
            }
            let payload = at + header.header_len..at + header.frame_len;
            at = payload.end;
            if !header.is_control() && !header.is_final() {
                if self.opcode == 0 {
                    self.opcode = header.opcode();
                }
                let payload = self.frames[payload].iter().zip(0..);
                let mask = header.mask.unwrap_or_default();
                let unmasked = payload.map(|(byte, index): (&u8, usize)| byte ^ mask[index % 4]);
                self.payload.extend(unmasked);
                continue;
            }
            messages = messages.saturating_sub(1);
            if !header.is_control() {
                (self.opcode, self.payload) = (0, Vec::new());
            }
        }
        self.frames.drain(..at);
    }

    /// Whether a frame is a fragment that can stand where it does. What is wrong is left for
    /// the parser to find.
    fn continues_with(&self, header: &Header) -> bool {
        let is_expected = match header.opcode() {
            0 => self.opcode != 0,
            opcode => self.opcode == 0 && opcode <= 2,
        };
        is_expected && header.first & (FINAL | RESERVED) == 0 && header.mask.is_some()
    }

    /// Frames that bring another parser to where this one is, from between two messages.
    pub(super) fn to_frames(&self) -> Vec<u8> {
        if self.opcode == 0 {
            return self.frames.clone();
        }
        let mut frames = Vec::with_capacity(self.payload.len() + self.frames.len() + 14);
        frames.push(self.opcode);
        match self.payload.len() {
            length @ 0..126 => frames.push(MASKED | u8::try_from(length).unwrap_or_default()),
            length => {
                frames.push(MASKED | 127);
                frames.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        // The mask that changes nothing.
        frames.extend_from_slice(&[0; 4]);
        frames.extend_from_slice(&self.payload);
        frames.extend_from_slice(&self.frames);
        frames
    }
}

/// What follows those messages that are of one frame each, and how many there are in it.
fn skip_messages(mut read: &[u8], mut messages: usize) -> (&[u8], usize) {
    while messages > 0
        && let Some(frame_len) = message_len(read)
        && frame_len <= read.len()
    {
        read = &read[frame_len..];
        messages -= 1;
    }
    (read, messages)
}

/// The length of a frame that is a message by itself.
fn message_len(bytes: &[u8]) -> Option<usize> {
    match *bytes {
        // By far the most: a short one of a client.
        [first, second, ..] if first & FINAL != 0 && (MASKED..MASKED + 126).contains(&second) => {
            Some(usize::from(second - MASKED) + 6)
        }
        _ => {
            let header = Header::parse(bytes).filter(Header::is_final)?;
            Some(header.frame_len)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [7, 11, 13, 17];
        let mut frame = vec![first];
        match payload.len() {
            length @ 0..126 => frame.push(MASKED | length as u8),
            length => {
                frame.push(MASKED | 126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
        }
        frame.extend_from_slice(&mask);
        frame.extend(payload.iter().zip(0..).map(|(byte, i)| byte ^ mask[i % 4]));
        frame
    }

    #[test]
    fn between_messages_nothing_is_held() {
        let message = frame(FINAL | 1, b"hello");
        let ping = frame(FINAL | 9, b"");
        let read = [&message[..], &ping, &message].concat();
        assert_eq!(Unfinished::after(None, &read, 3), None);
        assert_eq!(Unfinished::after(None, &[], 0), None);
    }

    /// Whatever is cut where: what is held and what follows are the same messages.
    #[test]
    fn a_parser_can_go_on_at_any_byte() {
        let long = vec![b'x'; 300];
        let parts = [
            (frame(FINAL | 1, b"whole"), 1),
            (frame(1, b"he"), 0),
            (frame(FINAL | 9, b"ping"), 1),
            (frame(0, &long), 0),
            (frame(0, b""), 0),
            (frame(FINAL | 10, b""), 1),
            (frame(FINAL, b"llo"), 1),
            (frame(FINAL | 2, &long), 1),
        ];
        let all: Vec<u8> = parts.iter().flat_map(|(frame, _)| frame.clone()).collect();
        for step in [1, 2, 7, 50, all.len()] {
            let (mut held, mut given) = (None, 0);
            let mut returned = 0;
            while given < all.len() {
                let read = &all[given..all.len().min(given + step)];
                given += read.len();
                let (mut end, mut messages) = (0, 0);
                for (frame, count) in &parts {
                    end += frame.len();
                    messages += if end <= given { *count } else { 0 };
                }
                held = Unfinished::after(held, read, messages - returned);
                returned = messages;
                let frames = held.as_ref().map(|held| held.to_frames());
                let again = Unfinished::after(None, &frames.unwrap_or_default(), 0);
                assert_eq!(again, held, "after {given} bytes in steps of {step}");
            }
            assert_eq!(held, None);
        }
    }

    #[test]
    fn what_the_parser_took_and_has_not_returned_is_kept_as_it_is() {
        let (message, ping) = (frame(FINAL | 1, b"hello"), frame(FINAL | 9, b""));
        let read = [&message[..], &ping, &message[..3]].concat();
        let held = Unfinished::after(None, &read, 1).unwrap();
        assert_eq!(held.to_frames(), read[message.len()..]);
        assert_eq!(Unfinished::after(Some(held), &message[3..], 2), None);
    }

    #[test]
    fn empty_fragments_add_nothing() {
        let mut held = Unfinished::after(None, &frame(1, b"a"), 0);
        for _ in 0..1000 {
            held = Unfinished::after(held, &frame(0, b""), 0);
        }
        assert_eq!(held.unwrap().to_frames().len(), 7);
    }
}

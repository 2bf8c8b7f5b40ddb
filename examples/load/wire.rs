//! WebSocket frames as this client meets them: parsed in place where the
//! server's bytes were read to, and masked on the way out.
//!
//! This is not a WebSocket library. It knows whole, unmasked frames from the
//! server only, and it does not verify `Sec-WebSocket-Accept`: what it measures
//! is how a server delivers, not whether it speaks the protocol properly.

use crate::Outcome;

pub(crate) const TEXT: u8 = 0x1;
pub(crate) const PONG: u8 = 0xA;
pub(crate) const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;

/// A message longer than this is a broken header and not a message.
const MAX_MESSAGE: u64 = 1 << 20;

/// A whole frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    Text(&'a [u8]),
    Ping(&'a [u8]),
    Pong,
    Close(&'a [u8]),
}

/// The first frame of the bytes and how many bytes it takes; none while they
/// do not hold all of it.
#[inline]
pub(crate) fn first_frame(bytes: &[u8]) -> Outcome<Option<(Frame<'_>, usize)>> {
    let (header, length) = match *bytes {
        [_, length @ 0..=125, ..] => (2, usize::from(length)),
        [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([high, low]))),
        [_, 127, a, b, c, d, e, f, g, h, ..] => {
            let length = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
            if length > MAX_MESSAGE {
                return Err(format!("a frame claims to be {length} bytes long").into());
            }
            (10, length as usize)
        }
        [_, 128..=255, ..] => return Err("the server masked a frame, which it must not".into()),
        _ => return Ok(None),
    };
    let Some(payload) = bytes.get(header..header + length) else {
        return Ok(None);
    };
    let frame = match bytes[0] {
        0x81 => Frame::Text(payload),
        first => rare_frame(first, payload)?,
    };
    Ok(Some((frame, header + length)))
}

#[cold]
fn rare_frame(first: u8, payload: &[u8]) -> Outcome<Frame<'_>> {
    match (first & 0xF0, first & 0x0F) {
        (0x80, PING) => Ok(Frame::Ping(payload)),
        (0x80, PONG) => Ok(Frame::Pong),
        (0x80, CLOSE) => Ok(Frame::Close(payload)),
        _ => {
            Err(format!("a frame begins with {first:#04x}, which no whole text frame does").into())
        }
    }
}

/// One masked frame of the client. The mask is the same every time, because it
/// defends against proxies and there are none on the loopback.
pub(crate) fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
    let mut frame = vec![0x80 | opcode];
    match u16::try_from(payload.len()) {
        Ok(length @ 0..=125) => frame.push(0x80 | length as u8),
        Ok(length) => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
        Err(_) => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

#[cfg(test)]
mod tests {
    use super::{Frame, first_frame};

    #[test]
    fn a_frame_is_taken_only_when_it_is_whole() {
        let mut bytes = vec![0x81, 126, 0, 200];
        bytes.extend_from_slice(&[b'x'; 200]);
        bytes.extend_from_slice(&[0x89, 0]);
        for cut in 0..204 {
            assert_eq!(first_frame(&bytes[..cut]).expect("it is well formed"), None);
        }
        let (frame, length) = first_frame(&bytes)
            .expect("it is well formed")
            .expect("it is whole");
        assert_eq!((frame, length), (Frame::Text(&[b'x'; 200]), 204));
        let (frame, length) = first_frame(&bytes[204..])
            .expect("it is well formed")
            .expect("it is whole");
        assert_eq!((frame, length), (Frame::Ping(&[]), 2));
    }
}

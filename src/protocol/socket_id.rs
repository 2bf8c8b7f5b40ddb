//! The id that a connection is known by.

use std::fmt;

/// `123.456`: two numbers joined by a dot.
///
/// pusher-http-php refuses any other form (`^\d+\.\d+$`). Both numbers lie
/// between 1 and 10⁹, as Reverb's do.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SocketId {
    high: u32,
    low: u32,
}

impl SocketId {
    const RANGE: u32 = 1_000_000_000;

    /// Makes an id out of 64 random bits.
    pub fn from_random(bits: u64) -> Self {
        let bytes = bits.to_le_bytes();
        let half = |b: [u8; 4]| u32::from_le_bytes(b) % Self::RANGE + 1;
        Self {
            high: half([bytes[0], bytes[1], bytes[2], bytes[3]]),
            low: half([bytes[4], bytes[5], bytes[6], bytes[7]]),
        }
    }

    /// Reads an id that this server could have given out; `None` for any other
    /// text, which then is nobody's id.
    pub fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.split_once('.')?;
        let number = |digits: &str| {
            let canonical = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
            digits
                .parse()
                .ok()
                .filter(|n| canonical && (1..=Self::RANGE).contains(n))
        };
        Some(Self {
            high: number(high)?,
            low: number(low)?,
        })
    }
}

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.high, self.low)
    }
}

impl fmt::Debug for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back() {
        for bits in [0, 1, u64::MAX, 0x1234_5678_9abc_def0] {
            let id = SocketId::from_random(bits);
            assert_eq!(SocketId::parse(&id.to_string()), Some(id));
        }
    }

    #[test]
    fn other_forms_are_nobodys_id() {
        for text in [
            "",
            "1",
            "1.",
            ".1",
            "1.2.3",
            "a.b",
            "-1.2",
            "01.2",
            "0.1",
            "1.+2",
            "1.9999999999",
        ] {
            assert_eq!(SocketId::parse(text), None, "{text}");
        }
    }
}

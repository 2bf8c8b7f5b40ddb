//! A timer wheel of one-second slots: who has to be looked at, and when.
//!
//! It knows no clock; each [`Wheel::turn`] is one second. A socket that was active
//! in between is not moved: it is looked at when its old time comes, and put in
//! again. So activity costs nothing, and an idle socket costs one entry.

use std::time::Duration;

use crate::protocol::SocketId;

/// How much time one slot stands for.
pub(super) const BEAT: Duration = Duration::from_secs(1);

/// Slots; what is due later is looked at early and put in again.
const SLOTS: usize = 512;

/// Keys of sockets by the second in which they are due. The id tells a socket
/// from a later one that was given the same key.
pub(super) struct Wheel {
    slots: Box<[Vec<(usize, SocketId)>]>,
    position: usize,
}

impl Wheel {
    pub(super) fn new() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            position: 0,
        }
    }

    /// Has a socket looked at in `after`, rounded up to whole seconds.
    pub(super) fn add(&mut self, after: Duration, key: usize, id: SocketId) {
        let seconds = usize::try_from(after.as_millis().div_ceil(1000)).unwrap_or(usize::MAX);
        let slot = (self.position + seconds.clamp(1, SLOTS - 1)) % SLOTS;
        self.slots[slot].push((key, id));
    }

    /// One second has passed: returns who is due.
    pub(super) fn turn(&mut self) -> Vec<(usize, SocketId)> {
        self.position = (self.position + 1) % SLOTS;
        std::mem::take(&mut self.slots[self.position])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_due_in_their_second() {
        let id = SocketId::from_random(1);
        let mut wheel = Wheel::new();
        wheel.add(Duration::from_secs(2), 2, id);
        wheel.add(Duration::ZERO, 0, id);
        wheel.add(Duration::from_millis(1001), 1, id);
        wheel.add(Duration::from_secs(1_000_000), 9, id);
        let due: Vec<Vec<usize>> = (1..SLOTS)
            .map(|_| wheel.turn().into_iter().map(|(key, _)| key).collect())
            .collect();
        assert_eq!(due[0], [0]);
        assert_eq!(due[1], [2, 1]);
        assert!(due[2..SLOTS - 2].iter().all(Vec::is_empty));
        assert_eq!(
            due[SLOTS - 2],
            [9],
            "too far for the wheel: looked at as late as it can"
        );
    }
}

//! What tungstenite reads from and writes to.

use std::cell::RefCell;
use std::io::{self, Read, Write};

use crate::worker::outbox::Outbox;

/// What tungstenite reads from and writes to: bytes already read, and the
/// out-buffer, so that its frames stay whole between broadcasts.
pub(super) struct Stream<'i, 'o> {
    pub(super) input: &'i [u8],
    pub(super) out: &'o RefCell<Outbox>,
}

impl Read for Stream<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.input.read(buffer)? {
            0 if !buffer.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }
}

impl Write for Stream<'_, '_> {
    fn write(&mut self, frames: &[u8]) -> io::Result<usize> {
        self.out.borrow_mut().copy(frames);
        Ok(frames.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

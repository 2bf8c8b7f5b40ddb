//! The pages that connections were opened from, each once: thousands of connections come
//! from a few pages, and each of them holds a pointer.
//!
//! One table per worker, without a lock. What nobody holds is dropped when the table has
//! grown to twice of what was held before.

use std::borrow::Borrow;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;

/// Bytes of an origin; browsers send a scheme, a host and perhaps a port. A longer one is
/// not kept.
const MAX_BYTES: usize = 512;

/// Origins from which on those that nobody holds are dropped.
const MIN_SWEEP: usize = 64;

/// An `Origin` header. Of the size of a pointer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin(Rc<Box<str>>);

#[derive(Debug)]
pub(super) struct Origins {
    known: RefCell<HashSet<Origin>>,
    sweep_at: Cell<usize>,
}

impl Origin {
    /// As it was sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Origin {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Default for Origins {
    fn default() -> Self {
        Self {
            known: RefCell::default(),
            sweep_at: Cell::new(MIN_SWEEP),
        }
    }
}

impl Origins {
    /// The one of this text; `None` if it is too long.
    pub(super) fn intern(&self, text: &str) -> Option<Origin> {
        if text.len() > MAX_BYTES {
            return None;
        }
        let mut known = self.known.borrow_mut();
        if let Some(origin) = known.get(text) {
            return Some(origin.clone());
        }
        if known.len() >= self.sweep_at.get() {
            known.retain(|origin| Rc::strong_count(&origin.0) > 1);
            self.sweep_at.set(MIN_SWEEP.max(2 * known.len()));
        }
        let origin = Origin(Rc::new(text.into()));
        known.insert(origin.clone());
        Some(origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_held_once_and_forgotten_when_nobody_is_from_it() {
        let origins = Origins::default();
        let one = origins.intern("https://example.com").unwrap();
        let other = origins.intern("https://example.com").unwrap();
        assert!(Rc::ptr_eq(&one.0, &other.0) && other.as_str() == "https://example.com");
        assert_eq!(size_of::<Option<Origin>>(), 8);
        for n in 0..10_000 {
            origins.intern(&format!("https://{n}.example.com"));
        }
        assert!(origins.known.borrow().len() <= 2 * MIN_SWEEP);
        let again = origins.intern("https://example.com").unwrap();
        assert!(Rc::ptr_eq(&one.0, &again.0));
        assert_eq!(origins.intern(&"x".repeat(MAX_BYTES + 1)), None);
    }
}

//! By what the lines of one request are found: the id that its sender or a proxy has given
//! it, or one of ours, and the trace it is part of.

use std::cell::Cell;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");

/// Bytes of an id that is taken over.
const MAX_ID: usize = 128;

/// What one request is called.
#[derive(Clone, Copy, Debug)]
pub struct RequestIds<'h> {
    id: Id<'h>,
    pub(super) trace: Option<TraceParent<'h>>,
}

#[derive(Clone, Copy, Debug)]
enum Id<'h> {
    Given(&'h HeaderValue, &'h str),
    /// Hex digits.
    Made([u8; 16]),
}

/// The trace and the span in it that a request comes from (W3C Trace Context, 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TraceParent<'h> {
    /// 32 hex digits.
    pub(super) trace_id: &'h str,
    /// 16 hex digits.
    pub(super) span_id: &'h str,
}

impl<'h> RequestIds<'h> {
    /// Those of a request with these headers.
    pub fn of(headers: &'h HeaderMap) -> Self {
        let given = headers
            .get(REQUEST_ID)
            .and_then(|value| Some(Id::Given(value, printable(value)?)));
        let mut parents = headers.get_all(TRACE_PARENT).iter();
        let trace = match (parents.next(), parents.next()) {
            (Some(parent), None) => parent.to_str().ok().and_then(TraceParent::parse),
            _ => None,
        };
        Self {
            id: given.unwrap_or_else(|| Id::Made(hex_digits(next_random()))),
            trace,
        }
    }

    /// The id.
    pub fn id(&self) -> &str {
        match &self.id {
            Id::Given(_, text) => text,
            Id::Made(digits) => std::str::from_utf8(digits).expect("hex digits are ASCII"),
        }
    }

    pub(super) fn trace_id(&self) -> Option<&'h str> {
        self.trace.map(|trace| trace.trace_id)
    }

    pub(super) fn span_id(&self) -> Option<&'h str> {
        self.trace.map(|trace| trace.span_id)
    }

    /// Gives the id back with the answer.
    pub fn add_to(&self, headers: &mut HeaderMap) {
        let value = match &self.id {
            Id::Given(value, _) => (*value).clone(),
            Id::Made(digits) => HeaderValue::from_bytes(digits).expect("hex digits are ASCII"),
        };
        headers.insert(REQUEST_ID, value);
    }
}

fn printable(value: &HeaderValue) -> Option<&str> {
    let is_printable = |byte: &u8| (0x20..0x7f).contains(byte);
    let bytes = value.as_bytes();
    let fits = (1..=MAX_ID).contains(&bytes.len()) && bytes.iter().all(is_printable);
    value.to_str().ok().filter(|_| fits)
}

impl<'h> TraceParent<'h> {
    /// `version-trace-parent-flags`. A later version may have more behind the flags.
    fn parse(text: &'h str) -> Option<Self> {
        let mut parts = text.splitn(5, '-');
        let mut next = |digits: usize| parts.next().filter(|part| is_hex(part, digits));
        let (version, trace_id) = (next(2)?, next(32)?);
        let (span_id, _flags) = (next(16)?, next(2)?);
        let is_zero = |id: &str| id.bytes().all(|byte| byte == b'0');
        let is_known = version != "ff" && (version != "00" || parts.next().is_none());
        (is_known && !is_zero(trace_id) && !is_zero(span_id)).then_some(Self { trace_id, span_id })
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

thread_local! {
    static STATE: Cell<u64> = Cell::new(seed());
}

fn seed() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    u64::from_ne_bytes(bytes)
}

/// A number that this thread has not had and others hardly have, without asking the system
/// each time (SplitMix64, after Steele, Lea and Flood).
fn next_random() -> u64 {
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn hex_digits(number: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    hex::encode_to_slice(number.to_be_bytes(), &mut digits).expect("8 bytes are 16 digits");
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn headers(pairs: &[(&HeaderName, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| ((*name).clone(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn an_id_of_printable_ascii_is_taken_and_given_back() {
        let long = "x".repeat(128);
        for id in ["a", "7d7e-4c1f/3", "with space \"=", &long] {
            let headers = headers(&[(&REQUEST_ID, id)]);
            let ids = RequestIds::of(&headers);
            let mut answer = HeaderMap::new();
            ids.add_to(&mut answer);
            assert_eq!((ids.id(), answer[REQUEST_ID].to_str().unwrap()), (id, id));
        }
    }

    #[test]
    fn without_a_usable_one_each_request_gets_a_new_id() {
        let long = "x".repeat(129);
        let mut seen = std::collections::HashSet::new();
        for id in ["", &long, "größe", "a\tb"] {
            let headers = headers(&[(&REQUEST_ID, id)]);
            let ids = RequestIds::of(&headers);
            assert!(
                is_hex(ids.id(), 16) && seen.insert(ids.id().to_owned()),
                "{id}"
            );
        }
        let none = HeaderMap::new();
        let more = (0..10_000).map(|_| RequestIds::of(&none).id().to_owned());
        assert_eq!(more.collect::<std::collections::HashSet<_>>().len(), 10_000);
    }

    #[test]
    fn a_trace_parent_is_read_strictly() {
        let some = Some(TraceParent {
            trace_id: TRACE,
            span_id: SPAN,
        });
        for (text, expected) in [
            (format!("00-{TRACE}-{SPAN}-01"), some),
            (format!("00-{TRACE}-{SPAN}-00"), some),
            (format!("cc-{TRACE}-{SPAN}-01-what-comes-later"), some),
            (format!("cc-{TRACE}-{SPAN}-01"), some),
            (format!("00-{TRACE}-{SPAN}-01-more"), None),
            (format!("00-{TRACE}-{SPAN}-01-"), None),
            (format!("ff-{TRACE}-{SPAN}-01"), None),
            (format!("00-{}-{SPAN}-01", "0".repeat(32)), None),
            (format!("00-{TRACE}-{}-01", "0".repeat(16)), None),
            (format!("00-{}-{SPAN}-01", TRACE.to_uppercase()), None),
            (format!("00-{TRACE}-{SPAN}"), None),
            (format!("00-{TRACE}-{SPAN}-1"), None),
            (format!("0-{TRACE}-{SPAN}-01"), None),
            (format!("00-{SPAN}-{TRACE}-01"), None),
            (String::new(), None),
        ] {
            assert_eq!(TraceParent::parse(&text), expected, "{text}");
            let headers = headers(&[(&TRACE_PARENT, &text)]);
            assert_eq!(RequestIds::of(&headers).trace, expected);
        }
        let one = format!("00-{TRACE}-{SPAN}-01");
        let mut two = headers(&[(&TRACE_PARENT, &one)]);
        two.append(TRACE_PARENT, HeaderValue::from_str(&one).unwrap());
        assert_eq!(RequestIds::of(&two).trace, None);
    }
}

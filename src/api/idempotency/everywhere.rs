//! A claim that all nodes know, and how it is written in Redis.
//!
//! | text | means |
//! |---|---|
//! | `p`, fingerprint, random | it is being carried out |
//! | `b`, fingerprint, number | it broke off behind so many events |
//! | `d`, fingerprint, what is missing, `\n`, body | it was answered so |

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::store::{Answer, Claim, Fingerprint, Request};
use crate::api::ApiError;
use crate::broker::Claims;

/// How long a claim of a node that died holds up the same request: longer than one may take.
const PENDING: Duration = Duration::from_secs(15);

/// How often it is looked whether another node has answered.
const PAUSE: Duration = Duration::from_millis(50);

/// What other nodes know of a request.
pub(super) enum Outcome {
    /// Nothing, or none is known of.
    New,
    /// It was answered.
    Answered(Answer),
    /// Its key was used for something else.
    Reused,
}

#[derive(Debug, PartialEq, Eq)]
enum Known {
    Pending,
    Begun(usize),
    Answered(Answer),
}

/// A request that other nodes know to be carried out here. Dropped without an answer, they know
/// that it is not: also if nobody waited for Redis to say whether it was claimed.
pub(super) struct Shared<'c> {
    claims: Claims,
    claim: &'c Claim,
    /// What says that it is carried out here, and by nobody else.
    ours: Vec<u8>,
    /// Whether it is to be said that it is given up.
    is_ours: Cell<bool>,
}

impl<'c> Shared<'c> {
    pub(super) fn new(claims: Claims, claim: &'c Claim) -> Self {
        let mut random = [0; 8];
        getrandom::fill(&mut random).expect("the system has random numbers");
        Self {
            ours: written(b'p', &claim.request().fingerprint, &random),
            claims,
            claim,
            is_ours: Cell::new(false),
        }
    }

    /// Claims the request on all nodes; waits while another one carries it out.
    pub(super) async fn claim(&self, deadline: Instant) -> Result<Outcome, ApiError> {
        let Request { fingerprint, .. } = self.claim.request();
        loop {
            self.is_ours.set(true);
            let known = self.claims.claim(self.ours.clone(), PENDING).await;
            let Some(Some(text)) = known else {
                return Ok(Outcome::New);
            };
            // Somebody else's, but for one that was given up.
            let known = read(&text);
            let is_begun = matches!(&known, Some((other, Known::Begun(_))) if other == fingerprint);
            self.is_ours.set(is_begun);
            match known {
                Some((other, _)) if other != *fingerprint => return Ok(Outcome::Reused),
                Some((_, Known::Answered(answer))) => return Ok(Outcome::Answered(answer)),
                Some((_, Known::Begun(count))) => {
                    let published = self.claim.published();
                    published.set(published.get().max(count));
                    return Ok(Outcome::New);
                }
                Some((_, Known::Pending)) if Instant::now() >= deadline => {
                    return Err(ApiError::InProgress);
                }
                Some((_, Known::Pending)) => sleep(PAUSE).await,
                // None of ours.
                None => return Ok(Outcome::New),
            }
        }
    }

    /// They know now how it was answered.
    pub(super) fn answer(&self, answer: &Answer) {
        let Request {
            fingerprint, ttl, ..
        } = self.claim.request();
        let partial = answer.partial.as_deref().unwrap_or_default();
        let rest = [partial.as_bytes(), b"\n", &answer.body].concat();
        let text = written(b'd', fingerprint, &rest);
        self.claims.put(&self.ours, (Some(text), *ttl));
        self.is_ours.set(false);
    }
}

impl Drop for Shared<'_> {
    fn drop(&mut self) {
        if !self.is_ours.get() {
            return;
        }
        let Request {
            fingerprint, ttl, ..
        } = self.claim.request();
        let begun = match self.claim.published().get() {
            0 => None,
            count => Some(written(b'b', fingerprint, count.to_string().as_bytes())),
        };
        self.claims.put(&self.ours, (begun, *ttl));
    }
}

fn written(state: u8, fingerprint: &Fingerprint, rest: &[u8]) -> Vec<u8> {
    [&[state], &fingerprint[..], rest].concat()
}

fn read(text: &[u8]) -> Option<(Fingerprint, Known)> {
    let (state, text) = text.split_first()?;
    let (fingerprint, rest) = text.split_first_chunk()?;
    let known = match state {
        b'p' => Known::Pending,
        b'b' => Known::Begun(std::str::from_utf8(rest).ok()?.parse().ok()?),
        b'd' => {
            let end = rest.iter().position(|byte| *byte == b'\n')?;
            let partial = std::str::from_utf8(&rest[..end]).ok()?;
            Known::Answered(Answer {
                body: Bytes::copy_from_slice(&rest[end + 1..]),
                partial: (!partial.is_empty()).then(|| partial.into()),
            })
        }
        _ => return None,
    };
    Some((*fingerprint, known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let fingerprint = *b"\n23456789abcdef\0";
        for (state, rest, known) in [
            (b'p', &b""[..], Known::Pending),
            (b'b', b"7", Known::Begun(7)),
            (
                b'd',
                b"\n{\"a\":\"\n\"}",
                Known::Answered(Answer {
                    body: Bytes::from_static(b"{\"a\":\"\n\"}"),
                    partial: None,
                }),
            ),
            (
                b'd',
                b"no link\n{}",
                Known::Answered(Answer {
                    body: Bytes::from_static(b"{}"),
                    partial: Some("no link".into()),
                }),
            ),
        ] {
            let text = written(state, &fingerprint, rest);
            assert_eq!(read(&text), Some((fingerprint, known)));
        }
        for broken in [
            &b""[..],
            b"p",
            b"x0123456789abcdef",
            b"b0123456789abcdef-1",
            b"d0123456789abcdef{}",
        ] {
            assert_eq!(read(broken), None, "{broken:?}");
        }
    }
}

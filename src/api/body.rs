//! Reads a request's body within its limits.

use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header;
use hyper::http::request::Parts;
use tokio::time::timeout;

use super::ApiError;

/// Bytes over the limit that are read and thrown away, so that a client that is
/// still sending gets to read why its request is refused.
const MAX_DISCARDED: usize = 8 << 20;

/// Reads a body that nobody wants, so that its sender gets to read why.
pub(super) async fn discard(mut body: Incoming, time: Duration) {
    let reading = async {
        let mut size = 0;
        while let Some(Ok(frame)) = body.frame().await {
            size += frame.data_ref().map_or(0, Bytes::len);
            if size > MAX_DISCARDED {
                return;
            }
        }
    };
    // Whoever is slower than this does not get to read it.
    let _ = timeout(time, reading).await;
}

/// The whole body.
pub(super) async fn read(
    head: &Parts,
    body: Incoming,
    limit: usize,
    time: Duration,
) -> Result<Bytes, ApiError> {
    let declared = head
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let mut collecting = pin!(collect(body, limit, declared));
    // A small body has come with its head, and needs no timer.
    if let Some(done) = collecting.as_mut().now_or_never() {
        return done;
    }
    timeout(time, collecting)
        .await
        .unwrap_or(Err(ApiError::Timeout))
}

async fn collect(
    mut body: Incoming,
    limit: usize,
    declared: Option<usize>,
) -> Result<Bytes, ApiError> {
    if declared.is_some_and(|size| size > limit.saturating_add(MAX_DISCARDED)) {
        return Err(ApiError::TooLarge {
            size: declared.unwrap_or_default(),
            limit,
        });
    }
    let mut whole = Bytes::new();
    let mut pieces = BytesMut::new();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(ApiError::from_body)?.into_data() else {
            continue;
        };
        size += data.len();
        if size > limit.saturating_add(MAX_DISCARDED) {
            break;
        }
        if size > limit {
            continue;
        }
        // One piece, the usual case, is taken as it is.
        if pieces.is_empty() && whole.is_empty() && body.is_end_stream() {
            whole = data;
        } else {
            pieces.extend_from_slice(&data);
        }
    }
    if size > limit {
        return Err(ApiError::TooLarge {
            size: declared.unwrap_or(size),
            limit,
        });
    }
    Ok(if whole.is_empty() {
        pieces.freeze()
    } else {
        whole
    })
}

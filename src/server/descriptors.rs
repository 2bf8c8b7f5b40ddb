//! Open files: each connection takes one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Below this many a busy chat runs out.
const FEW: u64 = 10_000;

/// Open files that WebSockets leave to others: publishes, above all, which must
/// get through when sockets are at their limit.
const RESERVED: u64 = 128;

/// Open files that a worker's event loop takes.
const PER_WORKER: u64 = 5;

/// Raises the soft limit to the hard one, says so if that is little, and gives back
/// how many WebSockets there may be.
pub(super) fn raise_limit(workers: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
    let Some(files) = getrlimit(Resource::Nofile).current else {
        return usize::MAX;
    };
    if files < FEW {
        tracing::warn!(
            files,
            "few open files are allowed, and each connection takes one; raise the hard limit (ulimit -Hn, LimitNOFILE)"
        );
    }
    let reserved = RESERVED + PER_WORKER * workers as u64;
    // At least half of few files, so that a small limit still serves somebody.
    usize::try_from(files.saturating_sub(reserved).max(files / 2)).unwrap_or(usize::MAX)
}

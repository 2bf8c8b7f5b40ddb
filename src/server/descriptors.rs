//! Open files: each connection takes one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Below this many a busy chat runs out.
const FEW: u64 = 10_000;

/// Open files that WebSockets leave to others: publishes, above all, which must
/// get through when sockets are at their limit.
const RESERVED: u64 = 128;

/// Open files that a worker's event loop takes.
const PER_WORKER: u64 = 5;

/// Open files that are no connections of clients: the terminal, the ports, the links to
/// Redis, and scrapers of metrics.
const OWN: u64 = 32 + super::observe::MAX_CONNECTIONS as u64 + PER_WORKER;

/// How many connections there may be.
pub(super) struct Descriptors {
    /// WebSockets.
    pub(super) sockets: usize,
    /// Connections of any kind.
    pub(super) connections: usize,
}

/// Raises the soft limit to the hard one, and says so if that is little.
pub(super) fn raise_limit(workers: usize) -> Descriptors {
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
        return Descriptors {
            sockets: usize::MAX,
            connections: usize::MAX,
        };
    };
    if files < FEW {
        tracing::warn!(
            files,
            "few open files are allowed, and each connection takes one; raise the hard limit (ulimit -Hn, LimitNOFILE)"
        );
    }
    let per_worker = PER_WORKER * workers as u64;
    // At least half of few files, so that a small limit still serves somebody.
    let sockets = files.saturating_sub(RESERVED + per_worker).max(files / 2);
    let connections = files.saturating_sub(OWN + per_worker).max(sockets);
    let as_usize = |count| usize::try_from(count).unwrap_or(usize::MAX);
    Descriptors {
        sockets: as_usize(sockets),
        connections: as_usize(connections),
    }
}

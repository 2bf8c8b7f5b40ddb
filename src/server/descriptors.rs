//! Open files: each connection takes one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Below this many a busy chat runs out.
const FEW: u64 = 10_000;

/// Raises the soft limit to the hard one, and says so if that is little.
pub(super) fn raise_limit() {
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
    match getrlimit(Resource::Nofile).current {
        Some(files) if files < FEW => tracing::warn!(
            files,
            "few open files are allowed, and each connection takes one; raise the hard limit (ulimit -Hn, LimitNOFILE)"
        ),
        files => tracing::debug!(?files, "limit of open files"),
    }
}

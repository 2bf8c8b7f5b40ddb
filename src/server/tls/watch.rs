//! Looks after the files that TLS is served with: new ones are loaded while the server runs.
//!
//! It asks for what the files are, and does not wait to be told: that works on every file
//! system, and through the links that certbot and Kubernetes put in another's place. Files
//! that belong together are not written at once, so they are read when a look has found
//! nothing new.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::Loaded;
use super::live::Live;
use crate::config::Tls;
use crate::telemetry::limit::limited;

/// How often it looks.
pub(in crate::server) const INTERVAL: Duration = Duration::from_secs(5);

/// How often whoever runs the server is reminded of a certificate that is about to end.
const REMIND: Duration = Duration::from_secs(86_400);

/// What tells one state of the files from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamps(Vec<(PathBuf, Option<Stamp>)>);

/// Of a file, at the end of all links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Also tells of permissions that were given.
    changed: (i64, i64),
}

impl Stamps {
    /// As they are now; a file that is not there is a state as well.
    pub(super) fn of(settings: &Tls) -> Self {
        let pairs = settings.files.iter();
        let pairs = pairs.flat_map(|files| [&files.cert, &files.key]);
        let others = settings.client_ca.iter().chain(&settings.ticket_keys);
        Self(
            pairs
                .chain(others)
                .map(|path| (path.clone(), Stamp::of(path)))
                .collect(),
        )
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

/// Looks every `interval`, for ever.
pub(in crate::server) async fn watch(
    live: Arc<Live>,
    interval: Duration,
) -> std::convert::Infallible {
    let mut watcher = Watcher::new();
    loop {
        tokio::time::sleep(interval).await;
        if live.loaded().is_none() {
            continue;
        }
        let live = Arc::clone(&live);
        // A file system can keep one waiting, and what waits here is the link to other nodes.
        let looked = tokio::task::spawn_blocking(move || {
            watcher.look(&live);
            watcher
        });
        // After a panic, which has been logged, it begins anew.
        watcher = looked.await.unwrap_or_else(|_| Watcher::new());
    }
}

struct Watcher {
    /// A change that the last look has found, which may go on.
    changing: Option<Stamps>,
    /// What could not be used, which has been said.
    refused: Option<Stamps>,
    reminded: Instant,
}

impl Watcher {
    fn new() -> Self {
        Self {
            changing: None,
            refused: None,
            reminded: Instant::now(),
        }
    }

    fn look(&mut self, live: &Live) {
        let now = SystemTime::now();
        live.tickets().rotate(now);
        let Some(loaded) = live.loaded() else { return };
        if self.reminded.elapsed() >= REMIND {
            self.reminded = Instant::now();
            remind(&loaded, now);
        }
        let stamps = Stamps::of(&loaded.settings);
        if stamps == loaded.stamps {
            // If it is undone and done again, that is to be said again.
            (self.changing, self.refused) = (None, None);
        } else if self.refused.as_ref() == Some(&stamps) {
            self.changing = None;
        } else if self.changing.as_ref() == Some(&stamps) {
            self.changing = None;
            self.reload(live, &loaded, stamps);
        } else {
            self.changing = Some(stamps);
        }
    }

    fn reload(&mut self, live: &Live, old: &Arc<Loaded>, stamps: Stamps) {
        match live.load(&old.settings) {
            Ok(new) => {
                self.refused = None;
                let new = Arc::new(new);
                // If somebody else was quicker, what he has loaded is looked at next time.
                if live.replace_if(old, &new) {
                    new.announce();
                }
            }
            Err(error) => {
                let text =
                    "changed certificates or keys cannot be used; going on with those before";
                limited!(warn, text, None, { %error, }, text);
                self.refused = Some(stamps);
            }
        }
    }
}

fn remind(loaded: &Loaded, now: SystemTime) {
    let problems = loaded.certificates.iter().filter_map(|it| it.problem(now));
    problems.for_each(|problem| tracing::warn!("{problem}"));
}

#[cfg(test)]
mod tests;

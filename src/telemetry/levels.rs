//! Which lines are written: levels, of everything or by target.

use std::str::FromStr;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// Levels as `RUST_LOG` has them, `info,resound::cluster=debug`; empty for those that the
/// server has by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Levels(String);

/// What is no level, and what is accepted.
#[derive(Debug, thiserror::Error)]
#[error(
    "levels such as warn or info,resound::cluster=debug, of off, error, warn, info, debug and trace"
)]
pub struct InvalidLevels;

impl FromStr for Levels {
    type Err = InvalidLevels;

    fn from_str(text: &str) -> Result<Self, InvalidLevels> {
        let parts = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        if parts.clone().all(is_directive) {
            Ok(Self(parts.collect::<Vec<_>>().join(",")))
        } else {
            Err(InvalidLevels)
        }
    }
}

/// A word without a level is a target of which everything is wanted; of others than ours it
/// has to be said, or else a misspelt level would be one.
fn is_directive(part: &str) -> bool {
    let is_level = |text: &str| !text.is_empty() && text.parse::<LevelFilter>().is_ok();
    let is_known = match part.rsplit_once('=') {
        Some((target, level)) => !target.is_empty() && is_level(level),
        None => is_level(part) || part == "resound" || part.starts_with("resound::"),
    };
    // Of an event's fields, `target[{field}]`; otherwise it would be a name.
    let is_whole = !part.replace("[{", "").contains('[');
    is_known && is_whole && part.parse::<Targets>().is_ok()
}

impl Levels {
    /// Everything of ours with `debug`, unless something else is said.
    pub(super) fn filter(&self, debug: bool) -> Targets {
        let said = match self.0.as_str() {
            "" if debug => "info,resound=debug",
            "" => "info",
            said => said,
        };
        said.parse().expect("each part was parsed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_level_is_refused() {
        for text in [
            "",
            "warn",
            "INFO",
            "info, resound::cluster=debug",
            "off,resound::api=trace,",
            "resound",
            "hyper=warn",
            "resound[{app}]=debug",
        ] {
            assert!(text.parse::<Levels>().is_ok(), "{text}");
        }
        for text in [
            "verbose",
            "info,loud",
            "resound=loud",
            "resound=",
            "info;debug",
            "=info",
            "resound[=debug",
        ] {
            assert!(text.parse::<Levels>().is_err(), "{text}");
        }
    }
}

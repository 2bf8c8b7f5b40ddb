//! What nodes say of themselves, and how others differ from this one.
//!
//! A node of an earlier version announces nothing. It writes [`WIRE`], and does
//! not track which channels are occupied.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::hub::NodeId;

/// The version of the messages and keys in [`super::codec`] and [`super::redis`] that this
/// node writes; it reads those from [`MIN_WIRE`] on.
pub const WIRE: u32 = 1;

/// The oldest version that it reads.
pub const MIN_WIRE: u32 = 1;

/// What a node says of itself, as JSON. Later versions may say more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its [`WIRE`].
    pub wire: u32,
    /// Its [`MIN_WIRE`].
    pub min_wire: u32,
    /// Its release.
    pub release: String,
    /// Whether it tracks which channels are occupied.
    #[serde(default)]
    pub track_occupancy: bool,
    /// Whether it is about to stop: a load balancer is to send it no more clients.
    #[serde(default)]
    pub draining: bool,
}

impl NodeInfo {
    /// What this node says.
    pub fn own(track_occupancy: bool) -> Self {
        Self {
            wire: WIRE,
            min_wire: MIN_WIRE,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            track_occupancy,
            draining: false,
        }
    }

    fn silent() -> Self {
        Self {
            wire: 1,
            min_wire: 1,
            release: "an earlier one".to_owned(),
            track_occupancy: false,
            draining: false,
        }
    }

    /// Reads what a node says; one that says nothing is an earlier one. `None` if it
    /// cannot be read, which only a later one could have written.
    pub fn parse(text: Option<&str>) -> Option<Self> {
        text.map_or_else(
            || Some(Self::silent()),
            |text| serde_json::from_str(text).ok(),
        )
    }

    /// How a node differs from this one in what both have to agree on.
    fn difference(&self, other: Option<&Self>) -> Option<String> {
        let Some(other) = other else {
            return Some("says what this one cannot read".to_owned());
        };
        if other.min_wire > self.wire || self.min_wire > other.wire {
            return Some(format!(
                "of release {} speaks version {} to {} of the messages, this one {} to {}: they do not understand each other",
                other.release, other.min_wire, other.wire, self.min_wire, self.wire
            ));
        }
        (other.track_occupancy != self.track_occupancy).then(|| {
            let words = |is_on: bool| if is_on { "on" } else { "off" };
            format!(
                "has track_occupancy {}, this one {}: which channels are occupied is not known",
                words(other.track_occupancy),
                words(self.track_occupancy)
            )
        })
    }
}

/// How other nodes differ from this one, each in a sentence.
pub fn differences<'a>(
    own: &NodeInfo,
    others: impl IntoIterator<Item = (NodeId, Option<&'a NodeInfo>)>,
) -> Vec<String> {
    let differing = others.into_iter().filter_map(|(node, info)| {
        let difference = own.difference(info)?;
        Some((node, format!("node {node} {difference}")))
    });
    // In one order, so that the same ones are logged once.
    differing
        .collect::<BTreeMap<_, _>>()
        .into_values()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);

    fn difference(own: &NodeInfo, text: Option<&str>) -> Vec<String> {
        let other = NodeInfo::parse(text);
        differences(own, [(A, other.as_ref())])
    }

    #[test]
    fn nodes_that_agree_do_not_differ() {
        let own = NodeInfo::own(false);
        let text = serde_json::to_string(&own).unwrap();
        assert!(difference(&own, Some(&text)).is_empty());
        assert!(difference(&own, None).is_empty(), "an earlier one");
        let later = r#"{"wire":2,"min_wire":1,"release":"9.9.9","more":true}"#;
        assert!(difference(&own, Some(later)).is_empty(), "it reads ours");
    }

    #[test]
    fn nodes_that_do_not_understand_each_other_say_so() {
        let own = NodeInfo::own(false);
        let later = r#"{"wire":3,"min_wire":2,"release":"9.9.9"}"#;
        let found = difference(&own, Some(later));
        assert!(
            found[0].contains("of release 9.9.9 speaks version 2 to 3"),
            "{found:?}"
        );
        let later = NodeInfo {
            wire: 3,
            min_wire: 2,
            ..NodeInfo::own(false)
        };
        assert!(difference(&later, None)[0].contains("do not understand"));
        assert!(difference(&own, Some("?"))[0].contains("cannot read"));
    }

    #[test]
    fn nodes_that_track_and_do_not_say_so() {
        let found = difference(&NodeInfo::own(true), None);
        assert!(
            found[0].contains("track_occupancy off, this one on"),
            "{found:?}"
        );
    }
}

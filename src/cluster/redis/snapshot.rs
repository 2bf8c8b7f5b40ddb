//! A topic's facts as Redis has them, read strictly.

use std::collections::BTreeMap;

use redis::Value;

use crate::cluster::codec;
use crate::cluster::view::Snapshot;
use crate::hub::{Fact, NodeFacts, NodeId};

/// Bytes of a bulk string, or of what a Redis of another version makes of it.
pub(super) fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

pub(super) fn text(value: &Value) -> Option<&str> {
    std::str::from_utf8(bytes(value)?).ok()
}

/// Reads the answer to `HGETALL`. `None` if it is none.
pub fn read(value: &Value) -> Option<Snapshot> {
    // A script's answer is a list, a command's a map.
    let pairs: Vec<(&Value, &Value)> = match value {
        Value::Array(items) => items
            .chunks_exact(2)
            .map(|pair| (&pair[0], &pair[1]))
            .collect(),
        Value::Map(pairs) => pairs.iter().map(|(field, value)| (field, value)).collect(),
        _ => return None,
    };
    let mut snapshot = Snapshot::default();
    let mut nodes: BTreeMap<NodeId, NodeFacts> = BTreeMap::new();
    for (field, value) in pairs {
        if let (Some("f"), Value::Int(first)) = (text(field), value) {
            snapshot.is_first = *first == 1;
            continue;
        }
        let (Some(field), Some(value)) = (text(field), text(value)) else {
            snapshot.unreadable += 1;
            continue;
        };
        match field {
            "e" => value.clone_into(&mut snapshot.epoch),
            "v" => snapshot.version = value.parse().unwrap_or_default(),
            _ => match node_and_fact(field, value) {
                Some((node, fact)) => {
                    let of_node = nodes.entry(node).or_insert(NodeFacts {
                        node,
                        are_all: false,
                        facts: Vec::new(),
                    });
                    match fact {
                        Some(fact) => of_node.facts.push(fact),
                        None => of_node.are_all = true,
                    }
                }
                None => snapshot.unreadable += 1,
            },
        }
    }
    snapshot.nodes = nodes.into_values().collect();
    Some(snapshot)
}

/// Whose field it is, and its fact; none for the mark that it has entered all.
fn node_and_fact(field: &str, value: &str) -> Option<(NodeId, Option<Fact>)> {
    let node = codec::node_id(field.get(..16)?)?;
    let mut kind = field[16..].chars();
    let fact = match (kind.next(), kind.as_str()) {
        (None, _) => None,
        (Some('m'), id) => {
            let member = codec::read_member(value)?;
            (&*member.id == id).then_some(())?;
            Some(Fact::Member(member))
        }
        (Some('n'), "") => Some(Fact::Subscribers(codec::count(value)?)),
        (Some('o'), "") => Some(Fact::Online),
        _ => return None,
    };
    Some((node, fact))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(fields: &[(&str, &str)]) -> Value {
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        Value::Array(
            fields
                .iter()
                .flat_map(|(field, value)| [bulk(field), bulk(value)])
                .collect(),
        )
    }

    #[test]
    fn facts_are_read_by_node_and_what_cannot_be_read_is_counted() {
        let snapshot = read(&hash(&[
            ("e", "abc"),
            ("v", "12"),
            ("000000000000000a", "1"),
            ("000000000000000am7", r#"{"user_id":7,"user_info":{}}"#),
            ("000000000000000bn", "3"),
            ("000000000000000bo", "1"),
            ("000000000000000am8", r#"{"user_id":9}"#),
            ("000000000000000am9", "x"),
            ("000000000000000ax", "1"),
            ("short", "1"),
        ]))
        .unwrap();
        assert_eq!((&*snapshot.epoch, snapshot.version), ("abc", 12));
        assert_eq!(snapshot.unreadable, 4);
        let (a, b) = (&snapshot.nodes[0], &snapshot.nodes[1]);
        assert!(a.are_all && !b.are_all);
        assert!(matches!(&a.facts[..], [Fact::Member(member)] if &*member.id == "7"));
        assert_eq!(b.facts, [Fact::Subscribers(3), Fact::Online]);
        assert_eq!(
            snapshot.entered(),
            std::collections::HashSet::from([NodeId(10)])
        );
    }

    #[test]
    fn an_answer_that_is_no_hash_is_none() {
        assert_eq!(read(&Value::Nil), None);
        assert_eq!(read(&hash(&[])), Some(Snapshot::default()));
    }
}

//! Whatever is in a topic's hash: lines are its fields and values in turn.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redis::Value;
use resound::cluster::redis::snapshot;

fuzz_target!(|bytes: &[u8]| {
    let fields: Vec<Value> = bytes
        .split(|byte| *byte == b'\n')
        .map(|line| Value::BulkString(line.to_vec()))
        .collect();
    let pairs = fields.len() / 2;
    let snapshot = snapshot::read(&Value::Array(fields)).expect("a list is a hash");
    let facts: usize = snapshot.nodes.iter().map(|node| node.facts.len()).sum();
    assert!(facts + snapshot.unreadable <= pairs);
});

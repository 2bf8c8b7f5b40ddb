//! The fuzz targets, on their seeds and on thousands of changes of each, always the same.
//! (`scripts/test fuzz` lets a fuzzer look for more.)

use std::fs;
use std::ops::Range;
use std::path::Path;

#[expect(unreachable_pub, reason = "it is a crate of its own")]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

/// Changes of each seed.
const CHANGES: u64 = 10_000;

/// What parsers treat in a way of its own.
const TOKENS: [&[u8]; 14] = [
    b"\0",
    b"\n",
    b"\r\n",
    b" ",
    b",",
    b";",
    b"=",
    b"\"",
    b"\\",
    b"[",
    b"{",
    b"-1",
    b"99999999999999999999",
    b"\xff",
];

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound.max(1) as u64).unwrap()
    }

    fn range(&mut self, bytes: &[u8]) -> Range<usize> {
        let (one, other) = (self.below(bytes.len() + 1), self.below(bytes.len() + 1));
        one.min(other)..one.max(other)
    }

    fn change(&mut self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.below(bytes.len());
        let range = self.range(bytes);
        match self.below(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
            1 if !bytes.is_empty() => bytes[at] = u8::try_from(self.below(256)).unwrap(),
            2 => drop(bytes.splice(range, [])),
            3 => {
                let copy = bytes[range].to_vec();
                drop(bytes.splice(at..at, copy));
            }
            4 => bytes.truncate(at),
            5 => {
                let other = &seeds[self.below(seeds.len())];
                let part = other[self.range(other)].to_vec();
                drop(bytes.splice(range, part));
            }
            _ => {
                let token = TOKENS[self.below(TOKENS.len())];
                drop(bytes.splice(at..at, token.iter().copied()));
            }
        }
    }
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(target);
    let files = fs::read_dir(folder).unwrap().map(|it| it.unwrap().path());
    let mut files: Vec<_> = files.collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn run(name: &str, target: fn(&[u8])) {
    let seeds = seeds(name);
    assert!(!seeds.is_empty(), "{name}");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for seed in &seeds {
        target(seed);
        for _ in 0..CHANGES {
            let mut bytes = seed.clone();
            for _ in 0..=random.below(4) {
                random.change(&mut bytes, &seeds);
            }
            let shown = bytes.escape_ascii().to_string();
            let held = std::panic::catch_unwind(|| target(&bytes));
            assert!(held.is_ok(), "{name}: b\"{shown}\"");
        }
    }
}

#[test]
fn messages_of_other_nodes() {
    run("bus_message", targets::bus_message);
}

#[test]
fn frames_of_clients() {
    run("client_frame", targets::client_frame);
}

#[test]
fn facts_in_redis() {
    run("facts", targets::facts);
}

#[test]
fn headers_of_proxies() {
    run("proxy_headers", targets::proxy_headers);
}

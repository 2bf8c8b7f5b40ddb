//! A file of `config/`, with the addresses, folders and certificates of a test.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::front::Certificate;
use crate::manual;

/// Where the files are.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

pub(crate) struct File(String);

impl File {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    /// `name` is its path below `config/`.
    pub(crate) fn read(name: &str) -> Self {
        Self(fs::read_to_string(folder().join(name)).unwrap())
    }

    /// The block in this language of a page in `docs/deploy`, the only one that has this text.
    pub(crate) fn block(page: &str, language: &str, text: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/deploy");
        let page = fs::read_to_string(path.join(page)).unwrap();
        let begin = format!("```{language}\n");
        let blocks = page.split(&begin).skip(1);
        let blocks = blocks.map(|rest| rest.split("```").next().unwrap());
        let found: Vec<&str> = blocks.filter(|block| block.contains(text)).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        Self(found[0].to_owned())
    }

    /// With one part replaced, which has to be there.
    pub(crate) fn with(self, part: &str, with: &str) -> Self {
        Self(manual::replaced(&self.0, part, with))
    }

    /// For a server at this address instead of port 8080.
    pub(crate) fn to(self, server: SocketAddr) -> Self {
        self.with("127.0.0.1:8080", &server.to_string())
    }

    /// With this certificate, whose file and whose key's file stand there so far.
    pub(crate) fn showing(self, certificate: &Certificate, cert: &str, key: &str) -> Self {
        self.with(cert, certificate.files.cert())
            .with(key, certificate.files.key())
    }

    /// Time passes `times` as quickly for the durations that stand behind these words.
    pub(crate) fn hurried(self, times: u64, words: &[&str]) -> Self {
        words.iter().fold(self, |file, word| {
            let parts: Vec<&str> = file.0.split(word).collect();
            assert!(parts.len() > 1, "no {word:?} in {}", file.0);
            let hurried: Vec<String> = parts[1..].iter().map(|part| quicker(part, times)).collect();
            Self(format!("{}{word}{}", parts[0], hurried.join(word)))
        })
    }

    pub(crate) fn text(self) -> String {
        self.0
    }
}

/// A text that begins with a duration, in seconds or with a unit.
fn quicker(text: &str, times: u64) -> String {
    let digits = text.find(|each: char| !each.is_ascii_digit()).unwrap();
    let (number, rest) = text.split_at(digits);
    let number: u64 = number.parse().unwrap();
    let (unit, seconds) = match rest.as_bytes()[0] {
        b's' => ("s", 1),
        b'm' => ("m", 60),
        b'h' => ("h", 3600),
        // Whole seconds.
        _ => return format!("{}{rest}", number / times),
    };
    let rest = rest.strip_prefix(unit).unwrap();
    format!("{}ms{rest}", number * seconds * 1000 / times)
}

#[test]
fn durations_pass_as_quickly_as_they_are_to() {
    let file = File("read 120s; write 1h; ttl=60 ttl=90s".to_owned());
    let file = file.hurried(30, &["read ", "write ", "ttl="]);
    assert_eq!(file.text(), "read 4000ms; write 120000ms; ttl=2 ttl=3000ms");
}

//! Somebody else on the Redis of a cluster: receives what nodes send to each other and
//! sends what it likes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use crate::support::PATIENCE;

/// A connection that speaks Redis's protocol, in which any bytes can be said.
pub(crate) struct Bystander {
    stream: BufReader<TcpStream>,
}

impl Bystander {
    pub(crate) fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// One that receives everything.
    pub(crate) fn listening(port: u16) -> Self {
        Self::listening_to(port, "*")
    }

    /// One that receives from the Redis channels whose names match.
    pub(crate) fn listening_to(port: u16, pattern: &str) -> Self {
        let mut bystander = Self::connect(port);
        let pattern = pattern.as_bytes();
        bystander.say(&[b"PSUBSCRIBE", pattern]);
        assert_eq!(bystander.list(), [&b"psubscribe"[..], pattern, b"1"]);
        bystander
    }

    /// Returns how many received it.
    pub(crate) fn publish(&mut self, channel: &[u8], message: &[u8]) -> u64 {
        self.say(&[b"PUBLISH", channel, message]);
        String::from_utf8(self.value()).unwrap().parse().unwrap()
    }

    /// The next message: its channel and its bytes.
    pub(crate) fn next_message(&mut self) -> (Vec<u8>, Vec<u8>) {
        let mut words = self.list();
        assert_eq!((words.len(), &words[0][..]), (4, &b"pmessage"[..]));
        let message = words.pop().unwrap();
        (words.pop().unwrap(), message)
    }

    /// The channels that somebody listens to.
    pub(crate) fn channels(&mut self) -> Vec<Vec<u8>> {
        self.say(&[b"PUBSUB", b"CHANNELS", b"*"]);
        self.list()
    }

    fn say(&mut self, words: &[&[u8]]) {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend(format!("${}\r\n", word.len()).bytes());
            bytes.extend_from_slice(word);
            bytes.extend(b"\r\n");
        }
        self.stream.get_mut().write_all(&bytes).unwrap();
    }

    fn list(&mut self) -> Vec<Vec<u8>> {
        let line = self.line();
        let count = line
            .strip_prefix('*')
            .unwrap_or_else(|| panic!("no list: {line}"));
        (0..count.parse().unwrap()).map(|_| self.value()).collect()
    }

    /// A text, or a number in decimal.
    fn value(&mut self) -> Vec<u8> {
        let line = self.line();
        let (kind, rest) = line.split_at(1);
        match kind {
            ":" => rest.as_bytes().to_vec(),
            "$" => {
                let mut bytes = vec![0; rest.parse::<usize>().unwrap() + 2];
                self.stream.read_exact(&mut bytes).unwrap();
                bytes.truncate(bytes.len() - 2);
                bytes
            }
            _ => panic!("Redis says {line}"),
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

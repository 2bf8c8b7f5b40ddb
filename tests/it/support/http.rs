//! An HTTP client that keeps its connection, and the signing of requests.

use std::io::{Read, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use md5::{Digest, Md5};
use serde_json::{Value, json};

use super::client::{ReadWrite, tcp};
use super::{APP_ID, At, KEY, SECRET, hmac};

/// One keep-alive connection.
pub(crate) struct Http {
    stream: Box<dyn ReadWrite>,
    buffer: Vec<u8>,
    /// That is asked for.
    pub(crate) host: &'static str,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

impl Http {
    pub(crate) fn connect(server: &impl At) -> Self {
        Self::over(tcp(server))
    }

    /// On a connection to anything, that something else may have been written to.
    pub(crate) fn over(stream: impl ReadWrite + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            buffer: Vec::new(),
            host: "localhost",
        }
    }

    /// Sends a request and reads its answer; the connection stays open.
    pub(crate) fn request(&mut self, method: &str, target: &str, body: &str) -> Answer {
        self.write(&format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        ));
        self.answer_to(method)
    }

    /// A signed POST with further headers, each line ended.
    pub(crate) fn post_with(&mut self, path: &str, headers: &str, body: &str) -> Answer {
        self.begin_post(path, headers, body);
        self.answer()
    }

    /// The same, without reading the answer.
    pub(crate) fn begin_post(&mut self, path: &str, headers: &str, body: &str) {
        let target = Signed::post(path, body).target();
        self.write(&format!(
            "POST {target} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n{headers}\r\n{body}",
            self.host,
            body.len()
        ));
    }

    pub(crate) fn write(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    /// False when the server has closed the connection.
    pub(crate) fn try_write(&mut self, text: &str) -> bool {
        self.stream.write_all(text.as_bytes()).is_ok()
    }

    /// A signed GET.
    pub(crate) fn get(&mut self, path: &str, query: &[(&str, &str)]) -> Answer {
        let mut signed = Signed::post(path, "").without("body_md5");
        signed.method = "GET";
        for (key, value) in query {
            signed = signed.set(key, value);
        }
        self.request("GET", &signed.target(), "")
    }

    /// A signed POST.
    pub(crate) fn post(&mut self, path: &str, body: &str) -> Answer {
        self.request("POST", &Signed::post(path, body).target(), body)
    }

    pub(crate) fn answer(&mut self) -> Answer {
        self.answer_to("GET")
    }

    /// An answer of the 1xx kind, which has no body: its first line.
    pub(crate) fn interim(&mut self) -> String {
        let end = self.head_end();
        let head = self.buffer.drain(..end + 4).collect();
        String::from_utf8(head)
            .unwrap()
            .lines()
            .next()
            .unwrap()
            .to_owned()
    }

    fn head_end(&mut self) -> usize {
        loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                return at;
            }
            self.read_more();
        }
    }

    fn answer_to(&mut self, method: &str) -> Answer {
        let head_end = self.head_end();
        let head = String::from_utf8(self.buffer[..head_end].to_vec()).unwrap();
        let mut lines = head.lines();
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut answer = Answer {
            status,
            headers,
            body: String::new(),
        };
        let length = if method == "HEAD" {
            0
        } else {
            answer.header("content-length").unwrap().parse().unwrap()
        };
        let end = head_end + 4 + length;
        while self.buffer.len() < end {
            self.read_more();
        }
        answer.body = String::from_utf8(self.buffer[head_end + 4..end].to_vec()).unwrap();
        self.buffer.drain(..end);
        answer
    }

    fn read_more(&mut self) {
        let mut piece = [0; 4096];
        let count = self.stream.read(&mut piece).unwrap();
        assert!(
            count > 0,
            "the server closed the connection: {:?}",
            String::from_utf8_lossy(&self.buffer)
        );
        self.buffer.extend_from_slice(&piece[..count]);
    }

    /// Whether the server has closed the connection.
    pub(crate) fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0) | Err(_))
    }

    /// Publishes and expects that it was taken.
    pub(crate) fn publish(&mut self, channels: &[&str], name: &str, data: &str) {
        let body = body(channels, name, data);
        let answer = self.request("POST", &Signed::post("events", &body).target(), &body);
        assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
    }
}

/// The body of `POST /events`.
pub(crate) fn body(channels: &[&str], name: &str, data: &str) -> String {
    json!({ "name": name, "channels": channels, "data": data }).to_string()
}

/// A signed request, of which a test can spoil each part before it is signed.
pub(crate) struct Signed {
    pub(crate) method: &'static str,
    /// The path that is signed.
    pub(crate) path: String,
    pub(crate) secret: &'static str,
    pub(crate) query: Vec<(String, String)>,
}

impl Signed {
    pub(crate) fn post(call: &str, body: &str) -> Self {
        let query = [
            ("auth_key", KEY.to_owned()),
            ("auth_timestamp", now().to_string()),
            ("auth_version", "1.0".to_owned()),
            ("body_md5", hex::encode(Md5::digest(body))),
        ];
        Self {
            method: "POST",
            path: format!("/apps/{APP_ID}/{call}"),
            secret: SECRET,
            query: query.map(|(key, value)| (key.to_owned(), value)).into(),
        }
    }

    pub(crate) fn set(mut self, key: &str, value: &str) -> Self {
        self.query.retain(|(name, _)| name != key);
        self.query.push((key.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn without(mut self, key: &str) -> Self {
        self.query.retain(|(name, _)| name != key);
        self
    }

    pub(crate) fn signature(&self) -> String {
        let mut pairs: Vec<(String, String)> = self
            .query
            .iter()
            .map(|(key, value)| (key.to_lowercase(), value.clone()))
            .collect();
        pairs.sort();
        let query: Vec<String> = pairs
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        hmac(
            self.secret,
            &format!("{}\n{}\n{}", self.method, self.path, query.join("&")),
        )
    }

    /// Path and query with the signature.
    pub(crate) fn target(&self) -> String {
        let query: Vec<String> = self
            .query
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        format!(
            "{}?{}&auth_signature={}",
            self.path,
            query.join("&"),
            self.signature()
        )
    }
}

pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

pub(crate) fn parsed(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap()
}

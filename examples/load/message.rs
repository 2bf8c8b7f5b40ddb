//! What a published message carries: a marker by which each delivery is known
//! again, and padding up to the size asked for.
//!
//! The data is a JSON object in a string, as Laravel sends it, so that its
//! quotation marks cost a server what they cost it in earnest.

use crate::Outcome;
use serde_json::Value;
use std::fmt::Write;

/// `~publisher:sequence~`, in 8 and 10 digits.
const MARK_LENGTH: usize = 21;
const OPENING: &str = r#"{\"mark\":\""#;
const MIDDLE: &str = r#"\",\"text\":\""#;
const CLOSING: &str = r#"\"}"#;

/// The shortest data there is: the marker with the object around it.
pub(crate) const MIN_SIZE: usize = OPENING.len() + MIDDLE.len() + CLOSING.len() - 8 + MARK_LENGTH;

/// Which message a delivery belongs to. Sequences count over all publishers and
/// begin at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) publisher: u32,
    pub(crate) sequence: u32,
}

/// How a message is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// By an HTTP request.
    Publish,
    /// By a client, whose data is an object and not a string.
    Whisper,
}

/// Writes messages for one channel.
#[derive(Clone)]
pub(crate) struct Template {
    kind: Kind,
    channel: String,
    padding: String,
}

impl Template {
    pub(crate) fn new(channel: &str, size: usize) -> Self {
        Self {
            kind: Kind::Publish,
            channel: channel.to_owned(),
            padding: "x".repeat(size.saturating_sub(MIN_SIZE)),
        }
    }

    /// One that writes client events.
    pub(crate) fn whisper(channel: &str, size: usize) -> Self {
        Self {
            kind: Kind::Whisper,
            ..Self::new(channel, size)
        }
    }

    /// The body of one publish request, or the text of one client event, in
    /// place of what `body` held.
    pub(crate) fn write_body(&self, mark: Mark, body: &mut String) {
        body.clear();
        let Self {
            kind,
            channel,
            padding,
        } = self;
        let Mark {
            publisher,
            sequence,
        } = mark;
        match kind {
            Kind::Publish => write!(
                body,
                r#"{{"name":"message","data":"{OPENING}~{publisher:08}:{sequence:010}~{MIDDLE}{padding}{CLOSING}","channels":["{channel}"]}}"#
            ),
            Kind::Whisper => write!(
                body,
                r#"{{"event":"client-message","channel":"{channel}","data":{{"mark":"~{publisher:08}:{sequence:010}~","text":"{padding}"}}}}"#
            ),
        }
        .expect("writing to a string does not fail");
    }

    /// Compares a delivered text with what was published: its event, its channel
    /// and its data.
    fn verify(&self, text: &[u8], mark: Mark) -> Outcome<()> {
        let mut body = String::new();
        self.write_body(mark, &mut body);
        let sent: Value = serde_json::from_str(&body)?;
        let got: Value = serde_json::from_slice(text)?;
        let (event, channel) = match self.kind {
            Kind::Publish => (&sent["name"], &sent["channels"][0]),
            Kind::Whisper => (&sent["event"], &sent["channel"]),
        };
        let same =
            got["event"] == *event && got["data"] == sent["data"] && got["channel"] == *channel;
        if same {
            return Ok(());
        }
        let text = String::from_utf8_lossy(text);
        Err(format!("a delivery is not what was published: {text}").into())
    }
}

/// Reads messages, and checks every byte of them. Deliveries of one server
/// differ in their markers only, so it is enough to parse the first one as JSON
/// and to compare the others with it; whatever differs is parsed again.
pub(crate) struct Reader {
    template: Template,
    /// The last text that was parsed, and where its marker stands.
    usual: Vec<u8>,
    at: usize,
}

impl Reader {
    pub(crate) fn new(template: Template) -> Self {
        Self {
            template,
            usual: Vec::new(),
            at: 0,
        }
    }

    /// The marker of a delivery; none if the text is something else. It is an
    /// error if the text has a marker and is not what was published with it.
    #[inline]
    pub(crate) fn read(&mut self, text: &[u8]) -> Outcome<Option<Mark>> {
        let end = self.at + MARK_LENGTH;
        if text.len() == self.usual.len()
            && text.len() >= end
            && text[..self.at] == self.usual[..self.at]
            && text[end..] == self.usual[end..]
            && let Some(mark) = mark_at_start(&text[self.at..])
        {
            return Ok(Some(mark));
        }
        self.parse(text)
    }

    #[cold]
    fn parse(&mut self, text: &[u8]) -> Outcome<Option<Mark>> {
        let Some(at) = text.iter().position(|&byte| byte == b'~') else {
            return Ok(None);
        };
        let Some(mark) = mark_at_start(&text[at..]) else {
            return Ok(None);
        };
        self.template.verify(text, mark)?;
        self.usual = text.to_vec();
        self.at = at;
        Ok(Some(mark))
    }
}

#[inline]
fn mark_at_start(text: &[u8]) -> Option<Mark> {
    let mark: &[u8; MARK_LENGTH] = text.first_chunk()?;
    if mark[0] != b'~' || mark[9] != b':' || mark[20] != b'~' {
        return None;
    }
    let publisher = number(&mark[1..9])?;
    let sequence = number(&mark[10..20])?;
    Some(Mark {
        publisher: u32::try_from(publisher).ok()?,
        sequence: u32::try_from(sequence).ok()?,
    })
}

#[inline]
fn number(digits: &[u8]) -> Option<u64> {
    let mut value = 0;
    let mut worst = 0;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        worst = worst.max(digit);
        value = value * 10 + u64::from(digit);
    }
    (worst <= 9).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::{MIN_SIZE, Mark, Reader, Template};
    use serde_json::Value;

    #[test]
    fn the_size_is_that_of_the_decoded_data() {
        for size in [MIN_SIZE, 200] {
            let mut body = String::new();
            let mark = Mark {
                publisher: 3,
                sequence: 77,
            };
            Template::new("private-x", size).write_body(mark, &mut body);
            let body: Value = serde_json::from_str(&body).expect("it is JSON");
            assert_eq!(body["data"].as_str().expect("it is a string").len(), size);
        }
    }

    #[test]
    fn a_whisper_is_read_as_it_was_written() {
        let template = Template::whisper("private-x", 200);
        let mut reader = Reader::new(template.clone());
        let mark = Mark {
            publisher: 3,
            sequence: 77,
        };
        let mut text = String::new();
        template.write_body(mark, &mut text);
        let got = reader.read(text.as_bytes()).expect("it is what was sent");
        assert_eq!(got, Some(mark));
        assert!(
            reader
                .read(text.replace("te-x", "te-y").as_bytes())
                .is_err()
        );
    }

    #[test]
    fn every_byte_of_a_delivery_counts() {
        let mut reader = Reader::new(Template::new("c", MIN_SIZE + 3));
        let delivery = |sequence: u32, padding: &str| {
            let data =
                format!(r#"{{\"mark\":\"~00000001:{sequence:010}~\",\"text\":\"{padding}\"}}"#);
            format!(r#"{{"event":"message","channel":"c","data":"{data}"}}"#).into_bytes()
        };
        for sequence in [5, 6] {
            let mark = reader
                .read(&delivery(sequence, "xxx"))
                .expect("it is what was sent");
            assert_eq!(
                mark,
                Some(Mark {
                    publisher: 1,
                    sequence
                })
            );
        }
        assert!(reader.read(&delivery(7, "xyx")).is_err());
        assert!(reader.read(&delivery(7, "xx")).is_err());
        let ping = reader
            .read(b"{\"event\":\"pusher:ping\"}")
            .expect("it is no delivery");
        assert_eq!(ping, None);
    }
}

//! Messages between nodes, pure: bytes in, values out.
//!
//! A line of words, and after it what the kind carries:
//!
//! ```text
//! R1 E <node> <run> <number> <socket id or ->\n<the event as subscribers get it>
//! R1 K …                                    the same, and it is a cache channel's last
//! R1 C <version> <node>\n<a fact>           a topic's fact has changed
//! R1 = <version> <node>                     several have: read them again
//! R1 H <node>                               a node is there
//! R1 B <node>                               it is going
//! R1 A <node>                               it has entered all its facts
//! R1 F <node>                               asks another to enter its facts again
//! R1 T <node>\n<JSON>                       close a user's connections
//! R1 L <node> <0 or 1>\n<JSON>               the same, and that clients come back (1) or not; T follows
//! R1 U <node>\n<JSON>                       end subscriptions to a channel
//! R1 Q <node> <id>\n<JSON>                  a question to all
//! R1 R <node> <id> <0 or 1>\n<JSON>         part of an answer; 1 for the last
//! ```
//!
//! `R1` is the version: a node ignores, and counts, whatever begins otherwise or does
//! not read to its end. Nodes are 16 hex digits, numbers decimal without a sign.

use std::fmt::Write;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::hub::{Fact, NodeId, Query, Unsubscribed};
use crate::protocol::{Member, SocketId, member};

/// Bytes of a message. Longer ones are neither sent nor read.
pub const MAX_MESSAGE: usize = 8 << 20;

/// Bytes of a member's data, whatever an application allows.
const MAX_MEMBER: usize = 1 << 20;

const VERSION: &str = "R1";

/// What one node sends to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// An event was published.
    Event(EventHead, &'a str),
    /// A topic's fact has changed.
    Change(u64, NodeId, Fact),
    /// Several of a topic's facts have changed.
    Reread(u64, NodeId),
    /// A node is there.
    Hello(NodeId),
    /// A node is going.
    Bye(NodeId),
    /// A node has entered all its facts.
    AllTold(NodeId),
    /// A node asks this one to enter its facts again.
    TellAgain(NodeId),
    /// A user's connections have to be closed.
    Terminate(NodeId, Termination),
    /// They have to be closed, and whether clients are to come back is said. [`Self::Terminate`]
    /// follows, for nodes that do not know this.
    TerminateAs(NodeId, bool, Termination),
    /// Somebody has to leave a channel.
    Unsubscribe(NodeId, Unsubscription),
    /// A question.
    Ask(NodeId, u64, Question),
    /// Part of an answer: whose, to which question, whether it is the last part.
    Answer(NodeId, u64, bool, Rows),
}

/// Where an event is from and whom it is not for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventHead {
    /// The node that published it.
    pub node: NodeId,
    /// Which count of that node's events in the channel, since it may have to begin anew.
    pub run: u32,
    /// Its number in that count, from 1.
    pub number: u64,
    /// The connection that does not get it.
    pub except: Option<SocketId>,
    /// Whether it is a cache channel's last event.
    pub is_kept: bool,
}

/// Whose connections have to be closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Termination {
    /// The application's id.
    pub app: String,
    /// The user's.
    pub user: String,
}

/// Who has to leave a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unsubscription {
    /// The application's id.
    pub app: String,
    /// The channel's name.
    pub channel: String,
    /// Who.
    pub who: Who,
}

/// A user, or one connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// The user's id.
    User(String),
    /// The connection's.
    Socket(String),
}

impl Who {
    /// Nothing if it is no id of a connection.
    pub fn read(self) -> Option<Unsubscribed> {
        Some(match self {
            Self::User(id) => Unsubscribed::User(id),
            Self::Socket(id) => Unsubscribed::Socket(SocketId::parse(&id)?),
        })
    }
}

impl From<Unsubscribed> for Who {
    fn from(who: Unsubscribed) -> Self {
        match who {
            Unsubscribed::User(id) => Self::User(id),
            Unsubscribed::Socket(id) => Self::Socket(id.to_string()),
        }
    }
}

/// A question about an application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The application's id.
    pub app: String,
    /// What is asked.
    pub about: About,
}

/// What a question asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum About {
    /// How many connections there are.
    Connections,
    /// One channel; with the ids of its members or without.
    Channel {
        /// Its name.
        name: String,
        /// Whether members are wanted.
        users: bool,
    },
    /// All channels whose names begin so.
    Channels {
        /// With this.
        prefix: String,
        /// Whether members are wanted.
        users: bool,
    },
}

impl From<Query> for About {
    fn from(query: Query) -> Self {
        match query {
            Query::Connections => Self::Connections,
            Query::Channel { name, users } => Self::Channel { name, users },
            Query::Channels { prefix, users } => Self::Channels { prefix, users },
        }
    }
}

/// An answer, or part of one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rows {
    /// Connections of the application.
    #[serde(default)]
    pub connections: u64,
    /// Channels that have subscribers.
    #[serde(default)]
    pub channels: Vec<Row>,
}

/// One channel on one node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Its subscribers there.
    pub subscriptions: u64,
    /// Ids of its members there, as JSON, if they were wanted.
    #[serde(default)]
    pub users: Vec<Box<RawValue>>,
}

impl PartialEq for Rows {
    fn eq(&self, other: &Self) -> bool {
        serde_json::to_string(self).ok() == serde_json::to_string(other).ok()
    }
}

impl Eq for Rows {}

/// Why a message is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Longer than [`MAX_MESSAGE`].
    #[error("it is too long")]
    TooLong,
    /// Not of this version, or not from a node at all.
    #[error("it is of another version, or not from a node")]
    Version,
    /// It cannot be read.
    #[error("it cannot be read")]
    Malformed,
}

impl<'a> Message<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// If it is not exactly what a node of this version writes.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        if bytes.len() > MAX_MESSAGE {
            return Err(WireError::TooLong);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| WireError::Version)?;
        let (head, body) = match text.split_once('\n') {
            Some((head, body)) => (head, Some(body)),
            None => (text, None),
        };
        let words: Vec<&str> = head.split(' ').collect();
        match words.split_first() {
            Some((&VERSION, words)) => read(words, body).ok_or(WireError::Malformed),
            _ => Err(WireError::Version),
        }
    }

    /// Writes it.
    pub fn encode(&self) -> String {
        match self {
            Self::Event(head, text) => event(head, text),
            Self::Change(version, node, fact) => {
                format!("{VERSION} C {version} {node}\n{}", fact_text(fact))
            }
            Self::Reread(version, node) => format!("{VERSION} = {version} {node}"),
            Self::Hello(node) => format!("{VERSION} H {node}"),
            Self::Bye(node) => format!("{VERSION} B {node}"),
            Self::AllTold(node) => format!("{VERSION} A {node}"),
            Self::TellAgain(node) => format!("{VERSION} F {node}"),
            Self::Terminate(node, who) => format!("{VERSION} T {node}\n{}", json(who)),
            Self::TerminateAs(node, reconnect, who) => {
                format!("{VERSION} L {node} {}\n{}", u8::from(*reconnect), json(who))
            }
            Self::Unsubscribe(node, what) => format!("{VERSION} U {node}\n{}", json(what)),
            Self::Ask(node, id, question) => {
                format!("{VERSION} Q {node} {id}\n{}", json(question))
            }
            Self::Answer(node, id, is_last, rows) => {
                format!(
                    "{VERSION} R {node} {id} {}\n{}",
                    u8::from(*is_last),
                    json(rows)
                )
            }
        }
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("it is plain data")
}

/// An event's message.
pub fn event(head: &EventHead, text: &str) -> String {
    let mut message = String::with_capacity(text.len() + 80);
    let EventHead {
        node, run, number, ..
    } = head;
    let kind = if head.is_kept { 'K' } else { 'E' };
    write!(message, "{VERSION} {kind} {node} {run} {number} ").expect("a String takes every text");
    match head.except {
        Some(id) => write!(message, "{id}"),
        None => message.write_char('-'),
    }
    .expect("a String takes every text");
    message.push('\n');
    message.push_str(text);
    message
}

fn read<'a>(words: &[&str], body: Option<&'a str>) -> Option<Message<'a>> {
    Some(match (words, body) {
        ([kind @ ("E" | "K"), node, run, number, except], Some(text)) => {
            let except = match *except {
                "-" => None,
                id => Some(SocketId::parse(id)?),
            };
            let head = EventHead {
                node: node_id(node)?,
                run: u32::try_from(decimal(run)?).ok()?,
                number: decimal(number)?,
                except,
                is_kept: *kind == "K",
            };
            is_object(text)?;
            Message::Event(head, text)
        }
        (["C", version, node], Some(fact)) => {
            Message::Change(decimal(version)?, node_id(node)?, read_fact(fact)?)
        }
        (["=", version, node], None) => Message::Reread(decimal(version)?, node_id(node)?),
        (["H", node], None) => Message::Hello(node_id(node)?),
        (["B", node], None) => Message::Bye(node_id(node)?),
        (["A", node], None) => Message::AllTold(node_id(node)?),
        (["F", node], None) => Message::TellAgain(node_id(node)?),
        (["T", node], Some(json)) => Message::Terminate(node_id(node)?, from_json(json)?),
        (["L", node, reconnect], Some(json)) => {
            Message::TerminateAs(node_id(node)?, flag(reconnect)?, from_json(json)?)
        }
        (["U", node], Some(json)) => Message::Unsubscribe(node_id(node)?, from_json(json)?),
        (["Q", node, id], Some(json)) => {
            Message::Ask(node_id(node)?, decimal(id)?, from_json(json)?)
        }
        (["R", node, id, is_last], Some(json)) => {
            let is_last = flag(is_last)?;
            let rows: Rows = from_json(json)?;
            let mut users = rows.channels.iter().flat_map(|row| &row.users);
            if !users.all(|id| member::identity(id).is_some()) {
                return None;
            }
            let mut counts = rows.channels.iter().map(|row| row.subscriptions);
            let is_possible = |count: u64| count <= u64::from(u32::MAX);
            if !is_possible(rows.connections) || !counts.all(is_possible) {
                return None;
            }
            Message::Answer(node_id(node)?, decimal(id)?, is_last, rows)
        }
        _ => return None,
    })
}

fn flag(text: &str) -> Option<bool> {
    match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

/// What a subscriber is sent has to be a JSON object.
fn is_object(text: &str) -> Option<()> {
    let is_json = serde_json::from_str::<IgnoredAny>(text).is_ok();
    (text.starts_with('{') && is_json).then_some(())
}

fn from_json<'a, T: Deserialize<'a>>(json: &'a str) -> Option<T> {
    // serde would take a list for the fields of an object.
    json.starts_with('{')
        .then(|| serde_json::from_str(json).ok())?
}

/// Reads 16 hex digits.
pub fn node_id(text: &str) -> Option<NodeId> {
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (text.len() == 16 && text.bytes().all(is_hex))
        .then(|| u64::from_str_radix(text, 16).ok().map(NodeId))?
}

fn decimal(text: &str) -> Option<u64> {
    let is_canonical =
        text.bytes().all(|b| b.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    is_canonical.then(|| text.parse().ok())?
}

/// Reads a count of subscribers, of which no node can have more than this.
pub(super) fn count(text: &str) -> Option<usize> {
    let count = u32::try_from(decimal(text)?).ok()?;
    usize::try_from(count).ok()
}

/// A fact in a message: the tag of its kind, and its value.
fn fact_text(fact: &Fact) -> String {
    let (kind, value) = tag_and_value(fact);
    format!("{kind}{value}")
}

/// The tag of a fact's kind, and its value.
pub fn tag_and_value(fact: &Fact) -> (char, String) {
    match fact {
        Fact::Member(member) => ('m', member_json(member)),
        Fact::Left(user) => ('l', user.to_string()),
        Fact::Subscribers(count) => ('n', count.to_string()),
        Fact::Online => ('o', String::new()),
        Fact::Offline => ('f', String::new()),
    }
}

fn read_fact(text: &str) -> Option<Fact> {
    let mut chars = text.chars();
    let kind = chars.next()?;
    let value = chars.as_str();
    Some(match kind {
        'm' => Fact::Member(read_member(value)?),
        'l' if !value.is_empty() && value.len() <= member::MAX_USER_ID => Fact::Left(value.into()),
        'n' => Fact::Subscribers(count(value)?),
        'o' if value.is_empty() => Fact::Online,
        'f' if value.is_empty() => Fact::Offline,
        _ => return None,
    })
}

fn member_json(member: &Member) -> String {
    format!(
        r#"{{"user_id":{},"user_info":{}}}"#,
        member.id_json, member.info_json
    )
}

/// A member as it is kept in Redis: its `channel_data`.
pub fn read_member(json: &str) -> Option<Member> {
    Member::parse(json, MAX_MEMBER).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(0x0123_4567_89ab_cdef);

    fn member() -> Member {
        Member::parse(r#"{"user_id":7,"user_info":{"name":"\n Ana"}}"#, 1000).unwrap()
    }

    fn termination(user: &str) -> Termination {
        Termination {
            app: "1".to_owned(),
            user: user.to_owned(),
        }
    }

    fn unsubscription(who: Who) -> Unsubscription {
        Unsubscription {
            app: "1".to_owned(),
            channel: "private-a".to_owned(),
            who,
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let head = EventHead {
            node: NODE,
            run: 3,
            number: 17,
            except: SocketId::parse("1.2"),
            is_kept: true,
        };
        let question = |about| Question {
            app: "my app".to_owned(),
            about,
        };
        let rows = Rows {
            connections: 3,
            channels: vec![Row {
                name: "presence-a".to_owned(),
                subscriptions: 2,
                users: vec![RawValue::from_string("\"7\"".to_owned()).unwrap()],
            }],
        };
        let named = About::Channel {
            name: "a".to_owned(),
            users: true,
        };
        for message in [
            Message::Event(head, r#"{"event":"e","data":"a\nb"}"#),
            Message::Event(
                EventHead {
                    except: None,
                    is_kept: false,
                    ..head
                },
                "{\n}",
            ),
            Message::Change(1, NODE, Fact::Member(member())),
            Message::Change(u64::MAX, NODE, Fact::Left("a\n b".into())),
            Message::Change(2, NODE, Fact::Subscribers(12)),
            Message::Change(3, NODE, Fact::Online),
            Message::Change(4, NODE, Fact::Offline),
            Message::Reread(0, NODE),
            Message::Hello(NODE),
            Message::Bye(NODE),
            Message::AllTold(NODE),
            Message::TellAgain(NODE),
            Message::Terminate(NODE, termination("\n")),
            Message::TerminateAs(NODE, true, termination("2")),
            Message::Unsubscribe(NODE, unsubscription(Who::User("7".to_owned()))),
            Message::Unsubscribe(NODE, unsubscription(Who::Socket("1.2".to_owned()))),
            Message::Ask(NODE, 5, question(About::Connections)),
            Message::Ask(NODE, 6, question(named)),
            Message::Answer(NODE, 6, true, rows),
        ] {
            let text = message.encode();
            assert_eq!(Message::parse(text.as_bytes()), Ok(message), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for (text, error) in [
            ("", WireError::Version),
            ("hello", WireError::Version),
            ("R2 H 0123456789abcdef", WireError::Version),
            ("r1 H 0123456789abcdef", WireError::Version),
            ("R1", WireError::Malformed),
            ("R1 H", WireError::Malformed),
            ("R1 H 0123456789ABCDEF", WireError::Malformed),
            ("R1 H 123", WireError::Malformed),
            ("R1 H 0123456789abcdef x", WireError::Malformed),
            ("R1 H 0123456789abcdef\n", WireError::Malformed),
            ("R1 = -1 0123456789abcdef", WireError::Malformed),
            ("R1 = +1 0123456789abcdef", WireError::Malformed),
            ("R1 = 01 0123456789abcdef", WireError::Malformed),
            (
                "R1 = 18446744073709551616 0123456789abcdef",
                WireError::Malformed,
            ),
            ("R1 C 1 0123456789abcdef\n", WireError::Malformed),
            ("R1 C 1 0123456789abcdef\nm{}", WireError::Malformed),
            ("R1 C 1 0123456789abcdef\nox", WireError::Malformed),
            ("R1 C 1 0123456789abcdef\nl", WireError::Malformed),
            ("R1 C 1 0123456789abcdef\né", WireError::Malformed),
            ("R1 E 0123456789abcdef 1 1 -", WireError::Malformed),
            ("R1 E 0123456789abcdef 1 1 -\n[]", WireError::Malformed),
            ("R1 E 0123456789abcdef 1 1 -\n{}x", WireError::Malformed),
            ("R1 E 0123456789abcdef 1 1 01.2\n{}", WireError::Malformed),
            (
                "R1 E 0123456789abcdef 4294967296 1 -\n{}",
                WireError::Malformed,
            ),
            (
                "R1 T 0123456789abcdef\n{\"app\":\"1\"}",
                WireError::Malformed,
            ),
            (
                "R1 T 0123456789abcdef\n{\"app\":\"1\",\"user\":\"2\",\"x\":1}",
                WireError::Malformed,
            ),
            ("R1 T 0123456789abcdef\n[\"1\",\"2\"]", WireError::Malformed),
            ("R1 R 0123456789abcdef 1 2\n{}", WireError::Malformed),
            (
                "R1 R 0123456789abcdef 1 1\n{\"channels\":[{\"name\":\"a\",\"subscriptions\":1,\"users\":[{}]}]}",
                WireError::Malformed,
            ),
        ] {
            assert_eq!(Message::parse(text.as_bytes()), Err(error), "{text:?}");
        }
        assert_eq!(Message::parse(&[0xff]), Err(WireError::Version));
        let long = vec![b'x'; MAX_MESSAGE + 1];
        assert_eq!(Message::parse(&long), Err(WireError::TooLong));
    }
}

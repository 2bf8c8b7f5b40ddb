//! What a presence channel sends: who is there, who joins and who leaves. Users
//! are numbers here, and their info follows from the number, so that all of it
//! can be checked.

use crate::Outcome;
use crate::message::Mark;
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;

/// What a user says of itself when it joins.
pub(crate) fn member_data(user: u32) -> String {
    format!(r#"{{"user_id":"{user}","user_info":{{"name":"User {user}"}}}}"#)
}

/// That somebody has joined or left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct News {
    pub(crate) user: u32,
    pub(crate) joined: bool,
}

#[derive(Deserialize)]
struct Message {
    event: String,
    #[serde(default)]
    channel: String,
    #[serde(default)]
    data: Value,
}

#[derive(Deserialize)]
struct Welcome<'a> {
    #[serde(borrow)]
    presence: Presence<'a>,
}

#[derive(Deserialize)]
struct Presence<'a> {
    count: usize,
    #[serde(borrow)]
    ids: Vec<&'a str>,
    #[serde(borrow)]
    hash: HashMap<&'a str, Info<'a>>,
}

#[derive(Deserialize)]
struct Info<'a> {
    name: &'a str,
}

/// The users that the answer to a subscription lists; none if the text is
/// something else. It is an error if the list contradicts itself.
pub(crate) fn users_listed(text: &[u8], channel: &str) -> Outcome<Option<Vec<u32>>> {
    let message: Message = serde_json::from_slice(text)?;
    if message.event != "pusher_internal:subscription_succeeded" {
        return Ok(None);
    }
    let data = message.data.as_str().ok_or("a list is not a string")?;
    let Welcome { presence } = serde_json::from_str(data)?;
    let Presence { count, ids, hash } = &presence;
    if message.channel != channel || *count != ids.len() || *count != hash.len() {
        return Err("a list is of another channel, or its counts differ".into());
    }
    let mut users = Vec::with_capacity(ids.len());
    for id in ids {
        let info = hash.get(id).ok_or("a list has an id without an entry")?;
        if info.name.strip_prefix("User ") != Some(id) {
            return Err(format!("a list has the name {} for {id}", info.name).into());
        }
        users.push(id.parse()?);
    }
    Ok(Some(users))
}

fn news_of_some_channel(text: &[u8]) -> Option<News> {
    let message: Message = serde_json::from_slice(text).ok()?;
    news(text, &message.channel).ok()?
}

/// Whether a text is the answer to a subscription; its list is not looked at.
pub(crate) fn is_list(text: &[u8], channel: &str) -> Outcome<bool> {
    const OPENING: &[u8] = br#"{"event":"pusher_internal:subscription_succeeded""#;
    Ok(text.starts_with(OPENING) || users_listed(text, channel)?.is_some())
}

/// The news that a text holds; none if it is something else.
pub(crate) fn news(text: &[u8], channel: &str) -> Outcome<Option<News>> {
    let message: Message = serde_json::from_slice(text)?;
    let joined = match message.event.as_str() {
        "pusher_internal:member_added" => true,
        "pusher_internal:member_removed" => false,
        _ => return Ok(None),
    };
    let data = message.data.as_str().ok_or("news are not a string")?;
    let data: Value = serde_json::from_str(data)?;
    let id = data["user_id"].as_str().ok_or("news have no user_id")?;
    let user = id.parse()?;
    let expected: Value = serde_json::from_str(&member_data(user))?;
    let same = message.channel == channel
        && data["user_id"] == expected["user_id"]
        && (!joined || data["user_info"] == expected["user_info"]);
    if !same {
        let text = String::from_utf8_lossy(text);
        return Err(format!("news are not what the member said: {text}").into());
    }
    Ok(Some(News { user, joined }))
}

/// Whether a text tells that a user below some number has joined. This does not
/// check the text: it is for the many that are read and not accounted for.
#[inline]
pub(crate) fn is_joining_of_one_below(limit: usize, text: &[u8]) -> bool {
    user_joined(text).is_some_and(|user| (user as usize) < limit)
}

/// Who has joined, if that is what a text tells. This does not check the rest of the
/// text either.
#[inline]
pub(crate) fn user_joined(text: &[u8]) -> Option<u32> {
    const OPENING: &[u8] = br#"{"event":"pusher_internal:member_added","data":"{\"user_id\":\""#;
    if let Some((user, _)) = text.strip_prefix(OPENING).and_then(leading_number) {
        return Some(user);
    }
    // It may be written in another way.
    let news = news_of_some_channel(text).filter(|news| news.joined);
    news.map(|news| news.user)
}

/// Who has left, if that is what a text tells. It checks every byte, and it is for
/// millions of texts: those that are written as usual are not parsed.
#[inline]
pub(crate) fn user_gone(text: &[u8], channel: &str) -> Outcome<Option<u32>> {
    const OPENING: &[u8] = br#"{"event":"pusher_internal:member_removed","data":"{\"user_id\":\""#;
    const MIDDLE: &[u8] = br#"\"}","channel":""#;
    let usual = text
        .strip_prefix(OPENING)
        .and_then(leading_number)
        .filter(|(_, rest)| {
            let named = rest.strip_prefix(MIDDLE);
            let rest = named.and_then(|rest| rest.strip_prefix(channel.as_bytes()));
            rest == Some(b"\"}")
        });
    if let Some((user, _)) = usual {
        return Ok(Some(user));
    }
    let left = news(text, channel)?.filter(|news| !news.joined);
    Ok(left.map(|news| news.user))
}

/// The number at the start of a text, and what comes after it.
#[inline]
fn leading_number(text: &[u8]) -> Option<(u32, &[u8])> {
    let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(length);
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((number, rest))
}

/// Reads the same news thousands of times over, and parses each once.
pub(crate) struct Gazette {
    /// The latest texts, in a ring.
    recent: Vec<(Vec<u8>, Mark)>,
    /// Where the next one is entered, and where the last one was found.
    next: usize,
    last: usize,
}

impl Gazette {
    pub(crate) fn new(length: usize) -> Self {
        let nothing = Mark {
            publisher: u32::MAX,
            sequence: 0,
        };
        Self {
            recent: vec![(Vec::new(), nothing); length],
            next: 0,
            last: 0,
        }
    }

    /// The mark of a text that was entered not long ago.
    #[inline]
    pub(crate) fn find(&mut self, text: &[u8]) -> Option<Mark> {
        // Most read on in the order in which the news were entered.
        let ring = self.recent.len();
        for step in 1..=ring {
            let at = (self.last + step) % ring;
            let (known, mark) = &self.recent[at];
            if known == text {
                self.last = at;
                return Some(*mark);
            }
        }
        None
    }

    pub(crate) fn enter(&mut self, text: &[u8], mark: Mark) {
        self.recent[self.next] = (text.to_vec(), mark);
        self.last = self.next;
        self.next = (self.next + 1) % self.recent.len();
    }
}

#[cfg(test)]
mod tests {
    use super::{News, news, user_gone, users_listed};

    #[test]
    fn who_has_left_is_read_however_it_is_written() {
        let usual = br#"{"event":"pusher_internal:member_removed","data":"{\"user_id\":\"41\"}","channel":"presence-x"}"#;
        let other = br#"{"channel":"presence-x","event":"pusher_internal:member_removed","data":"{\"user_id\": \"41\"}"}"#;
        for text in [usual.as_slice(), other.as_slice()] {
            let gone = user_gone(text, "presence-x").expect("it is right");
            assert_eq!(gone, Some(41));
            assert!(user_gone(text, "presence-y").is_err());
        }
        let ping = br#"{"event":"pusher:ping"}"#;
        assert_eq!(user_gone(ping, "presence-x").expect("it is right"), None);
    }

    #[test]
    fn news_are_checked_against_what_the_member_said() {
        let text = |name: &str| {
            let data = format!(r#"{{\"user_id\":\"7\",\"user_info\":{{\"name\":\"{name}\"}}}}"#);
            format!(
                r#"{{"event":"pusher_internal:member_added","data":"{data}","channel":"presence-x"}}"#
            )
        };
        let expected = News {
            user: 7,
            joined: true,
        };
        let right = text("User 7");
        assert_eq!(
            news(right.as_bytes(), "presence-x").expect("it is right"),
            Some(expected)
        );
        assert!(news(right.as_bytes(), "presence-y").is_err());
        assert!(news(text("User 8").as_bytes(), "presence-x").is_err());
    }

    #[test]
    fn a_list_must_not_contradict_itself() {
        let text = |count: u32, ids: &str| {
            let hash = r#"\"1\":{\"name\":\"User 1\"},\"2\":{\"name\":\"User 2\"}"#;
            let data = format!(
                r#"{{\"presence\":{{\"count\":{count},\"ids\":[{ids}],\"hash\":{{{hash}}}}}}}"#
            );
            format!(
                r#"{{"event":"pusher_internal:subscription_succeeded","data":"{data}","channel":"c"}}"#
            )
        };
        let both = r#"\"2\",\"1\""#;
        let list = users_listed(text(2, both).as_bytes(), "c").expect("it is right");
        assert_eq!(list, Some(vec![2, 1]));
        assert!(users_listed(text(3, both).as_bytes(), "c").is_err());
        assert!(users_listed(text(2, r#"\"2\""#).as_bytes(), "c").is_err());
    }
}

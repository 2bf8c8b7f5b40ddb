//! Who a client says it is: members of presence channels and signed-in users.

use std::borrow::Cow;
use std::sync::Arc;

use indexmap::IndexSet;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::channel::ChannelName;
use super::client::present;
use super::complexity::{TooComplex, check_complexity};

/// Longest user id, in bytes (Pusher Channels, "Presence channels").
pub const MAX_USER_ID: usize = 128;

/// Maximum number of users that one connection may watch (Pusher Channels, "Watchlist events").
pub const MAX_WATCHLIST: usize = 100;

/// A member of a presence channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What tells users apart: the id as text, whether it came as a text or as a number.
    pub id: Arc<str>,
    /// The id as JSON, of the type in which it came.
    pub id_json: Box<str>,
    /// `user_info` as JSON; `{}` if there was none, so that pages can read its fields.
    pub info_json: Box<str>,
}

/// A user that signed in with `pusher:signin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Who it is, wherever it joins a presence channel without `channel_data`.
    pub member: Member,
    /// Users it wants to watch, [`MAX_WATCHLIST`] at most.
    pub watchlist: Vec<Arc<str>>,
    /// Whether it wanted to watch more.
    pub watchlist_cut: bool,
}

/// Why a member's or user's data cannot be used. The texts are sent to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// `channel_data` is not a JSON object, or has no `user_id`.
    #[error("channel_data is not a JSON object with a user_id, a text or a number")]
    ChannelData,
    /// `user_data` is not a JSON object, or has no `id`.
    #[error("user_data is not a JSON object with an id, a text or a number")]
    UserData,
    /// `watchlist` is not a list, or has something else than ids.
    #[error("The watchlist is not a list of user ids, texts or numbers")]
    Watchlist,
    /// A user's id that no channel can be named after.
    #[error("The user id has characters other than letters, digits and _ - = @ , . ;")]
    UserId,
    /// An id that is empty, or over [`MAX_USER_ID`] bytes.
    #[error("The user id is empty or has more than {MAX_USER_ID} bytes")]
    Id,
    /// Nested too deep, or with a number that is too long.
    #[error("The user data {0}")]
    TooComplex(#[from] TooComplex),
    /// Over the application's limit.
    #[error(
        "The user data has {size} bytes, {limit} are allowed \
         (presence.max_member_size, RESOUND_PRESENCE_MAX_MEMBER_SIZE)"
    )]
    TooLarge {
        /// Its bytes.
        size: usize,
        /// Bytes that are allowed.
        limit: usize,
    },
}

#[derive(Deserialize)]
struct ChannelData<'a> {
    #[serde(borrow)]
    user_id: &'a RawValue,
    #[serde(borrow, default, deserialize_with = "present")]
    user_info: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct UserData<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow, default, deserialize_with = "present")]
    user_info: Option<&'a RawValue>,
    #[serde(borrow, default)]
    watchlist: Option<&'a RawValue>,
}

impl Member {
    /// Reads `channel_data`. `limit` is in bytes of the whole text.
    pub fn parse(channel_data: &str, limit: usize) -> Result<Self, MemberError> {
        check_size(channel_data, limit)?;
        let data: ChannelData<'_> = object(channel_data).ok_or(MemberError::ChannelData)?;
        check_complexity(channel_data)?;
        let id = id(data.user_id).ok_or(MemberError::ChannelData)?;
        Self::new(&id, data.user_id, data.user_info)
    }

    fn new(text: &str, id: &RawValue, info: Option<&RawValue>) -> Result<Self, MemberError> {
        if text.is_empty() || text.len() > MAX_USER_ID {
            return Err(MemberError::Id);
        }
        let info_json = info.map_or("{}", RawValue::get);
        Ok(Self {
            id: text.into(),
            id_json: id.get().into(),
            info_json: info_json.into(),
        })
    }
}

impl User {
    /// Reads `user_data`. An id that came as a number, which is what `$user->id` is in
    /// PHP, is a text from here on: pusher-js drops any other (see
    /// [`with_text_id`]).
    ///
    /// The id has to fit into a channel's name, since events for the user go to
    /// `#server-to-user-{id}`. `limit` is in bytes of `user_info`.
    pub fn parse(user_data: &str, limit: usize) -> Result<Self, MemberError> {
        let data: UserData<'_> = object(user_data).ok_or(MemberError::UserData)?;
        check_complexity(user_data)?;
        let id = id(data.id).ok_or(MemberError::UserData)?;
        check_size(data.user_info.map_or("", RawValue::get), limit)?;
        let mut member = Member::new(&id, data.id, data.user_info)?;
        if is_number(data.id) {
            member.id_json = quoted(data.id).into();
        }
        let channel = ChannelName::of_user(&id);
        if channel.is_err() {
            return Err(MemberError::UserId);
        }
        let mut watchlist = watched(data.watchlist).ok_or(MemberError::Watchlist)?;
        let watchlist_cut = watchlist.len() > MAX_WATCHLIST;
        watchlist.truncate(MAX_WATCHLIST);
        Ok(Self {
            member,
            watchlist: watchlist.into_iter().collect(),
            watchlist_cut,
        })
    }
}

/// `user_data` with its id as a text, whatever it came as: pusher-js and Pusher's Java
/// client only take a text from `pusher:signin_success`.
pub fn with_text_id(user_data: &str) -> Cow<'_, str> {
    let data: Option<UserData<'_>> = object(user_data);
    let Some(id) = data.map(|data| data.id).filter(|id| is_number(id)) else {
        return user_data.into();
    };
    // The id is a part of the text: what is borrowed begins inside of it.
    let start = id.get().as_ptr() as usize - user_data.as_ptr() as usize;
    let (before, after) = (&user_data[..start], &user_data[start + id.get().len()..]);
    format!("{before}{}{after}", quoted(id)).into()
}

/// The users of a watchlist, each once; none if there is no list.
fn watched(list: Option<&RawValue>) -> Option<IndexSet<Arc<str>>> {
    let Some(list) = list else {
        return Some(IndexSet::new());
    };
    let ids: Vec<&RawValue> = serde_json::from_str(list.get()).ok()?;
    let texts = ids.into_iter().map(|json| id(json).map(Arc::from));
    texts.collect()
}

fn is_number(id: &RawValue) -> bool {
    id.get()
        .starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

/// A number as a JSON string.
fn quoted(number: &RawValue) -> String {
    format!("\"{}\"", number.get())
}

/// What tells a user apart: the text of an id that is JSON, a text or a number.
pub fn identity(json: &RawValue) -> Option<Cow<'_, str>> {
    id(json)
}

/// The text of an id that came as a text or as a number.
fn id(json: &RawValue) -> Option<Cow<'_, str>> {
    match json.get().as_bytes().first()? {
        b'"' => serde_json::from_str::<String>(json.get())
            .ok()
            .map(Cow::from),
        b'0'..=b'9' | b'-' => Some(json.get().into()),
        _ => None,
    }
}

/// serde would take a list for the fields of an object in their order.
fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    if text.trim_start().starts_with('[') {
        return None;
    }
    serde_json::from_str(text).ok()
}

fn check_size(text: &str, limit: usize) -> Result<(), MemberError> {
    let size = text.len();
    if size > limit {
        Err(MemberError::TooLarge { size, limit })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_texts_or_numbers_and_keep_their_type() {
        for (data, id, id_json, info) in [
            (
                r#"{"user_id":"7","user_info":{"name":"Ana"}}"#,
                "7",
                "\"7\"",
                r#"{"name":"Ana"}"#,
            ),
            (r#"{"user_id":7}"#, "7", "7", "{}"),
            (
                r#"{"user_id":9007199254740993,"user_info":true}"#,
                "9007199254740993",
                "9007199254740993",
                "true",
            ),
            (
                r#"{"user_id":"0","x":1,"user_info":[]}"#,
                "0",
                "\"0\"",
                "[]",
            ),
            (r#"{"user_id":"\u00e9"}"#, "é", r#""\u00e9""#, "{}"),
        ] {
            let member = Member::parse(data, 1000).unwrap();
            let found = (
                member.id.as_ref(),
                member.id_json.as_ref(),
                member.info_json.as_ref(),
            );
            assert_eq!(found, (id, id_json, info), "{data}");
        }
    }

    #[test]
    fn data_without_a_usable_id_is_refused() {
        for data in [
            "",
            "[]",
            "[\"1\"]",
            "3",
            "{}",
            r#"{"user_id":null}"#,
            r#"{"user_id":true}"#,
            r#"{"user_id":["1"]}"#,
            r#"{"user_id":{}}"#,
        ] {
            assert_eq!(
                Member::parse(data, 1000),
                Err(MemberError::ChannelData),
                "{data}"
            );
        }
        assert_eq!(
            Member::parse(r#"{"user_id":""}"#, 1000),
            Err(MemberError::Id)
        );
        let long = format!(r#"{{"user_id":"{}"}}"#, "x".repeat(129));
        assert_eq!(Member::parse(&long, 1000), Err(MemberError::Id));
        assert_eq!(
            Member::parse(&long, 100),
            Err(MemberError::TooLarge {
                size: long.len(),
                limit: 100
            })
        );
        for data in ["", "[7]", "{}", r#"{"id":null}"#, r#"{"id":[7]}"#] {
            assert_eq!(User::parse(data, 1000), Err(MemberError::UserData));
        }
        for list in [r#""8""#, "8", "{}", "[null]", "[[8]]"] {
            assert_eq!(
                User::parse(&format!(r#"{{"id":"7","watchlist":{list}}}"#), 1000),
                Err(MemberError::Watchlist),
                "{list}"
            );
        }
    }

    #[test]
    fn what_the_others_would_not_read_is_refused() {
        for (value, error) in [
            (
                format!("{}{}", "[".repeat(512), "]".repeat(512)),
                TooComplex::Depth,
            ),
            ("1".repeat(65), TooComplex::Number),
        ] {
            let member = format!(r#"{{"user_id":1,"user_info":{value}}}"#);
            let user = format!(r#"{{"id":1,"user_info":{value}}}"#);
            let error = MemberError::TooComplex(error);
            assert_eq!(Member::parse(&member, 10_000), Err(error));
            assert_eq!(User::parse(&user, 10_000), Err(error));
        }
    }

    #[test]
    fn a_users_id_and_those_it_watches_are_texts_also_if_they_came_as_numbers() {
        let data = r#"{ "x": {"id": 1}, "id" : 7 , "watchlist":[8,"8","9"]}"#;
        let user = User::parse(data, 1000).unwrap();
        assert_eq!((&*user.member.id, &*user.member.id_json), ("7", "\"7\""));
        let watched: Vec<&str> = user.watchlist.iter().map(AsRef::as_ref).collect();
        assert_eq!(watched, ["8", "9"]);
        assert_eq!(
            with_text_id(data),
            r#"{ "x": {"id": 1}, "id" : "7" , "watchlist":[8,"8","9"]}"#
        );
        for same in [r#"{"id":"7"}"#, r#"{"id":"7","n":7}"#] {
            assert_eq!(with_text_id(same), same);
        }
        let nobody = User::parse(r#"{"id":7,"watchlist":null}"#, 1000).unwrap();
        assert!(nobody.watchlist.is_empty());
    }

    #[test]
    fn a_user_can_be_sent_to_and_its_watchlist_is_not_its_info() {
        assert_eq!(
            User::parse(r#"{"id":"a b"}"#, 1000),
            Err(MemberError::UserId)
        );
        let ids = vec!["\"0f0e0d0c-0b0a-4908-8706-050403020100\""; 100].join(",");
        let user = User::parse(
            &format!(r#"{{"id":"7","user_info":{{"n":1}},"watchlist":[{ids}]}}"#),
            10,
        )
        .unwrap();
        assert_eq!(
            (user.watchlist.len(), user.watchlist_cut),
            (1, false),
            "each is watched once"
        );
        let long = r#"{"id":"7","user_info":"0123456789"}"#;
        assert_eq!(
            User::parse(long, 10),
            Err(MemberError::TooLarge {
                size: 12,
                limit: 10
            })
        );
    }

    #[test]
    fn a_watchlist_is_cut_to_what_is_allowed() {
        let ids: Vec<String> = (0..101).map(|n| format!("\"{n}\"")).collect();
        let user = User::parse(
            &format!(r#"{{"id":"7","watchlist":[{}]}}"#, ids.join(",")),
            10_000,
        )
        .unwrap();
        assert_eq!((user.watchlist.len(), user.watchlist_cut), (100, true));
        assert_eq!(&*user.watchlist[99], "99");
    }
}

//! Who is in a presence channel: per member the pieces of JSON that the others
//! are sent, encoded once. What a client says of itself is already escaped for a
//! JSON string, so it is copied as it came.

use crate::Outcome;
use crate::text::{position, text_frame};

/// The members in no particular order, each with the peer it is.
#[derive(Default)]
pub(crate) struct Roster {
    members: Vec<(usize, Member)>,
}

struct Member {
    /// `\"id\"`.
    id: Box<[u8]>,
    /// `\"id\":info`.
    entry: Box<[u8]>,
}

impl Roster {
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Adds a member, whose `channel_data` is given with its escapes.
    pub(crate) fn join(&mut self, peer: usize, data: &[u8]) -> Outcome<()> {
        const ID: &[u8] = br#"{\"user_id\":"#;
        const INFO: &[u8] = br#",\"user_info\":"#;
        let fields = data
            .strip_prefix(ID)
            .and_then(|data| data.strip_suffix(b"}"))
            .ok_or("the member has no id")?;
        let at = position(fields, INFO).ok_or("the member has no info")?;
        let (id, info) = (&fields[..at], &fields[at + INFO.len()..]);
        let member = Member {
            id: id.into(),
            entry: [id, b":", info].concat().into(),
        };
        self.members.push((peer, member));
        Ok(())
    }

    /// Takes a member away; the frame for the others, if it was one.
    pub(crate) fn leave(&mut self, peer: usize, channel: &[u8]) -> Option<Vec<u8>> {
        let at = self.members.iter().position(|(other, _)| *other == peer)?;
        let (_, gone) = self.members.swap_remove(at);
        Some(text_frame(&[
            br#"{"event":"pusher_internal:member_removed","data":"{\"user_id\":"#,
            &gone.id,
            br#"}","channel":""#,
            channel,
            b"\"}",
        ]))
    }

    /// The answer to a member's subscription: everybody.
    pub(crate) fn welcome(&self, channel: &[u8]) -> Vec<u8> {
        let count = self.members.len().to_string();
        let mut parts: Vec<&[u8]> = Vec::with_capacity(self.members.len() * 4 + 8);
        parts.extend([
            br#"{"event":"pusher_internal:subscription_succeeded","data":"{\"presence\":{\"count\":"#.as_slice(),
            count.as_bytes(),
            br#",\"ids\":["#,
        ]);
        for (index, (_, member)) in self.members.iter().enumerate() {
            parts.extend([separator(index), &member.id]);
        }
        parts.push(br#"],\"hash\":{"#);
        for (index, (_, member)) in self.members.iter().enumerate() {
            parts.extend([separator(index), &member.entry]);
        }
        parts.extend([br#"}}}","channel":""#, channel, b"\"}"]);
        text_frame(&parts)
    }
}

/// The frame that announces a new member to the others.
pub(crate) fn member_added(data: &[u8], channel: &[u8]) -> Vec<u8> {
    text_frame(&[
        br#"{"event":"pusher_internal:member_added","data":""#,
        data,
        br#"","channel":""#,
        channel,
        b"\"}",
    ])
}

fn separator(index: usize) -> &'static [u8] {
    if index == 0 { b"" } else { b"," }
}

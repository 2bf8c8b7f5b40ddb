//! What Redis is told: topics that are there or not, and events.

use redis::Cmd;

use super::{Keys, TTL_SECONDS, script};
use crate::apps::AppHandle;
use crate::hub::NodeId;
use crate::webhooks::event::{Event, Topic};

/// Events that the queue has at most; none is added then.
const MAX_QUEUED: usize = 200_000;

/// KEYS: present, of the node, nodes, counts, queue. ARGV: node, most events of the queue, time
/// to live, and by fours: what (`e`nter, `l`eave, `c`ount, `t`ell), topic, count, event.
/// Returns how many events the queue had no room for.
const RECORD: &str = r"
local node, lost, has_entered = ARGV[1], 0, false
local length = redis.call('XLEN', KEYS[5])
local function tell(event)
  if length >= tonumber(ARGV[2]) then
    lost = lost + 1
  else
    redis.call('XADD', KEYS[5], '*', 'e', event)
    length = length + 1
  end
end
for i = 4, #ARGV, 4 do
  local what, topic, count, event = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if what == 'e' then
    local there = redis.call('HGET', KEYS[1], topic)
    if not there then
      redis.call('HSET', KEYS[1], topic, node)
      tell(event)
    elseif not string.find(there, node, 1, true) then
      redis.call('HSET', KEYS[1], topic, there .. ' ' .. node)
    end
    redis.call('SADD', KEYS[2], topic)
    has_entered = true
  elseif what == 'l' then
    redis.call('SREM', KEYS[2], topic)
    local there, others = redis.call('HGET', KEYS[1], topic), {}
    if there and string.find(there, node, 1, true) then
      for other in string.gmatch(there, '%x+') do
        if other ~= node then others[#others + 1] = other end
      end
      if #others > 0 then
        redis.call('HSET', KEYS[1], topic, table.concat(others, ' '))
      else
        redis.call('HDEL', KEYS[1], topic)
        redis.call('HDEL', KEYS[4], topic)
        tell(event)
      end
    end
  elseif what == 'c' then
    if redis.call('HGET', KEYS[4], topic) ~= count then
      redis.call('HSET', KEYS[4], topic, count)
      tell(event)
    end
  else
    tell(event)
  end
end
if has_entered and redis.call('SADD', KEYS[3], node) == 1 then
  for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ARGV[3]) end
end
return lost
";

/// Something that Redis is told.
#[derive(Clone, Debug)]
pub(in crate::webhooks) struct Record {
    pub(super) app: AppHandle,
    what: What,
    event: String,
    /// When, in Unix milliseconds.
    pub(super) at: u64,
}

#[derive(Clone, Debug)]
enum What {
    Enter(String),
    Leave(String),
    Count(String, usize),
    Tell,
}

impl Record {
    /// A topic is on this node, or is not any more.
    pub(in crate::webhooks) fn topic(topic: &Topic, is_there: bool, id: String) -> Self {
        let event = topic.event(is_there, id);
        let text = topic.text();
        let what = match is_there {
            true => What::Enter(text),
            false => What::Leave(text),
        };
        Self::of(&event, what)
    }

    /// An event that is told if the channel's count is another one than was told last.
    pub(in crate::webhooks) fn count(event: &Event, count: usize) -> Self {
        Self::of(event, What::Count(event.channel().to_owned(), count))
    }

    /// An event.
    pub(in crate::webhooks) fn tell(event: &Event) -> Self {
        Self::of(event, What::Tell)
    }

    fn of(event: &Event, what: What) -> Self {
        Self {
            app: event.app.clone(),
            what,
            event: event.text(),
            at: event.at,
        }
    }

    /// Whether it says what is so, and can be found out again.
    pub(super) fn is_topic(&self) -> bool {
        matches!(self.what, What::Enter(_) | What::Leave(_))
    }

    /// Bytes that count for the bound.
    pub(super) fn cost(&self) -> usize {
        match self.what {
            What::Enter(_) | What::Leave(_) => 0,
            What::Count(..) | What::Tell => size_of::<Self>() + self.event.len(),
        }
    }
}

/// Has Redis carry records of a node out.
pub(super) fn command(keys: &Keys, node: NodeId, records: &[Record]) -> Cmd {
    let all = [
        &*keys.present,
        &keys.own,
        &keys.nodes,
        &keys.counts,
        &keys.queue,
    ];
    let mut command = script(RECORD, &all);
    command
        .arg(node.to_string())
        .arg(MAX_QUEUED)
        .arg(TTL_SECONDS);
    for record in records {
        let (what, topic, count) = match &record.what {
            What::Enter(topic) => ("e", &**topic, 0),
            What::Leave(topic) => ("l", &**topic, 0),
            What::Count(channel, count) => ("c", &**channel, *count),
            What::Tell => ("t", "", 0),
        };
        command.arg(what).arg(topic).arg(count).arg(&record.event);
    }
    command
}

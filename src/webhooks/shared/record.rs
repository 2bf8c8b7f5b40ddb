//! What Redis is told: topics that are there or not, and events.

use redis::Cmd;

use super::{Keys, TTL_SECONDS, script};
use crate::apps::AppHandle;
use crate::hub::NodeId;
use crate::webhooks::event::{Event, Id, Topic};

/// Events that the queue has at most; none is added then.
const MAX_QUEUED: usize = 100_000;

/// KEYS: present, of the node, nodes, counts, queue. ARGV: node, most events of the queue, time
/// to live, and by fours: what (`n`ode, `e`nter, `l`eave, `c`ount, `t`ell), topic, count, event,
/// which is empty if nobody is to be told.
/// Returns how many events the queue had no room for, and whether the node was not known.
const RECORD: &str = r"
local node, lost, has_entered = ARGV[1], 0, false
local length = redis.call('XLEN', KEYS[5])
local function tell(event)
  if event == '' then
    return
  elseif length >= tonumber(ARGV[2]) then
    lost = lost + 1
  else
    redis.call('XADD', KEYS[5], '*', 'e', event)
    length = length + 1
  end
end
for i = 4, #ARGV, 4 do
  local what, topic, count, event = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if what == 'n' then
    has_entered = true
  elseif what == 'e' then
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
    if redis.call('HEXISTS', KEYS[1], topic) == 1 and redis.call('HGET', KEYS[4], topic) ~= count then
      redis.call('HSET', KEYS[4], topic, count)
      tell(event)
    end
  else
    tell(event)
  end
end
local is_new = 0
if has_entered then is_new = redis.call('SADD', KEYS[3], node) end
for _, key in ipairs(KEYS) do
  if redis.call('TTL', key) == -1 then redis.call('EXPIRE', key, ARGV[3]) end
end
return { lost, is_new }
";

/// KEYS: of a node, nodes. ARGV: node. Nothing is kept of a node that has nothing any more.
const FORGET: &str = r"
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('SREM', KEYS[2], ARGV[1]) end
return 0
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
    /// The node has entered what it has.
    Node,
    Enter(String),
    Leave(String),
    Count(String, usize),
    Tell,
}

impl Record {
    /// The node is known from now on, whether it has anything or not.
    pub(super) fn node(app: &AppHandle) -> Self {
        Self {
            app: app.clone(),
            what: What::Node,
            event: String::new(),
            at: 0,
        }
    }

    /// A topic is not on this node any more, and nobody is to be told.
    pub(in crate::webhooks) fn forget(topic: &Topic) -> Self {
        Self {
            app: topic.app.clone(),
            what: What::Leave(topic.text()),
            event: String::new(),
            at: 0,
        }
    }

    /// A topic is on this node, or is not any more.
    pub(in crate::webhooks) fn topic(topic: &Topic, is_there: bool, id: Id<'_>) -> Self {
        let event = topic.event(is_there, id);
        let text = topic.text();
        let settings = topic.app.settings();
        let is_wanted = settings.webhooks.want(&[event.kind], event.channel());
        let what = match is_there {
            true => What::Enter(text),
            false => What::Leave(text),
        };
        let mut record = Self::of(&event, what);
        if !is_wanted {
            record.event.clear();
        }
        record
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
        matches!(self.what, What::Node | What::Enter(_) | What::Leave(_))
    }

    /// Whether nobody is to know of it any more.
    pub(super) fn is_forgotten(&self) -> bool {
        matches!(self.what, What::Leave(_)) && self.at == 0
    }

    /// Bytes that count for the bound.
    pub(super) fn cost(&self) -> usize {
        match self.what {
            What::Node | What::Enter(_) | What::Leave(_) => 0,
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
            What::Node => ("n", "", 0),
            What::Enter(topic) => ("e", &**topic, 0),
            What::Leave(topic) => ("l", &**topic, 0),
            What::Count(channel, count) => ("c", &**channel, *count),
            What::Tell => ("t", "", 0),
        };
        command.arg(what).arg(topic).arg(count).arg(&record.event);
    }
    command
}

/// Has Redis forget a node that has nothing any more.
pub(super) fn forget_node(keys: &Keys, node: NodeId) -> Cmd {
    let mut command = script(FORGET, &[&keys.own, &keys.nodes]);
    command.arg(node.to_string());
    command
}

//! What Redis has to do at once: Lua scripts, each on the keys of one slot.

use std::time::Duration;

use redis::{Cmd, Script};

use super::keys::{CacheKeys, TopicKeys};
use crate::cluster::codec::tag_and_value;
use crate::hub::{Fact, NodeId};

/// How long facts outlive the last who changed or refreshed them, in milliseconds.
const FACTS_TTL: u64 = 3_600_000;

/// KEYS: facts, Redis channel. ARGV: node, epoch, time to live, fields and values.
///
/// A fact's field is the node's id, the tag of its kind, and for members the user's id; the
/// node's id alone says that it has entered all of them. Makes the node's facts exactly these, has others read them if they differ from
/// what was there, and returns everybody's, with whether no other node had any as `f`.
const ENTER: &str = r"
local key, node = KEYS[1], ARGV[1]
redis.call('HSETNX', key, 'e', ARGV[2])
local wanted, changed, first = {}, false, 1
for i = 4, #ARGV, 2 do wanted[ARGV[i]] = ARGV[i + 1] end
local there = redis.call('HGETALL', key)
for i = 1, #there, 2 do
  local field = there[i]
  if #field >= 16 and string.sub(field, 1, 16) ~= node then first = 0 end
  if #field > 16 and string.sub(field, 1, 16) == node then
    if wanted[field] == nil then
      redis.call('HDEL', key, field)
      changed = true
    elseif wanted[field] == there[i + 1] then
      wanted[field] = nil
    end
  end
end
for field, value in pairs(wanted) do
  redis.call('HSET', key, field, value)
  changed = true
end
redis.call('HSET', key, node, '1')
redis.call('PEXPIRE', key, ARGV[3])
if changed then
  local version = redis.call('HINCRBY', key, 'v', 1)
  redis.call('@PUBLISH', KEYS[2], 'R1 = ' .. string.format('%.0f', version) .. ' ' .. node)
end
local all = redis.call('HGETALL', key)
all[#all + 1] = 'f'
all[#all + 1] = first
return all
";

/// KEYS: facts, Redis channel. ARGV: node, epoch, time to live, field, value, fact;
/// an empty field's value takes the field out. Returns whether the node's other
/// facts are there.
const CHANGE: &str = r"
local key = KEYS[1]
redis.call('HSETNX', key, 'e', ARGV[2])
if ARGV[5] == '' then
  redis.call('HDEL', key, ARGV[4])
else
  redis.call('HSET', key, ARGV[4], ARGV[5])
end
local version = redis.call('HINCRBY', key, 'v', 1)
redis.call('PEXPIRE', key, ARGV[3])
redis.call('@PUBLISH', KEYS[2], 'R1 C ' .. string.format('%.0f', version) .. ' ' .. ARGV[1] .. '\n' .. ARGV[6])
return redis.call('HEXISTS', key, ARGV[1])
";

/// KEYS: facts, Redis channel. ARGV: who notifies others if there were any (nobody if it
/// is empty), nodes whose facts are to go. With the last of them the key goes, too.
/// Returns whether it did.
const REMOVE: &str = r"
local key, gone = KEYS[1], {}
for i = 2, #ARGV do gone[ARGV[i]] = true end
local changed, left, removed = false, 0, 0
for _, field in ipairs(redis.call('HKEYS', key)) do
  if #field >= 16 then
    if gone[string.sub(field, 1, 16)] then
      redis.call('HDEL', key, field)
      changed = changed or #field > 16
      removed = 1
    else
      left = left + 1
    end
  end
end
if left == 0 then
  redis.call('DEL', key)
elseif changed and ARGV[1] ~= '' then
  local version = redis.call('HINCRBY', key, 'v', 1)
  redis.call('@PUBLISH', KEYS[2], 'R1 = ' .. string.format('%.0f', version) .. ' ' .. ARGV[1])
end
return left == 0 and removed or 0
";

/// KEYS: last event, Redis channel. ARGV: the message's head, the event, time to live; with
/// none the event is too long to be kept, and the one before is not the last any more.
const KEEP: &str = r"
if ARGV[3] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return redis.call('@PUBLISH', KEYS[2], ARGV[1] .. ARGV[2])
";

/// KEYS: index and sizes of an application's last events. ARGV: channel, bytes of its event,
/// bytes that all may have, time to live, what is before and after a channel's name in the
/// key of its last event.
/// Enters an event, and takes out those that were entered first while all have too many.
/// Returns their channels and when they expire; in a Redis Cluster, where their keys are
/// on other shards, they are not deleted.
const INDEX: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local index, sizes = KEYS[1], KEYS[2]
local channel, size, max = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local total = tonumber(redis.call('HGET', sizes, '')) or 0
local function forget(name)
  total = total - (tonumber(redis.call('HGET', sizes, name)) or 0)
  redis.call('HDEL', sizes, name)
  redis.call('ZREM', index, name)
end
forget(channel)
for _, name in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', now, 'LIMIT', 0, 100)) do
  forget(name)
end
if size <= max then
  redis.call('ZADD', index, now + ARGV[4], channel)
  redis.call('HSET', sizes, channel, size)
  total = total + size
end
local evicted = {}
while total > max do
  local first = redis.call('ZRANGE', index, 0, 0, 'WITHSCORES')
  if not first[1] then
    total = 0
    break
  end
  forget(first[1])
  if ARGV[5] ~= '' then
    redis.call('DEL', ARGV[5] .. first[1] .. ARGV[6])
  else
    evicted[#evicted + 1] = first[1]
    evicted[#evicted + 1] = first[2]
  end
end
redis.call('HSET', sizes, '', total)
redis.call('PEXPIRE', index, ARGV[4])
redis.call('PEXPIRE', sizes, ARGV[4])
return evicted
";

/// KEYS: last event. ARGV: when an event expires, by another shard's clock. Takes out that
/// one or an earlier one; a later one of the same channel expires later.
const EVICT: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now + redis.call('PTTL', KEYS[1]) <= tonumber(ARGV[1]) + 1000 then
  redis.call('DEL', KEYS[1])
end
return 0
";

/// KEYS: last event. Returns the event and the milliseconds that it has left.
const LAST: &str = r"
return { redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1]) }
";

/// KEYS: nodes, what they say of themselves. ARGV: node, milliseconds after which a node is
/// forgotten, what this one says of itself.
/// Returns how long ago this one's last heartbeat was (-1: never), and for each
/// node its id, how long ago its was, and what it says. One from the future, of a clock that
/// was ahead by more than a second, is none.
const HEARTBEAT: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local before = redis.call('ZSCORE', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], now + 1000, '+inf')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
local nodes = { before and math.max(now - before, 0) or -1 }
local there = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for i = 1, #there, 2 do
  nodes[#nodes + 1] = there[i]
  nodes[#nodes + 1] = math.max(now - there[i + 1], 0)
  nodes[#nodes + 1] = redis.call('HGET', KEYS[2], there[i])
end
if redis.call('HLEN', KEYS[2]) * 3 > #nodes then
  for _, node in ipairs(redis.call('HKEYS', KEYS[2])) do
    if not redis.call('ZSCORE', KEYS[1], node) then redis.call('HDEL', KEYS[2], node) end
  end
end
return nodes
";

/// KEYS: connections. ARGV: node, max, time to live, all nodes that are alive.
/// Counts one more for the node, unless all together have as many as there may be.
const ADMIT: &str = r"
local alive, sum = {}, 0
for i = 4, #ARGV do alive[ARGV[i]] = true end
local there = redis.call('HGETALL', KEYS[1])
for i = 1, #there, 2 do
  if alive[there[i]] then sum = sum + (tonumber(there[i + 1]) or 0) end
end
if sum >= tonumber(ARGV[2]) then return 0 end
redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
";

/// KEYS: a claim. ARGV: a text, time to live. Claims what nobody has, or what somebody with the
/// same fingerprint has given up (`b`), of which the number is kept behind the text; returns what
/// was there.
const CLAIM: &str = r"
local known = redis.call('GET', KEYS[1])
if not known then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
elseif string.sub(known, 1, 1) == 'b' and string.sub(known, 2, 17) == string.sub(ARGV[1], 2, 17) then
  redis.call('SET', KEYS[1], ARGV[1] .. string.sub(known, 18), 'PX', ARGV[2])
end
return known
";

/// KEYS: a claim. ARGV: the text of whoever claimed it, another one or nothing, time to live.
/// Puts the other one in its place, unless somebody else's is there. Without another one, it is
/// free again, or given up as it was before it was claimed.
const PUT_CLAIM: &str = r"
local known = redis.call('GET', KEYS[1])
if known and string.sub(known, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
local text = ARGV[2]
if text == '' and known and #known > #ARGV[1] then
  text = 'b' .. string.sub(known, 2, 17) .. string.sub(known, #ARGV[1] + 1)
end
if text == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], text, 'PX', ARGV[3])
end
return 1
";

/// What the last event of a cache channel takes, and may take.
#[derive(Clone, Copy)]
pub(super) struct CacheUse {
    pub(super) bytes: usize,
    /// Of all of the application's together.
    pub(super) max_bytes: usize,
    pub(super) ttl_ms: u64,
}

/// The scripts as Redis knows them once they are loaded.
pub(in crate::cluster) struct Scripts {
    enter: Loaded,
    change: Loaded,
    remove: Loaded,
    keep: Loaded,
    index: Loaded,
    evict: Loaded,
    last: Loaded,
    heartbeat: Loaded,
    admit: Loaded,
    claim: Loaded,
    put_claim: Loaded,
    /// `PUBLISH`, or `SPUBLISH` in a Redis Cluster.
    pub(super) is_sharded: bool,
}

struct Loaded {
    code: String,
    hash: String,
}

impl Scripts {
    pub(in crate::cluster) fn new(is_sharded: bool) -> Self {
        let publish = if is_sharded { "SPUBLISH" } else { "PUBLISH" };
        let loaded = |code: &str| {
            let code = code.replace("@PUBLISH", publish);
            let hash = Script::new(&code).get_hash().to_owned();
            Loaded { code, hash }
        };
        Self {
            enter: loaded(ENTER),
            change: loaded(CHANGE),
            remove: loaded(REMOVE),
            keep: loaded(KEEP),
            index: loaded(INDEX),
            evict: loaded(EVICT),
            last: loaded(LAST),
            heartbeat: loaded(HEARTBEAT),
            admit: loaded(ADMIT),
            claim: loaded(CLAIM),
            put_claim: loaded(PUT_CLAIM),
            is_sharded,
        }
    }

    /// Commands that make all of them known to a server.
    pub(super) fn load(&self) -> Vec<Cmd> {
        let Self {
            enter,
            change,
            remove,
            keep,
            index,
            evict,
            last,
            heartbeat,
            admit,
            claim,
            put_claim,
            is_sharded: _,
        } = self;
        [
            enter, change, remove, keep, index, evict, last, heartbeat, admit, claim, put_claim,
        ]
        .iter()
        .map(|script| {
            let mut command = redis::cmd("SCRIPT");
            command.arg("LOAD").arg(&script.code);
            command
        })
        .collect()
    }

    pub(super) fn enter(&self, keys: &TopicKeys, node: NodeId, epoch: &str, facts: &[Fact]) -> Cmd {
        let mut command = self.enter.on(&[&keys.facts, &keys.bus]);
        command.arg(node.to_string()).arg(epoch).arg(FACTS_TTL);
        for fact in facts {
            let (field, value) = field_and_value(node, fact);
            command.arg(field).arg(value);
        }
        command
    }

    pub(super) fn change(&self, keys: &TopicKeys, node: NodeId, epoch: &str, fact: &Fact) -> Cmd {
        let (field, value) = field_and_value(node, fact);
        let (tag, changed) = tag_and_value(fact);
        let mut command = self.change.on(&[&keys.facts, &keys.bus]);
        command.arg(node.to_string()).arg(epoch).arg(FACTS_TTL);
        command.arg(field).arg(value).arg(format!("{tag}{changed}"));
        command
    }

    /// Takes out what this node no longer has a part in, and notifies others.
    pub(super) fn leave(&self, keys: &TopicKeys, node: NodeId) -> Cmd {
        let mut command = self.remove.on(&[&keys.facts, &keys.bus]);
        command.arg(node.to_string()).arg(node.to_string());
        command
    }

    /// Takes out the facts of nodes that are gone, which all know of themselves.
    pub(super) fn reap(&self, keys: &TopicKeys, gone: &[NodeId]) -> Cmd {
        let mut command = self.remove.on(&[&keys.facts, &keys.bus]);
        command.arg("");
        for node in gone {
            command.arg(node.to_string());
        }
        command
    }

    pub(super) fn keep(&self, keys: &TopicKeys, head: &str, text: &str, ttl_ms: u64) -> Cmd {
        let mut command = self.keep.on(&[&keys.last, &keys.bus]);
        command.arg(head).arg(text).arg(ttl_ms);
        command
    }

    /// Enters the last event of a cache channel among those of its application.
    pub(super) fn index(&self, keys: &CacheKeys, channel: &str, limits: CacheUse) -> Cmd {
        let mut command = self.index.on(&[&keys.index, &keys.sizes]);
        command.arg(channel).arg(limits.bytes).arg(limits.max_bytes);
        command.arg(limits.ttl_ms);
        let (before, after) = match self.is_sharded {
            true => ("", ""),
            false => (&*keys.before, &*keys.after),
        };
        command.arg(before).arg(after);
        command
    }

    /// Takes out a last event that expires then, or an earlier one.
    pub(super) fn evict(&self, keys: &TopicKeys, expires_ms: &str) -> Cmd {
        let mut command = self.evict.on(&[&keys.last]);
        command.arg(expires_ms);
        command
    }

    pub(super) fn last(&self, keys: &TopicKeys) -> Cmd {
        self.last.on(&[&keys.last])
    }

    pub(super) fn heartbeat(
        &self,
        [nodes, infos]: [&str; 2],
        node: NodeId,
        forget_ms: u64,
        info: &str,
    ) -> Cmd {
        let mut command = self.heartbeat.on(&[nodes, infos]);
        command.arg(node.to_string()).arg(forget_ms).arg(info);
        command
    }

    pub(super) fn admit(
        &self,
        key: &str,
        node: NodeId,
        max: usize,
        alive: impl Iterator<Item = NodeId>,
    ) -> Cmd {
        let mut command = self.admit.on(&[key]);
        command.arg(node.to_string()).arg(max).arg(FACTS_TTL);
        command.arg(node.to_string());
        for node in alive {
            command.arg(node.to_string());
        }
        command
    }

    pub(super) fn claim(&self, key: &str, text: &[u8], ttl: Duration) -> Cmd {
        let mut command = self.claim.on(&[key]);
        command.arg(text).arg(milliseconds(ttl));
        command
    }

    pub(super) fn put_claim(
        &self,
        key: &str,
        before: &[u8],
        (text, ttl): (Option<Vec<u8>>, Duration),
    ) -> Cmd {
        let text = text.unwrap_or_default();
        let mut command = self.put_claim.on(&[key]);
        command.arg(before).arg(text).arg(milliseconds(ttl));
        command
    }

    /// Keeps a hash of facts or connections alive.
    pub(super) fn refresh(key: &str) -> Cmd {
        let mut command = redis::cmd("PEXPIRE");
        command.arg(key).arg(FACTS_TTL);
        command
    }
}

impl Loaded {
    fn on(&self, keys: &[&str]) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.hash).arg(keys.len());
        for key in keys {
            command.arg(*key);
        }
        command
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The field that a fact is kept in, and its value; an empty one takes it out.
fn field_and_value(node: NodeId, fact: &Fact) -> (String, String) {
    let (_, value) = tag_and_value(fact);
    match fact {
        Fact::Member(member) => (format!("{node}m{}", member.id), value),
        Fact::Left(user) => (format!("{node}m{user}"), String::new()),
        Fact::Subscribers(0) => (format!("{node}n"), String::new()),
        Fact::Subscribers(_) => (format!("{node}n"), value),
        Fact::Online => (format!("{node}o"), "1".to_owned()),
        Fact::Offline => (format!("{node}o"), String::new()),
    }
}

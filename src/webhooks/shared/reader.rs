//! The one node that tells for all: who it is, and what it takes from the queue.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Value;

use super::{Keys, Shared, script};
use crate::apps::AppHandle;
use crate::cluster::LinkError;
use crate::webhooks::event::{Done, Event, Receipt};
use crate::webhooks::receivers::Receivers;

/// How long a node tells from when it has said so last: longer than Redis may take to answer, or
/// to be connected to anew.
const LEASE: Duration = Duration::from_secs(10);

/// Events that are read at a time, and how many times in a row.
const MAX_READ: usize = 500;
const MAX_READS: usize = 8;

/// KEYS: sender. ARGV: node, milliseconds. Returns whether the node tells from now on.
const HOLD: &str = r"
local sender = redis.call('GET', KEYS[1])
if sender and sender ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
";

/// KEYS: sender. ARGV: node. The node tells no more.
const RELEASE: &str = r"
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 0
";

/// What this node has taken from an application's queue.
pub(super) struct Reader {
    /// The last entry.
    last: String,
    /// Entries that are done with.
    done: Arc<Done>,
    /// Those of them that Redis was not told of yet.
    unsent: Vec<String>,
    /// Until when nobody else tells.
    until: Instant,
}

impl Reader {
    /// What is not done with now is somebody else's; returns what is.
    pub(super) fn close(self) -> Vec<String> {
        let mut done = self.unsent;
        done.extend(self.done.take());
        self.done.close();
        done
    }
}

impl Shared {
    /// Says that this node tells for an application, unless another one does.
    pub(super) async fn hold_sender(
        &mut self,
        app: &AppHandle,
        receivers: &mut Receivers,
    ) -> Result<(), LinkError> {
        let until = self.ask_to_tell(app).await?;
        match (until, self.readers.get_mut(app)) {
            (Some(until), Some(reader)) => reader.until = until,
            (Some(until), None) => {
                let done = Arc::new(Done::default());
                done.open();
                let reader = Reader {
                    last: "0-0".to_owned(),
                    done,
                    // Deleted before anything is read.
                    unsent: self.undeleted.remove(app).unwrap_or_default(),
                    until,
                };
                self.readers.insert(app.clone(), reader);
            }
            (None, Some(_)) => self.hand_over(app, receivers),
            (None, None) => {}
        }
        self.delete(app).await
    }

    /// Until when this node tells for an application; none if another one does.
    async fn ask_to_tell(&mut self, app: &AppHandle) -> Result<Option<Instant>, LinkError> {
        let (keys, until) = (self.keys(app, self.node), Instant::now() + LEASE);
        let mut command = script(HOLD, &[&keys.sender]);
        let milliseconds = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
        command.arg(self.node.to_string()).arg(milliseconds);
        let answers = self.link.run(&keys.present, vec![command]).await?;
        let is_sender = answers.first() == Some(&Value::Int(1));
        Ok(is_sender.then_some(until))
    }

    /// In the middle of what takes long: says once more for whom this node tells.
    pub(super) async fn renew(&mut self) -> Result<(), LinkError> {
        let soon = Instant::now() + LEASE / 2;
        let is_due = |(_, reader): &(&AppHandle, &Reader)| reader.until < soon;
        let due = self.readers.iter().filter(is_due);
        let due: Vec<AppHandle> = due.map(|(app, _)| app.clone()).collect();
        for app in due {
            let until = self.ask_to_tell(&app).await?;
            if let Some(reader) = self.readers.get_mut(&app) {
                // If another one tells, what is left here is handed over next.
                reader.until = until.unwrap_or_else(Instant::now);
            }
        }
        Ok(())
    }

    /// Takes out of the queue what is done with, whoever tells for the application now.
    async fn delete(&mut self, app: &AppHandle) -> Result<(), LinkError> {
        if let Some(done) = self.undeleted.get(app) {
            let keys = self.keys(app, self.node);
            let commands = done
                .chunks(MAX_READ)
                .map(|ids| deletion(&keys, ids))
                .collect();
            self.link.run(&keys.present, commands).await?;
            self.undeleted.remove(app);
        }
        Ok(())
    }

    /// Somebody else tells for an application, or will.
    fn hand_over(&mut self, app: &AppHandle, receivers: &mut Receivers) {
        // First: whatever is dropped behind is not done with.
        if let Some(reader) = self.readers.remove(app) {
            let undeleted = self.undeleted.entry(app.clone()).or_default();
            undeleted.extend(reader.close());
        }
        receivers.hand_over(app);
    }

    /// While Redis is away somebody else may tell as soon as the time is over.
    pub(super) fn hand_over_late(&mut self, receivers: &mut Receivers) {
        let now = Instant::now();
        let is_late =
            |(app, reader): (&AppHandle, &Reader)| (reader.until <= now).then(|| app.clone());
        let late: Vec<AppHandle> = self.readers.iter().filter_map(is_late).collect();
        for app in late {
            self.hand_over(&app, receivers);
        }
    }

    /// Applications that want no webhooks any more, or are gone, are not told for.
    pub(super) async fn give_up_removed(
        &mut self,
        apps: &[AppHandle],
        receivers: &mut Receivers,
    ) -> Result<(), LinkError> {
        let gone: Vec<AppHandle> = self
            .readers
            .keys()
            .filter(|it| !apps.contains(it))
            .cloned()
            .collect();
        for app in gone {
            self.hand_over(&app, receivers);
            self.delete(&app).await?;
            self.release(&app, &[]).await?;
        }
        Ok(())
    }

    /// Takes what is to be told, and takes out of the queue what was.
    pub(super) async fn read(&mut self, receivers: &mut Receivers) -> Result<(), LinkError> {
        let apps: Vec<AppHandle> = self.readers.keys().cloned().collect();
        for app in apps {
            for _ in 0..MAX_READS {
                if self.read_some(&app, receivers).await? < MAX_READ {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn read_some(
        &mut self,
        app: &AppHandle,
        receivers: &mut Receivers,
    ) -> Result<usize, LinkError> {
        let keys = self.keys(app, self.node);
        let Some(reader) = self.readers.get_mut(app) else {
            return Ok(0);
        };
        reader.unsent.extend(reader.done.take());
        let mut commands: Vec<_> = reader
            .unsent
            .chunks(MAX_READ)
            .map(|ids| deletion(&keys, ids))
            .collect();
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(MAX_READ).arg("STREAMS");
        command.arg(&keys.queue).arg(&reader.last);
        commands.push(command);
        let answers = self.link.run(&keys.present, commands).await?;
        let Some(reader) = self.readers.get_mut(app) else {
            return Ok(0);
        };
        reader.unsent.clear();
        let entries = answers.last().map(entries).unwrap_or_default();
        let count = entries.len();
        for (entry, text) in entries {
            reader.last.clone_from(&entry);
            let done = Arc::clone(&reader.done);
            let receipt = Arc::new(Receipt { entry, done });
            // One that cannot be read is done with.
            if let Some(mut event) = text.and_then(|text| Event::of_text(app, &text)) {
                event.receipt = Some(receipt);
                receivers.tell(event);
            }
        }
        Ok(count)
    }

    /// This node does not tell any more; these entries are done with.
    pub(super) async fn release(
        &mut self,
        app: &AppHandle,
        done: &[String],
    ) -> Result<(), LinkError> {
        let keys = self.keys(app, self.node);
        let mut commands: Vec<_> = done
            .chunks(MAX_READ)
            .map(|ids| deletion(&keys, ids))
            .collect();
        let mut command = script(RELEASE, &[&keys.sender]);
        command.arg(self.node.to_string());
        commands.push(command);
        self.link.run(&keys.present, commands).await?;
        Ok(())
    }
}

fn deletion(keys: &Keys, ids: &[String]) -> redis::Cmd {
    let mut command = redis::cmd("XDEL");
    command.arg(&keys.queue).arg(ids);
    command
}

/// Entries of a stream, and the text of each.
fn entries(answer: &Value) -> Vec<(String, Option<String>)> {
    // Of each stream that was asked for, which is one.
    type Entries = Vec<(String, Vec<String>)>;
    let streams: Vec<(String, Entries)> = redis::from_redis_value_ref(answer).unwrap_or_default();
    let entries = streams.into_iter().flat_map(|(_, entries)| entries);
    let with_text = |(id, fields): (String, Vec<String>)| {
        let mut fields = fields.into_iter();
        let text = (fields.next().as_deref() == Some("e")).then(|| fields.next());
        (id, text.flatten())
    };
    entries.map(with_text).collect()
}

//! Questions that all nodes have to answer.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::codec::{About, Row, Rows};
use crate::apps::AppHandle;
use crate::hub::{Channel, ChannelSummary, Hub, NodeId};
use crate::protocol::member::identity;

/// How long nodes have to answer.
const PATIENCE: Duration = Duration::from_millis(900);

/// Questions that may be open at a time.
const MAX_OPEN: usize = 1024;

/// Channels in one part of an answer.
const MAX_ROWS: usize = 500;

/// Members in one part of an answer.
const MAX_USERS: usize = 5000;

/// What other nodes have answered.
#[derive(Debug, Default)]
pub struct SurveyResult {
    /// Their connections of the application.
    pub connections: u64,
    /// Their channels, by name.
    pub channels: IndexMap<String, ChannelSummary>,
    /// Nodes that were asked.
    pub asked: usize,
    /// Those of them that have not answered in time.
    pub silent: usize,
}

impl SurveyResult {
    /// Adds part of a node's answer; a channel may be in several.
    fn add(&mut self, rows: Rows) {
        self.connections = self.connections.saturating_add(rows.connections);
        for row in rows.channels {
            let ids = row.users.iter().filter_map(|id| identity(id));
            let summary = ChannelSummary {
                subscriptions: row.subscriptions,
                users: ids.map(|id| Box::from(&*id)).collect(),
            };
            self.channels.entry(row.name).or_default().add(summary);
        }
    }
}

/// Questions without a complete answer.
#[derive(Default)]
pub(super) struct Surveys {
    next: u64,
    open: HashMap<u64, Open>,
}

struct Open {
    waiting: HashSet<NodeId>,
    others: SurveyResult,
    deadline: Instant,
    reply: oneshot::Sender<SurveyResult>,
}

impl Surveys {
    /// Records a question to these nodes; returns its id, or answers it at once if
    /// nobody is to be asked.
    pub(super) fn open(
        &mut self,
        nodes: impl Iterator<Item = NodeId>,
        reply: oneshot::Sender<SurveyResult>,
        now: Instant,
    ) -> Option<u64> {
        let waiting: HashSet<NodeId> = nodes.collect();
        let asked = waiting.len();
        let others = SurveyResult {
            asked,
            ..SurveyResult::default()
        };
        if waiting.is_empty() || self.open.len() >= MAX_OPEN {
            // Whoever asked may have gone.
            let _ = reply.send(SurveyResult {
                silent: asked,
                ..others
            });
            return None;
        }
        let id = self.next;
        self.next += 1;
        let open = Open {
            waiting,
            others,
            deadline: now + PATIENCE,
            reply,
        };
        self.open.insert(id, open);
        Some(id)
    }

    /// Part of an answer has come.
    pub(super) fn answer(&mut self, node: NodeId, id: u64, is_last: bool, rows: Rows) {
        let Some(open) = self.open.get_mut(&id) else {
            return;
        };
        if !open.waiting.contains(&node) {
            return;
        }
        open.others.add(rows);
        if is_last {
            open.waiting.remove(&node);
        }
        if open.waiting.is_empty() {
            self.close(id);
        }
    }

    /// A node will not answer any more: it is gone, and nothing is there.
    pub(super) fn forget(&mut self, node: NodeId) {
        let done: Vec<u64> = self
            .open
            .iter_mut()
            .filter_map(|(id, open)| {
                (open.waiting.remove(&node) && open.waiting.is_empty()).then_some(*id)
            })
            .collect();
        done.into_iter().for_each(|id| self.close(id));
    }

    /// Answers what has waited long enough with what there is.
    pub(super) fn close_late(&mut self, now: Instant) {
        let is_late = |open: &Open| open.deadline <= now;
        let late: Vec<u64> = self
            .open
            .iter()
            .filter(|(_, open)| is_late(open))
            .map(|(id, _)| *id)
            .collect();
        late.into_iter().for_each(|id| self.close(id));
    }

    /// Nobody will answer any more.
    pub(super) fn close_all(&mut self) {
        let all: Vec<u64> = self.open.keys().copied().collect();
        all.into_iter().for_each(|id| self.close(id));
    }

    fn close(&mut self, id: u64) {
        if let Some(open) = self.open.remove(&id) {
            let others = SurveyResult {
                silent: open.waiting.len(),
                ..open.others
            };
            // Whoever asked may have gone.
            let _ = open.reply.send(others);
        }
    }
}

/// What this node answers, in parts of which none is too long.
pub(super) fn answer(hub: &Hub, app: &AppHandle, about: &About) -> Vec<Rows> {
    let (channels, users) = match about {
        About::Connections => {
            return vec![Rows {
                connections: app.connections() as u64,
                channels: Vec::new(),
            }];
        }
        About::Channel { name, users } => (hub.find(app, name).into_iter().collect(), *users),
        About::Channels { prefix, users } => (hub.channels(app, prefix), *users),
    };
    let mut parts = vec![Rows::default()];
    let mut members = 0;
    for channel in channels {
        for row in rows_of(&channel, users) {
            members += row.users.len();
            let part = parts.last_mut().expect("there is always one");
            if part.channels.len() < MAX_ROWS && members <= MAX_USERS {
                part.channels.push(row);
            } else {
                members = row.users.len();
                parts.push(Rows {
                    connections: 0,
                    channels: vec![row],
                });
            }
        }
    }
    parts
}

/// A channel as this node has it: one row, or several if it has very many members, of
/// which the first counts the subscribers.
fn rows_of(channel: &Arc<Channel>, users: bool) -> Vec<Row> {
    let row = |subscriptions: usize, users: &[Box<RawValue>]| Row {
        name: channel.name().as_str().to_owned(),
        subscriptions: subscriptions as u64,
        users: users.to_vec(),
    };
    let subscriptions = channel.counts().subscriptions;
    let ids: Vec<Box<RawValue>> = if users {
        let json = channel.member_ids().into_iter();
        json.filter_map(|id| RawValue::from_string(id.into()).ok())
            .collect()
    } else {
        Vec::new()
    };
    if ids.len() <= MAX_USERS {
        return vec![row(subscriptions, &ids)];
    }
    ids.chunks(MAX_USERS)
        .enumerate()
        .map(|(at, ids)| row(if at == 0 { subscriptions } else { 0 }, ids))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    fn rows(connections: u64) -> Rows {
        Rows {
            connections,
            channels: Vec::new(),
        }
    }

    #[test]
    fn an_answer_is_complete_when_all_have_given_their_last_part() {
        let now = Instant::now();
        let mut surveys = Surveys::default();
        let (reply, mut others) = oneshot::channel();
        let id = surveys.open([A, B].into_iter(), reply, now).unwrap();
        surveys.answer(A, id, false, rows(1));
        surveys.answer(A, id, true, rows(2));
        surveys.answer(A, id, true, rows(4));
        assert!(others.try_recv().is_err());
        surveys.answer(B, id + 1, true, rows(8));
        surveys.answer(B, id, true, rows(16));
        let others = others.try_recv().unwrap();
        assert_eq!(
            (others.connections, others.asked, others.silent),
            (19, 2, 0)
        );
    }

    #[test]
    fn who_does_not_answer_in_time_is_counted() {
        let now = Instant::now();
        let mut surveys = Surveys::default();
        let (reply, mut others) = oneshot::channel();
        let id = surveys.open([A, B].into_iter(), reply, now).unwrap();
        surveys.answer(A, id, true, rows(1));
        surveys.close_late(now + PATIENCE / 2);
        assert!(others.try_recv().is_err());
        surveys.close_late(now + PATIENCE);
        assert_eq!(others.try_recv().unwrap().silent, 1);
        let (reply, mut others) = oneshot::channel();
        surveys.open([B].into_iter(), reply, now);
        surveys.forget(B);
        assert_eq!(others.try_recv().unwrap().silent, 0, "it is gone");
        let (reply, mut others) = oneshot::channel();
        assert_eq!(surveys.open(std::iter::empty(), reply, now), None);
        assert_eq!(others.try_recv().unwrap().asked, 0);
    }
}

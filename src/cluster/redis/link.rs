//! A connection of its own to the same Redis, for whoever keeps something of its own there.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value};

use super::connect::{Connector, Shards};
use super::keys::{self, Keys};
use super::pipeline::{Batch, Expect};
use crate::hub::NodeId;

/// A link to Redis that comes up when it is used.
pub struct Link {
    connector: Connector,
    keys: Keys,
    namespace: String,
    shards: Option<Shards>,
    node_timeout: Duration,
}

/// Why commands were not carried out, or that it is not known whether they were.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LinkError(String);

/// Commands that are being carried out.
type Running<'a> = Pin<Box<dyn Future<Output = Result<Vec<Value>, LinkError>> + Send + 'a>>;

impl Link {
    pub(in crate::cluster) fn new(
        connector: Connector,
        namespace: &str,
        node_timeout: Duration,
    ) -> Self {
        Self {
            connector,
            keys: Keys::new(namespace),
            namespace: namespace.to_owned(),
            shards: None,
            node_timeout,
        }
    }

    /// A key of what is kept for an application under a name, all of it in one slot.
    pub fn key(&self, app: &str, name: &str, rest: &str) -> String {
        format!("{}:{{{app}/{name}}}:{rest}", self.namespace)
    }

    /// Carries commands out, one after the other, all on keys of the slot of `key`. Returns their
    /// answers.
    ///
    /// # Errors
    /// If there is no link, or one of the commands fails. Some may have been carried out then.
    ///
    /// Boxed, so that it is there once for all who call it.
    pub fn run<'a>(&'a mut self, key: &'a str, commands: Vec<Cmd>) -> Running<'a> {
        Box::pin(async move {
            let answers = self.try_run(key, commands).await;
            if answers.is_err() {
                self.shards = None;
            }
            answers
        })
    }

    async fn try_run(&mut self, key: &str, commands: Vec<Cmd>) -> Result<Vec<Value>, LinkError> {
        let shards = match &mut self.shards {
            Some(shards) => shards,
            none => {
                let connected = self.connector.connect().await;
                none.insert(connected.map_err(|error| LinkError(error.to_string()))?)
            }
        };
        let mut batch = Batch::new(shards.servers.len());
        let server = shards.of_slot(keys::slot(key));
        for command in commands {
            batch.add_to(server, Arc::new(command), Expect::Anything);
        }
        let mut answers = batch.send(shards).answers.await;
        let answers = answers.swap_remove(server);
        let answers = answers.map_err(|error| LinkError(error.to_string()))?;
        match answers
            .iter()
            .find(|it| matches!(it, Value::ServerError(_)))
        {
            Some(Value::ServerError(error)) => Err(LinkError(format!("Redis says {error}"))),
            _ => Ok(answers),
        }
    }

    /// The nodes that are alive, as they have said themselves.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn nodes(&mut self) -> Result<Vec<NodeId>, LinkError> {
        let key = self.keys.nodes();
        let mut beats = redis::cmd("ZRANGE");
        beats.arg(&key).arg(0).arg(-1).arg("WITHSCORES");
        let answers = self.run(&key, vec![redis::cmd("TIME"), beats]).await?;
        let [now, beats] = &answers[..] else {
            return Err(LinkError("Redis gave too few answers".to_owned()));
        };
        Ok(alive(now, beats, self.node_timeout))
    }
}

/// The nodes of a list with the time of each last heartbeat, which is not long ago.
fn alive(now: &Value, beats: &Value, timeout: Duration) -> Vec<NodeId> {
    let now: Vec<f64> = redis::from_redis_value_ref(now).unwrap_or_default();
    let beats: Vec<(String, f64)> = redis::from_redis_value_ref(beats).unwrap_or_default();
    let now = now.first().copied().unwrap_or_default() * 1000.0;
    let oldest = now - timeout.as_secs_f64() * 1000.0;
    let is_alive = |(_, beat): &(String, f64)| *beat >= oldest;
    let beats = beats.into_iter().filter(is_alive);
    let nodes = beats.filter_map(|(node, _)| u64::from_str_radix(&node, 16).ok());
    nodes.map(NodeId).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_last_heartbeat_is_long_ago_is_not_alive() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let now = Value::Array(vec![text("1000"), text("5")]);
        let beat = |node: &str, at: f64| Value::Array(vec![text(node), Value::Double(at)]);
        let beats = Value::Array(vec![
            beat("00000000000000ff", 999_000.0),
            beat("0000000000000001", 984_000.0),
            beat("none", 1_000_000.0),
        ]);
        assert_eq!(alive(&now, &beats, Duration::from_secs(15)), [NodeId(255)]);
        assert_eq!(alive(&Value::Nil, &Value::Nil, Duration::from_secs(15)), []);
    }
}

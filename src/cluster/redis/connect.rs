//! Connections to Redis: one server, the master that sentinels name, or every shard
//! of a Redis Cluster.
//!
//! Each server gets one connection, for commands and for what is published (RESP3),
//! so that what it says comes in the order in which it happened there.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ErrorKind, IntoConnectionInfo,
    ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo, RedisError, TlsCertificates, TlsMode,
    Value,
};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::keys::SLOTS;
use crate::config::scaling::{HostPort, Redis, RedisTls, Servers};

/// How long connecting, and any answer, may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Messages, and bytes of them, that may wait to be handled before the link counts as
/// broken.
const MAX_PUSHED: usize = 65_536;
const MAX_PUSHED_BYTES: usize = 64 << 20;

/// Why Redis cannot be used. The texts are for whoever configured it.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A file of certificates cannot be used.
    #[error("scaling.{setting} = {path:?}: {error}", path = path.display())]
    File {
        /// The setting's key.
        setting: &'static str,
        /// Its value.
        path: PathBuf,
        /// What is wrong.
        error: String,
    },
    /// It answers, but does not let us in as configured.
    #[error("Redis at {redis} refuses: {error}{hint}")]
    Refused {
        /// Where it is.
        redis: String,
        /// What it said.
        error: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// It cannot be reached, or cannot serve now.
    #[error("Redis at {redis} cannot be used: {error}")]
    Unusable {
        /// Where it was looked for.
        redis: String,
        /// What went wrong.
        error: String,
    },
}

impl ConnectError {
    /// Whether trying again is of no use until somebody changes something.
    pub fn is_configuration(&self) -> bool {
        !matches!(self, Self::Unusable { .. })
    }

    fn new(redis: &Redis, error: &RedisError) -> Self {
        let hint = match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed, _)
            | (_, Some("NOAUTH" | "WRONGPASS" | "NOPERM" | "NOPERMISSION")) => {
                " (REDIS_USERNAME, REDIS_PASSWORD)"
            }
            (ErrorKind::MasterNameNotFoundBySentinel, _) => " (RESOUND_REDIS_SENTINEL_MASTER)",
            (ErrorKind::RESP3NotSupported, _) => " (Redis 6 or later is needed)",
            _ if error.to_string().contains("DB index") => " (REDIS_DB)",
            _ if error.to_string().contains("certificate") => {
                " (RESOUND_REDIS_TLS_CA, RESOUND_REDIS_TLS_CERT)"
            }
            _ => {
                return Self::Unusable {
                    redis: redis.to_string(),
                    error: error.to_string(),
                };
            }
        };
        Self::Refused {
            redis: redis.to_string(),
            error: error.to_string(),
            hint,
        }
    }

    fn unusable(redis: &Redis, error: impl Into<String>) -> Self {
        Self::Unusable {
            redis: redis.to_string(),
            error: error.into(),
        }
    }
}

/// A master of a Redis Cluster, and the first and last slots that it serves.
type Master = (HostPort, Vec<(u16, u16)>);

/// One server.
pub(super) struct Shard {
    pub(super) connection: MultiplexedConnection,
    /// First and last slots that it serves.
    slots: Vec<(u16, u16)>,
}

/// Everything that makes up one Redis.
pub(in crate::cluster) struct Shards {
    pub(super) servers: Vec<Shard>,
    /// What was published in Redis channels that are listened to.
    pub(super) pushed: mpsc::Receiver<Pushed>,
    pub(super) pending: Arc<PushedBytes>,
}

/// How much was published and not yet handled.
#[derive(Default)]
pub(super) struct PushedBytes {
    bytes: AtomicUsize,
    /// Set when more came than may be held.
    is_over: AtomicBool,
}

impl PushedBytes {
    /// Messages of so many bytes were handled.
    pub(super) fn handled(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether something was lost because too much came.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn push(&self, sender: &mpsc::Sender<Pushed>, pushed: Pushed) -> Result<(), ()> {
        let bytes = match &pushed {
            Pushed::Message(_, message) => message.len(),
            Pushed::Ended(_) | Pushed::Gone => 0,
        };
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before > MAX_PUSHED_BYTES || sender.try_send(pushed).is_err() {
            self.handled(bytes);
            self.is_over.store(true, Ordering::Relaxed);
            return Err(());
        }
        Ok(())
    }
}

/// Something that a server said of itself.
pub(super) enum Pushed {
    /// A message in a Redis channel.
    Message(Vec<u8>, Vec<u8>),
    /// A Redis channel is not listened to any more.
    Ended(Vec<u8>),
    /// The connection is gone.
    Gone,
}

impl Shards {
    /// The index of the server that has a slot.
    pub(super) fn of_slot(&self, slot: u16) -> usize {
        let has = |shard: &Shard| {
            let mut slots = shard.slots.iter();
            slots.any(|(first, last)| (*first..=*last).contains(&slot))
        };
        self.servers.iter().position(has).unwrap_or_default()
    }
}

/// What is needed to connect, read from the files once.
#[derive(Clone)]
pub(in crate::cluster) struct Connector {
    redis: Redis,
    certificates: Option<TlsCertificates>,
}

impl Connector {
    pub(in crate::cluster) fn new(redis: &Redis) -> Result<Self, ConnectError> {
        let certificates = redis.tls.as_ref().map(certificates).transpose()?;
        Ok(Self {
            redis: redis.clone(),
            certificates,
        })
    }

    pub(in crate::cluster) fn is_sharded(&self) -> bool {
        matches!(self.redis.servers, Servers::Cluster(_))
    }

    /// Connects to everything. Boxed, so that it is there once for all who call it.
    pub(in crate::cluster) fn connect(
        &self,
    ) -> Pin<Box<dyn Future<Output = Result<Shards, ConnectError>> + Send + '_>> {
        Box::pin(self.connect_all())
    }

    async fn connect_all(&self) -> Result<Shards, ConnectError> {
        let (sender, pushed) = mpsc::channel(MAX_PUSHED);
        let pending = Arc::new(PushedBytes::default());
        let config = || {
            let (sender, pending) = (sender.clone(), Arc::clone(&pending));
            AsyncConnectionConfig::new()
                .set_connection_timeout(Some(PATIENCE))
                .set_response_timeout(Some(PATIENCE))
                .set_push_sender(move |info: PushInfo| match pushed_of(info) {
                    Some(pushed) => pending.push(&sender, pushed),
                    None => Ok(()),
                })
        };
        let servers = match &self.redis.servers {
            Servers::Single(place) => vec![self.whole(self.client(place)?, config()).await?],
            Servers::Sentinel { sentinels, master } => {
                let client = self.master(sentinels, master).await?;
                vec![self.whole(client, config()).await?]
            }
            Servers::Cluster(seeds) => {
                let mut servers = Vec::new();
                for (place, slots) in self.masters(seeds).await? {
                    let connection = self.connect_to(&self.client(&place)?, config()).await?;
                    servers.push(Shard { connection, slots });
                }
                servers
            }
        };
        Ok(Shards {
            servers,
            pushed,
            pending,
        })
    }

    async fn whole(
        &self,
        client: Client,
        config: AsyncConnectionConfig,
    ) -> Result<Shard, ConnectError> {
        let connection = self.connect_to(&client, config).await?;
        Ok(Shard {
            connection,
            slots: vec![(0, SLOTS - 1)],
        })
    }

    async fn connect_to(
        &self,
        client: &Client,
        config: AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, ConnectError> {
        client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|error| ConnectError::new(&self.redis, &error))
    }

    fn client(&self, (host, port): &HostPort) -> Result<Client, ConnectError> {
        let Redis {
            username,
            password,
            database,
            ..
        } = &self.redis;
        let mut who = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_db(*database);
        if let Some(username) = username {
            who = who.set_username(username);
        }
        if let Some(password) = password {
            who = who.set_password(password);
        }
        let info = self
            .address(host, *port)
            .into_connection_info()
            .map(|info| info.set_redis_settings(who));
        let client = info.and_then(|info| match &self.certificates {
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
            None => Client::open(info),
        });
        client.map_err(|error| ConnectError::new(&self.redis, &error))
    }

    fn address(&self, host: &str, port: u16) -> ConnectionAddr {
        if self.certificates.is_some() {
            ConnectionAddr::TcpTls {
                host: host.to_owned(),
                port,
                insecure: false,
                tls_params: None,
            }
        } else {
            ConnectionAddr::Tcp(host.to_owned(), port)
        }
    }

    /// Asks the sentinels who the master is.
    async fn master(&self, sentinels: &[HostPort], master: &str) -> Result<Client, ConnectError> {
        let redis = &self.redis;
        let places: Vec<ConnectionAddr> = sentinels
            .iter()
            .map(|(host, port)| self.address(host, *port))
            .collect();
        let mut builder = SentinelClientBuilder::new(places, master, SentinelServerType::Master)
            .map_err(|error| ConnectError::new(redis, &error))?
            .set_client_to_redis_protocol(ProtocolVersion::RESP3)
            .set_client_to_redis_db(redis.database);
        if let Some(username) = &redis.username {
            builder = builder.set_client_to_redis_username(username);
        }
        if let Some(password) = &redis.password {
            builder = builder.set_client_to_redis_password(password);
        }
        if let Some(password) = &redis.sentinel_password {
            builder = builder.set_client_to_sentinel_password(password);
        }
        if let Some(certificates) = &self.certificates {
            builder = builder
                .set_client_to_redis_tls_mode(TlsMode::Secure)
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_tls_mode(TlsMode::Secure)
                .set_client_to_sentinel_certificates(certificates.clone());
        }
        let asked = async { builder.build()?.async_get_client().await };
        match timeout(PATIENCE, asked).await {
            Ok(client) => client.map_err(|error| ConnectError::new(redis, &error)),
            Err(_) => Err(ConnectError::unusable(redis, "no sentinel answers")),
        }
    }

    /// Asks a node of a Redis Cluster which masters serve which slots.
    async fn masters(&self, seeds: &[HostPort]) -> Result<Vec<Master>, ConnectError> {
        let mut last = ConnectError::unusable(&self.redis, "no node is named");
        for seed in seeds {
            let answer = async {
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(PATIENCE))
                    .set_response_timeout(Some(PATIENCE));
                let mut connection = self.connect_to(&self.client(seed)?, config).await?;
                redis::cmd("CLUSTER")
                    .arg("SLOTS")
                    .query_async::<Value>(&mut connection)
                    .await
                    .map_err(|error| ConnectError::new(&self.redis, &error))
            };
            match answer.await {
                Ok(slots) => match masters_of(&slots, seed) {
                    Some(masters) => return Ok(masters),
                    None => {
                        last = ConnectError::unusable(
                            &self.redis,
                            "not every slot of the cluster is served",
                        );
                    }
                },
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Masters by their slots; `None` unless all slots are served.
fn masters_of(slots: &Value, seed: &HostPort) -> Option<Vec<Master>> {
    let Value::Array(ranges) = slots else {
        return None;
    };
    let mut masters: Vec<Master> = Vec::new();
    let mut served = 0_usize;
    for range in ranges {
        let Value::Array(parts) = range else {
            return None;
        };
        let [
            Value::Int(first),
            Value::Int(last),
            Value::Array(master),
            ..,
        ] = &parts[..]
        else {
            return None;
        };
        let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
        let [host, Value::Int(port), ..] = &master[..] else {
            return None;
        };
        // A node that does not know its own address is the one that was asked.
        let host = super::snapshot::text(host)
            .filter(|host| !host.is_empty() && *host != "?")
            .unwrap_or(&seed.0);
        let place = (host.to_owned(), u16::try_from(*port).ok()?);
        served += usize::from(last.checked_sub(first)?) + 1;
        match masters.iter_mut().find(|(other, _)| *other == place) {
            Some((_, slots)) => slots.push((first, last)),
            None => masters.push((place, vec![(first, last)])),
        }
    }
    (served == usize::from(SLOTS)).then_some(masters)
}

fn pushed_of(info: PushInfo) -> Option<Pushed> {
    match info.kind {
        PushKind::Message | PushKind::SMessage => {
            let mut data = info.data.into_iter();
            match (data.next(), data.next()) {
                (Some(Value::BulkString(channel)), Some(Value::BulkString(message))) => {
                    Some(Pushed::Message(channel, message))
                }
                _ => None,
            }
        }
        PushKind::Unsubscribe | PushKind::SUnsubscribe => match info.data.into_iter().next() {
            Some(Value::BulkString(channel)) => Some(Pushed::Ended(channel)),
            _ => None,
        },
        PushKind::Disconnection => Some(Pushed::Gone),
        // Confirmations come as answers, too.
        _ => None,
    }
}

fn certificates(tls: &RedisTls) -> Result<TlsCertificates, ConnectError> {
    let root_cert = match &tls.ca {
        Some(path) => Some(read("tls_ca", path)?),
        None => None,
    };
    let client_tls = match &tls.client {
        Some((cert, key)) => Some(ClientTlsConfig {
            client_cert: read("tls_cert", cert)?,
            client_key: read("tls_key", key)?,
        }),
        None => None,
    };
    Ok(TlsCertificates {
        client_tls,
        root_cert,
    })
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, ConnectError> {
    let fail = |error: String| ConnectError::File {
        setting,
        path: path.to_owned(),
        error,
    };
    let pem = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    if pem.windows(10).any(|window| window == b"-----BEGIN") {
        Ok(pem)
    } else {
        Err(fail("it is not a PEM file".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: i64, last: i64, host: &str, port: i64) -> Value {
        let master = vec![
            Value::BulkString(host.as_bytes().to_vec()),
            Value::Int(port),
        ];
        Value::Array(vec![
            Value::Int(first),
            Value::Int(last),
            Value::Array(master),
        ])
    }

    #[test]
    fn the_masters_of_a_cluster_are_those_of_all_its_slots() {
        let seed = ("seed".to_owned(), 7000);
        let all = Value::Array(vec![
            range(0, 99, "a", 1),
            range(100, 8000, "", 2),
            range(8001, 16_383, "a", 1),
        ]);
        assert_eq!(
            masters_of(&all, &seed).unwrap(),
            [
                (("a".to_owned(), 1), vec![(0, 99), (8001, 16_383)]),
                (("seed".to_owned(), 2), vec![(100, 8000)]),
            ]
        );
        let gap = Value::Array(vec![range(0, 99, "a", 1)]);
        assert_eq!(masters_of(&gap, &seed), None);
        assert_eq!(masters_of(&Value::Nil, &seed), None);
    }
}

//! `[scaling]`: several nodes through Redis, as Reverb's settings name it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::Url;

use super::read::{Group, Reader};
use super::setting::{Section, Setting};
use super::source::Values;

/// How nodes find each other, and what they keep for each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scaling {
    /// What the names of all keys and Redis channels begin with.
    pub namespace: String,
    /// Where Redis is.
    pub redis: Redis,
    /// Silence after which a node counts as dead.
    pub node_timeout: Duration,
    /// Whether the server ends if it cannot use Redis when it starts.
    pub require_redis: bool,
    /// Whether it is tracked which channels are occupied on any node.
    pub track_occupancy: bool,
    /// Bytes of events that are kept for other nodes while Redis is away.
    pub buffer_bytes: usize,
    /// How long they are kept.
    pub buffer_time: Duration,
}

/// Where Redis is, and who we are there.
#[derive(Clone, PartialEq, Eq)]
pub struct Redis {
    /// Its servers.
    pub servers: Servers,
    /// The ACL user.
    pub username: Option<String>,
    /// Its password, or that of `requirepass`.
    pub password: Option<String>,
    /// The sentinels' own password.
    pub sentinel_password: Option<String>,
    /// The number of the database.
    pub database: i64,
    /// How TLS is spoken, if it is.
    pub tls: Option<RedisTls>,
}

/// Host and port.
pub type HostPort = (String, u16);

/// Servers that make up one Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Servers {
    /// One server.
    Single(HostPort),
    /// Some nodes of a Redis Cluster.
    Cluster(Vec<HostPort>),
    /// Sentinels that know which server is the master.
    Sentinel {
        /// Where they are.
        sentinels: Vec<HostPort>,
        /// The name of the master.
        master: String,
    },
}

/// PEM files; without an authority, those that browsers trust are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisTls {
    /// Certificates of the authority that signed the server's.
    pub ca: Option<PathBuf>,
    /// Our certificate and its key, if the server wants them.
    pub client: Option<(PathBuf, PathBuf)>,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis({self})")
    }
}

impl fmt::Display for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |host_ports: &[HostPort]| -> String {
            let texts: Vec<String> = host_ports
                .iter()
                .map(|(host, port)| format!("{host}:{port}"))
                .collect();
            texts.join(", ")
        };
        let tls = if self.tls.is_some() { " over TLS" } else { "" };
        match &self.servers {
            Servers::Single((host, port)) => write!(f, "{host}:{port}{tls}"),
            Servers::Cluster(host_ports) => write!(f, "the cluster of {}{tls}", list(host_ports)),
            Servers::Sentinel { sentinels, master } => write!(
                f,
                "the master {master:?} of the sentinels {}{tls}",
                list(sentinels)
            ),
        }
    }
}

const KEYS: &[&str] = &[
    "channel",
    "prefix",
    "url",
    "url_file",
    "scheme",
    "host",
    "port",
    "username",
    "password",
    "password_file",
    "database",
    "timeout",
    "cluster",
    "sentinels",
    "sentinel_master",
    "sentinel_password",
    "sentinel_password_file",
    "tls_ca",
    "tls_cert",
    "tls_key",
    "node_timeout",
    "require_redis",
    "track_occupancy",
    "buffer_bytes",
    "buffer_seconds",
];

impl Reader {
    pub(super) fn scaling(&mut self, values: &Values) -> Option<Scaling> {
        let group = Group::of(Section::Scaling, values);
        if !self.flag(&group, "enabled") {
            // The REDIS_* variables are first of all the application's own; what they
            // hold is only looked at when they are used.
            for key in KEYS {
                self.text(&group, key);
            }
            return None;
        }
        let prefix = self.take(&group, "prefix", name_part).unwrap_or_default();
        let channel = self.take(&group, "channel", name_part).unwrap_or_default();
        let redis = self.redis(&group);
        // A Redis channel belongs to no database, so its name has to tell.
        let namespace = match redis.database {
            0 => format!("{prefix}{channel}"),
            database => format!("{prefix}{channel}:{database}"),
        };
        // Reverb gives up after so many attempts; this server never does.
        self.text(&group, "timeout");
        Some(Scaling {
            namespace,
            redis,
            node_timeout: self.seconds(&group, "node_timeout", 2),
            require_redis: self.flag(&group, "require_redis"),
            track_occupancy: self.flag(&group, "track_occupancy"),
            buffer_bytes: self.size(&group, "buffer_bytes", &(0..=1 << 40)),
            buffer_time: self.seconds(&group, "buffer_seconds", 0),
        })
    }

    fn redis(&mut self, group: &Group<'_>) -> Redis {
        let url = self
            .take(group, "url", |text| match text {
                "" => Ok(None),
                _ => address(text).map(Some),
            })
            .flatten();
        let url = url.unwrap_or_default();
        for key in ["url_file", "password_file", "sentinel_password_file"] {
            self.text(group, key);
        }
        let scheme = self.take(group, "scheme", is_tls).flatten();
        let (host_tls, host) = self
            .take(group, "host", host)
            .unwrap_or((None, String::new()));
        let port = u16::try_from(self.number(group, "port", 1..=65_535)).unwrap_or_default();
        let (username, password) = (self.text(group, "username"), self.text(group, "password"));
        let database = i64::try_from(self.number(group, "database", 0..=u64::from(u16::MAX)))
            .unwrap_or_default();
        let database = url.database.unwrap_or(database);
        let host_port = (url.host.unwrap_or(host), url.port.unwrap_or(port));
        let servers = self.servers(group, host_port);
        if matches!(servers, Servers::Cluster(_)) && database != 0 {
            self.problems.push(format!(
                "scaling.database = \"{database}\": a Redis Cluster has only database 0"
            ));
        }
        let tls = self.redis_tls(group);
        let speaks_tls = url.tls.or(scheme).or(host_tls);
        Redis {
            servers,
            username: url.username.or(username),
            password: url.password.or(password),
            sentinel_password: self.text(group, "sentinel_password"),
            database,
            tls: match (speaks_tls, tls) {
                (Some(false), _) => None,
                (Some(true), tls) => Some(tls.unwrap_or_default()),
                // Whoever names certificates wants them used.
                (None, tls) => tls,
            },
        }
    }

    fn servers(&mut self, group: &Group<'_>, single: HostPort) -> Servers {
        let cluster = self.take(group, "cluster", host_ports).unwrap_or_default();
        let sentinels = self
            .take(group, "sentinels", host_ports)
            .unwrap_or_default();
        let master = self.text(group, "sentinel_master").unwrap_or_default();
        match (cluster.is_empty(), sentinels.is_empty()) {
            (true, true) => Servers::Single(single),
            (false, true) => Servers::Cluster(cluster),
            (true, false) => Servers::Sentinel { sentinels, master },
            (false, false) => {
                self.problems.push(
                    "scaling.cluster and scaling.sentinels are both set (RESOUND_REDIS_CLUSTER, \
                     RESOUND_REDIS_SENTINELS): Redis is either a cluster or watched by sentinels"
                        .to_owned(),
                );
                Servers::Single(single)
            }
        }
    }

    fn redis_tls(&mut self, group: &Group<'_>) -> Option<RedisTls> {
        let [ca, cert, key] =
            ["tls_ca", "tls_cert", "tls_key"].map(|key| self.text(group, key).map(PathBuf::from));
        let client = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (cert, _) => {
                let missing = if cert.is_some() {
                    "tls_key"
                } else {
                    "tls_cert"
                };
                let setting = Setting::of(Section::Scaling, missing);
                self.problems.push(format!(
                    "scaling.{missing} is missing: a client certificate has a file for itself and one \
                     for its key ({})",
                    setting.variable
                ));
                None
            }
        };
        (ca.is_some() || client.is_some()).then_some(RedisTls { ca, client })
    }
}

/// What a URL says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Address {
    tls: Option<bool>,
    host: Option<String>,
    port: Option<u16>,
    username: Option<String>,
    password: Option<String>,
    database: Option<i64>,
}

/// `redis://user:password@host:port/database`, with the schemes that Laravel and
/// Redis clients know.
fn address(text: &str) -> Result<Address, String> {
    let expected = || "a URL such as redis://user:password@host:6379/0 or rediss://…".to_owned();
    let url = Url::parse(text).map_err(|_| expected())?;
    let tls = match url.scheme() {
        "redis" | "tcp" => false,
        "rediss" | "tls" => true,
        _ => return Err(expected()),
    };
    let decoded = |text: &str| {
        let text = percent_decode_str(text).decode_utf8().ok()?.into_owned();
        (!text.is_empty()).then_some(text)
    };
    let database = match url.path().trim_matches('/') {
        "" => None,
        number => Some(number.parse::<u16>().map_err(|_| expected())?.into()),
    };
    Ok(Address {
        tls: Some(tls),
        host: Some(
            url.host_str()
                .filter(|h| !h.is_empty())
                .ok_or_else(expected)?
                .trim_matches(['[', ']'])
                .to_owned(),
        ),
        port: url.port(),
        username: decoded(url.username()),
        password: url.password().and_then(decoded),
        database,
    })
}

fn is_tls(text: &str) -> Result<Option<bool>, String> {
    match text {
        "" => Ok(None),
        "tcp" | "redis" => Ok(Some(false)),
        "tls" | "rediss" => Ok(Some(true)),
        _ => Err("tcp or tls".to_owned()),
    }
}

/// A host name, which may say whether TLS is spoken.
fn host(text: &str) -> Result<(Option<bool>, String), String> {
    let (tls, host) = match text.split_once("://") {
        Some((scheme, host)) => (is_tls(scheme)?, host),
        None => (None, text),
    };
    let valid = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '/');
    if valid {
        Ok((tls, host.trim_matches(['[', ']']).to_owned()))
    } else {
        Err("a host such as 127.0.0.1 or tls://redis.example; sockets in the file system are not spoken".to_owned())
    }
}

/// A comma list of `host:port`.
fn host_ports(text: &str) -> Result<Vec<HostPort>, String> {
    let host_port = |text: &str| -> Option<HostPort> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.trim_matches(['[', ']']);
        let port = port.parse().ok().filter(|port| *port > 0)?;
        (!host.is_empty() && !host.contains('/')).then(|| (host.to_owned(), port))
    };
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let host_ports: Option<Vec<HostPort>> =
        text.split(',').map(|item| host_port(item.trim())).collect();
    host_ports.ok_or_else(|| "a comma list such as 10.0.0.1:6379,10.0.0.2:6379".to_owned())
}

/// Part of the names of keys. Braces would change which shard of a cluster has them.
fn name_part(text: &str) -> Result<String, String> {
    if text.contains(|c: char| c.is_whitespace() || c.is_control() || "{}*".contains(c)) {
        Err("a text without spaces, braces and stars".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Sources};
    use super::*;

    fn load(settings: &[(&str, &str)]) -> Result<Scaling, String> {
        let base = [
            ("REVERB_APP_ID", "1"),
            ("REVERB_APP_KEY", "k"),
            ("REVERB_APP_SECRET", "s"),
            ("REVERB_SCALING_ENABLED", "true"),
        ];
        let sources = Sources {
            environment: base
                .iter()
                .chain(settings)
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..Sources::default()
        };
        let config = Config::load(&sources).map_err(|error| error.to_string())?;
        Ok(config.scaling.expect("it is enabled"))
    }

    fn single(host: &str, port: u16) -> Servers {
        Servers::Single((host.to_owned(), port))
    }

    #[test]
    fn what_reverb_reads_is_read_as_reverb_does() {
        let scaling = load(&[]).unwrap();
        assert_eq!(scaling.namespace, "reverb");
        assert_eq!(scaling.redis.servers, single("127.0.0.1", 6379));
        assert_eq!((scaling.redis.tls, scaling.redis.database), (None, 0));
        let redis = load(&[
            ("REDIS_URL", "tls://me:p%40ss@redis.example:6380/3"),
            ("REDIS_HOST", "other"),
            ("REDIS_PASSWORD", "other"),
        ])
        .unwrap()
        .redis;
        assert_eq!(redis.servers, single("redis.example", 6380));
        assert_eq!(redis.username.as_deref(), Some("me"));
        assert_eq!(redis.password.as_deref(), Some("p@ss"));
        assert_eq!((redis.tls, redis.database), (Some(RedisTls::default()), 3));
        let redis = load(&[
            ("REDIS_HOST", "tls://redis.example"),
            ("REDIS_PASSWORD", "null"),
        ])
        .unwrap()
        .redis;
        assert_eq!(redis.servers, single("redis.example", 6379));
        assert!(redis.tls.is_some() && redis.password.is_none());
    }

    #[test]
    fn deployments_are_told_apart_by_prefix_channel_and_database() {
        let namespace = |settings: &[(&str, &str)]| load(settings).unwrap().namespace;
        assert_eq!(
            namespace(&[("REDIS_PREFIX", "chat_"), ("REVERB_SCALING_CHANNEL", "c")]),
            "chat_c"
        );
        assert_eq!(namespace(&[("REDIS_DB", "2")]), "reverb:2");
    }

    #[test]
    fn a_wrong_setting_is_reported_with_what_is_accepted_and_without_secrets() {
        for (settings, expected) in [
            (
                &[("REDIS_URL", "http://u:hunter2@h")][..],
                "scaling.url = \"(hidden)\" (environment variable REDIS_URL): expected a URL such as",
            ),
            (
                &[("REDIS_PORT", "tcp://10.0.0.5:6379")],
                "expected a whole number from 1 to 65535",
            ),
            (&[("REDIS_DB", "cache")], "scaling.database"),
            (
                &[("REDIS_HOST", "/run/redis.sock")],
                "sockets in the file system are not spoken",
            ),
            (&[("REDIS_SCHEME", "https")], "expected tcp or tls"),
            (
                &[("REDIS_PREFIX", "{a}")],
                "without spaces, braces and stars",
            ),
            (&[("RESOUND_REDIS_CLUSTER", "a")], "a comma list such as"),
            (&[("RESOUND_REDIS_SENTINELS", ",")], "a comma list such as"),
            (
                &[("RESOUND_REDIS_CLUSTER", "a:1"), ("REDIS_DB", "1")],
                "a Redis Cluster has only database 0",
            ),
            (
                &[
                    ("RESOUND_REDIS_CLUSTER", "a:1"),
                    ("RESOUND_REDIS_SENTINELS", "b:1"),
                ],
                "either a cluster or watched by sentinels",
            ),
            (
                &[("RESOUND_REDIS_TLS_CERT", "a.pem")],
                "scaling.tls_key is missing",
            ),
            (
                &[("RESOUND_NODE_TIMEOUT", "1")],
                "expected a whole number from 2 to",
            ),
        ] {
            let text = load(settings).unwrap_err();
            assert!(text.contains(expected), "{settings:?}: {text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let scaling = load(&[("REDIS_PASSWORD", "hunter2")]).unwrap();
        assert!(!format!("{scaling:?}").contains("hunter2"));
    }
}

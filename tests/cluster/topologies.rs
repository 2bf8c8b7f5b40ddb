//! Several real `redis-server`s: a Redis Cluster, and a master with its Sentinels.

use std::process::Command;

use tempfile::TempDir;

use crate::port;
use crate::redis::{Options, Redis, redis_cli};
use crate::running::Running;
use crate::settings::Settings;
use crate::wait::eventually;

/// A Redis Cluster.
pub(crate) struct Shards {
    pub(crate) servers: Vec<Redis>,
}

impl Shards {
    /// Three masters.
    pub(crate) fn start() -> Self {
        Self::of(3, 0)
    }

    /// Three masters with a replica each.
    pub(crate) fn with_replicas() -> Self {
        Self::of(6, 1)
    }

    fn of(servers: usize, replicas: usize) -> Self {
        let servers: Vec<Redis> = (0..servers)
            .map(|_| {
                let bus = port::free().to_string();
                let more = [
                    "--cluster-enabled",
                    "yes",
                    "--cluster-port",
                    &bus,
                    "--cluster-node-timeout",
                    "1000",
                    "--repl-diskless-sync-delay",
                    "0",
                ];
                Redis::single(Options {
                    more: more.map(str::to_owned).into(),
                    ..Options::default()
                })
            })
            .collect();
        let shards = Self { servers };
        let addresses = shards.addresses();
        let replicas = replicas.to_string();
        let mut words = vec!["--cluster", "create"];
        words.extend(addresses.iter().map(String::as_str));
        words.extend(["--cluster-replicas", &replicas, "--cluster-yes"]);
        let answer = redis_cli(shards.servers[0].port, &[], &words);
        assert!(answer.contains("All 16384 slots covered"), "{answer}");
        shards.await_ok();
        if replicas != "0" {
            eventually("every replica follows its master", || {
                let follows = |server: &&Redis| {
                    let answer = server.command(&["INFO", "replication"]);
                    answer.contains("master_link_status:up")
                };
                shards.servers.iter().filter(follows).count() == 3
            });
        }
        shards
    }

    fn addresses(&self) -> Vec<String> {
        let ports = self.servers.iter().map(|server| server.port);
        ports.map(|port| format!("127.0.0.1:{port}")).collect()
    }

    /// Waits until every server that runs says that all is well.
    pub(crate) fn await_ok(&self) {
        eventually("the Redis Cluster is well", || {
            self.servers.iter().all(|server| {
                let answer = server.command(&["CLUSTER", "INFO"]);
                answer.contains("cluster_state:ok") || answer.contains("Connection refused")
            })
        });
    }

    /// Indices of the servers that are masters of slots now.
    pub(crate) fn masters(&self) -> Vec<usize> {
        (0..self.servers.len())
            .filter(|n| {
                let role = self.servers[*n].command(&["ROLE"]);
                role.starts_with("master")
            })
            .collect()
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings::of(&[("RESOUND_REDIS_CLUSTER", &self.addresses().join(","))])
    }
}

/// What the sentinels want to be configured with.
const SENTINEL_PASSWORD: &str = "sentinels-secret";

/// A master, its replica, and three sentinels of which two have to agree.
pub(crate) struct Sentinels {
    /// The first is the master at the start.
    pub(crate) servers: Vec<Redis>,
    sentinels: Vec<Sentinel>,
}

struct Sentinel {
    port: u16,
    _running: Running,
    _dir: TempDir,
}

impl Sentinels {
    pub(crate) fn start() -> Self {
        let master = Redis::start();
        let port = master.port.to_string();
        let more = [
            "--replicaof",
            "127.0.0.1",
            &port,
            "--repl-diskless-sync-delay",
            "0",
        ];
        let replica = Redis::single(Options {
            more: more.map(str::to_owned).into(),
            ..Options::default()
        });
        // The master does not wait for more replicas before it sends its data.
        master.command(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]);
        eventually("the replica follows", || {
            let answer = replica.command(&["INFO", "replication"]);
            answer.contains("master_link_status:up")
        });
        let all = Self {
            sentinels: (0..3).map(|_| Sentinel::watching(master.port)).collect(),
            servers: vec![master, replica],
        };
        eventually("the sentinels know each other and the replica", || {
            all.sentinels.iter().all(|sentinel| {
                let answer = sentinel.command(&["SENTINEL", "MASTER", "mymaster"]);
                let says = |key: &str, value: &str| {
                    answer.lines().skip_while(|line| *line != key).nth(1) == Some(value)
                };
                says("num-other-sentinels", "2")
                    && says("num-slaves", "1")
                    && says("flags", "master")
            })
        });
        all
    }

    /// The port of the master on which the sentinels agree.
    pub(crate) fn master_port(&self) -> Option<u16> {
        let mut ports = self.sentinels.iter().map(|sentinel| {
            let answer = sentinel.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"]);
            answer.lines().nth(1).and_then(|port| port.parse().ok())
        });
        let first: Option<u16> = ports.next()?;
        ports.all(|port| port == first).then_some(first)?
    }

    pub(crate) fn settings(&self) -> Settings {
        let ports = self.sentinels.iter().map(|sentinel| sentinel.port);
        let addresses: Vec<String> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
        Settings::of(&[
            ("RESOUND_REDIS_SENTINELS", &addresses.join(",")),
            ("RESOUND_REDIS_SENTINEL_PASSWORD", SENTINEL_PASSWORD),
        ])
    }
}

impl Sentinel {
    fn watching(master: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = port::free();
        // It writes what it learns into its file.
        let file = dir.path().join("sentinel.conf");
        let lines = [
            format!("port {port}"),
            "bind 127.0.0.1".to_owned(),
            format!("requirepass {SENTINEL_PASSWORD}"),
            format!("sentinel sentinel-pass {SENTINEL_PASSWORD}"),
            format!("sentinel monitor mymaster 127.0.0.1 {master} 2"),
            "sentinel down-after-milliseconds mymaster 1000".to_owned(),
            "sentinel failover-timeout mymaster 3000".to_owned(),
        ];
        std::fs::write(&file, lines.join("\n")).unwrap();
        let mut command = Command::new("redis-server");
        command.arg(&file).arg("--sentinel").current_dir(dir.path());
        let sentinel = Self {
            port,
            _running: Running::start(&format!("sentinel on {port}"), &mut command),
            _dir: dir,
        };
        eventually("a sentinel answers", || {
            sentinel.command(&["PING"]) == "PONG"
        });
        sentinel
    }

    fn command(&self, words: &[&str]) -> String {
        redis_cli(
            self.port,
            &["-a", SENTINEL_PASSWORD].map(str::to_owned),
            words,
        )
    }
}

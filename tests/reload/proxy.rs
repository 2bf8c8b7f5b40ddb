//! A real proxy in front of a server, and what has to be true of any.

use std::net::SocketAddr;
use std::process::Command;

use tempfile::TempDir;

use crate::net;
use crate::node::Node;
use crate::port;
use crate::running::Running;
use crate::server::has_logged;
use crate::support::http::parsed;
use crate::support::{At, Client};
use crate::wait::{LONG, eventually, eventually_is};

/// Connections of one address that these servers let in.
const MAX: usize = 2;

/// What is set for a server behind a proxy on 127.0.0.1.
pub(crate) const SETTINGS: [(&str, &str); 3] = [
    ("RESOUND_TRUSTED_PROXIES", "127.0.0.1"),
    ("RESOUND_MAX_CONNECTIONS_PER_ADDRESS", "2"),
    ("RESOUND_DEBUG", "on"),
];

/// A proxy with a port that it keeps over a restart.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    program: &'static str,
    arguments: Vec<String>,
    running: Option<Running>,
    dir: TempDir,
}

impl Proxy {
    /// Writes `config`, of its port and of a folder of its own, and starts it. `{config}`
    /// stands for the file in its arguments.
    pub(crate) fn start(
        program: &'static str,
        arguments: &[&str],
        config: impl FnOnce(SocketAddr, &str) -> String,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port::free()));
        let folder = dir.path().to_str().unwrap();
        let file = dir.path().join("proxy.conf");
        std::fs::write(&file, config(address, folder)).unwrap();
        let file = file.to_str().unwrap();
        let arguments = arguments
            .iter()
            .map(|argument| argument.replace("{config}", file))
            .collect();
        let mut proxy = Self {
            address,
            program,
            arguments,
            running: None,
            dir,
        };
        proxy.run();
        proxy
    }

    fn run(&mut self) {
        let mut command = Command::new(self.program);
        // They are not on the path of every user. What they write of their own is gone with the test.
        command
            .args(&self.arguments)
            .env("HOME", self.dir.path())
            .env("PATH", "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin");
        let mut running = Running::start(self.program, &mut command);
        eventually("the proxy listens", || {
            assert!(
                running.is_alive(),
                "{} ended:\n{}",
                self.program,
                running.log()
            );
            std::net::TcpStream::connect(self.address).is_ok()
        });
        self.running = Some(running);
    }

    /// Ends it, with all connections.
    pub(crate) fn stop(&mut self) {
        let mut running = self.running.take().unwrap();
        running.terminate();
        assert!(
            running.ended(LONG).is_some(),
            "{} does not end",
            self.program
        );
    }

    /// What a server and its clients see of each other through a proxy that tells who they
    /// are, and over its restart. Nothing but this may be connected to the server.
    pub(crate) fn check(mut self, server: &Node) {
        for round in 0..2 {
            self.check_clients(server);
            let mut held = self.check_limit();
            self.stop();
            held.iter_mut().for_each(net::expect_end);
            let direct = server.address();
            eventually_is("connections that are left", &0, || connections(direct));
            let line = ["disconnected", "peer=127.0.0.7"];
            eventually("its line is there", || has_logged(server, &line));
            if round == 0 {
                self.run();
            }
        }
        for wrong in ["WARN", "ERROR", "panicked"] {
            assert!(!has_logged(server, &[wrong]), "{}", server.log());
        }
    }

    /// Its clients get what others publish through it.
    fn check_clients(&self, server: &Node) {
        let mut clients = [7, 8].map(|number| net::connect(number, self.address));
        clients
            .iter_mut()
            .for_each(|client| client.subscribe("lobby"));
        let mut publishers = [9, 10].map(|number| net::http(number, self.address));
        for number in 0..20 {
            for publisher in &mut publishers {
                publisher.publish(&["lobby"], "ev", &number.to_string());
                for client in &mut clients {
                    client.expect(&format!(
                        r#"{{"event":"ev","data":"{number}","channel":"lobby"}}"#
                    ));
                }
            }
        }
        for (what, number) in [
            ("connecting", 7),
            ("connecting", 8),
            ("request", 9),
            ("request", 10),
        ] {
            let peer = format!("peer={}", net::address(number));
            let parts = [what, &*peer, "proxy=127.0.0.1:"];
            eventually("its line is there", || has_logged(server, &parts));
        }
        drop((clients, publishers));
        eventually_is("connections that are left", &0, || {
            connections(server.address())
        });
    }

    /// Each client has a limit of its own, whatever it says. Returns those that were let in.
    fn check_limit(&self) -> Vec<Client> {
        let mut held = Vec::new();
        for number in [7, 8] {
            eventually("the clients of before are counted no more", || {
                let mut client = net::open(number, self.address, &[]);
                let is_in = client.next_json()["event"] == "pusher:connection_established";
                if is_in {
                    held.push(client);
                }
                held.len() % MAX == 0 && is_in
            });
            for forged in ["", "192.0.2.1", "127.0.0.1", "garbage\""] {
                let headers = [("x-forwarded-for", forged), ("forwarded", forged)];
                let headers = if forged.is_empty() { &[][..] } else { &headers };
                let mut client = net::open(number, self.address, headers);
                client.expect_error(4100, "Too many connections from this address");
            }
        }
        held
    }
}

/// How many WebSockets a server has, as it says to somebody who is no proxy.
fn connections(server: SocketAddr) -> u64 {
    let answer = net::http(99, server).get("connections", &[]);
    parsed(&answer)["connections"].as_u64().unwrap()
}

//! What clients and Laravel find behind a host name, whatever stands in front of the server.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::json;
use tempfile::TempDir;

use crate::net;
use crate::node::Node;
use crate::s_client::Files;
use crate::server::{self, has_logged};
use crate::support::client::ReadWrite;
use crate::support::http::{Answer, Signed, parsed};
use crate::support::{Client, Http, KEY, body};
use crate::wait::{eventually, eventually_is};

/// Bytes that an event's data may have, so that it is more than proxies let through by default.
const MAX_EVENT: &str = "3000000";

/// What is set for a server behind a proxy on this machine, as the pages say it, and limits
/// that a test can reach.
const SETTINGS: [(&str, &str); 4] = [
    ("RESOUND_TRUSTED_PROXIES", "127.0.0.1"),
    ("REVERB_MAX_REQUEST_SIZE", "4000000"),
    ("RESOUND_MAX_EVENT_SIZE", MAX_EVENT),
    ("RESOUND_DEBUG", "on"),
];

/// What pusher-js asks for, behind the key.
const QUERY: &str = "protocol=7&client=js&version=8.4.0&flash=false";

/// A server that proxies may stand in front of.
pub(crate) fn server(settings: &[(&str, &str)]) -> Node {
    server::start(&[&SETTINGS[..], settings].concat())
}

/// A certificate for a host, and who trusts it.
pub(crate) struct Certificate {
    pub(crate) files: Files,
    client: Arc<ClientConfig>,
    dir: TempDir,
}

impl Certificate {
    pub(crate) fn of(host: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::make(dir.path(), "site", &[host]);
        let mut roots = RootCertStore::empty();
        roots.add(files.der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            files,
            client: Arc::new(client),
            dir,
        }
    }

    /// Where its files are.
    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }
}

/// A host that is reached with TLS at an address, and the path that Resound has there.
pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    pub(crate) host: &'static str,
    pub(crate) prefix: &'static str,
    pub(crate) certificate: Certificate,
}

impl Front {
    fn stream(&self, number: u8) -> impl ReadWrite + use<> {
        let name = ServerName::try_from(self.host).unwrap();
        let config = Arc::clone(&self.certificate.client);
        let session = ClientConnection::new(config, name).unwrap();
        StreamOwned::new(session, net::tcp(number, self.address))
    }

    /// Requests from 127.0.0.`number`.
    pub(crate) fn http(&self, number: u8) -> Http {
        let mut http = Http::over(self.stream(number));
        http.host = self.host;
        http
    }

    /// A GET on a connection of its own.
    pub(crate) fn get(&self, target: &str) -> Answer {
        self.http(9).request("GET", target, "")
    }

    /// A WebSocket for an application from 127.0.0.`number`, as Echo opens it; it has read
    /// nothing yet.
    pub(crate) fn open(&self, number: u8, key: &str) -> Client {
        let target = format!("{}/app/{key}?{QUERY}", self.prefix);
        let headers = [("host", self.host), ("x-forwarded-for", "6.6.6.6")];
        Client::over(Box::new(self.stream(number)), &target, &headers)
    }

    /// One that is let in.
    pub(crate) fn connect(&self, number: u8) -> Client {
        let mut client = self.open(number, KEY);
        client.established();
        client
    }

    /// A request as pusher-http-php sends it: signed without the prefix.
    fn signed(&self, signed: &Signed, body: &str) -> Answer {
        let target = format!("{}{}", self.prefix, signed.target());
        self.http(9).request(signed.method, &target, body)
    }

    /// All that has to be true of any.
    pub(crate) fn check(&self, server: &Node) {
        let mut clients = [7, 8].map(|number| self.connect(number));
        for client in &mut clients {
            client.subscribe("private-orders.7");
        }
        for size in [1, 90_000, 2_000_000] {
            self.check_event(&mut clients, &"x".repeat(size));
        }
        let typing = r#"{"event":"client-typing","channel":"private-orders.7","data":{}}"#;
        clients[0].send(typing);
        clients[1].expect(typing);
        self.check_queries();
        self.check_plain_request();
        drop(clients);
        check_peers(server);
    }

    pub(crate) fn check_event(&self, clients: &mut [Client], data: &str) {
        let body = body(&["private-orders.7"], "ev", data);
        let answer = self.signed(&Signed::post("events", &body), &body);
        assert_eq!((answer.status, &*answer.body), (200, "{}"));
        let event = json!({ "event": "ev", "data": data, "channel": "private-orders.7" });
        for client in clients {
            assert_eq!(client.next_json(), event);
        }
    }

    /// The path and the query arrive as they were signed.
    fn check_queries(&self) {
        let mut channels = Signed::post("channels", "").without("body_md5");
        channels.method = "GET";
        let answer = self.signed(&channels.set("filter_by_prefix", "private-"), "");
        let expected = json!({ "channels": { "private-orders.7": {} } });
        assert_eq!((answer.status, parsed(&answer)), (200, expected));

        let answer = self.terminate();
        assert_eq!((answer.status, &*answer.body), (200, "{}"));

        let mut wrong = Signed::post("events", "{}");
        wrong.secret = "another";
        let answer = self.signed(&wrong, "{}");
        assert_eq!(answer.status, 401, "{}", answer.body);
        let said = "The auth_signature does not match POST";
        assert!(answer.body.contains(said), "{}", answer.body);
    }

    /// A call with an escape in its path.
    pub(crate) fn terminate(&self) -> Answer {
        let call = "users/a%40shop.example/terminate_connections";
        self.signed(&Signed::post(call, ""), "")
    }

    /// Somebody opens the address of the WebSocket in a browser.
    fn check_plain_request(&self) {
        let answer = self.get(&format!("{}/app/{KEY}", self.prefix));
        assert_eq!(answer.status, 426, "{}", answer.body);
    }

    /// A client with a key that no application has is told so, and will not try again.
    pub(crate) fn check_wrong_key(&self) {
        let mut client = self.open(7, "another-key");
        client.expect_error(4001, "Application does not exist");
    }

    /// `/up` is Resound's.
    pub(crate) fn check_up(&self) {
        let answer = self.get(&format!("{}/up", self.prefix));
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(parsed(&answer), json!({ "health": "OK" }));
    }

    /// Whoever asks without TLS at this port is sent to the same place with TLS.
    pub(crate) fn check_redirect(&self, port: u16) {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut http = net::http(9, address);
        http.host = self.host;
        let answer = http.request("GET", "/app/some?a=b", "");
        assert!([301, 302, 308].contains(&answer.status), "{answer:?}");
        let place = answer.header("location");
        assert_eq!(place, Some(&*format!("https://{}/app/some?a=b", self.host)));
    }
}

/// Clients and publishers are who they are, whatever they say, and those who connect are
/// proxies.
fn check_peers(server: &Node) {
    for (what, number) in [("connecting", 7), ("connecting", 8), ("request", 9)] {
        let peer = format!("peer={}", net::address(number));
        let parts = [what, &*peer, "proxy=127.0.0.1:"];
        eventually("its line is there", || has_logged(server, &parts));
    }
    assert!(!has_logged(server, &["peer=6.6.6.6"]), "{}", server.log());
    eventually_is("connections that are left", &0, || {
        let answer = net::http(99, crate::support::At::address(server)).get("connections", &[]);
        parsed(&answer)["connections"].as_u64().unwrap()
    });
    for wrong in ["WARN", "ERROR", "panicked"] {
        assert!(!has_logged(server, &[wrong]), "{}", server.log());
    }
}

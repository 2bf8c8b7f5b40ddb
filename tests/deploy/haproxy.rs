//! HAProxy with the file of `config/haproxy`.

use std::fs;
use std::net::SocketAddr;

use crate::file::File;
use crate::front::{self, Certificate, Front};
use crate::port;
use crate::proxy::Proxy;
use crate::support::At;
use crate::wait::eventually_is;

/// HAProxy with this file, and its port without TLS.
pub(crate) fn start(file: File, server: SocketAddr) -> (Front, Proxy, u16) {
    let certificate = Certificate::of("ws.example.com");
    let both = certificate.folder().join("both.pem");
    let read = |path: &str| fs::read_to_string(path).unwrap();
    let files = &certificate.files;
    fs::write(&both, read(files.cert()) + &read(files.key())).unwrap();
    let plain = port::free();
    let mut file = file
        .to(server)
        .with("/etc/haproxy/ws.example.com.pem", both.to_str().unwrap())
        // As many as any machine allows.
        .with("maxconn 50000", "maxconn 500")
        .with("bind :80\n", &format!("bind 127.0.0.1:{plain}\n"));
    if !rustix::process::geteuid().is_root() {
        for line in [
            "chroot /var/lib/haproxy\n",
            "user haproxy\n",
            "group haproxy\n",
        ] {
            file = file.with(line, "\n");
        }
    }
    let arguments = ["-db", "-f", "{config}"];
    let proxy = Proxy::start("haproxy", &arguments, |address, _| {
        file.with("bind :443 ", &format!("bind {address} ")).text()
    });
    let front = Front {
        address: proxy.address,
        host: "ws.example.com",
        prefix: "",
        certificate,
    };
    (front, proxy, plain)
}

#[test]
fn clients_and_publishes_come_through_haproxy() {
    let server = front::server(&[]);
    let file = File::read("haproxy/haproxy.cfg");
    let (front, _proxy, plain) = start(file, server.address());
    front.check(&server);
    front.check_up();
    front.check_wrong_key();
    front.check_redirect(plain);
    assert_eq!(front.get("/live").status, 404);
}

/// Nobody new comes to a node that drains, and nobody who is there is cut off by the proxy.
#[test]
fn haproxy_sends_nobody_to_a_server_that_drains() {
    let drain = [
        ("RESOUND_DRAIN_PAUSE", "10"),
        ("RESOUND_DRAIN_SECONDS", "30"),
    ];
    let mut server = front::server(&drain);
    let (front, _proxy, _) = start(File::read("haproxy/haproxy.cfg"), server.address());
    let mut client = front.connect(7);
    client.subscribe("private-orders.7");
    server.terminate();
    eventually_is("the status of /up", &503, || front.get("/up").status);
    eventually_is("who answers", &false, || {
        front.get("/up").body.contains("health")
    });
    client.expect_alive();
}

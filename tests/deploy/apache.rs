//! Apache with the file of `config/apache`.

use std::net::SocketAddr;

use crate::file::File;
use crate::front::{self, Certificate, Front};
use crate::laravel;
use crate::port;
use crate::proxy::Proxy;
use crate::support::At;

/// Those that the file names, and those that Debian loads anyway.
const MODULES: [&str; 6] = [
    "mpm_event",
    "authz_core",
    "alias",
    "ssl",
    "proxy",
    "proxy_http",
];

/// What counts for a WebSocket if the file has no longer one, which is 60 seconds by default.
const TIMEOUT: &str = "Timeout 3";

/// Apache with this file, and its port without TLS.
pub(crate) fn start(file: File, server: SocketAddr) -> (Front, Proxy, u16) {
    let certificate = Certificate::of("ws.example.com");
    let plain = port::free();
    let live = "/etc/letsencrypt/live/ws.example.com";
    let file = file
        .with("127.0.0.1:8080/", &format!("{server}/"))
        .showing(
            &certificate,
            &format!("{live}/fullchain.pem"),
            &format!("{live}/privkey.pem"),
        )
        .with("*:80", &format!("127.0.0.1:{plain}"));
    // One process, so that it ends as a whole.
    let arguments = ["-X", "-f", "{config}"];
    let proxy = Proxy::start("apache2", &arguments, |address, folder| {
        let load =
            |name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n");
        let modules: String = MODULES.map(load).concat();
        // As Debian has it; others than root stay who they are.
        let is_root = rustix::process::geteuid().is_root();
        let user = if is_root {
            "User www-data\nGroup www-data\n"
        } else {
            ""
        };
        let file = file.with("*:443", &address.to_string());
        format!(
            "{modules}{user}ServerRoot {folder}
             ServerName localhost
             {TIMEOUT}
             DefaultRuntimeDir {folder}
             PidFile {folder}/pid
             ErrorLog /dev/stderr
             Listen {address}
             Listen 127.0.0.1:{plain}
             {}",
            file.text()
        )
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
fn clients_and_publishes_come_through_apache() {
    let server = front::server(&[]);
    let file = File::read("apache/resound.conf");
    let (front, _proxy, plain) = start(file, server.address());
    front.check(&server);
    front.check_up();
    front.check_wrong_key();
    front.check_redirect(plain);
    assert_eq!(front.get("/live").status, 404);
}

#[test]
fn laravel_keeps_its_own_routes_behind_apache() {
    let server = front::server(&[]);
    let lines = File::block("apache.md", "apache", "ProxyPass").text();
    let own = format!("ProxyPass \"/\" \"http://{}/\"", laravel::http());
    let file = File::read("apache/resound.conf").text();
    let begin = file.find("    AllowEncodedSlashes").unwrap();
    let end = file.find("    Redirect 404").unwrap();
    let file = File::new(file[..begin].to_owned() + &lines + &file[end..]);
    let file = file.with("Redirect 404 \"/\"", &own);
    let (front, _proxy, _) = start(file, server.address());
    laravel::check_routes(&front, &["/app/", "/app/my-app-keys", "/apps/my-app-id"]);
    front.check(&server);
}

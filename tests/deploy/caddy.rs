//! Caddy with the file of `config/caddy`.

use std::net::SocketAddr;

use crate::file::File;
use crate::front::{self, Certificate, Front};
use crate::laravel;
use crate::proxy::Proxy;
use crate::support::At;

pub(crate) fn start(file: File, host: &'static str, server: SocketAddr) -> (Front, Proxy) {
    let certificate = Certificate::of(host);
    let file = file.to(server);
    let arguments = ["run", "--adapter", "caddyfile", "--config", "{config}"];
    let proxy = Proxy::start("caddy", &arguments, |address, _| {
        // It can get no certificate here.
        let site = format!(
            "https://{host}:{} {{\n\ttls {} {}",
            address.port(),
            certificate.files.cert(),
            certificate.files.key()
        );
        let file = file.with(&format!("\n{host} {{"), &format!("\n{site}"));
        let global = "admin off\n\tauto_https disable_redirects\n\tgrace_period 1s";
        format!(
            "{{\n\t{global}\n\tdefault_bind 127.0.0.1\n}}\n{}",
            file.text()
        )
    });
    let front = Front {
        address: proxy.address,
        host,
        prefix: "",
        certificate,
    };
    (front, proxy)
}

#[test]
fn clients_and_publishes_come_through_caddy() {
    let server = front::server(&[]);
    let file = File::read("caddy/Caddyfile");
    let (front, _proxy) = start(file, "ws.example.com", server.address());
    front.check(&server);
    front.check_up();
    front.check_wrong_key();
    assert_eq!(front.get("/live").status, 404);
}

#[test]
fn laravel_keeps_its_own_routes_behind_caddy() {
    let server = front::server(&[]);
    let folder = tempfile::tempdir().unwrap();
    let app = laravel::installed(folder.path());
    let block = File::block("caddy.md", "caddy", "php_fastcgi").text();
    let file = File::new(format!("\n{block}"))
        .with("/var/www/app/public", app.public.to_str().unwrap())
        .with("/run/php/php-fpm.sock", app.socket.to_str().unwrap());
    let (front, _proxy) = start(file, "example.com", server.address());
    let more = ["/app/", "/app/my-app-key/settings", "/apps/my-app-id"];
    laravel::check_routes(&front, &more);
    assert_eq!(front.get("/robots.txt").body, "of Laravel");
    front.check(&server);
}

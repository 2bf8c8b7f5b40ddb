//! nginx with the files of `config/nginx`.

use std::net::SocketAddr;
use std::path::Path;

use crate::file::File;
use crate::front::{self, Certificate, Front};
use crate::laravel;
use crate::nginx_program;
use crate::node::Node;
use crate::port;
use crate::proxy::Proxy;
use crate::support::At;

/// nginx that runs a site, and its port without TLS.
pub(crate) struct Site {
    pub(crate) front: Front,
    plain: u16,
    pub(crate) _proxy: Proxy,
}

/// Ports, certificates and the server's address are a test's.
pub(crate) fn start(
    file: File,
    (host, prefix): (&'static str, &'static str),
    server: SocketAddr,
) -> Site {
    let certificate = Certificate::of(host);
    let plain = port::free();
    let live = format!("/etc/letsencrypt/live/{host}");
    let file = file
        .to(server)
        .showing(
            &certificate,
            &format!("{live}/fullchain.pem"),
            &format!("{live}/privkey.pem"),
        )
        .with("listen [::]:80;", "")
        .with("listen [::]:443 ssl;", "")
        .with("listen 80;", &format!("listen 127.0.0.1:{plain};"));
    let proxy = nginx_program::start(|address| {
        let file = file.with("listen 443 ssl;", &format!("listen {address} ssl;"));
        nginx_program::http(&file.text())
    });
    Site {
        front: Front {
            address: proxy.address,
            host,
            prefix,
            certificate,
        },
        plain,
        _proxy: proxy,
    }
}

pub(crate) fn own_host(file: File, server: &Node) -> Site {
    start(file, ("ws.example.com", ""), server.address())
}

pub(crate) fn sub_path(file: File, server: &Node) -> Site {
    start(file, ("example.com", "/ws"), server.address())
}

/// With Laravel in this folder.
pub(crate) fn same_host(file: File, server: &Node, folder: &Path) -> Site {
    let app = laravel::installed(folder);
    let file = file
        .with("/var/www/app/public", app.public.to_str().unwrap())
        .with("/run/php/php-fpm.sock", app.socket.to_str().unwrap())
        .with("fastcgi_params;", "/etc/nginx/fastcgi_params;");
    start(file, ("example.com", ""), server.address())
}

#[test]
fn clients_and_publishes_come_through_nginx_on_a_host_of_its_own() {
    let server = front::server(&[]);
    let site = own_host(File::read("nginx/own-host.conf"), &server);
    site.front.check(&server);
    site.front.check_up();
    site.front.check_wrong_key();
    site.front.check_redirect(site.plain);
    let other = site.front.get("/live");
    assert!(
        other.status == 404 && other.body.contains("nginx"),
        "{other:?}"
    );
}

#[test]
fn clients_and_publishes_come_through_nginx_below_a_path() {
    let server = front::server(&[("REVERB_SERVER_PATH", "/ws")]);
    let site = sub_path(File::read("nginx/sub-path.conf"), &server);
    site.front.check(&server);
    site.front.check_up();
    site.front.check_wrong_key();
    site.front.check_redirect(site.plain);
    for outside in ["/app/my-app-key", "/apps/my-app-id/channels", "/up"] {
        let answer = site.front.get(outside);
        assert!(answer.body.contains("nginx"), "{answer:?}");
    }
}

/// Whether the server knows of the path or not.
#[test]
fn clients_and_publishes_come_through_nginx_that_takes_the_path_off() {
    for path in ["", "/ws"] {
        let server = front::server(&[("REVERB_SERVER_PATH", path)]);
        let file = File::read("nginx/sub-path.conf");
        let site = sub_path(
            file.with(
                "        proxy_pass http://resound;",
                "        rewrite ^/ws(/.*)$ $1 break;\n        proxy_pass http://resound;",
            ),
            &server,
        );
        site.front.check_up();
        let mut client = site.front.connect(7);
        client.subscribe("private-orders.7");
        site.front.check_event(&mut [client], "x");
        // The price that the page tells of: nginx writes escapes anew.
        assert_eq!(site.front.terminate().status, 401);
    }
}

#[test]
fn laravel_keeps_its_own_routes_on_the_same_host() {
    let server = front::server(&[]);
    let folder = tempfile::tempdir().unwrap();
    let site = same_host(File::read("nginx/same-host.conf"), &server, folder.path());
    let front = &site.front;
    let more = [
        "/app/",
        "/app/my-app-key/settings",
        "/app/my-app-keys?page=2",
        "/apps/my-app-id",
    ];
    laravel::check_routes(front, &more);
    assert_eq!(front.get("/robots.txt").body, "of Laravel");
    assert_eq!(front.get("/.env").status, 403);
    front.check(&server);
    front.check_wrong_key();
    front.check_redirect(site.plain);
}

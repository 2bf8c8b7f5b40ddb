//! nginx with the file that `config/compose/compose.yml` mounts. `tests/deploy/compose` looks at
//! the rest.

use crate::file::File;
use crate::front::{self, Certificate, Front};
use crate::laravel;
use crate::node::Node;
use crate::port;
use crate::proxy::Proxy;
use crate::support::At;

/// nginx, its port without TLS, and an application.
pub(crate) fn start(file: File, server: &Node) -> (Front, Proxy, u16) {
    let certificate = Certificate::of("example.com");
    let plain = port::free();
    // There is no Docker that could be asked for names.
    let file = file
        .with("resound:8080", &server.address().to_string())
        .with("app:8000", &laravel::http().to_string())
        .showing(
            &certificate,
            "/etc/nginx/certs/fullchain.pem",
            "/etc/nginx/certs/privkey.pem",
        )
        .with("listen 80;", &format!("listen 127.0.0.1:{plain};"));
    let proxy = Proxy::start("nginx", &["-c", "{config}"], |address, folder| {
        let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let folders = kinds.map(|kind| format!("{kind}_temp_path {folder}/{kind};"));
        let file = file
            .with("listen 443 ssl;", &format!("listen {address} ssl;"))
            .with("\nhttp {", &format!("\nhttp {{ {}", folders.concat()));
        // One process, so that it ends as a whole.
        let alone = format!("daemon off; master_process off; pid {folder}/nginx.pid;");
        format!("{alone}\n{}", file.text())
    });
    let front = Front {
        address: proxy.address,
        host: "example.com",
        prefix: "",
        certificate,
    };
    (front, proxy, plain)
}

#[test]
fn clients_and_the_application_come_through_nginx_of_the_compose_file() {
    let server = front::server(&[]);
    let file = File::read("compose/nginx.conf");
    let (front, _proxy, plain) = start(file, &server);
    laravel::check_routes(&front, &["/app/", "/apps/my-app-id"]);
    front.check(&server);
    front.check_wrong_key();
    front.check_redirect(plain);
}

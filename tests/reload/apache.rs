//! Apache in front.

use crate::manual;
use crate::proxy::{Proxy, SETTINGS};
use crate::server;
use crate::support::At;

const MODULES: [&str; 4] = ["mpm_event", "authz_core", "proxy", "proxy_http"];

#[test]
fn clients_and_publishes_come_through_apache() {
    let server = server::start(&SETTINGS);
    let lines = manual::settings("apache", "ProxyPass", server.address());
    // In the foreground.
    let arguments = ["-D", "FOREGROUND", "-f", "{config}"];
    let proxy = Proxy::start("apache2", &arguments, |address, folder| {
        let load =
            |name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n");
        let modules: String = MODULES.map(load).concat();
        format!(
            "{modules}ServerRoot {folder}
             DefaultRuntimeDir {folder}
             PidFile {folder}/pid
             ErrorLog /dev/stderr
             ServerName localhost
             Listen {address}
             {lines}"
        )
    });
    proxy.check(&server);
}

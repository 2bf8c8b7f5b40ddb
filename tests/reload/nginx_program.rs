//! nginx as a program, which any settings can be given to.

use std::net::SocketAddr;

use crate::proxy::Proxy;

/// One process, so that it ends as a whole. `inner` says what it does, of its address;
/// `{folder}` in it stands for a folder of its own.
pub(crate) fn start(inner: impl FnOnce(SocketAddr) -> String) -> Proxy {
    let arguments = ["-c", "{config}"];
    Proxy::start("nginx", &arguments, |address, folder| {
        format!(
            "include /etc/nginx/modules-enabled/*.conf;
             daemon off;
             master_process off;
             error_log stderr warn;
             pid {folder}/nginx.pid;
             events {{ worker_connections 256; }}
             {}",
            inner(address).replace("{folder}", folder)
        )
    })
}

/// What stands around the settings of a site.
pub(crate) fn http(lines: &str) -> String {
    format!(
        "http {{
            access_log off;
            client_body_temp_path {{folder}}/body;
            proxy_temp_path {{folder}}/proxy;
            fastcgi_temp_path {{folder}}/fastcgi;
            uwsgi_temp_path {{folder}}/uwsgi;
            scgi_temp_path {{folder}}/scgi;
            {lines}
        }}"
    )
}

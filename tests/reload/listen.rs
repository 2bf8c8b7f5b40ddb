//! nginx in front, which reaches the server through its Unix socket: as in the manual.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{APP_ID, At, Client, Http, KEY, PATIENCE, SECRET};

/// A program that goes with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended.
        let id = self.0.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &id]).status();
        let _ = self.0.wait();
    }
}

struct Nginx {
    _program: Program,
    address: SocketAddr,
}

impl At for Nginx {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

fn wait_for(what: &str, is_there: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_there() {
        assert!(Instant::now() < deadline, "{what} is not there");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// With the manual's own lines.
fn nginx(dir: &Path) -> Nginx {
    // The listener is closed again, and its port free.
    let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    let address = address.unwrap();
    let page = include_str!("../../docs/operate.md");
    let lines = page.split("```nginx\n").nth(1).unwrap();
    let lines = lines.split("```").next().unwrap();
    let at = dir.display();
    let lines = lines.replace("/run/resound/resound.sock", &format!("{at}/r.sock"));
    let settings = format!(
        "daemon off; pid {at}/nginx.pid; error_log {at}/error.log;
         events {{}}
         http {{
             access_log off;
             client_body_temp_path {at}/body; proxy_temp_path {at}/proxy;
             fastcgi_temp_path {at}/fastcgi; uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;
             server {{ listen {address}; {lines} }}
         }}"
    );
    let file = dir.join("nginx.conf");
    std::fs::write(&file, settings).unwrap();
    // Where Debian puts it, which is not in everybody's PATH.
    let child = Command::new("/usr/sbin/nginx")
        .arg("-e")
        .arg(dir.join("error.log"))
        .arg("-c")
        .arg(&file)
        .spawn()
        .unwrap();
    let program = Program(child);
    wait_for("nginx", || TcpStream::connect(address).is_ok());
    Nginx {
        _program: program,
        address,
    }
}

fn server(dir: &Path) -> Program {
    let child = Command::new(env!("CARGO_BIN_EXE_resound"))
        .args(["start", "--host", "off", "--socket", "r.sock"])
        .current_dir(dir)
        .env_clear()
        .envs([
            ("REVERB_APP_ID", APP_ID),
            ("REVERB_APP_KEY", KEY),
            ("REVERB_APP_SECRET", SECRET),
            ("RESOUND_METRICS_PORT", "off"),
            ("RESOUND_WORKERS", "2"),
            // nginx's workers are other users, if it is started by root.
            ("RESOUND_SOCKET_MODE", "0666"),
        ])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let path = dir.join("r.sock");
    wait_for("the server", || {
        std::os::unix::net::UnixStream::connect(&path).is_ok()
    });
    Program(child)
}

#[test]
fn clients_and_publishes_come_through_nginx_and_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    // nginx's workers have to get to it.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path(), open).unwrap();
    let first = server(dir.path());
    let nginx = nginx(dir.path());
    let mut clients: Vec<Client> = (0..6).map(|_| Client::connect(&nginx)).collect();
    clients
        .iter_mut()
        .for_each(|client| client.subscribe("private-a"));
    let mut http = Http::connect(&nginx);
    for size in [1, 1000, 90_000] {
        let data = "x".repeat(size);
        http.publish(&["private-a"], "ev", &data);
        let event = format!(r#"{{"event":"ev","data":"{data}","channel":"private-a"}}"#);
        clients.iter_mut().for_each(|client| client.expect(&event));
    }
    let typing = r#"{"event":"client-typing","channel":"private-a","data":{}}"#;
    clients[0].send(typing);
    clients[1..]
        .iter_mut()
        .for_each(|client| client.expect(typing));
    drop(first);

    // One that was killed has left its file, and the next is at the same place.
    let _second = server(dir.path());
    let mut client = Client::connect(&nginx);
    client.subscribe("lobby");
    Http::connect(&nginx).publish(&["lobby"], "ev", "x");
    client.expect(r#"{"event":"ev","data":"x","channel":"lobby"}"#);
}

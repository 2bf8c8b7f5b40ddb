//! New certificates are served without a restart.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use resound::config::Config;
use resound::server::Server;

use super::openssl::{Files, shown};
use super::{connect_with, trusting};
use crate::support::{At, Http, PATIENCE, TestServer, server};

/// One that looks at its files all the time.
fn watching(files: &Files) -> TestServer {
    let sources = server::sources(&[
        ("RESOUND_TLS_CERT", files.cert()),
        ("RESOUND_TLS_KEY", files.key()),
        ("RESOUND_METRICS_PORT", "0"),
    ]);
    let mut server = Server::bind(&Config::load(&sources).unwrap(), false).unwrap();
    server.watch_every(Duration::from_millis(20));
    TestServer::run(server)
}

fn await_shown(server: &TestServer, expected: &Files) {
    let deadline = Instant::now() + PATIENCE;
    while shown(server, None) != expected.der() {
        assert!(Instant::now() < deadline, "the old one is still served");
    }
}

struct Observed(std::net::SocketAddr);

impl At for Observed {
    fn address(&self) -> std::net::SocketAddr {
        self.0
    }
}

fn expiry(server: &TestServer, files: &Files) -> Option<String> {
    let at = Observed(server.metrics.unwrap());
    let name = "resound_tls_certificate_expiry_timestamp_seconds";
    let series = format!("{name}{{certificate=\"{}\"}} ", files.cert());
    let body = Http::connect(&at).request("GET", "/metrics", "").body;
    let line = body.lines().find_map(|line| line.strip_prefix(&series));
    line.map(str::to_owned)
}

#[test]
fn files_that_were_written_anew_are_served_and_those_that_cannot_be_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::make(dir.path(), "own", &["localhost"]);
    let server = watching(&files);
    let mut client = connect_with(&server, &trusting(files.der()));
    let before = files.der();
    assert_eq!(expiry(&server, &files).unwrap(), "67090118400");
    assert_eq!(shown(&server, None), before);
    // Of another pair, as if only half of it were written.
    let other = Files::make(dir.path(), "other", &["localhost"]);
    std::fs::copy(&other.cert, &files.cert).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(
        shown(&server, None),
        before,
        "it does not belong to the key"
    );
    std::fs::copy(&other.key, &files.key).unwrap();
    await_shown(&server, &other);
    std::fs::remove_file(&files.cert).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(shown(&server, None), other.der());
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2030, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    std::fs::write(&files.cert, params.self_signed(&key).unwrap().pem()).unwrap();
    await_shown(&server, &files);
    assert_eq!(expiry(&server, &files).unwrap(), "1893456000");
    // Whoever was connected has noticed nothing.
    client.expect_alive();
}

/// As the manual has it, but into a directory of the test's and for its user.
#[test]
fn what_certbots_hook_puts_there_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().to_str().unwrap();
    let page = include_str!("../../../docs/operate.md");
    let mut blocks = page.split("```bash\n").skip(1);
    let hook = blocks
        .find(|block| block.contains("RENEWED_LINEAGE"))
        .unwrap();
    let hook = hook.split("```").next().unwrap();
    let user = rustix::process::geteuid().as_raw();
    let hook = hook
        .replace("/etc/resound/", &format!("{own}/"))
        .replace("-o resound", &format!("-o {user}"));
    let run = |pair: &Files| {
        let lineage = dir.path().join("live");
        std::fs::create_dir_all(&lineage).unwrap();
        std::fs::copy(&pair.cert, lineage.join("fullchain.pem")).unwrap();
        std::fs::copy(&pair.key, lineage.join("privkey.pem")).unwrap();
        let status = std::process::Command::new("sh")
            .args(["-ec", &hook])
            .env("RENEWED_LINEAGE", lineage)
            .status();
        assert!(status.unwrap().success());
    };
    let [first, second] = ["1", "2"].map(|name| Files::make(dir.path(), name, &["localhost"]));
    run(&first);
    let files = Files {
        cert: dir.path().join("cert.pem"),
        key: dir.path().join("key.pem"),
    };
    let server = watching(&files);
    await_shown(&server, &first);
    run(&second);
    await_shown(&server, &second);
    let mode = std::fs::metadata(&files.key).unwrap().permissions();
    let mode = std::os::unix::fs::PermissionsExt::mode(&mode);
    assert_eq!(mode & 0o777, 0o400);
}

/// certbot has links to files of a number, Kubernetes one to a directory of a time.
#[test]
fn links_that_lead_elsewhere_are_followed() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let put = |link: &str, target: &Path| {
        let new = path("link.new");
        symlink(target, &new).unwrap();
        std::fs::rename(new, path(link)).unwrap();
    };
    let made = ["..1", "..2"].map(|name| {
        std::fs::create_dir(path(name)).unwrap();
        Files::make(&path(name), "tls", &["localhost"])
    });
    put("..data", Path::new("..1"));
    put("tls.pem", Path::new("..data/tls.pem"));
    put("tls.key", Path::new("..data/tls.key"));
    let files = Files {
        cert: path("tls.pem"),
        key: path("tls.key"),
    };
    let server = watching(&files);
    await_shown(&server, &made[0]);
    put("..data", Path::new("..2"));
    await_shown(&server, &made[1]);
    // Each file has a link of its own.
    let third = Files::make(&path("..2"), "tls3", &["localhost"]);
    put("tls.key", &third.key);
    put("tls.pem", &third.cert);
    await_shown(&server, &third);
}

#[test]
fn whether_tls_is_spoken_is_decided_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::make(dir.path(), "own", &["localhost"]);
    let tls = [
        ("RESOUND_TLS_CERT", files.cert()),
        ("RESOUND_TLS_KEY", files.key()),
    ];
    let config = |settings: &[(&str, &str)]| Config::load(&server::sources(settings)).unwrap();
    let secure = TestServer::with(&tls);
    let (_, warnings) = secure.control.apply(&config(&[])).unwrap();
    let text = |how: &str| {
        format!(
            "server.tls_cert: the server goes on {how} TLS, which is switched on and off at the start only"
        )
    };
    assert_eq!(warnings, [text("with")]);
    // Whatever else is said of ports.
    let more = [&tls[..], &[("RESOUND_TLS_PORT", "1")]].concat();
    let (_, warnings) = secure.control.apply(&config(&more)).unwrap();
    assert_eq!(warnings, <[String; 0]>::default());
    assert_eq!(shown(&secure, None), files.der());
    let plain = TestServer::start();
    let (_, warnings) = plain.control.apply(&config(&tls)).unwrap();
    assert_eq!(warnings, [text("without")]);
    assert_eq!(Http::connect(&plain).request("GET", "/up", "").status, 200);
}

//! A real `redis-server` of our own.

use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::port;
use crate::running::Running;
use crate::settings::Settings;
use crate::wait::{LONG, soon};

/// Who may use it, and how.
#[derive(Clone, Default)]
pub(crate) struct Options {
    /// Asked of everybody.
    pub(crate) password: Option<&'static str>,
    /// A user of the ACL, of this name and password, instead of the default one.
    pub(crate) user: Option<(&'static str, &'static str)>,
    /// Certificates, if it speaks TLS.
    pub(crate) tls: Option<std::rc::Rc<Certificates>>,
    /// More options of its command line.
    pub(crate) more: Vec<String>,
}

/// One server. It keeps its data in a file, so that a restart finds them.
pub(crate) struct Redis {
    pub(crate) port: u16,
    dir: TempDir,
    options: Options,
    running: Option<Running>,
}

impl Redis {
    /// One that everybody may use.
    pub(crate) fn start() -> Self {
        Self::single(Options::default())
    }

    pub(crate) fn single(options: Options) -> Self {
        // Somebody may have taken the port meanwhile.
        for _ in 0..5 {
            let mut redis = Self {
                port: port::free(),
                dir: tempfile::tempdir().unwrap(),
                options: options.clone(),
                running: None,
            };
            if redis.run() {
                return redis;
            }
        }
        panic!("redis-server does not start");
    }

    /// Starts it and waits until it answers; false if it ends.
    fn run(&mut self) -> bool {
        let mut command = Command::new("redis-server");
        command.current_dir(self.dir.path());
        let port = self.port.to_string();
        let listening = if self.options.tls.is_some() {
            "--tls-port"
        } else {
            "--port"
        };
        if let Some(certificates) = &self.options.tls {
            command
                .args(["--port", "0", "--tls-cert-file"])
                .arg(&certificates.server.0)
                .arg("--tls-key-file")
                .arg(&certificates.server.1)
                .arg("--tls-ca-cert-file")
                .arg(&certificates.authority);
        }
        command.args([listening, &port, "--bind", "127.0.0.1", "--save", ""]);
        // What it has written stays when it is killed; it need not reach the disk.
        command.args(["--appendonly", "yes", "--appendfsync", "no"]);
        command.args(["--auto-aof-rewrite-percentage", "0"]);
        if let Some(password) = self.options.password {
            command.args(["--requirepass", password]);
        }
        if let Some((name, password)) = self.options.user {
            let secret = format!(">{password}");
            command.args(["--user", "default", "off"]);
            command.args(["--user", name, "on", &secret, "~*", "&*", "+@all"]);
        }
        command.args(&self.options.more);
        let mut running = Running::start(&format!("redis on {port}"), &mut command);
        let answers = soon(LONG, || {
            !running.is_alive() || self.command(&["PING"]) == "PONG"
        });
        let started = answers && running.is_alive();
        self.running = Some(running);
        started
    }

    /// What a command of the administrator answers, as redis-cli shows it.
    pub(crate) fn command(&self, words: &[&str]) -> String {
        redis_cli(self.port, &self.access(), words)
    }

    fn access(&self) -> Vec<String> {
        let mut access = Vec::new();
        if let Some((name, password)) = self.options.user {
            access.extend(["--user", name, "--pass", password].map(str::to_owned));
        } else if let Some(password) = self.options.password {
            access.extend(["-a", password].map(str::to_owned));
        }
        if let Some(certificates) = &self.options.tls {
            let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
            let (cert, key) = &certificates.client;
            access.extend(["--tls", "--cacert"].map(str::to_owned));
            access.extend([text(&certificates.authority), "--cert".to_owned()]);
            access.extend([text(cert), "--key".to_owned(), text(key)]);
        }
        access
    }

    /// How a node reaches it.
    pub(crate) fn settings(&self) -> Settings {
        self.settings_by(self.port)
    }

    /// How a node reaches it through a proxy that listens on `port`.
    pub(crate) fn settings_by(&self, port: u16) -> Settings {
        let mut settings = Settings::of(&[
            ("REDIS_HOST", "127.0.0.1"),
            ("REDIS_PORT", &port.to_string()),
        ]);
        if let Some((name, password)) = self.options.user {
            settings = settings.with(&[("REDIS_USERNAME", name), ("REDIS_PASSWORD", password)]);
        } else if let Some(password) = self.options.password {
            settings = settings.with(&[("REDIS_PASSWORD", password)]);
        }
        if let Some(certificates) = &self.options.tls {
            let text = |path: &'_ PathBuf| path.to_str().unwrap().to_owned();
            settings = settings.with(&[
                ("REDIS_SCHEME", "tls"),
                ("RESOUND_REDIS_TLS_CA", &text(&certificates.authority)),
                ("RESOUND_REDIS_TLS_CERT", &text(&certificates.client.0)),
                ("RESOUND_REDIS_TLS_KEY", &text(&certificates.client.1)),
            ]);
        }
        settings
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process().kill();
    }

    /// Starts it again where it was, with its data. A child that was writing them for a
    /// replica may hold the ports for a moment longer.
    pub(crate) fn restart(&mut self) {
        self.kill();
        assert!(soon(LONG, || self.run()), "redis does not come back");
    }

    /// Starts it again without its data.
    pub(crate) fn restart_empty(&mut self) {
        self.kill();
        let files = self.dir.path().join("appendonlydir");
        std::fs::remove_dir_all(files).unwrap();
        self.restart();
    }

    /// SIGSTOP: connections stay, and nothing is answered.
    pub(crate) fn pause(&mut self) {
        self.process().pause();
    }

    pub(crate) fn resume(&mut self) {
        self.process().resume();
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.process().is_alive()
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn process(&mut self) -> &mut Running {
        self.running.as_mut().expect("it was started")
    }
}

/// Runs redis-cli; what it says, on whichever stream.
pub(crate) fn redis_cli(port: u16, access: &[String], words: &[&str]) -> String {
    let output = Command::new("redis-cli")
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "--no-auth-warning",
        ])
        .args(access)
        .args(words)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    text.trim().to_owned()
}

/// An authority, and what it vouches for: each a certificate and its key, PEM.
pub(crate) struct Certificates {
    _dir: TempDir,
    pub(crate) authority: PathBuf,
    pub(crate) server: (PathBuf, PathBuf),
    pub(crate) client: (PathBuf, PathBuf),
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, pem: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, pem).unwrap();
            path
        };
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "an authority of a test");
        let key = KeyPair::generate().unwrap();
        let authority = write("authority.pem", &params.self_signed(&key).unwrap().pem());
        let issuer = Issuer::new(params, key);
        let signed = |name: &str| {
            let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
            let mut params = CertificateParams::new(names).unwrap();
            params
                .distinguished_name
                .push(rcgen::DnType::CommonName, name);
            let key = KeyPair::generate().unwrap();
            let cert = params.signed_by(&key, &issuer).unwrap();
            (
                write(&format!("{name}.pem"), &cert.pem()),
                write(&format!("{name}.key"), &key.serialize_pem()),
            )
        };
        let (server, client) = (signed("server"), signed("client"));
        Self {
            authority,
            server,
            client,
            _dir: dir,
        }
    }
}

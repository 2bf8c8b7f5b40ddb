//! Supervisor with the file of `config/supervisor`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_tungstenite::tungstenite::Message;

use crate::file::File;
use crate::port;
use crate::running::Running;
use crate::support::http::parsed;
use crate::support::{APP_ID, At, Client, Http, KEY, SECRET};
use crate::wait::{LONG, eventually};

/// A limit of open files below what the file asks for.
const FEW_FILES: u64 = 1024;

/// What the file asks for.
const MANY_FILES: u64 = 65_536;

/// Before each question, which is a program of its own.
const GLANCE: Duration = Duration::from_millis(200);

struct Supervisor {
    running: Running,
    address: SocketAddr,
    dir: TempDir,
}

impl At for Supervisor {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Supervisor {
    /// As Debian has it, with our file beside its own; `limits` is said to a shell before.
    fn start(limits: &str, env: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port::free()));
        let folder = dir.path().to_str().unwrap();
        let own = fs::read_to_string("/etc/supervisor/supervisord.conf").unwrap();
        for (part, name) in [
            ("/etc/supervisor/conf.d", "conf.d"),
            ("/var/run", "run"),
            ("/var/log/supervisor", "log"),
        ] {
            assert!(own.contains(part), "{own}");
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let own = own
            .replace("/etc/supervisor/conf.d", &format!("{folder}/conf.d"))
            .replace("/var/run", &format!("{folder}/run"))
            .replace("/var/log/supervisor", &format!("{folder}/log"));
        fs::write(dir.path().join("supervisord.conf"), own).unwrap();
        fs::write(dir.path().join(".env"), settings(address, folder) + env).unwrap();
        fs::write(dir.path().join("conf.d/resound.conf"), program(folder)).unwrap();
        let script = format!("{limits} exec supervisord --nodaemon -c supervisord.conf");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).current_dir(dir.path());
        let mut supervisor = Self {
            running: Running::start("supervisord", &mut command),
            address,
            dir,
        };
        eventually("Resound runs", || {
            let said = supervisor.running.log();
            assert!(supervisor.running.is_alive(), "it ended: {said}");
            std::net::TcpStream::connect(address).is_ok() && supervisor.says("status", "RUNNING")
        });
        supervisor
    }

    fn ctl(&self, command: &str) -> String {
        let run = Command::new("supervisorctl")
            .args(["-c", "supervisord.conf"])
            .args(command.split(' '))
            .current_dir(self.dir.path())
            .output()
            .unwrap();
        String::from_utf8(run.stdout).unwrap()
    }

    fn says(&self, command: &str, text: &str) -> bool {
        // Whoever asks until it is so leaves the processor to others meanwhile.
        std::thread::sleep(GLANCE);
        self.ctl(command).contains(text)
    }

    /// Resound's process.
    fn pid(&self) -> u32 {
        let said = self.ctl("pid resound");
        said.trim().parse().unwrap()
    }

    /// Supervisor's.
    fn own_pid(&self) -> u32 {
        self.ctl("pid").trim().parse().unwrap()
    }

    fn env(&self) -> PathBuf {
        self.dir.path().join(".env")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log/resound.log")).unwrap()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // It ends what it has started, which a killed one would not.
        if self.running.is_alive() {
            self.running.terminate();
            self.running.ended(LONG);
        }
    }
}

/// The application's `.env`.
fn settings(address: SocketAddr, folder: &str) -> String {
    format!(
        "REVERB_APP_ID={APP_ID}\nREVERB_APP_KEY={KEY}\nREVERB_APP_SECRET={SECRET}\n\
         REVERB_SERVER_HOST=127.0.0.1\nREVERB_SERVER_PORT={}\nRESOUND_METRICS_PORT=off\n\
         RESOUND_PID_FILE={folder}/run/resound.pid\n",
        address.port()
    )
}

/// The file, with this machine's binary, folders and user.
fn program(folder: &str) -> String {
    let user = Command::new("id").arg("-un").output().unwrap().stdout;
    let user = String::from_utf8(user).unwrap();
    File::read("supervisor/resound.conf")
        .with("/usr/local/bin/resound", env!("CARGO_BIN_EXE_resound"))
        .with("/var/www/app", folder)
        .with("user=www-data", &format!("user={}", user.trim()))
        .with("/var/log/supervisor", &format!("{folder}/log"))
        .with(
            &format!("\nminfds={MANY_FILES}\n"),
            &format!("\nminfds={}\n", many_files()),
        )
        .text()
}

/// The soft and the hard limit of a process's open files.
fn limits(pid: u32) -> [u64; 2] {
    let text = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("limits"));
    let text = text.unwrap();
    let line = text.lines().find(|line| line.starts_with("Max open files"));
    let numbers: Vec<u64> = line
        .unwrap()
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    numbers.try_into().unwrap()
}

/// As many as the file asks for, or as this machine allows.
fn many_files() -> u64 {
    limits(std::process::id())[1].min(MANY_FILES)
}

/// Seconds that the file gives it to end.
fn stop_wait() -> Duration {
    let text = File::read("supervisor/resound.conf").text();
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("stopwaitsecs="));
    Duration::from_secs(value.unwrap().parse().unwrap())
}

#[test]
fn supervisor_starts_it_with_many_files_and_starts_it_again_when_it_was_killed() {
    let supervisor = Supervisor::start(&format!("ulimit -Sn {FEW_FILES};"), "");
    let first = supervisor.pid();
    let [own, its] = [supervisor.own_pid(), first].map(|pid| limits(pid)[0]);
    assert_eq!(own, many_files(), "Supervisor's own");
    assert!(its >= own, "{its} of Resound");
    let mut client = Client::connect(&supervisor);
    client.subscribe("lobby");
    Http::connect(&supervisor).publish(&["lobby"], "ev", "x");
    client.expect(r#"{"event":"ev","data":"x","channel":"lobby"}"#);

    let mut kill = Command::new("kill");
    let kill = kill.args(["-KILL", &first.to_string()]);
    assert!(kill.status().unwrap().success());
    eventually("it runs again", || {
        supervisor.says("status", "RUNNING") && supervisor.pid() != first
    });
    Client::connect(&supervisor);
}

#[test]
fn supervisor_has_it_read_its_settings_anew() {
    let supervisor = Supervisor::start("", "");
    let pid = supervisor.pid();
    let mut client = Client::connect(&supervisor);
    let env = fs::read_to_string(supervisor.env()).unwrap();
    let quota = "REVERB_APP_MAX_CONNECTIONS=1\n";
    fs::write(supervisor.env(), env + quota).unwrap();
    assert!(supervisor.says("signal HUP resound", "resound: signalled"));
    eventually("the quota is there", || {
        let mut other = Client::open(&supervisor, &format!("/app/{KEY}"), &[]);
        other.next_json()["event"] == "pusher:error"
    });
    client.expect_alive();
    assert_eq!(supervisor.pid(), pid);
    let log = supervisor.log();
    assert!(log.contains("max_connections"), "{log}");
}

/// With a drain, which one node has only if it is asked for.
#[test]
fn supervisor_waits_until_it_has_drained() {
    let drain = "RESOUND_DRAIN_PAUSE=1\nRESOUND_DRAIN_SECONDS=2\n";
    let supervisor = Supervisor::start("", drain);
    let mut clients = [0; 4].map(|_| Client::connect(&supervisor));
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| supervisor.ctl("stop resound"));
        eventually("it drains", || {
            let mut http = Http::connect(&supervisor);
            http.request("GET", "/ready", "").status == 503
        });
        let ready = Http::connect(&supervisor).request("GET", "/ready", "");
        assert_eq!(parsed(&ready)["lifecycle"], "draining");
        for client in &mut clients {
            let Message::Close(Some(frame)) = client.next() else {
                panic!("no close frame")
            };
            assert_eq!(u16::from(frame.code), 4200, "{frame}");
            // Its answer, and the end.
            assert!(client.socket.read().is_err());
        }
        assert_eq!(stop.join().unwrap().trim(), "resound: stopped");
    });
    let took = begin.elapsed();
    assert!(
        took > Duration::from_secs(1) && took < stop_wait(),
        "{took:?}"
    );
    let said = supervisor.running.log();
    assert!(said.contains("stopped: resound (exit status 0)"), "{said}");
    assert!(supervisor.says("status", "STOPPED"));
}

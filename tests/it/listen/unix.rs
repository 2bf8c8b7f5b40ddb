//! A Unix socket.

use std::fs;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use super::{Running, command};
use crate::support::{Client, Http, KEY, PATIENCE};

pub(super) const ONLY: [&str; 4] = ["--host", "off", "--socket", "r.sock"];

fn stream(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

pub(super) fn client(path: &Path) -> Client {
    let mut client = Client::over(Box::new(stream(path)), &format!("/app/{KEY}"), &[]);
    client.established();
    client
}

pub(super) fn http(path: &Path) -> Http {
    Http::over(TcpStream::from(OwnedFd::from(stream(path))))
}

/// What it says if it does not start.
fn refused(dir: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let mut command = command(dir, arguments);
    let output = command.envs(variables.iter().copied()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn clients_and_publishes_come_through_it_and_meet_those_of_the_port() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.sock");
    let flags = ["--host", "127.0.0.1", "--port", "0", "--socket", "r.sock"];
    let mut command = command(dir.path(), &flags);
    command.args(["--debug"]);
    let mut server = Running::start(command);
    let at = super::Place(server.places()[0]);
    let mut clients: Vec<Client> = (0..4).map(|_| client(&path)).collect();
    clients.extend((0..4).map(|_| Client::connect(&at)));
    for client in &mut clients {
        client.subscribe("private-a");
    }
    let event = r#"{"event":"ev","data":"x","channel":"private-a"}"#;
    http(&path).publish(&["private-a"], "ev", "x");
    Http::connect(&at).publish(&["private-a"], "ev", "x");
    for client in &mut clients {
        client.expect(event);
        client.expect(event);
    }
    let typing = r#"{"event":"client-typing","channel":"private-a","data":{}}"#;
    clients[0].send(typing);
    clients[1..]
        .iter_mut()
        .for_each(|client| client.expect(typing));
    server.logged("answered peer=127.0.0.1 status=101");
    let id = server.child.id().to_string();
    Command::new("kill").args(["-TERM", &id]).status().unwrap();
    for client in &mut clients {
        client.closed_with(1001, "Server is shutting down");
    }
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

/// More than the kernel takes, to a client that reads late.
#[test]
fn what_waits_for_a_late_reader_arrives_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Running::start(command(dir.path(), &ONLY));
    let path = dir.path().join("r.sock");
    let mut clients: Vec<Client> = (0..4).map(|_| client(&path)).collect();
    clients
        .iter_mut()
        .for_each(|client| client.subscribe("lobby"));
    let data = "x".repeat(50_000);
    let mut publisher = http(&path);
    for _ in 0..40 {
        publisher.publish(&["lobby"], "ev", &data);
    }
    let event = format!(r#"{{"event":"ev","data":"{data}","channel":"lobby"}}"#);
    for client in &mut clients {
        (0..40).for_each(|_| client.expect(&event));
        client.expect_alive();
    }
    drop(clients);
    server.stop();
}

#[test]
fn its_file_has_the_permissions_and_the_group_that_were_asked_for_and_goes_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.sock");
    let own = fs::metadata(dir.path()).unwrap().gid().to_string();
    for (umask, variables, mode) in [
        ("000", &[][..], 0o660),
        ("077", &[("RESOUND_SOCKET_MODE", "0666")], 0o666),
        ("022", &[("RESOUND_SOCKET_MODE", "600")], 0o600),
        ("022", &[("RESOUND_SOCKET_GROUP", &*own)], 0o660),
    ] {
        let server = command(dir.path(), &ONLY);
        let mut shell = Command::new("sh");
        let program = env!("CARGO_BIN_EXE_resound");
        shell
            .args(["-c", &format!("umask {umask}; exec {program} \"$@\""), "sh"])
            .args(server.get_args())
            .current_dir(dir.path())
            .env_clear()
            .envs(
                server
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .envs(variables.iter().copied());
        let mut server = Running::start(shell);
        let found = fs::symlink_metadata(&path).unwrap();
        assert!(found.file_type().is_socket());
        assert_eq!(found.permissions().mode() & 0o777, mode, "{umask}");
        client(&path).expect_alive();
        server.stop();
        assert!(!path.exists(), "it is left");
    }
}

/// Needs a user that may give a file to any group.
#[test]
fn a_group_is_found_by_its_name_and_by_its_number() {
    let id = Command::new("id").arg("-u").output().unwrap();
    if id.stdout != b"0\n" {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (group, number) in [("daemon", 1), ("54321", 54321)] {
        let mut server = command(dir.path(), &ONLY);
        server.env("RESOUND_SOCKET_GROUP", group);
        let mut server = Running::start(server);
        let found = fs::symlink_metadata(dir.path().join("r.sock")).unwrap();
        assert_eq!(found.gid(), number);
        server.stop();
    }
}

#[test]
fn what_a_dead_server_has_left_is_replaced_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.sock");
    let mut killed = Running::start(command(dir.path(), &ONLY));
    killed.child.kill().unwrap();
    killed.child.wait().unwrap();
    assert!(path.exists());
    let mut server = Running::start(command(dir.path(), &ONLY));
    client(&path).expect_alive();

    let alive = refused(dir.path(), &ONLY, &[]);
    assert!(
        alive.contains("cannot listen on r.sock: another server listens there"),
        "{alive}"
    );
    client(&path).expect_alive();
    server.stop();

    // Somebody who does not accept is alive, too, however many wait for it.
    let other = UnixListener::bind(&path).unwrap();
    assert!(refused(dir.path(), &ONLY, &[]).contains("another server listens there"));
    drop(other);
    fs::remove_file(&path).unwrap();
    let datagrams = UnixDatagram::bind(&path).unwrap();
    assert!(refused(dir.path(), &ONLY, &[]).contains("another server listens there"));
    drop(datagrams);
    fs::remove_file(&path).unwrap();

    fs::write(&path, "precious").unwrap();
    let file = refused(dir.path(), &ONLY, &[]);
    assert!(
        file.contains(
            "cannot listen on r.sock: something is there that is no socket, and is left alone"
        ),
        "{file}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("elsewhere", &path).unwrap();
    assert!(refused(dir.path(), &ONLY, &[]).contains("no socket"));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(refused(dir.path(), &ONLY, &[]).contains("no socket"));
}

#[test]
fn a_file_that_somebody_else_has_put_there_meanwhile_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.sock");
    let mut server = Running::start(command(dir.path(), &ONLY));
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    server.stop();
    UnixStream::connect(&path).unwrap();
}

#[test]
fn a_start_that_fails_leaves_no_socket() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--host", "192.0.2.1", "--socket", "r.sock"];
    assert!(refused(dir.path(), &flags, &[]).contains("cannot listen on 192.0.2.1:8080"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let metrics = [("RESOUND_METRICS_PORT", &*port)];
    assert!(refused(dir.path(), &ONLY, &metrics).contains("(for metrics)"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_directory_that_is_missing_or_forbidden_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let missing = refused(
        dir.path(),
        &["--host", "off", "--socket", "no/such/r.sock"],
        &[],
    );
    assert!(
        missing.contains("cannot listen on no/such/r.sock: No such file or directory (os error 2); its directory has to be there"),
        "{missing}"
    );
    // Not even root makes files there.
    let forbidden = refused(
        dir.path(),
        &["--host", "off", "--socket", "/proc/1/r.sock"],
        &[],
    );
    assert!(
        forbidden.contains("cannot listen on /proc/1/r.sock: "),
        "{forbidden}"
    );
}

//! What is said of changed files, and that those that cannot be used do no harm.

use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::*;
use crate::config::{TlsFiles, TlsVersion};

/// The log of a test.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Watched {
    dir: tempfile::TempDir,
    live: Live,
    watcher: Watcher,
    log: Log,
    _logging: tracing::subscriber::DefaultGuard,
}

impl Watched {
    fn start() -> Self {
        Self::start_with(2999)
    }

    /// With a certificate that ends in this year.
    fn start_with(year: i32) -> Self {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        let _logging = tracing::subscriber::set_default(subscriber);
        let dir = tempfile::tempdir().unwrap();
        write_pair(dir.path(), year);
        let settings = Tls {
            files: vec![TlsFiles {
                cert: dir.path().join("cert.pem"),
                key: dir.path().join("key.pem"),
            }],
            port: None,
            min_version: TlsVersion::V1_2,
            client_ca: None,
            ticket_keys: Vec::new(),
        };
        let live = Live::new(Some(&settings)).ok().unwrap();
        Self {
            dir,
            live,
            watcher: Watcher::new(),
            log,
            _logging,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Looks so often. Returns the lines that were logged, and whether others are served.
    fn look(&mut self, times: usize) -> (Vec<String>, bool) {
        let before = self.live.loaded().unwrap();
        for _ in 0..times {
            self.watcher.look(&self.live);
        }
        let mut log = self.log.0.lock().unwrap();
        let lines = String::from_utf8(std::mem::take(&mut *log)).unwrap();
        let after = self.live.loaded().unwrap();
        let lines = lines.lines().map(str::to_owned).collect();
        (lines, !Arc::ptr_eq(&before, &after))
    }
}

/// A certificate that is valid from 2019 until this year, and its key, as PEM.
fn pair(last: i32) -> (String, String) {
    let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2019, 1, 1);
    params.not_after = date_time_ymd(last, 1, 1);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn write_pair(dir: &Path, last: i32) {
    let (cert, key) = pair(last);
    std::fs::write(dir.join("cert.pem"), cert).unwrap();
    std::fs::write(dir.join("key.pem"), key).unwrap();
}

#[test]
fn a_change_is_loaded_once_it_is_over() {
    let mut watched = Watched::start();
    assert_eq!(watched.look(3), (vec![], false));
    write_pair(watched.dir.path(), 2998);
    assert_eq!(watched.look(1), (vec![], false), "it may go on");
    write_pair(watched.dir.path(), 2997);
    assert_eq!(watched.look(1), (vec![], false), "it goes on");
    let (lines, is_changed) = watched.look(1);
    assert!(is_changed);
    assert_eq!(lines.len(), 1, "{lines:?}");
    let end = "cert.pem names=\"a.example\" not_after=2997-01-01T00:00:00Z";
    assert!(lines[0].contains(" INFO "), "{lines:?}");
    assert!(
        lines[0].contains("certificate loaded") && lines[0].contains(end),
        "{lines:?}"
    );
    assert_eq!(watched.look(3), (vec![], false));
}

#[test]
fn whatever_cannot_be_used_is_told_once_and_does_no_harm() {
    let mut watched = Watched::start();
    let (cert_path, key_path) = (watched.path("cert.pem"), watched.path("key.pem"));
    let (cert, key) = ["cert.pem", "key.pem"]
        .map(|name| std::fs::read_to_string(watched.path(name)).unwrap())
        .into();
    let (other, _) = pair(2999);
    let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let der = pem_to_der(&cert);
    let mismatch = "is not that of the first certificate in ";
    for (new_cert, new_key, text) in [
        (other.as_bytes(), key.as_bytes(), mismatch),
        (
            key.as_bytes(),
            cert.as_bytes(),
            "are server.tls_cert and server.tls_key exchanged?",
        ),
        (
            cert.as_bytes(),
            encrypted.as_bytes(),
            "the private key is encrypted",
        ),
        (b"", key.as_bytes(), "it has no PEM certificate"),
        (cert.as_bytes(), b"", "it has no PEM private key"),
        (
            &cert.as_bytes()[..100],
            key.as_bytes(),
            "server.tls_cert: cannot use ",
        ),
        (&der, key.as_bytes(), "it looks like DER"),
        (b"\0\xff", b"\0\xff", "it has no PEM certificate"),
    ] {
        std::fs::write(&cert_path, new_cert).unwrap();
        std::fs::write(&key_path, new_key).unwrap();
        expect_refused(&mut watched, text);
    }
    for (path, what) in [(&cert_path, "cert"), (&key_path, "key")] {
        std::fs::write(&cert_path, &cert).unwrap();
        std::fs::write(&key_path, &key).unwrap();
        std::fs::remove_file(path).unwrap();
        expect_refused(&mut watched, &format!("server.tls_{what}: cannot use "));
        std::fs::create_dir(path).unwrap();
        expect_refused(&mut watched, "Is a directory (os error 21)");
        std::fs::remove_dir(path).unwrap();
    }
    write_pair(watched.dir.path(), 2998);
    let (lines, is_changed) = watched.look(3);
    assert!(is_changed && lines.len() == 1, "{lines:?}");
}

/// Only the first lines of a cause are written at once, and here are more of them.
fn expect_refused(watched: &mut Watched, text: &str) {
    let (lines, is_changed) = watched.look(5);
    assert!(!is_changed, "{text}");
    assert!(watched.watcher.refused.is_some(), "{text}");
    assert!(lines.len() <= 1, "{lines:?}");
    if let Some(line) = lines.first() {
        let said = "WARN resound::server::tls::watch: changed certificates or keys cannot be used; going on with those before";
        assert!(line.contains(said), "{line}");
        assert!(line.contains(text), "{text}: {line}");
    }
    let settings = &watched.live.loaded().unwrap().settings;
    let error = watched.live.load(settings).err().unwrap().to_string();
    assert!(error.contains(text), "{text}: {error}");
}

fn pem_to_der(pem: &str) -> Vec<u8> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(pem.as_bytes())
        .unwrap()
        .to_vec()
}

#[test]
fn the_same_mistake_is_told_again_if_it_was_undone_meanwhile() {
    let mut watched = Watched::start();
    let (here, away) = (watched.path("cert.pem"), watched.path("away.pem"));
    for _ in 0..2 {
        std::fs::rename(&here, &away).unwrap();
        let (lines, is_changed) = watched.look(4);
        assert!(lines.len() == 1 && !is_changed, "{lines:?}");
        std::fs::rename(&away, &here).unwrap();
        watched.look(4);
    }
}

#[test]
fn a_certificate_that_has_expired_does_not_replace_one_that_is_valid() {
    let mut watched = Watched::start();
    write_pair(watched.dir.path(), 2020);
    let (lines, is_changed) = watched.look(4);
    assert!(!is_changed && lines.len() == 1, "{lines:?}");
    let text = "changed certificates or keys cannot be used; going on with those before";
    assert!(
        lines[0].contains(text) && lines[0].contains("expired at 2020"),
        "{lines:?}"
    );
}

#[test]
fn a_certificate_that_has_expired_is_served_with_a_warning_if_there_was_no_other() {
    let mut watched = Watched::start_with(2020);
    write_pair(watched.dir.path(), 2021);
    let (lines, is_changed) = watched.look(2);
    assert!(is_changed && lines.len() == 2, "{lines:?}");
    let text = "cert.pem expired at 2021-01-01T00:00:00Z: clients refuse it; renew it (the new one is loaded without a restart)";
    assert!(
        lines[0].contains("WARN") && lines[0].contains(text),
        "{lines:?}"
    );
    // And every day.
    watched.watcher.reminded = Instant::now().checked_sub(REMIND).unwrap();
    let (lines, _) = watched.look(2);
    assert!(lines.len() == 1 && lines[0].contains(text), "{lines:?}");
}

#[test]
fn who_reads_the_settings_anew_meanwhile_is_not_undone() {
    let mut watched = Watched::start();
    let old = watched.live.loaded().unwrap();
    let new = watched.live.load(&old.settings).ok().unwrap();
    watched.live.replace(new);
    let late = Arc::new(watched.live.load(&old.settings).ok().unwrap());
    assert!(!watched.live.replace_if(&old, &late));
    assert!(!Arc::ptr_eq(&watched.live.loaded().unwrap(), &late));
    assert_eq!(watched.look(3), (vec![], false));
}

#[test]
fn permissions_that_were_given_are_a_change() {
    use std::os::unix::fs::PermissionsExt;
    let watched = Watched::start();
    let before = Stamp::of(&watched.path("key.pem"));
    std::thread::sleep(Duration::from_millis(20));
    let permissions = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(watched.path("key.pem"), permissions).unwrap();
    assert_ne!(Stamp::of(&watched.path("key.pem")), before);
}

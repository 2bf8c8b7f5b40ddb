//! Files that cannot be used, and what is said of each.

use std::os::unix::fs::PermissionsExt;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::*;

struct Made {
    dir: tempfile::TempDir,
    settings: Tls,
}

/// Writes these texts as the two files.
fn made(cert: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Made {
    let dir = tempfile::tempdir().unwrap();
    let files = TlsFiles {
        cert: dir.path().join("cert.pem"),
        key: dir.path().join("key.pem"),
    };
    std::fs::write(&files.cert, cert).unwrap();
    std::fs::write(&files.key, key).unwrap();
    let settings = Tls {
        files: vec![files],
        port: None,
        min_version: TlsVersion::V1_2,
        client_ca: None,
        ticket_keys: Vec::new(),
    };
    Made { dir, settings }
}

fn loaded(settings: &Tls) -> Result<Loaded, TlsError> {
    load(settings, &Arc::new(Tickets::new()))
}

/// What is said of files that cannot be used.
fn refused(settings: &Tls) -> String {
    loaded(settings).err().unwrap().to_string()
}

/// A certificate that is valid in these years, and its key.
fn pair(first: i32, last: i32) -> (String, KeyPair) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = date_time_ymd(first, 1, 1);
    params.not_after = date_time_ymd(last, 1, 1);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key)
}

#[test]
fn certificates_that_are_not_valid_now_are_warned_of() {
    let (valid, key) = pair(2020, 2999);
    let (old, old_key) = pair(2019, 2020);
    let (future, future_key) = pair(2998, 2999);
    for (cert, key, expected) in [
        (valid.clone(), &key, None),
        (
            old.clone(),
            &old_key,
            Some("cert.pem expired at 2020-01-01T00:00:00Z: clients refuse it"),
        ),
        (
            future,
            &future_key,
            Some("cert.pem is valid only from 2998-01-01T00:00:00Z"),
        ),
        (
            valid + &old,
            &key,
            Some("certificate 2 (of an authority) in"),
        ),
    ] {
        let made = made(cert, key.serialize_pem());
        let warnings = loaded(&made.settings).ok().unwrap().warnings;
        assert_eq!(
            warnings.len(),
            usize::from(expected.is_some()),
            "{warnings:?}"
        );
        if let Some(text) = expected {
            assert!(warnings[0].contains(text), "{warnings:?}");
        }
        drop(made.dir);
    }
}

fn expect_refused(cases: &[(&[u8], &[u8], &[&str])]) {
    for (cert, key, texts) in cases {
        let error = refused(&made(cert, key).settings);
        for text in *texts {
            assert!(error.contains(text), "{text}: {error}");
        }
    }
}

#[test]
fn a_certificate_that_cannot_be_used_is_reported_with_what_to_do() {
    let (cert, key) = pair(2020, 2999);
    let (other, _) = pair(2020, 2999);
    let pem = key.serialize_pem();
    let request = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n";
    let exchanged =
        "no PEM certificate, but a private key; are server.tls_cert and server.tls_key exchanged?";
    let der = "no PEM certificate; it looks like DER: openssl x509";
    let mismatch = "key.pem is not that of the first certificate in ";
    let one: CertificateDer<'_> = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
    expect_refused(&[
        (
            pem.as_bytes(),
            pem.as_bytes(),
            &["server.tls_cert: cannot use ", exchanged],
        ),
        (other.as_bytes(), pem.as_bytes(), &[mismatch, "comes first"]),
        // In the wrong order.
        (
            (other.clone() + &cert).as_bytes(),
            pem.as_bytes(),
            &[mismatch],
        ),
        (&one, pem.as_bytes(), &[der]),
        (
            request.as_bytes(),
            pem.as_bytes(),
            &["no PEM certificate, but a request for one"],
        ),
        (
            b"",
            pem.as_bytes(),
            &["cert.pem: it has no PEM certificate"],
        ),
    ]);
}

#[test]
fn a_key_that_cannot_be_used_is_reported_with_what_to_do() {
    let (cert, key) = pair(2020, 2999);
    let cert = cert.as_bytes();
    let pkcs8 = key
        .serialize_pem()
        .replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let older = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n\
                 -----END RSA PRIVATE KEY-----\n";
    let encrypted = "key.pem: the private key is encrypted";
    let exchanged =
        "no PEM private key, but a certificate; are server.tls_cert and server.tls_key exchanged?";
    let der = "no PEM private key; it looks like DER: openssl pkey";
    expect_refused(&[
        (
            cert,
            pkcs8.as_bytes(),
            &[
                "server.tls_key: cannot use ",
                encrypted,
                "openssl pkey -in ",
            ],
        ),
        (cert, older.as_bytes(), &[encrypted]),
        (cert, cert, &["server.tls_key: cannot use ", exchanged]),
        (cert, &key.serialize_der(), &[der]),
        (cert, b"", &["key.pem: it has no PEM private key"]),
    ]);
}

#[test]
fn files_that_cannot_be_read_are_reported() {
    let (cert, key) = pair(2020, 2999);
    let made = made(cert, key.serialize_pem());
    let pair = made.settings.files[0].clone();
    let missing = made.dir.path().join("none.pem");
    let pipe = made.dir.path().join("pipe.pem");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).unwrap();
    let big = made.dir.path().join("big.pem");
    std::fs::write(&big, vec![b'x'; (1 << 20) + 1]).unwrap();
    for (path, text) in [
        (missing, "No such file or directory (os error 2)"),
        (made.dir.path().to_owned(), "Is a directory (os error 21)"),
        (big, "it has more than 1 MiB"),
        (pipe, "it is no file"),
    ] {
        let expected =
            |what: &str| format!("server.tls_{what}: cannot use {}: {text}", path.display());
        let mut settings = made.settings.clone();
        settings.files[0].cert = path.clone();
        assert_eq!(refused(&settings), expected("cert"));
        settings.files[0] = pair.clone();
        settings.files[0].key = path.clone();
        assert_eq!(refused(&settings), expected("key"));
        settings.files[0] = pair.clone();
        settings.client_ca = Some(path.clone());
        assert_eq!(refused(&settings), expected("client_ca"));
        settings.client_ca = None;
        settings.ticket_keys = vec![path.clone()];
        assert_eq!(refused(&settings), expected("ticket_keys"));
    }
    std::fs::set_permissions(&pair.key, std::fs::Permissions::from_mode(0o000)).unwrap();
    // Who may read everything can read this, too.
    if std::fs::read(&pair.key).is_err() {
        let error = refused(&made.settings);
        let text = "Permission denied (os error 13); the user that the server runs as has to be able to read it";
        assert!(error.ends_with(text), "{error}");
    }
}

#[test]
fn a_file_that_is_cut_off_is_said_to_be_so() {
    let (cert, key) = pair(2020, 2999);
    let made = made(cert, key.serialize_pem());
    let files = &made.settings.files[0];
    let cut = |path: &std::path::Path| {
        let text = std::fs::read_to_string(path).unwrap();
        std::fs::write(path, &text[..text.len() / 2]).unwrap();
        let error = refused(&made.settings);
        std::fs::write(path, text).unwrap();
        let end = "it ends in the middle of a PEM section; is it cut off?";
        assert!(error.ends_with(end), "{error}");
    };
    cut(&files.cert);
    cut(&files.key);
    assert!(loaded(&made.settings).is_ok());
}

#[test]
fn of_several_the_file_is_named_that_cannot_be_used() {
    let (cert, key) = pair(2020, 2999);
    let good = made(cert, key.serialize_pem());
    let (cert, _) = pair(2020, 2999);
    let bad = made(cert, key.serialize_pem());
    let mut settings = good.settings;
    settings.files.extend(bad.settings.files.clone());
    let error = refused(&settings);
    let place = bad.dir.path().display().to_string();
    assert!(error.matches(&place).count() == 2, "{error}");
    assert!(
        error.contains("is not that of the first certificate in"),
        "{error}"
    );
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    std::fs::write(&settings.files[1].cert, broken).unwrap();
    let error = refused(&settings);
    assert!(
        error.starts_with(&format!(
            "server.tls_cert and server.tls_key: cannot use {place}"
        )),
        "{error}"
    );
}

#[test]
fn authorities_and_ticket_keys_that_cannot_be_used_are_reported_with_what_to_do() {
    let (cert, key) = pair(2020, 2999);
    let made = made(cert, key.serialize_pem());
    let mut settings = made.settings.clone();
    settings.client_ca = Some(settings.files[0].key.clone());
    let error = refused(&settings);
    assert!(
        error.starts_with("server.tls_client_ca: cannot use "),
        "{error}"
    );
    assert!(error.ends_with("it has no PEM certificate"), "{error}");
    settings.client_ca = None;
    let file = made.dir.path().join("ticket.key");
    for size in [0, 32, 47, 64, 79, 81] {
        std::fs::write(&file, vec![7; size]).unwrap();
        settings.ticket_keys = vec![file.clone()];
        let path = file.display();
        assert_eq!(
            refused(&settings),
            format!(
                "server.tls_ticket_keys: cannot use {path}: it has {size} bytes; expected 80 or 48 random ones: \
                 openssl rand 80 > ticket.key"
            )
        );
    }
    std::fs::write(&file, [7; 48]).unwrap();
    assert!(loaded(&settings).is_ok());
}

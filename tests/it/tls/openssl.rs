//! Certificates in files, and a client that is none of ours.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::support::At;

/// A certificate and its key in files.
#[derive(Clone)]
pub(crate) struct Files {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Files {
    /// Its own authority, for these names.
    pub(crate) fn make(dir: &Path, name: &str, hosts: &[&str]) -> Self {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let made = CertificateParams::new(hosts).unwrap().self_signed(&key);
        Self::write(dir, name, &made.unwrap().pem(), &key)
    }

    fn write(dir: &Path, name: &str, cert: &str, key: &KeyPair) -> Self {
        let files = Self {
            cert: dir.join(format!("{name}.pem")),
            key: dir.join(format!("{name}.key")),
        };
        std::fs::write(&files.cert, cert).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    pub(crate) fn cert(&self) -> &str {
        self.cert.to_str().unwrap()
    }

    pub(crate) fn key(&self) -> &str {
        self.key.to_str().unwrap()
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.cert).unwrap()
    }
}

/// An authority's certificate, and one for a client that it has signed.
pub(crate) fn authority(dir: &Path, name: &str) -> (PathBuf, Files) {
    let (path, [client, _]) = authority_of_two(dir, name);
    (path, client)
}

/// The same, with another one for a client, which has expired.
pub(crate) fn authority_of_two(dir: &Path, name: &str) -> (PathBuf, [Files; 2]) {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let path = dir.join(format!("{name}.ca"));
    std::fs::write(&path, params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let clients = [(name.to_owned(), 2999), (format!("{name}-expired"), 2020)];
    let clients = clients.map(|(name, year)| {
        let key = KeyPair::generate().unwrap();
        let mut client = CertificateParams::new(vec!["client.example".to_owned()]).unwrap();
        client.not_after = rcgen::date_time_ymd(year, 1, 1);
        let client = client.signed_by(&key, &issuer).unwrap().pem();
        Files::write(dir, &name, &client, &key)
    });
    (path, clients)
}

/// What `openssl s_client` says, which asks for `/up`.
pub(crate) fn s_client(at: &impl At, arguments: &[&str]) -> String {
    let mut child = Command::new("openssl")
        .args([
            "s_client",
            "-ign_eof",
            "-connect",
            &at.address().to_string(),
        ])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let request = "GET /up HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    // If it is refused, it has ended.
    let _ = child.stdin.take().unwrap().write_all(request.as_bytes());
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).into_owned()
}

/// The certificate that the server shows to who asks for this name.
pub(crate) fn shown(at: &impl At, name: Option<&str>) -> CertificateDer<'static> {
    let name = name.map_or(vec!["-noservername"], |name| vec!["-servername", name]);
    let said = s_client(at, &name);
    assert!(said.contains("HTTP/1.1 200"), "{said}");
    CertificateDer::from_pem_slice(said.as_bytes()).unwrap()
}

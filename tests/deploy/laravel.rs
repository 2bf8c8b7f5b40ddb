//! What stands in for Laravel: it answers with the request that it got.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::front::Front;

/// The kinds of records that are needed (FastCGI 1.0, section 8).
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;

/// An application on this machine.
pub(crate) struct Installed {
    pub(crate) public: PathBuf,
    /// Of php-fpm.
    pub(crate) socket: PathBuf,
}

/// One in this folder, whose php-fpm listens as long as the process lives.
pub(crate) fn installed(folder: &Path) -> Installed {
    let public = folder.join("public");
    std::fs::create_dir(&public).unwrap();
    std::fs::write(public.join("index.php"), "<?php").unwrap();
    std::fs::write(public.join("robots.txt"), "of Laravel").unwrap();
    let socket = folder.join("php-fpm.sock");
    php_fpm(&socket);
    Installed { public, socket }
}

fn php_fpm(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // Proxies hang up as they like.
            let _ = serve(&mut stream.unwrap());
        }
    });
}

/// As an application that serves HTTP, listens as long as the process lives.
pub(crate) fn http() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let line = lines.next().unwrap().unwrap();
            while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            let mut words = line.split(' ');
            let mut word = || words.next().unwrap();
            let body = answer(word(), word());
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}", body.len());
            // Proxies hang up as they like.
            let _ = write!(stream, "{head}\r\nConnection: close\r\n\r\n{body}");
        }
    });
    address
}

/// What is Laravel's wherever it shares a host with Resound.
const OWN: [&str; 9] = [
    "/",
    "/up",
    "/app",
    "/app/dashboard",
    "/app/another-key",
    "/apps",
    "/apps/another-id/events",
    "/broadcasting/auth",
    "/orders?page=2",
];

/// It gets these, and more that are its own behind some proxies.
pub(crate) fn check_routes(front: &Front, more: &[&str]) {
    for uri in OWN.iter().chain(more) {
        let got = front.get(uri);
        assert_eq!((got.status, got.body), (200, answer("GET", uri)));
    }
}

/// What it says to a request.
fn answer(method: &str, uri: &str) -> String {
    format!("Laravel got {method} {uri}")
}

/// One request; nginx asks for no more on a connection.
fn serve(stream: &mut (impl Read + Write)) -> io::Result<()> {
    let mut params = Vec::new();
    loop {
        let (kind, content) = record(stream)?;
        match kind {
            PARAMS => params.extend(content),
            STDIN if content.is_empty() => break,
            _ => {}
        }
    }
    let value = |name: &str| pairs(&params).into_iter().find(|pair| pair.0 == name);
    let [method, uri, script] = ["REQUEST_METHOD", "REQUEST_URI", "SCRIPT_FILENAME"]
        .map(|name| value(name).map_or_else(String::new, |pair| pair.1));
    assert!(script.ends_with("/public/index.php"), "{script}");
    let body = answer(&method, &uri);
    let head = format!(
        "Status: 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&framed(STDOUT, format!("{head}{body}").as_bytes()))?;
    stream.write_all(&framed(STDOUT, b""))?;
    stream.write_all(&framed(END_REQUEST, &[0; 8]))
}

fn record(stream: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 8];
    stream.read_exact(&mut head)?;
    let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
    let mut content = vec![0; length + usize::from(head[6])];
    stream.read_exact(&mut content)?;
    content.truncate(length);
    Ok((head[1], content))
}

/// Of request 1, as all of nginx's are.
fn framed(kind: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[1, kind, 0, 1, high, low, 0, 0], content].concat()
}

/// Names and values, each with its length before: one byte, or four with the highest bit set.
fn pairs(mut params: &[u8]) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    while !params.is_empty() {
        let mut length = || {
            let (bytes, rest) = params.split_at(if params[0] < 0x80 { 1 } else { 4 });
            params = rest;
            let number = bytes
                .iter()
                .fold(0, |number, byte| number << 8 | usize::from(*byte));
            number & 0x7fff_ffff
        };
        let lengths = [length(), length()];
        let mut text = |length| {
            let (text, rest) = params.split_at(length);
            params = rest;
            String::from_utf8_lossy(text).into_owned()
        };
        pairs.push((text(lengths[0]), text(lengths[1])));
    }
    pairs
}

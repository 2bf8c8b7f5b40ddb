//! Handshakes, and streams over TCP.

use std::io::{self, Read, Write};
use std::mem;
use std::net::Shutdown;
use std::sync::Arc;
use std::thread;

use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Error, HandshakeKind, InvalidMessage,
    StreamOwned,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime;

use super::{Ends, VERSIONS, client, ends, text};
use crate::tls::{Parts, TlsStream};

/// Runs a client on a thread of its own, and what the server does with its connection.
fn over_tcp<C: Send + 'static, S>(
    ends: &Ends,
    client: impl FnOnce(std::net::TcpStream) -> C + Send + 'static,
    server: impl AsyncFnOnce(io::Result<TlsStream>) -> S,
) -> (C, S) {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = thread::spawn(move || client(std::net::TcpStream::connect(address).unwrap()));
        let (tcp, _) = listener.accept().await.unwrap();
        let accepted = match ends.acceptor.accept(tcp).await {
            Ok(stream) => Ok(stream),
            Err(mut failed) => {
                let error = mem::replace(&mut failed.error, io::ErrorKind::Other.into());
                failed.tell().await;
                Err(error)
            }
        };
        let served = server(accepted).await;
        // What waits for the client must not keep the server from what it does next.
        let client = tokio::task::spawn_blocking(|| client.join().unwrap());
        (client.await.unwrap(), served)
    })
}

type ClientStream = StreamOwned<ClientConnection, std::net::TcpStream>;

fn connected(config: Arc<ClientConfig>, tcp: std::net::TcpStream) -> ClientStream {
    StreamOwned::new(client(config), tcp)
}

#[test]
fn streams_carry_much_in_both_directions_and_end_with_close_notify() {
    let ends = ends();
    for version in VERSIONS {
        let config = ends.client_config(version);
        let client = move |tcp: std::net::TcpStream| {
            let mut stream = connected(config, tcp);
            stream.write_all(&text(3_000_000)).unwrap();
            stream.flush().unwrap();
            let mut got = Vec::new();
            // An end without close_notify would be an error.
            stream.read_to_end(&mut got).unwrap();
            stream.conn.send_close_notify();
            stream.flush().unwrap();
            got
        };
        let (got, ()) = over_tcp(&ends, client, async |stream| {
            let mut stream = stream.unwrap();
            let mut asked = vec![0; 3_000_000];
            stream.read_exact(&mut asked).await.unwrap();
            assert_eq!(asked, text(3_000_000));
            stream.write_all(&text(2_000_000)).await.unwrap();
            stream.shutdown().await.unwrap();
            assert_eq!(stream.read(&mut [0; 9]).await.unwrap(), 0);
        });
        assert_eq!(got, text(2_000_000));
    }
}

#[test]
fn a_client_that_sends_byte_by_byte_is_understood() {
    let ends = ends();
    for version in VERSIONS {
        let config = ends.client_config(version);
        let client = move |mut tcp: std::net::TcpStream| {
            let mut session = client(config);
            tcp.set_nodelay(true).unwrap();
            session.writer().write_all(b"hello").unwrap();
            loop {
                for byte in super::written(&mut session) {
                    tcp.write_all(&[byte]).unwrap();
                }
                let mut got = [0; 7];
                match session.reader().read(&mut got) {
                    Ok(count) if count > 0 => return got.to_vec(),
                    _ => {}
                }
                session.read_tls(&mut tcp).unwrap();
                session.process_new_packets().unwrap();
            }
        };
        let (got, ()) = over_tcp(&ends, client, async |stream| {
            let mut stream = stream.unwrap();
            let mut asked = [0; 5];
            stream.read_exact(&mut asked).await.unwrap();
            stream.write_all(b"welcome").await.unwrap();
            stream.flush().await.unwrap();
        });
        assert_eq!(got, b"welcome");
    }
}

#[test]
fn what_came_with_the_handshake_and_what_was_not_read_go_on() {
    let ends = ends();
    for version in VERSIONS {
        let config = ends.client_config(version);
        let client = move |tcp: std::net::TcpStream| {
            let mut stream = connected(config, tcp);
            stream.write_all(b"one two").unwrap();
            stream.flush().unwrap();
            let _ = stream.read(&mut [0; 9]);
        };
        over_tcp(&ends, client, async |stream| {
            let mut stream = stream.unwrap();
            let mut word = [0; 3];
            stream.read_exact(&mut word).await.unwrap();
            let Parts { unread, tcp, .. } = stream.into_parts();
            assert_eq!((&word, &unread[..]), (b"one", &b" two"[..]));
            drop(tcp);
        });
    }
}

#[test]
fn sessions_are_resumed() {
    let ends = ends();
    for version in VERSIONS {
        let config = ends.client_config(version);
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let config = Arc::clone(&config);
            let client = move |tcp: std::net::TcpStream| {
                let mut stream = connected(config, tcp);
                // The tickets came before that.
                assert_eq!(stream.read(&mut [0; 9]).unwrap(), 0);
                stream.conn.handshake_kind().unwrap()
            };
            let (kind, ()) = over_tcp(&ends, client, async |stream| {
                stream.unwrap().shutdown().await.unwrap();
            });
            assert_eq!(kind, expected);
        }
    }
}

#[test]
fn what_is_no_handshake_is_answered_with_an_alert() {
    let ends = ends();
    // More than is read of it before it is refused.
    let long = [b"GET /up HTTP/1.1\r\n", "x: y\r\n".repeat(3000).as_bytes()].concat();
    let long: &'static [u8] = long.leak();
    let cases: [(&[u8], _); 4] = [
        (
            b"GET /up HTTP/1.1\r\n\r\n",
            InvalidMessage::InvalidContentType,
        ),
        (long, InvalidMessage::InvalidContentType),
        (&[22, 9, 9, 0, 5], InvalidMessage::UnknownProtocolVersion),
        (&[22, 3, 1, 0xff, 0], InvalidMessage::MessageTooLarge),
    ];
    for (bytes, expected) in cases {
        let client = move |mut tcp: std::net::TcpStream| {
            tcp.write_all(bytes).unwrap();
            let mut got = Vec::new();
            tcp.read_to_end(&mut got).unwrap();
            got
        };
        let (got, error) = over_tcp(&ends, client, async |stream| stream.err().unwrap());
        let decode_error = u8::from(AlertDescription::DecodeError);
        assert_eq!(got, [21, 3, 3, 0, 2, 2, decode_error]);
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let error = error.into_inner().unwrap().downcast::<Error>().unwrap();
        assert_eq!(*error, Error::InvalidMessage(expected));
    }
}

#[test]
fn handshakes_that_stop_or_do_not_end_are_given_up() {
    let ends = ends();
    // Beginnings of a ClientHello, of which one says that it is longer than anybody's.
    let begun: [&[u8]; 4] = [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01", &[22, 3, 1]];
    for bytes in begun {
        let client = move |mut tcp: std::net::TcpStream| {
            tcp.write_all(bytes).unwrap();
            tcp.shutdown(Shutdown::Write).unwrap();
            tcp.read_to_end(&mut Vec::new())
        };
        let (_, error) = over_tcp(&ends, client, async |stream| stream.err().unwrap());
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
    let endless = |mut tcp: std::net::TcpStream| {
        // A message of 60 kB, a byte in each record.
        let mut record = vec![22, 3, 1, 0, 4, 1, 0, 0xea, 0x60];
        while tcp.write_all(&record).is_ok() {
            record = [22, 3, 1, 0, 1, 0].repeat(1000);
        }
    };
    let ((), error) = over_tcp(&ends, endless, async |stream| stream.err().unwrap());
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[test]
fn an_end_without_close_notify_is_an_error() {
    let ends = ends();
    for version in VERSIONS {
        let config = ends.client_config(version);
        let client = move |tcp: std::net::TcpStream| {
            let mut stream = connected(config, tcp);
            stream.write_all(b"hello").unwrap();
            stream.flush().unwrap();
            // Left unread, tickets would have the kernel reset the connection.
            stream.sock.shutdown(Shutdown::Write).unwrap();
            stream.sock.read_to_end(&mut Vec::new()).unwrap();
        };
        let ((), got) = over_tcp(&ends, client, async |stream| {
            let mut got = Vec::new();
            let error = stream.unwrap().read_to_end(&mut got).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
            got
        });
        assert_eq!(got, b"hello");
    }
}

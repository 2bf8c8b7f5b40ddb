//! Clients with addresses of their own: every address of 127.0.0.0/8 is this machine's.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Client, Http, KEY, PATIENCE};

/// 127.0.0.`number`.
pub(crate) fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, number)
}

/// A TCP connection from 127.0.0.`number`.
pub(crate) fn tcp(number: u8, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let from = SocketAddr::from((address(number), 0));
    socket.bind(&from.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

pub(crate) fn http(number: u8, to: SocketAddr) -> Http {
    Http::over(tcp(number, to))
}

/// A WebSocket that has read nothing yet.
pub(crate) fn open(number: u8, to: SocketAddr, headers: &[(&'static str, &str)]) -> Client {
    Client::over(Box::new(tcp(number, to)), &format!("/app/{KEY}"), headers)
}

/// A WebSocket that is let in.
pub(crate) fn connect(number: u8, to: SocketAddr) -> Client {
    let mut client = open(number, to, &[]);
    client.established();
    client
}

/// Waits until a client is disconnected, with a close frame or without.
pub(crate) fn expect_end(client: &mut Client) {
    while let Ok(message) = client.socket.read() {
        assert!(matches!(message, Message::Close(_)), "{message:?}");
    }
}

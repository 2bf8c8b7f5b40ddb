//! Who a connection and each of its requests come from, when proxies stand in front.

use std::io;
use std::net::SocketAddr;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::{Settings, Shared, log};
use crate::apps::{Counter, ProxyClaim, RequestRefusal};
use crate::proxies::header::{Beginning, Header, HeaderError};
use crate::proxies::{Client, ForwardedHeader};
use crate::worker::ConnectionPermit;

/// Bytes that are looked at in one go.
const GLANCE: usize = 256;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Why a PROXY header could not be read.
enum Failure {
    /// The client has gone before it said anything.
    Gone,
    Socket(io::Error),
    Header(HeaderError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

impl From<HeaderError> for Failure {
    fn from(error: HeaderError) -> Self {
        Self::Header(error)
    }
}

/// Reads a connection's PROXY header, if there may be one, and nothing behind it. Returns who
/// it comes from, whom it counts for then; `None` if it has to be closed.
pub(super) async fn of_connection(
    tcp: &TcpStream,
    peer: SocketAddr,
    permit: &mut ConnectionPermit,
    shared: &Shared,
) -> Option<Client> {
    let settings = shared.settings.load_full();
    let client = Client::direct(peer);
    if !settings.proxies.proxy_protocol {
        return Some(client);
    }
    let is_trusted = settings.proxies.trusted.contains(peer.ip());
    drop(settings);
    let header = match read_header(tcp).await {
        Ok(header) => header,
        Err(failure) => {
            fail(failure, peer, is_trusted, shared);
            return None;
        }
    };
    if !is_trusted {
        if header.is_some() {
            let ignored = Counter::ProxyClaimsIgnored(ProxyClaim::ProxyProtocol);
            shared.apps.unattributed().count(ignored);
            log::proxy_header_ignored(peer);
        }
        return Some(client);
    }
    let source = header.ok_or(HeaderError::Missing);
    match source.and_then(|header| header.source()) {
        Ok(None) => Some(client),
        Ok(Some(address)) => {
            let client = client.with_proxied(address);
            if !permit.count_for(address.ip()) {
                permit.count_dropped();
                log::far_too_many(client);
                return None;
            }
            Some(client)
        }
        Err(error) => {
            fail(error.into(), peer, is_trusted, shared);
            None
        }
    }
}

fn fail(failure: Failure, peer: SocketAddr, is_trusted: bool, shared: &Shared) {
    match failure {
        Failure::Gone => tracing::debug!(%peer, "the client went before its PROXY header"),
        Failure::Socket(error) => tracing::debug!(%peer, %error, "the connection has ended"),
        Failure::Header(error) => {
            shared.count_refusal(RequestRefusal::ProxyHeader);
            log::proxy_header_refused(error, peer, is_trusted);
        }
    }
}

/// The PROXY header that a connection begins with, whole; `None` if it begins with something
/// else, of which nothing is taken. As long as the client lets it take.
async fn read_header(tcp: &TcpStream) -> Result<Option<Header>, Failure> {
    let mut glance = [0; GLANCE];
    let mut seen = 0;
    loop {
        let count = peek(tcp, &mut glance, seen).await?;
        match Beginning::of(&glance[..count]) {
            Beginning::Header => break,
            Beginning::Other => return Ok(None),
            Beginning::Undecided if count == 0 => return Err(Failure::Gone),
            // It has ended with what could have become one.
            Beginning::Undecided if count == seen => return Ok(None),
            Beginning::Undecided => seen = count,
        }
    }
    let mut header = Header::default();
    loop {
        let count = peek(tcp, &mut glance, 0).await?;
        if count == 0 {
            return Err(HeaderError::Truncated.into());
        }
        let own = header.own(&glance[..count])?;
        // They are there, or else they could not be seen.
        let taken = tcp.try_read(&mut glance[..own])?;
        header.push(&glance[..taken]);
        if header.is_whole() {
            return Ok(Some(header));
        }
    }
}

/// Waits until more than `seen` bytes have come, which are not taken, and copies them. Returns
/// how many; no more than `seen` if no more will come.
async fn peek(tcp: &TcpStream, bytes: &mut [u8], seen: usize) -> io::Result<usize> {
    loop {
        let count = tcp.peek(bytes).await?;
        if count > seen || count == 0 {
            return Ok(count);
        }
        if tcp.ready(Interest::READABLE).await?.is_read_closed() {
            // What came before the end may have come since.
            return tcp.peek(bytes).await;
        }
        // What is there has been seen: to be woken only by what comes next.
        let _ = tcp.try_io(Interest::READABLE, || {
            Err::<(), _>(io::ErrorKind::WouldBlock.into())
        });
    }
}

/// Who a request comes from: whoever its connection does, or the client that this one names
/// if it is a trusted proxy.
pub(super) fn of_request(
    connection: Client,
    headers: &HeaderMap,
    settings: &Settings,
    shared: &Shared,
) -> Client {
    let proxies = &settings.proxies;
    let (name, claim) = match proxies.forwarded_header {
        ForwardedHeader::XForwardedFor => (X_FORWARDED_FOR, ProxyClaim::XForwardedFor),
        ForwardedHeader::Forwarded => (header::FORWARDED, ProxyClaim::Forwarded),
    };
    if !headers.contains_key(&name) {
        return connection;
    }
    if !proxies.trusted.contains(connection.address.ip()) {
        let ignored = Counter::ProxyClaimsIgnored(claim);
        shared.apps.unattributed().count(ignored);
        return connection;
    }
    let fields = headers.get_all(&name).iter().map(HeaderValue::as_bytes);
    match proxies.forwarded_header.client(fields, &proxies.trusted) {
        Some(address) => connection.with_forwarded(address),
        None => connection,
    }
}

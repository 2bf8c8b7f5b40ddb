//! The access log: a line of JSON for each publish request, whatever came of it. Never what
//! is published, nor the query, which has the signature in it.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use hyper::http::request::Parts;
use serde_json::Number;
use tracing::Level;

use super::Reply;
use super::request_id::RequestIds;
use crate::apps::AppHandle;
use crate::protocol::ChannelName;
use crate::proxies::Client;
use crate::telemetry::{self, JsonLine};

/// Channels that a line names.
const MAX_NAMES: usize = 10;

/// One publish request while it is served.
#[derive(Debug)]
pub(super) struct Access {
    began: Instant,
    /// Bytes of its body, once it is read.
    bytes: Cell<Option<usize>>,
    events: Cell<usize>,
    channels: Cell<usize>,
    /// The first of them.
    names: RefCell<Vec<ChannelName>>,
    /// Subscribers on this node.
    subscribers: Cell<usize>,
}

impl Access {
    /// For a request that has begun then.
    pub(super) fn new(began: Instant) -> Box<Self> {
        Box::new(Self {
            began,
            bytes: Cell::default(),
            events: Cell::default(),
            channels: Cell::default(),
            names: RefCell::default(),
            subscribers: Cell::default(),
        })
    }

    /// Its body was read.
    pub(super) fn read(&self, bytes: usize) {
        self.bytes.set(Some(bytes));
    }

    /// One of its events was published.
    pub(super) fn published(&self, channels: &[ChannelName], subscribers: usize) {
        self.events.set(self.events.get() + 1);
        self.channels.set(self.channels.get() + channels.len());
        self.subscribers.set(self.subscribers.get() + subscribers);
        let mut names = self.names.borrow_mut();
        for channel in channels {
            if names.len() >= MAX_NAMES {
                return;
            }
            if !names.contains(channel) {
                names.push(channel.clone());
            }
        }
    }

    /// It is answered.
    pub(super) fn end(
        &self,
        (head, ids): (&Parts, &RequestIds<'_>),
        app: Option<&AppHandle>,
        client: Client,
        reply: &Reply,
    ) {
        let mut line = JsonLine::new(Level::INFO, "access");
        if let Some(app) = app {
            line.text("app", &app.id());
        }
        line.text("request_id", &ids.id());
        if let Some(trace) = ids.trace {
            line.text("trace_id", &trace.trace_id);
            line.text("span_id", &trace.span_id);
        }
        line.text("peer", &client);
        if let Some(proxy) = client.proxy {
            line.text("proxy", &proxy);
        }
        line.text("method", &head.method);
        line.text("path", &head.uri.path());
        line.number("status", reply.status().as_u16());
        line.number("channels", self.channels.get());
        let names = self.names.borrow();
        line.texts("names", names.iter().map(ChannelName::as_str));
        line.number("events", self.events.get());
        if let Some(bytes) = self.bytes.get() {
            line.number("bytes", bytes);
        }
        line.number("subscribers", self.subscribers.get());
        let seconds = (self.began.elapsed().as_secs_f64() * 1e6).round() / 1e6;
        if let Some(seconds) = Number::from_f64(seconds) {
            line.number("seconds", seconds);
        }
        telemetry::write(line);
    }
}

//! What an HTTP connection is doing: waiting for a request, or in the middle of one.

use std::cell::Cell;
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::sleep;

use crate::proxies::Client;
use crate::worker::{Waiter, Worker};

/// Shared by the parts of one connection: its stream, its requests and its task.
pub(super) struct Activity {
    worker: Rc<Worker>,
    waiter: Rc<Waiter>,
    /// Whoever has connected, until it is known for whom.
    pub(super) client: Cell<Client>,
    has_begun: Cell<bool>,
    /// Whether an answer waits for the client to read.
    pub(super) is_blocked: Cell<bool>,
    /// Whether the answer is held back, to go out with the first frame.
    pub(super) is_held: Cell<bool>,
}

impl Activity {
    /// Of a new connection, which waits for its first request.
    pub(super) fn new(worker: &Rc<Worker>, client: Client) -> Self {
        Self {
            worker: Rc::clone(worker),
            waiter: worker.idle().enter(),
            client: Cell::new(client),
            has_begun: Cell::new(false),
            is_blocked: Cell::new(false),
            is_held: Cell::new(false),
        }
    }

    /// A request's head is there.
    pub(super) fn begin_request(&self) {
        self.has_begun.set(true);
        self.waiter.begin();
    }

    /// It waits for a request, or for a body that nobody wants: it may be closed.
    pub(super) fn wait(&self) {
        self.worker.idle().wait(&self.waiter);
    }

    /// Is done when it has to go, because it has waited longest and permits are short.
    pub(super) async fn evicted(&self) {
        loop {
            self.waiter.evicted().await;
            if !self.is_blocked.get() {
                return;
            }
            self.wait();
        }
    }

    /// Is done when no request has begun in time.
    pub(super) async fn is_overdue(&self, time: Duration) {
        sleep(time).await;
        if self.has_begun.get() {
            pending().await
        }
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        self.worker.idle().leave(&self.waiter);
    }
}

//! Applications: who may connect and publish, and within which limits.
//!
//! The *settings* of an application ([`App`]) can change while the server runs; its
//! *identity* ([`AppHandle`]) stays. Whoever keeps something for an application keeps the
//! handle, and reads the settings when it needs them, once for each request or message.
//! The [`AppRegistry`] finds handles by id and by key, and is the only one that makes them.
//!
//! Nothing here acts on a change: closing the sockets of an application that was removed
//! is for whoever has called [`AppRegistry::apply`].

mod counters;
mod handle;
mod labels;
mod origins;
mod registry;
mod settings;
mod webhook;

pub use counters::{Counter, Counters, Distribution, Timing};
pub use handle::{AppHandle, AppPermit};
pub use labels::{
    HandshakeRefusal, PreviousCredential, ProxyClaim, RateLimit, RequestRefusal,
    SubscriptionRefusal, WebhookLoss, WebhookOutcome,
};
pub use origins::Origins;
pub use registry::{AppRegistry, Changes, DuplicateApp};
pub use settings::{App, CacheLimits, ClientEvents, Credential, PresenceLimits, Rate};
pub use webhook::{ChannelPattern, Webhook, WebhookKind, WebhookKinds, Webhooks, is_local};

#[cfg(test)]
pub(crate) mod tests {
    use super::AppHandle;
    pub(crate) use super::settings::tests::app;

    /// A handle that no registry knows, for tests of the layers above.
    pub(crate) fn handle(id: &str) -> AppHandle {
        AppHandle::new(app(id))
    }
}

//! The values of labels: what is counted for itself of one thing that is counted.

/// Names the values of a label.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $value:ident = $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$of])* $value,)* }

        impl $name {
            /// All values, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$value,)*];

            /// The value of the label.
            pub fn label(self) -> &'static str {
                match self { $(Self::$value => $label,)* }
            }
        }
    };
}

labels! {
    /// Why an HTTP request was refused.
    RequestRefusal {
        /// No such route.
        NotFound = "not_found",
        /// The route exists, for another method.
        Method = "method",
        /// The path names no application.
        UnknownApp = "unknown_app",
        /// It names no host, or several.
        Host = "host",
        /// An authentication parameter is missing.
        AuthMissing = "auth_missing",
        /// The key is that of another application.
        AuthKey = "auth_key",
        /// An unknown `auth_version`.
        AuthVersion = "auth_version",
        /// `auth_timestamp` is no number.
        AuthTimestamp = "auth_timestamp",
        /// `auth_timestamp` is too far from the clock.
        AuthClock = "auth_clock",
        /// `body_md5` is not that of the body.
        AuthDigest = "auth_digest",
        /// The signature is wrong.
        AuthSignature = "auth_signature",
        /// The body is no JSON object.
        InvalidJson = "invalid_json",
        /// A field is missing or wrong.
        InvalidFields = "invalid_fields",
        /// An event is over `max_event_size`.
        EventTooLarge = "event_too_large",
        /// The body is over `max_request_size`.
        BodyTooLarge = "body_too_large",
        /// The body did not arrive in time.
        BodyTimeout = "body_timeout",
        /// The body broke off.
        BodyBroken = "body_broken",
        /// The same request is being carried out.
        InProgress = "in_progress",
        /// The workers are too far behind.
        OverCapacity = "over_capacity",
        /// Its address has too many connections.
        TooManyConnections = "too_many_connections",
        /// It is not HTTP/1, as when TLS is spoken to a plain port.
        NotHttp = "not_http",
        /// Its head is too large.
        HeadTooLarge = "head_too_large",
        /// Its head, or the TLS handshake before it, did not come in time.
        HeadTimeout = "head_timeout",
        /// Its connection was idle when places for connections were short.
        Evicted = "evicted",
        /// Its connection is a trusted proxy's and did not begin with a PROXY header.
        ProxyHeader = "proxy_header",
    }
}

labels! {
    /// Why a request is no WebSocket handshake.
    HandshakeRefusal {
        /// Not `GET`.
        Method = "method",
        /// HTTP/1.0.
        HttpVersion = "http_version",
        /// It does not ask for an upgrade.
        NotUpgrade = "not_upgrade",
        /// Not `Sec-WebSocket-Version: 13`.
        WebSocketVersion = "websocket_version",
        /// A bad `Sec-WebSocket-Key`.
        Key = "key",
        /// The TLS handshake has failed.
        Tls = "tls",
    }
}

labels! {
    /// Why a subscription was refused.
    SubscriptionRefusal {
        /// The name is none.
        Channel = "invalid_channel",
        /// It is the channel of another signed-in user.
        OtherUser = "other_user",
        /// There is no `auth`.
        NoAuth = "auth_missing",
        /// `auth` is not of the form key:signature.
        AuthForm = "auth_malformed",
        /// The key is that of another application.
        Key = "auth_key",
        /// The signature is wrong.
        Signature = "auth_signature",
        /// `channel_data` is no member.
        Member = "invalid_member",
        /// A presence channel, and neither `channel_data` nor a signed-in user.
        NoMember = "member_missing",
        /// The presence channel has all the members that it may have.
        Full = "presence_full",
        /// The connection has all the subscriptions that it may have.
        TooMany = "too_many_subscriptions",
    }
}

labels! {
    /// What of an application's credentials is being replaced.
    PreviousCredential {
        /// Its key.
        Key = "key",
        /// Its secret.
        Secret = "secret",
    }
}

labels! {
    /// Where somebody who is no trusted proxy has said that it is there for somebody else.
    ProxyClaim {
        /// In a header of the PROXY protocol.
        ProxyProtocol = "proxy_protocol",
        /// In `X-Forwarded-For`.
        XForwardedFor = "x_forwarded_for",
        /// In `Forwarded`.
        Forwarded = "forwarded",
    }
}

labels! {
    /// A limit on how often something may happen.
    RateLimit {
        /// Messages of a connection.
        Messages = "messages",
        /// Client events of a connection.
        ClientEvents = "client_events",
        /// New connections from an address.
        Connections = "connections",
    }
}

labels! {
    /// What became of a request to a webhook's receiver.
    WebhookOutcome {
        /// It was taken.
        Delivered = "delivered",
        /// It was answered with something else than success.
        Refused = "refused",
        /// It was not answered in time.
        TimedOut = "timed_out",
        /// There was no connection, or it broke.
        Failed = "failed",
    }
}

labels! {
    /// Why a webhook's receiver was not told of an event.
    WebhookLoss {
        /// It has not taken it for too long.
        Expired = "expired",
        /// Too many bytes were waiting.
        Overflow = "overflow",
        /// The server has stopped.
        Stopped = "stopped",
    }
}

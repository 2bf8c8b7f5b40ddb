//! Which server and which application a command means.

use std::time::Duration;

use crate::apps::App;
use crate::cli::tools::Access;
use crate::client::http::Call;
use crate::client::socket::SocketError;
use crate::client::{ClientError, Credentials, Endpoint, EndpointError, Via, http};
use crate::config::{Config, ConfigError, Server};

use super::ToolError;

/// Why nobody can be asked.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The settings cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The URL cannot be used.
    #[error("--url {0}")]
    Url(#[from] EndpointError),
    /// The settings have several applications.
    #[error("there are {} applications ({}): say with --app-id which one is meant", ids.len(), ids.join(", "))]
    Several {
        /// Their ids.
        ids: Vec<String>,
    },
}

/// A server, and an application of it.
pub(super) struct Target {
    pub(super) endpoint: Endpoint,
    pub(super) app: Credentials,
    pub(super) timeout: Duration,
    /// Whether nobody has named the server.
    is_default: bool,
}

impl Target {
    pub(super) fn of(access: &Access) -> Result<Self, AccessError> {
        let endpoint = access.url.as_deref().map(Endpoint::parse).transpose()?;
        let config = Config::load(&access.app.sources())?;
        let app = choose(&config.apps, access.app.app_id.as_deref())?;
        let app = credentials(app);
        Ok(Self {
            app,
            timeout: access.timeout,
            is_default: endpoint.is_none(),
            endpoint: endpoint.unwrap_or_else(|| local(&config.server)),
        })
    }

    /// Asks the HTTP API.
    pub(super) async fn call(&self, call: &Call<'_>) -> Result<serde_json::Value, ToolError> {
        let asked = http::call(&self.endpoint, &self.app, call, self.timeout).await;
        asked.map_err(|error| self.client_error(error))
    }

    pub(super) fn client_error(&self, error: ClientError) -> ToolError {
        let hint = match &error {
            ClientError::Connect { .. } if self.is_default => {
                "; is the server running? --url asks another one"
            }
            ClientError::Tls { .. } if self.is_default => "; --url asks it by its public name",
            ClientError::Refused {
                status: 404, body, ..
            } if !body.starts_with("No matching application") => {
                "; is it a Pusher-compatible server, and is its path in the URL?"
            }
            _ => "",
        };
        ToolError::Client(error, hint)
    }

    pub(super) fn socket_error(&self, error: SocketError) -> ToolError {
        match error {
            SocketError::Client(error) => self.client_error(error),
            SocketError::Closed { code: 4001, .. } => {
                ToolError::Socket(error, "; the server has no application with this key")
            }
            SocketError::Closed { code: 4009, .. } => ToolError::Socket(
                error,
                "; if only some pages may connect, --origin says which one this is",
            ),
            other => ToolError::Socket(other, ""),
        }
    }
}

/// What signs for an application.
pub fn credentials(app: &App) -> Credentials {
    Credentials {
        id: app.id.clone(),
        key: app.key.clone(),
        secret: app.secret.clone(),
    }
}

/// The one application, or that of the id.
///
/// # Errors
/// If there are several, or none with the id.
pub fn choose<'a>(apps: &'a [App], id: Option<&str>) -> Result<&'a App, AccessError> {
    let mut those = apps.iter().filter(|app| id.is_none_or(|id| app.id == id));
    match (those.next(), those.next()) {
        (Some(app), None) => Ok(app),
        _ => Err(AccessError::Several {
            ids: apps.iter().map(|app| app.id.clone()).collect(),
        }),
    }
}

/// The server that settings describe, as it is reached on its own machine: on a plain port, or
/// else on its Unix socket, or with TLS, by its public name.
pub fn local(server: &Server) -> Endpoint {
    let first = server.dialled_host();
    let is_secure = server.is_port_secure();
    let name = if is_secure {
        server.hostname.as_deref()
    } else {
        None
    };
    let via = match (first, &server.socket) {
        (None, Some(socket)) => Via::Unix(socket.path.clone()),
        (Some(_), Some(socket)) if is_secure => Via::Unix(socket.path.clone()),
        (Some(host), _) => Via::Host(host.to_owned()),
        // The configuration does not let it come to this.
        (None, None) => Via::Name,
    };
    let host = name.or(first).unwrap_or("localhost");
    let host = if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let own = match &via {
        Via::Host(host) => host.parse().ok(),
        Via::Name | Via::Unix(_) => Some(std::net::Ipv4Addr::LOCALHOST.into()),
    };
    Endpoint {
        is_secure: is_secure && !matches!(via, Via::Unix(_)),
        host,
        port: server.port,
        prefix: server.path.clone(),
        wants_proxy_header: own.is_some_and(|own| server.proxies.expects_header_from(own)),
        via,
    }
}

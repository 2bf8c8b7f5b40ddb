//! What is dialled: by Laravel to publish, and by browsers.

use url::{Host, Url};

use super::UsageError;
use super::project::{Connection, Project};
use super::report::Problem;
use crate::cli::doctor::Doctor;
use crate::client::{Endpoint, Via};
use crate::config::{Config, Variable};
use crate::tools;

/// A server's address, and who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dialled {
    pub(super) endpoint: Endpoint,
    /// The settings that say it, with their places: what to change.
    pub(super) said: String,
}

/// All addresses that are looked at.
#[derive(Debug)]
pub(super) struct Places {
    /// Where Laravel publishes.
    pub(super) publish: Dialled,
    /// Where browsers connect.
    pub(super) public: Dialled,
    /// The page that connects, if one is known.
    pub(super) page: Option<Url>,
    /// Where that page asks whether its user may join a channel.
    pub(super) auth: Option<Url>,
    /// Whether somebody has said where browsers connect.
    pub(super) is_public_known: bool,
    /// Whether nobody but the settings has said where the server is, so that it is this one.
    pub(super) is_own: bool,
}

/// The URLs of the command line.
pub(super) struct Given {
    url: Option<Endpoint>,
    page: Option<Url>,
    auth: Option<Url>,
}

impl Given {
    pub(super) fn of(arguments: &Doctor) -> Result<Self, UsageError> {
        let url = arguments.url.as_deref().map(Endpoint::parse).transpose()?;
        let page = |flag, text: &Option<String>| {
            let text = text.as_deref();
            let parsed =
                text.map(|text| web_url(text).ok_or(UsageError::Page(flag, text.to_owned())));
            parsed.transpose()
        };
        Ok(Self {
            url,
            page: page("--page", &arguments.page)?,
            auth: page("--auth", &arguments.auth)?,
        })
    }
}

/// The variables that say a scheme, a host and a port.
type Names = [&'static str; 3];

const OF_LARAVEL: Names = ["REVERB_SCHEME", "REVERB_HOST", "REVERB_PORT"];
const OF_PAGES: Names = ["VITE_REVERB_SCHEME", "VITE_REVERB_HOST", "VITE_REVERB_PORT"];

impl Places {
    pub(super) fn of(
        given: Given,
        config: &Config,
        project: Option<&Project>,
    ) -> Result<Self, Problem> {
        let connection = project.map(Project::connection);
        let publish = match &connection {
            Some(connection) => Some(of_connection(connection, config)?),
            None => of_variables(config, OF_LARAVEL)?,
        };
        let is_own = given.url.is_none();
        let public = match given.url {
            Some(endpoint) => Some(Dialled {
                said: format!("the URL {endpoint}"),
                endpoint,
            }),
            None => match &connection {
                Some(connection) if is_service(connection) => {
                    of_service(connection, "ws").map(|it| pusher(it, connection))
                }
                _ => of_variables(config, OF_PAGES)?,
            },
        };
        let own = || Dialled {
            endpoint: tools::local(&config.server),
            said: "the settings of the server".to_owned(),
        };
        let is_public_known = public.is_some();
        let (publish, public) = match (publish, public) {
            (Some(publish), Some(public)) => (publish, public),
            (Some(one), None) | (None, Some(one)) => (one.clone(), one),
            (None, None) => (own(), own()),
        };
        let app_url = project.and_then(Project::app_url);
        let app_url = app_url.or_else(|| Some(variable(config, "APP_URL")?.text.clone()));
        let app_url = app_url.as_deref().and_then(web_url);
        let route = project.and_then(|it| it.auth_routes().first().map(|it| (*it).to_owned()));
        let auth = given.auth.or_else(|| app_url.as_ref()?.join(&route?).ok());
        Ok(Self {
            publish,
            public,
            page: given.page.or(app_url),
            auth,
            is_public_known,
            is_own,
        })
    }

    /// What a browser sends as `Origin`.
    pub(super) fn origin(&self) -> Option<String> {
        self.page.as_ref().map(origin_of)
    }

    /// Whether Laravel may publish at an address that is not for here: of another host than browsers
    /// connect to, and not of this machine.
    pub(super) fn may_publish_elsewhere(&self) -> bool {
        self.publish.endpoint.host != self.public.endpoint.host
            && !is_loopback(&self.publish.endpoint)
    }

    /// Whether there is one address for all.
    pub(super) fn is_one(&self) -> bool {
        self.publish.endpoint == self.public.endpoint
    }
}

/// The origin of a page, as browsers send it.
pub(super) fn origin_of(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// Where a URL leads.
pub(super) fn endpoint_of(url: &Url) -> Endpoint {
    let is_secure = url.scheme() == "https";
    Endpoint {
        is_secure,
        host: url.host_str().unwrap_or_default().to_owned(),
        port: url.port_or_known_default().unwrap_or(80),
        prefix: String::new(),
        via: Via::Name,
        wants_proxy_header: false,
    }
}

/// Whether a host is this machine by its name.
pub(super) fn is_loopback(endpoint: &Endpoint) -> bool {
    match Host::parse(&endpoint.host) {
        Ok(Host::Ipv4(address)) => address.is_loopback(),
        Ok(Host::Ipv6(address)) => address.is_loopback(),
        Ok(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Err(_) => false,
    }
}

/// What a variable says, and where.
pub(super) fn variable<'a>(config: &'a Config, name: &str) -> Option<&'a Variable> {
    config.laravel.get(name)
}

fn web_url(text: &str) -> Option<Url> {
    let mut url = Url::parse(text).ok()?;
    // They are nobody's business; neither fails for a URL that has a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    let is_web = matches!(url.scheme(), "http" | "https") && url.has_host();
    is_web.then_some(url)
}

/// What Laravel's own configuration dials.
fn of_connection(connection: &Connection<'_>, config: &Config) -> Result<Dialled, Problem> {
    let option = |key: &str| connection.text(&format!("options.{key}"));
    let said = with_places(config, OF_LARAVEL, &connection.path("options"));
    if is_service(connection)
        && let Some(host) = of_service(connection, "api")
    {
        return Ok(pusher(host, connection));
    }
    let Some(host) = option("host") else {
        return Err(Problem::new(
            "laravel-address",
            format!(
                "{} is empty: Laravel does not know where to publish",
                connection.path("options.host")
            ),
            "set REVERB_HOST (and REVERB_PORT, REVERB_SCHEME) in .env, then php artisan config:clear",
        ));
    };
    let scheme = option("scheme").unwrap_or_else(|| "https".to_owned());
    let port = option("port").unwrap_or_else(|| "443".to_owned());
    let mut dialled = dialled([scheme, host, port], said)?;
    // Reverb's own setting is what the option has as a rule; pusher-http-php puts it before its paths.
    dialled.endpoint.prefix = match option("path") {
        Some(path) if !path.trim_matches('/').is_empty() => format!("/{}", path.trim_matches('/')),
        _ => String::new(),
    };
    Ok(dialled)
}

/// Whether Pusher's own service is meant.
fn is_service(connection: &Connection<'_>) -> bool {
    connection.text("driver").as_deref() == Some("pusher")
        && connection
            .text("options.host")
            .is_none_or(|host| host.ends_with(".pusher.com"))
}

fn of_service(connection: &Connection<'_>, what: &str) -> Option<String> {
    let cluster = connection.text("options.cluster")?;
    Some(format!("{what}-{cluster}.pusher.com"))
}

fn pusher(host: String, connection: &Connection<'_>) -> Dialled {
    Dialled {
        endpoint: Endpoint {
            is_secure: true,
            host,
            port: 443,
            prefix: String::new(),
            via: Via::Name,
            wants_proxy_header: false,
        },
        said: connection.path("options.cluster"),
    }
}

/// What variables dial, if any of them says something; what they leave out is Reverb's default.
fn of_variables(config: &Config, names: Names) -> Result<Option<Dialled>, Problem> {
    let said = names.map(|name| variable(config, name));
    if said.iter().all(Option::is_none) {
        return Ok(None);
    }
    let fallback = |name: &str| match variable(config, name.trim_start_matches("VITE_")) {
        Some(said) => said.text.clone(),
        None if name.ends_with("SCHEME") => "https".to_owned(),
        None if name.ends_with("PORT") => "443".to_owned(),
        None => tools::local(&config.server).host,
    };
    let [scheme, host, port] = names
        .map(|name| variable(config, name).map_or_else(|| fallback(name), |it| it.text.clone()));
    let said = with_places(config, names, "the defaults");
    let mut dialled = dialled([scheme, host, port], said)?;
    dialled.endpoint.prefix.clone_from(&config.server.path);
    Ok(Some(dialled))
}

/// The names that are said somewhere, with the place.
fn with_places(config: &Config, names: Names, otherwise: &str) -> String {
    let places = names
        .iter()
        .filter_map(|name| Some(format!("{name} ({})", variable(config, name)?.place)));
    let places: Vec<String> = places.collect();
    if places.is_empty() {
        otherwise.to_owned()
    } else {
        places.join(", ")
    }
}

fn dialled([scheme, host, port]: [String; 3], said: String) -> Result<Dialled, Problem> {
    let bracketed = if host.parse::<std::net::Ipv6Addr>().is_ok() {
        format!("[{host}]")
    } else {
        host
    };
    let text = format!("{scheme}://{bracketed}:{port}");
    match Endpoint::parse(&text) {
        Ok(endpoint) if endpoint.prefix.is_empty() => Ok(Dialled { endpoint, said }),
        _ => Err(Problem::new(
            "laravel-address",
            format!(
                "{text} is no address: a host has neither scheme nor path, a scheme is http or https"
            ),
            format!("mend {said}"),
        )),
    }
}

//! The way to a server, and who answers at its end.

use std::io;
use std::time::{Duration, SystemTime};

use rustls::CertificateError;
use tokio::time::timeout;

use super::places::{Dialled, Places, is_loopback};
use super::port::{Program, listener_of};
use super::report::{Problem, Report};
use crate::client::http::{Plain, Reply, cut, request};
use crate::client::{ClientError, connect, connect_and_identify};
use crate::config::Config;
use crate::server::ends_soon;

/// The checks that end all others of the same address.
const CONNECTION_CHECKS: [&str; 5] = ["name", "connect", "tls", "certificate", "server"];

/// Whether a socket of the same server would only meet the same.
pub(super) fn ends_all(problem: &Problem) -> bool {
    is_about_connecting(problem)
        || ["application", "signature", "clock", "prefix"].contains(&problem.check)
}

/// Whether nothing can be asked at the address that it is about.
pub(super) fn is_about_connecting(problem: &Problem) -> bool {
    CONNECTION_CHECKS.contains(&problem.check)
}

/// Connects, with TLS if the address has it, and warns of a certificate that ends soon.
pub(super) async fn check(
    dialled: &Dialled,
    (config, places): (&Config, &Places),
    limit: Duration,
    report: &mut Report<'_>,
) -> Result<(), Problem> {
    let endpoint = &dialled.endpoint;
    match timeout(limit, connect_and_identify(endpoint)).await {
        Ok(Ok((_, certificate))) => {
            let now = SystemTime::now();
            if let Some(left) = certificate.and_then(|it| ends_soon(&it, now)) {
                let left = match left.as_secs() / 86_400 {
                    0 => "in less than a day".to_owned(),
                    1 => "in a day".to_owned(),
                    days => format!("in {days} days"),
                };
                report.warn(
                    "certificate",
                    format!("{endpoint}: the certificate of {} ends {left}", endpoint.host),
                    "renew it (certbot renew, and look why that was not done: systemctl list-timers), and have the proxy \
                     load it (nginx -s reload)",
                );
            }
            Ok(())
        }
        Ok(Err(error)) => Err(problem_of(&error, dialled, config, places)),
        Err(_) if endpoint.is_secure && answers_without_tls(dialled, limit).await => {
            Err(silent_handshake(dialled, limit))
        }
        Err(_) => Err(Problem::new(
            "connect",
            format!("{endpoint}: no connection in {} s", limit.as_secs()),
            format!(
                "open that port in the firewall between here and there, look whether what listens there hangs, or correct {}",
                dialled.said
            ),
        )),
    }
}

async fn answers_without_tls(dialled: &Dialled, limit: Duration) -> bool {
    let mut plain = dialled.clone();
    plain.endpoint.is_secure = false;
    get(&plain, "/", limit).await.is_ok()
}

/// As with Reverb, which waits for the end of a request.
fn silent_handshake(dialled: &Dialled, limit: Duration) -> Problem {
    Problem::new(
        "tls",
        format!(
            "{}: it takes the connection and does not answer the TLS handshake in {} s: that port does not speak TLS",
            dialled.endpoint,
            limit.as_secs()
        ),
        fix_of_plain_port(dialled),
    )
}

fn fix_of_plain_port(dialled: &Dialled) -> String {
    format!(
        "set the scheme to http in {}, or put TLS there: RESOUND_TLS_CERT and RESOUND_TLS_KEY, or a proxy",
        dialled.said
    )
}

fn problem_of(error: &ClientError, dialled: &Dialled, config: &Config, places: &Places) -> Problem {
    let said = &dialled.said;
    match error {
        ClientError::Name { .. } => Problem::new(
            "name",
            error.to_string(),
            format!("correct the host in {said}, or enter the name in the DNS or in /etc/hosts"),
        ),
        ClientError::Connect { error: cause, .. } => {
            let text = format!("{} at {}", error, dialled.endpoint);
            Problem::new(
                "connect",
                text,
                fix_of_refusal(cause, dialled, config, places),
            )
        }
        ClientError::Tls { host, error: cause } => problem_of_tls(host, cause, dialled),
        other => Problem::new("connect", other.to_string(), format!("look at {said}")),
    }
}

fn fix_of_refusal(
    cause: &io::Error,
    dialled: &Dialled,
    config: &Config,
    places: &Places,
) -> String {
    let said = &dialled.said;
    if cause.kind() != io::ErrorKind::ConnectionRefused {
        return format!("look at the network on the way there, or correct {said}");
    }
    if !places.is_own {
        return format!("start what listens there, or correct {said}");
    }
    let ports: Vec<u16> = config.server.ports().map(|(port, _)| port).collect();
    if ports.contains(&dialled.endpoint.port) {
        return format!(
            "start the server: resound start, or php artisan reverb:start (the port is that of {said})"
        );
    }
    if matches!(dialled.endpoint.port, 80 | 443) {
        return format!(
            "start the proxy that has port {}; without one, set REVERB_PORT={} and REVERB_SCHEME=http ({said})",
            dialled.endpoint.port, ports[0]
        );
    }
    let own = ports[0];
    let state = match listener_of(own) {
        Some(program) => format!("{program} does"),
        None => "nothing does at the moment".to_owned(),
    };
    format!(
        "set REVERB_PORT={own}, or REVERB_SERVER_PORT={}: the server's settings say that it listens on port {own} ({state}); \
         what is dialled, {said} say",
        dialled.endpoint.port
    )
}

fn problem_of_tls(host: &str, cause: &io::Error, dialled: &Dialled) -> Problem {
    let inner = cause
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let endpoint = &dialled.endpoint;
    let Some(rustls::Error::InvalidCertificate(fault)) = inner else {
        let (what, fix) = match inner {
            Some(rustls::Error::InvalidMessage(_)) => {
                ("that port does not speak TLS", fix_of_plain_port(dialled))
            }
            _ => (
                "it speaks no TLS, or none for that name or of version 1.2 and later",
                format!(
                    "look at the proxy's log, and that it has a site for {host}; otherwise correct {}",
                    dialled.said
                ),
            ),
        };
        let text = format!("{endpoint}: no TLS handshake ({cause}): {what}");
        return Problem::new("tls", text, fix);
    };
    let (text, fix) = match fault {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            format!("the certificate of {host} has expired"),
            "renew it (certbot renew) and have the proxy load it (nginx -s reload); Resound loads its own by itself"
                .to_owned(),
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
            format!("the certificate of {host} is not valid yet"),
            "set this machine's clock, or wait".to_owned(),
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            format!("the certificate that {host} shows is for other names"),
            format!(
                "get one for {host}, or dial a name that it is for ({}); with several sites behind one proxy, \
                 look which server_name has this certificate",
                dialled.said
            ),
        ),
        CertificateError::UnknownIssuer | CertificateError::BadSignature => (
            format!("nobody that this machine trusts has signed the certificate of {host}"),
            "serve the whole chain (fullchain.pem, not cert.pem); an authority of your own has to be trusted by PHP \
             (curl.cainfo in php.ini), by browsers, and here with SSL_CERT_FILE=FILE"
                .to_owned(),
        ),
        other if other.to_string().contains("CaUsedAsEndEntity") => (
            format!("the certificate of {host} is made as an authority's"),
            "make it for a server: openssl req -x509 … -addext basicConstraints=critical,CA:FALSE".to_owned(),
        ),
        _ => (
            format!("the certificate of {host} is refused"),
            "look at it: openssl s_client -connect HOST:PORT -showcerts".to_owned(),
        ),
    };
    Problem::new("certificate", format!("{endpoint}: {text} ({cause})"), fix)
}

/// An answer that was lost: what speaks there is not HTTP, or is TLS.
pub(super) async fn problem_of_loss(
    error: &dyn std::fmt::Display,
    dialled: &Dialled,
    limit: Duration,
) -> Problem {
    let mut secure = dialled.endpoint.clone();
    secure.is_secure = true;
    let speaks_tls = !dialled.endpoint.is_secure
        && match timeout(limit, connect(&secure)).await {
            Ok(Ok(_)) => true,
            Ok(Err(ClientError::Tls { error, .. })) => is_about_certificate(&error),
            _ => false,
        };
    if speaks_tls {
        return plain_to_tls(dialled);
    }
    let who = program_at(dialled).map_or(String::new(), |program| format!(" It is {program}."));
    Problem::new(
        "server",
        format!(
            "{}: what listens there does not speak HTTP ({error}).{who}",
            dialled.endpoint
        ),
        format!("stop it, or correct {}", dialled.said),
    )
}

fn is_about_certificate(error: &io::Error) -> bool {
    let inner = error
        .get_ref()
        .and_then(|it| it.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
}

fn plain_to_tls(dialled: &Dialled) -> Problem {
    Problem::new(
        "tls",
        format!(
            "{}: that port speaks TLS, and is dialled without",
            dialled.endpoint
        ),
        format!("set the scheme to https in {}", dialled.said),
    )
}

/// Who has made an answer, as far as it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Responder {
    /// A proxy that answers itself, by its name.
    Proxy(&'static str),
    /// A Laravel application, or another PHP one.
    Application,
    /// Anything else, with what it calls itself.
    Other(String),
}

impl Responder {
    pub(super) fn of(reply: &Reply) -> Self {
        let server = reply.header("server").unwrap_or_default();
        let is_page = reply.body.trim_start().starts_with('<');
        let powered = reply.header("x-powered-by").unwrap_or_default();
        let cookies = reply.headers.get_all("set-cookie").iter();
        let has_session = cookies
            .filter_map(|it| it.to_str().ok())
            .any(|it| it.contains("_session=") || it.starts_with("XSRF-TOKEN="));
        if has_session
            || powered.starts_with("PHP")
            || reply.body.contains("\"The route ")
            || reply.body.contains("Illuminate\\")
        {
            return Self::Application;
        }
        // What Go's library answers, which Traefik is made of.
        if reply.body.trim() == "404 page not found" {
            return Self::Proxy("Traefik");
        }
        if reply.body.contains("<center>nginx") {
            return Self::Proxy("nginx");
        }
        for (begin, name) in [
            ("nginx", "nginx"),
            ("openresty", "nginx"),
            ("Apache", "Apache"),
            ("Caddy", "Caddy"),
            ("cloudflare", "Cloudflare"),
        ] {
            // It also stands in what they pass on.
            if server.starts_with(begin) && (is_page || reply.body.is_empty()) {
                return Self::Proxy(name);
            }
        }
        if reply
            .body
            .contains("<h1>503 Service Unavailable</h1>\nNo server is available")
        {
            return Self::Proxy("HAProxy");
        }
        match (server, is_page) {
            ("", true) => Self::Other("a web page".to_owned()),
            ("", false) => Self::Other("an unknown program".to_owned()),
            (name, _) => Self::Other(cut(name)),
        }
    }
}

/// What is wrong if the answer is none of a server of the protocol.
pub(super) fn problem_of_unknown_answer(
    reply: &Reply,
    (asked, location): (&str, &str),
    dialled: &Dialled,
) -> Problem {
    let endpoint = &dialled.endpoint;
    let status = reply.status;
    let responder = Responder::of(reply);
    if status == 400
        && reply
            .body
            .contains("plain HTTP request was sent to HTTPS port")
    {
        return plain_to_tls(dialled);
    }
    if reply.header("cf-mitigated").is_some() {
        return challenged(reply, (asked, location), dialled);
    }
    if (300..400).contains(&status) {
        return redirected(reply, asked, dialled);
    }
    let name = match &responder {
        Responder::Proxy(name) => (*name).to_owned(),
        Responder::Application => "the application".to_owned(),
        Responder::Other(name) => name.clone(),
    };
    let text = format!("{endpoint} answers {status} to {asked}, by {name}: ");
    match (status, &responder) {
        // Whoever says so stands in front of somebody else.
        (502..=504 | 520..=526, _) => Problem::new(
            "upstream",
            format!("{text}it does not reach the server behind it"),
            format!(
                "start the server, and compare the address behind the proxy with what it listens on ({})",
                upstream_words(&name)
            ),
        ),
        (413, Responder::Proxy(_)) => problem_of_size(&name, &text),
        (_, Responder::Application) if is_php(dialled) => Problem::new(
            "path",
            format!("{text}its own port is dialled, and not the server's"),
            format!("set the port of the server in {}", dialled.said),
        ),
        (_, Responder::Proxy(_) | Responder::Application) => Problem::new(
            "path",
            format!("{text}it is not passed on to the server"),
            format!(
                "pass {location} on, as docs/deploy has it: {}",
                location_words(&name, location)
            ),
        ),
        (_, Responder::Other(_)) => {
            let who = program_at(dialled).map_or(String::new(), |it| format!(" ({it})"));
            let body = cut(&reply.body);
            Problem::new(
                "server",
                format!("{text}that is no server of Pusher's protocol{who}: {body}"),
                format!(
                    "stop it and start the server there, or correct {}",
                    dialled.said
                ),
            )
        }
    }
}

fn problem_of_size(proxy: &str, text: &str) -> Problem {
    Problem::new(
        "body-size",
        format!("{text}it lets through no event of that size"),
        match proxy {
            "nginx" => "client_max_body_size 2m; in the server or location of nginx".to_owned(),
            "Apache" => "LimitRequestBody 2097152 in Apache's virtual host".to_owned(),
            _ => format!("raise the limit of bodies in {proxy}"),
        },
    )
}

/// Whether PHP's own server listens there.
fn is_php(dialled: &Dialled) -> bool {
    program_at(dialled).is_some_and(|program| program.name.contains("php"))
}

/// The program that listens at an address of this machine.
fn program_at(dialled: &Dialled) -> Option<Program> {
    let endpoint = &dialled.endpoint;
    is_loopback(endpoint)
        .then(|| listener_of(endpoint.port))
        .flatten()
}

fn challenged(reply: &Reply, (asked, location): (&str, &str), dialled: &Dialled) -> Problem {
    Problem::new(
        "path",
        format!(
            "{} answers {} to {asked}: Cloudflare wants to see a browser",
            dialled.endpoint, reply.status
        ),
        format!(
            "exempt {location}/ from bot protection and challenges (a WAF rule that skips them)"
        ),
    )
}

fn redirected(reply: &Reply, asked: &str, dialled: &Dialled) -> Problem {
    let to = cut(reply.header("location").unwrap_or("nowhere"));
    Problem::new(
        "redirect",
        format!(
            "{} answers {} to {asked}: it redirects to {to}, which neither Laravel nor Echo follows",
            dialled.endpoint, reply.status
        ),
        format!(
            "dial that address itself: scheme, host and port in {}",
            dialled.said
        ),
    )
}

fn upstream_words(proxy: &str) -> &'static str {
    match proxy {
        "nginx" => "proxy_pass, upstream",
        "Apache" => "ProxyPass",
        "HAProxy" => "the server lines of the backend, and its health check",
        _ => "its upstream",
    }
}

fn location_words(proxy: &str, location: &str) -> String {
    match proxy {
        "nginx" => format!("location ~ ^{location}/ {{ proxy_pass http://127.0.0.1:8080; }}"),
        "Apache" => format!("ProxyPass \"{location}/\" \"http://127.0.0.1:8080{location}/\""),
        "the application" => format!(
            "in nginx a location {location}/ of its own, before that of index.php; the application must not get it"
        ),
        _ => format!("a route for {location}/"),
    }
}

/// Asks for a path without proof, for what `/ready` and the like say.
pub(super) async fn get(
    dialled: &Dialled,
    path: &str,
    limit: Duration,
) -> Result<Reply, ClientError> {
    let target = format!("{}{path}", dialled.endpoint.prefix);
    let plain = Plain {
        method: "GET",
        target: &target,
        ..Plain::default()
    };
    request(&dialled.endpoint, &plain, limit).await
}

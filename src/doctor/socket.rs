//! A socket, as a browser opens it, and what arrives there.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::api::{Api, Server, random};
use super::places::{Places, endpoint_of, is_loopback, origin_of, variable};
use super::reach::{self, Responder};
use super::report::{Problem, Report};
use crate::client::ClientError;
use crate::client::http::{Plain, Reply, escape, request};
use crate::client::socket::{Message, Socket, SocketError};

/// Events that have to arrive: servers that do not know each other get them in turn.
const EVENTS: usize = 4;

/// A delay that is worth a word; a far away server has a tenth of it.
const MAX_DELAY: Duration = Duration::from_secs(2);

/// How long an idle socket is looked at: so many times the silence after which a client pings.
const PINGS: u32 = 3;

const MIN_IDLE: Duration = Duration::from_secs(10);

/// Opens one, joins a private channel, and waits for what is published there.
pub(super) async fn check(
    api: &Api<'_>,
    can_publish: bool,
    report: &mut Report<'_>,
) -> Result<Socket, Problem> {
    let places = api.places;
    check_page(places)?;
    check_browser_address(places, report);
    check_key(api)?;
    let dialled = &places.public;
    if !places.is_one() {
        reach::check(dialled, (api.config, places), api.limit, report).await?;
        report.ok(
            "connect",
            format!(
                "{} (dialled by browsers: {})",
                dialled.endpoint, dialled.said
            ),
        );
    }
    let origin = places.origin();
    let opened = Socket::connect(
        &dialled.endpoint,
        &api.app.key,
        origin.as_deref(),
        api.limit,
    );
    let mut socket = match opened.await {
        Ok(socket) => socket,
        Err(error) => return Err(problem_of(error, api, origin.as_deref()).await),
    };
    let from = origin.map_or(String::new(), |it| format!(" for the page {it}"));
    report.ok(
        "socket",
        format!("{} opens a socket{from}", dialled.endpoint),
    );
    let channel = format!("private-resound-doctor-{}", random());
    join(&mut socket, api, &channel).await?;
    report.ok("private-channel", "a private channel is joined");
    if can_publish {
        let time = receive(&mut socket, api, &channel).await?;
        let text = format!("{EVENTS} events were published and arrived");
        if time > MAX_DELAY {
            report.warn(
                "delay",
                format!("{text}, but only after {:.1} s", time.as_secs_f32()),
                "something in between holds them back: a proxy or firewall that buffers or inspects (exempt /app/), a node \
                 that is far behind (resound status), or a slow network",
            );
        } else {
            report.ok("delivery", text);
        }
    }
    Ok(socket)
}

/// A page with TLS may open no socket without.
fn check_page(places: &Places) -> Result<(), Problem> {
    let public = &places.public;
    match &places.page {
        Some(page)
            if places.is_public_known
                && page.scheme() == "https"
                && !public.endpoint.is_secure
                && !is_loopback(&public.endpoint) =>
        {
            Err(Problem::new(
                "mixed-content",
                format!(
                    "the page {page} has TLS and its socket, {}, has none: browsers forbid that (mixed content)",
                    public.endpoint
                ),
                format!(
                    "have a proxy serve it with TLS, set scheme https and port 443 in {}, forceTLS: true in Echo's options, \
                     then build the page anew",
                    public.said
                ),
            ))
        }
        _ => Ok(()),
    }
}

/// Visitors' browsers that dial `localhost` dial themselves.
fn check_browser_address(places: &Places, report: &mut Report<'_>) {
    // Names of a developer's own machine.
    let is_own = |host: &str| {
        let ends = ["localhost", "test", "local", "internal"];
        ends.iter().any(|end| host.rsplit('.').next() == Some(*end))
    };
    let public = &places.public;
    let Some(page) = places
        .page
        .as_ref()
        .filter(|_| places.is_public_known && places.is_own)
    else {
        return;
    };
    let is_page_public = !is_loopback(&endpoint_of(page)) && !page.host_str().is_none_or(is_own);
    if is_page_public && is_loopback(&public.endpoint) {
        report.warn(
            "browser-address",
            format!(
                "pages of {} dial {}, which is each visitor's own machine",
                origin_of(page),
                public.endpoint
            ),
            format!(
                "set VITE_REVERB_HOST to the public name ({}), then npm run build; APP_URL, if that is not the page's address",
                public.said
            ),
        );
    }
}

/// What pages are built with has to be the application's key.
fn check_key(api: &Api<'_>) -> Result<(), Problem> {
    match variable(api.config, "VITE_REVERB_APP_KEY") {
        Some(said) if said.text != api.app.key => Err(Problem::new(
            "browser-key",
            format!(
                "pages are built with the key {:?} (VITE_REVERB_APP_KEY), and the application's is {:?}",
                said.text, api.app.key
            ),
            format!(
                "set VITE_REVERB_APP_KEY=\"${{REVERB_APP_KEY}}\" ({}), then npm run build",
                said.place
            ),
        )),
        _ => Ok(()),
    }
}

async fn problem_of(error: SocketError, api: &Api<'_>, origin: Option<&str>) -> Problem {
    let dialled = &api.places.public;
    let endpoint = &dialled.endpoint;
    match error {
        SocketError::Closed { code: 4001, .. } => Problem::new(
            "application",
            format!(
                "{endpoint}: {error}: the server has no application with the key {:?}",
                api.app.key
            ),
            api.fix_of("KEY"),
        ),
        SocketError::Closed { code: 4009, .. } => {
            let fix = match api.places.page.as_ref().and_then(url::Url::host_str) {
                Some(host) if api.server() == Server::Reverb => format!(
                    "add {host:?} to allowed_origins of the application in config/reverb.php, then php artisan config:clear and \
                     reverb:restart"
                ),
                Some(host) => format!(
                    "add {host:?} to allowed_origins of the application: in config/reverb.php, in resound.toml, \
                     or REVERB_ALLOWED_ORIGINS"
                ),
                None => "say with --page which page connects, and allow it in REVERB_ALLOWED_ORIGINS; programs that send no \
                         origin need RESOUND_ALLOW_MISSING_ORIGIN=true"
                    .to_owned(),
            };
            let page = origin.unwrap_or("who has no origin");
            let text = format!("{endpoint}: {error}: {page} may not connect");
            Problem::new("origin", text, fix)
        }
        SocketError::Closed { code: 4004, .. } => Problem::new(
            "socket",
            format!(
                "{endpoint}: {error}: the application has all the connections that it may have"
            ),
            "raise max_connections of the application: in config/reverb.php, in resound.toml, or REVERB_APP_MAX_CONNECTIONS",
        ),
        SocketError::Client(ClientError::Refused { .. }) => problem_of_refusal(api, origin).await,
        // It has answered requests.
        SocketError::Client(ClientError::Lost { .. }) | SocketError::Lost { .. }
            if api.places.is_one() =>
        {
            Problem::new(
                "socket",
                error.to_string(),
                "look at the logs of the server and of the proxy: the handshake is cut off",
            )
        }
        SocketError::Client(ClientError::Lost { error, .. }) | SocketError::Lost { error, .. } => {
            reach::problem_of_loss(&error, dialled, api.limit).await
        }
        other => Problem::new("socket", other.to_string(), "look at the server's log"),
    }
}

/// Asks once more, for the whole answer.
async fn problem_of_refusal(api: &Api<'_>, origin: Option<&str>) -> Problem {
    let dialled = &api.places.public;
    let location = format!("{}/app", dialled.endpoint.prefix);
    let target = format!("{location}/{}?protocol=7", escape(&api.app.key));
    let mut headers = vec![
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
    ];
    headers.extend(origin.map(|origin| ("origin", origin)));
    let plain = Plain {
        method: "GET",
        target: &target,
        headers: &headers,
        ..Plain::default()
    };
    let asked = format!("the WebSocket handshake at {location}/KEY");
    match request(&dialled.endpoint, &plain, api.limit).await {
        Ok(reply) => problem_of_reply(&reply, (&asked, &location), api),
        Err(error) => Problem::new("socket", error.to_string(), "look at the server's log"),
    }
}

fn problem_of_reply(reply: &Reply, (asked, location): (&str, &str), api: &Api<'_>) -> Problem {
    let dialled = &api.places.public;
    let endpoint = &dialled.endpoint;
    let is_upgrade = reply.status == 426
        || (matches!(reply.status, 400 | 500)
            && matches!(Responder::of(reply), Responder::Other(_)));
    if is_upgrade {
        return Problem::new(
            "upgrade",
            format!(
                "{endpoint} answers {} to {asked}: the server does not get it as one",
                reply.status
            ),
            "have the proxy pass it on: in nginx proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; \
             proxy_set_header Connection \"upgrade\"; in Apache ProxyPass … upgrade=websocket",
        );
    }
    reach::problem_of_unknown_answer(reply, (asked, location), dialled)
}

async fn join(socket: &mut Socket, api: &Api<'_>, channel: &str) -> Result<(), Problem> {
    let lost =
        |error: SocketError| Problem::new("socket", error.to_string(), "look at the server's log");
    socket.subscribe(api.app, channel, "").await.map_err(lost)?;
    let joined = next(socket, api.limit, |message| {
        matches!(
            message.event.as_str(),
            "pusher_internal:subscription_succeeded" | "pusher:subscription_error" | "pusher:error"
        )
    });
    match joined.await.map_err(lost)? {
        Some(message) if message.event.ends_with("succeeded") => Ok(()),
        Some(message) => Err(Problem::new(
            "private-channel",
            format!(
                "{} refuses a private channel: {}",
                api.places.public.endpoint, message.data
            ),
            api.fix_of("SECRET"),
        )),
        None => Err(Problem::new(
            "private-channel",
            format!(
                "{} does not answer a subscription",
                api.places.public.endpoint
            ),
            "look at the server's log",
        )),
    }
}

/// Publishes, and returns how long the last event took to arrive.
async fn receive(socket: &mut Socket, api: &Api<'_>, channel: &str) -> Result<Duration, Problem> {
    for _ in 0..EVENTS {
        api.publish(channel, 0).await?;
    }
    let published = Instant::now();
    let mut arrived = 0;
    while arrived < EVENTS {
        let event = next(socket, api.limit, |message| {
            message.event == "resound-doctor"
        })
        .await;
        match event {
            Ok(Some(_)) => arrived += 1,
            Ok(None) => break,
            Err(error) => {
                return Err(Problem::new(
                    "socket",
                    error.to_string(),
                    "look at the server's log",
                ));
            }
        }
    }
    if arrived == EVENTS {
        return Ok(published.elapsed());
    }
    let (publish, public) = (&api.places.publish, &api.places.public);
    Err(Problem::new(
        "delivery",
        format!(
            "of {EVENTS} events published to {} {arrived} arrived at a socket of {}: these are different servers that do not \
             know each other",
            publish.endpoint, public.endpoint
        ),
        format!(
            "let servers behind one address share a Redis (REVERB_SCALING_ENABLED=true on each), or publish to the server that \
             has the sockets ({})",
            publish.said
        ),
    ))
}

/// The next message of a kind, if one comes in time.
async fn next(
    socket: &mut Socket,
    limit: Duration,
    is_it: impl Fn(&Message) -> bool,
) -> Result<Option<Message>, SocketError> {
    let deadline = Instant::now() + limit;
    loop {
        match timeout_at(deadline, socket.next()).await {
            Ok(message) => {
                let message = message?;
                if is_it(&message) {
                    return Ok(Some(message));
                }
            }
            Err(_) => return Ok(None),
        }
    }
}

/// Waits as a page does on which nothing happens: pings after some silence, and answers pings.
pub(super) async fn wait_idle(
    mut socket: Socket,
    places: &Places,
    report: &mut Report<'_>,
) -> Result<(), Problem> {
    let time = MIN_IDLE.max(socket.activity_timeout() * PINGS);
    let begin = Instant::now();
    let ended = loop {
        match timeout_at(begin + time, socket.next()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => break error,
            Err(_) => {
                report.ok(
                    "idle",
                    format!("an idle socket was kept for {} s", time.as_secs()),
                );
                return Ok(());
            }
        }
    };
    if let SocketError::Closed { .. } = ended {
        // The server has said so itself.
        return Err(Problem::new(
            "idle",
            ended.to_string(),
            "look at the server's log",
        ));
    }
    let after = begin.elapsed().as_secs_f32();
    Err(Problem::new(
        "idle",
        format!(
            "{}: a socket on which nothing happened was cut off after {after:.0} s ({ended})",
            places.public.endpoint
        ),
        "raise the time-out of the proxy above the server's ping interval (60 s): nginx proxy_read_timeout 120s; \
         HAProxy timeout tunnel 1h; Apache ProxyPass … timeout=120; a load balancer's idle time-out",
    ))
}

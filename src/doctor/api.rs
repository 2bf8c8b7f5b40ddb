//! The HTTP API, as Laravel asks it.

use std::cell::OnceCell;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::places::{Dialled, Places};
use super::reach;
use super::report::{Problem, Report};
use crate::client::http::{Call, JSON, Plain, Reply, cut, escape, request, signed};
use crate::client::{ClientError, Credentials};
use crate::config::Config;

/// How far clocks may be apart before Pusher, and Resound by default, refuse (10 minutes): half
/// of it is worth knowing.
const MAX_SKEW: Duration = Duration::from_secs(300);

/// The API of one application.
pub(super) struct Api<'a> {
    pub(super) config: &'a Config,
    pub(super) places: &'a Places,
    pub(super) app: &'a Credentials,
    pub(super) limit: Duration,
    /// Which server it is, once it was asked.
    pub(super) server: OnceCell<Server>,
}

/// A server, as its answers tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Server {
    Resound,
    /// Laravel Reverb, or one that has its texts.
    Reverb,
    Other,
}

impl Api<'_> {
    /// Asks as Laravel does: a query, and an event as large as one may be.
    pub(super) async fn check(&self, report: &mut Report<'_>) -> Result<(), Problem> {
        let dialled = &self.places.publish;
        reach::check(dialled, (self.config, self.places), self.limit, report).await?;
        let endpoint = &dialled.endpoint;
        let how = if endpoint.is_secure {
            ", with TLS that is trusted"
        } else {
            ""
        };
        report.ok(
            "connect",
            format!("{endpoint}{how} (dialled by Laravel: {})", dialled.said),
        );
        self.identify().await;
        let list = Call {
            method: "GET",
            path: "/channels",
            query: &[("filter_by_prefix", "presence-resound-doctor")],
            body: "",
        };
        let reply = self.ask(&list).await?;
        let asked = format!("GET {}/apps/{}/channels", endpoint.prefix, self.app.id);
        self.judge(&reply, &asked).await?;
        check_clock(&reply, report);
        report.ok(
            "signature",
            format!(
                "{endpoint} takes requests that are signed for application {}",
                self.app.id
            ),
        );
        let size = self.size_of_large_event();
        let channel = format!("resound-doctor-{}", random());
        let answer = self.publish(&channel, size).await?;
        if let Some(answer) = answer {
            // Its own limit is no fault on the way.
            report.note("body-size", answer);
        } else {
            report.ok(
                "body-size",
                format!("{endpoint} takes an event of {size} bytes"),
            );
        }
        Ok(())
    }

    pub(super) fn server(&self) -> Server {
        self.server.get().copied().unwrap_or(Server::Other)
    }

    /// Finds out which server it is, by what it says to somebody who does not sign.
    async fn identify(&self) {
        let path = format!("/apps/{}/channels", escape(&self.app.id));
        let unsigned = reach::get(&self.places.publish, &path, self.limit).await;
        let server = match unsigned {
            Ok(reply) if reply.body.contains("auth_key is missing.") => Server::Resound,
            Ok(reply) if reply.body.trim() == "Authentication signature invalid." => Server::Reverb,
            _ => Server::Other,
        };
        // It is set once.
        let _ = self.server.set(server);
    }

    /// How large a body may well be: of Resound as large as its greatest event, of others as
    /// Reverb's default has it, whose 10 000 bytes have the headers in them.
    fn size_of_large_event(&self) -> usize {
        let app = self.config.apps.iter().find(|app| app.id == self.app.id);
        match app {
            Some(app) if self.server() == Server::Resound => app.events.data,
            _ => 8000,
        }
    }

    /// Publishes a small event in a body of at least this size; what the server itself says if
    /// that is too much for it.
    pub(super) async fn publish(
        &self,
        channel: &str,
        size: usize,
    ) -> Result<Option<String>, Problem> {
        let event = json!({ "name": "resound-doctor", "channels": [channel], "data": "{}" });
        let mut body = event.to_string();
        // Spaces are part of the body, and not of the event.
        body.extend(std::iter::repeat_n(' ', size.saturating_sub(body.len())));
        let call = Call {
            method: "POST",
            path: "/events",
            query: &[],
            body: &body,
        };
        let reply = self.ask(&call).await?;
        if reply.status == 413 && reply.body.starts_with("Payload too large") {
            return Ok(Some(format!(
                "the server takes no body of {size} bytes (REVERB_MAX_REQUEST_SIZE): {}",
                cut(&reply.body)
            )));
        }
        let endpoint = &self.places.publish.endpoint;
        let asked = format!("POST {}/apps/{}/events", endpoint.prefix, self.app.id);
        self.judge(&reply, &asked).await?;
        Ok(None)
    }

    async fn ask(&self, call: &Call<'_>) -> Result<Reply, Problem> {
        let dialled = &self.places.publish;
        let plain = Plain {
            method: call.method,
            target: &signed(&dialled.endpoint, self.app, call),
            body: (JSON, call.body),
            ..Plain::default()
        };
        match request(&dialled.endpoint, &plain, self.limit).await {
            Ok(reply) => Ok(reply),
            Err(error @ ClientError::Lost { .. }) => {
                Err(reach::problem_of_loss(&error, dialled, self.limit).await)
            }
            Err(error) => Err(Problem::new(
                "server",
                error.to_string(),
                format!(
                    "look at the log of what listens there; correct {}, if it is the wrong place",
                    dialled.said
                ),
            )),
        }
    }

    /// What an answer says of the way to the server, and of the credentials.
    async fn judge(&self, reply: &Reply, asked: &str) -> Result<(), Problem> {
        let is_json = serde_json::from_str::<Value>(&reply.body).is_ok();
        let body = reply.body.trim();
        match reply.status {
            200 if is_json => Ok(()),
            401 if body.starts_with('<') || reply.header("www-authenticate").is_some() => {
                Err(Problem::new(
                    "password",
                    format!(
                        "{asked} is answered with 401, by something in front that asks for a password"
                    ),
                    "exempt /app/ and /apps/ from it: in nginx, auth_basic off; in their locations",
                ))
            }
            401 => Err(self.problem_of_signature(body, asked)),
            // Resound's and Reverb's, and soketi's.
            404 if body.starts_with("No matching application") || body.contains("The app ") => {
                Err(Problem::new(
                    "application",
                    format!(
                        "{asked}: the server that answers has no application {:?}",
                        self.app.id
                    ),
                    self.fix_of("ID"),
                ))
            }
            404 if body == "Not found." && self.find_prefix().await.is_none() => Err(Problem::new(
                "path",
                format!(
                    "{asked} is answered with 404: {body} It arrives as another path, which a proxy has made of it"
                ),
                "have the proxy pass on the path as it is: in nginx a proxy_pass without a path behind the address",
            )),
            // Resound's, or Reverb's.
            429 | 500 | 503 if body.starts_with("Over capacity") || is_own_error(reply) => {
                Err(Problem::new(
                    "server",
                    format!("{asked} is answered with {}: {}", reply.status, cut(body)),
                    "look at the server's log",
                ))
            }
            status => {
                let dialled = &self.places.publish;
                if status == 404
                    && let Some(prefix) = self.find_prefix().await
                {
                    return Err(wrong_prefix(dialled, &prefix, asked));
                }
                let location = format!("{}/apps", dialled.endpoint.prefix);
                Err(reach::problem_of_unknown_answer(
                    reply,
                    (asked, &location),
                    dialled,
                ))
            }
        }
    }

    /// Each of Resound's texts names one cause; Reverb and others have one text for all.
    fn problem_of_signature(&self, body: &str, asked: &str) -> Problem {
        let said = format!("{asked} is answered with 401: {}", cut(body));
        let (check, fix) = if body.contains("does not belong to application") {
            ("application", self.fix_of("KEY"))
        } else if body.contains(" is missing.") {
            (
                "query",
                "have the proxy pass on the query: in nginx a proxy_pass without a path behind the address, or with \
                 $is_args$args at its end"
                    .to_owned(),
            )
        } else if body.contains("this server's clock") {
            (
                "clock",
                "set the clock of this machine or of the server (timedatectl set-ntp true)"
                    .to_owned(),
            )
        } else if body.contains("The body_md5") {
            (
                "body",
                "have the proxy pass on the body as it is".to_owned(),
            )
        } else if let Some(path) = path_that_arrived(body).filter(|path| !asked.ends_with(path)) {
            (
                "path",
                format!(
                    "have the proxy pass on the path as it is: it arrives as {path}; in nginx a proxy_pass without a path \
                     behind the address"
                ),
            )
        } else {
            let fix = self.fix_of("SECRET");
            let fix = if body.contains("does not match") {
                fix
            } else {
                format!(
                    "{fix}; if they are the same, the proxy drops the query (nginx: $is_args$args), or clocks differ"
                )
            };
            ("signature", fix)
        };
        Problem::new(check, said, fix)
    }

    /// Which line has to be the same on both sides.
    pub(super) fn fix_of(&self, what: &str) -> String {
        let name = format!("REVERB_APP_{what}");
        let place = match self.config.laravel.get(name.as_str()) {
            Some(said) => said.place.clone(),
            None => self.config.read_from(),
        };
        let how = match self.server() {
            Server::Reverb => "php artisan config:clear and reverb:restart",
            Server::Resound | Server::Other => "resound check, resound reload, or restart it",
        };
        format!(
            "make {name} ({place}) that of the server which answers at {}: it may run with other settings, or with those \
             from before a change ({how})",
            self.places.publish.endpoint
        )
    }

    /// A prefix below which the API is, if it is another one.
    async fn find_prefix(&self) -> Option<String> {
        let mut other = self.places.publish.clone();
        let candidates = [self.config.server.path.as_str(), "", "/ws", "/reverb"];
        for prefix in candidates {
            if prefix == self.places.publish.endpoint.prefix {
                continue;
            }
            prefix.clone_into(&mut other.endpoint.prefix);
            let path = format!("/apps/{}/channels", self.app.id);
            if let Ok(reply) = reach::get(&other, &path, self.limit).await
                && reply.status == 401
                && reply.body.contains("ignature")
            {
                return Some(prefix.to_owned());
            }
        }
        None
    }
}

/// Whether Reverb says that it has failed, or a server that there are too many requests.
fn is_own_error(reply: &Reply) -> bool {
    let body = reply.body.trim();
    reply.status != 503 && !body.starts_with('<') && !body.is_empty()
}

fn wrong_prefix(dialled: &Dialled, prefix: &str, asked: &str) -> Problem {
    let shown = if prefix.is_empty() {
        "no prefix"
    } else {
        prefix
    };
    Problem::new(
        "prefix",
        format!(
            "{asked} is answered with 404, and with {shown} in place of {:?} the server is there",
            dialled.endpoint.prefix
        ),
        format!(
            "say {prefix:?} everywhere: 'path' => env('REVERB_SERVER_PATH') among the options in config/broadcasting.php, \
             wsPath in Echo's options, and the URL given here"
        ),
    )
}

/// The path in Resound's text of a signature that does not match.
fn path_that_arrived(body: &str) -> Option<&str> {
    let (_, rest) = body.split_once("does not match ")?;
    let (request, _) = rest.split_once(" and its query")?;
    request.split_once(' ').map(|(_, path)| path)
}

/// Warns of a clock that is nearly too far off.
fn check_clock(reply: &Reply, report: &mut Report<'_>) {
    let date = reply.header("date").map(httpdate::parse_http_date);
    let Some(Ok(date)) = date else {
        return;
    };
    let now = SystemTime::now();
    let off = now
        .duration_since(date)
        .unwrap_or_else(|ahead| ahead.duration());
    if off > MAX_SKEW {
        report.warn(
            "clock",
            format!("the clock of the server that answers is {} s from this machine's; 600 s are allowed", off.as_secs()),
            "set the clock of one of the two (timedatectl set-ntp true)",
        );
    }
}

/// For names that nobody else has.
pub(super) fn random() -> String {
    let number = getrandom::u64();
    number.map_or_else(
        |_| std::process::id().to_string(),
        |it| format!("{it:016x}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_that_arrived_is_found_in_the_answer() {
        let body = "Authentication signature invalid. The auth_signature does not match GET /x/apps/1/channels and its query: \
            the secret differs, or a proxy changed the path or the query.";
        assert_eq!(path_that_arrived(body), Some("/x/apps/1/channels"));
        assert_eq!(path_that_arrived("Authentication signature invalid."), None);
    }
}

//! The application's own answer to who may join a channel.

use serde_json::Value;
use url::Url;

use super::UsageError;
use super::api::Api;
use super::places::{endpoint_of, origin_of};
use super::project::Project;
use super::report::{Problem, Report};
use crate::client::ClientError;
use crate::client::http::{Plain, Reply, cut, request};

/// A socket id as servers make them.
const SOCKET_ID: &str = "1234.5678";

/// A channel that nobody has.
const CHANNEL: &str = "private-resound-doctor";

const FORM: &str = "application/x-www-form-urlencoded";

/// Reads headers that were given, name and value.
pub(super) fn headers(given: &[String]) -> Result<Vec<(String, String)>, UsageError> {
    let read = |text: &String| {
        let (name, value) = text.split_once(':')?;
        let is_token = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let is_name = !name.is_empty() && name.chars().all(is_token);
        let value = value.trim();
        let is_value = value.chars().all(|c| !c.is_control() && c.is_ascii());
        (is_name && is_value).then(|| (name.to_ascii_lowercase(), value.to_owned()))
    };
    given
        .iter()
        .map(|text| read(text).ok_or(UsageError::Header))
        .collect()
}

/// Asks as Echo does, from the page.
pub(super) async fn check(
    api: &Api<'_>,
    channel: Option<&str>,
    given: &[(String, String)],
    project: Option<&Project>,
    report: &mut Report<'_>,
) -> Result<(), Problem> {
    let Some(url) = &api.places.auth else {
        if project.is_some_and(|it| !it.auth_routes().is_empty()) {
            report.note(
                "auth-endpoint",
                "not looked at: APP_URL is no URL; --auth names the whole address",
            );
            return Ok(());
        }
        if project.is_some_and(Project::has_channels) {
            return Err(Problem::new(
                "auth-endpoint",
                "the project has no route broadcasting/auth: nobody can join private and presence channels",
                "name routes/channels.php in bootstrap/app.php, ->withRouting(channels: …), or call Broadcast::routes() \
                 in a service provider; then php artisan route:clear",
            ));
        }
        report.note(
            "auth-endpoint",
            "not looked at: --auth names it, such as https://example.com/broadcasting/auth",
        );
        return Ok(());
    };
    let asked = Asked { api, url };
    let page = api.places.page.as_ref();
    let foreign = page.map(origin_of).filter(|it| *it != origin_of(url));
    if let Some(origin) = &foreign {
        asked.check_cors(origin, given).await?;
        report.ok("cors", format!("{url} lets pages of {origin} ask"));
    }
    let (mut headers, has_token) = match page {
        // A page of the same host has a session, and Laravel's proof that it is the page's.
        Some(page) if foreign.is_none() => asked.session(page, given).await,
        _ => (Vec::new(), false),
    };
    headers.extend_from_slice(given);
    if let Some(page) = page {
        headers.push(("origin".to_owned(), origin_of(page)));
    }
    let body: String = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("socket_id", SOCKET_ID)
        .append_pair("channel_name", channel.unwrap_or(CHANNEL))
        .finish();
    let reply = asked.send("POST", &headers, &body).await?;
    if given.is_empty() && asked.is_guest_refused(&reply, &headers, &body).await {
        let text = format!(
            "{url} refuses a guest ({}); --header asks as a user",
            reply.status
        );
        report.ok("auth-endpoint", text);
        return Ok(());
    }
    if reply.status == 403 && !given.is_empty() && channel.is_none() {
        report.ok(
            "auth-endpoint",
            format!("{url} knows this user; --channel asks for a channel"),
        );
        return Ok(());
    }
    asked.judge(&reply, channel.unwrap_or(CHANNEL), has_token, report)
}

struct Asked<'a> {
    api: &'a Api<'a>,
    url: &'a Url,
}

impl Asked<'_> {
    async fn send(
        &self,
        method: &'static str,
        headers: &[(String, String)],
        body: &str,
    ) -> Result<Reply, Problem> {
        let answer = self.ask(self.url, method, headers, body).await;
        answer.map_err(|error| {
            let fix =
                "start the application, or correct APP_URL in .env; --auth names another address";
            Problem::new("auth-endpoint", error.to_string(), fix)
        })
    }

    async fn ask(
        &self,
        url: &Url,
        method: &'static str,
        headers: &[(String, String)],
        body: &str,
    ) -> Result<Reply, ClientError> {
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let plain = Plain {
            method,
            target: &url[url::Position::BeforePath..url::Position::AfterQuery],
            headers: &headers,
            body: (FORM, body),
        };
        request(&endpoint_of(url), &plain, self.api.limit).await
    }

    /// What a browser asks before, of another host.
    async fn check_cors(&self, origin: &str, given: &[(String, String)]) -> Result<(), Problem> {
        let names: Vec<&str> = given.iter().map(|(name, _)| name.as_str()).collect();
        let names = if names.is_empty() {
            "authorization".to_owned()
        } else {
            names.join(",")
        };
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", &names),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let reply = self.send("OPTIONS", &headers, "").await?;
        let allowed = reply.header("access-control-allow-origin");
        if reply.status < 300 && allowed.is_some_and(|it| it == "*" || it == origin) {
            return Ok(());
        }
        let path = self.url.path().trim_start_matches('/');
        let shown = allowed.map_or("no Access-Control-Allow-Origin".to_owned(), |it| {
            format!("Access-Control-Allow-Origin: {}", cut(it))
        });
        Err(Problem::new(
            "cors",
            format!(
                "{} answers {} to the preflight of a page of {origin}, with {shown}: browsers do not let the page ask",
                self.url, reply.status
            ),
            format!("in config/cors.php, add '{path}' to paths and '{origin}' to allowed_origins"),
        ))
    }

    /// Cookies of the page, unless some are given, and its token against forged requests; whether
    /// it shows one. The page is asked for as it will be asked who may join.
    async fn session(
        &self,
        page: &Url,
        given: &[(String, String)],
    ) -> (Vec<(String, String)>, bool) {
        let Ok(reply) = self.ask(page, "GET", given, "").await else {
            return (Vec::new(), false);
        };
        let is_given = given.iter().any(|(name, _)| name == "cookie");
        let cookies = reply.headers.get_all("set-cookie").iter();
        let cookies: Vec<&str> = cookies
            .filter_map(|it| it.to_str().ok()?.split(';').next())
            .collect();
        let mut headers = Vec::new();
        if !cookies.is_empty() && !is_given {
            headers.push(("cookie".to_owned(), cookies.join("; ")));
        }
        let token = token_of(&reply.body).map(str::to_owned);
        let has_token = token.is_some();
        headers.extend(token.map(|token| ("x-csrf-token".to_owned(), token)));
        (headers, has_token)
    }

    /// Whether somebody who is not logged in is refused: with a status, or, as the guards of
    /// sessions do, with a login page for those who do not ask for JSON.
    async fn is_guest_refused(
        &self,
        reply: &Reply,
        headers: &[(String, String)],
        body: &str,
    ) -> bool {
        let is_refusal = |reply: &Reply| {
            matches!(reply.status, 401 | 403) && reply.header("www-authenticate").is_none()
        };
        if !matches!(reply.status, 300..=399 | 500) {
            return is_refusal(reply);
        }
        let mut headers = headers.to_vec();
        headers.push(("accept".to_owned(), "application/json".to_owned()));
        let again = self.ask(self.url, "POST", &headers, body).await;
        again.is_ok_and(|reply| is_refusal(&reply))
    }

    fn judge(
        &self,
        reply: &Reply,
        channel: &str,
        has_token: bool,
        report: &mut Report<'_>,
    ) -> Result<(), Problem> {
        let url = self.url;
        let status = reply.status;
        let problem = |text: String, fix: &'static str| {
            Err(Problem::new(
                "auth-endpoint",
                format!("{url} answers {status}: {text}"),
                fix,
            ))
        };
        match status {
            200 => self.judge_signature(reply, channel, report),
            401 => problem(
                "the user of these headers is not known".to_owned(),
                "log in anew, or look at the guard in the route's middleware (auth:sanctum)",
            ),
            403 => problem(
                format!("this user may not join {channel}, or the headers are nobody's any more"),
                "look at the callback of that channel in routes/channels.php: its pattern has no private- or presence-, \
                 and it returns true or, for presence, an array; a cookie or token may have ended",
            ),
            404 | 405 => problem(
                "there is no such route".to_owned(),
                "set authEndpoint in Echo's options to the route of php artisan route:list --path=broadcasting, \
                 and APP_URL to the application's address",
            ),
            419 => problem(
                if has_token {
                    "the token of the page is refused"
                } else {
                    "the page has no token"
                }
                .to_owned()
                    + " against forged requests (CSRF)",
                "use Broadcast::routes(), which asks for no token, in place of a route of your own; or put \
                 <meta name=\"csrf-token\" content=\"{{ csrf_token() }}\"> into the page's head",
            ),
            300..=399 => problem(
                format!(
                    "it redirects to {}, a login as a rule, instead of refusing",
                    cut(reply.header("location").unwrap_or_default())
                ),
                "have Echo send what the route's guard wants: auth: { headers: { Authorization: 'Bearer …', Accept: 'application/json' } }, \
                 or use the guard that the page is logged in with",
            ),
            _ => problem(cut(&reply.body), "look at storage/logs/laravel.log"),
        }
    }

    fn judge_signature(
        &self,
        reply: &Reply,
        channel: &str,
        report: &mut Report<'_>,
    ) -> Result<(), Problem> {
        let url = self.url;
        let answer: Value = serde_json::from_str(&reply.body).unwrap_or_default();
        let Some(auth) = answer["auth"].as_str() else {
            return Err(Problem::new(
                "auth-endpoint",
                format!(
                    "{url} answers 200, and not with JSON that has \"auth\"{}",
                    if reply.body.trim_start().starts_with('<') {
                        ", but with a page"
                    } else {
                        ""
                    }
                ),
                "set authEndpoint in Echo's options to the route of php artisan route:list --path=broadcasting; a page \
                 instead of JSON is that of another route, or of a login",
            ));
        };
        let expected =
            self.api
                .app
                .sign_subscription(SOCKET_ID, channel, answer["channel_data"].as_str());
        if auth == expected {
            report.ok(
                "auth-endpoint",
                format!("{url} lets this user join {channel}"),
            );
            return Ok(());
        }
        Err(Problem::new(
            "auth-endpoint",
            format!(
                "{url} signs with other credentials than those of application {:?}",
                self.api.app.id
            ),
            self.api.fix_of("SECRET"),
        ))
    }
}

/// The content of `<meta name="csrf-token" content="…">`.
fn token_of(page: &str) -> Option<&str> {
    let (_, rest) = page.split_once("name=\"csrf-token\"")?;
    let (tag, _) = rest.split_once('>')?;
    let (_, value) = tag.split_once("content=\"")?;
    let (token, _) = value.split_once('"')?;
    Some(token).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_of_a_page_is_in_its_meta_tag() {
        let page = |tag: &str| format!("<html><head><meta charset=\"UTF-8\">{tag}</head></html>");
        for (tag, token) in [
            ("<meta name=\"csrf-token\" content=\"abc\">", Some("abc")),
            ("<meta name=\"csrf-token\" content=\"\">", None),
            ("<meta name=\"csrf-token\"><meta content=\"x\">", None),
            ("", None),
        ] {
            assert_eq!(token_of(&page(tag)), token, "{tag}");
        }
    }

    #[test]
    fn headers_have_a_name_and_a_value() {
        let read = |text: &str| headers(&[text.to_owned()]);
        let expected = ("authorization".to_owned(), "Bearer 1|a:b".to_owned());
        assert_eq!(read("Authorization: Bearer 1|a:b").unwrap(), [expected]);
        for wrong in ["", "Authorization", ": x", "a b: c", "a: b\r\nc: d"] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}

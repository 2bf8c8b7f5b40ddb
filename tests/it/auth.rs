//! Who may publish: every check has its own answer, and none lets anything through.

use crate::support::http::now;
use crate::support::{Client, Http, Signed, TestServer, body};

const FIRST: &str = "Authentication signature invalid. ";

/// Each request is refused with 401 and Reverb's first sentence.
#[test]
fn each_failed_check_is_answered_with_its_reason() {
    let server = TestServer::start();
    let mut listener = Client::connect(&server);
    listener.subscribe("lobby");
    let body = body(&["lobby"], "ev", "x");
    let signed = || Signed::post("events", &body);
    let mut other_secret = signed();
    other_secret.secret = "other-secret";
    let mut other_method = signed();
    other_method.method = "GET";
    let hour = 3600;
    for (request, rest) in [
        (
            signed().without("auth_key"),
            "The query parameter auth_key is missing.".to_owned(),
        ),
        (
            signed().without("auth_version"),
            "The query parameter auth_version is missing.".to_owned(),
        ),
        (
            signed().without("auth_timestamp"),
            "The query parameter auth_timestamp is missing.".to_owned(),
        ),
        (
            signed().without("body_md5"),
            "The query parameter body_md5 is missing.".to_owned(),
        ),
        (
            signed().set("auth_key", "nobody"),
            "The auth_key \"nobody\" does not belong to application \"my-app-id\".".to_owned(),
        ),
        (
            signed().set("auth_version", "2.0"),
            "The auth_version is \"2.0\", expected \"1.0\".".to_owned(),
        ),
        (
            signed().set("auth_timestamp", "soon"),
            "The auth_timestamp \"soon\" is not a Unix time in seconds.".to_owned(),
        ),
        (
            signed().set("body_md5", &"0".repeat(32)),
            "The body_md5 is not that of the body, which was changed on its way.".to_owned(),
        ),
        (
            signed().set("body_md5", "x"),
            "The body_md5 is not that of the body, which was changed on its way.".to_owned(),
        ),
        (
            other_secret,
            "The auth_signature does not match POST /apps/my-app-id/events and its query: \
             the secret differs, or a proxy changed the path or the query."
                .to_owned(),
        ),
    ] {
        let answer = Http::connect(&server).request("POST", &request.target(), &body);
        assert_eq!(
            (answer.status, answer.body),
            (401, format!("{FIRST}{rest}"))
        );
    }
    for (timestamp, direction) in [(now() - hour, "behind"), (now() + hour, "ahead of")] {
        let request = signed().set("auth_timestamp", &timestamp.to_string());
        let answer = Http::connect(&server).request("POST", &request.target(), &body);
        let off: u64 = answer
            .body
            .split(' ')
            .find_map(|word| word.parse().ok())
            .unwrap();
        assert!((hour - 5..=hour + 5).contains(&off), "{}", answer.body);
        assert!(
            answer.body.contains(&format!(
                " s {direction} this server's clock, 600 s are allowed"
            )),
            "{}",
            answer.body
        );
    }
    let target = signed().target();
    for spoiled in [
        target.split("&auth_signature").next().unwrap().to_owned(),
        format!("{target}0"),
        format!("{target}&extra=unsigned"),
        other_method.target(),
    ] {
        let answer = Http::connect(&server).request("POST", &spoiled, &body);
        assert_eq!(answer.status, 401, "{spoiled}");
        assert!(
            answer.body.starts_with(FIRST) && !answer.body.contains("my-app-secret"),
            "{}",
            answer.body
        );
    }
    listener.expect_silence();
}

#[test]
fn what_is_rightly_signed_is_accepted_in_every_form() {
    let server = TestServer::start();
    let mut listener = Client::connect(&server);
    listener.subscribe("lobby");
    let body = body(&["lobby"], "ev", "x");
    let signed = || Signed::post("events", &body);
    let mut reversed = signed();
    reversed.query.reverse();
    let mut upper = signed();
    upper
        .query
        .iter_mut()
        .for_each(|(key, _)| *key = key.to_uppercase());
    let spaces = signed().set("extra", "a b");
    let target = spaces.target();
    for target in [
        signed().target(),
        reversed.target(),
        upper.target(),
        signed()
            .set("auth_timestamp", &(now() - 590).to_string())
            .target(),
        signed().set("foo", "bar").target(),
        target.replace("a b", "a%20b"),
        target.replace("a b", "a+b"),
        signed()
            .target()
            .replace(&signed().signature(), &signed().signature().to_uppercase()),
    ] {
        let answer = Http::connect(&server).request("POST", &target, &body);
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, "{}"),
            "{target}"
        );
        listener.expect(r#"{"event":"ev","data":"x","channel":"lobby"}"#);
    }
}

/// pusher-http-php signs `info => ['a', 'b']` as `info=a,b` and sends `info[0]=a&info[1]=b`;
/// Reverb accepts that. What was signed is what is answered, in whatever parts it came.
#[test]
fn a_list_is_signed_as_phps_sdk_writes_it() {
    let server = TestServer::start();
    let mut client = Client::connect(&server);
    client.subscribe("cache-a");
    let mut http = Http::connect(&server);
    let mut ask = |path: &str, pairs: &[(&str, &str)], sent: &[(&str, &str)]| {
        let mut signed = Signed::post(path, "").without("body_md5");
        signed.method = "GET";
        for (key, value) in pairs {
            signed = signed.set(key, value);
        }
        let mut target = signed.target();
        for ((key, value), (_, parts)) in pairs.iter().zip(sent) {
            target = target.replace(&format!("{key}={value}"), parts);
        }
        let answer = http.request("GET", &target, "");
        (answer.status, answer.body)
    };
    let body = r#"{"cache":null,"occupied":true,"subscription_count":1}"#;
    let both = "subscription_count,cache";
    for parts in [
        "info%5B0%5D=subscription_count&info%5B1%5D=cache",
        "info[]=subscription_count&info[]=cache",
        "info[0]=subscription_count,cache",
    ] {
        let answer = ask("channels/cache-a", &[("info", both)], &[("info", parts)]);
        assert_eq!(answer, (200, body.to_owned()), "{parts}");
    }
    let other = "info[0]=subscription_count&info[1]=user_count";
    for (parts, status) in [(other, 401), ("info[0][0]=subscription_count,cache", 401)] {
        let answer = ask("channels/cache-a", &[("info", both)], &[("info", parts)]);
        assert_eq!(answer.0, status, "{parts}");
    }
    // The prefix that was signed holds, also if somebody makes a list of it.
    let narrow = [("filter_by_prefix", "private-")];
    let spoiled = [("filter_by_prefix", "filter_by_prefix[]=private-")];
    let answer = ask("channels", &narrow, &spoiled);
    assert_eq!(answer, (200, r#"{"channels":{}}"#.to_owned()));
    // A caller may sign the keys as it sends them.
    let listed = [("info[]", "subscription_count")];
    let answer = ask("channels/cache-a", &listed, &[]);
    let body = r#"{"occupied":true,"subscription_count":1}"#;
    assert_eq!(answer, (200, body.to_owned()));
}

#[test]
fn the_clock_check_can_be_widened_and_switched_off() {
    let body = body(&["lobby"], "ev", "x");
    for (tolerance, timestamp, status) in [
        ("10", now() - 60, 401),
        ("100", now() - 60, 200),
        ("0", 0, 200),
        ("0", now() + 1_000_000, 200),
    ] {
        let server = TestServer::with(&[("RESOUND_TIMESTAMP_TOLERANCE", tolerance)]);
        let request = Signed::post("events", &body).set("auth_timestamp", &timestamp.to_string());
        assert_eq!(
            Http::connect(&server)
                .request("POST", &request.target(), &body)
                .status,
            status,
            "{tolerance}"
        );
    }
}

#[test]
fn the_path_is_signed_with_or_without_the_prefix() {
    let server = TestServer::with(&[("REVERB_SERVER_PATH", "/ws")]);
    let body = body(&["lobby"], "ev", "x");
    for (sent, signed, status) in [
        ("/ws/apps/my-app-id/events", "/apps/my-app-id/events", 200),
        (
            "/ws/apps/my-app-id/events",
            "/ws/apps/my-app-id/events",
            200,
        ),
        ("/apps/my-app-id/events", "/ws/apps/my-app-id/events", 200),
        ("/apps/my-app-id/events", "/apps/my-app-id/events", 200),
        (
            "/ws/apps/my-app-id/events",
            "/other/apps/my-app-id/events",
            401,
        ),
    ] {
        let mut request = Signed::post("events", &body);
        request.path = signed.to_owned();
        let target = request.target().replacen(signed, sent, 1);
        assert_eq!(
            Http::connect(&server)
                .request("POST", &target, &body)
                .status,
            status,
            "{sent} {signed}"
        );
    }
}

#[test]
fn an_unknown_application_is_answered_before_anything_else() {
    let server = TestServer::start();
    let answer = Http::connect(&server).request("POST", "/apps/nobody/events", "{}");
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (404, "No matching application for ID [nobody].")
    );
}

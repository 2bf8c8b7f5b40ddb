//! The HTTP side apart from signatures.

use crate::support::http::parsed;
use crate::support::{Client, Http, Signed, TestServer, body};
use serde_json::json;

#[test]
fn up_answers_get_and_head() {
    let server = TestServer::start();
    let mut http = Http::connect(&server);
    for target in ["/up", "/up?x=1"] {
        let answer = http.request("GET", target, "");
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, r#"{"health":"OK"}"#)
        );
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    let answer = http.request("HEAD", "/up", "");
    assert_eq!(
        (answer.status, answer.header("content-length")),
        (200, Some("15"))
    );
    let answer = http.request("POST", "/up", "");
    assert_eq!(
        (answer.status, answer.header("allow")),
        (405, Some("GET, HEAD"))
    );
}

/// Several nodes are the subject of `tests/cluster`.
#[test]
fn a_server_without_other_nodes_is_ready_when_it_is_up() {
    let server = TestServer::start();
    let mut http = Http::connect(&server);
    let answer = http.request("GET", "/ready", "");
    assert_eq!(
        (answer.status, &parsed(&answer)["ready"]),
        (200, &json!(true))
    );
    assert_eq!(http.request("POST", "/ready", "").status, 405);
}

/// A proxy and the server behind it must not take a request for different hosts.
#[test]
fn a_request_without_its_host_or_with_two_is_answered_with_400() {
    let server = TestServer::start();
    let body = body(&["lobby"], "ev", "x");
    let publish = Signed::post("events", &body).target();
    for (hosts, version, status) in [
        ("", "1.1", 400),
        ("Host: x\r\nHost: x\r\n", "1.1", 400),
        ("Host: x\r\nhost: y\r\n", "1.0", 400),
        ("Host: a, b\r\n", "1.1", 400),
        ("Host: user@x\r\n", "1.1", 400),
        ("Host: x/y\r\n", "1.1", 400),
        ("", "1.0", 200),
        ("Host:\r\n", "1.1", 200),
        ("Host: my_app.test:8080\r\n", "1.1", 200),
        ("Host: [::1]:8080\r\n", "1.1", 200),
    ] {
        for (method, target, body) in [
            ("GET", "/up", ""),
            ("GET", "/ready", ""),
            ("POST", &publish, &body),
        ] {
            let mut http = Http::connect(&server);
            let length = body.len();
            http.write(&format!(
                "{method} {target} HTTP/{version}\r\n{hosts}Content-Length: {length}\r\n\r\n{body}"
            ));
            let answer = http.answer();
            assert_eq!(answer.status, status, "{hosts} {version} {target}");
            let is_explained = answer.body.contains("one header Host");
            assert_eq!(is_explained, status == 400, "{}", answer.body);
        }
    }
}

#[test]
fn one_connection_carries_many_requests_good_and_bad() {
    let server = TestServer::start();
    let mut client = Client::connect(&server);
    client.subscribe("lobby");
    let mut http = Http::connect(&server);
    for n in 0..50 {
        http.publish(&["lobby"], "ev", &n.to_string());
        assert_eq!(
            http.request("POST", "/apps/my-app-id/events", "{}").status,
            401
        );
        assert_eq!(http.request("GET", "/nothing", "").body, "Not found.");
        client.expect(&format!(
            r#"{{"event":"ev","data":"{n}","channel":"lobby"}}"#
        ));
    }
}

#[test]
fn wrong_routes_and_methods_are_refused() {
    let server = TestServer::start();
    let mut http = Http::connect(&server);
    for (method, target, status, text) in [
        ("GET", "/", 404, "Not found."),
        ("GET", "/apps", 404, "Not found."),
        ("GET", "/apps/my-app-id", 404, "Not found."),
        ("POST", "/apps/my-app-id/events/", 404, "Not found."),
        ("POST", "/apps/my-app-id/nothing", 404, "Not found."),
        ("GET", "/demo", 404, "Not found."),
        ("POST", "/demo/sign", 404, "Not found."),
        (
            "GET",
            "/apps/my-app-id/events",
            405,
            "Method not allowed. This address takes POST.",
        ),
        (
            "PUT",
            "/apps/my-app-id/batch_events",
            405,
            "Method not allowed. This address takes POST.",
        ),
    ] {
        let answer = http.request(method, target, "");
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (status, text),
            "{method} {target}"
        );
        assert_eq!(answer.header("allow"), (status == 405).then_some("POST"));
    }
}

#[test]
fn bad_bodies_are_refused_and_publish_nothing() {
    let server = TestServer::start();
    let mut client = Client::connect(&server);
    client.subscribe("lobby");
    let mut http = Http::connect(&server);
    for (body, status, start) in [
        ("{nope", 400, "The request body is not a JSON object: "),
        ("\"x\"", 400, "The request body is not a JSON object: "),
        ("3", 400, "The request body is not a JSON object: "),
        (
            "",
            400,
            "The request body is not a JSON object: it is empty.",
        ),
    ] {
        let answer = http.request("POST", &Signed::post("events", body).target(), body);
        assert_eq!(answer.status, status, "{body}");
        assert!(answer.body.starts_with(start), "{}", answer.body);
    }
    let body = r#"{"name":"ev","channel":"lobby","data":{"x":1}}"#;
    let answer = http.request("POST", &Signed::post("events", body).target(), body);
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (422, Some("application/json"))
    );
    assert_eq!(
        parsed(&answer),
        json!({ "data": ["The data field must be a string."] })
    );
    client.expect_silence();
}

#[test]
fn sizes_over_the_limits_are_refused_with_the_limit() {
    let server = TestServer::with(&[
        ("REVERB_MAX_REQUEST_SIZE", "20000"),
        ("RESOUND_MAX_EVENT_SIZE", "1000"),
    ]);
    let mut http = Http::connect(&server);
    let publish = |http: &mut Http, length: usize| {
        let body = body(&["lobby"], "ev", &"x".repeat(length));
        (
            http.request("POST", &Signed::post("events", &body).target(), &body),
            body.len(),
        )
    };
    assert_eq!(publish(&mut http, 1000).0.status, 200);
    let (answer, _) = publish(&mut http, 1001);
    assert_eq!(answer.status, 413);
    assert_eq!(
        answer.body,
        "Payload too large. The data of an event has 1001 bytes, 1000 are allowed \
         (max_event_size, RESOUND_MAX_EVENT_SIZE)."
    );
    let (answer, size) = publish(&mut http, 500_000);
    assert_eq!(answer.status, 413);
    assert_eq!(
        answer.body,
        format!(
            "Payload too large. The request body has {size} bytes, 20000 are allowed \
             (max_request_size, REVERB_MAX_REQUEST_SIZE)."
        )
    );
    assert_eq!(
        publish(&mut http, 10).0.status,
        200,
        "the connection can go on"
    );
}

#[test]
fn bodies_in_pieces_chunks_and_pipelines_and_after_100_continue_are_read() {
    let server = TestServer::start();
    let mut client = Client::connect(&server);
    client.subscribe("lobby");
    let body = body(&["lobby"], "ev", "x");
    let target = Signed::post("events", &body).target();
    let expected = r#"{"event":"ev","data":"x","channel":"lobby"}"#;
    let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\n");
    let (first, second) = body.split_at(body.len() / 2);
    let mut http = Http::connect(&server);
    http.write(&head);
    http.write(&format!("Content-Length: {}\r\n\r\n{first}", body.len()));
    std::thread::sleep(std::time::Duration::from_millis(50));
    http.write(second);
    assert_eq!(http.answer().status, 200);
    client.expect(expected);
    http.write(&format!(
        "{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
        first.len(),
        second.len()
    ));
    assert_eq!(http.answer().status, 200);
    client.expect(expected);
    http.write(&format!(
        "{head}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ));
    assert_eq!(http.interim(), "HTTP/1.1 100 Continue");
    http.write(&body);
    assert_eq!(http.answer().status, 200);
    client.expect(expected);
    let whole = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    http.write(&whole.repeat(3));
    for _ in 0..3 {
        assert_eq!(http.answer().status, 200);
        client.expect(expected);
    }
}

#[test]
fn a_body_that_does_not_come_is_given_up() {
    let server = TestServer::with(&[
        ("RESOUND_REQUEST_TIMEOUT", "1"),
        ("RESOUND_KEEP_ALIVE_TIMEOUT", "2"),
    ]);
    let mut http = Http::connect(&server);
    let target = Signed::post("events", "{").target();
    http.write(&format!(
        "POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{"
    ));
    let answer = http.answer();
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (
            408,
            "Request timeout. The request body did not arrive in time (request_timeout, RESOUND_REQUEST_TIMEOUT)."
        )
    );
}

/// It shared the time that a connection is kept for its next request, 75 s.
#[test]
fn a_new_connection_has_a_time_of_its_own_for_its_first_request() {
    let server = TestServer::with(&[("RESOUND_REQUEST_HEAD_TIMEOUT", "1")]);
    let begin = std::time::Instant::now();
    let mut kept = Http::connect(&server);
    assert_eq!(kept.request("GET", "/up", "").status, 200);
    let mut silent = Http::connect(&server);
    let mut slow = Http::connect(&server);
    slow.write("GET /up HTT");
    assert!(silent.is_closed() && slow.is_closed());
    assert!(begin.elapsed() < std::time::Duration::from_secs(5));
    assert_eq!(kept.request("GET", "/up", "").status, 200);
    Client::connect(&server).expect_alive();
}

#[test]
fn garbage_is_answered_with_400_and_the_server_goes_on() {
    let server = TestServer::start();
    for garbage in [
        "garbage\r\n\r\n",
        "GET /up HTTP/9.9\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}",
    ] {
        let mut http = Http::connect(&server);
        http.write(garbage);
        http.write("\r\n\r\n");
        let mut http = Http::connect(&server);
        assert_eq!(http.request("GET", "/up", "").status, 200);
    }
}

/// hyper itself answers with 431 and no text, and the rest of what the client sent
/// would reset the connection before it has read that.
#[test]
fn a_head_over_the_limit_is_answered_with_the_limit() {
    let server = TestServer::start();
    let long = format!("x: {}\r\n", "y".repeat(100_000));
    for fields in [long.clone(), long.repeat(8), "x: y\r\n".repeat(100)] {
        let mut http = Http::connect(&server);
        // An answer before it does not stand in its way.
        assert_eq!(http.request("GET", "/up", "").status, 200);
        http.write(&format!("GET /up HTTP/1.1\r\nHost: x\r\n{fields}\r\n"));
        let answer = http.answer();
        assert_eq!(answer.status, 431);
        assert_eq!(
            answer.body,
            "Request header fields too large. The head of a request may have 16384 bytes \
             and 100 header fields, whatever the settings are."
        );
        assert!(http.is_closed());
    }
    let mut http = Http::connect(&server);
    let fields = "x: y\r\n".repeat(99);
    http.write(&format!("GET /up HTTP/1.1\r\nHost: x\r\n{fields}\r\n"));
    assert_eq!(http.answer().status, 200);
}

/// It would hold its connection, and what waits for it, for ever.
#[test]
fn a_client_that_does_not_read_its_answers_is_cut() {
    let server = TestServer::with(&[("RESOUND_REQUEST_TIMEOUT", "1")]);
    let mut http = Http::connect(&server);
    let requests = "GET /up HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2000);
    let begin = std::time::Instant::now();
    while http.try_write(&requests) {
        assert!(
            begin.elapsed() < crate::support::PATIENCE,
            "it is still served"
        );
    }
}

#[test]
fn a_prefix_that_is_named_like_a_route_works() {
    for prefix in ["/app", "/apps", "/up"] {
        let server = TestServer::with(&[("REVERB_SERVER_PATH", prefix)]);
        for start in [prefix, ""] {
            assert_eq!(
                Http::connect(&server)
                    .request("GET", &format!("{start}/up"), "")
                    .status,
                200,
                "{prefix}"
            );
            let mut client = Client::open(
                &server,
                &format!("{start}/app/{}", crate::support::KEY),
                &[],
            );
            client.established();
        }
    }
}

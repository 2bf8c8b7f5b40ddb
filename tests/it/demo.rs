//! The demo's page and its signing.

use crate::support::http::parsed;
use crate::support::{Client, Http, KEY, TestServer, body};
use serde_json::json;

#[test]
fn the_page_is_served_with_the_applications_settings() {
    let server = TestServer::demo();
    let page = Http::connect(&server).request("GET", "/demo", "");
    assert_eq!(
        (page.status, page.header("content-type")),
        (200, Some("text/html; charset=utf-8"))
    );
    assert!(
        page.body
            .contains(r#"{"key":"my-app-key","app_id":"my-app-id","channel":"private-chat.1""#)
    );
    assert!(!page.body.contains("{{settings}}"));
}

/// What the page does: has a subscription signed, has a publish signed, posts it.
#[test]
fn what_the_demo_signs_is_accepted_by_the_real_api() {
    let server = TestServer::demo();
    let mut client = Client::connect(&server);
    let mut http = Http::connect(&server);
    let form = format!("socket_id={}&channel_name=private-chat.1", client.id);
    let auth = parsed(&http.request("POST", "/demo/auth", &form));
    assert_eq!(auth, json!({ "auth": client.auth("private-chat.1") }));
    client.subscribe("private-chat.1");
    let body = body(&["private-chat.1"], "message.sent", "{}");
    let url = parsed(&http.request("POST", "/demo/sign", &body))["url"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(http.request("POST", &url, &body).body, "{}");
    client.expect(r#"{"event":"message.sent","data":"{}","channel":"private-chat.1"}"#);
    assert_eq!(
        http.request("POST", &url, "{}").status,
        401,
        "only the body that was signed"
    );
}

#[test]
fn the_demo_refuses_other_channels_and_bad_forms() {
    let server = TestServer::demo();
    let mut http = Http::connect(&server);
    for (form, status) in [
        ("socket_id=1.2&channel_name=private-other", 403),
        ("socket_id=1.2", 400),
        ("", 400),
        (&"x".repeat(70_000), 400),
    ] {
        assert_eq!(
            Http::connect(&server)
                .request("POST", "/demo/auth", form)
                .status,
            status
        );
    }
    assert_eq!(http.request("GET", "/demo/auth", "").status, 405);
    assert_eq!(http.request("GET", "/demo/nothing", "").status, 404);
    assert_eq!(KEY, "my-app-key");
}

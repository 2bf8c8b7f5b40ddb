//! Many sockets at once.

use crate::support::{Client, Http, TestServer};

/// More than one slice of the fan-out, over both workers.
#[test]
fn a_channel_of_300_gets_every_message_in_order() {
    let server = TestServer::start();
    let mut clients: Vec<Client> = (0..300).map(|_| Client::connect(&server)).collect();
    clients
        .iter_mut()
        .for_each(|client| client.subscribe("private-big"));
    let mut http = Http::connect(&server);
    for n in 0..20 {
        http.publish(&["private-big"], "ev", &n.to_string());
    }
    for client in &mut clients {
        for n in 0..20 {
            client.expect(&format!(
                r#"{{"event":"ev","data":"{n}","channel":"private-big"}}"#
            ));
        }
    }
}

#[test]
fn a_connection_may_join_many_channels() {
    let server = TestServer::start();
    let mut client = Client::connect(&server);
    (0..1000).for_each(|n| client.subscribe(&format!("c{n}")));
    assert_eq!(server.occupied(), 1000);
    Http::connect(&server).publish(&["c0", "c999"], "ev", "x");
    client.expect(r#"{"event":"ev","data":"x","channel":"c0"}"#);
    client.expect(r#"{"event":"ev","data":"x","channel":"c999"}"#);
    (0..1000).for_each(|n| client.unsubscribe(&format!("c{n}")));
    client.expect_alive();
    assert_eq!(server.occupied(), 0);
}

//! Many sockets at once.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use resound::config::setting::{FOR_OTHERS, SETTINGS};

use crate::support::{Client, Http, TestServer};

/// Whoever is refused by a limit looks for it by the name in the text.
#[test]
fn the_settings_that_texts_name_exist() {
    let settings: HashMap<&str, &str> = SETTINGS
        .iter()
        .map(|setting| (setting.variable, setting.key))
        .collect();
    let mut found = 0;
    for file in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        if file.components().any(|part| part.as_os_str() == "config") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let is_name = |c: char| c.is_ascii_uppercase() || c == '_';
        for (at, _) in text
            .match_indices("RESOUND_")
            .chain(text.match_indices("REVERB_"))
        {
            let end = text[at..].find(|c| !is_name(c)).unwrap();
            let variable = &text[at..at + end];
            if variable.ends_with('_') {
                continue;
            }
            let key = settings.get(variable);
            let known = key.is_some() || FOR_OTHERS.contains(&variable);
            assert!(known, "{}: {variable}", file.display());
            // As `(max_event_size, RESOUND_MAX_EVENT_SIZE)`, both names have to be of one setting.
            if let Some(before) = text[..at].strip_suffix(", ")
                && let Some((_, named)) = before.rsplit_once('(')
                && named
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || "_.".contains(c))
            {
                assert_eq!(Some(&named), key, "{}: {variable}", file.display());
                found += 1;
            }
        }
    }
    assert!(found >= 11, "only {found} texts name a setting");
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                sources(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

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

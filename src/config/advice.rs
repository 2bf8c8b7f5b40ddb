//! What whoever wrote a configuration should know of it: what is missing if it cannot be
//! run, and what is risky or surprising although it can.

use std::fmt::Write;

use super::Server;
use super::setting::{OF_PUSHER, Section};
use super::source::{Layers, Source};

/// Secrets that stand in documentation and starter kits, for everybody to read.
const EXAMPLE_SECRETS: &[&str] = &[
    "app-secret",
    "app_secret",
    "change-me",
    "changeme",
    "laravel-herd",
    "local",
    "my-app-secret",
    "my-secret",
    "password",
    "pusher-secret",
    "reverb",
    "reverb-secret",
    "secret",
    "shop-secret",
    "test",
    "your-app-secret",
    "your-pusher-app-secret",
    "your-reverb-app-secret",
];

/// Says that there is no application, where one was looked for, and what to do; on several lines.
pub(super) fn no_application(layers: &Layers) -> String {
    let mut text = "no application: set REVERB_APP_ID, REVERB_APP_KEY and REVERB_APP_SECRET in .env or in the environment, \
         give --app-id, --app-key and --app-secret, or write [[apps]] in the file of --config \
         (to look around first: resound demo)"
        .to_owned();
    // A String takes every text.
    let _ = write!(text, "\n{}", looked(layers));
    if let Some(folder) = &layers.without_dotenv {
        let _ = write!(
            text,
            "\nthere is no .env in {}: start it in the Laravel project's directory, or name the file with --env-file",
            folder.display()
        );
    }
    let found: Vec<&str> = OF_PUSHER
        .iter()
        .copied()
        .filter(|name| layers.for_others.contains_key(*name))
        .collect();
    if let Some(said) = found.first().and_then(|name| layers.for_others.get(*name)) {
        let source = &said.place;
        let _ = write!(
            text,
            "\nthere is {} ({source}): Laravel uses these for Pusher's service; Resound reads the REVERB_ names, \
             so set them as well, for example REVERB_APP_ID=\"${{PUSHER_APP_ID}}\", with BROADCAST_CONNECTION=reverb",
            found.join(", ")
        );
    }
    text
}

/// Where settings were looked for.
pub(super) fn looked(layers: &Layers) -> String {
    let mut places: Vec<String> = layers
        .files
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    places.push("the environment and the flags".to_owned());
    format!("looked in {}", places.join(", "))
}

/// Warns of secrets that everybody can know, on an address that others can reach.
pub(super) fn known_secrets(layers: &Layers, server: &Server) -> Vec<String> {
    if server.is_local() {
        return Vec::new();
    }
    let warn = |(index, app): (usize, &super::source::Values)| {
        let secret = app.get(&(Section::App, "secret"))?;
        let is = |key| {
            app.get(&(Section::App, key))
                .is_some_and(|value| value.text == secret.text)
        };
        let what = if EXAMPLE_SECRETS.contains(&secret.text.to_ascii_lowercase().as_str()) {
            "stands in published examples"
        } else if is("key") {
            "is the key, which every browser gets"
        } else if is("id") {
            "is the id, which is no secret"
        } else {
            return None;
        };
        Some(format!(
            "apps[{index}].secret ({}) {what}, and {} is not for this machine alone: whoever knows the secret can publish \
             to every channel and listen to every private one. Make one with `openssl rand -hex 32`, and set it for Laravel, too",
            secret.source,
            server.hosts.join(", ")
        ))
    };
    layers.apps.iter().enumerate().filter_map(warn).collect()
}

/// Tells when Laravel, by the variables it shares with this server, dials something else
/// than what listens. That is as it should be behind a proxy, so it is no warning.
pub(super) fn broadcaster_mismatch(layers: &Layers, server: &Server) -> Option<String> {
    let said = |name: &str| Some(layers.for_others.get(name)?.text.as_str());
    let host = layers
        .shared
        .get(&(Section::Server, "hostname"))
        .filter(|value| matches!(value.source, Source::Dotenv(..) | Source::Environment(_)));
    let (port, scheme) = (said("REVERB_PORT"), said("REVERB_SCHEME"));
    if port.is_none() && scheme.is_none() && host.is_none() {
        return None;
    }
    // What config/broadcasting.php has as its defaults.
    let (port, scheme) = (port.unwrap_or("443"), scheme.unwrap_or("https"));
    let port: u16 = port.parse().ok()?;
    let is_secure = scheme.eq_ignore_ascii_case("https");
    let is_own = server.ports().any(|it| it == (port, is_secure));
    if server.hosts.is_empty() || server.port == 0 || is_own {
        return None;
    }
    let same_port = server.ports().find(|(own, _)| *own == port);
    let advice = if let Some((_, own_tls)) = same_port {
        format!(
            "set REVERB_SCHEME={}, unless a proxy on another machine stands in between",
            if own_tls { "https" } else { "http" }
        )
    } else if is_secure && port == 443 {
        "right if a proxy stands in between; if not, set REVERB_PORT and REVERB_SCHEME to what listens"
            .to_owned()
    } else {
        format!(
            "right only if a proxy or a port mapping stands in between; if not, set REVERB_SERVER_PORT={port} \
             or REVERB_PORT={}",
            server.port
        )
    };
    let host = host.map_or("(no REVERB_HOST)", |value| value.text.as_str());
    let places = server.ports().map(|(port, is_secure)| {
        let how = if is_secure { "with" } else { "without" };
        format!("{} {how} TLS", server.places(port))
    });
    let places: Vec<String> = places.collect();
    Some(format!(
        "Laravel dials {scheme}://{host}:{port} (REVERB_HOST, REVERB_PORT, REVERB_SCHEME) and this server listens on \
         {}: {advice}",
        places.join(" and ")
    ))
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Sources};

    fn load(environment: &[(&str, &str)]) -> Config {
        let app = [
            ("REVERB_APP_ID", "1"),
            ("REVERB_APP_KEY", "k"),
            ("REVERB_APP_SECRET", "hunter2"),
        ];
        let pairs = app.iter().chain(environment);
        Config::load(&Sources {
            environment: pairs
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..Sources::default()
        })
        .unwrap()
    }

    #[test]
    fn secrets_that_everybody_knows_are_warned_of_where_others_can_connect() {
        for (host, secret, expected) in [
            (
                "0.0.0.0",
                "my-app-secret",
                Some("stands in published examples"),
            ),
            ("::", "Secret", Some("stands in published examples")),
            ("10.0.0.5", "k", Some("is the key")),
            ("app.example", "1", Some("is the id")),
            ("0.0.0.0", "hunter2", None),
            ("127.0.0.1", "my-app-secret", None),
            ("127.8.0.1", "my-app-secret", None),
            ("::1", "my-app-secret", None),
            ("[::1]", "my-app-secret", None),
            ("localhost", "my-app-secret", None),
            ("127.0.0.1,::1,localhost", "my-app-secret", None),
            (
                "127.0.0.1,10.0.0.5",
                "my-app-secret",
                Some("stands in published examples"),
            ),
        ] {
            let config = load(&[("REVERB_SERVER_HOST", host), ("REVERB_APP_SECRET", secret)]);
            match expected {
                Some(text) => {
                    let place =
                        "apps[0].secret (environment variable REVERB_APP_SECRET) ".to_owned();
                    let warning = &config.warnings[0];
                    assert!(warning.starts_with(&(place + text)), "{warning}");
                    assert!(!warning.contains("my-app-secret"), "{warning}");
                }
                None => assert_eq!(config.warnings, Vec::<String>::new(), "{host} {secret}"),
            }
        }
    }

    #[test]
    fn what_laravel_dials_is_reported_if_it_is_not_what_listens() {
        let proxied = "Laravel dials https://shop.example:443 (REVERB_HOST, REVERB_PORT, REVERB_SCHEME) and this server \
            listens on 0.0.0.0:8080 without TLS: right if a proxy stands in between";
        for (settings, expected) in [
            (&[][..], None),
            (&[("REVERB_PORT", "8080"), ("REVERB_SCHEME", "http")], None),
            (
                &[
                    ("REVERB_HOST", "shop.example"),
                    ("REVERB_PORT", "443"),
                    ("REVERB_SCHEME", "https"),
                ],
                Some(proxied),
            ),
            // Laravel's own defaults.
            (&[("REVERB_HOST", "shop.example")], Some(proxied)),
            (
                &[("REVERB_PORT", "8081"), ("REVERB_SCHEME", "http")],
                Some("set REVERB_SERVER_PORT=8081 or REVERB_PORT=8080"),
            ),
            (
                &[("REVERB_PORT", "8080"), ("REVERB_SCHEME", "https")],
                Some("without TLS: set REVERB_SCHEME=http, unless a proxy"),
            ),
            (
                &[
                    ("REVERB_PORT", "8080"),
                    ("REVERB_SCHEME", "http"),
                    ("RESOUND_TLS_CERT", "c"),
                    ("RESOUND_TLS_KEY", "k"),
                ],
                Some("with TLS: set REVERB_SCHEME=https"),
            ),
            (
                &[("REVERB_PORT", "8081"), ("REVERB_SERVER_PORT", "0")],
                None,
            ),
            // Either port of two.
            (
                &[
                    ("REVERB_PORT", "8443"),
                    ("RESOUND_TLS_PORT", "8443"),
                    ("RESOUND_TLS_CERT", "c"),
                    ("RESOUND_TLS_KEY", "k"),
                ],
                None,
            ),
            (
                &[
                    ("REVERB_PORT", "8443"),
                    ("REVERB_SCHEME", "http"),
                    ("RESOUND_TLS_PORT", "8443"),
                    ("RESOUND_TLS_CERT", "c"),
                    ("RESOUND_TLS_KEY", "k"),
                ],
                Some(
                    "listens on 0.0.0.0:8080 without TLS and 0.0.0.0:8443 with TLS: set REVERB_SCHEME=https",
                ),
            ),
        ] {
            let config = load(settings);
            assert_eq!(config.warnings, Vec::<String>::new());
            match expected {
                Some(text) => assert!(
                    config.notes.len() == 1 && config.notes[0].contains(text),
                    "{settings:?}: {:?}",
                    config.notes
                ),
                None => assert_eq!(config.notes, Vec::<String>::new(), "{settings:?}"),
            }
        }
    }
}

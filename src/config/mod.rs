//! The configuration: read from all its sources, checked once, then immutable.
//!
//! Weakest first: built-in defaults, a TOML file, a Laravel `.env`, the
//! environment, flags. Every wrong value is an error that names the setting, the
//! value, where it was said and what is accepted; all of them are reported at once.

mod advice;
pub mod diff;
pub mod dotenv;
mod file;
pub mod import;
mod listen;
mod read;
pub mod report;
mod reverb_php;
pub mod scaling;
mod secrets;
mod server;
pub mod setting;
pub mod source;
mod tls;
mod webhooks;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

use crate::apps::App;
pub use listen::UnixSocket;
pub use report::Effective;
pub use scaling::Scaling;
pub use server::{Drain, Server};
pub use source::Variable;
pub use tls::{Tls, TlsFiles, TlsVersion};
pub use webhooks::WebhookLimits;

/// The file that ships in `config/`, every setting of it commented out.
pub const DEFAULT_FILE: &str = include_str!("../../config/resound.toml");

/// Where to look for settings; what `main` knows before anything is read.
#[derive(Debug, Default)]
pub struct Sources {
    /// `--config`.
    pub config_file: Option<PathBuf>,
    /// `--config-json`.
    pub config_json: Option<ConfigJson>,
    /// `--env-file`.
    pub env_file: Option<PathBuf>,
    /// A `.env` that is read if it exists and no other was named.
    pub default_env_file: PathBuf,
    /// The process's environment.
    pub environment: HashMap<String, String>,
    /// Flags that were given, by name, dashes included.
    pub flags: Vec<(&'static str, String)>,
}

/// A Laravel project's configuration ([`import`]).
#[derive(Clone, Debug)]
pub enum ConfigJson {
    /// In a file, or on standard input if that is `-`.
    File(PathBuf),
    /// The document itself, which standard input had.
    Text(String),
    /// What it means, which is known already.
    Imported(import::Imported),
}

impl Sources {
    /// Reads what is to be had only once, so that settings can be read again.
    ///
    /// # Errors
    /// If standard input cannot be read.
    pub fn read_standard_input(&mut self) -> Result<(), ConfigError> {
        if let Some(ConfigJson::File(path)) = &self.config_json
            && path.as_os_str() == "-"
        {
            let text = file::read_json(path)?;
            self.config_json = Some(ConfigJson::Text(text));
        }
        Ok(())
    }
}

/// Where a running server is asked.
#[derive(Debug)]
pub struct ControlPaths {
    /// Its control socket.
    pub control_socket: Option<PathBuf>,
    /// The file with the number of its process.
    pub pid_file: Option<PathBuf>,
}

/// A configuration that can be run.
#[derive(Debug)]
pub struct Config {
    /// Where and how to listen, and the limits of the whole process.
    pub server: Server,
    /// Where metrics are served, if they are.
    pub metrics: Option<Metrics>,
    /// Other nodes, if there may be any.
    pub scaling: Option<Scaling>,
    /// How applications are told of what happens.
    pub webhooks: WebhookLimits,
    /// At least one application; their ids and keys differ.
    pub apps: Vec<App>,
    /// Every setting with its value and source, secrets hidden.
    pub effective: Vec<Effective>,
    /// What the person who wrote it should know, though it can be run.
    pub warnings: Vec<String>,
    /// What may be as it should be, and may be not.
    pub notes: Vec<String>,
    /// What variables say to Laravel, and to its pages, by name.
    pub laravel: HashMap<&'static str, Variable>,
    /// The files that settings were read from, with their whole paths.
    pub files: Vec<PathBuf>,
    /// What TLS would be served with, for whoever has loaded it.
    pub certificates: Vec<report::Certificate>,
}

/// Where metrics are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Address or host name to bind.
    pub host: String,
    /// Port to bind; 0 takes a free one.
    pub port: u16,
    /// Whether somebody has said so: then the server does not start without them.
    pub is_required: bool,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// One text per mistake, which may have several lines.
    pub problems: Vec<String>,
}

impl ConfigError {
    fn one(problem: String) -> Self {
        Self {
            problems: vec![problem],
        }
    }

    /// Says more of the last mistake, on a line of its own.
    fn add_hint(&mut self, hint: &str) {
        if let Some(problem) = self.problems.last_mut() {
            problem.push('\n');
            problem.push_str(hint);
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads all sources and checks everything, without binding a port.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        read::config(secrets::read_layers(sources)?)
    }

    /// Reads where and how a server listens, for somebody who only wants to ask it: that needs
    /// no application.
    pub fn load_server(sources: &Sources) -> Result<Server, ConfigError> {
        read::server(&secrets::read_layers(sources)?)
    }

    /// Reads where a running server is asked how it stands. Whether its other settings can be
    /// used is for the server to say: they may be what somebody asks about.
    ///
    /// # Errors
    /// If a file cannot be read, and neither flags nor environment say where.
    pub fn control_paths(sources: &Sources) -> Result<ControlPaths, ConfigError> {
        let read = |sources: &Sources| {
            let layers = source::Layers::read(sources, source::Values::new())?;
            let path = |key| {
                let said = layers.shared.get(&(setting::Section::Server, key));
                let said = said.map(|value| PathBuf::from(&value.text));
                said.filter(|path| !path.as_os_str().is_empty())
            };
            Ok(ControlPaths {
                control_socket: path("control_socket"),
                pid_file: path("pid_file"),
            })
        };
        let without_files = Sources {
            environment: sources.environment.clone(),
            flags: sources.flags.clone(),
            ..Sources::default()
        };
        read(sources).or_else(|error: ConfigError| {
            let paths = read(&without_files).ok();
            paths
                .filter(|it| it.control_socket.is_some() || it.pid_file.is_some())
                .ok_or(error)
        })
    }

    /// The files that settings were read from, for a person.
    pub fn read_from(&self) -> String {
        if self.files.is_empty() {
            return "no file".to_owned();
        }
        let names: Vec<String> = self
            .files
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Sources with the credentials of an application in the environment.
    fn sources(environment: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Sources {
        let app = [
            ("REVERB_APP_ID", "1"),
            ("REVERB_APP_KEY", "k"),
            ("REVERB_APP_SECRET", "s"),
        ];
        let pairs = app.iter().chain(environment);
        Sources {
            environment: pairs
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            flags: flags
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned()))
                .collect(),
            ..Sources::default()
        }
    }

    fn problem(environment: &[(&str, &str)]) -> String {
        Config::load(&sources(environment, &[]))
            .unwrap_err()
            .to_string()
    }

    fn files(toml: &str, dotenv: &str) -> (tempfile::TempDir, Sources) {
        let dir = tempfile::tempdir().unwrap();
        let (config, env) = (dir.path().join("resound.toml"), dir.path().join(".env"));
        std::fs::write(&config, toml).unwrap();
        std::fs::write(&env, dotenv).unwrap();
        (
            dir,
            Sources {
                config_file: Some(config),
                env_file: Some(env),
                ..Sources::default()
            },
        )
    }

    #[test]
    fn the_stronger_source_wins() {
        let (_dir, mut sources) = files(
            "[server]\nport = 1\nhost = \"1.1.1.1\"\npath = \"/toml\"\n[[apps]]\nid=\"1\"\nkey=\"k\"\nsecret=\"s\"\nping_interval = 5\n",
            "REVERB_SERVER_PORT=2\nREVERB_SERVER_HOST=2.2.2.2\nREVERB_APP_PING_INTERVAL=7\nREVERB_PORT=9\n",
        );
        sources
            .environment
            .insert("REVERB_SERVER_PORT".to_owned(), "3".to_owned());
        let config = Config::load(&sources).unwrap();
        assert_eq!(config.server.path, "/toml");
        assert_eq!(config.server.hosts, ["2.2.2.2"]);
        assert_eq!(config.server.port, 3);
        assert_eq!(config.apps[0].ping_interval, Duration::from_secs(7));
        sources.flags.push(("--port", "4".to_owned()));
        assert_eq!(Config::load(&sources).unwrap().server.port, 4);
        assert_eq!(config.warnings, Vec::<String>::new());
    }

    #[test]
    fn a_reverb_env_names_the_application() {
        let (_dir, sources) = files(
            "",
            "BROADCAST_DRIVER=reverb\nREVERB_APP_ID=my-app-id\nREVERB_APP_KEY=my-app-key\nREVERB_APP_SECRET=my-app-secret\nREVERB_HOST=\"localhost\"\nREVERB_PORT=8080\nREVERB_SCHEME=http\nREVERB_APP_MAX_CONNECTIONS=null\nREDIS_PASSWORD=null\n",
        );
        let config = Config::load(&sources).unwrap();
        let app = &config.apps[0];
        let names = (app.id.as_str(), app.key.as_str());
        assert_eq!(names, ("my-app-id", "my-app-key"));
        assert_eq!(app.max_connections, None);
        assert_eq!(config.server.hostname.as_deref(), Some("localhost"));
        assert_eq!(config.server.hosts, ["0.0.0.0"]);
    }

    #[test]
    fn variables_meet_the_files_applications() {
        let toml = "[[apps]]\nid=\"1\"\nkey=\"k1\"\nsecret=\"s1\"\n[[apps]]\nid=\"2\"\nkey=\"k2\"\nsecret=\"s2\"\n";
        let (_dir, sources) = files(toml, "REVERB_APP_ID=2\nREVERB_APP_KEY=other\n");
        let apps = Config::load(&sources).unwrap().apps;
        assert_eq!(
            apps.iter().map(|app| app.key.as_str()).collect::<Vec<_>>(),
            ["k1", "other"]
        );
        let (_dir, sources) = files(
            toml,
            "REVERB_APP_ID=3\nREVERB_APP_KEY=k3\nREVERB_APP_SECRET=s3\n",
        );
        assert_eq!(Config::load(&sources).unwrap().apps.len(), 3);
    }

    #[test]
    fn without_an_application_the_missing_names_are_reported() {
        let error = Config::load(&Sources::default()).unwrap_err().to_string();
        for name in [
            "REVERB_APP_ID",
            "REVERB_APP_KEY",
            "REVERB_APP_SECRET",
            "--app-secret",
            "[[apps]]",
        ] {
            assert!(error.contains(name), "{error}");
        }
        let mut partly = Sources::default();
        partly
            .environment
            .insert("REVERB_APP_ID".to_owned(), "1".to_owned());
        let error = Config::load(&partly).unwrap_err().to_string();
        assert!(
            error.contains("REVERB_APP_KEY") && !error.contains("REVERB_APP_ID,"),
            "{error}"
        );
    }

    #[test]
    fn a_wrong_value_is_reported_with_its_source_and_what_is_accepted() {
        for (name, value, expected) in [
            (
                "REVERB_SERVER_PORT",
                "80x80",
                "server.port = \"80x80\" (environment variable REVERB_SERVER_PORT): expected a whole number from 0 to 65535",
            ),
            (
                "REVERB_SERVER_PORT",
                "65536",
                "expected a whole number from 0 to 65535",
            ),
            (
                "REVERB_APP_ACTIVITY_TIMEOUT",
                "0",
                "apps.activity_timeout = \"0\" (environment variable REVERB_APP_ACTIVITY_TIMEOUT): expected a whole number from 1 to 4294967295",
            ),
            (
                "REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM",
                "friends",
                "expected none, private, members or all",
            ),
            (
                "REVERB_APP_RATE_LIMITING_ENABLED",
                "maybe",
                "expected true or false",
            ),
            (
                "RESOUND_WORKERS",
                "0",
                "expected auto or a whole number from 1 to 1024",
            ),
            ("REVERB_SERVER_PATH", "/a b", "expected a path such as /ws"),
            ("REVERB_SERVER", "swoole", "expected \"reverb\""),
            ("RESOUND_LOG_FORMAT", "xml", "expected text or json"),
            ("RESOUND_ACCESS_LOG", "json", "expected true or false"),
            (
                "RUST_LOG",
                "info,loud",
                "server.log_levels = \"info,loud\" (environment variable RUST_LOG): expected levels such as",
            ),
            ("RESOUND_TLS_CERT", "/x", "server.tls_key"),
        ] {
            let text = problem(&[(name, value)]);
            assert!(text.contains(expected), "{name}={value}: {text}");
        }
    }

    #[test]
    fn all_mistakes_are_reported_at_once_and_secrets_never() {
        let text = problem(&[
            ("REVERB_SERVER_PORT", "x"),
            ("REVERB_APP_PING_INTERVAL", "-1"),
        ]);
        assert!(
            text.contains("server.port") && text.contains("apps.ping_interval"),
            "{text}"
        );
        let config = Config::load(&sources(&[("REVERB_APP_SECRET", "hunter2")], &[])).unwrap();
        let shown = format!("{config:?} {}", report::text(&config, true));
        assert!(
            shown.contains("(hidden)") && !shown.contains("hunter2"),
            "{shown}"
        );
    }

    #[test]
    fn files_with_unknown_keys_or_bad_toml_are_refused_with_the_line() {
        for (toml, expected) in [
            (
                "[server]\nprot = 1",
                "line 2: there is no setting \"prot\" in server",
            ),
            ("\n[servers]", "line 2: there is no section \"servers\""),
            ("server = 1", "line 1: server is a table"),
            ("[apps]\nid = 1", "line 1: apps is a list of tables"),
            ("[server]\nport = ", "line 2: not valid TOML"),
            ("[server]\nport = [1]", "line 2: port: expected a text"),
            (
                "[[apps]]\nallowed_origins = [1]",
                "line 2: allowed_origins: expected a list of texts",
            ),
            (
                "[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"s\"\n[[apps]]\nid = \"1\"\nkey = \"l\"\nsecret = \"s\"",
                "two applications have the id \"1\"",
            ),
        ] {
            let (_dir, sources) = files(toml, "");
            let text = Config::load(&sources).unwrap_err().to_string();
            assert!(text.contains(expected), "{toml}: {text}");
        }
        let missing = Sources {
            env_file: Some("no/such/.env".into()),
            ..Sources::default()
        };
        assert!(
            Config::load(&missing)
                .unwrap_err()
                .to_string()
                .contains("cannot read no/such/.env")
        );
    }

    #[test]
    fn variables_mean_what_laravel_makes_of_them() {
        for (value, secret) in [
            ("\"s\"", Some("s")),
            ("'s'", Some("s")),
            ("\"s'", Some("\"s'")),
            ("s ", Some("s ")),
            ("null", None),
            ("\"\"", None),
        ] {
            let layers =
                secrets::read_layers(&sources(&[("REVERB_APP_SECRET", value)], &[])).unwrap();
            let found = layers.apps[0].get(&(setting::Section::App, "secret"));
            assert_eq!(found.map(|value| value.text.as_str()), secret, "{value}");
        }
    }

    /// They are the application's, and it may well mean something by them.
    #[test]
    fn redis_variables_are_not_looked_at_while_they_are_not_used() {
        for (name, value) in [
            ("REDIS_PORT", "tcp://10.0.0.5:6379"),
            ("REDIS_PORT", "0"),
            ("REDIS_DB", "cache"),
            ("REDIS_TIMEOUT", "2.5"),
        ] {
            assert!(
                Config::load(&sources(&[(name, value)], &[])).is_ok(),
                "{name}={value}"
            );
        }
    }

    #[test]
    fn unknown_variables_of_ours_are_warned_of() {
        let (_dir, sources) = files(
            "",
            "REVERB_APP_ID=1\nREVERB_APP_KEY=k\nREVERB_APP_SECRET=s\nREVERB_APP_PINGINTERVAL=1\n",
        );
        let warnings = Config::load(&sources).unwrap().warnings;
        assert!(
            warnings[0].ends_with("line 4: REVERB_APP_PINGINTERVAL is not a setting"),
            "{warnings:?}"
        );
    }

    #[test]
    fn the_shipped_file_shows_every_setting_with_its_default() {
        let uncommented: String = DEFAULT_FILE
            .lines()
            .map(|line| match line.strip_prefix("#: ") {
                Some(setting) => format!("{setting}\n"),
                None => format!("{line}\n"),
            })
            .collect();
        let (_dir, sources) = files(&uncommented, "");
        let layers = secrets::read_layers(&sources).unwrap();
        for setting in setting::SETTINGS {
            let values = match setting.section {
                setting::Section::App => &layers.apps[0],
                setting::Section::Webhook => &layers.webhooks[0][0],
                _ => &layers.shared,
            };
            let value = values
                .get(&setting.id())
                .unwrap_or_else(|| panic!("{} is not in the file", setting.key));
            assert_eq!(value.text, setting.default, "{}", setting.key);
        }
        let (_dir, sources) = files(DEFAULT_FILE, "");
        let untouched = secrets::read_layers(&sources).unwrap();
        assert!(
            untouched.shared.is_empty() && untouched.apps.is_empty(),
            "everything in it is commented out"
        );
    }
}

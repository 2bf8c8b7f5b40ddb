//! What a Laravel project says of itself, through its own PHP.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::report::{Problem, Report};
use crate::config::Variable;
use crate::import::{PhpError, ask};

/// How old a job may be that nobody has taken.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The project's configuration, as PHP sees it.
pub(super) struct Project {
    pub(super) directory: PathBuf,
    document: Value,
}

/// What a project publishes with: one of its broadcasting connections.
pub(super) struct Connection<'a> {
    /// Its name.
    pub(super) name: &'a str,
    values: &'a Value,
}

impl Connection<'_> {
    /// A value at a path with dots, as a text; nothing if it is null or empty.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        let value = path.split('.').fold(self.values, |value, key| &value[key]);
        text_of(value)
    }

    /// The path of a value in the configuration.
    pub(super) fn path(&self, key: &str) -> String {
        format!("broadcasting.connections.{}.{key}", self.name)
    }
}

impl Project {
    /// Asks the project, if there is a PHP to do it.
    pub(super) fn ask(php: &str, directory: &Path) -> Result<Option<Self>, Problem> {
        let fix = "mend that first: php artisan about says the same";
        let text = match ask(php, directory, &["doctor"]) {
            Ok(text) => text,
            Err(PhpError::NoPhp { .. }) => return Ok(None),
            Err(error) => return Err(Problem::new("laravel", error.to_string(), fix)),
        };
        let document = serde_json::from_str(&text).map_err(|error| {
            let text = format!("what the project's PHP prints is not JSON: {error}");
            Problem::new("laravel", text, fix)
        })?;
        Ok(Some(Self {
            directory: directory.to_owned(),
            document,
        }))
    }

    /// Whether it says who may join private channels.
    pub(super) fn has_channels(&self) -> bool {
        let file = fs::read_to_string(self.directory.join("routes/channels.php"));
        file.is_ok_and(|text| text.contains("Broadcast::channel("))
    }

    pub(super) fn app_url(&self) -> Option<String> {
        text_of(&self.document["app_url"])
    }

    /// The connection that events are broadcast with.
    pub(super) fn connection(&self) -> Connection<'_> {
        let broadcasting = &self.document["broadcasting"];
        let name = broadcasting["default"].as_str().unwrap_or("null");
        Connection {
            name,
            values: &broadcasting["connections"][name],
        }
    }

    /// An application of config/reverb.php: its key and its secret.
    pub(super) fn app_of_reverb(&self, id: &str) -> Option<(String, String)> {
        let apps = self.document["reverb"]["apps"]["apps"].as_array()?;
        let app = apps
            .iter()
            .find(|app| text_of(&app["app_id"]).as_deref() == Some(id))?;
        Some((text_of(&app["key"])?, text_of(&app["secret"])?))
    }

    /// The paths of the routes that decide who may join a channel.
    pub(super) fn auth_routes(&self) -> Vec<&str> {
        array_of_texts(&self.document["state"]["auth_routes"])
    }

    /// Says where the project itself is wrong. Without `Err`, it publishes.
    pub(super) fn check(
        &self,
        report: &mut Report<'_>,
        said: impl Fn(&str) -> Option<Variable>,
    ) -> Result<(), Problem> {
        let state = &self.document["state"];
        let framework = state["framework"]
            .as_str()
            .unwrap_or("of an unknown version");
        let directory = self.directory.display();
        report.ok("laravel", format!("{directory} boots, Laravel {framework}"));
        let stale: Vec<&str> = array_of_texts(&state["stale"]);
        if !stale.is_empty() {
            return Err(Problem::new(
                "config-cache",
                format!(
                    "Laravel uses a cached configuration that is not what its files and .env say now: {}",
                    stale.join(", ")
                ),
                "php artisan config:cache (or config:clear), then php artisan queue:restart",
            ));
        }
        let connection = self.connection();
        let driver = connection.text("driver");
        if matches!(driver.as_deref(), Some("reverb" | "pusher")) {
            return Ok(());
        }
        // Laravel 11 has renamed it.
        let variable = ["BROADCAST_CONNECTION", "BROADCAST_DRIVER"]
            .iter()
            .find_map(|name| Some((*name, said(name)?)));
        let place = match variable {
            Some((name, said)) => format!("{name}=reverb ({})", said.place),
            None => "BROADCAST_CONNECTION=reverb in .env (BROADCAST_DRIVER before Laravel 11)"
                .to_owned(),
        };
        Err(Problem::new(
            "broadcaster",
            format!(
                "Laravel broadcasts with {:?}{}, which sends nothing to a WebSocket server",
                connection.name,
                driver.map_or(String::new(), |it| format!(" (driver {it:?})")),
            ),
            format!("{place}, then php artisan config:clear and php artisan queue:restart"),
        ))
    }

    /// Says whether events wait in a queue.
    pub(super) fn check_queue(&self, report: &mut Report<'_>) {
        let queue = &self.document["state"]["queue"];
        let [connection, name] =
            ["connection", "queue"].map(|key| queue[key].as_str().unwrap_or_default());
        if let Some(error) = queue["error"].as_str() {
            report.warn(
                "queue",
                format!("the queue of connection {connection:?} cannot be asked: {error}"),
                "mend the connection of QUEUE_CONNECTION: events are queued there before they are published",
            );
            return;
        }
        let Some(waiting) = queue["waiting"].as_u64() else {
            report.ok(
                "queue",
                format!("{connection}: events are published without a queue"),
            );
            return;
        };
        let oldest = queue["oldest_seconds"].as_u64();
        match oldest {
            Some(seconds) if seconds > MAX_WAIT.as_secs() && queue["is_worked"] != true => report.error(Problem::new(
                "queue",
                format!(
                    "nobody works the queue {name:?} of connection {connection:?}: {waiting} jobs wait, the oldest for \
                     {seconds} s; events are published only when a worker takes them"
                ),
                format!("run php artisan queue:work {connection} --queue={name} (by Supervisor), or Horizon"),
            )),
            _ => report.ok("queue", format!("{connection}: {waiting} jobs wait")),
        }
    }
}

fn array_of_texts(value: &Value) -> Vec<&str> {
    let items = value.as_array().into_iter().flatten();
    items.filter_map(Value::as_str).collect()
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

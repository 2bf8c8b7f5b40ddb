//! Arguments of the commands that ask a server of Pusher's protocol.
#![allow(rustdoc::bare_urls, reason = "they are examples, shown on a terminal")]

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::Settings;
use crate::config::Sources;

/// Which server and which application are meant.
#[derive(Args, Debug, Default)]
pub struct Access {
    /// A Pusher-compatible server, such as https://ws.example.com [default: the one that these settings describe, on this machine]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// The application.
    #[command(flatten)]
    pub app: AppSettings,
    /// Seconds that the server may take for an answer
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub timeout: Duration,
}

/// Which application is meant, and where else that is said.
#[derive(Args, Debug, Default)]
pub struct AppSettings {
    /// The application's id [env: REVERB_APP_ID]
    #[arg(long, value_name = "ID")]
    pub app_id: Option<String>,
    /// The application's public key [env: REVERB_APP_KEY]
    #[arg(long, value_name = "KEY")]
    pub app_key: Option<String>,
    /// The application's secret; other users of the machine can see flags, so prefer [env: REVERB_APP_SECRET]
    #[arg(long, value_name = "SECRET")]
    pub app_secret: Option<String>,
    /// Settings file, TOML
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A Laravel .env [default: .env, if there is one]
    #[arg(long, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
}

/// Arguments of `publish`.
#[derive(Args, Debug)]
pub struct Publish {
    /// Channel to publish to
    pub channel: String,
    /// Name of the event, as the page listens to it: App\Events\MessageSent, or what broadcastAs() returns
    pub event: String,
    /// What it carries, JSON, or - to read it from standard input
    #[arg(default_value = "{}", value_name = "JSON")]
    pub data: String,
    /// Another channel to publish the same to; can be repeated
    #[arg(long = "channel", value_name = "CHANNEL")]
    pub channels: Vec<String>,
    /// Socket that does not get it, as with toOthers()
    #[arg(long, value_name = "SOCKET_ID")]
    pub except: Option<String>,
    /// The server and the application.
    #[command(flatten)]
    pub access: Access,
}

/// Arguments of `listen`.
#[derive(Args, Debug)]
pub struct Listen {
    /// Channels to join; private and presence ones are signed with the secret
    #[arg(required = true, value_name = "CHANNEL")]
    pub channels: Vec<String>,
    /// User id to be seen with in presence channels
    #[arg(long = "as", value_name = "USER", default_value = "resound-listen")]
    pub user: String,
    /// Page to come from, where only some may connect, such as https://example.com
    #[arg(long, value_name = "URL")]
    pub origin: Option<String>,
    /// How to print [default: text on a terminal, otherwise json, a line for each event]
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// End after so many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// The server and the application.
    #[command(flatten)]
    pub access: Access,
}

/// How events are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For a person.
    Text,
    /// One JSON object on each line.
    Json,
}

/// Arguments of `channels`.
#[derive(Args, Debug)]
pub struct Channels {
    /// Only channels whose names begin so
    #[arg(value_name = "PREFIX")]
    pub prefix: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    /// The server and the application.
    #[command(flatten)]
    pub access: Access,
}

/// Arguments of `users`.
#[derive(Args, Debug)]
pub struct Users {
    /// A presence channel
    pub channel: String,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    /// The server and the application.
    #[command(flatten)]
    pub access: Access,
}

/// Arguments of `terminate`.
#[derive(Args, Debug)]
pub struct Terminate {
    /// Id of a user who has signed in
    pub user: String,
    /// The server and the application.
    #[command(flatten)]
    pub access: Access,
}

/// Arguments of `apps`.
#[derive(Args, Debug)]
pub struct Apps {
    /// What to do with them.
    #[command(subcommand)]
    pub command: AppsCommand,
}

/// What to do with applications.
#[derive(Debug, Subcommand)]
pub enum AppsCommand {
    /// Make up id, key and secret, as reverb:install does, and print them
    New(NewApp),
}

/// Arguments of `apps new`.
#[derive(Args, Debug)]
pub struct NewApp {
    /// What to print them as
    #[arg(long, value_name = "FORMAT", default_value = "env")]
    pub format: NewAppFormat,
}

/// What the credentials of an application are printed as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NewAppFormat {
    /// Lines of a Laravel .env.
    Env,
    /// A table for the applications of a settings file.
    Toml,
    /// A JSON object.
    Json,
}

impl AppSettings {
    /// Where the settings are to be read from.
    pub fn sources(&self) -> Sources {
        let settings = Settings {
            app_id: self.app_id.clone(),
            app_key: self.app_key.clone(),
            app_secret: self.app_secret.clone(),
            config: self.config.clone(),
            env_file: self.env_file.clone(),
            ..Settings::default()
        };
        settings.into_sources()
    }
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|it| (1..=3600).contains(it));
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| "expected a whole number from 1 to 3600".to_owned())
}

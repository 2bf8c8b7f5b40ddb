//! The command line: clap types, and nothing that acts.

pub mod doctor;
pub mod tools;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{ConfigJson, Sources};

/// With the commit and its day, if the build knows them: `0.1.0 (ceb19b5ab 2026-11-26)`.
const VERSION: &str = env!("VERSION_WITH_COMMIT");

/// Where settings come from.
pub(crate) const SETTINGS: &str = "\
Settings, weakest first: built-in defaults, the file of --config, a Laravel .env
(--env-file, or .env in this directory), the environment, flags. The REVERB_*
names of a Reverb project are understood; `resound check` shows what was set.";

/// Commands to begin with.
pub(crate) const EXAMPLES: &str = "  \
  resound demo                                look around: http://127.0.0.1:8080/demo
  resound start --env-file /var/www/app/.env  instead of php artisan reverb:start
  resound check --env-file /var/www/app/.env  show the settings, start nothing";

/// A drop-in replacement for Laravel Reverb: the Pusher protocol, served fast.
#[derive(Debug, Parser)]
#[command(name = "resound", version = VERSION, about, after_help = format!("{SETTINGS}\n\nExamples:\n{EXAMPLES}"), args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; without one, start.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of `start`, when no command is named.
    #[command(flatten)]
    pub start: Settings,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the server (also without naming a command)
    Start(Settings),
    /// Print what was set and where, and whether it can be used, without starting
    Check(Check),
    /// Write a settings file that means what another server's configuration does: Reverb's,
    /// laravel-websockets' or soketi's
    Import(Import),
    /// Have the running server read its settings anew (exit code 0, or 64 if it refuses them)
    Reload(Settings),
    /// Ask the running server how it stands
    Status(Status),
    /// Ask the server that these settings describe whether it is up (exit code 0 or 1)
    Health(Settings),
    /// Find out why nothing arrives: check settings, Laravel, proxies, certificates, sockets and
    /// queue, and name the line to change (exit code 0, 1 for warnings, 2 for errors)
    Doctor(doctor::Doctor),
    /// Publish an event, as the application would
    Publish(tools::Publish),
    /// Print what arrives in channels
    Listen(tools::Listen),
    /// List the channels that somebody is subscribed to
    Channels(tools::Channels),
    /// List the users in a presence channel
    Users(tools::Users),
    /// Close all connections of a user
    Terminate(tools::Terminate),
    /// Make up credentials for another application
    Apps(tools::Apps),
    /// Look at what applications are told of
    Webhooks(Webhooks),
    /// Try it in a browser: a chat at /demo, on 127.0.0.1 only, with public credentials
    Demo(Demo),
    /// Write man pages and completions for bash, zsh and fish
    Generate(Generate),
}

/// Flags of `start`, `check` and `health`.
///
/// Values are texts: the configuration checks them, whatever source they are from.
#[derive(Args, Debug, Default)]
pub struct Settings {
    /// Address to listen on, several with commas, or off [default: 0.0.0.0] [env: REVERB_SERVER_HOST]
    #[arg(long, value_name = "ADDRESS")]
    pub host: Option<String>,
    /// Port to listen on [default: 8080] [env: REVERB_SERVER_PORT]
    #[arg(long, value_name = "PORT")]
    pub port: Option<String>,
    /// Unix socket to listen on as well [env: RESOUND_SOCKET]
    #[arg(long, value_name = "FILE")]
    pub socket: Option<String>,
    /// Prefix of every route, such as /ws [env: REVERB_SERVER_PATH]
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,
    /// Public host name, shown at the start [env: REVERB_HOST]
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Socket for `reload` and `status` [env: RESOUND_CONTROL_SOCKET]
    #[arg(long, value_name = "FILE")]
    pub control_socket: Option<String>,
    /// File for the process's number [env: RESOUND_PID_FILE]
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<String>,
    /// Log every connection and message, with all that is sent
    #[arg(long)]
    pub debug: bool,
    /// Lines of the log, text or json [default: text] [env: RESOUND_LOG_FORMAT]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// The application's id [env: REVERB_APP_ID]
    #[arg(long, value_name = "ID")]
    pub app_id: Option<String>,
    /// The application's public key [env: REVERB_APP_KEY]
    #[arg(long, value_name = "KEY")]
    pub app_key: Option<String>,
    /// The application's secret; other users of the machine can see flags, so prefer [env: REVERB_APP_SECRET]
    #[arg(long, value_name = "SECRET")]
    pub app_secret: Option<String>,
    /// Certificate chain, PEM, or several, with commas; with --tls-key the port speaks TLS [env: RESOUND_TLS_CERT]
    #[arg(long, value_name = "FILES")]
    pub tls_cert: Option<String>,
    /// Private key of each certificate, PEM [env: RESOUND_TLS_KEY]
    #[arg(long, value_name = "FILES")]
    pub tls_key: Option<String>,
    /// Port for TLS, beside a plain --port [env: RESOUND_TLS_PORT]
    #[arg(long, value_name = "PORT")]
    pub tls_port: Option<String>,
    /// Threads that own connections [default: one per CPU] [env: RESOUND_WORKERS]
    #[arg(long, value_name = "N")]
    pub workers: Option<String>,
    /// Address to serve metrics on [default: 127.0.0.1] [env: RESOUND_METRICS_HOST]
    #[arg(long, value_name = "ADDRESS")]
    pub metrics_host: Option<String>,
    /// Port to serve metrics on, or off [default: 9601] [env: RESOUND_METRICS_PORT]
    #[arg(long, value_name = "PORT")]
    pub metrics_port: Option<String>,
    /// With REVERB_SCALING_ENABLED: end if Redis cannot be used at the start [env: RESOUND_REQUIRE_REDIS]
    #[arg(long)]
    pub require_redis: bool,
    /// Settings file, TOML; config/resound.toml shows every setting
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A Laravel project's configuration in place of --config, as `resound import --json` prints it; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub config_json: Option<PathBuf>,
    /// A Laravel .env [default: .env, if there is one]
    #[arg(long, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
}

/// Flags of `check`.
#[derive(Args, Debug)]
pub struct Check {
    /// Print the settings that were not set, too, with their defaults
    #[arg(long)]
    pub all: bool,
    /// Print one JSON document with everything: settings, warnings or problems
    #[arg(long)]
    pub json: bool,
    /// Those of the server that would be started.
    #[command(flatten)]
    pub settings: Settings,
}

/// Flags of `status`.
#[derive(Args, Debug)]
pub struct Status {
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    /// Those of the server that is asked.
    #[command(flatten)]
    pub settings: Settings,
}

/// Arguments of `webhooks`.
#[derive(Args, Debug)]
pub struct Webhooks {
    /// What is looked at.
    #[command(subcommand)]
    pub command: WebhooksCommand,
}

/// The commands of `webhooks`.
#[derive(Subcommand, Debug)]
pub enum WebhooksCommand {
    /// Print deliveries to receivers and what became of them, as they end
    Tail(Tail),
}

/// Flags of `webhooks tail`.
#[derive(Args, Debug)]
pub struct Tail {
    /// Begin with so many of those that have ended already
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub lines: usize,
    /// Print a JSON document for each
    #[arg(long)]
    pub json: bool,
    /// Those of the server that is asked.
    #[command(flatten)]
    pub settings: Settings,
}

/// Arguments of `import`.
#[derive(Args, Debug)]
pub struct Import {
    /// A Laravel project with Reverb or laravel-websockets, which its own PHP is asked about
    #[arg(default_value = ".", value_name = "DIRECTORY")]
    pub directory: PathBuf,
    /// File to write, mode 0600
    #[arg(long, value_name = "FILE", default_value = "resound.toml")]
    pub output: PathBuf,
    /// Write it even if there is one already
    #[arg(long)]
    pub force: bool,
    /// Print it, and write no file
    #[arg(long)]
    pub stdout: bool,
    /// PHP to ask
    #[arg(long, value_name = "PROGRAM", default_value = "php")]
    pub php: String,
    /// soketi's configuration, its JSON file or a file of its SOKETI_ variables, instead of a project
    #[arg(long, value_name = "FILE", conflicts_with = "from_json")]
    pub soketi: Option<PathBuf>,
    /// What --json has printed elsewhere, instead of a project; - for standard input
    #[arg(long, value_name = "FILE")]
    pub from_json: Option<PathBuf>,
    /// Print what PHP says, and write no file: for --from-json and `resound start --config-json`
    #[arg(long, conflicts_with_all = ["stdout", "soketi"])]
    pub json: bool,
    /// Print the PHP that asks the project, to run it elsewhere
    #[arg(long)]
    pub script: bool,
}

/// Flags of `demo`.
#[derive(Args, Debug)]
pub struct Demo {
    /// Port to listen on, on 127.0.0.1
    #[arg(long, value_name = "PORT", default_value = "8080")]
    pub port: String,
}

/// Arguments of `generate`.
#[derive(Args, Debug)]
pub struct Generate {
    /// Where to, such as /usr/local/share
    #[arg(value_name = "DIRECTORY", value_hint = clap::ValueHint::DirPath)]
    pub share: PathBuf,
}

impl Settings {
    /// Where the configuration is to be read from.
    pub fn into_sources(self) -> Sources {
        let flags = [
            ("--host", self.host),
            ("--port", self.port),
            ("--socket", self.socket),
            ("--path", self.path),
            ("--hostname", self.hostname),
            ("--control-socket", self.control_socket),
            ("--pid-file", self.pid_file),
            ("--debug", self.debug.then(|| "true".to_owned())),
            ("--log-format", self.log_format),
            ("--app-id", self.app_id),
            ("--app-key", self.app_key),
            ("--app-secret", self.app_secret),
            ("--tls-cert", self.tls_cert),
            ("--tls-key", self.tls_key),
            ("--tls-port", self.tls_port),
            ("--workers", self.workers),
            ("--metrics-host", self.metrics_host),
            ("--metrics-port", self.metrics_port),
            (
                "--require-redis",
                self.require_redis.then(|| "true".to_owned()),
            ),
        ];
        Sources {
            config_file: self.config,
            config_json: self.config_json.map(ConfigJson::File),
            env_file: self.env_file,
            default_env_file: PathBuf::from(".env"),
            environment: std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
            flags: flags
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect(),
        }
    }
}

impl Demo {
    /// The built-in defaults, the credentials of the chat module, and 127.0.0.1:
    /// no file, and of the environment only the levels of the log, so that it is the same
    /// everywhere.
    pub fn into_sources(self) -> Sources {
        let flags = [
            ("--host", "127.0.0.1"),
            ("--app-id", "my-app-id"),
            ("--app-key", "my-app-key"),
            ("--app-secret", "my-app-secret"),
        ];
        let fixed = flags.map(|(name, value)| (name, value.to_owned()));
        let levels = std::env::var("RUST_LOG").ok();
        Sources {
            environment: levels
                .map(|levels| ("RUST_LOG".to_owned(), levels))
                .into_iter()
                .collect(),
            flags: fixed.into_iter().chain([("--port", self.port)]).collect(),
            ..Sources::default()
        }
    }
}

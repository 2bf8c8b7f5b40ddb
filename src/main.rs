//! The `resound` command: reads the arguments, wires, and maps errors to exit codes.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use resound::cli::{Check, Cli, Command};
use resound::config::{Config, ConfigError, Sources, report};
use resound::server::{Server, StartError};
use resound::{health, shutdown, telemetry};

/// It gives memory back to the system after a burst, which glibc's does not: that
/// kept three times the memory of before, and takes a tenth more for idle connections.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The configuration cannot be used (EX_USAGE of sysexits.h).
const BAD_CONFIGURATION: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done about a terminal that is gone.
            let _ = error.print();
            return if error.use_stderr() {
                BAD_CONFIGURATION.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match cli.command.unwrap_or(Command::Start(cli.start)) {
        Command::Start(settings) => start(&settings.into_sources(), false),
        Command::Check(arguments) => check(arguments),
        Command::Health(settings) => ask_health(&settings.into_sources()),
        Command::Demo(demo) => start(&demo.into_sources(), true),
    }
}

/// A document says everything on standard output, for whoever reads only that; a person gets
/// the table and the verdict there, and what may be wrong on standard error.
fn check(
    Check {
        all,
        json,
        settings,
    }: Check,
) -> ExitCode {
    let checked = load_and_check(&settings.into_sources());
    if json {
        let code = checked.as_ref().map_or(BAD_CONFIGURATION, |_| 0);
        return write(&report::json(checked.as_ref()), code);
    }
    let config = match checked {
        Ok(config) => config,
        Err(error) => {
            let verdict = report::not_usable(&error);
            return fail(&format_args!("{error}\n{verdict}"), BAD_CONFIGURATION);
        }
    };
    telemetry::print(&format!("settings read from {}", config.read_from()));
    for warning in &config.warnings {
        telemetry::print(&format!("warning: {warning}"));
    }
    for note in &config.notes {
        telemetry::print(&format!("note: {note}"));
    }
    write(&report::text(&config, all), 0)
}

/// The configuration with what loading its certificates warns of.
fn load_and_check(sources: &Sources) -> Result<Config, ConfigError> {
    let mut config = Config::load(sources)?;
    let warnings = Server::check(&config).map_err(|error| ConfigError {
        problems: vec![error.to_string()],
    })?;
    config.warnings.extend(warnings);
    Ok(config)
}

/// Writes on standard output. If that fails, nobody can rely on `code`.
fn write(text: &str, code: u8) -> ExitCode {
    let mut out = io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => code.into(),
        Err(error) => fail(&format_args!("cannot write to standard output: {error}"), 1),
    }
}

fn ask_health(sources: &Sources) -> ExitCode {
    match Config::load_server(sources) {
        Err(error) => fail(&error, BAD_CONFIGURATION),
        Ok(server) => match health::check(&server) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        },
    }
}

fn start(sources: &Sources, demo: bool) -> ExitCode {
    let config = match Config::load(sources) {
        Ok(config) => config,
        Err(error) => return fail(&error, BAD_CONFIGURATION),
    };
    let _log = match telemetry::start(&config.server.log) {
        Ok(log) => log,
        Err(error) => return fail(&error, 1),
    };
    // Without it, only a thread that goes on allocating would give memory back.
    if let Err(error) = tikv_jemalloc_ctl::background_thread::write(true) {
        tracing::warn!(%error, "memory will be given back late");
    }
    match run(&config, demo) {
        Ok(()) => ExitCode::SUCCESS,
        Err(RunError::Start(error)) if error.is_configuration() => fail(&error, BAD_CONFIGURATION),
        Err(error) => fail(&error, 1),
    }
}

#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

#[tokio::main(flavor = "current_thread")]
async fn run(config: &Config, demo: bool) -> Result<(), RunError> {
    telemetry::survive_size_limit()?;
    let shutdown = shutdown::on_signal()?;
    let server = Server::bind(config, demo)?;
    server.announce(config);
    Ok(server.run(shutdown).await?)
}

fn fail(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    for line in error.to_string().lines() {
        telemetry::print(line);
    }
    ExitCode::from(code)
}

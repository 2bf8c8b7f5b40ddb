//! The `resound` command: reads the arguments, wires, and maps errors to exit codes.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use resound::cli::doctor::Doctor;
use resound::cli::tools::{Apps, AppsCommand};
use resound::cli::{
    Check, Cli, Command, Generate, Import, Status, Tail, Webhooks, WebhooksCommand,
};
use resound::config::{Config, ConfigError, Sources, report};
use resound::doctor::{Finding, Level};
use resound::import::ImportError;
use resound::server::{Answer, ControlSocket, PidFile, Reloader, Server, StartError};
use resound::shutdown::{Signals, Stop};
use resound::tools::{self, ToolError};
use resound::{control, doctor, generate, health, import, systemd, telemetry};
use serde_json::Value;
use tokio::signal::unix::Signal;

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
        Command::Start(settings) => start(settings.into_sources(), false),
        Command::Check(arguments) => check(arguments),
        Command::Health(settings) => ask_health(&settings.into_sources()),
        Command::Import(arguments) => run_import(&arguments),
        Command::Reload(settings) => reload(&settings.into_sources()),
        Command::Status(arguments) => status(arguments),
        Command::Doctor(arguments) => run_doctor(&arguments),
        Command::Publish(arguments) => ask(tools::publish(arguments)),
        Command::Listen(arguments) => ask(async move {
            tools::listen(arguments).await?;
            Ok(String::new())
        }),
        Command::Channels(arguments) => ask(tools::channels(arguments)),
        Command::Users(arguments) => ask(tools::users(arguments)),
        Command::Terminate(arguments) => ask(tools::terminate(arguments)),
        Command::Apps(Apps {
            command: AppsCommand::New(new),
        }) => finish(tools::new_app(new.format)),
        Command::Webhooks(Webhooks {
            command: WebhooksCommand::Tail(tail),
        }) => follow_webhooks(tail),
        Command::Demo(demo) => start(demo.into_sources(), true),
        Command::Generate(arguments) => write_manual(&arguments),
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
    let mut sources = settings.into_sources();
    let checked = sources
        .read_standard_input()
        .and_then(|()| load_and_check(&sources));
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

/// The configuration with what loading its certificates has found.
fn load_and_check(sources: &Sources) -> Result<Config, ConfigError> {
    let mut config = Config::load(sources)?;
    let checked = Server::check(&config).map_err(|error| ConfigError {
        problems: vec![error.to_string()],
    })?;
    config.warnings.extend(checked.warnings);
    let certificates = checked.certificates.into_iter();
    config.certificates = certificates
        .map(|it| report::Certificate {
            path: it.path.display().to_string(),
            names: it.names,
            not_after: it.not_after.to_string(),
        })
        .collect();
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

fn reload(sources: &Sources) -> ExitCode {
    let answer = match Config::control_paths(sources) {
        Ok(server) => control::reload(&server),
        Err(error) => return fail(&format_args!("{error}\nnot reloaded"), BAD_CONFIGURATION),
    };
    match answer {
        Ok(Answer { ok: true, text, .. }) => write(&(text + "\n"), 0),
        Ok(Answer { text, .. }) => fail(&text, BAD_CONFIGURATION),
        Err(error) => fail(&error, 1),
    }
}

fn status(Status { json, settings }: Status) -> ExitCode {
    let answer = match Config::control_paths(&settings.into_sources()) {
        Ok(server) => control::status(&server),
        Err(error) => return fail(&error, BAD_CONFIGURATION),
    };
    match answer {
        Ok(Answer {
            ok: true, status, ..
        }) if json => write(&format!("{status:#}\n"), 0),
        Ok(Answer { ok: true, text, .. }) => write(&text, 0),
        Ok(Answer { text, .. }) => fail(&text, 1),
        Err(error) => fail(&error, 1),
    }
}

fn follow_webhooks(tail: Tail) -> ExitCode {
    let server = match Config::control_paths(&tail.settings.into_sources()) {
        Ok(server) => server,
        Err(error) => return fail(&error, BAD_CONFIGURATION),
    };
    let mut out = io::stdout();
    let print = |delivery: &Value, line: &str| {
        let line = match tail.json {
            true => delivery.to_string(),
            false => line.to_owned(),
        };
        // Whoever does not read any more does not want more.
        writeln!(out, "{line}").and_then(|()| out.flush()).is_ok()
    };
    match control::follow_webhooks(&server, tail.lines, print) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

/// Runs a command that asks a server.
fn ask(command: impl Future<Output = Result<String, ToolError>>) -> ExitCode {
    match block_on(command) {
        Ok(done) => finish(done),
        Err(error) => fail(&error, 1),
    }
}

/// Runs what asks others to its end.
fn block_on<T>(command: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(command);
    // A name may be looked up for longer than anybody waits.
    runtime.shutdown_background();
    Ok(done)
}

fn finish(done: Result<String, ToolError>) -> ExitCode {
    match done {
        Ok(text) => write(&text, 0),
        Err(error) if error.is_usage() => fail(&error, BAD_CONFIGURATION),
        Err(error) => fail(&error, 1),
    }
}

/// Findings are told as they come, or all at the end as one document.
fn run_doctor(arguments: &Doctor) -> ExitCode {
    let mut told = Ok(());
    let mut tell = |finding: &Finding| {
        if !arguments.json && told.is_ok() {
            told = anstream::stdout().write_all(finding.in_lines().as_bytes());
        }
    };
    let looked = match block_on(doctor::doctor(arguments, &mut tell)) {
        Ok(looked) => looked,
        Err(error) => return fail(&error, 1),
    };
    let (worst, document) = match looked {
        Ok(report) => (report.worst(), report.to_json()),
        Err(error) => return fail(&error, BAD_CONFIGURATION),
    };
    if let Err(error) = told {
        return fail(&format_args!("cannot write to standard output: {error}"), 1);
    }
    let code = match worst {
        Level::Ok | Level::Note => 0,
        Level::Warning => 1,
        Level::Error => 2,
    };
    if arguments.json {
        write(&format!("{document:#}\n"), code)
    } else {
        code.into()
    }
}

fn run_import(arguments: &Import) -> ExitCode {
    match import::import(arguments) {
        Ok(outcome) => {
            for note in outcome.notes {
                telemetry::print(&format!("note: {note}"));
            }
            write(&outcome.text, 0)
        }
        Err(error @ ImportError::Write { .. }) => fail(&error, 1),
        Err(error) => fail(&error, BAD_CONFIGURATION),
    }
}

fn write_manual(Generate { share }: &Generate) -> ExitCode {
    match generate::generate(share) {
        Ok(files) => {
            let lines = files.iter().map(|file| format!("{}\n", file.display()));
            write(&lines.collect::<String>(), 0)
        }
        Err(error) => fail(&error, 1),
    }
}

fn start(mut sources: Sources, demo: bool) -> ExitCode {
    let loaded = sources
        .read_standard_input()
        .and_then(|()| Config::load(&sources));
    let config = match loaded {
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
    match run(&config, sources, demo) {
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

fn run(config: &Config, sources: Sources, demo: bool) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(serve(config, sources, demo));
    // A reload may wait for a file, for ever; nobody waits for it.
    runtime.shutdown_background();
    ended
}

async fn serve(config: &Config, sources: Sources, demo: bool) -> Result<(), RunError> {
    telemetry::survive_size_limit()?;
    let (stop, hangup) = Signals::take_over()?.split();
    let server = Server::bind(config, demo)?;
    let control = server.control();
    let socket = config.server.control_socket.as_deref();
    let socket = socket.map(ControlSocket::bind).transpose()?;
    let pid_file = config.server.pid_file.as_deref();
    let pid_file = pid_file.map(PidFile::write).transpose()?;
    let reloader = Reloader::new(control.clone(), sources, config, pid_file);
    let reloader = Arc::new(reloader);
    if let Some(socket) = socket {
        tokio::spawn(socket.serve(Arc::clone(&reloader))?);
    }
    server.announce(config);
    tokio::spawn(reload_on(hangup, reloader));
    let stop = async move {
        let stop = stop.await;
        systemd::stopping("closing connections");
        if stop == Stop::Gracefully && !control.end().is_zero() {
            // It stops by itself.
            std::future::pending().await
        }
    };
    Ok(server.run(stop).await?)
}

/// Reloads at each SIGHUP.
async fn reload_on(mut hangup: Signal, reloader: Arc<Reloader>) {
    while hangup.recv().await.is_some() {
        let reloader = Arc::clone(&reloader);
        let reloaded = tokio::task::spawn_blocking(move || reloader.reload());
        // It has logged what came of it.
        let _ = reloaded.await;
    }
}

fn fail(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    for line in error.to_string().lines() {
        telemetry::print(line);
    }
    ExitCode::from(code)
}

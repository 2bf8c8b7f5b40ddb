//! `resound doctor`: why nothing arrives, and which line to change.
//!
//! It does what Laravel and a browser do, one after the other, and looks at each step: reads
//! the settings and asks the project's PHP (`project`); connects where Laravel publishes and
//! asks the HTTP API there, signed (`api`); opens a socket where browsers do, joins a private
//! channel and waits for what was published (`socket`); asks the application who may join
//! (`auth`). What a step cannot do without is looked at before, so that what is told first is
//! the cause, and what only follows from it is not told at all.
//!
//! Any server of the protocol can be asked; what only Resound says (`/ready`, its texts) makes
//! findings more exact. It publishes a few events, to channels of its own.

mod api;
mod auth;
mod machine;
mod places;
mod port;
mod project;
mod reach;
mod report;
mod socket;

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

pub use report::{Finding, Level, Report, Text};

use self::api::Server;
use self::places::{Given, Places, variable};
use self::project::Project;
use self::report::Problem;
use crate::cli::doctor::Doctor;
use crate::client::{Credentials, EndpointError};
use crate::config::{Config, Sources};
use crate::protocol::signature::Secret;
use crate::tools;

/// Why nothing was looked at.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// The URL cannot be used.
    #[error(transparent)]
    Url(#[from] EndpointError),
    /// A flag's URL cannot be used.
    #[error("{0} {1:?}: expected a URL that begins with https:// or http://")]
    Page(&'static str, String),
    /// A header cannot be used.
    #[error("--header: expected a name and a value, such as \"Authorization: Bearer 1|abc\"")]
    Header,
}

/// Looks at everything; `watch` is told each finding as it comes.
///
/// # Errors
/// If an argument cannot be used. What is wrong with a set-up is a finding.
pub async fn doctor<'a>(
    arguments: &Doctor,
    watch: &'a mut dyn FnMut(&Finding),
) -> Result<Report<'a>, UsageError> {
    let given = Given::of(arguments)?;
    let headers = auth::headers(&arguments.headers)?;
    let mut report = Report::new(watch);
    let mut warnings = Vec::new();
    let looked = look(arguments, given, &headers, (&mut report, &mut warnings)).await;
    if let Err(problem) = looked {
        report.error(problem);
    }
    note_settings(&mut warnings, &mut report);
    Ok(report)
}

async fn look(
    arguments: &Doctor,
    given: Given,
    headers: &[(String, String)],
    (report, warnings): (&mut Report<'_>, &mut Vec<String>),
) -> Result<(), Problem> {
    let directory = find_directory(arguments, report);
    let project = match &directory {
        Some(directory) => ask_project(arguments, directory, report)?,
        None => None,
    };
    let config = load(arguments, (directory, project.as_ref()), report)?;
    warnings.clone_from(&config.warnings);
    if let Some(project) = &project {
        project.check(report, |name| variable(&config, name).cloned())?;
    }
    let app = choose(arguments, &config, project.as_ref())?;
    let places = Places::of(given, &config, project.as_ref())?;
    machine::check(report, &config, &places).await;
    let limit = arguments.timeout;
    let api = api::Api {
        config: &config,
        places: &places,
        app: &app,
        limit,
        server: OnceCell::new(),
    };
    let can_publish = check_api(&api, arguments.url.is_some(), report).await;
    if api.server() == Server::Reverb {
        // They are about Resound.
        warnings.clear();
    }
    note_settings(warnings, report);
    let can_publish = can_publish?;
    let socket = match socket::check(&api, can_publish, report).await {
        Ok(socket) => Some(socket),
        Err(problem) => {
            report.error(problem);
            None
        }
    };
    let asked = auth::check(
        &api,
        arguments.channel.as_deref(),
        headers,
        project.as_ref(),
        report,
    )
    .await;
    if let Err(problem) = asked {
        report.error(problem);
    }
    if let Some(project) = &project {
        project.check_queue(report);
    }
    match socket {
        Some(socket) if arguments.slow => socket::wait_idle(socket, &places, report).await,
        Some(_) => {
            report.note(
                "idle",
                "not looked at: --slow waits whether an idle socket is cut off",
            );
            Ok(())
        }
        None => Ok(()),
    }
}

/// What the settings are warned of; none of it keeps anything from arriving.
fn note_settings(warnings: &mut Vec<String>, report: &mut Report<'_>) {
    for warning in warnings.drain(..) {
        report.note("settings", warning);
    }
}

/// Whether events can be published; `Err` if nothing else is worth a look.
async fn check_api(
    api: &api::Api<'_>,
    is_url_given: bool,
    report: &mut Report<'_>,
) -> Result<bool, Problem> {
    match api.check(report).await {
        Ok(()) => Ok(true),
        // What a socket of the same server would meet follows from it.
        Err(problem) if api.places.is_one() && reach::ends_all(&problem) => Err(problem),
        // Where Laravel publishes need not be reached from here.
        Err(problem)
            if is_url_given
                && reach::is_about_connecting(&problem)
                && api.places.may_publish_elsewhere() =>
        {
            report.warn(problem.check, problem.text, problem.fix);
            Ok(false)
        }
        Err(problem) => {
            report.error(problem);
            Ok(false)
        }
    }
}

/// The project's directory, if there is one.
fn find_directory(arguments: &Doctor, report: &mut Report<'_>) -> Option<PathBuf> {
    if let Some(directory) = &arguments.project {
        return Some(directory.clone());
    }
    if Path::new("artisan").is_file() {
        return Some(PathBuf::from("."));
    }
    report.note("laravel", "no Laravel project here; --project names one");
    None
}

fn ask_project(
    arguments: &Doctor,
    directory: &Path,
    report: &mut Report<'_>,
) -> Result<Option<Project>, Problem> {
    let project = Project::ask(&arguments.php, directory)?;
    if project.is_none() {
        let php = &arguments.php;
        report.note(
            "laravel",
            format!("there is no {php} to ask the project with: only its .env is looked at"),
        );
    }
    Ok(project)
}

/// The settings of the server; what only the project knows of the application is added.
fn load(
    arguments: &Doctor,
    (directory, project): (Option<PathBuf>, Option<&Project>),
    report: &mut Report<'_>,
) -> Result<Config, Problem> {
    let mut sources = arguments.app.sources();
    if let Some(directory) = directory {
        sources.default_env_file = directory.join(".env");
    }
    let loaded = Config::load(&sources).or_else(|error| {
        let Some(flags) = project.and_then(flags_of) else {
            return Err(error);
        };
        let flags = flags.into_iter().filter(|it| !has_flag(&sources, it.0));
        let flags = flags.collect::<Vec<_>>();
        sources.flags.extend(flags);
        Config::load(&sources).map_err(|_| error)
    });
    let config = loaded.map_err(|error| {
        Problem::new(
            "settings",
            error.to_string(),
            "mend what is named there; resound check shows all settings, and --app-id, --app-key and --app-secret say which \
             application is meant",
        )
    })?;
    report.ok("settings", format!("read from {}", config.read_from()));
    Ok(config)
}

fn has_flag(sources: &Sources, name: &str) -> bool {
    sources.flags.iter().any(|(given, _)| *given == name)
}

/// The credentials that a project publishes with, as flags.
fn flags_of(project: &Project) -> Option<[(&'static str, String); 3]> {
    let connection = project.connection();
    Some([
        ("--app-id", connection.text("app_id")?),
        ("--app-key", connection.text("key")?),
        ("--app-secret", connection.text("secret")?),
    ])
}

/// The application: Laravel's, which has to be one of the server's.
fn choose(
    arguments: &Doctor,
    config: &Config,
    project: Option<&Project>,
) -> Result<Credentials, Problem> {
    let id = arguments.app.app_id.clone();
    let Some((project, connection)) = project
        .filter(|_| id.is_none())
        .map(|it| (it, it.connection()))
    else {
        let app = tools::choose(&config.apps, id.as_deref());
        let app = app.map_err(|error| {
            Problem::new("application", error.to_string(), "name one: --app-id ID")
        })?;
        return Ok(tools::credentials(app));
    };
    let of_laravel = |key: &str| {
        connection.text(key).ok_or_else(|| {
            Problem::new(
                "application",
                format!("{} is empty: nothing that Laravel publishes is signed", connection.path(key)),
                "set REVERB_APP_ID, REVERB_APP_KEY and REVERB_APP_SECRET in .env, then php artisan config:clear",
            )
        })
    };
    let (id, key) = (of_laravel("app_id")?, of_laravel("key")?);
    let secret = Secret::new(&of_laravel("secret")?);
    let fix = |what: &str| {
        let place = |name: &str| variable(config, name).map(|it| it.place.clone());
        let place = place(&format!("REVERB_APP_{what}"));
        let place = place.map_or(String::new(), |place| format!(" ({place})"));
        let files = config.read_from();
        format!("make REVERB_APP_{what}{place} of Laravel and the server's, from {files}, the same")
    };
    let known = config.apps.iter().find(|app| app.id == id);
    let known = known.map(|app| (app.key.clone(), app.secret.clone()));
    // A server with the project's own configuration has more than the .env says.
    let of_reverb = || {
        let (key, secret) = project.app_of_reverb(&id)?;
        Some((key, Secret::new(&secret)))
    };
    let Some((own_key, own_secret)) = known.or_else(of_reverb) else {
        let known: Vec<&str> = config.apps.iter().map(|app| app.id.as_str()).collect();
        let text = format!(
            "Laravel publishes for application {id:?} ({}), and the server's settings have {}",
            connection.path("app_id"),
            known.join(", ")
        );
        return Err(Problem::new("application", text, fix("ID")));
    };
    let probe = |secret: &Secret| secret.sign(&[b"resound"]);
    let differs = if own_key != key {
        Some(("key", "KEY"))
    } else if probe(&own_secret) != probe(&secret) {
        Some(("secret", "SECRET"))
    } else {
        None
    };
    if let Some((what, name)) = differs {
        let text = format!(
            "Laravel's {what} ({}) is not that of application {id:?} in the server's settings",
            connection.path(what)
        );
        return Err(Problem::new("application", text, fix(name)));
    }
    Ok(Credentials { id, key, secret })
}

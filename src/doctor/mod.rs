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
//! findings more exact. It publishes one event, to a channel of its own.

mod api;
mod auth;
mod machine;
mod places;
mod port;
mod project;
mod reach;
mod report;
mod socket;

use std::path::Path;

pub use report::{Finding, Level, Report, Text};

use self::places::{Given, Places, variable};
use self::project::Project;
use self::report::Problem;
use crate::apps::App;
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
    #[error("--header {0:?}: expected a name and a value, such as \"Authorization: Bearer 1|abc\"")]
    Header(String),
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
    let looked = look(arguments, given, &headers, &mut report).await;
    if let Err(problem) = looked {
        report.error(problem);
    }
    Ok(report)
}

async fn look(
    arguments: &Doctor,
    given: Given,
    headers: &[(String, String)],
    report: &mut Report<'_>,
) -> Result<(), Problem> {
    let project = find_project(arguments, report)?;
    let config = load(arguments, project.as_ref(), report)?;
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
    };
    let published = match api.check(report).await {
        Ok(()) => Ok(()),
        // Without a way there, nothing else of it can be looked at.
        Err(problem) if places.is_one() && reach::is_of_way(&problem) => return Err(problem),
        Err(problem) => {
            report.error(problem);
            Err(())
        }
    };
    let can_publish = published.is_ok();
    let socket = match socket::check(&api, can_publish, report).await {
        Ok(socket) => Some(socket),
        Err(problem) => {
            report.error(problem);
            None
        }
    };
    let asked = auth::check(&api, &arguments.channel, headers, project.as_ref(), report).await;
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

fn find_project(arguments: &Doctor, report: &mut Report<'_>) -> Result<Option<Project>, Problem> {
    let directory = match &arguments.project {
        Some(directory) => directory,
        None if Path::new("artisan").is_file() => Path::new("."),
        None => {
            report.note("laravel", "no Laravel project here; --project names one");
            return Ok(None);
        }
    };
    let asked = Project::ask(&arguments.php, directory);
    let fix = "mend that first: php artisan about says the same";
    asked
        .map(Some)
        .map_err(|error| Problem::new("laravel", error.to_string(), fix))
}

/// The settings of the server; what only the project knows of the application is added.
fn load(
    arguments: &Doctor,
    project: Option<&Project>,
    report: &mut Report<'_>,
) -> Result<Config, Problem> {
    let mut sources = arguments.app.sources();
    if let Some(project) = project {
        sources.default_env_file = project.directory.join(".env");
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
    for warning in &config.warnings {
        report.warn("settings", warning.clone(), "");
    }
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
    let Some(connection) = project.map(Project::connection) else {
        let app = tools::choose(&config.apps, id.as_deref());
        let app = app.map_err(|error| {
            Problem::new("application", error.to_string(), "name one: --app-id ID")
        })?;
        return Ok(credentials(app));
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
    let Some(app) = config.apps.iter().find(|app| app.id == id) else {
        let known: Vec<&str> = config.apps.iter().map(|app| app.id.as_str()).collect();
        let text = format!(
            "Laravel publishes for application {id:?} ({}), and the server's settings have {}",
            connection.path("app_id"),
            known.join(", ")
        );
        return Err(Problem::new("application", text, fix("ID")));
    };
    let probe = |secret: &Secret| secret.sign(&[b"resound"]);
    let differs = if app.key != key {
        Some(("key", "KEY"))
    } else if probe(&app.secret) != probe(&secret) {
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
    Ok(credentials(app))
}

fn credentials(app: &App) -> Credentials {
    Credentials {
        id: app.id.clone(),
        key: app.key.clone(),
        secret: app.secret.clone(),
    }
}

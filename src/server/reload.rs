//! Reading the settings anew while the server runs: all of them hold, or none.

use std::fmt::{self, Write};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::Serialize;

use super::{Control, PidFile};
use crate::apps::AppHandle;
use crate::config::diff::{self, Difference};
use crate::config::{Config, Effective, Sources};
use crate::lifecycle::State as Lifecycle;
use crate::{systemd, telemetry};

/// Reads settings from where they were read at the start.
pub struct Reloader {
    control: Control,
    sources: Sources,
    pid_file: Option<PidFile>,
    /// The settings that hold; locked by one reload at a time.
    effective: Mutex<Vec<Effective>>,
    /// Never locked for long: whoever asks does not wait for a reload, which reads files.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Settings that were changed and need a restart.
    pending: Vec<String>,
    last: Option<Last>,
    count: u64,
}

/// The last reload.
#[derive(Clone, Debug, Serialize)]
pub struct Last {
    /// When it was, in Unix seconds.
    pub at: u64,
    /// Whether its settings hold.
    pub ok: bool,
    /// What came of it, in lines.
    pub text: String,
}

/// What a reload has changed.
#[derive(Debug, Default)]
pub struct Reloaded {
    /// Settings that have other values, of the process and of applications.
    pub differences: Vec<Difference>,
    /// Ids of applications that were not served.
    pub added: Vec<String>,
    /// Ids of those that are served no more.
    pub removed: Vec<String>,
    /// What whoever wrote the settings should know.
    pub warnings: Vec<String>,
}

/// Why the settings that were there go on.
#[derive(Debug, thiserror::Error)]
#[error("{problems}\nnot reloaded: the settings from before go on")]
pub struct Refused {
    /// A line for each.
    problems: String,
}

impl Reloader {
    /// One for a server that was started with what `sources` said then. What becomes of
    /// each reload is written into the file.
    pub fn new(
        control: Control,
        sources: Sources,
        config: &Config,
        pid_file: Option<PidFile>,
    ) -> Self {
        Self {
            control,
            sources,
            pid_file,
            effective: Mutex::new(config.effective.clone()),
            state: Mutex::default(),
        }
    }

    /// Reads all sources, checks them, and goes by them. Logs what came of it, and tells
    /// systemd. Reads files: not for a thread that others wait for.
    ///
    /// # Errors
    /// If anything is wrong. Then nothing has changed.
    pub fn reload(&self) -> Result<Reloaded, Refused> {
        // It is written last, at once.
        let effective = self.effective.lock();
        let mut effective = effective.unwrap_or_else(PoisonError::into_inner);
        let number = self.state().count + 1;
        self.write(|file| file.begin(number));
        // To systemd, one that starts becomes ready later, and one that ends does not again.
        let is_serving =
            systemd::is_started() && self.control.lifecycle().state() == Lifecycle::Running;
        if is_serving {
            systemd::reloading();
        }
        let outcome = self.apply(&mut effective);
        match &outcome {
            Ok(reloaded) => reloaded.log(),
            Err(refused) => {
                for line in refused.to_string().lines() {
                    tracing::error!("reload: {line}");
                }
            }
        }
        let text = match &outcome {
            Ok(reloaded) => reloaded.to_string(),
            Err(refused) => refused.to_string(),
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let last = Last {
            at: now.unwrap_or_default().as_secs(),
            ok: outcome.is_ok(),
            text,
        };
        self.write(|file| file.tell(number, &last));
        let mut state = self.state();
        if let Ok(reloaded) = &outcome {
            let fixed = reloaded.differences.iter().filter(|it| it.needs_restart);
            state.pending = fixed.map(|it| it.setting.clone()).collect();
        }
        state.last = Some(last);
        state.count = number;
        drop(state);
        if is_serving {
            systemd::ready(&self.control.in_words());
        }
        outcome
    }

    /// How many reloads there were, and the last of them.
    pub fn last(&self) -> (u64, Option<Last>) {
        let state = self.state();
        (state.count, state.last.clone())
    }

    /// Settings that were changed and hold after a restart.
    pub fn pending(&self) -> Vec<String> {
        self.state().pending.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, write: impl FnOnce(&PidFile) -> io::Result<()>) {
        if let Some(file) = &self.pid_file
            && let Err(error) = write(file)
        {
            tracing::warn!(%error, "cannot write what came of the reload (RESOUND_PID_FILE)");
        }
    }

    /// The server that is reloaded.
    pub fn control(&self) -> &Control {
        &self.control
    }

    fn apply(&self, effective: &mut Vec<Effective>) -> Result<Reloaded, Refused> {
        let refused = |problems: String| Refused { problems };
        let config = Config::load(&self.sources).map_err(|error| refused(error.to_string()))?;
        let (changes, warnings) = self
            .control
            .apply(&config)
            .map_err(|error| refused(error.to_string()))?;
        telemetry::change(&config.server.log);
        let differences = diff::between(effective, &config.effective);
        *effective = diff::in_force(effective, config.effective);
        let ids = |apps: &[AppHandle]| apps.iter().map(|app| app.id().to_owned()).collect();
        Ok(Reloaded {
            differences,
            added: ids(&changes.added),
            removed: ids(&changes.removed),
            warnings: config.warnings.into_iter().chain(warnings).collect(),
        })
    }
}

impl Reloaded {
    fn log(&self) {
        self.warnings
            .iter()
            .for_each(|warning| tracing::warn!("{warning}"));
        for difference in &self.differences {
            let Difference {
                setting,
                before,
                after,
                needs_restart,
            } = difference;
            if *needs_restart {
                tracing::warn!(
                    setting,
                    before,
                    after,
                    "a setting was changed and holds after a restart only"
                );
            } else {
                tracing::info!(setting, before, after, "a setting was changed");
            }
        }
        for app in &self.added {
            tracing::info!(app, "an application was added");
        }
        for app in &self.removed {
            tracing::info!(app, "an application was removed");
        }
        tracing::info!("settings reloaded");
    }
}

/// For a person: a line for each change, then one that sums up.
impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = String::new();
        for warning in &self.warnings {
            writeln!(lines, "warning: {warning}")?;
        }
        for id in &self.added {
            writeln!(lines, "application {id:?} added")?;
        }
        for id in &self.removed {
            writeln!(lines, "application {id:?} removed")?;
        }
        for difference in &self.differences {
            writeln!(lines, "{difference}")?;
        }
        let restarts = self
            .differences
            .iter()
            .filter(|difference| difference.needs_restart);
        let restarts = restarts.count();
        let changes = self.differences.len() + self.added.len() + self.removed.len() - restarts;
        match (changes, restarts) {
            (0, 0) => write!(lines, "reloaded: nothing has changed")?,
            (changes, 0) => write!(lines, "reloaded: {changes} changed")?,
            (changes, 1) => write!(
                lines,
                "reloaded: {changes} changed, and 1 that needs a restart"
            )?,
            (changes, restarts) => write!(
                lines,
                "reloaded: {changes} changed, and {restarts} that need a restart"
            )?,
        }
        f.write_str(&lines)
    }
}

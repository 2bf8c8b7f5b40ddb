//! Asks a Laravel project through its own PHP.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// What PHP is given to run.
pub const SCRIPT: &str = include_str!("laravel.php");

/// How long a project may take to boot.
const PATIENCE: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(10);

/// Bytes that it may print.
const MAX_OUTPUT: u64 = 16 << 20;

/// Lines of what PHP complains of that are shown.
const MAX_LINES: usize = 8;

/// Why a project does not say what its configuration is.
#[derive(Debug, thiserror::Error)]
pub enum PhpError {
    /// There is no Laravel project.
    #[error("{} is no Laravel project: it has no artisan", .0.display())]
    NoProject(PathBuf),
    /// There is no PHP.
    #[error(
        "cannot run {php}: {error}. Where there is PHP, this does the same:\n  \
         resound import --script > export.php\n  \
         php export.php {} > reverb.json    (in the container: docker compose exec -T app php < export.php > reverb.json)\n  \
         resound import --from-json reverb.json",
        directory.display()
    )]
    NoPhp {
        /// What was to be run.
        php: String,
        /// What the system said.
        error: io::Error,
        /// The project.
        directory: PathBuf,
    },
    /// It does not boot.
    #[error("{} does not boot (PHP ended with {status}):\n{complaint}", directory.display())]
    DoesNotBoot {
        /// The project.
        directory: PathBuf,
        /// How PHP ended.
        status: ExitStatus,
        /// What PHP said.
        complaint: String,
    },
    /// It takes too long.
    #[error("{} has not booted in {} s; does it wait for a database?", .0.display(), PATIENCE.as_secs())]
    TimedOut(PathBuf),
}

/// Returns the document that the project prints; `more` are arguments behind its directory.
///
/// # Errors
/// If there is no PHP or no project, or it does not boot.
pub fn ask(php: &str, directory: &Path, more: &[&str]) -> Result<String, PhpError> {
    if !directory.join("artisan").is_file() {
        return Err(PhpError::NoProject(directory.to_owned()));
    }
    let no_php = |error| PhpError::NoPhp {
        php: php.to_owned(),
        error,
        directory: directory.to_owned(),
    };
    let whole = std::path::absolute(directory).map_err(no_php)?;
    let mut child = Command::new(php)
        .args(["-d", "display_errors=stderr", "--"])
        .arg(&whole)
        .args(more)
        .current_dir(&whole)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(no_php)?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may have ended, which its status tells.
        let _ = stdin.write_all(SCRIPT.as_bytes());
    }
    // Both are read at once, so that it waits for neither.
    let output = child.stdout.take().map(read_all);
    let complaint = child.stderr.take().map(read_all);
    let deadline = Instant::now() + PATIENCE;
    let timed_out = || PhpError::TimedOut(directory.to_owned());
    let status = wait(&mut child, deadline).map_err(no_php)?;
    let status = status.ok_or_else(timed_out)?;
    // What it has started may live on and hold its pipes.
    let text = |reader: Option<Receiver<String>>| match reader {
        Some(reader) => {
            match reader.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Err(RecvTimeoutError::Timeout) => Err(timed_out()),
                read => Ok(read.unwrap_or_default()),
            }
        }
        None => Ok(String::new()),
    };
    let (output, complaint) = (text(output)?, text(complaint)?);
    if !status.success() || output.is_empty() {
        let lines = complaint.lines().filter(|line| !line.trim().is_empty());
        let lines: Vec<String> = lines
            .take(MAX_LINES)
            .map(|line| format!("  {line}"))
            .collect();
        return Err(PhpError::DoesNotBoot {
            directory: directory.to_owned(),
            status,
            complaint: lines.join("\n"),
        });
    }
    Ok(output)
}

fn read_all(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (text, reader) = sync_channel(1);
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read until it failed is what there is.
        let _ = pipe.take(MAX_OUTPUT).read_to_end(&mut bytes);
        // Nobody may wait any more.
        let _ = text.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    reader
}

/// Waits until it ends, or ends it; nothing if it had to.
fn wait(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(PAUSE);
    }
}

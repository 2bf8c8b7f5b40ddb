//! Reads the files that settings are in, and tells one kind from the other.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::ConfigError;

/// Bytes of a settings file; none comes near it.
const MAX_BYTES: u64 = 1 << 20;

/// The file of `--config`.
pub(super) fn read_toml(path: &Path) -> Result<String, ConfigError> {
    if file_name(path).starts_with(".env") {
        return Err(ConfigError::one(format!(
            "--config {0}: this is a Laravel .env by its name, and --config takes TOML; give it as --env-file {0}",
            path.display()
        )));
    }
    read(path, "--config")
}

/// The document of `--config-json`: a file, or standard input.
pub(super) fn read_json(path: &Path) -> Result<String, ConfigError> {
    if path.as_os_str() == "-" {
        let stdin = std::io::stdin().lock();
        return read_text(stdin, path, "--config-json");
    }
    read(path, "--config-json")
}

/// A `.env`, which `is_named` by a flag or was found.
pub(super) fn read_dotenv(path: &Path, is_named: bool) -> Result<String, ConfigError> {
    let what = if is_named { "--env-file" } else { ".env" };
    if path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("toml"))
    {
        return Err(ConfigError::one(format!(
            "{what} {0}: this is TOML by its name, and {what} takes a Laravel .env; give it as --config {0}",
            path.display()
        )));
    }
    read(path, what)
}

/// Says that a file that could not be read as TOML looks like a `.env`, if it does.
pub(super) fn with_hint_at_dotenv(mut error: ConfigError, path: &Path, text: &str) -> ConfigError {
    let is_variable = |line: &str| {
        let name = line.split_once('=').map(|(name, _)| name.trim_end());
        name.is_some_and(|name| {
            name.starts_with(|c: char| c.is_ascii_uppercase())
                && name
                    .bytes()
                    .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
        })
    };
    if text.lines().any(is_variable) {
        error.add_hint(&format!(
            "{0} looks like a Laravel .env, and --config takes TOML; give it as --env-file {0}",
            path.display()
        ));
    }
    error
}

/// Says that a file that could not be read as a `.env` looks like TOML, if it does.
pub(super) fn with_hint_at_toml(mut error: ConfigError, path: &Path, text: &str) -> ConfigError {
    if text.lines().any(|line| line.starts_with('[')) {
        error.add_hint(&format!(
            "{0} looks like TOML, and --env-file takes a Laravel .env; give it as --config {0}",
            path.display()
        ));
    }
    error
}

/// The whole path, for somebody who does not know the working directory.
pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

pub(super) fn read(path: &Path, what: &str) -> Result<String, ConfigError> {
    let fail = |error: &dyn std::fmt::Display| failure(path, what, error);
    if path.is_dir() {
        return Err(fail(&"it is a directory; name the file in it"));
    }
    let file = File::open(path).map_err(|error| fail(&error))?;
    read_text(file, path, what)
}

fn read_text(source: impl Read, path: &Path, what: &str) -> Result<String, ConfigError> {
    let fail = |error: &dyn std::fmt::Display| failure(path, what, error);
    let mut bytes = Vec::new();
    source
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| fail(&error))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(fail(&format!("it has more than {MAX_BYTES} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        fail(&format!("line {line} is not valid UTF-8"))
    })
}

fn failure(path: &Path, what: &str, error: &dyn std::fmt::Display) -> ConfigError {
    let whole = absolute(path);
    let place = if whole == path || path.as_os_str() == "-" {
        String::new()
    } else {
        format!(" (it would be {})", whole.display())
    };
    ConfigError::one(format!(
        "{what}: cannot read {}: {error}{place}",
        path.display()
    ))
}

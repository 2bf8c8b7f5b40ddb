//! `resound import`: the configuration of another server as a settings file.
//!
//! A Laravel project is asked through its own PHP (`laravel.php`), so that it says what Reverb
//! would get, whatever its files do. What comes of it is checked as a whole before anything is
//! written.

mod php;

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::cli::Import;
use crate::config::import::Imported;
use crate::config::{Config, ConfigError, ConfigJson, Sources};

pub use php::{PhpError, SCRIPT, ask};

/// Bytes of a document or a file that is imported.
const MAX_BYTES: u64 = 16 << 20;

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The project could not be asked.
    #[error(transparent)]
    Php(#[from] PhpError),
    /// What it says cannot be used here.
    #[error("{place}: {error}")]
    Config {
        /// What was read.
        place: String,
        /// What is wrong with it.
        error: ConfigError,
    },
    /// A file could not be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// There is one already.
    #[error("{} is there already: --force writes over it, --output takes another name, --stdout writes none", .0.display())]
    Exists(PathBuf),
    /// The file could not be written.
    #[error("cannot write {}: {error}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// What came of an import.
#[derive(Debug)]
pub struct Outcome {
    /// For standard output.
    pub text: String,
    /// For a person, a sentence each.
    pub notes: Vec<String>,
}

/// Imports, and writes the settings file if one is wanted.
///
/// # Errors
/// If the other server's configuration cannot be had or cannot be used here, or the file cannot
/// be written. Nothing is written then.
pub fn import(arguments: &Import) -> Result<Outcome, ImportError> {
    if arguments.script {
        return Ok(Outcome {
            text: SCRIPT.to_owned(),
            notes: Vec::new(),
        });
    }
    let output = (!arguments.stdout && !arguments.json).then_some(&arguments.output);
    if let Some(path) = output.filter(|path| !arguments.force && fs::symlink_metadata(path).is_ok())
    {
        return Err(ImportError::Exists(path.clone()));
    }
    let (place, imported, document) = read(arguments)?;
    if arguments.json {
        return Ok(Outcome {
            text: document,
            notes: Vec::new(),
        });
    }
    let of_place = |error| ImportError::Config {
        place: place.clone(),
        error,
    };
    let mut imported = imported.map_err(of_place)?;
    let mut notes = std::mem::take(&mut imported.notes);
    let name = arguments.output.display();
    let text = imported.to_toml(&format!(
        "Made by resound import of {place}. It contains secrets.\n\
         Start with: resound start --config {name} --env-file /dev/null\n\
         (what a .env says, and the environment, is stronger than this file)"
    ));
    let checked = Config::load(&Sources {
        config_json: Some(ConfigJson::Imported(imported)),
        ..Sources::default()
    });
    notes.extend(checked.map_err(of_place)?.warnings);
    let Some(path) = output else {
        return Ok(Outcome { text, notes });
    };
    write(path, &text, arguments.force)?;
    Ok(Outcome {
        text: format!("{} written\n", path.display()),
        notes,
    })
}

/// Where it is from, what it means, and the document itself.
type Found = (String, Result<Imported, ConfigError>, String);

fn read(arguments: &Import) -> Result<Found, ImportError> {
    if let Some(path) = &arguments.soketi {
        let text = read_file(path)?;
        let place = path.display().to_string();
        return Ok((place, Imported::from_soketi(&text), text));
    }
    let (place, text) = match &arguments.from_json {
        Some(path) => (name_of(path), read_file(path)?),
        None => {
            let directory = &arguments.directory;
            let text = ask(&arguments.php, directory, &[])?;
            let whole = std::path::absolute(directory).unwrap_or_else(|_| directory.clone());
            (whole.display().to_string(), text)
        }
    };
    let imported = Imported::from_laravel(&text);
    Ok((place, imported, text))
}

fn name_of(path: &Path) -> String {
    if path == Path::new("-") {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    }
}

fn read_file(path: &Path) -> Result<String, ImportError> {
    let fail = |error| ImportError::Read {
        path: path.to_owned(),
        error,
    };
    let mut text = String::new();
    let read = if path == Path::new("-") {
        io::stdin().take(MAX_BYTES + 1).read_to_string(&mut text)
    } else {
        let file = fs::File::open(path).map_err(fail)?;
        file.take(MAX_BYTES + 1).read_to_string(&mut text)
    };
    if read.map_err(fail)? as u64 > MAX_BYTES {
        let what = format!("it has more than {MAX_BYTES} bytes");
        return Err(fail(io::Error::new(io::ErrorKind::FileTooLarge, what)));
    }
    Ok(text)
}

/// Writes a file for its owner only, whole or not at all.
fn write(path: &Path, text: &str, force: bool) -> Result<(), ImportError> {
    let fail = |error| ImportError::Write {
        path: path.to_owned(),
        error,
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // It has mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(fail)?;
    file.write_all(text.as_bytes()).map_err(fail)?;
    file.as_file().sync_all().map_err(fail)?;
    let kept = if force {
        file.persist(path)
    } else {
        file.persist_noclobber(path)
    };
    match kept {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            Err(ImportError::Exists(path.to_owned()))
        }
        Err(error) => Err(fail(error.error)),
    }
}

//! The file with the process's number, for those who send it signals, and with what became
//! of the last reload, as `postmaster.pid` of PostgreSQL has the server's status.
//!
//! ```text
//! 4711
//! 2 refused
//! server.pong_timeout = "x" (…): expected a whole number from 1 to 4294967295
//! ```
//!
//! The second line, from the first reload on, has the number of the last one and `ok` or
//! `refused`, or `running` while it is under way; what follows is for people.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::{Last, StartError};

/// The file, which goes when this is dropped.
#[derive(Debug)]
pub struct PidFile(PathBuf);

impl PidFile {
    /// Writes the file, in place of one that there is: whether that one's process is alive
    /// and this server cannot be told from a number.
    ///
    /// # Errors
    /// If it cannot be written, or if there is something else.
    pub fn write(path: &Path) -> Result<Self, StartError> {
        let file = Self(path.to_owned());
        match refuse_what_is_there(path).and_then(|()| file.replace("")) {
            Ok(()) => Ok(file),
            Err(error) => Err(StartError::PidFile {
                path: path.to_owned(),
                error,
            }),
        }
    }

    /// Says that the reload with this number has begun: whoever changes something from now
    /// on has to wait for the next one.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin(&self, number: u64) -> io::Result<()> {
        self.add(&format!("{number} running\n"))
    }

    /// Says what became of it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn tell(&self, number: u64, last: &Last) -> io::Result<()> {
        let outcome = if last.ok { "ok" } else { "refused" };
        self.add(&format!("{number} {outcome}\n{}\n", last.text))
    }

    /// Adds this to the number, unless a later server has written its own.
    fn add(&self, more: &str) -> io::Result<()> {
        match self.is_ours()? {
            true => self.replace(more),
            false => Ok(()),
        }
    }

    fn is_ours(&self) -> io::Result<bool> {
        let own = format!("{}\n", std::process::id());
        match fs::read_to_string(&self.0) {
            Ok(text) => Ok(text.starts_with(&own)),
            // Who has removed it wants to know no less than before.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Replaces it as a whole: whoever reads it sees the one before or this one.
    fn replace(&self, more: &str) -> io::Result<()> {
        let folder = self
            .0
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let mut new = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
        write!(new, "{}\n{more}", std::process::id())?;
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        new.as_file().set_permissions(everybody)?;
        new.persist(&self.0)?;
        Ok(())
    }
}

/// It is not for this server to take away what no server has written.
fn refuse_what_is_there(path: &Path) -> io::Result<()> {
    let there = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        there => there?,
    };
    let is_number = || {
        let mut beginning = [0; 16];
        let len = fs::File::open(path)?.read(&mut beginning)?;
        let line = beginning[..len].split(|byte| *byte == b'\n').next();
        Ok::<_, io::Error>(
            line.unwrap_or_default()
                .trim_ascii()
                .iter()
                .all(u8::is_ascii_digit),
        )
    };
    if there.is_file() && is_number()? {
        return Ok(());
    }
    let text = "there is something that is no file with a process's number, and is left alone";
    Err(io::Error::new(io::ErrorKind::AlreadyExists, text))
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if self.is_ours().unwrap_or(false) {
            // A later server replaces it.
            let _ = fs::remove_file(&self.0);
        }
    }
}

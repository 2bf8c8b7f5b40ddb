//! Man pages and completions of shells, made of the command line as it is.
//!
//! They are laid out as below `/usr/share`, where `man` and the shells look for them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::builder::Resettable;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::{Cli, EXAMPLES, SETTINGS};

/// A directory below `share`, and what a shell's completions are called there.
const COMPLETIONS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash-completion/completions/resound"),
    (Shell::Zsh, "zsh/site-functions/_resound"),
    (Shell::Fish, "fish/vendor_completions.d/resound.fish"),
];

/// What clap knows nothing of, for the page of the whole command.
const MORE: &str = r#"
.SH "EXIT STATUS"
.TP
0
It has done what it was asked, or was ended by a signal.
.TP
1
It cannot start, or there is no server to ask or it has refused, or a second signal has ended it.
.TP
64
A setting or an argument is wrong; what is wrong is on standard error.
.SH SIGNALS
SIGHUP reads the settings anew. SIGTERM and SIGQUIT end the server, after a drain if one is set;
SIGINT ends it at once.
.SH FILES
.TP
\fI/etc/resound/resound.toml\fR
The settings of the service that the package for Debian installs.
.TP
\fI.env\fR
The settings of a Laravel project, read if it is in the working directory.
.SH "SEE ALSO"
\fBresound-start\fR(1), \fBresound-check\fR(1), \fBresound-import\fR(1), \fBresound-reload\fR(1),
\fBresound-status\fR(1), \fBresound-health\fR(1), \fBresound-doctor\fR(1), \fBresound-publish\fR(1),
\fBresound-listen\fR(1), \fBresound-channels\fR(1), \fBresound-users\fR(1), \fBresound-terminate\fR(1), \fBresound-apps\fR(1),
\fBresound-demo\fR(1), \fBresound-generate\fR(1)
"#;

/// A file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct GenerateError {
    path: PathBuf,
    source: io::Error,
}

/// Writes all of them below a directory, which is made if it is not there. Returns the files.
///
/// # Errors
///
/// One of them cannot be written.
pub fn generate(share: &Path) -> Result<Vec<PathBuf>, GenerateError> {
    let command = Cli::command();
    let mut written = Vec::new();
    for (shell, name) in COMPLETIONS {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command.clone(), "resound", &mut text);
        written.push(write(share.join(name), &text)?);
    }
    // Pages of subcommands have the flags that clap adds only then.
    let mut built = command.disable_help_subcommand(true);
    built.build();
    let pages = share.join("man/man1");
    let first = built.clone().after_help(Resettable::Reset);
    let examples = EXAMPLES.replace('-', "\\-");
    let more = format!(".SH SETTINGS\n{SETTINGS}\n.SH EXAMPLES\n.nf\n{examples}\n.fi{MORE}");
    written.push(page(&pages, &first, &more)?);
    let mut open = vec![("resound".to_owned(), &built)];
    while let Some((parent, command)) = open.pop() {
        for subcommand in command.get_subcommands().filter(|it| !it.is_hide_set()) {
            let name = format!("{parent}-{}", subcommand.get_name());
            let named = subcommand.clone().display_name(name.clone());
            written.push(page(&pages, &named, "")?);
            open.push((name, subcommand));
        }
    }
    Ok(written)
}

fn page(directory: &Path, command: &Command, more: &str) -> Result<PathBuf, GenerateError> {
    let version = Cli::command().get_version().unwrap_or_default().to_owned();
    // The day of its commit, if the version has one.
    let date = version.trim_end_matches(')').rsplit_once(' ');
    let man = Man::new(command.clone())
        .manual("Resound")
        .source(format!("resound {version}"))
        .date(date.map_or("", |(_, date)| date));
    let path = directory.join(man.get_filename());
    let mut text = Vec::new();
    man.render(&mut text)
        .and_then(|()| io::Write::write_all(&mut text, more.as_bytes()))
        .map_err(|source| GenerateError {
            path: path.clone(),
            source,
        })?;
    write(path, &text)
}

fn write(path: PathBuf, text: &[u8]) -> Result<PathBuf, GenerateError> {
    let directory = path.parent().unwrap_or(Path::new(""));
    match fs::create_dir_all(directory).and_then(|()| fs::write(&path, text)) {
        Ok(()) => Ok(path),
        Err(source) => Err(GenerateError { path, source }),
    }
}

//! Tells the program its version with the commit that it is built from: `VERSION_WITH_COMMIT`.
//!
//! The commit is that of the variable `RESOUND_COMMIT` (`ceb19b5ab 2026-11-26`), or git's. Where
//! there is neither, as in a packed crate, it is the version alone.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RESOUND_COMMIT");
    let given = env::var("RESOUND_COMMIT").ok();
    let commit = match given.filter(|given| !given.is_empty()) {
        Some(given) => Some(given),
        // Each commit compiles the crate once more, which tests would pay for.
        None if env::var("PROFILE").as_deref() == Ok("release") => from_git(),
        None => None,
    };
    let version = env::var("CARGO_PKG_VERSION").expect("cargo sets it");
    let version = match commit {
        Some(commit) => format!("{version} ({commit})"),
        None => version,
    };
    println!("cargo::rustc-env=VERSION_WITH_COMMIT={version}");
}

/// The abbreviated hash and the day of the commit that is checked out; a build of changed files
/// says so, in git's own way.
fn from_git() -> Option<String> {
    // Not that of a repository around this one, such as a vendoring application.
    let root = git(&["rev-parse", "--show-toplevel"])?;
    let here = env::var("CARGO_MANIFEST_DIR").ok()?;
    if Path::new(&root).canonicalize().ok()? != Path::new(&here).canonicalize().ok()? {
        return None;
    }
    for name in ["HEAD", "logs/HEAD"] {
        let file = git(&["rev-parse", "--git-path", name])?;
        if Path::new(&file).exists() {
            println!("cargo::rerun-if-changed={file}");
        }
    }
    let commit = git(&["log", "-1", "--format=%h %cs", "--abbrev=9"])?;
    let is_clean = git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Some(if is_clean {
        commit
    } else {
        commit.replacen(' ', "-dirty ", 1)
    })
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

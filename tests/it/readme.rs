//! The README is true: every command in it is one that is tested.

use std::fs;
use std::path::Path;

use clap::Parser;
use resound::cli::Cli;

fn file(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The text below a heading, until the next one of its level.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let begin = format!("\n## {heading}\n");
    let rest = text.split_once(&begin).unwrap().1;
    rest.split_once("\n## ").unwrap().0
}

/// The lines of all fenced blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let (mut lines, mut inside) = (Vec::new(), false);
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some(name) => inside = name == language,
            None if inside => lines.push(line.to_owned()),
            None => {}
        }
    }
    lines
}

#[test]
fn every_shell_command_is_run_by_scripts_test_or_understood_by_the_program() {
    let (readme, script) = (file("README.md"), file("scripts/test"));
    let commands = blocks(&readme, "sh");
    assert!(commands.len() >= 4, "{commands:?}");
    let installs = blocks(section(&readme, "Install"), "sh");
    for command in commands {
        if installs.contains(&command) {
            assert_is_tried(&command, &script);
        } else if let Some(arguments) = command.strip_prefix("resound ") {
            let words = std::iter::once("resound").chain(arguments.split(' '));
            Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{command}: {error}"));
        } else if command == "cd resound" {
        } else if command == "cargo run --release -- demo" {
            assert!(
                script.contains("cargo run --release --locked -- demo"),
                "{command}"
            );
        } else {
            assert!(
                command == "scripts/test" || script.contains(&command),
                "no test runs: {command}"
            );
        }
    }
}

/// By what `tests/release/run` does with packages and images, or by `scripts/test` itself.
fn assert_is_tried(command: &str, script: &str) {
    let version = env!("CARGO_PKG_VERSION");
    let package_test = file("tests/release/package_test.py");
    match command.split(' ').next().unwrap() {
        "sudo" if command.contains("apt") => {
            assert!(command.ends_with(&format!("./resound_{version}_amd64.deb")));
            assert!(
                package_test.contains(r#"as_the_manual_says("README.md", "sudo apt install")"#)
            );
        }
        "sha256sum" | "sudo" => {
            let archive = format!(" resound-{version}-x86_64-linux-gnu.tar.gz ");
            assert!(command.starts_with("sha256sum") || command.contains(&archive));
            assert!(package_test.contains(r#"as_the_manual_says("README.md", "sudo tar")"#));
        }
        // Docker itself does not run there; buildah builds the same Dockerfile, which has these.
        "docker" => {
            let command = command.replace("resound resound", "resound .");
            let is_told = |line: &str| line.trim_start_matches(['#', ' ']) == command;
            assert!(file("Dockerfile").lines().any(is_told), "{command}");
        }
        "git" => assert_eq!(command, r#"git clone "$REPOSITORY" resound"#),
        _ => assert!(script.contains(command), "no test runs: {command}"),
    }
}

#[test]
fn its_figures_are_figures() {
    let readme = file("README.md");
    for placeholder in ["_CEILING", "_RESOUND ", "_RATIO"] {
        assert!(!readme.contains(placeholder), "{placeholder} is left");
    }
}

#[test]
fn the_settings_it_shows_can_be_loaded() {
    let readme = file("README.md");
    let dir = tempfile::tempdir().unwrap();
    let (env, toml) = (dir.path().join(".env"), dir.path().join("resound.toml"));
    fs::write(&env, blocks(&readme, "ini").join("\n")).unwrap();
    fs::write(&toml, blocks(&readme, "toml").join("\n")).unwrap();
    let mut sources = resound::config::Sources {
        env_file: Some(env),
        config_file: Some(toml),
        ..Default::default()
    };
    // Its secrets are there for everybody to read.
    let open = resound::config::Config::load(&sources).unwrap().warnings;
    assert!(
        open.len() == 2 && open.iter().all(|warning| warning.contains(".secret")),
        "{open:?}"
    );
    let host = ("REVERB_SERVER_HOST".to_owned(), "127.0.0.1".to_owned());
    sources.environment.extend([host]);
    let config = resound::config::Config::load(&sources).unwrap();
    assert_eq!(
        config
            .apps
            .iter()
            .map(|app| app.id.as_str())
            .collect::<Vec<_>>(),
        ["shop", "my-app-id"]
    );
    assert_eq!(config.warnings, Vec::<String>::new());
}

/// A project has its own; these lines are pasted into its `.env`.
#[test]
fn the_settings_to_paste_leave_the_projects_queue_alone() {
    for name in ["README.md", "src/server/demo.rs", "src/server/demo.html"] {
        assert!(!file(name).contains("QUEUE_CONNECTION"), "{name}");
    }
}

#[test]
fn the_flags_in_its_tables_exist() {
    let readme = file("README.md") + &file("docs/scaling.md");
    for flag in readme
        .split(|c: char| c.is_whitespace() || c == '`')
        .filter(|word| word.starts_with("--") && word.len() > 3)
    {
        let help = file("src/cli.rs");
        let name = flag.trim_start_matches("--").split('=').next().unwrap();
        let name = name.replace('-', "_");
        // Of cargo, sha256sum, tar and scripts/bench.
        let elsewhere = [
            "release",
            "locked",
            "git",
            "check",
            "ignore_missing",
            "strip_components",
            "help",
            "quick",
            "reps",
        ];
        assert!(
            elsewhere.contains(&name.as_str()) || help.contains(&format!("pub {name}:")),
            "there is no flag {flag}"
        );
    }
}

//! The pages in `docs/`: their links lead somewhere, each is in the book, and their commands and
//! settings are those of the program.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The pages: README.md, CHANGELOG.md and those below `docs/`.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

/// The text without what is code.
fn prose(page: &Path) -> String {
    let text = fs::read_to_string(page).unwrap();
    let mut prose = String::new();
    let mut is_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            let parts = line.split('`').step_by(2);
            prose.extend(parts.chain(["\n"]));
        }
    }
    prose
}

/// Where the links of a page lead.
fn links(page: &Path) -> Vec<String> {
    let prose = prose(page);
    let targets = prose.split("](").skip(1);
    targets
        .map(|rest| rest.split(')').next().unwrap().replace('\n', ""))
        .collect()
}

/// The names of a page's headings, as GitHub and mdbook make them.
fn anchors(page: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(page).unwrap();
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let name = |line: &str| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title
            .chars()
            .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.collect::<String>().replace(' ', "-")
    };
    headings.map(name).collect()
}

#[test]
fn links_lead_to_files_and_headings_that_are_there() {
    let mut count = 0;
    for page in pages() {
        for link in links(&page) {
            if link.contains("://") {
                continue;
            }
            count += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => page.clone(),
                file => page.parent().unwrap().join(file),
            };
            assert!(target.exists(), "{}: {link}", page.display());
            if !anchor.is_empty() {
                let known = anchors(&target);
                assert!(known.contains(anchor), "{}: {link}", page.display());
            }
        }
    }
    assert!(count > 100, "{count}");
}

#[test]
fn every_page_is_in_the_book_once() {
    let docs = root().join("docs");
    let summary = docs.join("SUMMARY.md");
    let mut linked: Vec<PathBuf> = links(&summary).iter().map(|it| docs.join(it)).collect();
    let expected: Vec<PathBuf> = pages()
        .into_iter()
        .filter(|page| page.starts_with(&docs) && *page != summary)
        .collect();
    linked.sort();
    assert_eq!(linked, expected);
}

/// The blocks of code of one kind in a page.
fn blocks(page: &Path, kind: &str) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap();
    let mut blocks = Vec::new();
    let mut block: Option<String> = None;
    for line in text.lines() {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut block, fence) {
            (Some(_), Some(_)) => blocks.extend(block.take()),
            (Some(block), None) => block.push_str(&format!("{}\n", line.trim_start())),
            (None, Some(found)) if found == kind => block = Some(String::new()),
            // Of another kind: what ends it opens none.
            (None, Some(_)) | (None, None) => {}
        }
    }
    blocks
}

/// A command's words, as a shell takes them apart.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in command.chars() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (None, ' ') => words.push(String::new()),
            _ => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Those that need a project or another server are run by other tests or by `scripts/test`.
#[test]
fn the_commands_that_the_pages_show_are_understood() {
    let mut count = 0;
    for page in pages() {
        let code = [blocks(&page, "sh"), blocks(&page, "bash")].concat();
        let code = code.concat().replace("\\\n", " ");
        let commands = code.lines().flat_map(|line| line.split([';', '|', '&']));
        for command in commands {
            let command = command.split(" > ").next().unwrap().trim();
            let command = command.trim_start_matches("sudo ");
            let command = command.trim_start_matches("docker compose exec resound ");
            if command.starts_with("resound ") {
                count += 1;
                let words = words(command.split(" #").next().unwrap());
                // `--help` and `--version` are errors that end with 0.
                if let Err(error) = resound::cli::Cli::try_parse_from(words) {
                    assert_eq!(
                        error.exit_code(),
                        0,
                        "{}: {command}: {error}",
                        page.display()
                    );
                }
            }
        }
    }
    assert!(count > 50, "{count}");
}

#[test]
fn the_settings_that_the_pages_name_exist() {
    let known = [
        include_str!("../../config/resound.toml"),
        include_str!("../../src/config/setting.rs"),
        // One that Kubernetes sets, and that is none.
        "RESOUND_PORT",
    ]
    .concat();
    let is_name = |c: char| c.is_ascii_uppercase() || c == '_';
    let mut names = BTreeSet::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        // `VITE_REVERB_HOST` is for pages; a name that ends in `_` stands for several.
        let found = text.split(|c| !is_name(c)).filter(|word| {
            let ours = ["REVERB_", "RESOUND_", "REDIS_"];
            ours.iter().any(|prefix| word.starts_with(prefix)) && !word.ends_with('_')
        });
        names.extend(found.map(|name| (name.to_owned(), page.clone())));
    }
    assert!(names.len() > 100, "{}", names.len());
    let unknown: Vec<_> = names
        .iter()
        .filter(|(name, _)| !known.contains(name))
        .collect();
    assert!(unknown.is_empty(), "{unknown:#?}");
}

#[test]
fn the_settings_files_that_the_pages_show_can_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let mut count = 0;
    for page in pages() {
        for block in blocks(&page, "toml") {
            count += 1;
            let file = dir.path().join("resound.toml");
            fs::write(&file, &block).unwrap();
            let sources = resound::config::Sources {
                config_file: Some(file),
                environment: [
                    ("REVERB_APP_ID", "a"),
                    ("REVERB_APP_KEY", "k"),
                    ("REVERB_APP_SECRET", "s"),
                ]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
                ..Default::default()
            };
            let loaded = resound::config::Config::load(&sources);
            if let Err(error) = loaded {
                panic!("{}: {error}\n{block}", page.display());
            }
        }
    }
    assert!(count > 3, "{count}");
}

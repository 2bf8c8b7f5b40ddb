//! `docs/deploy` leads to what is there, and nothing is left out of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use resound::config::DEFAULT_FILE;

use crate::file;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/deploy")
}

/// All pages by their names.
fn pages() -> BTreeMap<String, String> {
    let files = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(path).unwrap())
    };
    files.map(read).collect()
}

/// Where links go that are not to other hosts: a path, and a heading or nothing.
fn links(page: &str) -> impl Iterator<Item = (&str, &str)> {
    let targets = page.split("](").skip(1);
    let targets = targets.map(|rest| rest.split(')').next().unwrap());
    targets
        .filter(|target| !target.contains("://"))
        .map(|target| target.split_once('#').unwrap_or((target, "")))
}

/// What links call the headings of a page.
fn anchors(page: &str) -> Vec<String> {
    let headings = page.lines().filter_map(|line| {
        let text = line.trim_start_matches('#');
        (text.len() < line.len()).then(|| text.trim().to_lowercase())
    });
    let is_kept = |c: &char| c.is_alphanumeric() || "- _".contains(*c);
    headings
        .map(|text| text.chars().filter(is_kept).collect::<String>())
        .map(|text| text.replace(' ', "-"))
        .collect()
}

#[test]
fn links_lead_to_what_is_there() {
    let mut count = 0;
    for (name, page) in pages() {
        for (path, anchor) in links(&page) {
            let target = match path {
                "" => folder().join(&name),
                path => folder().join(path),
            };
            assert!(target.exists(), "{name}: {path} is not there");
            let is_there = || {
                let text = fs::read_to_string(&target).unwrap();
                anchors(&text).contains(&anchor.to_owned())
            };
            assert!(
                anchor.is_empty() || is_there(),
                "{name}: {path} has no {anchor}"
            );
            count += 1;
        }
    }
    assert!(count > 40, "only {count} links were found");
}

#[test]
fn the_first_page_leads_to_all_others() {
    let pages = pages();
    let index = &pages["README.md"];
    for name in pages.keys().filter(|name| *name != "README.md") {
        let is_there = links(index).any(|(path, _)| path == name);
        assert!(is_there, "no link to {name}");
    }
}

#[test]
fn every_file_is_named_by_the_page_of_its_folder() {
    let pages = pages();
    let is_file = |path: &PathBuf| path.is_file();
    for kind in [
        "nginx",
        "apache",
        "caddy",
        "haproxy",
        "traefik",
        "supervisor",
        "compose",
        "kubernetes",
    ] {
        let page = &pages[&format!("{kind}.md")];
        let entries = fs::read_dir(file::folder().join(kind)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path()).filter(is_file);
        for path in paths {
            let name = path.file_name().unwrap().to_str().unwrap();
            let is_named = page.contains(name);
            assert!(is_named, "{kind}.md does not name {name}");
        }
    }
}

#[test]
fn the_settings_that_pages_name_exist() {
    let is_name = |c: char| c.is_ascii_uppercase() || c == '_';
    for (name, page) in pages() {
        let words = page.split(|c: char| !is_name(c));
        let words = words.filter(|word| {
            let prefixes = ["REVERB_", "RESOUND_", "REDIS_"];
            prefixes.iter().any(|prefix| word.starts_with(prefix))
        });
        // What Laravel alone reads, and what Kubernetes makes.
        let others = ["REVERB_PORT", "REVERB_SCHEME", "RESOUND_PORT"];
        for word in words.filter(|word| !others.contains(word)) {
            let is_known = DEFAULT_FILE.contains(word);
            assert!(is_known, "{name}: {word} is not a setting");
        }
    }
}

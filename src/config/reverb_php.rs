//! `config/reverb.php` of a Laravel project: PHP, and therefore not read.
//!
//! What it says beyond the variables of `.env` would be dropped in silence, a restriction of
//! origins among it. So its presence is reported, and what its text shows is reported with more
//! urgency. That is a search for words: only PHP knows what the file means.

use std::fs::File;
use std::io::Read;

use super::Server;
use super::setting::Section;
use super::source::{Layers, Source};

/// Bytes that are looked at.
const MAX_BYTES: u64 = 256 * 1024;

/// Characters of a value that are compared.
const MAX_VALUE: usize = 80;

/// What to say about the file of the Laravel project that was found, if it has one.
pub(super) fn warnings(layers: &Layers, server: &Server) -> Vec<String> {
    let Some(path) = layers
        .folder
        .as_deref()
        .map(|folder| folder.join("config/reverb.php"))
    else {
        return Vec::new();
    };
    if !path.is_file() {
        return Vec::new();
    }
    let name = super::file::absolute(&path);
    let name = name.display();
    let mut warnings = vec![format!(
        "{name} is not read, because it is PHP: of what it says only the variables in .env and in the environment \
         are known here. Its allowed_origins, its further applications, its limits, its TLS options and its path do \
         not apply unless they are carried over: `resound import` makes a file of all for --config, and REVERB_ALLOWED_ORIGINS, \
         [[apps]] and what `resound check --all` shows say them one by one"
    )];
    let code = File::open(&path).map_or_else(|_| String::new(), code);
    let any_origin = |app: &super::source::Values| {
        let origins = app.get(&(Section::App, "allowed_origins"));
        origins.is_none_or(|value| value.source == Source::Default)
    };
    if let Some(line) = line_of_other(
        &code,
        "allowed_origins",
        &["['*']", "['*',]"],
        "REVERB_ALLOWED_ORIGINS",
    ) && layers.apps.iter().any(any_origin)
    {
        warnings.push(format!(
            "{name} line {line} seems to restrict allowed_origins, and here EVERY page may connect: \
             set REVERB_ALLOWED_ORIGINS, or allowed_origins under [[apps]]"
        ));
    }
    let there = values(&code, "app_id").len();
    if there > layers.apps.len() {
        warnings.push(format!(
            "{name} seems to have {there} applications, and here {}: clients and publishers of the others are \
             refused. `resound import` makes a file of all for --config",
            match layers.apps.len() {
                1 => "there is one".to_owned(),
                count => format!("there are {count}"),
            }
        ));
    }
    if let Some(line) = line_of_other(&code, "tls", &["[]", "array()"], "RESOUND_TLS_CERT")
        && server.tls.is_none()
    {
        warnings.push(format!(
            "{name} line {line} seems to set TLS options, and this server speaks no TLS: \
             give --tls-cert and --tls-key (RESOUND_TLS_CERT, RESOUND_TLS_KEY)"
        ));
    }
    warnings
}

/// The text without the lines that are comments, which stay as empty ones.
fn code(file: File) -> String {
    let mut bytes = Vec::new();
    // What cannot be read shows nothing.
    let _ = file.take(MAX_BYTES).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes)
        .lines()
        .map(|line| {
            let is_comment = ["//", "#", "/*", "*", "|"]
                .iter()
                .any(|mark| line.trim_start().starts_with(mark));
            if is_comment { "" } else { line }
        })
        .flat_map(|line| [line, "\n"])
        .collect()
}

/// The line of the first value of `key` that is neither one of `usual` nor names `variable`.
fn line_of_other(code: &str, key: &str, usual: &[&str], variable: &str) -> Option<usize> {
    let is_usual = |value: &str| {
        usual.iter().any(|usual| value.starts_with(usual)) || value.contains(variable)
    };
    values(code, key)
        .into_iter()
        .find(|(_, value)| !is_usual(value))
        .map(|(line, _)| line)
}

/// What follows each `'key' =>`, with its line: without white space, in single quotes.
fn values(code: &str, key: &str) -> Vec<(usize, String)> {
    let code = code.replace('"', "'");
    let quoted = format!("'{key}'");
    code.match_indices(&quoted)
        .filter_map(|(at, _)| {
            let value = code[at + quoted.len()..].trim_start().strip_prefix("=>")?;
            let line = code[..at].matches('\n').count() + 1;
            let packed = value.chars().filter(|c| !c.is_whitespace());
            Some((line, packed.take(MAX_VALUE).collect()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Sources};

    /// As Reverb publishes it, as far as it matters here.
    const PUBLISHED: &str = "<?php

return [
    /*
    | Here you may define the 'apps', with 'allowed_origins' => ['example.com'].
    */
    'servers' => [
        'reverb' => [
            'host' => env('REVERB_SERVER_HOST', '0.0.0.0'),
            'options' => [
                'tls' => [],
            ],
        ],
    ],
    'apps' => [
        'provider' => 'config',
        'apps' => [
            [
                'key' => env('REVERB_APP_KEY'),
                'secret' => env('REVERB_APP_SECRET'),
                'app_id' => env('REVERB_APP_ID'),
                'allowed_origins' => ['*'],
                // 'allowed_origins' => ['shop.example'],
            ],
        ],
    ],
];
";

    /// The warnings about a project with this `config/reverb.php`, and these lines more in its `.env`.
    fn warnings(php: &str, more: &str) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("config")).unwrap();
        std::fs::write(dir.path().join("config/reverb.php"), php).unwrap();
        let env = dir.path().join(".env");
        let app = "REVERB_APP_ID=1\nREVERB_APP_KEY=k\nREVERB_APP_SECRET=hunter2\n";
        std::fs::write(&env, format!("{app}{more}")).unwrap();
        let sources = Sources {
            env_file: Some(env),
            ..Sources::default()
        };
        Config::load(&sources).unwrap().warnings
    }

    #[test]
    fn a_published_file_is_named_with_what_cannot_be_known() {
        let found = warnings(PUBLISHED, "");
        assert_eq!(found.len(), 1, "{found:?}");
        for text in [
            "config/reverb.php is not read",
            "allowed_origins",
            "further applications",
            "limits",
            "TLS options",
            "path",
            "REVERB_ALLOWED_ORIGINS",
            "[[apps]]",
        ] {
            assert!(found[0].contains(text), "{text}: {found:?}");
        }
    }

    #[test]
    fn what_its_text_shows_is_reported_unless_it_was_carried_over() {
        let restricted = PUBLISHED.replace("=> ['*']", "=> [\n  \"shop.example\",\n]");
        let found = warnings(&restricted, "");
        assert!(
            found[1].contains("line 22 seems to restrict allowed_origins")
                && found[1].contains("EVERY page may connect"),
            "{found:?}"
        );
        assert_eq!(
            warnings(&restricted, "REVERB_ALLOWED_ORIGINS=shop.example\n").len(),
            1
        );
        let by_variable = "=> explode(',', env('REVERB_ALLOWED_ORIGINS', '*'))";
        assert_eq!(
            warnings(&PUBLISHED.replace("=> ['*']", by_variable), "").len(),
            1
        );
        for usual in ["=> [\"*\"]", "=> [\n'*',\n]"] {
            assert_eq!(
                warnings(&PUBLISHED.replace("=> ['*']", usual), "").len(),
                1,
                "{usual}"
            );
        }

        let two = PUBLISHED.replace(
            "            [\n",
            "            ['app_id' => 'second'],\n            [\n",
        );
        let found = warnings(&two, "");
        assert!(
            found[1].contains("seems to have 2 applications, and here there is one"),
            "{found:?}"
        );

        let tls = PUBLISHED.replace("'tls' => []", "'tls' => ['local_cert' => '/c.pem']");
        let found = warnings(&tls, "");
        assert!(
            found[1].contains("line 11 seems to set TLS options"),
            "{found:?}"
        );
    }

    #[test]
    fn a_file_that_is_no_text_or_no_file_harms_nothing() {
        assert_eq!(warnings("\u{0}\u{1}'app_id", "").len(), 1);
        assert_eq!(warnings("", "").len(), 1);
    }
}

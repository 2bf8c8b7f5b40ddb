//! Secrets that are in files: those that a setting names, and systemd's credentials.
//!
//! A file has the secret and nothing else; one line break at its end is not part of it.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::{fs, io};

use super::setting::{SETTINGS, Section, Setting};
use super::source::{Layers, Source, Value, Values};
use super::{ConfigError, Sources, file, setting};

/// What the key of a setting that names a file ends in, behind the key of the secret.
const SUFFIX: &str = "_file";

/// Where systemd puts what `LoadCredential=` and `SetCredentialEncrypted=` say
/// (systemd.exec(5), "Credentials").
const DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// Reads all sources and the files that they name.
pub(super) fn read_layers(sources: &Sources) -> Result<Layers, ConfigError> {
    let mut layers = Layers::read(sources, read_credentials(sources)?)?;
    read_files(&mut layers)?;
    Ok(layers)
}

/// The credentials that are named as variables of secrets are.
fn read_credentials(sources: &Sources) -> Result<Values, ConfigError> {
    let mut said = Values::new();
    let directory = sources.environment.get(DIRECTORY);
    let Some(directory) = directory.filter(|name| !name.is_empty()) else {
        return Ok(said);
    };
    // Otherwise, what is in there would be taken for missing, and weaker sources would win.
    let fail = |error: io::Error| {
        ConfigError::one(format!("{DIRECTORY}: cannot read {directory}: {error}"))
    };
    fs::read_dir(directory).map_err(fail)?;
    for setting in with_files() {
        let path = PathBuf::from(directory).join(setting.variable);
        if path.try_exists().map_err(fail)? {
            let text = secret_in(&path, setting.variable)?;
            let source = Source::Credential(path.into());
            said.insert(setting.id(), Value { text, source });
        }
    }
    Ok(said)
}

/// Secrets that may be in files of their own: those of one line.
fn with_files() -> impl Iterator<Item = &'static Setting> {
    let is_line = |setting: &&Setting| setting.secret && !setting.table;
    SETTINGS.iter().filter(is_line)
}

/// Puts the secrets in the place of the settings that name their files.
fn read_files(layers: &mut Layers) -> Result<(), ConfigError> {
    for setting in with_files() {
        let name = format!("{}{SUFFIX}", setting.key);
        let naming = Setting::of(setting.section, &name);
        match setting.section {
            Section::App => {
                for values in &mut layers.apps {
                    read_file(values, setting, naming)?;
                }
            }
            // The REDIS_* variables are first of all the application's own.
            Section::Scaling if !scales(&layers.shared) => {}
            _ => read_file(&mut layers.shared, setting, naming)?,
        }
    }
    Ok(())
}

fn scales(shared: &Values) -> bool {
    let enabled = shared.get(&(Section::Scaling, "enabled"));
    enabled.is_some_and(|value| setting::truth(&value.text) == Some(true))
}

fn read_file(values: &mut Values, secret: &Setting, naming: &Setting) -> Result<(), ConfigError> {
    let Some(named) = values
        .get(&naming.id())
        .filter(|value| !value.text.is_empty())
    else {
        return Ok(());
    };
    let name = format!("{}.{}", naming.section.name(), naming.key);
    if let Some(said) = values
        .get(&secret.id())
        .filter(|value| !value.text.is_empty())
    {
        let (of_file, of_secret) = (named.source.strength(), said.source.strength());
        if of_secret > of_file {
            return Ok(());
        }
        if of_secret == of_file {
            return Err(ConfigError::one(format!(
                "{}.{} ({}) and {name} ({}) are both set: expected one of them",
                secret.section.name(),
                secret.key,
                said.source,
                named.source
            )));
        }
    }
    let path = PathBuf::from(&named.text);
    let text = secret_in(&path, &format!("{name} ({})", named.source))?;
    let source = Source::SecretFile(Rc::from(path), Box::new(named.source.clone()));
    values.insert(secret.id(), Value { text, source });
    Ok(())
}

/// A secret of one line. What is in the file is in no error.
fn secret_in(path: &Path, what: &str) -> Result<String, ConfigError> {
    let mut text = file::read(path, what)?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    let wrong = if text.is_empty() {
        "it is empty"
    } else if text.contains(char::is_control) {
        "it has more than one line, or characters that are none: expected the secret alone"
    } else {
        return Ok(text);
    };
    let path = path.display();
    Err(ConfigError::one(format!(
        "{what}: cannot use {path}: {wrong}"
    )))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::fs;

    use super::*;
    use crate::apps::App;
    use crate::config::{Config, report};
    use crate::protocol::signature::Secret;

    struct Files(tempfile::TempDir);

    impl Files {
        fn new(files: &[(&str, &str)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for (name, text) in files {
                fs::write(dir.path().join(name), text).unwrap();
            }
            Self(dir)
        }

        fn path(&self, name: &str) -> String {
            self.0.path().join(name).to_str().unwrap().to_owned()
        }

        /// Loads with these variables, in which `@` stands for the directory.
        fn load(&self, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
            let ids = [("REVERB_APP_ID", "1"), ("REVERB_APP_KEY", "k")];
            let environment: HashMap<String, String> = ids
                .iter()
                .chain(environment)
                .map(|(name, value)| {
                    let value = value.replace('@', self.0.path().to_str().unwrap());
                    ((*name).to_owned(), value)
                })
                .collect();
            let (toml, dotenv) = (self.path("resound.toml"), self.path(".env"));
            let existing = |path: String| Some(PathBuf::from(path)).filter(|path| path.exists());
            Config::load(&Sources {
                config_file: existing(toml),
                env_file: existing(dotenv),
                environment,
                ..Sources::default()
            })
        }
    }

    fn secret_of(app: &App) -> &'static str {
        let known = ["plain", "in-file", "in-dotenv", "credential"];
        let is_it = |text: &&&str| Secret::new(text) == app.secret;
        known.iter().find(is_it).expect("it is one of them")
    }

    #[test]
    fn the_strongest_source_of_a_secret_wins_whether_it_is_a_file_or_not() {
        let files = Files::new(&[
            ("secret", "in-file\n"),
            (".env", "REVERB_APP_SECRET=in-dotenv\n"),
            ("REVERB_APP_SECRET", "credential"),
        ]);
        let named = ("REVERB_APP_SECRET_FILE", "@/secret");
        let credentials = ("CREDENTIALS_DIRECTORY", "@");
        for (environment, expected) in [
            (&[][..], "in-dotenv"),
            (&[named], "in-file"),
            (&[credentials], "credential"),
            (&[credentials, named], "in-file"),
            (&[("REVERB_APP_SECRET", "plain"), credentials], "plain"),
        ] {
            let config = files.load(environment).unwrap();
            assert_eq!(secret_of(&config.apps[0]), expected, "{environment:?}");
            let shown = report::text(&config, true);
            assert!(
                !shown.contains(expected) || expected == "credential",
                "{shown}"
            );
        }
        let config = files.load(&[named]).unwrap();
        let text = report::text(&config, false);
        let source = "secret, named by environment variable REVERB_APP_SECRET_FILE";
        assert!(text.contains("(hidden)") && text.contains(source), "{text}");
    }

    /// What is in there would be taken for missing.
    #[test]
    fn credentials_that_cannot_be_read_are_an_error() {
        let files = Files::new(&[(".env", "REVERB_APP_SECRET=in-dotenv\n")]);
        let load = |directory: &str| files.load(&[("CREDENTIALS_DIRECTORY", directory)]);
        let error = load("@/none").unwrap_err().to_string();
        assert!(
            error.starts_with("CREDENTIALS_DIRECTORY: cannot read "),
            "{error}"
        );
        assert!(load("@").is_ok() && load("").is_ok());
    }

    #[test]
    fn each_application_of_a_file_has_its_own() {
        let files = Files::new(&[("a", "in-file"), ("b", "plain\r\n"), ("old", "in-dotenv\n")]);
        let at = |name: &str| files.path(name);
        let toml = format!(
            "[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret_file = {:?}\n\
             [[apps]]\nid = \"2\"\nkey = \"l\"\nsecret_file = {:?}\nprevious_secret_file = {:?}\n",
            at("a"),
            at("b"),
            at("old")
        );
        fs::write(files.path("resound.toml"), toml).unwrap();
        let apps = files.load(&[]).unwrap().apps;
        assert_eq!(
            apps.iter().map(secret_of).collect::<Vec<_>>(),
            ["in-file", "plain"]
        );
        assert!(apps[0].previous_secret.is_none());
        assert_eq!(apps[1].previous_secret, Some(Secret::new("in-dotenv")));
    }

    #[test]
    fn a_password_of_redis_is_only_read_if_it_is_used() {
        let files = Files::new(&[("password", "hunter2\n")]);
        let secret = ("REVERB_APP_SECRET", "plain");
        let scales = ("REVERB_SCALING_ENABLED", "true");
        let load = |more: &[(&str, &str)]| files.load(&[&[secret][..], more].concat());
        let named = ("REDIS_PASSWORD_FILE", "@/password");
        let redis = load(&[scales, named]).unwrap().scaling.unwrap().redis;
        assert_eq!(redis.password.as_deref(), Some("hunter2"));
        let missing = ("REDIS_PASSWORD_FILE", "@/none");
        assert!(load(&[missing]).is_ok());
        let error = load(&[scales, missing]).unwrap_err().to_string();
        assert!(
            error.contains("scaling.password_file") && error.contains("cannot read"),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_has_no_secret_is_refused_without_what_is_in_it() {
        let files = Files::new(&[
            ("empty", "\n"),
            ("lines", "hunter2\nhunter3\n"),
            ("tab", "hunter2\t"),
        ]);
        fs::write(files.path("binary"), [0xff, 0xfe, b'h']).unwrap();
        for (name, expected) in [
            ("empty", "empty: it is empty"),
            ("lines", "it has more than one line"),
            (
                "tab",
                "it has more than one line, or characters that are none",
            ),
            ("binary", "line 1 is not valid UTF-8"),
            ("none", "cannot read "),
            ("", "it is a directory"),
        ] {
            let path = format!("@/{name}");
            let error = files
                .load(&[("REVERB_APP_SECRET_FILE", &path)])
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(expected) && error.contains("REVERB_APP_SECRET_FILE"),
                "{error}"
            );
            assert!(!error.contains("hunter"), "{error}");
        }
        let both = [
            ("REVERB_APP_SECRET", "plain"),
            ("REVERB_APP_SECRET_FILE", "@/lines"),
        ];
        let error = files.load(&both).unwrap_err().to_string();
        let expected = "apps.secret (environment variable REVERB_APP_SECRET) and apps.secret_file \
                        (environment variable REVERB_APP_SECRET_FILE) are both set: expected one of them";
        assert_eq!(error, expected);
    }

    #[test]
    fn a_previous_key_is_nobody_elses() {
        let files = Files::new(&[]);
        let app = |id: &str, key: &str, more: &str| {
            format!("[[apps]]\nid = \"{id}\"\nkey = \"{key}\"\nsecret = \"s\"\n{more}\n")
        };
        for (text, is_fine) in [
            (
                app("1", "a", "previous_key = \"b\"") + &app("2", "c", ""),
                true,
            ),
            (
                app("1", "a", "previous_key = \"c\"") + &app("2", "c", ""),
                false,
            ),
            (app("1", "a", "previous_key = \"a\""), false),
        ] {
            fs::write(files.path("resound.toml"), &text).unwrap();
            let sources = Sources {
                config_file: Some(files.path("resound.toml").into()),
                ..Sources::default()
            };
            assert_eq!(Config::load(&sources).is_ok(), is_fine, "{text}");
        }
    }
}

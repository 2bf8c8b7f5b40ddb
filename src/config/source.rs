//! Where settings come from, and which of them wins.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use toml::de::{DeTable, DeValue};

use super::file;
use super::import::{Imported, Said};
use super::setting::{FOR_OTHERS, OF_LARAVEL, OF_PUSHER, SETTINGS, Section, Setting};
use super::{ConfigError, ConfigJson, Sources, dotenv};

/// Where a value was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nowhere: it is built in.
    Default,
    /// A file's line, from 1.
    File(Rc<Path>, usize),
    /// A place in a Laravel project's configuration.
    Json(Rc<Path>, Rc<str>),
    /// A line of a `.env`, from 1, and the variable there.
    Dotenv(Rc<Path>, usize, &'static str),
    /// A file of systemd's directory of credentials.
    Credential(Rc<Path>),
    /// An environment variable.
    Environment(&'static str),
    /// A flag of the command line.
    Flag(&'static str),
    /// The file that a setting names, and that setting's own source.
    SecretFile(Rc<Path>, Box<Self>),
}

impl Source {
    /// The greater, the stronger.
    pub(super) fn strength(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File(..) | Self::Json(..) => 1,
            Self::Dotenv(..) => 2,
            Self::Credential(_) => 3,
            Self::Environment(_) => 4,
            Self::Flag(_) => 5,
            Self::SecretFile(_, source) => source.strength(),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{} line {line}", path.display()),
            Self::Json(path, place) => write!(f, "{} at {place}", path.display()),
            Self::Dotenv(path, line, name) => write!(f, "{} line {line}, {name}", path.display()),
            Self::Credential(path) => write!(f, "credential {}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::SecretFile(path, source) => {
                write!(f, "file {}, named by {source}", path.display())
            }
        }
    }
}

/// What is said of one application, and not of all.
const IDENTITY: [&str; 7] = [
    "id",
    "key",
    "secret",
    "secret_file",
    "previous_key",
    "previous_secret",
    "previous_secret_file",
];

/// A value as it was written, and where. Lists are joined by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The text.
    pub text: String,
    /// Where it was said.
    pub source: Source,
}

/// What a variable says that is not, or not only, for this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its value.
    pub text: String,
    /// Where it was said, for a person.
    pub place: String,
}

/// Values by setting.
pub type Values = HashMap<(Section, &'static str), Value>;

/// Everything that was said, the strongest value of each setting.
#[derive(Debug, Default)]
pub struct Layers {
    /// `[server]` and `[scaling]`.
    pub shared: Values,
    /// One map per application.
    pub apps: Vec<Values>,
    /// Of each application, one map per webhook.
    pub webhooks: Vec<Vec<Values>>,
    /// The webhook that variables describe, which is for a single application.
    pub webhook: Values,
    /// What was said but means nothing, for a warning.
    pub warnings: Vec<String>,
    /// What may be as it should be, and may be not.
    pub notes: Vec<String>,
    /// The files that were read, with their whole paths.
    pub files: Vec<PathBuf>,
    /// The directory in which a `.env` was looked for in vain.
    pub without_dotenv: Option<PathBuf>,
    /// Where the Laravel project is, going by its `.env`.
    pub folder: Option<PathBuf>,
    /// What variables say to Laravel, and to its pages, by name.
    pub for_others: HashMap<&'static str, Variable>,
}

impl Layers {
    /// Reads all sources and merges them, among them what `credentials` say.
    pub fn read(sources: &Sources, credentials: Values) -> Result<Self, ConfigError> {
        let mut layers = Self::default();
        if let Some(path) = &sources.config_file {
            let text = file::read_toml(path)?;
            layers.files.push(file::absolute(path));
            layers
                .read_toml(&Rc::from(path.as_path()), &text)
                .map_err(|error| file::with_hint_at_dotenv(error, path, &text))?;
        }
        if let Some(json) = &sources.config_json {
            layers.read_json(json)?;
        }
        let mut said = Values::new();
        if let Some(path) = layers.find_dotenv(sources) {
            let text = file::read_dotenv(&path, sources.env_file.is_some())?;
            layers.files.push(file::absolute(&path));
            layers
                .read_dotenv(&Rc::from(path.as_path()), &text, sources, &mut said)
                .map_err(|error| file::with_hint_at_toml(error, &path, &text))?;
        }
        said.extend(credentials);
        layers.read_environment(sources, &mut said)?;
        for (flag, text) in &sources.flags {
            let setting = SETTINGS
                .iter()
                .find(|setting| setting.flag == *flag)
                .expect("each flag is in the table");
            said.insert(
                setting.id(),
                Value {
                    text: text.clone(),
                    source: Source::Flag(flag),
                },
            );
        }
        layers.say(said);
        Ok(layers)
    }

    fn read_json(&mut self, json: &ConfigJson) -> Result<(), ConfigError> {
        let place = match json {
            ConfigJson::File(path) => path.as_path(),
            ConfigJson::Text(_) => Path::new("standard input"),
            ConfigJson::Imported(_) => Path::new("the document"),
        };
        let read = |text: &str| {
            let imported = Imported::from_laravel(text);
            imported.map_err(|error| {
                ConfigError::one(format!("--config-json {}: {error}", place.display()))
            })
        };
        let mut imported = match json {
            ConfigJson::File(path) => {
                let text = file::read_json(path)?;
                self.files.push(file::absolute(path));
                read(&text)?
            }
            ConfigJson::Text(text) => read(text)?,
            ConfigJson::Imported(imported) => imported.clone(),
        };
        self.notes.append(&mut imported.notes);
        let place: Rc<Path> = Rc::from(place);
        let values = |said: Said| {
            said.into_iter().map(|(id, (text, path))| {
                let source = Source::Json(Rc::clone(&place), path.into());
                (id, Value { text, source })
            })
        };
        self.shared.extend(values(imported.shared));
        let apps = imported.apps.into_iter();
        self.apps.extend(apps.map(|said| values(said).collect()));
        Ok(())
    }

    /// The file that was asked for, or `.env` in the working directory if there is one.
    fn find_dotenv(&mut self, sources: &Sources) -> Option<PathBuf> {
        let default = &sources.default_env_file;
        let path = sources.env_file.as_ref().unwrap_or(default);
        if path.as_os_str().is_empty() {
            return None;
        }
        let folder = file::absolute(path).parent().map(Path::to_owned);
        self.folder.clone_from(&folder);
        if sources.env_file.is_none() && !default.is_file() {
            self.without_dotenv = folder;
            return None;
        }
        Some(path.clone())
    }

    fn read_environment(
        &mut self,
        sources: &Sources,
        said: &mut Values,
    ) -> Result<(), ConfigError> {
        for setting in SETTINGS
            .iter()
            .filter(|setting| !setting.variable.is_empty())
        {
            let text = sources
                .environment
                .get(setting.variable)
                .map(String::as_str);
            if let Some(text) = text.and_then(meaning) {
                said.insert(
                    setting.id(),
                    Value {
                        text,
                        source: Source::Environment(setting.variable),
                    },
                );
            }
        }
        let mut names: Vec<&String> = sources.environment.keys().collect();
        names.sort();
        for name in names {
            let text = sources.environment.get(name).map(String::as_str);
            if is_unknown(name) {
                self.warnings
                    .push(format!("environment variable {name} is not a setting"));
            }
            self.keep_for_others(name, text, &format!("environment variable {name}"));
        }
        self.refuse_other_servers(
            sources.environment.get("REVERB_SERVER").map(String::as_str),
            "environment",
        )
    }

    /// Keeps what a variable says to others than this server.
    fn keep_for_others(&mut self, name: &str, text: Option<&str>, place: &str) {
        let known = FOR_OTHERS.iter().chain(OF_PUSHER).chain(OF_LARAVEL);
        if let Some(name) = known.copied().find(|known| *known == name)
            && let Some(text) = text.and_then(meaning)
        {
            let place = place.to_owned();
            // Whether they are the same, signatures tell.
            let text = if name.ends_with("_SECRET") {
                "(hidden)".to_owned()
            } else {
                text
            };
            self.for_others.insert(name, Variable { text, place });
        }
    }

    fn read_toml(&mut self, path: &Rc<Path>, text: &str) -> Result<(), ConfigError> {
        let lines = Lines::of(text);
        let fail = |at: usize, message: String| {
            let line = lines.at(at);
            ConfigError::one(format!("{} line {line}: {message}", path.display()))
        };
        let table = DeTable::parse(text).map_err(|error| {
            fail(
                error.span().map_or(0, |span| span.start),
                format!("not valid TOML: {}", error.message()),
            )
        })?;
        for (name, value) in table.get_ref() {
            let at = name.span().start;
            match (name.get_ref().as_ref(), value.get_ref()) {
                ("server", DeValue::Table(table)) => {
                    self.shared
                        .extend(section(Section::Server, table, path, &lines)?);
                }
                ("metrics", DeValue::Table(table)) => {
                    self.shared
                        .extend(section(Section::Metrics, table, path, &lines)?);
                }
                ("scaling", DeValue::Table(table)) => {
                    self.shared
                        .extend(section(Section::Scaling, table, path, &lines)?);
                }
                ("webhooks", DeValue::Table(table)) => {
                    self.shared
                        .extend(section(Section::Webhooks, table, path, &lines)?);
                }
                ("apps", DeValue::Array(apps)) => {
                    for app in apps {
                        let DeValue::Table(table) = app.get_ref() else {
                            return Err(fail(at, "apps holds tables: write [[apps]]".to_owned()));
                        };
                        self.read_app(table, path, &lines)?;
                    }
                }
                ("apps", _) => {
                    return Err(fail(
                        at,
                        "apps is a list of tables: write [[apps]]".to_owned(),
                    ));
                }
                ("server" | "scaling" | "metrics" | "webhooks", _) => {
                    return Err(fail(
                        at,
                        format!("{0} is a table: write [{0}]", name.get_ref()),
                    ));
                }
                (other, _) => {
                    let known = "expected [server], [scaling], [metrics], [webhooks] or [[apps]]";
                    return Err(fail(
                        at,
                        format!("there is no section \"{other}\"; {known}"),
                    ));
                }
            }
        }
        Ok(())
    }

    /// One application, with its webhooks.
    fn read_app(
        &mut self,
        table: &DeTable<'_>,
        path: &Rc<Path>,
        lines: &Lines,
    ) -> Result<(), ConfigError> {
        let mut webhooks = Vec::new();
        for (name, value) in table {
            if name.get_ref() != "webhooks" {
                continue;
            }
            let fail = || {
                let line = lines.at(name.span().start);
                let text = "webhooks is a list of tables: write [[apps.webhooks]]";
                ConfigError::one(format!("{} line {line}: {text}", path.display()))
            };
            let DeValue::Array(tables) = value.get_ref() else {
                return Err(fail());
            };
            for webhook in tables {
                let DeValue::Table(table) = webhook.get_ref() else {
                    return Err(fail());
                };
                webhooks.push(section(Section::Webhook, table, path, lines)?);
            }
        }
        self.apps.push(section(Section::App, table, path, lines)?);
        self.webhooks.resize(self.apps.len() - 1, Vec::new());
        self.webhooks.push(webhooks);
        Ok(())
    }

    fn read_dotenv(
        &mut self,
        path: &Rc<Path>,
        text: &str,
        sources: &Sources,
        said: &mut Values,
    ) -> Result<(), ConfigError> {
        let environment = |name: &str| sources.environment.get(name).cloned();
        let entries = dotenv::parse(text, environment)
            .map_err(|error| ConfigError::one(format!("{} {error}", path.display())))?;
        for entry in entries {
            let name = entry.name.as_str();
            let place = format!("{} line {}", path.display(), entry.line);
            self.keep_for_others(name, entry.value.as_deref(), &place);
            if name == "REVERB_SERVER" {
                self.refuse_other_servers(entry.value.as_deref(), &place)?;
            } else if let Some(setting) = SETTINGS.iter().find(|setting| setting.variable == name) {
                if let Some(text) = entry.value.as_deref().and_then(meaning) {
                    let source = Source::Dotenv(Rc::clone(path), entry.line, setting.variable);
                    said.insert(setting.id(), Value { text, source });
                }
            } else if is_unknown(name) {
                self.warnings
                    .push(format!("{place}: {name} is not a setting"));
            }
        }
        Ok(())
    }

    fn refuse_other_servers(&self, value: Option<&str>, source: &str) -> Result<(), ConfigError> {
        match value.and_then(meaning) {
            Some(name) if name != "reverb" => Err(ConfigError::one(format!(
                "REVERB_SERVER = \"{name}\" ({source}): expected \"reverb\""
            ))),
            _ => Ok(()),
        }
    }

    /// Puts what variables and flags said over what the file said.
    ///
    /// [`IDENTITY`] belongs to one application: the file's one of that id,
    /// or the file's only one, or a further one. The rest is said for all.
    fn say(&mut self, said: Values) {
        let (mut identity, mut common) = (Values::new(), Values::new());
        for (id, value) in said {
            match id {
                (Section::App, key) if IDENTITY.contains(&key) => identity.insert(id, value),
                (Section::App, _) => common.insert(id, value),
                (Section::Webhook, _) => self.webhook.insert(id, value),
                (Section::Server | Section::Metrics | Section::Scaling | Section::Webhooks, _) => {
                    self.shared.insert(id, value)
                }
            };
        }
        if !identity.is_empty() {
            let name = (Section::App, "id");
            let same = |app: &Values| {
                app.get(&name).map(|v| &v.text) == identity.get(&name).map(|v| &v.text)
            };
            match self.apps.iter().position(same) {
                Some(at) => self.apps[at].extend(identity),
                None if self.apps.len() == 1 && !identity.contains_key(&name) => {
                    self.apps[0].extend(identity)
                }
                None => self.apps.push(identity),
            }
        }
        for app in &mut self.apps {
            app.extend(common.iter().map(|(id, value)| (*id, value.clone())));
        }
        self.webhooks.resize(self.apps.len(), Vec::new());
    }
}

impl Setting {
    pub(super) fn id(&self) -> (Section, &'static str) {
        (self.section, self.key)
    }
}

/// What Laravel's `env()` makes of a variable: empty and null mean "not set", and
/// one pair of quotes around the whole is taken off (docker's `--env-file` leaves it).
fn meaning(text: &str) -> Option<String> {
    match text.to_ascii_lowercase().as_str() {
        "" | "null" | "(null)" | "empty" | "(empty)" => None,
        "(true)" => Some("true".to_owned()),
        "(false)" => Some("false".to_owned()),
        _ => {
            let unquoted = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
            let inner = unquoted('"').or_else(|| unquoted('\'')).unwrap_or(text);
            Some(inner.to_owned()).filter(|inner| !inner.is_empty())
        }
    }
}

/// Whether a variable looks like a setting of ours and is none.
fn is_unknown(name: &str) -> bool {
    let ours = name.starts_with("REVERB_") || name.starts_with("RESOUND_");
    let known = name == "REVERB_SERVER" || FOR_OTHERS.contains(&name);
    ours && !known && !SETTINGS.iter().any(|setting| setting.variable == name)
}

/// Where the lines of a text end.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    /// The number of the line that has this place, from 1 on.
    fn at(&self, place: usize) -> usize {
        self.0.partition_point(|end| *end < place) + 1
    }
}

/// Reads one table; `rate_limiting.enabled` may be written dotted or as a table.
fn section(
    section: Section,
    table: &DeTable<'_>,
    path: &Rc<Path>,
    lines: &Lines,
) -> Result<Values, ConfigError> {
    let mut values = Values::new();
    let mut open = vec![(String::new(), table)];
    while let Some((prefix, table)) = open.pop() {
        for (name, value) in table {
            let key = format!("{prefix}{}", name.get_ref());
            let line = lines.at(name.span().start);
            let is_texts = Setting::find(section, &key).is_some_and(|setting| setting.table);
            let is_list = section == Section::App && key == "webhooks";
            match value.get_ref() {
                DeValue::Table(inner) if !is_texts => {
                    open.push((format!("{key}."), inner));
                    continue;
                }
                // Each is a section of its own.
                DeValue::Array(_) if is_list => continue,
                _ => {}
            }
            let fail = |message: String| {
                ConfigError::one(format!("{} line {line}: {message}", path.display()))
            };
            let setting = Setting::find(section, &key).ok_or_else(|| {
                fail(format!(
                    "there is no setting \"{key}\" in {}",
                    section.name()
                ))
            })?;
            let text = scalar(value.get_ref(), setting)
                .map_err(|expected| fail(format!("{key}: {expected}")))?;
            values.insert(
                setting.id(),
                Value {
                    text,
                    source: Source::File(Rc::clone(path), line),
                },
            );
        }
    }
    Ok(values)
}

fn scalar(value: &DeValue<'_>, setting: &Setting) -> Result<String, &'static str> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_owned()),
        DeValue::Boolean(flag) => Ok(flag.to_string()),
        DeValue::Array(items) if setting.list => {
            let texts: Option<Vec<&str>> =
                items.iter().map(|item| item.get_ref().as_str()).collect();
            texts
                .map(|texts| texts.join(","))
                .ok_or("expected a list of texts")
        }
        DeValue::Table(texts) if setting.table => {
            let lines: Option<Vec<String>> = texts
                .iter()
                .map(|(name, text)| {
                    Some(format!("{}: {}", name.get_ref(), text.get_ref().as_str()?))
                })
                .collect();
            let lines = lines.filter(|lines| !lines.iter().any(|line| line.contains('\n')));
            lines
                .map(|lines| lines.join("\n"))
                .ok_or("expected a table of texts of one line")
        }
        _ if setting.table => Err("expected a table of texts"),
        _ if setting.list => Err("expected a list of texts"),
        _ => Err("expected a text, a decimal number, true or false"),
    }
}

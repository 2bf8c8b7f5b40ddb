//! What was found, in the order in which it was looked for.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::tools;

/// A sentence.
pub type Text = Cow<'static, str>;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Not looked at, or worth knowing.
    Note,
    /// It works, for some or for now.
    Warning,
    /// It does not work.
    Error,
}

impl Level {
    /// Its name in both forms of the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// The outcome of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// Which check; these names stay.
    pub check: &'static str,
    /// What is so.
    pub text: Text,
    /// What to change, and where; empty if there is nothing to do.
    pub fix: Text,
}

impl Finding {
    /// The same for a person, with colours.
    pub fn in_lines(&self) -> String {
        use anstyle::{AnsiColor, Style};
        let color = match self.level {
            Level::Ok => AnsiColor::Green,
            Level::Note => AnsiColor::Cyan,
            Level::Warning => AnsiColor::Yellow,
            Level::Error => AnsiColor::Red,
        };
        let style = Style::new().fg_color(Some(color.into()));
        let (name, check, text) = (self.level.name(), self.check, visible(&self.text));
        let mut lines = format!("{style}{name:<8}{style:#} {check}: {text}\n");
        for line in self.fix.lines() {
            lines.push_str(&format!("         -> {}\n", visible(line)));
        }
        lines
    }
}

/// Lines below each other, and nothing else that moves the cursor.
fn visible(text: &str) -> String {
    let shown = text.lines().map(tools::visible);
    shown.collect::<Vec<_>>().join("\n         ")
}

/// All outcomes, told to whoever watches as they come.
pub struct Report<'a> {
    findings: Vec<Finding>,
    watch: &'a mut dyn FnMut(&Finding),
}

impl<'a> Report<'a> {
    pub(super) fn new(watch: &'a mut dyn FnMut(&Finding)) -> Self {
        Self {
            findings: Vec::new(),
            watch,
        }
    }

    #[cold]
    fn add(&mut self, level: Level, check: &'static str, text: Text, fix: Text) {
        let finding = Finding {
            level,
            check,
            text,
            fix,
        };
        (self.watch)(&finding);
        self.findings.push(finding);
    }

    pub(super) fn ok(&mut self, check: &'static str, text: impl Into<Text>) {
        self.add(Level::Ok, check, text.into(), Text::default());
    }

    pub(super) fn note(&mut self, check: &'static str, text: impl Into<Text>) {
        self.add(Level::Note, check, text.into(), Text::default());
    }

    pub(super) fn warn(
        &mut self,
        check: &'static str,
        text: impl Into<Text>,
        fix: impl Into<Text>,
    ) {
        self.add(Level::Warning, check, text.into(), fix.into());
    }

    pub(super) fn error(&mut self, problem: Problem) {
        let Problem { check, text, fix } = problem;
        self.add(Level::Error, check, text, fix);
    }

    /// The worst of all.
    pub fn worst(&self) -> Level {
        let levels = self.findings.iter().map(|finding| finding.level);
        levels.max().unwrap_or(Level::Ok)
    }

    /// All as one document.
    pub fn to_json(&self) -> Value {
        let checks = self.findings.iter().map(|finding| {
            let mut entry = json!({
                "level": finding.level.name(),
                "check": finding.check,
                "text": finding.text,
            });
            if !finding.fix.is_empty() {
                entry["fix"] = (*finding.fix).into();
            }
            entry
        });
        json!({ "worst": self.worst().name(), "checks": checks.collect::<Vec<_>>() })
    }
}

/// Why something does not work; what depends on it is not looked at.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) check: &'static str,
    pub(super) text: Text,
    pub(super) fix: Text,
}

impl Problem {
    pub(super) fn new(check: &'static str, text: impl Into<Text>, fix: impl Into<Text>) -> Self {
        Self {
            check,
            text: text.into(),
            fix: fix.into(),
        }
    }
}

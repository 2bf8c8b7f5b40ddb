//! `docs/operate.md` is true: what it says of the log is in the source.

use std::fs;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use resound::config::setting::SETTINGS;
use syn::visit::Visit;

use crate::layers::sources;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page() -> String {
    fs::read_to_string(root().join("docs/operate.md")).unwrap()
}

/// Texts that go on in the next line are one.
fn joined(text: &str) -> String {
    let mut parts = text.split("\\\n");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.trim_start())
}

/// The texts of the table of lines, with their levels.
fn alarms(page: &str) -> Vec<(String, String)> {
    let table = page.split("### What an alarm may look for").nth(1).unwrap();
    let table = table.split("\n## ").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| "));
    rows.filter_map(|row| {
        let mut cells = row.split('|').skip(1).map(str::trim);
        let (level, text) = (cells.next()?, cells.next()?);
        let text = text.strip_prefix('`')?.strip_suffix('`')?;
        Some((level.to_owned(), text.to_owned()))
    })
    .collect()
}

#[test]
fn the_lines_that_an_alarm_may_look_for_are_in_the_source() {
    let sources = sources();
    let all: String = sources.iter().map(|(_, text)| joined(text)).collect();
    let alarms = alarms(&page());
    assert!(alarms.len() > 20, "{alarms:?}");
    for (level, text) in alarms {
        assert!(["ERROR", "WARN", "INFO"].contains(&&*level), "{level}");
        assert!(all.contains(text.trim()), "nothing logs {text:?}");
    }
}

/// Finds `tracing::warn!` and `tracing::error!`.
#[derive(Default)]
struct Warnings(Vec<String>);

impl<'ast> Visit<'ast> for Warnings {
    fn visit_macro(&mut self, found: &'ast syn::Macro) {
        let name = &found.path.segments.last().unwrap().ident;
        if name == "warn" || name == "error" {
            self.0.extend(last_text(found.tokens.clone()));
        }
    }
}

fn last_text(tokens: TokenStream) -> Option<String> {
    let texts = tokens.into_iter().filter_map(|token| match token {
        TokenTree::Literal(literal) => syn::parse_str::<syn::LitStr>(&literal.to_string()).ok(),
        _ => None,
    });
    texts.last().map(|text| text.value())
}

#[test]
fn what_is_warned_of_is_in_the_table() {
    let alarms = alarms(&page());
    let mut warnings = Warnings::default();
    for (_, text) in sources() {
        warnings.visit_file(&syn::parse_file(&text).unwrap());
    }
    assert!(warnings.0.len() > 10, "{:?}", warnings.0);
    for warning in warnings.0 {
        // Not what is said of the settings, which is a text of its own each time.
        let parts = warning.split(['{', '}']).step_by(2);
        let longest = parts.max_by_key(|part| part.len()).unwrap();
        let is_there = alarms.iter().any(|(_, text)| warning.contains(&**text));
        assert!(is_there || longest.len() < 10, "{warning:?} is not listed");
    }
}

#[test]
fn the_targets_it_names_are_modules() {
    let page = page();
    let mut count = 0;
    for name in page.split(|c: char| !(c.is_ascii_lowercase() || c == '_' || c == ':')) {
        let Some(module) = name.strip_prefix("resound::") else {
            continue;
        };
        count += 1;
        let path = root().join("src").join(module.replace("::", "/"));
        let exists = path.is_dir() || path.with_extension("rs").is_file();
        assert!(exists || name == resound::telemetry::FRAMES, "{name}");
    }
    assert!(count > 8, "{count}");
}

/// With `UPDATE_DOCS=1`, it is made so.
#[test]
fn all_settings_are_in_the_last_table() {
    let text = page();
    let head = "|---|---|---|---|---|\n";
    let (before, _) = text.split_once("## All settings").unwrap();
    let begin = before.len() + text[before.len()..].find(head).unwrap() + head.len();
    let code = |text: &str| match text {
        "" => String::new(),
        text => format!("`{text}`"),
    };
    let rows: String = SETTINGS
        .iter()
        .map(|setting| {
            format!(
                "| `{}.{}` | {} | {} | {} | {} |\n",
                setting.section.name(),
                setting.key,
                code(setting.variable),
                code(setting.flag),
                code(setting.default),
                if setting.restart { "restart" } else { "" }
            )
        })
        .collect();
    let right = format!("{}{rows}", &text[..begin]);
    if std::env::var("UPDATE_DOCS").is_ok() {
        fs::write(root().join("docs/operate.md"), &right).unwrap();
    }
    assert!(text == right, "run it again with UPDATE_DOCS=1");
}

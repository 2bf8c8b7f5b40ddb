//! The shape of the source: who imports whom, and how long things are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::Visit;

const MAX_FILE_LINES: usize = 600;
const MAX_FUNCTION_LINES: usize = 70;

/// Each module and what it may import; the crate docs of `src/lib.rs` draw it.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("cli", &["config"]),
    ("generate", &["cli"]),
    (
        "doctor",
        &[
            "cli", "import", "tools", "client", "config", "protocol", "server",
        ],
    ),
    ("import", &["cli", "config"]),
    ("tools", &["cli", "client", "config", "apps", "protocol"]),
    ("client", &["protocol"]),
    ("health", &["config"]),
    ("control", &["config", "server"]),
    (
        "server",
        &[
            "metrics",
            "webhooks",
            "api",
            "ws",
            "worker",
            "broker",
            "cluster",
            "hub",
            "protocol",
            "proxies",
            "lifecycle",
            "systemd",
            "apps",
            "config",
            "telemetry",
            "tls",
        ],
    ),
    (
        "metrics",
        &[
            "webhooks",
            "broker",
            "worker",
            "hub",
            "protocol",
            "lifecycle",
            "apps",
            "telemetry",
        ],
    ),
    (
        "webhooks",
        &[
            "client",
            "cluster",
            "hub",
            "protocol",
            "apps",
            "config",
            "telemetry",
        ],
    ),
    (
        "api",
        &[
            "broker",
            "protocol",
            "proxies",
            "lifecycle",
            "apps",
            "telemetry",
        ],
    ),
    (
        "ws",
        &[
            "broker",
            "worker",
            "hub",
            "protocol",
            "proxies",
            "apps",
            "telemetry",
        ],
    ),
    ("broker", &["cluster", "hub", "protocol", "apps"]),
    (
        "worker",
        &[
            "hub",
            "protocol",
            "proxies",
            "lifecycle",
            "apps",
            "telemetry",
            "tls",
        ],
    ),
    (
        "cluster",
        &[
            "hub",
            "protocol",
            "lifecycle",
            "apps",
            "config",
            "telemetry",
        ],
    ),
    ("hub", &["protocol", "apps", "telemetry"]),
    ("apps", &["protocol"]),
    ("config", &["apps", "protocol", "proxies", "telemetry"]),
    ("protocol", &[]),
    ("proxies", &[]),
    ("lifecycle", &[]),
    ("shutdown", &["telemetry"]),
    ("systemd", &["telemetry"]),
    ("telemetry", &[]),
    ("tls", &[]),
];

/// All files of the program, with their texts.
pub(crate) fn sources() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push((path.clone(), fs::read_to_string(path).unwrap()));
            }
        }
    }
    assert!(files.len() > 20, "the sources were not found");
    files
}

/// The top-level module of a file, or `None` for `lib.rs` and `main.rs`.
fn module(path: &Path) -> Option<String> {
    let inner = path
        .strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
        .unwrap();
    let first = inner
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_str()
        .unwrap();
    let name = first.strip_suffix(".rs").unwrap_or(first).to_owned();
    (name != "lib" && name != "main").then_some(name)
}

/// The path of a file's module, from the crate's root: `["hub", "channel"]`.
fn module_path(path: &Path) -> Vec<String> {
    let inner = path
        .strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
        .unwrap();
    let names = inner.with_extension("");
    let names = names.iter().map(|name| name.to_str().unwrap().to_owned());
    names
        .filter(|name| name != "mod" && name != "lib")
        .collect()
}

/// Collects `crate::x` paths, async functions, and functions that are too long,
/// outside of tests.
#[derive(Default)]
struct Survey {
    /// Every path that is named, with all its parts.
    paths: Vec<Vec<String>>,
    imports: Vec<String>,
    crates: Vec<String>,
    async_functions: Vec<String>,
    long: Vec<String>,
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Ident>()
                .is_ok_and(|what| what == "test")
    })
}

impl Survey {
    fn function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let name = signature.ident.to_string();
        if signature.asyncness.is_some() {
            self.async_functions.push(name.clone());
        }
        let lines =
            block.brace_token.span.close().end().line - signature.fn_token.span.start().line + 1;
        if lines > MAX_FUNCTION_LINES {
            self.long.push(format!("{name} has {lines} lines"));
        }
    }

    fn path(&mut self, segments: &[String]) {
        self.paths.push(segments.to_vec());
        if let [first, second, ..] = segments
            && first == "crate"
        {
            self.imports.push(second.clone());
        }
        self.crates.extend(segments.first().cloned());
    }

    fn tree(&mut self, tree: &syn::UseTree, mut prefix: Vec<String>) {
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.tree(&path.tree, prefix);
            }
            syn::UseTree::Group(group) => group
                .items
                .iter()
                .for_each(|item| self.tree(item, prefix.clone())),
            syn::UseTree::Name(name) => {
                prefix.push(name.ident.to_string());
                self.path(&prefix);
            }
            syn::UseTree::Rename(name) => {
                prefix.push(name.ident.to_string());
                self.path(&prefix);
            }
            syn::UseTree::Glob(_) => self.path(&prefix),
        }
    }
}

impl<'ast> Visit<'ast> for Survey {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_test(&module.attrs) {
            syn::visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&item.tree, Vec::new());
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        self.path(&segments);
        syn::visit::visit_path(self, path);
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.function(&function.sig, &function.block);
        syn::visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.function(&function.sig, &function.block);
        syn::visit::visit_impl_item_fn(self, function);
    }
}

#[test]
fn modules_import_downwards_only_and_stay_small() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        let lines = text.lines().count();
        if lines > MAX_FILE_LINES {
            faults.push(format!("{file} has {lines} lines"));
        }
        let mut survey = Survey::default();
        survey.visit_file(&syn::parse_file(&text).unwrap());
        faults.extend(survey.long.iter().map(|long| format!("{file}: {long}")));
        let Some(module) = module(&path) else {
            continue;
        };
        let (_, allowed) = MAY_IMPORT
            .iter()
            .find(|(name, _)| *name == module)
            .unwrap_or_else(|| panic!("{module} has no place among the layers"));
        for import in &survey.imports {
            if *import != module && !allowed.contains(&import.as_str()) {
                faults.push(format!("{module} ({file}) imports {import}"));
            }
        }
        if module == "protocol" {
            let banned = ["tokio", "hyper", "redis", "tokio_tungstenite", "socket2"];
            let found = survey
                .crates
                .iter()
                .filter(|name| banned.contains(&name.as_str()));
            faults.extend(found.map(|name| format!("protocol ({file}) uses {name}")));
        }
        let parts = module_path(&path);
        if module == "cluster" && parts.len() == 2 {
            // What is decided there needs neither Redis nor a clock.
            let is_redis = |path: &&Vec<String>| path.first().is_some_and(|name| name == "redis");
            let is_clock = |path: &&Vec<String>| path.ends_with(&["Instant".into(), "now".into()]);
            let paths = survey.paths.iter();
            let found = paths.filter(|path| {
                parts.last().is_some_and(|it| it != "redis") && (is_redis(path) || is_clock(path))
            });
            faults.extend(found.map(|path| format!("cluster ({file}) uses {}", path.join("::"))));
        }
        if module == "hub" {
            let found = survey.async_functions.iter();
            faults.extend(found.map(|name| format!("hub ({file}) has the async fn {name}")));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The module that a path leads to, as it is written in `module`.
fn target(module: &[String], path: &[String], modules: &[Vec<String>]) -> Option<Vec<String>> {
    let mut at = module.to_vec();
    let mut rest = path.iter();
    match path.first()?.as_str() {
        "crate" => {
            at.clear();
            rest.next();
        }
        "self" => _ = rest.next(),
        "super" => {
            while rest.clone().next().is_some_and(|part| part == "super") {
                rest.next();
                at.pop();
            }
        }
        // A child, or something from another crate.
        _ => {}
    }
    let start = at.len();
    for part in rest {
        at.push(part.clone());
        if !modules.contains(&at) {
            at.pop();
            break;
        }
    }
    (at.len() > start || path[0] == "super" || path[0] == "crate").then_some(at)
}

/// A walk along imports that ends where it began, if there is one.
fn circle(imports: &BTreeMap<Vec<String>, BTreeSet<Vec<String>>>) -> Option<Vec<String>> {
    fn walk<'a>(
        at: &'a Vec<String>,
        imports: &'a BTreeMap<Vec<String>, BTreeSet<Vec<String>>>,
        way: &mut Vec<&'a Vec<String>>,
        done: &mut BTreeSet<&'a Vec<String>>,
    ) -> Option<Vec<String>> {
        if let Some(begin) = way.iter().position(|module| *module == at) {
            let round = way[begin..].iter().copied().chain([at]);
            return Some(round.map(|module| module.join("::")).collect());
        }
        if !done.contains(at) {
            way.push(at);
            for next in imports.get(at).into_iter().flatten() {
                let found = walk(next, imports, way, done);
                if found.is_some() {
                    return found;
                }
            }
            way.pop();
            done.insert(at);
        }
        None
    }
    let mut done = BTreeSet::new();
    let mut modules = imports.keys();
    modules.find_map(|module| walk(module, imports, &mut Vec::new(), &mut done))
}

/// What a module is made of may name what the module itself declares.
#[test]
fn modules_import_each_other_in_no_circle() {
    let sources = sources();
    let modules: Vec<Vec<String>> = sources.iter().map(|(path, _)| module_path(path)).collect();
    let mut imports: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
    for ((_, text), module) in sources.iter().zip(&modules) {
        let mut survey = Survey::default();
        survey.visit_file(&syn::parse_file(text).unwrap());
        let named = survey.paths.iter();
        let targets = named.filter_map(|path| target(module, path, &modules));
        let targets = targets.filter(|target| !module.starts_with(target));
        imports.entry(module.clone()).or_default().extend(targets);
    }
    let count: usize = imports.values().map(BTreeSet::len).sum();
    assert!(count > 200, "only {count} imports were found");
    assert_eq!(circle(&imports), None);
}

#[test]
fn a_circle_is_found_and_a_tree_is_none() {
    let module = |name: &str| vec![name.to_owned()];
    let imports = |pairs: &[(&str, &str)]| {
        let mut imports: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for (from, to) in pairs {
            imports.entry(module(from)).or_default().insert(module(to));
        }
        imports
    };
    let tree = [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")];
    assert_eq!(circle(&imports(&tree)), None);
    let round = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "b")];
    let found = ["b", "c", "d", "b"].map(str::to_owned);
    assert_eq!(circle(&imports(&round)), Some(found.to_vec()));
}

/// The order is written down once for readers and once for debug builds, which keep it.
#[test]
fn the_order_of_locks_is_the_one_that_the_crate_docs_say() {
    let read = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(name);
        fs::read_to_string(path).unwrap()
    };
    let lock = syn::parse_file(&read("hub/lock.rs")).unwrap();
    let ranks = lock.items.iter().find_map(|item| match item {
        syn::Item::Enum(ranks) if ranks.ident == "Rank" => Some(ranks),
        _ => None,
    });
    let ranks = ranks.unwrap().variants.iter();
    let ranks: Vec<String> = ranks.map(|rank| rank.ident.to_string()).collect();
    let order = format!("`{}`", ranks.join(" -> "));
    assert!(
        ranks.len() > 5 && read("lib.rs").contains(&order),
        "{order}"
    );
}

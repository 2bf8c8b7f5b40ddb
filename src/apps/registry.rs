//! All applications that are served.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::{App, AppHandle, Counters};

/// The applications, found by id and by key without a lock.
pub struct AppRegistry {
    current: ArcSwap<Index>,
    /// One change at a time.
    changing: Mutex<()>,
    unattributed: Counters,
}

#[derive(Default)]
struct Index {
    all: Arc<[AppHandle]>,
    by_id: HashMap<Box<str>, AppHandle>,
    by_key: HashMap<Box<str>, AppHandle>,
}

/// What [`AppRegistry::apply`] has changed.
#[derive(Debug, Default)]
pub struct Changes {
    /// Applications that were not there.
    pub added: Vec<AppHandle>,
    /// Those whose settings are others now.
    pub changed: Vec<AppHandle>,
    /// Those that are not there any more.
    pub removed: Vec<AppHandle>,
}

/// Two applications cannot be told apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DuplicateApp {
    /// By their id.
    #[error("two applications have the id {0:?}")]
    Id(String),
    /// By a key, whether it is one's previous one or not.
    #[error("two applications have the key {0:?}, or one has it twice")]
    Key(String),
}

impl AppRegistry {
    /// A registry of these applications.
    ///
    /// # Errors
    /// If two of them have the same id or key.
    pub fn new(apps: Vec<App>) -> Result<Self, DuplicateApp> {
        let registry = Self {
            current: ArcSwap::default(),
            changing: Mutex::new(()),
            unattributed: Counters::default(),
        };
        registry.apply(apps)?;
        Ok(registry)
    }

    /// The application with this id.
    pub fn by_id(&self, id: &str) -> Option<AppHandle> {
        self.current.load().by_id.get(id).cloned()
    }

    /// The application with this key.
    pub fn by_key(&self, key: &str) -> Option<AppHandle> {
        self.current.load().by_key.get(key).cloned()
    }

    /// All of them, in the order in which they were given.
    pub fn all(&self) -> Arc<[AppHandle]> {
        Arc::clone(&self.current.load().all)
    }

    /// What is counted of requests that name no application that there is.
    pub fn unattributed(&self) -> &Counters {
        &self.unattributed
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.current.load().all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes these the applications that are served. One whose id is there keeps its
    /// handle and gets the new settings; one whose id is there no more is marked as
    /// removed, for good: the same id later is another application.
    ///
    /// # Errors
    /// If two of them have the same id or key. Then nothing is changed.
    pub fn apply(&self, apps: Vec<App>) -> Result<Changes, DuplicateApp> {
        refuse_duplicates(&apps)?;
        // An index is put in place as a whole, so it is right after any panic.
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.current.load_full();
        let mut changes = Changes::default();
        let next = apps
            .into_iter()
            .map(|app| match before.by_id.get(&*app.id) {
                Some(handle) => {
                    if **handle.settings() != app {
                        handle.change(app);
                        changes.changed.push(handle.clone());
                    }
                    handle.clone()
                }
                None => {
                    let handle = AppHandle::new(app);
                    changes.added.push(handle.clone());
                    handle
                }
            });
        let next = Index::new(next.collect());
        let is_gone = |handle: &&AppHandle| !next.by_id.contains_key(handle.id());
        changes.removed = before.all.iter().filter(is_gone).cloned().collect();
        self.current.store(Arc::new(next));
        changes.removed.iter().for_each(AppHandle::mark_removed);
        Ok(changes)
    }
}

impl Index {
    fn new(all: Arc<[AppHandle]>) -> Self {
        let by_id = all.iter().map(|app| (app.id().into(), app.clone()));
        let mut by_key = HashMap::new();
        for app in all.iter() {
            let settings = app.settings();
            let keys = [Some(&settings.key), settings.previous_key.as_ref()];
            for key in keys.into_iter().flatten() {
                by_key.insert(key.as_str().into(), app.clone());
            }
        }
        Self {
            by_id: by_id.collect(),
            by_key,
            all,
        }
    }
}

fn refuse_duplicates(apps: &[App]) -> Result<(), DuplicateApp> {
    let (mut ids, mut keys) = (HashSet::new(), HashSet::new());
    for app in apps {
        if !ids.insert(&app.id) {
            return Err(DuplicateApp::Id(app.id.clone()));
        }
        let own = [Some(&app.key), app.previous_key.as_ref()];
        for key in own.into_iter().flatten() {
            if !keys.insert(key) {
                return Err(DuplicateApp::Key(key.clone()));
            }
        }
    }
    Ok(())
}

impl fmt::Debug for AppRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AppRegistry").field(&self.all()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::app;
    use super::*;

    fn ids(handles: &[AppHandle]) -> Vec<&str> {
        handles.iter().map(AppHandle::id).collect()
    }

    #[test]
    fn an_application_is_found_by_id_and_by_key() {
        let registry = AppRegistry::new(vec![
            App {
                key: "k".to_owned(),
                ..app("a")
            },
            app("b"),
        ])
        .unwrap();
        assert_eq!(registry.by_key("k"), registry.by_id("a"));
        assert_ne!(registry.by_id("a"), registry.by_id("b"));
        assert!(registry.by_key("a").is_none() && registry.by_id("k").is_none());
        assert_eq!((ids(&registry.all()), registry.len()), (vec!["a", "b"], 2));
    }

    #[test]
    fn one_that_stays_keeps_its_handle_and_its_connections() {
        let registry = AppRegistry::new(vec![app("a"), app("b")]).unwrap();
        let a = registry.by_id("a").unwrap();
        let _permit = a.take_permit().unwrap();
        let changed = App {
            key: "other".to_owned(),
            max_connections: Some(1),
            ..app("a")
        };
        let changes = registry.apply(vec![app("b"), changed]).unwrap();
        assert_eq!(ids(&changes.changed), ["a"], "b is as it was");
        assert!(changes.added.is_empty() && changes.removed.is_empty());
        assert_eq!(ids(&registry.all()), ["b", "a"]);
        assert_eq!(registry.by_key("other").as_ref(), Some(&a));
        assert!(registry.by_key("a").is_none());
        assert_eq!(a.settings().key, "other");
        assert_eq!(a.connections(), 1);
        assert!(a.take_permit().is_none(), "the new limit holds");
    }

    #[test]
    fn one_that_comes_again_is_another() {
        let registry = AppRegistry::new(vec![app("a")]).unwrap();
        let before = registry.by_id("a").unwrap();
        let permit = before.take_permit().unwrap();
        let changes = registry.apply(Vec::new()).unwrap();
        assert_eq!(changes.removed.first(), Some(&before));
        assert!(before.is_removed() && registry.is_empty());
        let changes = registry.apply(vec![app("a")]).unwrap();
        let after = registry.by_id("a").unwrap();
        assert_eq!(changes.added.first(), Some(&after));
        assert!(before.is_removed() && !after.is_removed());
        assert_ne!(before, after);
        assert_eq!((before.connections(), after.connections()), (1, 0));
        drop(permit);
        assert_eq!(before.connections(), 0);
    }

    #[test]
    fn duplicates_are_refused_and_change_nothing() {
        let registry = AppRegistry::new(vec![app("a")]).unwrap();
        let same_key = App {
            key: "b".to_owned(),
            ..app("c")
        };
        for (apps, error) in [
            (vec![app("b"), app("b")], DuplicateApp::Id("b".to_owned())),
            (vec![app("b"), same_key], DuplicateApp::Key("b".to_owned())),
        ] {
            assert_eq!(registry.apply(apps).unwrap_err(), error);
            assert_eq!(ids(&registry.all()), ["a"]);
            assert!(!registry.by_id("a").unwrap().is_removed());
        }
    }

    #[test]
    fn keys_can_be_exchanged() {
        let with_key = |id: &str, key: &str| App {
            key: key.to_owned(),
            ..app(id)
        };
        let registry = AppRegistry::new(vec![with_key("a", "1"), with_key("b", "2")]).unwrap();
        let changes = registry.apply(vec![with_key("a", "2"), with_key("b", "1")]);
        assert_eq!(ids(&changes.unwrap().changed), ["a", "b"]);
        assert_eq!(registry.by_key("1"), registry.by_id("b"));
    }

    #[test]
    fn another_secret_is_a_change() {
        use crate::protocol::signature::Secret;
        let registry = AppRegistry::new(vec![app("a")]).unwrap();
        let other = App {
            secret: Secret::new("other"),
            ..app("a")
        };
        assert_eq!(registry.apply(vec![other]).unwrap().changed.len(), 1);
    }
}

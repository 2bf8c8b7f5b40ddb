//! Settings of a node, named as in its environment.

/// Later ones replace earlier ones of the same name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings(Vec<(String, String)>);

impl Settings {
    pub(crate) fn of(pairs: &[(&str, &str)]) -> Self {
        Self::default().with(pairs)
    }

    pub(crate) fn with(&self, pairs: &[(&str, &str)]) -> Self {
        let mut all = self.clone();
        for (name, value) in pairs {
            all.set(name, value);
        }
        all
    }

    pub(crate) fn and(&self, others: &Self) -> Self {
        let mut all = self.clone();
        for (name, value) in &others.0 {
            all.set(name, value);
        }
        all
    }

    fn set(&mut self, name: &str, value: &str) {
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }
}

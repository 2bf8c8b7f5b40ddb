//! A place in a JSON document, which knows its path.

use serde_json::Value;

use crate::config::ConfigError;

/// A value, or nothing where one could be.
pub(super) struct Node<'a> {
    pub(super) value: &'a Value,
    /// As in `reverb.apps.apps[0].key`; empty for the whole.
    pub(super) path: String,
}

static NOTHING: Value = Value::Null;

impl<'a> Node<'a> {
    pub(super) fn root(value: &'a Value) -> Self {
        Self {
            value,
            path: String::new(),
        }
    }

    /// What is below a key, or below each of several, joined by dots.
    pub(super) fn at(&self, keys: &str) -> Self {
        let mut value = self.value;
        for key in keys.split('.') {
            value = value.get(key).unwrap_or(&NOTHING);
        }
        let separator = if self.path.is_empty() { "" } else { "." };
        Self {
            value,
            path: format!("{}{separator}{keys}", self.path),
        }
    }

    pub(super) fn is_nothing(&self) -> bool {
        match self.value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            Value::Bool(_) | Value::Number(_) => false,
        }
    }

    /// Its items: of a list, or of an object, which PHP makes of a list with a gap.
    pub(super) fn items(&self) -> Result<Vec<Self>, ConfigError> {
        let item = |value, key: String| Self {
            value,
            path: format!("{}[{key}]", self.path),
        };
        match self.value {
            Value::Null => Ok(Vec::new()),
            Value::Array(items) => Ok(items
                .iter()
                .enumerate()
                .map(|(at, value)| item(value, at.to_string()))
                .collect()),
            Value::Object(fields) => Ok(fields
                .iter()
                .map(|(key, value)| item(value, key.clone()))
                .collect()),
            _ => Err(self.expected("a list")),
        }
    }

    /// Its fields.
    pub(super) fn fields(&self) -> Vec<(&'a str, Self)> {
        let fields = self.value.as_object().into_iter().flatten();
        fields
            .map(|(key, _)| (key.as_str(), self.at_key(key)))
            .collect()
    }

    fn at_key(&self, key: &str) -> Self {
        let separator = if self.path.is_empty() { "" } else { "." };
        Self {
            value: self.value.get(key).unwrap_or(&NOTHING),
            path: format!("{}{separator}{key}", self.path),
        }
    }

    /// As a text; nothing for null and for an empty one.
    pub(super) fn text(&self) -> Result<Option<String>, ConfigError> {
        match self.value {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            Value::Number(number) => Ok(Some(number.to_string())),
            Value::Bool(flag) => Ok(Some(flag.to_string())),
            Value::Array(_) | Value::Object(_) => Err(self.expected("a single value")),
        }
    }

    /// As texts.
    pub(super) fn texts(&self) -> Result<Vec<String>, ConfigError> {
        let mut texts = Vec::new();
        for item in self.items()? {
            texts.extend(item.text()?);
        }
        Ok(texts)
    }

    /// What PHP and JavaScript take for true.
    pub(super) fn is_truthy(&self) -> bool {
        match self.value {
            Value::Null => false,
            Value::Bool(flag) => *flag,
            Value::Number(number) => number.as_f64() != Some(0.0),
            Value::String(text) => !text.is_empty() && text != "0",
            Value::Array(items) => !items.is_empty(),
            Value::Object(fields) => !fields.is_empty(),
        }
    }

    pub(super) fn expected(&self, what: &str) -> ConfigError {
        ConfigError::one(format!("{}: expected {what}", self.path))
    }
}

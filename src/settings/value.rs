//! The value of a setting, and the layer that it comes from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Strongest first, so that a smaller layer wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    Flags,
    Environment,
    EnvFile,
    /// A `.env` that the user has not named. It has the place of the env file: see [`super::found_file`].
    FoundFile,
    ConfigFile,
}

/// One layer's value of one setting. It has no `Debug`, because the text may be a secret.
#[derive(Clone)]
pub struct Value {
    /// One text, or several if the setting is a list.
    pub texts: Vec<String>,
    pub layer: Layer,
    /// Its name in messages: `--retention`, `BACKUP_RETENTION from .env`.
    pub name: String,
    /// The file that holds the text, if the setting names one (`DB_PASSWORD_FILE`).
    pub file: Option<PathBuf>,
}

impl Value {
    /// The text of a setting that is not a list.
    pub fn text(&self) -> &str {
        self.texts.first().map_or("", String::as_str)
    }

    /// Whether this layer is at least as strong as the other's.
    pub fn at_least(&self, other: &Value) -> bool {
        self.layer <= other.layer
    }
}

/// Where the settings of a layer come from.
pub struct Origin<'a> {
    pub layer: Layer,
    /// Its name in messages.
    pub place: &'a str,
    /// Where relative paths start.
    pub folder: &'a Path,
}

/// The winning value of each setting.
#[derive(Clone, Default)]
pub struct Values(BTreeMap<&'static str, Value>);

impl Values {
    pub fn get(&self, variable: &str) -> Option<&Value> {
        self.0.get(variable)
    }

    pub fn set(&mut self, variable: &'static str, value: Value) {
        self.0.insert(variable, value);
    }

    pub fn remove(&mut self, variable: &str) -> Option<Value> {
        self.0.remove(variable)
    }

    pub fn of(&self, layer: Layer) -> impl Iterator<Item = (&'static str, &Value)> {
        let values = self.0.iter().map(|(variable, value)| (*variable, value));
        values.filter(move |(_, value)| value.layer == layer)
    }

    /// Sets the value, unless a stronger layer has set it.
    pub fn offer(&mut self, variable: &'static str, value: Value) {
        self.0.entry(variable).or_insert(value);
    }
}

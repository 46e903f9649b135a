//! Everything that is wrong with the settings, told at once.

use super::layers::Value;
use crate::error::{Error, Result};

#[derive(Default)]
pub struct Problems {
    found: Vec<String>,
    hint: Option<String>,
}

impl Problems {
    pub fn add(&mut self, problem: String) {
        self.found.push(problem);
    }

    /// A module's own refusal of a value, under the setting's name; its hint counts while it is
    /// the only problem.
    pub fn add_error(&mut self, name: &str, error: &Error) {
        self.hint = Some(error.hint_text().to_owned());
        self.add(format!("{name}: {error}"));
    }

    pub fn conflict(&mut self, one: &Value, other: &Value, why: &str) {
        self.add(format!("{} and {} are in conflict: {why}", one.name, other.name));
    }

    /// One error that names every problem, if there is one.
    pub fn into_result(self) -> Result<()> {
        let count = self.found.len();
        let text = self.found.join("; ");
        match (count, self.hint) {
            (0, _) => Ok(()),
            (1, Some(hint)) => Err(Error::config(text).hint(hint)),
            (1, None) => Err(Error::config(text)),
            _ => Err(Error::config(format!("{count} settings are wrong: {text}"))),
        }
    }
}

//! All problems of the settings, reported at once.

use std::io::ErrorKind;
use std::path::Path;

use super::value::Value;
use crate::error::{Error, Result};

struct Problem {
    /// The setting that the problem is of, if not every command uses it.
    of: Option<&'static str>,
    text: String,
    /// Shown if this is the only problem.
    hint: Option<String>,
    /// Whether the problem stops `doctor` too.
    is_grave: bool,
}

#[derive(Default)]
pub struct Problems {
    found: Vec<Problem>,
}

impl Problems {
    pub fn add(&mut self, problem: String) {
        self.push(None, problem, None);
    }

    /// Adds a problem of a setting that not every command uses.
    pub fn add_of(&mut self, of: &'static str, problem: String) {
        self.push(Some(of), problem, None);
    }

    fn push(&mut self, of: Option<&'static str>, text: String, hint: Option<String>) {
        self.found.push(Problem {
            of,
            text,
            hint,
            is_grave: false,
        });
    }

    /// Adds a problem that stops `doctor` too, because `doctor` would send credentials to the wrong server.
    pub fn add_grave(&mut self, problem: String) {
        self.found.push(Problem {
            of: None,
            text: problem,
            hint: None,
            is_grave: true,
        });
    }

    /// Takes over the problems of `others`, as problems of this setting.
    pub fn absorb(&mut self, others: Problems, of: &'static str) {
        let found = others.found.into_iter();
        self.found.extend(found.map(|problem| Problem {
            of: problem.of.or(Some(of)),
            ..problem
        }));
    }

    /// Removes and returns the problems that do not stop a command; if `none_stop`, all but the grave ones. Each text
    /// is returned once: source and target may report the same problem.
    pub fn passed_over(&mut self, stops: impl Fn(&str) -> bool, none_stop: bool) -> Vec<String> {
        let found = std::mem::take(&mut self.found).into_iter();
        let (stopping, passed): (Vec<_>, Vec<_>) = found.partition(|problem| match none_stop {
            true => problem.is_grave,
            false => problem.of.is_none_or(&stops),
        });
        self.found = stopping;
        let mut texts: Vec<String> = Vec::new();
        for Problem { text, .. } in passed {
            if !texts.contains(&text) && !self.found.iter().any(|problem| problem.text == text) {
                texts.push(text);
            }
        }
        texts
    }

    /// Adds an error of a module as a problem of the named setting. Its hint is shown if it is the only problem.
    pub fn add_error(&mut self, name: &str, error: &Error) {
        let hint = error.has_own_hint().then(|| error.hint_text().to_owned());
        self.push(None, format!("{name}: {error}"), hint);
    }

    /// Adds the problem that the file which the setting `name` names cannot be read.
    pub fn unreadable(&mut self, path: &Path, name: &str, error: &std::io::Error) {
        let why = match error.kind() {
            ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
            _ => error.to_string(),
        };
        self.add(format!("{name}: {} cannot be read: {why}", path.display()));
    }

    pub fn conflict(&mut self, one: &Value, other: &Value, why: &str) {
        self.add(format!("{} and {} are in conflict: {why}", one.name, other.name));
    }

    /// One error that names every problem, if there is one.
    pub fn into_result(self) -> Result<()> {
        let count = self.found.len();
        let hint = self.found.first().and_then(|problem| problem.hint.clone());
        let texts: Vec<String> = self.found.into_iter().map(|problem| problem.text).collect();
        let text = texts.join("; ");
        match (count, hint) {
            (0, _) => Ok(()),
            (1, Some(hint)) => Err(Error::config(text).hint(hint)),
            (1, None) => Err(Error::config(text)),
            _ => Err(Error::config(format!("{count} settings are wrong: {text}"))),
        }
    }
}

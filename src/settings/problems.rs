//! Everything that is wrong with the settings, told at once.

use std::io::ErrorKind;
use std::path::Path;

use super::value::Value;
use crate::error::{Error, Result};

struct Problem {
    /// The setting, where it is of one that not every command goes by.
    of: Option<&'static str>,
    text: String,
    /// Helps where it is the only one.
    hint: Option<String>,
    /// Whether even who only looks must not act on what the settings say.
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

    /// One of a setting that not every command goes by.
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

    /// One that stops `doctor` too: it would send to somebody what he must not have.
    pub fn add_grave(&mut self, problem: String) {
        self.found.push(Problem {
            of: None,
            text: problem,
            hint: None,
            is_grave: true,
        });
    }

    /// Those of others, as problems of this setting.
    pub fn absorb(&mut self, others: Problems, of: &'static str) {
        let found = others.found.into_iter();
        self.found.extend(found.map(|problem| Problem {
            of: problem.of.or(Some(of)),
            ..problem
        }));
    }

    /// Takes out those that a command is not stopped by; where none stops it, all but the grave ones. Nothing is
    /// told twice, such as what both logins go by.
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

    /// A module's own refusal of a value, under the setting's name; its hint counts while it is
    /// the only problem.
    pub fn add_error(&mut self, name: &str, error: &Error) {
        let hint = error.has_own_hint().then(|| error.hint_text().to_owned());
        self.push(None, format!("{name}: {error}"), hint);
    }

    /// A file that was named, by `name`, and cannot be read.
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

//! The report on a bucket's rules.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::units::count;

/// The report of `retention show` and `retention apply`.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct RulesReport {
    #[serde(flatten)]
    pub rules: serde_json::Value,
    /// Set by `apply`: the rules in each bucket now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub applied: Vec<Applied>,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct Applied {
    pub store: String,
    pub installed: usize,
    /// Rules of other programs, which stay as they are.
    pub foreign: Vec<String>,
}

impl fmt::Display for RulesReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = serde_json::to_string_pretty(&self.rules).map_err(|_| fmt::Error)?;
        for bucket in &self.applied {
            let installed = count(bucket.installed, "rule");
            match bucket.foreign.len() {
                0 => writeln!(f, "{installed} installed in {}", bucket.store)?,
                others => writeln!(
                    f,
                    "{installed} installed in {}; {others} of others left as {} {}",
                    bucket.store,
                    if others == 1 { "it" } else { "they" },
                    if others == 1 { "is" } else { "are" }
                )?,
            }
        }
        writeln!(f, "{rules}")
    }
}

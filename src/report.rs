//! Placeholder of the `faces` branch, replaced when the branches are merged: what a run tells.

use std::fmt;

use serde::Serialize;

#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Report(pub serde_json::Value);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

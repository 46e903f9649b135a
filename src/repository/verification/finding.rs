//! What a verification or a drill finds.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One difference from the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Finding {
    /// The file, in the backup's folder.
    pub file: String,
    /// `schema.table`, or `large objects`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    pub what: String,
}

impl Finding {
    pub fn of_file(file: &str, what: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            table: None,
            what: what.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.table {
            Some(table) => write!(f, "{}: {table}: {}", self.file, self.what),
            None => write!(f, "{}: {}", self.file, self.what),
        }
    }
}

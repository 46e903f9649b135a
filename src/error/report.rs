//! A failure as its document says it.

use serde::Serialize;

use super::Error;

/// What `error` is in a report.
#[derive(Debug, Clone, Serialize)]
pub struct ErrorReport {
    pub code: &'static str,
    pub message: String,
    pub hint: String,
}

impl From<&Error> for ErrorReport {
    fn from(error: &Error) -> Self {
        Self {
            code: error.code().name(),
            message: error.message(),
            hint: error.hint_text().to_owned(),
        }
    }
}

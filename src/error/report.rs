//! A failure as a JSON document.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Code, Error};

/// The document of a run that failed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Failure {
    pub status: FailureStatus,
    pub error: ErrorReport,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureStatus {
    Failed,
}

/// An error in a report.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct ErrorReport {
    pub code: Code,
    pub message: String,
    pub hint: String,
}

impl From<&Error> for ErrorReport {
    fn from(error: &Error) -> Self {
        Self {
            code: error.code(),
            message: error.message(),
            hint: error.hint_text().to_owned(),
        }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self {
            status: FailureStatus::Failed,
            error: ErrorReport::from(error),
        }
    }
}

/// By its name.
impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::of_name(&name).ok_or_else(|| D::Error::custom(format!("{name:?} is not the code of an error")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_as_it_is_written() {
        for code in Code::ALL {
            let written = serde_json::to_value(code).unwrap();
            assert_eq!(serde_json::from_value::<Code>(written).unwrap(), code);
        }
        assert!(serde_json::from_value::<Code>("OOPS".into()).is_err());
    }
}

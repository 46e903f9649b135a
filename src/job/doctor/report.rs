//! The results of the checks: for people a tick or the thing to do, for programs the same as JSON.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DoctorStatus {
    Ok,
    Failed,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct DoctorReport {
    /// `ok` or `failed`.
    pub status: DoctorStatus,
    pub checks: Vec<Check>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Check {
    pub name: Cow<'static, str>,
    /// The store that the check is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    pub state: CheckState,
    pub detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The error with which a backup would fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// The objects that the detail is too short to list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckState {
    Ok,
    /// A backup will be made, but a person should look.
    Warning,
    Failed,
    Skipped,
}

impl Check {
    fn new(name: &'static str, state: CheckState, detail: impl Into<String>) -> Self {
        Self {
            name: Cow::Borrowed(name),
            of: None,
            state,
            detail: detail.into(),
            hint: None,
            code: None,
            objects: Vec::new(),
        }
    }

    pub fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(name, CheckState::Ok, detail)
    }

    pub fn warning(name: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..Self::new(name, CheckState::Warning, detail)
        }
    }

    pub fn skipped(name: &'static str, why: impl Into<String>) -> Self {
        Self::new(name, CheckState::Skipped, why)
    }

    pub fn failed(name: &'static str, error: &Error) -> Self {
        Self {
            hint: Some(error.hint_text().to_owned()),
            code: Some(error.code()),
            ..Self::new(name, CheckState::Failed, error.message())
        }
    }

    /// A check of something that a backup does not need.
    pub fn lacking(name: &'static str, error: &Error) -> Self {
        Self::warning(name, error.message(), error.hint_text())
    }

    #[must_use]
    pub fn naming(mut self, objects: Vec<String>) -> Self {
        self.objects = objects;
        self
    }

    #[must_use]
    pub fn of(mut self, thing: &str) -> Self {
        self.of = Some(thing.to_owned());
        self
    }
}

impl DoctorReport {
    pub fn of(checks: Vec<Check>) -> Self {
        let failed = checks.iter().any(|check| check.state == CheckState::Failed);
        Self {
            status: match failed {
                true => DoctorStatus::Failed,
                false => DoctorStatus::Ok,
            },
            checks,
        }
    }

    /// The exit code of the first failure.
    pub fn exit_code(&self) -> u8 {
        self.checks
            .iter()
            .find_map(|check| check.code)
            .map_or(0, Code::exit_code)
    }

    fn count(&self, state: CheckState) -> usize {
        self.checks.iter().filter(|check| check.state == state).count()
    }
}

impl fmt::Display for DoctorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = None;
        for check in &self.checks {
            if check.of != last {
                if let Some(of) = &check.of {
                    writeln!(f, "store {of}")?;
                }
                last.clone_from(&check.of);
            }
            let sign = match check.state {
                CheckState::Ok => '✓',
                CheckState::Warning => '!',
                CheckState::Failed => '✗',
                CheckState::Skipped => '-',
            };
            let code = check.code.map_or(String::new(), |code| format!("{code}: "));
            writeln!(f, "{sign} {:<14} {code}{}", check.name, check.detail)?;
            for object in &check.objects {
                writeln!(f, "  {:<14}   {object}", "")?;
            }
            if let Some(hint) = &check.hint {
                writeln!(f, "  {:<14} → {hint}", "")?;
            }
        }
        let (failed, warnings) = (self.count(CheckState::Failed), self.count(CheckState::Warning));
        writeln!(f)?;
        match (failed, warnings) {
            (0, 0) => writeln!(f, "all is well"),
            (0, _) => writeln!(f, "a backup can be made; to look at: {warnings}"),
            _ => writeln!(f, "failed: {failed}; to look at: {warnings}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_decides_the_exit_code_and_a_warning_does_not() {
        let warning = Check::warning("tls", "in clear text", "sslmode");
        assert_eq!(DoctorReport::of(vec![warning.clone()]).exit_code(), 0);
        let auth = Check::failed("login", &Error::new(Code::Auth, "refused"));
        let store = Check::failed("write", &Error::new(Code::Store, "no")).of("s3://b");
        let report = DoctorReport::of(vec![warning, auth, store]);
        assert_eq!((report.status, report.exit_code()), (DoctorStatus::Failed, 11));
        let text = report.to_string();
        assert!(
            text.contains("✗ login          AUTH: refused") && text.contains("store s3://b\n✗ write"),
            "{text}"
        );
        assert!(text.ends_with("failed: 2; to look at: 1\n"));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["checks"][1]["code"], "AUTH");
        assert_eq!(json["checks"][0]["state"], "warning");
        assert!(json["checks"][0].get("code").is_none());
    }
}

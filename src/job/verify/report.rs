//! The findings of a verification, for people and for `verification.json`.

mod verified;

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::error::{Code, Error, ErrorReport};
use crate::repository::verification::VerificationStatus;

pub use verified::Verified;

/// How many of the backups that were not verified or drilled an error names.
const NAMED: usize = 100;

/// One backup's result, or several.
#[derive(Debug, Serialize)]
pub struct VerifyReport {
    pub status: VerificationStatus,
    #[serde(flatten)]
    pub result: VerifyResult,
    /// Set if something differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
    #[serde(skip)]
    code: Option<Code>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum VerifyResult {
    One(Box<OneBackup>),
    Many { backups: Vec<Verified> },
}

/// The fields for the first store, without the status, which comes before them.
#[derive(Debug, Serialize)]
pub struct OneBackup {
    #[serde(flatten)]
    fields: Map<String, Value>,
    /// The same backup in each of the other stores that have it.
    #[serde(rename = "copies", skip_serializing_if = "Vec::is_empty")]
    copies: Vec<Value>,
    #[serde(skip)]
    verified: Vec<Verified>,
}

/// A printed report. It has no separate status for the backup in the first store.
#[derive(Deserialize)]
struct Printed {
    status: VerificationStatus,
    #[serde(default)]
    error: Option<ErrorReport>,
    #[serde(default)]
    backups: Option<Vec<Verified>>,
    #[serde(default)]
    copies: Vec<Verified>,
}

impl<'de> Deserialize<'de> for VerifyReport {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let document = Value::deserialize(deserializer)?;
        let printed = Printed::deserialize(&document).map_err(D::Error::custom)?;
        let mut report = match printed.backups {
            Some(backups) => Self::many(backups.into_iter().map(Verified::read).collect()),
            None => {
                let mut first = Verified::deserialize(&document).map_err(D::Error::custom)?;
                // The document's status is that of all stores.
                first.status = first.own_status();
                let copies = printed
                    .copies
                    .into_iter()
                    .map(|copy| Verified { is_copy: true, ..copy });
                Self::one(std::iter::once(first).chain(copies).map(Verified::read).collect())
            }
        };
        report.status = printed.status;
        report.code = printed.error.as_ref().map(|error| error.code);
        report.error = printed.error;
        Ok(report)
    }
}

impl VerifyReport {
    /// One backup in several stores, the first store first.
    pub fn one(verified: Vec<Verified>) -> Self {
        let told = |one: &Verified| serde_json::to_value(one).unwrap_or(Value::Null);
        let mut fields = match verified.first().map(told) {
            Some(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        fields.remove("status");
        let copies = verified.iter().skip(1).map(told).collect();
        Self::told(VerifyResult::One(Box::new(OneBackup {
            fields,
            copies,
            verified,
        })))
    }

    pub fn many(backups: Vec<Verified>) -> Self {
        Self::told(VerifyResult::Many { backups })
    }

    fn told(result: VerifyResult) -> Self {
        let mut report = Self {
            status: VerificationStatus::Ok,
            result,
            error: None,
            code: None,
        };
        if let Some(error) = report.difference() {
            report.status = VerificationStatus::Failed;
            report.error = Some(ErrorReport::from(&error));
            report.code = Some(error.code());
        }
        report
    }

    pub fn exit_code(&self) -> u8 {
        self.code.map_or(0, Code::exit_code)
    }

    /// The code of the first failure, if there is one.
    pub fn code(&self) -> Option<Code> {
        self.code
    }

    pub fn backups(&self) -> &[Verified] {
        match &self.result {
            VerifyResult::One(one) => &one.verified,
            VerifyResult::Many { backups } => backups,
        }
    }

    /// The differences, as an error that names the first. Without any: why a backup could not be verified or drilled.
    fn difference(&self) -> Option<Error> {
        let failed: Vec<&Verified> = self
            .backups()
            .iter()
            .filter(|one| one.status != VerificationStatus::Ok)
            .collect();
        let (wrong, untold): (Vec<&Verified>, Vec<&Verified>) = failed.into_iter().partition(|one| one.is_wrong());
        let (unseen, untried): (Vec<&Verified>, Vec<&Verified>) =
            untold.into_iter().partition(|one| one.not_verified.is_some());
        let also = also("not verified", &unseen) + &also("not drilled", &untried);
        // Damage is more important than a store that failed.
        let damaged = wrong.iter().find(|one| one.code == Code::Integrity);
        let Some(first) = damaged.or(wrong.first()) else {
            let (first, rest) = match unseen.first() {
                Some(first) => (first, also),
                None if untried.len() > 1 => (untried.first()?, also),
                None => (untried.first()?, String::new()),
            };
            let chained = first.not_chained.as_ref();
            let why = first.not_verified.as_ref().or(first.not_drilled.as_ref()).or(chained)?;
            let text = format!("backup {}: {}{rest}", first.name(), why.message);
            return Some(Error::new(first.code, text).hint(why.hint.clone()));
        };
        let finding = first.all_problems().next()?;
        let others = first.all_problems().count() - 1;
        let mut text = format!("backup {}: {finding}", first.name());
        if others > 0 {
            text.push_str(&format!(" ({others} more in this backup)"));
        }
        if wrong.len() > 1 {
            text.push_str(&format!("; {} backups differ in all", wrong.len()));
        }
        let error = Error::new(first.code, text + &also);
        let advice = first.drill.as_ref().and_then(|drill| drill.advice.as_ref());
        Some(match advice {
            Some(advice) => error.hint(advice),
            None => error,
        })
    }
}

/// The number of backups of this kind, and their names.
fn also(what: &str, some: &[&Verified]) -> String {
    if some.is_empty() {
        return String::new();
    }
    let ids: Vec<String> = some.iter().take(NAMED).map(|one| one.name()).collect();
    format!("; {} {what}: {}", some.len(), ids.join(", "))
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for one in self.backups() {
            write!(f, "{one}")?;
        }
        if self.backups().is_empty() {
            writeln!(f, "no backup to verify")?;
        }
        Ok(())
    }
}

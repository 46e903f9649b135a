//! The result of one check: of `verify`, of a drill, or of the proof of increments.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::units::count;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerificationOutcome {
    pub status: VerificationStatus,
    /// When the check ended.
    pub at: Timestamp,
    /// Other results: figures, differences.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

pub(super) const MANIFEST_SHA256: &str = "manifest_sha256";
/// The major version of the server that a drill ran on, and of the source.
pub const MAJOR: &str = "major";
pub const SOURCE_MAJOR: &str = "source_major";
/// How many tables a drill saw, and how many of them it proved.
pub const TABLES: &str = "tables";
pub const TABLES_EQUAL: &str = "tables_equal";
/// Whether a drill left something unproved that a drill could prove.
pub const PARTLY: &str = "partly";
/// A drill found nothing wrong except rows that the source itself should not hold.
pub const SOURCE_FAULT: &str = "source_fault";

impl VerificationOutcome {
    /// Records which manifest was checked.
    #[must_use]
    pub fn of_manifest(mut self, sha256: &[u8; 32]) -> Self {
        self.rest.insert(MANIFEST_SHA256.to_owned(), hex::encode(sha256).into());
        self
    }

    /// Whether a drill ran on another major version than the source's. Older versions did not record it.
    pub(super) fn is_of_another_major(&self) -> bool {
        matches!((self.rest.get(MAJOR), self.rest.get(SOURCE_MAJOR)), (Some(one), Some(other)) if one != other)
    }

    /// What a drill proved; older versions did not record all of it.
    pub fn extent(&self) -> Option<Extent> {
        let count = |name: &str| self.rest.get(name).and_then(Value::as_u64);
        let (tables, equal) = (count(TABLES)?, count(TABLES_EQUAL)?);
        Some(Extent {
            tables,
            tables_equal: equal,
            partly: self.rest.get(PARTLY).and_then(Value::as_bool).unwrap_or(equal < tables),
        })
    }

    /// Whether the drill saw tables but proved none.
    pub(super) fn proves_no_table(&self) -> bool {
        self.extent()
            .is_some_and(|extent| extent.tables > 0 && extent.tables_equal == 0)
    }

    /// Whether the only problem is rows that the source itself should not hold.
    pub fn blames_the_source(&self) -> bool {
        self.rest.get(SOURCE_FAULT) == Some(&Value::Bool(true))
    }

    /// Whether the backup itself is damaged, and not only its source.
    pub(super) fn condemns(&self) -> bool {
        self.status == VerificationStatus::Failed && !self.blames_the_source()
    }

    /// Whether the result is about the manifest with this digest. Older versions did not record it.
    pub(super) fn is_of(&self, sha256: &str, strictly: bool) -> bool {
        match self.rest.get(MANIFEST_SHA256) {
            Some(said) => said == sha256,
            None => !strictly,
        }
    }
}

/// How much a drill proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub struct Extent {
    pub tables: u64,
    pub tables_equal: u64,
    pub partly: bool,
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let partly = if self.partly { "partly, " } else { "" };
        write!(
            f,
            "{partly}{} of {} proved",
            self.tables_equal,
            count(self.tables, "table")
        )
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VerificationStatus {
    Ok,
    Failed,
    /// A value of a later version: it proves nothing, and shows no damage.
    #[serde(other)]
    Unknown,
}

impl VerificationStatus {
    pub fn name(self) -> &'static str {
        match self {
            VerificationStatus::Ok => "ok",
            VerificationStatus::Failed => "failed",
            VerificationStatus::Unknown => "unknown",
        }
    }
}

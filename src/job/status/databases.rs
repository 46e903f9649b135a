//! Each database by its backups: the last good one, and when one was last proved.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use crate::repository::backup_id::{BackupId, age, is_ahead};
use crate::repository::catalog::Overview;
use crate::repository::manifest::{Count, Kinds};
use crate::repository::verification::{Extent, Outcome, Status, Verification};

#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct DatabaseStatus {
    pub database: String,
    /// With a manifest, good or not.
    pub backups: u64,
    pub bytes: u64,
    /// Of these, those whose manifest is in an archive class.
    #[serde(skip)]
    pub archived: usize,
    pub last_good: Option<LastGood>,
    pub last_verified: Option<Proof>,
    pub last_drilled: Option<Proof>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct LastGood {
    pub id: BackupId,
    pub finished_at: Timestamp,
    /// Since its start: what is newer than that is in no backup.
    pub age_seconds: i64,
    pub bytes: u64,
    /// Files that it should have and has not, by role, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub missing: BTreeMap<String, String>,
    /// How many things of each kind are in the database and not in it.
    #[serde(deserialize_with = "kinds")]
    pub left_out: Kinds,
    /// How many the run that made it gave: they stand in its manifest.
    #[serde(deserialize_with = "number")]
    pub warnings: Count,
}

/// Of the newest backup that has a result of its sort, good or bad: `verify --all` looks at the oldest last.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Proof {
    pub id: BackupId,
    pub status: Status,
    pub at: Timestamp,
    pub age_seconds: i64,
    /// Of a drill, where it says that.
    #[serde(flatten)]
    pub extent: Option<Extent>,
}

/// As they are told here; a manifest has the things themselves.
fn kinds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Kinds, D::Error> {
    BTreeMap::deserialize(deserializer).map(Kinds)
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Count, D::Error> {
    u64::deserialize(deserializer).map(Count)
}

/// By name; `backups` are of one store, newest first.
pub(super) fn sum_up(backups: &[Overview], now: Timestamp) -> Vec<DatabaseStatus> {
    let mut databases: BTreeMap<&str, Vec<&Overview>> = BTreeMap::new();
    for overview in backups {
        databases.entry(overview.id().database()).or_default().push(overview);
    }
    let sum = |(database, backups): (&str, Vec<&Overview>)| DatabaseStatus {
        database: database.to_owned(),
        backups: backups.len() as u64,
        bytes: backups.iter().map(|one| one.listed.bytes()).sum(),
        archived: backups.iter().filter(|one| one.is_archived()).count(),
        last_good: backups.iter().find_map(|one| last_good(one, now)),
        last_verified: newest(&backups, now, |verification| verification.verify.as_ref()).map(|(proof, _)| proof),
        last_drilled: newest(&backups, now, Verification::proving_drill).map(|(proof, outcome)| Proof {
            extent: outcome.extent(),
            ..proof
        }),
    };
    databases.into_iter().map(sum).collect()
}

fn last_good(overview: &Overview, now: Timestamp) -> Option<LastGood> {
    let figures = overview
        .figures()
        .filter(|_| overview.is_good() && !overview.is_ahead(now) && !overview.contradicts_itself())?;
    Some(LastGood {
        id: figures.id.clone(),
        finished_at: figures.finished_at,
        age_seconds: age(overview.since(), now),
        bytes: overview.listed.bytes(),
        missing: figures.missing.clone(),
        left_out: figures.left_out.clone(),
        warnings: figures.warnings,
    })
}

fn newest<'a>(
    backups: &[&'a Overview],
    now: Timestamp,
    part: fn(&Verification) -> Option<&Outcome>,
) -> Option<(Proof, &'a Outcome)> {
    backups.iter().find_map(|one| {
        // A result from the future would be as young for ever.
        let outcome = part(one.verification.as_ref()?).filter(|outcome| !is_ahead(outcome.at, now))?;
        let proof = Proof {
            id: one.id().clone(),
            status: outcome.status,
            at: outcome.at,
            age_seconds: age(outcome.at, now),
            extent: None,
        };
        Some((proof, outcome))
    })
}

//! The state of each database: the last good backup, and when a backup was last proved.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use crate::repository::backup_id::{BackupId, BackupKind, age, is_ahead};
use crate::repository::catalog::{Counting, Overview, histories};
use crate::repository::chain::{Gap, History, Run};
use crate::repository::manifest::{Count, CoverageTally, Kinds};
use crate::repository::verification::{Extent, Verification, VerificationOutcome, VerificationStatus};
use crate::repository::window::{self, Window};

#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct DatabaseStatus {
    pub database: String,
    /// Backups with a manifest, good or not; increments too.
    pub backups: u64,
    pub bytes: u64,
    /// Those of them whose manifest is in an archive class.
    #[serde(skip)]
    pub archived: usize,
    pub last_good: Option<LastGood>,
    pub last_verified: Option<DatabaseProof>,
    pub last_drilled: Option<DatabaseProof>,
    /// `null`: it has none.
    #[serde(default)]
    pub increments: Option<IncrementsStatus>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct LastGood {
    pub id: BackupId,
    pub finished_at: Timestamp,
    /// Since the start of the backup: later changes are in no backup.
    pub age_seconds: i64,
    pub bytes: u64,
    /// Missing files, by role, with the reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub missing: BTreeMap<String, String>,
    /// The number of objects of each kind that the backup left out.
    #[serde(deserialize_with = "kinds")]
    pub left_out: Kinds,
    /// The number of warnings in its manifest.
    #[serde(deserialize_with = "number")]
    pub warnings: Count,
}

/// From the newest backup with such a result, good or bad: `verify --all` checks the oldest last.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct DatabaseProof {
    pub id: BackupId,
    pub status: VerificationStatus,
    pub at: Timestamp,
    pub age_seconds: i64,
    /// How much a drill proved, if its result says that.
    #[serde(flatten)]
    pub extent: Option<Extent>,
}

/// Reads the counts; a manifest has the objects themselves.
fn kinds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Kinds, D::Error> {
    BTreeMap::deserialize(deserializer).map(Kinds)
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Count, D::Error> {
    u64::deserialize(deserializer).map(Count)
}

/// The full backups and increments together give moments that can be restored.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct IncrementsStatus {
    pub count: u64,
    pub bytes: u64,
    pub newest: BackupId,
    /// How old the last moment is that the newest increment holds: what a loss of the server now would cost.
    pub rpo_seconds: i64,
    /// The moments that can be restored with the newest increments. `null`: none.
    pub window: Option<Window>,
    /// Windows of older increments, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier_windows: Vec<Window>,
    /// Why the newest increments have no base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_base: Option<String>,
    /// What separates the increments, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<GapStatus>,
    /// How the tables are covered by the newest increment.
    pub coverage: CoverageTally,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct GapStatus {
    /// The last increment before it.
    pub after: BackupId,
    /// The first increment behind it.
    pub before: BackupId,
    /// The last moment that the increments before it hold.
    pub since: Timestamp,
    pub why: String,
}

/// Ordered by name. `backups` are those of one store, newest first.
pub(super) fn sum_up(backups: &[Overview], now: Timestamp) -> Vec<DatabaseStatus> {
    let mut databases: BTreeMap<&str, Vec<&Overview>> = BTreeMap::new();
    for overview in backups {
        databases.entry(overview.id().database()).or_default().push(overview);
    }
    let mut histories = histories(backups, Counting::Good, now);
    let sum = |(database, backups): (&str, Vec<&Overview>)| {
        let fulls: Vec<&Overview> = backups
            .iter()
            .copied()
            .filter(|one| one.id().kind() == BackupKind::Full)
            .collect();
        DatabaseStatus {
            database: database.to_owned(),
            backups: backups.len() as u64,
            bytes: backups.iter().map(|one| one.listed.bytes()).sum(),
            archived: backups.iter().filter(|one| one.is_archived()).count(),
            last_good: fulls.iter().find_map(|one| last_good(one, now)),
            last_verified: newest(&fulls, now, |verification| verification.verify.as_ref()).map(|(proof, _)| proof),
            last_drilled: newest(&fulls, now, Verification::proving_drill).map(|(proof, outcome)| DatabaseProof {
                extent: outcome.extent(),
                ..proof
            }),
            increments: histories
                .remove(database)
                .and_then(|history| increments(&history, &backups, now)),
        }
    };
    databases.into_iter().map(sum).collect()
}

fn increments(history: &History, backups: &[&Overview], now: Timestamp) -> Option<IncrementsStatus> {
    let run = history.newest()?;
    let newest = run.last();
    let window = window::current(history);
    let mut windows = window::windows(history);
    if window.is_some() {
        windows.pop();
    }
    let figures = backups
        .iter()
        .find(|one| *one.id() == newest.id)
        .and_then(|one| one.figures());
    let gap = |(gap, earlier): (Gap, &Run)| GapStatus {
        after: gap.after,
        before: gap.before,
        since: earlier.end().time,
        why: gap.why,
    };
    Some(IncrementsStatus {
        count: history.runs().iter().map(|run| run.links().len() as u64).sum(),
        bytes: history.runs().iter().map(Run::bytes).sum(),
        newest: newest.id.clone(),
        rpo_seconds: age(newest.until, now),
        window,
        earlier_windows: windows,
        no_base: run.no_base().map(|(id, why)| format!("{id}: {why}")),
        gaps: history.gaps().into_iter().zip(history.runs()).map(gap).collect(),
        coverage: figures.map(|figures| figures.coverage).unwrap_or_default(),
    })
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
    part: fn(&Verification) -> Option<&VerificationOutcome>,
) -> Option<(DatabaseProof, &'a VerificationOutcome)> {
    backups.iter().find_map(|one| {
        // A result from the future does not count: it would look new for ever.
        let outcome = part(one.verification.as_ref()?).filter(|outcome| !is_ahead(outcome.at, now))?;
        let proof = DatabaseProof {
            id: one.id().clone(),
            status: outcome.status,
            at: outcome.at,
            age_seconds: age(outcome.at, now),
            extent: None,
        };
        Some((proof, outcome))
    })
}

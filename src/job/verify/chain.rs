//! The proof of a chain: an earlier full backup, brought forward with the increments to the snapshot of a later one,
//! has to hold the same rows, table by table. No server is needed. It finds what no other check can: a transaction that
//! is missing from the increments.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use futures::stream::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Job;
use crate::error::{Code, Error, Result};
use crate::format::Lsn;
use crate::job::moment::{self, Known, Replayed};
use crate::repository::backup_id::BackupId;
use crate::repository::catalog::{self, Demand, Located};
use crate::repository::chain::Run;
use crate::repository::manifest::TableRecord;
use crate::repository::route::{RecoveryTarget, route};
use crate::repository::signature::Trust;
use crate::repository::stored_archive::StoredArchive;
use crate::repository::verification::{VerificationOutcome, VerificationStatus};
use crate::run::clock::Clock;
use crate::run::progress::Observer;
use crate::run::stop::Stop;
use crate::settings::Settings;
use crate::units::count;

/// What a proof works with.
#[derive(Clone, Copy)]
pub struct Proving<'a> {
    pub settings: &'a Settings,
    pub trust: &'a Trust,
    pub clock: Clock,
    pub stop: &'a Stop,
    pub observer: &'a Arc<dyn Observer>,
}

impl<'a> Proving<'a> {
    pub(super) fn of(job: &Job<'a>) -> Self {
        Self {
            settings: job.settings,
            trust: job.trust,
            clock: job.clock,
            stop: job.stop,
            observer: job.observer,
        }
    }
}

/// The result.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct ChainProof {
    /// The earlier full backup.
    pub from: BackupId,
    /// The later one.
    pub to: BackupId,
    pub increments: usize,
    /// How many changes lie between the two.
    pub changes: u64,
    /// How many tables are equal.
    pub equal: usize,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub different: Vec<ChainFinding>,
    /// Why nothing could be compared further: an increment is missing, bytes are damaged, or changes contradict each
    /// other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
    /// Tables that the increments do not cover exactly, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_compared: Vec<ChainFinding>,
    pub duration_seconds: f64,
}

/// The finding about one table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct ChainFinding {
    pub table: String,
    pub what: String,
}

impl fmt::Display for ChainFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.table, self.what)
    }
}

impl ChainProof {
    pub fn is_failed(&self) -> bool {
        !self.different.is_empty() || self.broken.is_some()
    }

    fn begun(from: BackupId, later: &Located) -> Self {
        Self {
            from,
            to: later.manifest.id.clone(),
            increments: 0,
            changes: 0,
            equal: 0,
            different: Vec::new(),
            broken: None,
            not_compared: Vec::new(),
            duration_seconds: 0.0,
        }
    }

    /// The result for `verification.json`.
    pub(super) fn outcome(&self, at: Timestamp) -> VerificationOutcome {
        let rest = match serde_json::to_value(self) {
            Ok(Value::Object(rest)) => rest,
            _ => Map::new(),
        };
        let status = match self.is_failed() {
            true => VerificationStatus::Failed,
            false => VerificationStatus::Ok,
        };
        VerificationOutcome { status, at, rest }
    }

    /// The failure, as an error.
    pub fn error(&self) -> Option<Error> {
        let different = self.different.iter().map(ToString::to_string);
        let mut found = self.broken.iter().cloned().chain(different);
        let first = found.next()?;
        let more = found.count();
        let mut what = format!("the increments after {} do not lead to {}: {first}", self.from, self.to);
        if more > 0 {
            what = format!("{what} ({} more)", count(more, "table"));
        }
        Some(Error::new(Code::Integrity, what).hint(
            "restore no moment between the two from these increments; make a full backup, and begin the increments anew: \
             pgstow incremental stop, then start",
        ))
    }
}

impl fmt::Display for ChainProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let increments = count(self.increments, "increment");
        let changes = count(self.changes, "change");
        if self.is_failed() {
            writeln!(
                f,
                "  CHAIN NOT PROVED: {} and {increments} do not lead to {}",
                self.from, self.to
            )?;
        } else {
            let tables = count(self.equal, "table");
            writeln!(
                f,
                "  chain proved: {} and {increments} ({changes}) lead exactly to {}: {tables} equal",
                self.from, self.to
            )?;
        }
        if let Some(why) = &self.broken {
            writeln!(f, "  BROKEN: {why}")?;
        }
        for one in &self.different {
            writeln!(f, "  DIFFERENT: {one}")?;
        }
        for one in &self.not_compared {
            writeln!(f, "  not compared: {one}")?;
        }
        Ok(())
    }
}

/// Proves that the increments lead to this full backup. `None`: no chain of increments joins an earlier full to it. An
/// error means that pgstow could not look. Damage that keeps it from looking is a failed proof.
pub async fn prove(proving: &Proving<'_>, later: &Located) -> Result<Option<ChainProof>> {
    let begun = Instant::now();
    let earlier = match proving.stop.or_stop(earlier(proving, later)).await? {
        Earlier::None => return Ok(None),
        Earlier::Hole { before, why } => {
            let mut proof = ChainProof::begun(before, later);
            proof.broken = Some(why);
            return Ok(Some(proof));
        }
        Earlier::Joined(joined) => joined,
    };
    let mut proof = ChainProof::begun(earlier.base.clone(), later);
    match compare_all(proving, &earlier, later, &mut proof).await {
        Ok(()) => {}
        Err(error) if error.code() == Code::Integrity => proof.broken = Some(error.message()),
        Err(error) => return Err(error),
    }
    proof.duration_seconds = begun.elapsed().as_secs_f64();
    Ok(Some(proof))
}

async fn compare_all(proving: &Proving<'_>, earlier: &Joined, later: &Located, proof: &mut ChainProof) -> Result<()> {
    let Proving { stop, observer, .. } = *proving;
    observer.phase(&format!(
        "proving the increments from {} to {}",
        earlier.base, later.manifest.id
    ));
    let demand = demand(proving);
    let store = std::slice::from_ref(&later.store);
    let base = stop
        .or_stop(catalog::find(store, &earlier.base.to_string(), None, &demand))
        .await?;
    let increments = stop
        .or_stop(moment::manifests(&later.store, &earlier.increments, &demand))
        .await?;
    proof.increments = increments.len();
    moment::unbroken(&increments)?;
    let memory = moment::memory(proving.settings.task_memory, &proving.settings.postgres.temp);
    let replaying = moment::replay(&base, &increments, &later.manifest, earlier.position, &memory);
    let replayed = stop.or_stop(replaying).await?;
    proof.changes = replayed.changes;
    let archive = Arc::new(
        stop.or_stop(StoredArchive::open(&*later.store, &later.manifest))
            .await?,
    );
    let mut comparing = Vec::new();
    for table in &later.manifest.tables {
        comparing.push(one(proving, &replayed, later, &archive, table).boxed());
    }
    let verdicts = futures::stream::iter(comparing).buffered(proving.settings.threads.clamp(1, 8));
    let verdicts: Vec<(String, Verdict)> = stop.or_stop(verdicts.try_collect()).await?;
    for (table, verdict) in verdicts {
        match verdict {
            Verdict::Equal => proof.equal += 1,
            Verdict::Different(what) => proof.different.push(ChainFinding { table, what }),
            Verdict::NotCompared(what) => proof.not_compared.push(ChainFinding { table, what }),
        }
    }
    Ok(())
}

fn demand<'a>(proving: &Proving<'a>) -> Demand<'a> {
    Demand {
        trust: proving.trust,
        manifest: None,
        now: (proving.clock)(),
        altered: false,
    }
}

/// The full before, and what joins it to the later one.
enum Earlier {
    None,
    Joined(Joined),
    /// Increments of one stream lie on both sides of it.
    Hole {
        before: BackupId,
        why: String,
    },
}

struct Joined {
    base: BackupId,
    increments: Vec<BackupId>,
    /// The commits that the later snapshot sees are all at or before it.
    position: Lsn,
}

async fn earlier(proving: &Proving<'_>, later: &Located) -> Result<Earlier> {
    let id = &later.manifest.id;
    let now = (proving.clock)();
    let history = moment::history(&*later.store, id.database(), proving.trust).await?;
    // The newest full before it in a run that reaches it.
    let pair = history.runs().iter().rev().find_map(|run| {
        let at = run.bases().iter().position(|base| base.id == *id)?;
        let before = run.bases().get(at.checked_sub(1)?)?;
        Some((before.id.clone(), run.bases()[at].end.lsn))
    });
    let Some((before, position)) = pair else {
        let begins = proving.settings.retention.begins(now);
        let end = later.manifest.snapshot.end;
        let hole = end.and_then(|end| history.hole_before(id, end.lsn, begins));
        return Ok(hole.map_or(Earlier::None, |(before, why)| Earlier::Hole { before, why }));
    };
    let bases = history.runs().iter().flat_map(Run::bases);
    let unfit: BTreeSet<BackupId> = bases
        .map(|base| base.id.clone())
        .filter(|base| *base != before)
        .collect();
    let chosen = route(&history, RecoveryTarget::Lsn(position), &unfit, now);
    let chosen = chosen.map_err(|refused| refused.into_error(id.database()))?;
    Ok(Earlier::Joined(Joined {
        base: chosen.base,
        increments: chosen.increments,
        position,
    }))
}

enum Verdict {
    Equal,
    Different(String),
    NotCompared(String),
}

async fn one(
    proving: &Proving<'_>,
    replayed: &Replayed,
    later: &Located,
    archive: &Arc<StoredArchive>,
    table: &TableRecord,
) -> Result<(String, Verdict)> {
    let name = format!("{}.{}", table.schema, table.name);
    let verdict = compare(proving, replayed, later, archive, table).await;
    match verdict {
        Ok(verdict) => Ok((name, verdict)),
        // The changes do not fit the rows: that is what the proof looks for.
        Err(error) if error.code() == Code::Integrity => Ok((name, Verdict::Different(error.message()))),
        Err(error) => Err(error),
    }
}

async fn compare(
    proving: &Proving<'_>,
    replayed: &Replayed,
    later: &Located,
    archive: &Arc<StoredArchive>,
    table: &TableRecord,
) -> Result<Verdict> {
    let not_compared = |why: &str| Ok(Verdict::NotCompared(why.to_owned()));
    let Some(oid) = table.oid else {
        return not_compared("its backup does not say which table it is");
    };
    match replayed.knows(oid) {
        Known::Exact => {}
        Known::NotExact(why) => return Ok(Verdict::NotCompared(why)),
        Known::Broken(broken) => {
            let why = format!("{}, after {}", broken.why, broken.until);
            return Ok(Verdict::NotCompared(why));
        }
        Known::Unknown => return not_compared("the increments do not say anything of it"),
    }
    let is_of_table = |entry: &crate::format::archive::TocEntry| entry.desc == "TABLE DATA" && entry.oid == oid;
    let Some(index) = archive.head.data.iter().position(is_of_table) else {
        return not_compared("its rows are not in the later backup");
    };
    // Equal texts are equal rows: what no change touched needs no reading, unless the order of its rows changed.
    if replayed
        .untouched(oid)
        .is_some_and(|digest| digest == archive.promises[index])
    {
        return Ok(Verdict::Equal);
    }
    if replayed.differs_in_columns(oid, archive, index)? {
        return not_compared("its columns were changed after its last row that the increments have");
    }
    let heard = || {
        let observer = Arc::clone(proving.observer);
        move |bytes| observer.bytes_read(bytes)
    };
    let Some((rows, sum)) = replayed.sum(oid, heard()).await? else {
        return not_compared("no earlier backup has its rows");
    };
    let (rows_there, sum_there) = moment::stored_sum(&later.store, archive, index, heard()).await?;
    Ok(match (rows == rows_there, sum == sum_there) {
        (true, true) => Verdict::Equal,
        (true, false) => Verdict::Different(format!("its {} are not the same", count(rows, "row"))),
        (false, _) => Verdict::Different(format!(
            "it has {} by the increments, but {} in the backup",
            count(rows, "row"),
            count(rows_there, "row")
        )),
    })
}

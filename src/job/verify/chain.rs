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

use super::{Job, record};
use crate::error::{Code, Error, Result};
use crate::format::Lsn;
use crate::job::moment::{self, Known, Replayed};
use crate::repository::backup_id::{BackupId, VERIFICATION};
use crate::repository::catalog::{self, Demand, Located};
use crate::repository::chain::Run;
use crate::repository::manifest::TableRecord;
use crate::repository::route::{Target, route};
use crate::repository::signature::Trust;
use crate::repository::stored_archive::StoredArchive;
use crate::repository::verification::{Verification, VerificationOutcome, VerificationStatus};
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
    /// Tables that the increments do not cover exactly, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_compared: Vec<ChainFinding>,
    pub duration_seconds: f64,
}

/// What was found of one table.
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
        !self.different.is_empty()
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
        let first = self.different.first()?;
        let more = self.different.len() - 1;
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
/// error means that pgstow could not look, or that the increments contradict themselves (`INTEGRITY`).
pub async fn prove(proving: &Proving<'_>, later: &Located) -> Result<Option<ChainProof>> {
    let begun = Instant::now();
    let Proving { stop, observer, .. } = *proving;
    let Some(earlier) = stop.or_stop(earlier(proving, later)).await? else {
        return Ok(None);
    };
    let Earlier {
        base,
        increments,
        position,
    } = earlier;
    observer.phase(&format!(
        "proving the increments from {} to {}",
        base.manifest.id, later.manifest.id
    ));
    let memory = moment::memory(proving.settings.task_memory, &proving.settings.postgres.temp);
    let replaying = moment::replay(&base, &increments, &later.manifest, position, &memory);
    let replayed = stop.or_stop(replaying).await?;
    let mut proof = ChainProof {
        from: base.manifest.id.clone(),
        to: later.manifest.id.clone(),
        increments: increments.len(),
        changes: replayed.changes,
        equal: 0,
        different: Vec::new(),
        not_compared: Vec::new(),
        duration_seconds: 0.0,
    };
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
    proof.duration_seconds = begun.elapsed().as_secs_f64();
    Ok(Some(proof))
}

/// Proves the newest full backup of the database that increments reach, if that was not done yet, and records the
/// result beside it. `None`: there is nothing new to prove.
pub async fn prove_newest(job: &Job<'_>, database: &str) -> Result<Option<ChainProof>> {
    let Some(store) = job.stores.first() else {
        return Ok(None);
    };
    let newest = async {
        let history = moment::history(&**store, database, job.trust).await?;
        let bases = history.newest().map(|run| run.bases().to_vec()).unwrap_or_default();
        let Some(newest) = bases.last().filter(|_| bases.len() > 1) else {
            return Ok(None);
        };
        let (id, demand) = (
            newest.id.to_string(),
            Demand {
                trust: job.trust,
                manifest: None,
                now: (job.clock)(),
                altered: false,
            },
        );
        let located = catalog::find(std::slice::from_ref(store), &id, None, &demand).await?;
        let known = store.get(&newest.id.key(VERIFICATION)).await?;
        let known = known.and_then(|known| Verification::parse(&known.body, &newest.id).ok());
        Ok(Some(located).filter(|_| known.is_none_or(|known| known.chain.is_none())))
    };
    let Some(located) = job.stop.or_stop(newest).await? else {
        return Ok(None);
    };
    let proving = Proving {
        settings: job.settings,
        trust: job.trust,
        clock: job.clock,
        stop: job.stop,
        observer: job.observer,
    };
    let proof = prove(&proving, &located).await?;
    if let Some(proof) = &proof {
        let (store, sha256) = (located.store.as_ref(), &located.manifest_sha256);
        let outcome = proof.outcome((job.clock)()).of_manifest(sha256);
        record::record(job, store, &located.manifest.id, sha256, |verification| {
            verification.chain = Some(outcome.clone());
        })
        .await?;
    }
    Ok(proof)
}

/// The full before, and the increments between.
struct Earlier {
    base: Located,
    increments: Vec<crate::repository::manifest::Manifest>,
    /// The commits that the later snapshot sees are all at or before it.
    position: Lsn,
}

async fn earlier(proving: &Proving<'_>, later: &Located) -> Result<Option<Earlier>> {
    let (store, id) = (&later.store, &later.manifest.id);
    let now = (proving.clock)();
    let history = moment::history(&**store, id.database(), proving.trust).await?;
    // The newest full before it in a run that reaches it.
    let pair = history.runs().iter().rev().find_map(|run| {
        let at = run.bases().iter().position(|base| base.id == *id)?;
        let before = run.bases().get(at.checked_sub(1)?)?;
        Some((before.id.clone(), run.bases()[at].end.lsn))
    });
    let Some((before, position)) = pair else {
        return Ok(None);
    };
    let bases = history.runs().iter().flat_map(Run::bases);
    let unfit: BTreeSet<BackupId> = bases
        .map(|base| base.id.clone())
        .filter(|base| *base != before)
        .collect();
    let chosen = route(&history, Target::Lsn(position), &unfit, now);
    let chosen = chosen.map_err(|refused| refused.into_error(id.database()))?;
    let demand = Demand {
        trust: proving.trust,
        manifest: None,
        now,
        altered: false,
    };
    let base = catalog::find(std::slice::from_ref(store), &chosen.base.to_string(), None, &demand).await?;
    let increments = moment::manifests(store, &chosen.increments, &demand).await?;
    moment::unbroken(&increments)?;
    Ok(Some(Earlier {
        base,
        increments,
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

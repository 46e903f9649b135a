//! The proof that follows a full backup by itself, once increments have reached it.

use jiff::SignedDuration;

use super::chain::{ChainProof, Proving, prove};
use super::{Job, record};
use crate::error::{Code, Error, Result};
use crate::format::Lsn;
use crate::job::moment;
use crate::repository::backup_id::{BackupId, BackupKind, VERIFICATION};
use crate::repository::catalog::{self, Demand, Listed, Located};
use crate::repository::chain::{History, NotABase};
use crate::repository::verification::{ProofBegun, Verification};
use crate::store::Store;
use crate::units::human_span;

/// How many of the newest full backups are looked at.
const ASKED: usize = 4;

/// How far the backups of a database have come.
#[derive(Debug, Clone)]
pub struct Reached {
    pub database: String,
    /// The end of the increment that was just made: it saves reading all manifests. `None`: it was a full backup.
    pub to: Option<Lsn>,
}

/// Proves the chain up to a full backup that increments have reached and whose chain was not proved yet, the oldest of
/// several, and records the result beside it. `None`: there is nothing new to prove.
pub async fn prove_newest(job: &Job<'_>, reached: &Reached) -> Result<Option<ChainProof>> {
    let database = reached.database.as_str();
    let Some(store) = job.stores.first() else {
        return Ok(None);
    };
    let looking = async {
        let listed = catalog::backups(&**store, Some(database)).await?;
        if !may_be_unproved(job, &**store, &listed, reached.to).await? {
            return Ok(None);
        }
        let history = moment::history(&**store, database, job.trust).await?;
        match unproved(&**store, &history).await? {
            None => Ok(None),
            Some(id) => find(job, &id).await.map(Some),
        }
    };
    let Some(located) = job.stop.or_stop(looking).await? else {
        return Ok(None);
    };
    let proving = Proving {
        settings: job.settings,
        trust: job.trust,
        clock: job.clock,
        stop: job.stop,
        observer: job.observer,
    };
    let is_timed = begin(job, &located).await?;
    let proved = async {
        match prove(&proving, &located).await? {
            // Bytes can be damaged on the way, too.
            Some(proof) if proof.is_failed() => prove(&proving, &located).await,
            proof => Ok(proof),
        }
    };
    let proof = match proved.await {
        Err(error) if is_timed && error.code() != Code::Deadline => {
            // It was not for lack of time.
            note(job, &located, None).await;
            return Err(error);
        }
        proof => proof?,
    };
    if let Some(proof) = &proof {
        let (store, sha256) = (located.store.as_ref(), &located.manifest_sha256);
        let outcome = proof.outcome((job.clock)()).of_manifest(sha256);
        record::record(job, store, &located.manifest.id, sha256, |verification| {
            verification.chained(outcome.clone());
        })
        .await?;
    }
    Ok(proof)
}

/// How long a proof that did not end in time is not tried again by tasks with as little time.
const PATIENCE: SignedDuration = SignedDuration::from_hours(24);

/// Notes beside the backup that the proof begins, if the task's time is limited: a proof that takes longer must not be
/// begun by each increment anew. `DEADLINE` if one has taken longer. Returns whether it was noted.
async fn begin(job: &Job<'_>, located: &Located) -> Result<bool> {
    let Some(deadline) = job.stop.deadline() else {
        return Ok(false);
    };
    let now = (job.clock)();
    let begun = ProofBegun {
        at: now,
        seconds: deadline.duration_since(now).as_secs().max(0),
    };
    let id = &located.manifest.id;
    let known = job.stop.or_stop(located.store.get(&id.key(VERIFICATION))).await?;
    let known = known.and_then(|known| Verification::parse(&known.body, id).ok());
    if let Some(before) = known.and_then(|known| known.chain_begun)
        && now.duration_since(before.at) < PATIENCE
        && before.seconds.saturating_mul(3) >= begun.seconds.saturating_mul(2)
    {
        let what = format!(
            "the proof of the increments up to {id} began {} ago in a run that had {} for it, which was too short",
            human_span(now.duration_since(before.at).as_secs()),
            human_span(before.seconds)
        );
        return Err(Error::new(Code::Deadline, what));
    }
    note(job, located, Some(begun)).await;
    Ok(true)
}

/// Without the note, the proof is only begun once too often.
async fn note(job: &Job<'_>, located: &Located, begun: Option<ProofBegun>) {
    let (store, sha256) = (located.store.as_ref(), &located.manifest_sha256);
    let noted = record::record(job, store, &located.manifest.id, sha256, |verification| {
        verification.chain_begun = begun;
    });
    if let Err(error) = noted.await {
        tracing::debug!("{error}");
    }
}

/// A cheap look that spares most runs the dear one.
async fn may_be_unproved(job: &Job<'_>, store: &dyn Store, listed: &[Listed], reached: Option<Lsn>) -> Result<bool> {
    let now = (job.clock)();
    let is_full = |one: &&Listed| one.has_manifest && one.id.kind() == BackupKind::Full && !one.id.is_ahead(now);
    let mut fulls = listed.iter().filter(is_full);
    let (Some(newest), Some(_)) = (fulls.next(), fulls.next()) else {
        return Ok(false);
    };
    if is_proved(store, &newest.id).await? {
        return Ok(false);
    }
    let Some(reached) = reached else { return Ok(true) };
    let Ok(located) = find(job, &newest.id).await else {
        return Ok(true);
    };
    let manifest = located.manifest;
    // A full that was made for a new stream is its first base.
    let end = manifest.snapshot.end.filter(|_| manifest.beginning.is_none());
    Ok(end.is_some_and(|end| end.lsn <= reached))
}

async fn find(job: &Job<'_>, id: &BackupId) -> Result<Located> {
    let demand = Demand {
        trust: job.trust,
        manifest: None,
        now: (job.clock)(),
        altered: false,
    };
    catalog::find(&job.stores[..1], &id.to_string(), None, &demand).await
}

async fn is_proved(store: &dyn Store, id: &BackupId) -> Result<bool> {
    let known = store.get(&id.key(VERIFICATION)).await?;
    let known = known.and_then(|known| Verification::parse(&known.body, id).ok());
    Ok(known.is_some_and(|known| known.chain.is_some()))
}

async fn unproved(store: &dyn Store, history: &History) -> Result<Option<BackupId>> {
    let mut found = None;
    for id in candidates(history).into_iter().rev().take(ASKED) {
        if is_proved(store, &id).await? {
            break;
        }
        found = Some(id);
    }
    Ok(found)
}

/// The full backups that the newest increments should lead to, oldest first: the bases in the newest run that have
/// another before them, and after a hole in the stream all that are newer than the hole.
fn candidates(history: &History) -> Vec<BackupId> {
    let Some(newest) = history.newest() else {
        return Vec::new();
    };
    let hole = newest.hole();
    let bases = newest.bases().iter().skip(usize::from(hole.is_none()));
    let refused = newest.refused().iter().filter(|(id, why)| {
        let is_newer = hole.is_some_and(|hole| id.timestamp() >= hole.timestamp());
        is_newer && matches!(why, NotABase::Before | NotABase::Open)
    });
    let bases = bases.map(|base| base.id.clone());
    let mut found: Vec<BackupId> = bases.chain(refused.map(|(id, _)| id.clone())).collect();
    found.sort();
    found
}

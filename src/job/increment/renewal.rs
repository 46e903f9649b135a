//! A broken chain: what a new one needs, made in the same run.

use std::time::Duration;

use crate::error::{Code, Error, Result};
use crate::job::backup::{self, BackupReport, BackupRequest, Job, SourceDatabase, answered, answered_within};
use crate::postgres::{OlderTransactions, SlotName};
use crate::repository::backup_id::BackupKind;
use crate::repository::manifest::StreamBeginning;

/// How long the server may wait for the transactions that run when a slot is made, and pgstow after that.
const OLDER: Duration = Duration::from_secs(600);

/// Makes a new slot if it needs one, waits until a full has every transaction that the stream lacks, and makes the full.
/// If the run dies in between, the next one finds no full from after the slot was made, and does the rest.
pub(super) async fn renew(
    job: &Job<'_>,
    request: &BackupRequest,
    source: &SourceDatabase,
    slot: &SlotName,
    (why, needs_slot): (&str, bool),
) -> Result<BackupReport> {
    tracing::warn!("the chain of increments ends, and a new one begins: {why}");
    let session = &source.session;
    let from = if needs_slot {
        job.observer.phase("making a new slot");
        answered(job, session.drop_slot(slot)).await?;
        answered(job, session.create_publications(slot)).await?;
        let catalog = answered(job, session.table_catalog()).await?;
        // First the tables, so that the slot's stream has all of their changes.
        answered(job, session.reconcile(slot, &catalog)).await?;
        let patience = OLDER + job.settings.postgres.stall;
        answered_within(job, patience, session.create_slot(slot, OLDER, job.stop)).await?
    } else {
        let found = answered(job, session.slot(slot)).await?;
        let confirmed = found.and_then(|found| found.confirmed);
        confirmed.ok_or_else(|| Error::new(Code::Slot, format!("the slot {slot} has gone, or has no position")))?
    };
    job.observer.phase("waiting for older transactions");
    let xid = match session.wait_for_older(OLDER, job.stop).await? {
        OlderTransactions::Ended(xid) => xid,
        OlderTransactions::Running(oldest) => {
            let seconds = OLDER.as_secs();
            let text = format!(
                "a new chain of increments waits for older transactions, and they do not end for {seconds} s: {oldest}"
            );
            let hint =
                "end the oldest transaction (pg_stat_activity, pg_prepared_xacts); the next run goes on from here";
            return Err(Error::new(Code::Stalled, text).hint(hint));
        }
    };
    let request = BackupRequest {
        kind: BackupKind::Full,
        every: None,
        beginning: Some(StreamBeginning {
            slot: slot.slot().to_owned(),
            from,
            xid,
        }),
        ..request.clone()
    };
    let mut report = Box::pin(backup::run(job, &request)).await?;
    report.renewed = Some(why.to_owned());
    Ok(report)
}

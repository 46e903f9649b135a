//! After each full backup, pgstow proves the increments that lead to it.

use tokio::sync::watch;

use super::aftermath::Aftermath;
use crate::error::{Code, Error, Result};
use crate::job::backup::BackupReport;
use crate::job::verify::{self, ChainProof, Reached};

/// What a run has made.
pub(super) fn reached(report: &BackupReport) -> Reached {
    Reached {
        database: report.database.clone(),
        to: report.increment.as_ref().map(|increment| increment.to),
    }
}

pub(super) struct Proofs<'a> {
    pub job: verify::Job<'a>,
    /// Whether the settings ask for it.
    pub is_wanted: bool,
}

impl Proofs<'_> {
    /// After a run that made one backup. If the proof cannot be made, the report has a warning.
    pub async fn after(&self, report: &mut BackupReport) {
        if report.repeated {
            return;
        }
        match self.prove(&reached(report)).await {
            Ok(Some(proof)) => report.proved(proof),
            Ok(None) => {}
            Err(error) => report.warnings.push(unproved(&error)),
        }
    }

    /// Beside a run that follows its source: other tasks make the full backups. A proof may take longer than several
    /// increments, which it does not delay.
    pub async fn beside(&self, mut reached: watch::Receiver<Option<Reached>>, aftermath: &Aftermath<'_>) {
        while reached.changed().await.is_ok() {
            let Some(now) = reached.borrow_and_update().clone() else {
                continue;
            };
            match self.prove(&now).await {
                Ok(Some(proof)) => aftermath.of_proof(&now.database, &proof).await,
                Ok(None) => {}
                // The run ends; the next one proves it.
                Err(_) if self.job.stop.reason().is_some() => return,
                Err(error) => tracing::warn!("{}", unproved(&error)),
            }
        }
    }

    async fn prove(&self, reached: &Reached) -> Result<Option<ChainProof>> {
        if !self.is_wanted {
            return Ok(None);
        }
        verify::prove_newest(&self.job, reached).await
    }
}

fn unproved(error: &Error) -> String {
    let what = format!("whether the increments lead to the newest full backup could not be proved: {error}");
    match error.code() {
        Code::Deadline => {
            format!(
                "{what}; set BACKUP_PROVE_CHAIN=false here, and run `pgstow verify latest --chain` where there is time"
            )
        }
        _ => what,
    }
}

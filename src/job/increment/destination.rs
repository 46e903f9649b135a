//! The stores' side of an increment: its id, which is taken only when there is something to store, and the upload of its
//! changes.

use bytes::Bytes;
use jiff::Timestamp;
use md5::Md5;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::run::Run;
use crate::dataflow::pipeline::{Failure, Fanout, Outlets, abort_after, fan_out};
use crate::error::{Code, Error, Result};
use crate::job::backup::replicas::{Looking, Replicas};
use crate::job::backup::{IDS, PUT_GRACE};
use crate::repository::backup_id::{BackupId, BackupKind};
use crate::repository::catalog::{self, object_info};
use crate::repository::lease::{Announced, Previous};
use crate::repository::leftovers::LeftOver;
use crate::store::{Expected, ObjectInfo, Stored};

pub(super) struct Destination<'a> {
    run: &'a Run<'a>,
    pub replicas: Replicas,
    pub started: Timestamp,
    /// An estimate of the span's size, for the size of the upload's parts.
    estimate: u64,
    taken: Option<Taken>,
    changes: Option<Changes>,
}

/// The id that this run has taken, and what it found in the stores.
pub(super) struct Taken {
    pub id: BackupId,
    pub leftovers: Vec<LeftOver>,
    pub warnings: Vec<String>,
}

/// The upload of the changes, in every store.
struct Changes {
    key: String,
    outlets: Outlets,
    fanout: Fanout,
    stop: CancellationToken,
    digest: Sha256,
    /// For `MD5SUMS`, if it is asked for.
    md5: Option<Md5>,
    bytes: u64,
}

/// The file of changes in the stores.
pub(super) struct StoredChanges {
    pub bytes: u64,
    pub sha256: [u8; 32],
    pub md5: Option<[u8; 16]>,
    /// In the order of the stores.
    pub receipts: Vec<Option<Stored>>,
}

impl<'a> Destination<'a> {
    pub fn new(run: &'a Run<'a>, replicas: Replicas, estimate: u64) -> Self {
        Self {
            run,
            replicas,
            started: (run.job.clock)(),
            estimate,
            taken: None,
            changes: None,
        }
    }

    /// The id of the increment. The first call looks at the stores, takes the id, and clears what dead runs left.
    pub async fn id(&mut self) -> Result<BackupId> {
        if let Some(taken) = &self.taken {
            return Ok(taken.id.clone());
        }
        let taking = take(self.run, &mut self.replicas, self.started);
        let taken = self.run.job.stop.or_stop_after(PUT_GRACE, taking).await?;
        let id = taken.id.clone();
        self.run
            .job
            .observer
            .event(&crate::run::progress::Event::Begun { id: id.to_string() });
        self.taken = Some(taken);
        Ok(id)
    }

    pub fn taken(&mut self) -> Option<Taken> {
        self.taken.take()
    }

    /// Opens the uploads of the changes, if they are not open.
    pub async fn open(&mut self) -> Result<()> {
        if self.changes.is_some() {
            return Ok(());
        }
        let id = self.id().await?;
        let key = id.key(&id.changes_name());
        let server = &self.run.source.session.server().version;
        let info = ObjectInfo {
            size_estimate: Some(self.estimate),
            ..object_info(&id, server, "application/zstd")
        };
        let uploads = self.replicas.open(&key, &info).await?;
        let stop = CancellationToken::new();
        let (outlets, fanout) = fan_out(uploads, &self.run.job.observer.clone(), &stop);
        self.changes = Some(Changes {
            key,
            outlets,
            fanout,
            stop,
            digest: Sha256::new(),
            md5: self.run.job.settings.md5.then(Md5::new),
            bytes: 0,
        });
        Ok(())
    }

    /// Passes the next bytes of the changes on. The slowest store sets the pace.
    pub async fn write(&mut self, bytes: Vec<u8>) -> Result<()> {
        let Some(changes) = &mut self.changes else {
            return Err(Error::internal("the upload of the changes is not open"));
        };
        changes.digest.update(&bytes);
        if let Some(md5) = &mut changes.md5 {
            md5.update(&bytes);
        }
        changes.bytes += bytes.len() as u64;
        let closed = changes.outlets.pass(&Bytes::from(bytes)).await.is_err();
        match closed {
            true => Err(self.failed().await),
            false => Ok(()),
        }
    }

    /// Completes the uploads of the changes.
    pub async fn complete(&mut self) -> Result<StoredChanges> {
        let Some(changes) = self.changes.take() else {
            return Err(Error::internal("the upload of the changes is not open"));
        };
        let Changes {
            key,
            outlets,
            fanout,
            stop,
            digest,
            md5,
            bytes,
        } = changes;
        drop(outlets);
        let collecting = fanout.collect();
        tokio::pin!(collecting);
        let collected = tokio::select! {
            biased;
            collected = &mut collecting => collected,
            reason = self.run.job.stop.requested() => {
                stop.cancel();
                let copies = collecting.await;
                let error = Error::from(reason);
                return Err(match copies {
                    Ok(copies) => abort_after(error, copies).await,
                    Err(_) => error,
                });
            }
        };
        let copies = collected.map_err(of_failure)?;
        let expected = Expected {
            bytes,
            sha256: digest.finalize().into(),
        };
        let receipts = self.replicas.complete_in_time(&key, copies, &expected).await?;
        Ok(StoredChanges {
            bytes,
            sha256: expected.sha256,
            md5: md5.map(|md5| md5.finalize().into()),
            receipts,
        })
    }

    /// The reason for which the stores took no more.
    async fn failed(&mut self) -> Error {
        let Some(changes) = self.changes.take() else {
            return Error::internal("the upload of the changes is not open");
        };
        changes.stop.cancel();
        drop(changes.outlets);
        match changes.fanout.collect().await {
            Ok(copies) => {
                let error = Error::internal("the stores stopped taking bytes without a reason");
                abort_after(error, copies).await
            }
            Err(failure) => of_failure(failure),
        }
    }

    /// After a failed round: no upload stays in progress, and nothing that this run stored stays visible.
    pub async fn give_up(mut self, error: Error) -> Error {
        let mut error = error;
        if let Some(changes) = self.changes.take() {
            changes.stop.cancel();
            drop(changes.outlets);
            let collecting = async { Ok(changes.fanout.collect().await) };
            match self.run.job.stop.or_give_up("aborting the upload", collecting).await {
                Ok(Ok(copies)) => error = abort_after(error, copies).await,
                Ok(Err(Failure::Store(second))) if second.code() != error.code() => error = error.also(second),
                Ok(Err(_)) => {}
                Err(late) => error = error.also(late),
            }
        }
        self.replicas.give_up(error).await
    }
}

fn of_failure(failure: Failure) -> Error {
    match failure {
        Failure::Source(error) | Failure::Store(error) => error,
        Failure::Stopped => Error::internal("the upload stopped without a request"),
    }
}

/// Looks at what the stores hold, takes an id in each, and clears what dead runs of increments left.
async fn take(run: &Run<'_>, replicas: &mut Replicas, started: Timestamp) -> Result<Taken> {
    let Run { job, source, lease, .. } = run;
    let database = &source.session.server().database;
    let primary = replicas.primary();
    let listed = catalog::backups(&*primary, Some(database)).await?;
    let looking = Looking {
        database,
        server: source.session.server(),
        adopt: job.settings.adopt,
        create: job.settings.store_create,
        kind: BackupKind::Incremental,
    };
    let back = replicas.look_back(&listed, started, &looking).await?;
    let dead = run.took_over.as_ref().and_then(Previous::backup_id);
    let dead = dead.filter(|dead| dead.database() == database);
    let past = listed.iter().map(|one| &one.id).filter(|id| !id.is_ahead(started));
    let newest = past.chain(dead.as_ref().filter(|dead| !dead.is_ahead(started))).max();
    let mut newest = newest.cloned().max(back.newest);
    for _ in 0..IDS {
        let id = BackupId::next(database, BackupKind::Incremental, started, newest.as_ref());
        match replicas.take_id(lease, &id).await? {
            Announced::Taken(taken) => newest = newest.max(Some(taken)),
            Announced::Done => {
                let cleared = replicas.clear(&id, &listed, dead.as_ref(), started).await;
                let warnings = back.warnings.iter().chain(&cleared.warnings);
                return Ok(Taken {
                    id,
                    warnings: warnings.map(Error::message).collect(),
                    leftovers: cleared.left_overs,
                });
            }
        }
    }
    let what = format!("cannot take an id for an increment of {database:?}: other runs were faster {IDS} times");
    Err(Error::new(Code::Busy, what))
}

//! The stores of one run: the primary, without which there is no backup, and the copies, each of which may fail alone.

mod identity;
mod publishing;
mod replica;
mod uploads;

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::timeout;

use super::report::StoreReport;
use crate::dataflow::pipeline::{COPYS_PATIENCE, within};
use crate::error::{Error, ErrorReport, Result};
use crate::repository::backup_id::BackupId;
use crate::repository::catalog::{self, Found, Listed};
use crate::repository::lease::{Announced, Lease};
use crate::repository::leftovers::{self, Cleared};
use crate::repository::references::Referent;
use crate::repository::signature::KeyId;
use crate::run::stop::Stop;
use crate::store::conditions::put_where;
use crate::store::limits;
use crate::store::{Condition, ObjectInfo, Put, Store, taken};

use identity::LastBackup;
pub(in crate::job) use identity::Looking;
use replica::{Replica, Written, discard, patience};

pub(in crate::job) struct Replicas {
    /// This is never empty; the first is the primary.
    all: Vec<Replica>,
    /// The key that signed the manifests.
    signed_by: Option<KeyId>,
    /// It limits the time for the clean-up.
    stop: Stop,
    last: Option<LastBackup>,
}

impl Replicas {
    /// Checks that the stores can be reached, before anything begins.
    pub(in crate::job) async fn reach(stores: &[Arc<dyn Store>], stop: &Stop) -> Result<Self> {
        let mut all = Vec::new();
        for store in stores {
            let failed = match within(patience(all.len()), store.reach()).await {
                Ok(()) => None,
                Err(error) if all.is_empty() => return Err(error),
                Err(error) => Some(error),
            };
            all.push(Replica::new(store, failed));
        }
        if all.is_empty() {
            return Err(Error::config("no store is set").hint("name one with --store or BACKUP_STORE"));
        }
        Ok(Self {
            all,
            signed_by: None,
            stop: stop.clone(),
            last: None,
        })
    }

    pub(in crate::job) fn primary(&self) -> Arc<dyn Store> {
        Arc::clone(&self.all[0].store)
    }

    /// Takes the id in every store, because the stores of this run's copies may also get the copies of other runs, or
    /// be their primary.
    pub(in crate::job) async fn take_id(&mut self, lease: &Lease, id: &BackupId) -> Result<Announced> {
        let announced = lease.announce(id).await?;
        if announced != Announced::Done {
            return Ok(announced);
        }
        for copy in self.all.iter_mut().skip(1).filter(|replica| replica.takes_part()) {
            match within(Some(COPYS_PATIENCE), lease.claim_in(&*copy.store, id)).await {
                Ok(Announced::Done) => {}
                Ok(taken) => return Ok(taken),
                Err(error) => copy.drop_out(error, &self.stop).await,
            }
        }
        Ok(Announced::Done)
    }

    /// Clears the left-overs of dead runs in every store. `listed` is the primary's list; `dead` is the backup that the
    /// previous holder of the lease never finished.
    pub(in crate::job) async fn clear(
        &self,
        own: &BackupId,
        listed: &[Listed],
        dead: Option<&BackupId>,
        now: Timestamp,
    ) -> Cleared {
        let mut cleared = leftovers::clear(&*self.primary(), own, listed, now).await;
        for copy in self.all.iter().skip(1).filter(|replica| replica.takes_part()) {
            let clearing = leftovers::clear_copy(&*copy.store, own, dead, now);
            // If something remains there, the next run finds it again.
            cleared.add(timeout(COPYS_PATIENCE, clearing).await.unwrap_or_default());
        }
        cleared
    }

    /// Why a store of this run cannot hold a backup that refers to this one: it does not have it.
    pub(super) async fn lacks(&self, base: &Referent) -> Result<Option<String>> {
        for (index, replica) in self.all.iter().enumerate() {
            if index == 0 || !replica.takes_part() {
                continue;
            }
            let url = replica.store.url();
            let found = within(patience(index), catalog::read_manifest(&*replica.store, &base.id)).await;
            let has_it = match found {
                Ok(Found::Good(manifest)) => base.is_that_of(&manifest),
                Ok(_) => false,
                Err(error) => {
                    return Ok(Some(format!(
                        "{} cannot be read in {url}: {}",
                        base.id,
                        error.message()
                    )));
                }
            };
            if !has_it {
                return Ok(Some(format!("{url} does not have {}", base.id)));
            }
        }
        Ok(None)
    }

    pub(in crate::job) async fn put(&mut self, key: &str, bytes: Bytes, info: &ObjectInfo) -> Result<()> {
        // A backup must not hold a file that is too large for its readers.
        limits::fits(key, bytes.len() as u64)?;
        for (index, replica) in self
            .all
            .iter_mut()
            .enumerate()
            .filter(|(_, replica)| replica.takes_part())
        {
            // Noted first: if the answer to a put is lost, the store may still have the object.
            replica.written.push(Written::surely(key));
            let put = put_where(&*replica.store, key, bytes.clone(), info, Condition::Absent);
            let put = within(patience(index), put).await;
            let put = put.and_then(|put| match put {
                Put::Done(_) => Ok(()),
                Put::Refused => {
                    // The object is another run's, so this run must not discard it.
                    replica.written.pop();
                    Err(taken(key, replica.store.url()))
                }
            });
            match put {
                Ok(()) => {}
                Err(error) if index == 0 => return Err(error),
                Err(error) => replica.drop_out(error, &self.stop).await,
            }
        }
        Ok(())
    }

    /// After a failed run: discards the objects that the run made visible, in every store.
    pub(in crate::job) async fn give_up(self, error: Error) -> Error {
        let mut error = error;
        for replica in self.all.into_iter().filter(|replica| !replica.committed) {
            let failed = discard(&*replica.store, replica.written, &self.stop).await;
            error = failed.into_iter().fold(error, Error::also);
        }
        error
    }

    /// The SHA-256 of the primary's manifest.
    pub(in crate::job) fn manifest_sha256(&self) -> Option<String> {
        self.all.first()?.manifest_sha256.map(hex::encode)
    }

    pub(in crate::job) fn signed_by(&self) -> Option<KeyId> {
        self.signed_by
    }

    pub(in crate::job) fn report(&self) -> Vec<StoreReport> {
        let report = |(index, replica): (usize, &Replica)| StoreReport {
            url: replica.store.url().to_owned(),
            primary: index == 0,
            holds_backup: replica.committed,
            manifest_sha256: replica.manifest_sha256.map(hex::encode),
            error: replica.failed.as_ref().map(ErrorReport::from),
        };
        self.all.iter().enumerate().map(report).collect()
    }
}

//! From the stored files to the commit: tags, manifests, and then the tags of the backups before.

use bytes::Bytes;
use jiff::Timestamp;

use super::Replicas;
use super::replica::{Written, patience};
use crate::dataflow::pipeline::within;
use crate::error::{Error, Result};
use crate::repository::backup_id::{BackupId, MANIFEST_DIGEST};
use crate::repository::catalog::{self, NotPublished};
use crate::repository::manifest::{Manifest, References};
use crate::repository::references;
use crate::repository::retention::{applying, other_times};
use crate::repository::signature::{Signer, Subject};
use crate::settings::Retention;
use crate::store::{Lifecycle, Store};
use crate::units::count;

/// A store's manifest, ready to be put.
pub(in crate::job) struct Sealed {
    manifest: Manifest,
    signature: Option<Bytes>,
}

impl Replicas {
    /// Sees to it that the backup to which `id` refers stays in every store, and is still there.
    pub(in crate::job::backup) async fn hold(&mut self, id: &BackupId, references: &References) -> Result<()> {
        for (index, replica) in self
            .all
            .iter_mut()
            .enumerate()
            .filter(|(_, replica)| replica.takes_part())
        {
            let store = &*replica.store;
            let holding = async {
                catalog::hold(store, &references.from).await?;
                references::check(store, id, references).await
            };
            match within(patience(index), holding).await {
                Ok(()) => {}
                Err(error) if index == 0 => return Err(error),
                Err(error) => replica.drop_out(error, &self.stop).await,
            }
        }
        Ok(())
    }

    pub(in crate::job) async fn tag(&mut self, id: &BackupId, files: &[(String, String)]) -> Result<()> {
        for (index, replica) in self
            .all
            .iter_mut()
            .enumerate()
            .filter(|(_, replica)| replica.takes_part())
        {
            match within(patience(index), catalog::commit_tags(&*replica.store, id, files)).await {
                Ok(()) => {}
                Err(error) if index == 0 => return Err(error),
                Err(error) => replica.drop_out(error, &self.stop).await,
            }
        }
        Ok(())
    }

    /// Makes the manifest of each store that takes part, with the store's own receipt, and its signature. Puts nothing
    /// yet.
    ///
    /// `receipts` are in the order of the stores; a store without one gets no manifest.
    pub(in crate::job) async fn seal<R>(
        &mut self,
        manifest: impl Fn(&R) -> Manifest,
        receipts: &[Option<R>],
        signer: Option<&Signer>,
        now: Timestamp,
    ) -> Result<Vec<Option<Sealed>>> {
        let mut sealed = Vec::new();
        // A copy counts only after a run has seen a backup in it: a new copy counts from the next run.
        let holders = self.all.iter().enumerate();
        let holders =
            holders.filter(|(index, replica)| replica.takes_part() && (*index == 0 || replica.predecessor.is_some()));
        let stores: Vec<String> = holders.map(|(_, replica)| replica.store.url().to_owned()).collect();
        for (replica, receipt) in self.all.iter().zip(receipts) {
            let (true, Some(receipt)) = (replica.takes_part(), receipt) else {
                sealed.push(None);
                continue;
            };
            let mut manifest = manifest(receipt);
            manifest.predecessor.clone_from(&replica.predecessor);
            manifest.store = Some(replica.store.url().to_owned());
            manifest.stores.clone_from(&stores);
            // All other files have their tags by now, so the store has shown whether it keeps tags.
            let lifecycle = replica.store.lifecycle();
            manifest.tags = lifecycle.map(|lifecycle| lifecycle.keeping().into());
            let signature = match signer {
                Some(signer) => {
                    let subject = Subject::manifest(&manifest.id);
                    Some(signer.sign(subject, &manifest.to_bytes()?, now).await?)
                }
                None => None,
            };
            sealed.push(Some(Sealed { manifest, signature }));
        }
        self.signed_by = signer.map(|signer| signer.public().id());
        Ok(sealed)
    }

    /// Puts the manifests, the primary's first, and returns that one.
    pub(in crate::job) async fn publish(&mut self, sealed: Vec<Option<Sealed>>) -> Result<Manifest> {
        let mut primary = None;
        for (index, (replica, sealed)) in self.all.iter_mut().zip(sealed).enumerate() {
            let (true, Some(Sealed { manifest, signature })) = (replica.takes_part(), sealed) else {
                continue;
            };
            // Noted first, as in `put`.
            replica.written.push(Written::surely(manifest.id.key(MANIFEST_DIGEST)));
            if signature.is_some() {
                let key = Subject::manifest(&manifest.id).signature_key();
                replica.written.push(Written::surely(key));
            }
            let publishing = catalog::publish(&*replica.store, &manifest, signature.as_ref());
            // If the outcome is not known in time, nothing is discarded.
            let publishing = self.stop.in_time(publishing);
            let published = within(patience(index), async { Ok(publishing.await) }).await;
            let published = match published {
                Ok(Some(published)) => published,
                Ok(None) => Err(NotPublished::Unknown(self.stop.given_up("publishing the manifest"))),
                Err(late) => Err(NotPublished::Unknown(late)),
            };
            let error = match published {
                Ok(published) => {
                    replica.committed = true;
                    replica.manifest_sha256 = Some(published.sha256);
                    // The log keeps the value for --expect-manifest where a writer to the store cannot change it.
                    tracing::info!(
                        backup = %manifest.id,
                        store = replica.store.url(),
                        manifest_sha256 = hex::encode(published.sha256),
                        "the backup is committed"
                    );
                    if index == 0 {
                        primary = Some(manifest);
                    }
                    continue;
                }
                Err(NotPublished::Absent(error)) => error,
                // The files may be another run's, or a good backup, so they stay.
                Err(NotPublished::Taken(error) | NotPublished::Unknown(error)) => {
                    replica.written.clear();
                    error
                }
            };
            if index == 0 {
                return Err(error);
            }
            replica.drop_out(error, &self.stop).await;
        }
        primary.ok_or_else(|| Error::internal("the primary had no manifest to be put"))
    }

    /// After the commit: the newest backups get the tag `latest`, and the ones before them their tier. If this fails,
    /// the next run corrects it. A failure here never lets a backup expire that should stay.
    pub(in crate::job) async fn retag(&self, id: &BackupId, retention: &Retention) -> Vec<String> {
        let keep_last = &retention.keep_last;
        let mut warnings = Vec::new();
        let committed = self.all.iter().enumerate().filter(|(_, replica)| replica.committed);
        for (index, replica) in committed {
            let retagging = catalog::retag(&*replica.store, id.database(), *keep_last, id.timestamp());
            if let Err(error) = self
                .stop
                .or_give_up("tagging", within(patience(index), retagging))
                .await
            {
                warnings.push(format!(
                    "retention tags in {}: {}",
                    replica.store.url(),
                    error.message()
                ));
            }
            if let Some(lifecycle) = replica.store.lifecycle() {
                let asking = within(patience(index), other_rules(&*replica.store, lifecycle, retention));
                let told = self.stop.or_give_up("reading the lifecycle rules", asking).await;
                warnings.extend(told.ok().flatten());
            }
            let keeping = replica.store.lifecycle().map(Lifecycle::keeping);
            warnings.extend(keeping.and_then(|keeping| keeping.warning(replica.store.url())));
        }
        warnings
    }

    /// After the commit: a backup to which no other refers any more may expire.
    pub(in crate::job::backup) async fn release(&self, id: &BackupId, keep_last: usize) -> Vec<String> {
        let mut warnings = Vec::new();
        for (index, replica) in self.all.iter().enumerate().filter(|(_, replica)| replica.committed) {
            let releasing = catalog::release(&*replica.store, id.database(), keep_last, id.timestamp());
            let released = self
                .stop
                .or_give_up("tagging", within(patience(index), releasing))
                .await;
            let url = replica.store.url();
            warnings.extend(
                released
                    .err()
                    .map(|error| format!("retention tags in {url}: {}", error.message())),
            );
        }
        warnings
    }
}

/// A warning if the bucket's rules differ from this run's retention. A run may lack the right to read the rules.
async fn other_rules(store: &dyn Store, lifecycle: &dyn Lifecycle, retention: &Retention) -> Result<Option<String>> {
    if lifecycle.keeping().is_lost() {
        return Ok(None);
    }
    let url = store.url();
    let found = catalog::expiry(store, lifecycle, retention).await?;
    let other = other_times(retention, &found.installed);
    let told: Vec<String> = other
        .iter()
        .map(|(tier, is, wanted)| format!("{tier} backups after {}, not {wanted}", count(*is, "day")))
        .collect();
    if told.is_empty() || found.harms() {
        return Ok(found.warning(url, retention));
    }
    Ok(Some(format!(
        "this run's retention is {}, but the rules of {url} expire {}: `{}` makes them the same",
        retention.policy,
        told.join(", "),
        applying(url, retention)
    )))
}

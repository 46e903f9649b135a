//! The stores of one run: the primary, without which there is no backup, and the copies, each of which may fail alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use jiff::Timestamp;
use tokio::time::timeout;

use super::report::StoreReport;
use crate::dataflow::pipeline::{COPYS_PATIENCE, UploadOutcome, within};
use crate::error::{Code, Error, ErrorReport, Result};
use crate::postgres::ServerInfo;
use crate::repository::backup_id::{BackupId, BackupKind, MANIFEST_DIGEST};
use crate::repository::catalog::{self, Listed, NotPublished};
use crate::repository::lease::{Announced, Lease};
use crate::repository::leftovers::{self, Cleared};
use crate::repository::manifest::{Figures, Manifest, Predecessor};
use crate::repository::retention::{applying, other_times};
use crate::repository::signature::{KeyId, Signer, Subject};
use crate::run::stop::Stop;
use crate::settings::{Retention, StoreCreate};
use crate::store::conditions::put_where;
use crate::store::limits;
use crate::store::{Condition, Expected, Lifecycle, Mark, ObjectInfo, Put, Store, Stored, Upload, taken};
use crate::units::count;

/// How long a copy may take to complete its upload.
const COMPLETING: Duration = Duration::from_secs(120);

pub(in crate::job) struct Replicas {
    /// This is never empty; the first is the primary.
    all: Vec<Replica>,
    /// The key that signed the manifests.
    signed_by: Option<KeyId>,
    /// It limits the time for the clean-up.
    stop: Stop,
    /// The primary's last backup, its server, and the position in that server's log.
    last: Option<(BackupId, Option<String>, u64)>,
}

struct Replica {
    store: Arc<dyn Store>,
    /// Why this store takes no further part.
    failed: Option<Error>,
    /// Objects that this run made visible in it, for the clean-up.
    written: Vec<Written>,
    /// The marks of the uploads that were opened in it, by key.
    marks: BTreeMap<String, Mark>,
    committed: bool,
    /// The SHA-256 of the manifest that was published.
    manifest_sha256: Option<[u8; 32]>,
    /// The newest backup in it before this run.
    predecessor: Option<Predecessor>,
}

/// A key under which something was put.
struct Written {
    key: String,
    /// Set if it is unknown whether the upload was completed: the object belongs to this run if it came from that
    /// upload.
    perhaps: Option<Mark>,
}

impl Written {
    fn surely(key: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            perhaps: None,
        }
    }
}

/// Facts that a run compares with earlier backups.
pub(in crate::job) struct Looking<'a> {
    pub database: &'a str,
    pub server: &'a ServerInfo,
    /// Treat it as the same database, even if the server's identifiers differ.
    pub adopt: bool,
    pub create: StoreCreate,
    /// What the run makes.
    pub kind: BackupKind,
}

#[derive(Default)]
pub(in crate::job) struct Back {
    pub newest: Option<BackupId>,
    pub warnings: Vec<Error>,
}

impl Looking<'_> {
    /// Compares the server's system identifier, which only a standby shares with its primary. If one of the two is
    /// unknown, it compares the database's OID, which proves less.
    fn is_of_the_same(&self, last: &Figures, url: &str) -> Result<()> {
        let then = &last.server;
        let (what, before, now) = match (&then.system_identifier, &self.server.system_identifier) {
            (Some(before), Some(now)) => ("the system identifier", before.clone(), now.clone()),
            _ => match then.database_oid {
                Some(before) => (
                    "the database OID",
                    before.to_string(),
                    self.server.database_oid.to_string(),
                ),
                None => return Ok(()),
            },
        };
        if before == now || self.adopt {
            return Ok(());
        }
        Err(Error::new(
            Code::OtherDatabase,
            format!(
                "{url} holds backups of another database {:?}: {} was made on a server with {what} {before}, and this \
                 one has {now}",
                self.database, last.id
            ),
        )
        .hint(
            "two servers need two prefixes; if this is the same database after a restore, a logical copy or a major \
             upgrade, run one backup with --adopt",
        ))
    }
}

impl Looking<'_> {
    /// Warnings for people although the identifiers are the same.
    fn doubts(&self, last: &Figures) -> Vec<Error> {
        let mut doubts = Vec::new();
        let then = &last.server;
        if self.adopt && self.is_known(last) {
            doubts.push(
                Error::new(
                    Code::OtherDatabase,
                    "--adopt (BACKUP_ADOPT) is set, but there is nothing to adopt: the last backup is of this server",
                )
                .hint("give it for one backup only: while it is set, pgstow does not notice another server's database"),
            );
        }
        if let (Some(before), now) = (then.database_oid, self.server.database_oid)
            && before != now
            && !self.adopt
        {
            doubts.push(
                Error::new(
                    Code::OtherDatabase,
                    format!(
                        "{} was made of a database {:?} with the OID {before}, but this one has {now}: it was dropped and \
                         created again, or renamed",
                        last.id, self.database
                    ),
                )
                .hint("if that was not a restore, check whether this is the database that you mean"),
            );
        }
        doubts
    }

    fn is_known(&self, last: &Figures) -> bool {
        let then = &last.server;
        then.system_identifier == self.server.system_identifier && then.database_oid == Some(self.server.database_oid)
    }
}

/// A position in the log, from the text that PostgreSQL prints.
fn position(lsn: &str) -> Option<u64> {
    let (high, low) = lsn.split_once('/')?;
    let half = |text: &str| u32::from_str_radix(text, 16).ok();
    Some(u64::from(half(high)?) << 32 | u64::from(half(low)?))
}

fn lost(url: &str, database: &str) -> Error {
    Error::new(
        Code::Enoent,
        format!("{url} has no backup of {database:?}, but the manifests in the other stores say that it had some"),
    )
    .hint("mount its disk, or find out who emptied it; to start anew there, run one backup with --store-create always")
}

/// A store's manifest, ready to be put.
pub(in crate::job) struct Sealed {
    manifest: Manifest,
    signature: Option<Bytes>,
}

impl Replica {
    fn takes_part(&self) -> bool {
        self.failed.is_none()
    }

    fn may_hold(&mut self, key: &str) {
        self.written.extend(self.marks.get(key).map(|mark| Written {
            key: key.to_owned(),
            perhaps: Some(mark.clone()),
        }));
    }

    /// Leaves this copy out of the rest of the run, and removes this run's objects from it.
    async fn drop_out(&mut self, error: Error, stop: &Stop) {
        let discarding = discard(&*self.store, std::mem::take(&mut self.written), stop);
        let discarded = within(Some(COPYS_PATIENCE), async { Ok(discarding.await) }).await;
        let failed = discarded.unwrap_or_else(|late| vec![late]);
        self.failed = Some(failed.into_iter().fold(error, Error::also));
    }
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
            all.push(Replica {
                store: Arc::clone(store),
                failed,
                written: Vec::new(),
                marks: BTreeMap::new(),
                committed: false,
                manifest_sha256: None,
                predecessor: None,
            });
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

    /// Looks at the backups of the database that each store already holds. Returns the newest folder of all stores.
    ///
    /// If a store holds backups of another server's database with this name, that store fails: the run if it is the
    /// primary, else only the copy. The same holds for a folder store that should have backups and has none.
    pub(in crate::job) async fn look_back(&mut self, listed: &[Listed], now: Timestamp, ours: &Looking<'_>) -> Result<Back> {
        let mut back = Back::default();
        let mut told: Vec<String> = Vec::new();
        let mut empty = Vec::new();
        for (index, replica) in self.all.iter_mut().enumerate() {
            if !replica.takes_part() {
                continue;
            }
            let copied = if index == 0 {
                None
            } else {
                let listing = catalog::backups(&*replica.store, Some(ours.database));
                match within(patience(index), listing).await {
                    Ok(listed) => Some(listed),
                    Err(error) => {
                        replica.drop_out(error, &self.stop).await;
                        continue;
                    }
                }
            };
            let looking = catalog::before(&*replica.store, copied.as_deref().unwrap_or(listed), ours.kind, now);
            let before = match within(patience(index), looking).await {
                Ok(before) => before,
                Err(error) if index == 0 => return Err(error),
                Err(error) => {
                    replica.drop_out(error, &self.stop).await;
                    continue;
                }
            };
            if let Some(error) = &before.unread {
                back.warnings.push(Error::new(
                    error.code(),
                    format!("a manifest was skipped: {}", error.message()),
                ));
            }
            if let Some(last) = &before.last {
                if let Err(error) = ours.is_of_the_same(last, replica.store.url()) {
                    if index == 0 {
                        return Err(error);
                    }
                    replica.drop_out(error, &self.stop).await;
                    continue;
                }
                if index == 0 {
                    back.warnings.extend(ours.doubts(last));
                    let lsn = last.snapshot.lsn.as_deref().and_then(position);
                    self.last = lsn.map(|lsn| (last.id.clone(), last.server.system_identifier.clone(), lsn));
                }
            }
            match before.last {
                Some(last) => told.extend(last.stores),
                None => empty.push(index),
            }
            back.newest = back.newest.max(before.newest);
            replica.predecessor = before.predecessor;
        }
        for index in empty {
            let replica = &mut self.all[index];
            let url = replica.store.url().to_owned();
            let may_be_lost = replica.store.lifecycle().is_none() && ours.create != StoreCreate::Always;
            if !may_be_lost || !told.contains(&url) {
                continue;
            }
            let error = lost(&url, ours.database);
            if index == 0 {
                return Err(error);
            }
            replica.drop_out(error, &self.stop).await;
        }
        Ok(back)
    }

    /// A warning if the server's log is behind the position at the last backup. Then it is another server: a copy of
    /// the disk keeps the identifier of its original.
    pub(in crate::job) fn gone_back(&self, server: &ServerInfo, lsn: Option<&str>) -> Option<String> {
        let (last, of, before) = self.last.as_ref()?;
        let now = position(lsn?)?;
        (server.system_identifier.is_some() && *of == server.system_identifier && now < *before).then(|| {
            format!(
                "the server's log is at {}, but was further when {last} was made: this server is a copy of that one's disk, \
                 was restored to an earlier time, or is a standby that lags; if it is a copy, give it a prefix of its own",
                lsn.unwrap_or_default()
            )
        })
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

    /// One upload per store that takes part, the primary's first.
    pub(in crate::job) async fn open(&mut self, key: &str, info: &ObjectInfo) -> Result<Vec<Box<dyn Upload>>> {
        let mut uploads = Vec::new();
        for (index, replica) in self
            .all
            .iter_mut()
            .enumerate()
            .filter(|(_, replica)| replica.takes_part())
        {
            match within(patience(index), replica.store.upload(key, info)).await {
                Ok(upload) => {
                    replica.marks.insert(key.to_owned(), upload.mark());
                    uploads.push(upload);
                }
                Err(error) if index == 0 => return Err(error),
                Err(error) => replica.drop_out(error, &self.stop).await,
            }
        }
        Ok(uploads)
    }

    /// Completes the open uploads, in the order of [`Replicas::open`]. The receipts are in the order of the stores.
    pub(in crate::job) async fn complete(
        &mut self,
        key: &str,
        copies: Vec<UploadOutcome>,
        expected: &Expected,
    ) -> Result<Vec<Option<Stored>>> {
        let mut copies = copies.into_iter();
        let mut receipts = Vec::new();
        let mut failure: Option<Error> = None;
        for (index, replica) in self.all.iter_mut().enumerate() {
            if !replica.takes_part() {
                receipts.push(None);
                continue;
            }
            let Some(copy) = copies.next() else {
                return Err(Error::internal("fewer uploads than stores"));
            };
            let completed = match (copy, failure.take()) {
                // If the primary fails, the copies are aborted.
                (Ok(upload), Some(error)) => {
                    failure = Some(error.with_clean_up(upload.abort().await));
                    continue;
                }
                (Err(_), Some(error)) => {
                    failure = Some(error);
                    continue;
                }
                (Ok(upload), None) => within(completions_patience(index), upload.complete(expected)).await,
                (Err(error), None) => Err(error),
            };
            match completed {
                Ok(stored) => {
                    replica.written.push(Written::surely(key));
                    receipts.push(Some(stored));
                }
                Err(error) if index == 0 => failure = Some(error),
                Err(error) => {
                    // The store may still have completed it, or complete it later.
                    replica.may_hold(key);
                    replica.drop_out(error, &self.stop).await;
                    receipts.push(None);
                }
            }
        }
        failure.map_or(Ok(receipts), Err)
    }

    /// Completing was interrupted: the store may have completed the upload.
    pub(in crate::job) fn may_hold(&mut self, key: &str) {
        for replica in self.all.iter_mut().filter(|replica| replica.takes_part()) {
            replica.may_hold(key);
        }
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

/// The limit for one step in a store. The primary needs none: its own limits end the backup.
fn patience(index: usize) -> Option<Duration> {
    (index > 0).then_some(COPYS_PATIENCE)
}

/// The limit for completing an upload: even a good store takes long to join thousands of parts.
fn completions_patience(index: usize) -> Option<Duration> {
    (index > 0).then_some(COMPLETING)
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

/// Discards all at once, so that a failing store is awaited once, not once per file. Returns the failures.
async fn discard(store: &dyn Store, written: Vec<Written>, stop: &Stop) -> Vec<Error> {
    let discard = async |one: &Written| match &one.perhaps {
        Some(mark) if !store.came_from(&one.key, mark).await? => Ok(()),
        _ => store.discard(&one.key).await,
    };
    let discarding = written
        .iter()
        .map(|one| stop.or_give_up("giving up what was stored", discard(one)));
    join_all(discarding).await.into_iter().filter_map(Result::err).collect()
}

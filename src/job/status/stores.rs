//! The state of one store.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorReport};
use crate::repository::backup_id::{BackupId, BackupKind, database_folder};
use crate::repository::catalog::{
    self, Expiry, ExpiryFinding, Listed, Newest, Overview, databases, expiry, keeps_no_tags, overviews,
    reachable_folders,
};
use crate::repository::lease::{self, LeaseState};
use crate::repository::retention::{Retention, Rule};
use crate::repository::signature::{SignatureState, Trust};
use crate::store::{Lifecycle, Space, Store};

#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct StoreStatus {
    pub url: String,
    pub reachable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
    /// Backups with a manifest, good or not.
    pub backups: u64,
    /// The size of these backups.
    pub bytes: u64,
    /// The disk of a folder store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<Space>,
    /// The lifecycle rules of a bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<Drift>,
    /// Leases that are held, or were never released.
    pub leases: Vec<LeaseStatus>,
    pub uploads_in_progress: Vec<UploadStatus>,
    /// Backups that lack files.
    pub incomplete: Vec<Incomplete>,
    /// Manifests and verifications that cannot be used.
    pub broken: Vec<BrokenBackup>,
    /// The signature of each backup's manifest, newest first, if signatures are required.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<Signature>,
    /// Folders without a manifest, which runs left or are writing.
    pub left_overs: Vec<LeftOverBackup>,
    /// Facts that could not be read, with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
}

/// The difference between the bucket's lifecycle rules and those for the policy.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Drift {
    None,
    /// The store keeps no tags, which the rules need: prune must remove backups.
    NoTags,
    /// The bucket has none of pgstow's rules.
    NotInstalled,
    Drifted {
        /// Ids of rules.
        missing: Vec<String>,
        different: Vec<String>,
    },
    /// pgstow's rules are right, but other rules expire backups at other times.
    Overruled {
        /// Ids of those other rules.
        by: Vec<String>,
    },
}

#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct LeaseStatus {
    pub database: String,
    /// The kind of backup that is made while it is held.
    #[serde(default, rename = "type")]
    pub kind: BackupKind,
    #[serde(flatten)]
    pub seen: LeaseState,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct UploadStatus {
    pub key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Incomplete {
    pub id: BackupId,
    pub lacks: Vec<String>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct BrokenBackup {
    pub id: BackupId,
    pub problem: String,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Signature {
    pub id: BackupId,
    pub signature: SignatureState,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct LeftOverBackup {
    pub id: BackupId,
    pub bytes: u64,
}

/// A store's report, and further facts for the judgement.
pub(super) struct SeenStore {
    pub status: StoreStatus,
    /// Newest first.
    pub backups: Vec<Overview>,
    pub has_lifecycle: bool,
    /// Set if the bucket's rules do not do what the retention wants.
    pub expiry: Option<ExpiryFinding>,
    /// Objects in the place of a lease that are no leases: they prevent backups.
    pub not_leases: Vec<Error>,
    /// Databases with backups here, if the database that was asked for has none.
    pub others: Vec<String>,
}

pub(super) async fn look(
    store: &dyn Store,
    database: Option<&str>,
    retention: &Retention,
    trust: &Trust,
    now: Timestamp,
) -> SeenStore {
    let mut looked = SeenStore {
        status: StoreStatus::of(store.url()),
        backups: Vec::new(),
        has_lifecycle: store.lifecycle().is_some(),
        expiry: None,
        not_leases: Vec::new(),
        others: Vec::new(),
    };
    match backups(store, database, trust).await {
        Ok((left_overs, backups)) => looked.take(&left_overs, backups),
        Err(error) => {
            looked.status.reachable = false;
            looked.status.error = Some(ErrorReport::from(&error));
            return looked;
        }
    }
    if database.is_some() && looked.backups.is_empty() {
        // They are only for a sentence, which is shorter without them.
        let all = catalog::backups(store, None).await.unwrap_or_default();
        looked.others = catalog::with_backups(&all).into_iter().map(str::to_owned).collect();
    }
    match store.space().await {
        Ok(space) => looked.status.disk = space,
        Err(error) => looked.cannot_see("the disk", &error),
    }
    if let Some(lifecycle) = store.lifecycle() {
        looked.look_at_rules(store, lifecycle, retention).await;
    }
    looked.look_at_leases(store, database, now).await;
    let prefix = database.map_or(String::new(), database_folder);
    match store.unfinished(&prefix).await {
        Ok(unfinished) => {
            let ours = unfinished.into_iter().filter(|one| {
                BackupId::of_key(&one.key).is_some()
                    || one.key.ends_with("/.lease")
                    || one.key.ends_with("/.lease-incremental")
            });
            let uploads = ours.map(|one| UploadStatus {
                key: one.key,
                started: one.started,
            });
            looked.status.uploads_in_progress = uploads.collect();
        }
        Err(error) => looked.cannot_see("uploads in progress", &error),
    }
    looked
}

async fn backups(
    store: &dyn Store,
    database: Option<&str>,
    trust: &Trust,
) -> crate::error::Result<(Vec<Listed>, Vec<Overview>)> {
    let listed = reachable_folders(store, database).await?;
    let (finished, left_overs) = listed.into_iter().partition(|one: &Listed| one.has_manifest);
    Ok((left_overs, overviews(store, finished, trust).await?))
}

fn drift(found: &Expiry, is_otherwise: bool) -> Drift {
    match compare(&found.installed, &found.wanted) {
        Drift::None if is_otherwise => {
            let others = found.installed.iter().filter(|rule| !found.wanted.contains(rule));
            let others = others.map(|rule| rule.id.clone());
            Drift::Overruled {
                by: found.foreign.iter().cloned().chain(others).collect(),
            }
        }
        drift => drift,
    }
}

/// Compares the text of the rules. For their effect, see [`Expiry`], which `doctor` also uses.
fn compare(installed: &[Rule], wanted: &[Rule]) -> Drift {
    if installed.is_empty() {
        return Drift::NotInstalled;
    }
    let ids = |rules: Vec<&Rule>| rules.into_iter().map(|rule| rule.id.clone()).collect::<Vec<_>>();
    let off = wanted.iter().filter(|rule| !installed.contains(rule));
    let (different, missing): (Vec<&Rule>, Vec<&Rule>) =
        off.partition(|rule| installed.iter().any(|there| there.id == rule.id));
    if missing.is_empty() && different.is_empty() {
        Drift::None
    } else {
        Drift::Drifted {
            missing: ids(missing),
            different: ids(different),
        }
    }
}

impl StoreStatus {
    fn of(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            reachable: true,
            error: None,
            backups: 0,
            bytes: 0,
            disk: None,
            lifecycle: None,
            leases: Vec::new(),
            uploads_in_progress: Vec::new(),
            incomplete: Vec::new(),
            broken: Vec::new(),
            signatures: Vec::new(),
            left_overs: Vec::new(),
            unknown: Vec::new(),
        }
    }
}

impl SeenStore {
    fn cannot_see(&mut self, what: &str, error: &Error) {
        self.status.unknown.push(format!("{what}: {error}"));
    }

    fn take(&mut self, left_overs: &[Listed], backups: Vec<Overview>) {
        let status = &mut self.status;
        status.backups = backups.len() as u64;
        status.bytes = backups.iter().map(|one| one.listed.bytes()).sum();
        status.left_overs = left_overs
            .iter()
            .filter(|one| one.is_left_over())
            .map(|one| LeftOverBackup {
                id: one.id.clone(),
                bytes: one.bytes(),
            })
            .collect();
        for overview in &backups {
            let id = overview.id();
            for problem in overview.flaw().into_iter().chain(overview.unverifiable.clone()) {
                status.broken.push(BrokenBackup {
                    id: id.clone(),
                    problem,
                });
            }
            if let Some(signature) = &overview.signature {
                status.signatures.push(Signature {
                    id: id.clone(),
                    signature: signature.clone(),
                });
            }
            if !overview.lacks.is_empty() {
                status.incomplete.push(Incomplete {
                    id: id.clone(),
                    lacks: overview.lacks.clone(),
                });
            }
        }
        self.backups = backups;
    }

    async fn look_at_rules(&mut self, store: &dyn Store, lifecycle: &dyn Lifecycle, retention: &Retention) {
        let newest = self.backups.first().map(|backup| Newest::of(backup, store.url()));
        if keeps_no_tags(lifecycle, newest.as_ref()).await {
            self.has_lifecycle = false;
            self.status.lifecycle = Some(Drift::NoTags);
            return;
        }
        match expiry(store, lifecycle, retention).await {
            Ok(found) => {
                self.expiry = found.finding(store.url(), retention);
                self.status.lifecycle = Some(drift(&found, self.expiry.is_some()));
                self.status.unknown.extend(found.unsure);
            }
            Err(error) => self.cannot_see("the lifecycle rules", &error),
        }
    }

    /// Reads the leases of every database with a folder, because a first run may have made nothing else.
    async fn look_at_leases(&mut self, store: &dyn Store, database: Option<&str>, now: Timestamp) {
        let names = match database {
            Some(database) => Ok(vec![database.to_owned()]),
            None => databases(store).await,
        };
        let names = match names {
            Ok(names) => names,
            Err(error) => return self.cannot_see("leases", &error),
        };
        let kinds = [BackupKind::Full, BackupKind::Incremental];
        for (database, kind) in names.iter().flat_map(|name| kinds.map(|kind| (name, kind))) {
            match lease::look_for(store, database, kind, now).await {
                Ok(LeaseState::Free) => {}
                Ok(seen) => self.status.leases.push(LeaseStatus {
                    database: database.clone(),
                    kind,
                    seen,
                }),
                Err(error) if error.code() == crate::error::Code::Busy => self.not_leases.push(error),
                Err(error) => self.cannot_see("a lease", &error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::retention::{Policy, Tier, rules};

    #[test]
    fn drift_names_the_rules_that_are_missing_or_different() {
        let policy = Policy::Tiers(vec![(Tier::Daily, 7), (Tier::Weekly, 4)]);
        let wanted = rules(&Retention::of(policy), "pg/");
        assert_eq!(compare(&[], &wanted), Drift::NotInstalled);
        assert_eq!(compare(&wanted, &wanted), Drift::None);
        let mut installed = wanted.clone();
        let gone = installed.pop().unwrap().id;
        installed[0].expire_days = Some(1);
        assert_eq!(
            compare(&installed, &wanted),
            Drift::Drifted {
                missing: vec![gone],
                different: vec![wanted[0].id.clone()],
            }
        );
    }
}

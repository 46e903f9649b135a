//! `retention show` and `retention apply`: print or install the bucket's lifecycle rules for the policy.

mod report;

use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Code, Error, Result};
use crate::repository::catalog::backups;
use crate::repository::retention::{PENDING, Rule, TIER_TAG, rules, rules_after, rules_json};
use crate::settings::Settings;
use crate::store::{Lifecycle, ObjectInfo, Store, TagKeeping};

pub use report::{Applied, RulesReport};

/// The object with which pgstow tests whether a store keeps tags.
const PROBE: &str = ".pgstow-tags";

/// The rules as `aws s3api put-bucket-lifecycle-configuration` takes them. Reads no bucket: the output is what `apply`
/// would install in the first bucket of the settings if that had no rules of pgstow's yet. (`apply` keeps the rules of
/// tiers that an older policy had.)
pub fn show(settings: &Settings, stores: &[Arc<dyn Store>]) -> Result<RulesReport> {
    let (_, first) = with_lifecycle(stores)?[0];
    Ok(RulesReport {
        rules: rules_json(&rules(&settings.retention, first.prefix())),
        applied: Vec::new(),
    })
}

/// Installs the rules in every bucket of the settings, and reads them back: if a store accepted rules and did not keep
/// them, backups would never expire, or too early. Reports the rules of the first bucket.
pub async fn apply(settings: &Settings, stores: &[Arc<dyn Store>]) -> Result<RulesReport> {
    let mut report = RulesReport::default();
    let stores = with_lifecycle(stores)?;
    // Check all buckets first, so that a refusal changes nothing.
    for &(store, lifecycle) in &stores {
        goes_by_tags(store, lifecycle, stores.len()).await?;
    }
    for (store, lifecycle) in stores {
        let before = lifecycle.rules().await?;
        let wanted = rules_after(&settings.retention, lifecycle.prefix(), &before.ours);
        // This also reads them back.
        lifecycle.install_rules(&wanted).await?;
        if report.applied.is_empty() {
            report.rules = rules_json(&wanted);
        }
        let replaced = |rule: &&Rule| wanted.iter().any(|new| new.id == rule.id);
        let foreign = before.foreign.iter().filter(|rule| !replaced(rule));
        report.applied.push(Applied {
            store: store.url().to_owned(),
            installed: wanted.len(),
            foreign: foreign.map(|rule| rule.id.clone()).collect(),
        });
    }
    Ok(report)
}

fn with_lifecycle(stores: &[Arc<dyn Store>]) -> Result<Vec<(&dyn Store, &dyn Lifecycle)>> {
    let found: Vec<_> = stores
        .iter()
        .filter_map(|store| store.lifecycle().map(|lifecycle| (&**store, lifecycle)))
        .collect();
    if found.is_empty() {
        return Err(
            Error::config("--store names no bucket: only S3 stores have lifecycle rules")
                .hint("remove old backups in a folder with `pgstow prune`"),
        );
    }
    Ok(found)
}

/// An error if the store keeps no tags: rules that depend on tags would do nothing. `stores` is the number of stores.
async fn goes_by_tags(store: &dyn Store, lifecycle: &dyn Lifecycle, stores: usize) -> Result<()> {
    find_out(store, lifecycle).await;
    let (keeping, url) = (lifecycle.keeping(), store.url());
    if !keeping.is_lost() {
        return Ok(());
    }
    let nothing = "but pgstow's lifecycle rules depend on tags, so they would expire nothing";
    let error = match keeping.shown() {
        Some(does) => Error::new(Code::Store, format!("{url} {does}, {nothing}: none was installed")),
        None => Error::config(format!("BACKUP_S3_TAGGING=off: {url} gets no tags, {nothing}")),
    };
    let others = match stores {
        1 => "",
        _ => "; name only the other stores (--store) to install their rules",
    };
    Err(error.hint(format!(
        "apply the retention there with `pgstow prune --allow-delete` after the backups{others}"
    )))
}

/// Finds out whether the store keeps tags: from the tags of the newest backup, or from the answer about an object that
/// does not exist. If pgstow may not ask, that stays unknown.
async fn find_out(store: &dyn Store, lifecycle: &dyn Lifecycle) {
    let is_open = || lifecycle.keeping() == TagKeeping::Unknown;
    if !is_open() {
        return;
    }
    let Ok(listed) = backups(store, None).await else {
        return;
    };
    let finished = listed.iter().filter(|one| one.has_manifest);
    let newest = finished.max_by_key(|one| one.id.timestamp());
    let key = newest.map_or_else(|| PROBE.to_owned(), |one| one.id.manifest_key());
    let asked = lifecycle.tags(&key).await;
    // A backup without tags was made without them, or the store forgot them.
    if is_open() && asked.is_ok_and(|tags| tags.is_some_and(|tags| tags.is_empty())) {
        tag_a_probe(store, lifecycle).await;
    }
}

/// Afterwards the store's state of tags is known. The probe expires by its tag if it cannot be deleted.
async fn tag_a_probe(store: &dyn Store, lifecycle: &dyn Lifecycle) {
    let object = ObjectInfo {
        content_type: "text/plain",
        tags: vec![(TIER_TAG.to_owned(), PENDING.to_owned())],
        replace: true,
        ..ObjectInfo::default()
    };
    let body = Bytes::from_static(b"a probe of pgstow retention apply\n");
    if store.put(PROBE, body, &object).await.is_ok() {
        let _ = lifecycle.set_tags(PROBE, &object.tags).await;
        let _ = lifecycle.try_delete(PROBE).await;
    }
}

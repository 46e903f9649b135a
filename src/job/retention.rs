//! `retention show` and `retention apply`: the bucket's lifecycle rules that follow from the
//! policy, printed or installed.

mod report;

use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Code, Error, Result};
use crate::repository::catalog::backups;
use crate::repository::retention::{PENDING, Rule, TIER_TAG, rules, rules_after, rules_json};
use crate::settings::Settings;
use crate::store::{Condition, Lifecycle, ObjectInfo, Store, TagKeeping};

pub use report::{Applied, RulesReport};

/// An object by which a store shows whether it keeps tags.
const PROBE: &str = ".pgstow-tags";

/// The rules as `aws s3api put-bucket-lifecycle-configuration` takes them. Asks nobody: what is
/// printed is what `apply` would install in the first bucket of the settings if it had no rules
/// of ours yet. (Those of tiers that an older policy had would stay.)
pub fn show(settings: &Settings, stores: &[Arc<dyn Store>]) -> Result<RulesReport> {
    let (_, first) = with_lifecycle(stores)?[0];
    Ok(RulesReport {
        rules: rules_json(&rules(&settings.retention.policy, first.prefix())),
        applied: Vec::new(),
    })
}

/// Installs the rules in every bucket of the settings, and reads them back: a store that accepts
/// rules and does not keep them would let backups pile up, or go. Reports the first bucket's rules.
pub async fn apply(settings: &Settings, stores: &[Arc<dyn Store>]) -> Result<RulesReport> {
    let mut report = RulesReport::default();
    let stores = with_lifecycle(stores)?;
    // All of them first: what is refused has changed nothing.
    for &(store, lifecycle) in &stores {
        goes_by_tags(store, lifecycle, stores.len()).await?;
    }
    for (store, lifecycle) in stores {
        let before = lifecycle.rules().await?;
        let wanted = rules_after(&settings.retention.policy, lifecycle.prefix(), &before.ours);
        // It reads them back itself.
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
                .hint("in a folder old backups are removed by `pgstow prune`"),
        );
    }
    Ok(found)
}

/// Rules that go by tags do nothing where there are none. `stores` is how many are named.
async fn goes_by_tags(store: &dyn Store, lifecycle: &dyn Lifecycle, stores: usize) -> Result<()> {
    find_out(store, lifecycle).await;
    let (keeping, url) = (lifecycle.keeping(), store.url());
    if !keeping.is_lost() {
        return Ok(());
    }
    let nothing = "by which pgstow's lifecycle rules go, so they would expire nothing";
    let error = match keeping.shown() {
        Some(does) => Error::new(Code::Store, format!("{url} {does}, {nothing}: none was installed")),
        None => Error::config(format!("BACKUP_S3_TAGGING=off: {url} gets no tags, {nothing}")),
    };
    let others = match stores {
        1 => "",
        _ => "; name the other stores alone (--store) to install their rules",
    };
    Err(error.hint(format!(
        "apply the retention there with `pgstow prune --allow-delete` after the backups{others}"
    )))
}

/// Lets the store show whether it keeps tags, by those of the newest backup, or by what it says of an object that is not
/// there. What may not be asked stays unknown.
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
    // A backup without tags was made without, or the store has forgotten them.
    if is_open() && asked.is_ok_and(|tags| tags.is_some_and(|tags| tags.is_empty())) {
        tag_a_probe(store, lifecycle).await;
    }
}

/// What it shows is known to the store then. The probe expires by its tag where it cannot be deleted.
async fn tag_a_probe(store: &dyn Store, lifecycle: &dyn Lifecycle) {
    let object = ObjectInfo {
        content_type: "text/plain",
        tags: vec![(TIER_TAG.to_owned(), PENDING.to_owned())],
        replace: true,
        ..ObjectInfo::default()
    };
    let body = Bytes::from_static(b"a probe of pgstow retention apply\n");
    if store.put(PROBE, body, &object, Condition::Always).await.is_ok() {
        let _ = lifecycle.set_tags(PROBE, &object.tags).await;
        let _ = lifecycle.try_delete(PROBE).await;
    }
}

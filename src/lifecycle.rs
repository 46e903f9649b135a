//! `retention show` and `retention apply`: the bucket's lifecycle rules that follow from the
//! policy, printed or installed.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::report::{Applied, RulesReport};
use crate::retention::{Rule, rules, rules_after, rules_json};
use crate::settings::Settings;
use crate::store::{Lifecycle, Store};

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
    for (store, lifecycle) in with_lifecycle(stores)? {
        goes_by_tags(store, lifecycle)?;
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

/// Rules that go by tags do nothing where there are none.
fn goes_by_tags(store: &dyn Store, lifecycle: &dyn Lifecycle) -> Result<()> {
    if !lifecycle.keeping().is_lost() {
        return Ok(());
    }
    let what = format!(
        "BACKUP_S3_TAGGING=off: {} gets no tags, by which pgstow's lifecycle rules go, so they would expire nothing",
        store.url()
    );
    Err(Error::config(what).hint("apply the retention there with `pgstow prune --allow-delete` after the backups"))
}

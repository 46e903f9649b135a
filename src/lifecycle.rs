//! `retention show` and `retention apply`: the bucket's lifecycle rules that follow from the
//! policy, printed or installed.

use std::sync::Arc;

use crate::error::{Code, Error, Result};
use crate::report::{Applied, RulesReport};
use crate::retention::{rules, rules_after, rules_json};
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
        let before = lifecycle.rules().await?.ours;
        let wanted = rules_after(&settings.retention.policy, lifecycle.prefix(), &before);
        lifecycle.install_rules(&wanted).await?;
        let found = lifecycle.rules().await?;
        if !wanted.iter().all(|rule| found.ours.contains(rule)) || found.ours.len() != wanted.len() {
            return Err(Error::new(
                Code::Store,
                format!("{} took the lifecycle rules, and shows others when asked", store.url()),
            )
            .hint("compare `pgstow retention show` with the bucket's lifecycle configuration"));
        }
        if report.applied.is_empty() {
            report.rules = rules_json(&wanted);
        }
        report.applied.push(Applied {
            store: store.url().to_owned(),
            installed: wanted.len(),
            foreign: found.foreign.into_iter().map(|rule| rule.id).collect(),
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

//! `incremental status`: whether the stream is well, and who is affected if it is not.

use std::time::Duration;

use jiff::Timestamp;

use super::readiness::{Problem, ProblemKind, problems_of, warnings};
use super::report::{LastIncrement, StatusOfStream};
use super::tables::CoveredTables;
use super::{Job, name};
use crate::error::Result;
use crate::job::status::Judgement;
use crate::postgres::{OldestTransaction, Session, Slot, SlotName};
use crate::repository::backup_id::{BackupId, BackupKind, age};
use crate::repository::catalog::{self, Demand, read_genuine};
use crate::units::{human_bytes, human_span};

/// The share of the allowed log that must be left.
const LEAST_LEFT: f64 = 0.3;
/// A transaction of this age keeps the slot's log, and every new table waiting.
const OLD_TRANSACTION: u64 = 3600;
/// A slot's `catalog_xmin` of this age keeps VACUUM from the catalogs.
const OLD_CATALOG: u64 = 100_000_000;

pub(super) async fn look(job: &Job<'_>, session: &Session) -> Result<StatusOfStream> {
    let name = name(job, session)?;
    let decoding = session.decoding().await?;
    let slot = session.slot(&name).await?;
    let publications = session.publications(&name).await?;
    let catalog = session.table_catalog().await?;
    let is_started = slot.is_some() || !publications.existing.is_empty();
    let published = match is_started {
        true => publications.listing.published(&catalog),
        false => catalog.published_after_start(),
    };
    let tables = CoveredTables::of(&catalog, &published);
    let oldest = session.oldest_transaction().await?;
    let others = session.streams().await?.into_iter().filter(|other| *other != name);
    let last = newest(job, session).await;
    let mut problems = Vec::new();
    if is_started {
        problems.extend(of_slot(&name, slot.as_ref(), decoding.most_kept_bytes));
        if !publications.are_complete() {
            problems.push(
                "a publication is missing, so the stream cannot be read: run `pgstow incremental start`".to_owned(),
            );
        }
        problems.extend(of_tables(&tables));
        problems.extend(of_last(&last, job.settings.incremental_max_age));
        problems.extend(oldest.as_ref().and_then(of_oldest));
        problems.extend(refused(&problems_of(session, &decoding, slot.is_some())));
    }
    Ok(StatusOfStream {
        status: match problems.is_empty() {
            true => Judgement::Ok,
            false => Judgement::Attention,
        },
        problems,
        started: is_started,
        warnings: match is_started {
            true => warnings(&problems_of(session, &decoding, true)),
            false => Vec::new(),
        },
        name: name.to_string(),
        publications: publications
            .existing
            .keys()
            .map(|kind| name.publication(*kind))
            .collect(),
        slot,
        last: last.ok().flatten(),
        oldest_transaction: oldest.map(|oldest| oldest.to_string()),
        tables,
        others: others.map(|other| other.to_string()).collect(),
    })
}

fn of_slot(name: &SlotName, slot: Option<&Slot>, most_kept: Option<u64>) -> Vec<String> {
    let Some(slot) = slot else {
        return vec![format!(
            "the slot {name} is missing: the next increment makes a new one, and a full backup"
        )];
    };
    let mut problems = Vec::new();
    if slot.is_lost() {
        let why = slot.invalidation.as_deref().unwrap_or("its log is gone");
        problems.push(format!(
            "the server has given the slot up ({why}): the next increment makes a new one, and a full backup"
        ));
    } else if let (Some(left), Some(most)) = (slot.safe_bytes, most_kept.filter(|most| *most > 0))
        && (left as f64) < LEAST_LEFT * most as f64
    {
        problems.push(format!(
            "the slot is lost after {} more of log, of {} allowed: make an increment now, or raise max_slot_wal_keep_size",
            human_bytes(left),
            human_bytes(most)
        ));
    }
    if slot.catalog_age.is_some_and(|age| age > OLD_CATALOG) {
        problems.push("the slot keeps VACUUM from cleaning the system's catalogs: make an increment now".into());
    }
    problems
}

fn of_last(last: &Result<Option<LastIncrement>>, max_age: Duration) -> Option<String> {
    let most = i64::try_from(max_age.as_secs()).unwrap_or(i64::MAX);
    match last {
        Err(error) => Some(format!("the store cannot be read: {}", error.message())),
        Ok(Some(last)) if last.age_seconds > most => Some(format!(
            "the last increment ends {} ago: run `pgstow backup --kind incremental`",
            human_span(last.age_seconds)
        )),
        Ok(_) => None,
    }
}

fn of_oldest(oldest: &OldestTransaction) -> Option<String> {
    let is_old = oldest.age.is_some_and(|age| age.as_secs() > OLD_TRANSACTION);
    is_old.then(|| format!("a transaction has been open for more than an hour, so the server keeps its log: {oldest}"))
}

/// What a start refuses: it was accepted once, or has changed since.
fn refused(found: &[Problem]) -> impl Iterator<Item = String> {
    let refused = found
        .iter()
        .filter(|problem| matches!(problem.kind, ProblemKind::Refuses(_)));
    refused.map(|problem| format!("{}: {}", problem.what, problem.hint))
}

fn of_tables(tables: &CoveredTables) -> Vec<String> {
    let named = |table: &super::TableState| format!("{}.{}", table.schema, table.name);
    let breaking = tables.breaking.iter().map(|table| {
        format!(
            "UPDATE and DELETE of {} fail, because it is published and {}: make an increment, or run `pgstow incremental \
             start`, which takes it out",
            named(table),
            table.why
        )
    });
    let waiting = tables
        .waiting
        .iter()
        .map(|table| format!("{}: {}", named(table), table.why));
    breaking.chain(waiting.take(5)).collect()
}

/// The newest increment of this database in the primary store.
pub(super) async fn newest(job: &Job<'_>, session: &Session) -> Result<Option<LastIncrement>> {
    let Some(store) = job.stores.first() else {
        return Ok(None);
    };
    let listed = catalog::backups(&**store, Some(&session.server().database)).await?;
    let newest = listed
        .iter()
        .find(|one| one.has_manifest && one.id.kind() == BackupKind::Incremental);
    let Some(newest) = newest else { return Ok(None) };
    read_last(job, &**store, &newest.id, (job.clock)()).await
}

async fn read_last(
    job: &Job<'_>,
    store: &dyn crate::store::Store,
    id: &BackupId,
    now: Timestamp,
) -> Result<Option<LastIncrement>> {
    let Some(trust) = job.trust else { return Ok(None) };
    let demand = Demand {
        trust,
        manifest: None,
        now,
        altered: false,
    };
    let genuine = read_genuine(store, id, &demand).await?.require(id)?;
    Ok(genuine.manifest.increment.as_ref().map(|increment| LastIncrement {
        id: id.clone(),
        to: increment.stream.to,
        seen_to: increment.stream.seen_to,
        age_seconds: age(increment.stream.seen_to, now),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_may_soon_be_lost_is_a_problem() {
        let name = SlotName::of("s3://b", "d");
        let slot = Slot {
            name: name.to_string(),
            reader: None,
            confirmed: None,
            restart: Some(crate::format::Lsn(1)),
            wal_status: Some("extended".into()),
            retained_bytes: Some(80),
            safe_bytes: Some(20),
            catalog_age: Some(1),
            inactive_since: None,
            invalidation: None,
            fails_over: None,
        };
        assert_eq!(of_slot(&name, Some(&slot), Some(100)).len(), 1);
        assert!(of_slot(&name, Some(&slot), Some(50)).is_empty());
        assert!(of_slot(&name, Some(&slot), None).is_empty());
        let lost = Slot { restart: None, ..slot };
        assert!(of_slot(&name, Some(&lost), None)[0].contains("given the slot up"));
        assert!(of_slot(&name, None, None)[0].contains("missing"));
    }
}

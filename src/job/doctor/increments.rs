//! Checks what increments need. If increments are not set up, the checks report what is missing and do not fail.

use std::time::Duration;

use super::{Check, Checkup};
use crate::error::{Code, Error, Result};
use crate::job::incremental::CoveredTables;
use crate::job::incremental::readiness::{Problem, ProblemKind, problems_of, try_replication};
use crate::postgres::{Session, SlotName};
use crate::units::count;

const NAME: &str = "increments";
/// How long the trial of a slot waits for transactions that run now.
const TRIAL: Duration = Duration::from_secs(5);

pub(super) async fn check(session: &Session, checkup: &Checkup<'_>) -> Vec<Check> {
    let streams = match session.streams().await {
        Ok(streams) => streams,
        Err(error) => return vec![Check::lacking(NAME, &error)],
    };
    let are_wanted = !streams.is_empty() || checkup.settings.schedule.incremental.is_some();
    let own = checkup
        .stores
        .first()
        .map(|store| SlotName::of(store.url(), &session.server().database));
    let found = match session.decoding().await {
        Ok(found) => found,
        Err(error) => return vec![Check::lacking(NAME, &error)],
    };
    let problems = problems_of(session, &found, own.as_ref().is_some_and(|own| streams.contains(own)));
    if !are_wanted {
        return vec![unwanted(session, &problems).await];
    }
    let mut checks: Vec<Check> = problems.iter().map(of_problem).collect();
    if !problems
        .iter()
        .any(|problem| matches!(problem.kind, ProblemKind::Refuses(_)))
    {
        checks.extend(tried(session).await);
    }
    if let Some(own) = own {
        if !streams.contains(&own) {
            let detail = "increments are not started for this store";
            checks.push(Check::warning(NAME, detail, "run `pgstow incremental start`"));
        }
        match of_stream(session, &own).await {
            Ok(more) => checks.extend(more),
            Err(error) if error.code() == Code::Slot => checks.push(Check::failed(NAME, &error)),
            Err(error) => checks.push(Check::lacking(NAME, &error)),
        }
        let others: Vec<String> = streams
            .iter()
            .filter(|one| **one != own)
            .map(ToString::to_string)
            .collect();
        if !others.is_empty() {
            let detail = format!("{} of this database to other stores", count(others.len(), "stream"));
            let hint = "if a store is no longer used, end its stream: `pgstow incremental stop --slot NAME`; until then \
                        the server keeps its log for it";
            checks.push(Check::warning(NAME, detail, hint).naming(others));
        }
    }
    checks
}

/// Increments are not started: what they would need.
async fn unwanted(session: &Session, problems: &[Problem]) -> Check {
    let told = problems.iter().map(|one| format!("{}: {}", one.what, one.hint));
    let mut told: Vec<String> = told.collect();
    match of_others(session).await {
        Ok(0) => {}
        Ok(tables) => told.push(format!(
            "the role does not own {}: let the owner run what `pgstow incremental start --print-sql` prints",
            count(tables, "table")
        )),
        Err(error) => return Check::lacking(NAME, &error),
    }
    let note = match told.as_slice() {
        [] => "not started; the server has what they need (`pgstow incremental start`)".to_owned(),
        told => format!("not started; they would need: {}", told.join("; ")),
    };
    Check::skipped(NAME, note)
}

/// How many tables the role may not publish.
async fn of_others(session: &Session) -> Result<u64> {
    let catalog = session.table_catalog().await?;
    Ok(catalog.saved().filter(|table| !table.is_ours).count() as u64)
}

fn of_problem(problem: &Problem) -> Check {
    match problem.kind {
        ProblemKind::Refuses(code) => {
            Check::failed(NAME, &Error::new(code, problem.what.clone()).hint(problem.hint.clone()))
        }
        ProblemKind::Unbounded | ProblemKind::Warns => {
            Check::warning(NAME, problem.what.as_str(), problem.hint.as_str())
        }
    }
}

/// A session that reads the log, and a slot that ends with its session.
async fn tried(session: &Session) -> Vec<Check> {
    if let Err(error) = try_replication(session).await {
        return vec![Check::failed(NAME, &error)];
    }
    match session.try_slot(TRIAL).await {
        Ok(()) => vec![Check::ok(
            NAME,
            "the server's log can be read, and a slot can be created (one was tried)",
        )],
        Err(error) if error.code() == Code::Stalled => vec![Check::lacking(NAME, &error)],
        Err(error) => vec![Check::failed(NAME, &error)],
    }
}

async fn of_stream(session: &Session, name: &SlotName) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    let publications = session.publications(name).await?;
    let slot = session.slot(name).await?;
    let catalog = session.table_catalog().await?;
    let is_started = slot.is_some() || publications.are_complete();
    if let Some(slot) = &slot
        && slot.is_lost()
    {
        let error = Error::new(Code::Slot, format!("the server has given up the slot {name}"));
        let error =
            error.hint("the next increment makes a new one, and a full backup; or run `pgstow incremental start`");
        checks.push(Check::failed(NAME, &error));
    }
    let published = match is_started {
        true => publications.listing.published(&catalog),
        false => catalog.published_after_start(),
    };
    let tables = CoveredTables::of(&catalog, &published);
    let described = |tables: &[crate::job::incremental::TableState]| {
        let one = |table: &crate::job::incremental::TableState| {
            let remedy = table
                .remedy
                .as_ref()
                .map_or(String::new(), |remedy| format!(": {remedy}"));
            format!("{}.{}: {}{remedy}", table.schema, table.name, table.why)
        };
        tables.iter().map(one).collect::<Vec<String>>()
    };
    if !tables.breaking.is_empty() {
        let detail = format!("UPDATE and DELETE of {} fail", count(tables.breaking.len(), "table"));
        let error = Error::new(Code::Slot, detail);
        let error = error.hint("run `pgstow incremental start`, which takes them out of the publication");
        checks.push(Check::failed(NAME, &error).naming(described(&tables.breaking)));
    }
    let foreign: Vec<String> = catalog
        .saved()
        .filter(|table| !table.is_ours && !published.contains_key(&table.oid))
        .map(|table| format!("{}.{}, of {}", table.schema, table.name, table.owner))
        .collect();
    if !foreign.is_empty() {
        let detail = format!("the role may not publish {}", count(foreign.len(), "table"));
        let hint = "let their owner run what `pgstow incremental start --print-sql` prints";
        checks.push(Check::warning(NAME, detail, hint).naming(foreign));
    }
    let partly: Vec<String> = [&tables.inserts, &tables.full_only, &tables.waiting]
        .into_iter()
        .flat_map(|tables| described(tables))
        .collect();
    let detail = format!(
        "{}; a migration that drops the key of a published table makes its updates fail until the next increment",
        tables.summary()
    );
    checks.push(Check::ok(NAME, detail).naming(partly));
    Ok(checks)
}

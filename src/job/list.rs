//! `list`: the backups in the store, newest first, from the store alone.

mod report;

use std::sync::Arc;

use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::repository::backup_id::age;
use crate::repository::catalog::{Counting, Overview, histories, nothing_found, overviews, reachable_folders};
use crate::repository::chain::{Gap, History, Run};
use crate::repository::signature::Trust;
use crate::repository::verification::{Verification, VerificationOutcome};
use crate::repository::window::Window;
use crate::store::Store;

pub use report::{ChainEntry, ListEntry, ListReport, ListStatus, Problem, Proof};

/// Asks the primary. If it cannot be read or has no backups, the next store answers, with a problem in the report.
pub async fn run(
    stores: &[Arc<dyn Store>],
    database: Option<&str>,
    trust: &Trust,
    now: Timestamp,
) -> Result<ListReport> {
    let mut failed: Vec<Error> = Vec::new();
    for store in stores {
        match read(&**store, database, trust).await {
            // A store without the backups that were asked for is an error, not an empty list.
            Ok(found) if found.is_empty() => failed.push(nothing_found(&**store, database, None).await),
            Ok(found) => {
                let mut report = tell(store.url(), &found, &failed, now);
                if database.is_none() {
                    let passed_over = store.passed_over().await.unwrap_or_default();
                    report.problems.extend(passed_over.iter().map(|error| Problem {
                        backup: None,
                        problem: format!("{}: {}", error.message(), error.hint_text()),
                    }));
                }
                return Ok(report);
            }
            Err(error) => failed.push(error),
        }
    }
    let mut failed = failed.into_iter();
    let first = failed.next().unwrap_or_else(|| Error::internal("no store to list"));
    Err(failed.fold(first, Error::also))
}

async fn read(store: &dyn Store, database: Option<&str>, trust: &Trust) -> Result<Vec<Overview>> {
    let listed = reachable_folders(store, database).await?;
    overviews(store, listed, trust).await
}

fn tell(url: &str, found: &[Overview], failed: &[Error], now: Timestamp) -> ListReport {
    let mut report = ListReport::of(url);
    for error in failed {
        report.problems.push(Problem {
            backup: None,
            problem: format!("{error}: this list is from {url}"),
        });
    }
    for overview in found {
        let id = overview.id();
        let mut problem = |problem: String| {
            report.problems.push(Problem {
                backup: Some(id.clone()),
                problem,
            });
        };
        if let Some(flaw) = overview.flaw() {
            problem(flaw);
        }
        if !overview.lacks.is_empty() {
            problem(format!("lacks {}", overview.lacks.join(", ")));
        }
        overview.forgery().into_iter().for_each(&mut problem);
        for why in [&overview.unsealed, &overview.unverifiable, &overview.doubtful]
            .into_iter()
            .flatten()
        {
            problem(why.clone());
        }
        overview.oddities().into_iter().for_each(&mut problem);
        if overview.is_ahead(now) {
            problem("is dated in the future: a clock was wrong when it was made, or it is forged".to_owned());
        }
        report.backups.extend(entry(overview, now));
    }
    for (database, history) in histories(found, Counting::Good, now) {
        report.chains.extend(chains(&database, &history, now));
    }
    report
}

fn chains(database: &str, history: &History, now: Timestamp) -> Vec<ChainEntry> {
    let gaps = std::iter::once(None).chain(history.gaps().into_iter().map(Some));
    let chain = |(run, gap): (&Run, Option<Gap>)| {
        let (first, last) = (run.first(), run.last());
        let since = first.stream.first_commit.unwrap_or(first.stream.seen_to);
        let window = Window::of(run);
        ChainEntry {
            database: database.to_owned(),
            first: first.id.clone(),
            last: last.id.clone(),
            increments: run.links().len() as u64,
            bytes: run.bytes(),
            age_seconds: age(last.until, now),
            span_seconds: age(since, last.until),
            window,
            gap: gap.map(|gap| gap.to_string()),
            no_base: run.no_base().map(|(id, why)| format!("{id}: {why}")),
            ids: run.links().iter().map(|link| link.id.clone()).collect(),
        }
    };
    history.runs().iter().zip(gaps).map(chain).collect()
}

fn entry(overview: &Overview, now: Timestamp) -> Option<ListEntry> {
    let figures = overview.figures()?;
    let proof = |outcome: &VerificationOutcome| Proof {
        status: outcome.status,
        at: outcome.at,
        age_seconds: age(outcome.at, now),
        extent: None,
    };
    let drill = |outcome: &VerificationOutcome| Proof {
        extent: outcome.extent(),
        ..proof(outcome)
    };
    let verification = overview.verification.as_ref();
    Some(ListEntry {
        id: figures.id.clone(),
        database: figures.database.clone(),
        kind: figures.kind,
        timestamp: figures.timestamp,
        finished_at: figures.finished_at,
        age_seconds: age(figures.id.timestamp(), now),
        duration_seconds: figures.seconds(),
        bytes: overview.listed.bytes(),
        tables: figures.tables.count,
        rows: figures.tables.rows,
        tier: figures.tier,
        format: figures.format,
        compression: figures.compression,
        server_version: figures.server.version.clone(),
        complete: overview.lacks.is_empty(),
        lacks: overview.lacks.clone(),
        signature: overview.signature.clone(),
        verified: verification.and_then(|one| one.verify.as_ref()).map(proof),
        drilled: verification.and_then(Verification::proving_drill).map(drill),
    })
}

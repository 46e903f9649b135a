//! `incremental start`: publications, then the slot, then the wait for older transactions, then the first full backup.
//! In this order every change is either in the full or in the stream. A start that fails takes back what it made.

use std::time::Duration;

use tokio::time::sleep;

use super::readiness::{problems_of, refusal, try_replication, warnings};
use super::report::Started;
use super::state::newest;
use super::tables::CoveredTables;
use super::{Job, name};
use crate::error::{Code, Error, Result};
use crate::format::Lsn;
use crate::job::backup::{self, BackupReport, BackupRequest};
use crate::postgres::{
    CatalogTable, OlderTransactions, PublicationChanges, PublicationKind, Publications, Session, Slot, SlotName,
    StreamSource, TableCatalog,
};
use crate::repository::catalog;
use crate::repository::manifest::StreamBeginning;
use crate::repository::stream_beginning::{self, Sought};
use crate::repository::trigger::Trigger;
use crate::units::{count, some_of};

/// How long the transactions of other sessions may take to end.
const WAIT: Duration = Duration::from_mins(10);
/// How often a table is tried whose lock another session holds, and the pause in between.
const TRIES: usize = 5;
const PAUSE: Duration = Duration::from_millis(500);
/// How many names an error tells.
const NAMED: usize = 5;

/// What was there before.
struct Before {
    slot: Option<Slot>,
    publications: Publications,
}

/// What this run has made, to be taken back if it fails.
#[derive(Default)]
struct Made {
    slot: bool,
    publications: Vec<PublicationKind>,
}

pub(super) async fn run(job: &Job<'_>, session: &Session, accept_unbounded_wal: bool) -> Result<Started> {
    let name = name(job, session)?;
    job.observer.phase("looking at the server");
    let found = job.stop.or_stop(session.decoding()).await?;
    let before = job.stop.or_stop(look(session, &name)).await?;
    let problems = problems_of(session, &found, before.slot.is_some());
    if let Some(refusal) = refusal(&problems, accept_unbounded_wal) {
        return Err(refusal);
    }
    let source = job.stop.or_stop(try_replication(session)).await?;
    let tables = job.stop.or_stop(session.table_catalog()).await?;
    refuse_foreign(session, &tables, &before.publications)?;
    let mut made = Made::default();
    let begun = begin(job, session, &name, (before, &source), &tables, &mut made).await;
    match begun {
        Ok(started) => Ok(Started {
            warnings: [warnings(&problems), started.warnings].concat(),
            ..started
        }),
        Err(error) => {
            let undone = job
                .stop
                .or_give_up("taking back what the start made", take_back(job, &name, made));
            Err(error.with_clean_up(undone.await))
        }
    }
}

async fn look(session: &Session, name: &SlotName) -> Result<Before> {
    Ok(Before {
        slot: session.slot(name).await?,
        publications: session.publications(name).await?,
    })
}

/// A table that this role cannot publish would be missing in every increment.
fn refuse_foreign(session: &Session, tables: &TableCatalog, found: &Publications) -> Result<()> {
    let missing = found.listing.missing(tables);
    let is_foreign = |table: &&&CatalogTable| !table.is_ours;
    let mut foreign: Vec<&CatalogTable> = missing.iter().filter(is_foreign).copied().collect();
    // An owner's script has made a publication, and this role cannot add to it.
    if found.existing.values().any(|is_ours| !is_ours) {
        foreign = missing;
    }
    let Some(first) = foreign.first() else { return Ok(()) };
    let names: Vec<String> = foreign
        .iter()
        .map(|table| format!("{}.{}", table.schema, table.name))
        .collect();
    let user = &session.server().user;
    Err(Error::new(
        Code::Permission,
        format!(
            "the role {user} may not publish {}, because it does not own them or their publication: {}",
            count(names.len(), "table"),
            some_of(&names, NAMED)
        ),
    )
    .hint(format!(
        "let the owner ({}) or a superuser run what `pgstow incremental start --print-sql` prints, then start again; or \
         make {user} a member of the owner's role",
        first.owner
    )))
}

async fn begin(
    job: &Job<'_>,
    session: &Session,
    name: &SlotName,
    (before, source): (Before, &StreamSource),
    tables: &TableCatalog,
    made: &mut Made,
) -> Result<Started> {
    let mut started = Started::of(name);
    let slot = usable_slot(job, session, name, &before, &mut started).await?;
    job.observer.phase("publishing the tables");
    made.publications = job.stop.or_stop(session.create_publications(name)).await?;
    let changes = job.stop.or_stop(publish(session, name, tables)).await?;
    tell_of(&changes, &before, &mut started);
    started.tables = CoveredTables::of(tables, &changes.after);
    let from = if let Some(confirmed) = slot {
        let sought = Sought {
            slot: name.slot(),
            confirmed,
            source,
        };
        let leads_on = job.stop.or_stop(leads_on(job, session, sought)).await?;
        if leads_on {
            return Ok(started);
        }
        started
            .done
            .push("there was no full backup for the stream to continue".into());
        confirmed
    } else {
        job.observer.phase("creating the slot");
        made.slot = true;
        let created = session.create_slot(name, WAIT, job.stop).await;
        // Another run's, made in the meantime.
        made.slot = !matches!(&created, Err(error) if error.code() == Code::Slot);
        let created = created?;
        started.position = Some(created);
        started.done.push(format!("created the slot {name}"));
        created
    };
    let beginning = StreamBeginning {
        slot: name.slot().to_owned(),
        from,
        xid: wait(job, session).await?,
    };
    started.full = Some(Box::new(full(job, session, beginning).await?));
    Ok(started)
}

/// Returns the id before which all transactions have ended.
async fn wait(job: &Job<'_>, session: &Session) -> Result<u64> {
    job.observer.phase("waiting for older transactions");
    match session.wait_for_older(WAIT, job.stop).await? {
        OlderTransactions::Ended(xid) => Ok(xid),
        OlderTransactions::Running(oldest) => {
            let what =
                format!("transactions that began before the slot did not end within {WAIT:?}; the oldest: {oldest}");
            Err(Error::new(Code::Stalled, what).hint("end it, or start again at a quieter time"))
        }
    }
}

/// Where the slot is, if there is one whose stream can go on. One that cannot is dropped.
async fn usable_slot(
    job: &Job<'_>,
    session: &Session,
    name: &SlotName,
    before: &Before,
    started: &mut Started,
) -> Result<Option<Lsn>> {
    let Some(slot) = &before.slot else { return Ok(None) };
    let why = if slot.is_lost() {
        "the server had given it up"
    } else if !before.publications.are_complete() {
        // The server reads a publication as it was at each moment of the stream, and there was none.
        "a publication was missing"
    } else if slot.confirmed.is_none() {
        "it had no position"
    } else {
        return Ok(slot.confirmed);
    };
    if slot.reader.is_some() {
        return Err(session.slot_in_use(slot).await);
    }
    job.stop.or_stop(session.drop_slot(name)).await?;
    started.done.push(format!("dropped the old slot {name}, because {why}"));
    Ok(None)
}

/// Tries tables again whose locks other sessions hold.
async fn publish(session: &Session, name: &SlotName, tables: &TableCatalog) -> Result<PublicationChanges> {
    let mut changes = session.reconcile(name, tables).await?;
    for _ in 1..TRIES {
        if changes.postponed.is_empty() {
            break;
        }
        sleep(PAUSE).await;
        let again = session.reconcile(name, tables).await?;
        changes.after = again.after;
        changes.postponed = again.postponed;
    }
    Ok(changes)
}

fn tell_of(changes: &PublicationChanges, before: &Before, started: &mut Started) {
    let (joined, left) = (changes.joined().len(), changes.left().len());
    if !before.publications.are_complete() {
        started.done.push("created the publications".into());
    } else if joined > 0 {
        started
            .done
            .push(format!("added {} to the publications", count(joined, "table")));
    }
    if left > 0 {
        started
            .done
            .push(format!("took {} out of a publication", count(left, "table")));
    }
    for one in &changes.postponed {
        let urgent = if one.breaks_updates {
            "; UPDATE and DELETE of it fail until it is taken out"
        } else {
            ""
        };
        started
            .warnings
            .push(format!("{}.{}: {}{urgent}", one.schema, one.name, one.why));
    }
}

/// Whether the store has an increment that reaches the slot's position, or a full backup that was made for its stream. If it
/// has only other full backups, a start was killed before it had made its own.
async fn leads_on(job: &Job<'_>, session: &Session, sought: Sought<'_>) -> Result<bool> {
    let (Some(store), Some(trust)) = (job.stores.first(), job.trust) else {
        return Ok(false);
    };
    let (store, now) = (&**store, (job.clock)());
    let listed = catalog::backups(store, Some(&session.server().database)).await?;
    if stream_beginning::find(store, &listed, sought, trust, now)
        .await?
        .is_some()
    {
        return Ok(true);
    }
    let last = newest(job, session).await.ok().flatten();
    Ok(last.is_some_and(|last| last.to >= sought.confirmed))
}

async fn full(job: &Job<'_>, session: &Session, beginning: StreamBeginning) -> Result<BackupReport> {
    let Some(backup) = job.backup else {
        return Err(Error::internal("a start has no way to make its first full backup"));
    };
    let request = BackupRequest {
        trigger: Trigger::Cli,
        database: Some(session.server().database.clone()),
        beginning: Some(beginning),
        ..BackupRequest::default()
    };
    let made = backup::run(backup, &request).await;
    made.map_err(|error| error.context("the first full backup failed"))
}

/// In a session of its own: the first may be the one that failed.
async fn take_back(job: &Job<'_>, name: &SlotName, made: Made) -> Result<()> {
    if !made.slot && made.publications.is_empty() {
        return Ok(());
    }
    let session = super::connect(job).await?;
    let mut failed = Vec::new();
    if made.slot {
        failed.extend(session.drop_slot(name).await.err());
    }
    for kind in made.publications {
        failed.extend(session.drop_publication(name, kind).await.err());
    }
    session.close().await;
    match Error::first_of(failed) {
        Some(error) => Err(error.hint("run `pgstow incremental stop`: until then the slot keeps the server's log")),
        None => Ok(()),
    }
}

//! Puts rows back into existing tables, in one transaction of a session of ours, so that a failure at any point
//! leaves the target as it was.
//!
//! Foreign keys from and to the tables are dropped first, since a table that others refer to cannot be emptied. They
//! are made again after the rows are loaded, which proves that every reference holds. Triggers do not fire: rows are
//! loaded as they are in the backup. Before the commit, the tables are read again and compared.

mod acting;
mod each;
mod transaction;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use acting::Acting;

use super::Job;
use super::failed::Losses;
use super::plan::Plan;
use super::positions::positions;
use super::ready::{Target, some_of};
use super::rows::{self, BackupRows, execute, refused};
use super::state::State;
use crate::error::{Code, Error, Result};
use crate::format::archive::{ArchiveError, Loading};
use crate::format::script::Sum;
use crate::job::restore::RestoreRequest;
use crate::postgres::quoting::{identifier, literal, qualified};
use crate::postgres::{ForeignKey, Names, Refilling, Session, TableTrigger, Wire};
use crate::repository::stored_archive::StoredArchive;
use crate::units::count;

/// What will be done, known before anything is changed.
#[derive(Debug, Default)]
pub(super) struct InPlace {
    /// The tables that are emptied first: quoted, with their schemas, with `ONLY` if their child tables are not
    /// emptied.
    emptied: Vec<String>,
    foreign_keys: Vec<ForeignKey>,
    triggers: Vec<TableTrigger>,
    /// The session silences the triggers, not single statements.
    as_replica: bool,
    check: bool,
    /// Continue after tables that are refused.
    keep_going: bool,
    /// The roles that load the rows.
    acting: Acting,
}

/// What the steps of the transaction work with.
#[derive(Clone, Copy)]
struct Refill<'a> {
    job: &'a Job<'a>,
    backup: BackupRows<'a>,
    work: &'a InPlace,
}

/// The result.
#[derive(Default)]
pub(super) struct FilledTables {
    /// How many tables were compared with the backup.
    pub compared: usize,
    /// The tables that were refused.
    pub losses: Losses,
    /// How many rows were removed from the emptied tables, if the tables are read at all.
    pub replaced: Option<u64>,
}

/// Looks at the target, and refuses what cannot be done there.
pub(super) async fn prepare(
    target: &Target,
    stored: &StoredArchive,
    plan: &Plan,
    request: &RestoreRequest,
) -> Result<InPlace> {
    let names = tables(stored, plan)?;
    let emptied = plan.emptied.clone();
    let session = &target.session;
    check_columns(session, stored, plan, request).await?;
    let foreign_keys = session.foreign_keys(&names).await?;
    let triggers = session.triggers(&names, !emptied.is_empty()).await?;
    check_keys(session, &foreign_keys)?;
    let as_replica = triggers.iter().any(|trigger| !trigger.is_ours);
    if as_replica {
        // In a replica session, triggers enabled for replicas fire, and those that always fire.
        let silent = triggers.iter().all(|trigger| trigger.state == "ENABLE") && session.may_replicate().await;
        if !silent {
            let strangers: Vec<String> = triggers
                .iter()
                .filter(|trigger| !trigger.is_ours)
                .map(|trigger| format!("{} on {}", trigger.name, trigger.table))
                .collect();
            let what = format!("keep these triggers from changing the rows: {}", strangers.join(", "));
            return Err(may_not(session, &what).hint(
                "restore as the tables' owner, or GRANT SET ON PARAMETER session_replication_role to this role",
            ));
        }
    }
    // With `--keep-going` the restore continues after a table that is refused.
    if !request.keep_going {
        check_rights(session, &places(stored, plan)?, request).await?;
    }
    let acting = Acting::prepare(session, &names, &foreign_keys).await?;
    Ok(InPlace {
        emptied,
        foreign_keys,
        triggers,
        as_replica,
        check: !request.no_check,
        keep_going: request.keep_going,
        acting,
    })
}

const OWNER: &str = "restore as the owner of the tables, or as a member of that role";

fn may_not(session: &Session, what: &str) -> Error {
    let user = &session.server().user;
    Error::new(Code::Permission, format!("the role {user} may not {what}"))
}

/// The rights that loading needs on the tables themselves.
async fn check_rights(session: &Session, tables: &Names, request: &RestoreRequest) -> Result<()> {
    let wanted = Refilling {
        emptied: request.clean,
        read: !request.no_check,
    };
    let closed = session.closed_for(tables, wanted).await?;
    let Some(first) = closed.first() else { return Ok(()) };
    let named = closed
        .iter()
        .map(|one| format!("table {} (schema {}, of {})", one.name, one.schema, one.owner));
    let named: Vec<String> = named.collect();
    // As the server says it.
    let what = format!(
        "load these rows: permission denied for {}",
        some_of(&named, named.len() as u64)
    );
    let user = identifier(&session.server().user);
    Err(may_not(session, &what).hint(format!(
        "restore as {owner}, or as a member of that role (GRANT {} TO {user}); or GRANT {} ON {} TO {user}",
        identifier(&first.owner),
        first.lacking,
        qualified(&first.schema, &first.name),
        owner = first.owner,
    )))
}

/// Foreign keys are dropped and made again, which only their owner may do, and which enables their triggers.
fn check_keys(session: &Session, foreign_keys: &[ForeignKey]) -> Result<()> {
    let listed = |keys: &[&ForeignKey]| {
        let named: Vec<String> = keys
            .iter()
            .map(|key| format!("{} of {}", key.name, key.table))
            .collect();
        some_of(&named, named.len() as u64)
    };
    let others: Vec<&ForeignKey> = foreign_keys.iter().filter(|key| !key.is_ours).collect();
    if !others.is_empty() {
        let what = format!(
            "drop and make again foreign keys of tables that it does not own: {}",
            listed(&others)
        );
        return Err(may_not(session, &what).hint("restore as the owner of these tables, or as a member of that role"));
    }
    let disabled: Vec<&ForeignKey> = foreign_keys.iter().filter(|key| key.is_disabled).collect();
    if let [first, ..] = disabled[..] {
        let what = format!(
            "foreign keys whose triggers are disabled would be checked, and enforced from then on: {}",
            listed(&disabled)
        );
        return Err(Error::new(Code::RestoreErr, what).hint(format!(
            "if their rows are valid, enable them first (ALTER TABLE {} ENABLE TRIGGER ALL); or drop them, and make \
             them again afterwards (NOT VALID if their rows are not valid)",
            first.table
        )));
    }
    Ok(())
}

/// Rows cannot be loaded if their columns are missing; and emptying a table loses the values of columns that the
/// backup does not have.
async fn check_columns(session: &Session, stored: &StoredArchive, plan: &Plan, request: &RestoreRequest) -> Result<()> {
    let loses = !request.no_check && !plan.emptied.is_empty();
    let copies = stored.head.copy_statements().map_err(|error| broken(&error))?;
    for index in plan.blocks() {
        let (Some((schema, name)), Some(loading)) = (&stored.tables[index], Loading::parse(&copies[index])) else {
            continue;
        };
        let known = loading.column_names();
        let known: Vec<String> = known.iter().map(|name| stored.head.text(name)).collect();
        let mut columns = session.stored_columns(schema, name).await?;
        let lacking: Vec<&str> = known
            .iter()
            .filter(|column| !columns.contains(column))
            .map(String::as_str)
            .collect();
        // With `--keep-going` the restore continues after this table, as after refused ones.
        if !lacking.is_empty() && !request.keep_going {
            let what = format!(
                "{schema}.{name} lacks columns that the backup has, or computes them: {}",
                lacking.join(", ")
            );
            return Err(Error::new(Code::RestoreErr, what).hint(
                "give it these columns (ALTER TABLE … ADD COLUMN); or load the rows into a copy with --into; or \
                 replace the table as a whole with --clean and without --data-only",
            ));
        }
        columns.retain(|column| !known.contains(column));
        if loses && !columns.is_empty() {
            let what = format!(
                "{schema}.{name} has columns that the backup does not have, and would lose their values: {}",
                columns.join(", ")
            );
            return Err(Error::new(Code::RestoreErr, what).hint(
                "restore the table into another database and copy the missing rows; or give --no-check to \
                 lose those values",
            ));
        }
    }
    Ok(())
}

/// The tables that rows are loaded into, and also the root of partitions that are loaded through it.
fn tables(stored: &StoredArchive, plan: &Plan) -> Result<Vec<(String, String)>> {
    let copies = stored.head.copy_statements().map_err(|error| broken(&error))?;
    let mut names = Vec::new();
    for index in plan.blocks() {
        names.extend(stored.tables[index].clone());
        let loading = Loading::parse(&copies[index]);
        if let Some(loading) = loading.filter(|loading| loading.is_through_another(&stored.head.data[index])) {
            let path = loading.path();
            let mut path = path.iter().map(|name| stored.head.text(name));
            names.extend(path.next().zip(path.next()));
        }
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// The tables that a COPY names.
fn places(stored: &StoredArchive, plan: &Plan) -> Result<Vec<(String, String)>> {
    let copies = stored.head.copy_statements().map_err(|error| broken(&error))?;
    let place = |index: usize| {
        let path = Loading::parse(&copies[index])?.path();
        let mut path = path.iter().map(|name| stored.head.text(name));
        path.next().zip(path.next())
    };
    let places: BTreeSet<(String, String)> = plan.blocks().filter_map(place).collect();
    Ok(places.into_iter().collect())
}

fn broken(error: &ArchiveError) -> Error {
    Error::new(Code::Integrity, error.to_string())
}

impl InPlace {
    /// The roles whose code may run as this superuser.
    pub fn strangers(&self) -> &BTreeSet<String> {
        &self.acting.strangers
    }

    /// The steps in words, for a dry run.
    pub fn steps(&self, plan: &Plan) -> Vec<String> {
        let mut steps = Vec::new();
        for key in &self.foreign_keys {
            steps.push(format!("drop the foreign key {} of {}", key.name, key.table));
        }
        for trigger in &self.triggers {
            steps.push(format!("silence the trigger {} on {}", trigger.name, trigger.table));
        }
        if !self.emptied.is_empty() {
            steps.push(format!(
                "empty {}: rows written since the backup are lost (copies with --into keep them)",
                self.emptied.join(", ").replace("ONLY ", "")
            ));
        }
        steps.push(format!("load {} of data", count(plan.blocks().count(), "block")));
        if !self.foreign_keys.is_empty() {
            steps.push("make the foreign keys again, which checks every reference".to_owned());
        }
        if self.check {
            steps.push("read the tables again and compare them with the backup".to_owned());
        }
        steps.push("commit: until then everything is as it was".to_owned());
        steps
    }
}

pub(super) async fn run(
    job: &Job<'_>,
    backup: BackupRows<'_>,
    target: &Target,
    work: &InPlace,
    state: &State,
) -> Result<FilledTables> {
    let session = Session::connect(&target.info, &job.settings.postgres).await?;
    let mut wire = session.open_loading_wire().await?;
    let done = filled(Refill { job, backup, work }, &session, &mut wire, state).await;
    if done.is_err() {
        rows::roll_back(&mut wire).await;
    }
    // Without definitions, `--exclude` leaves nothing out.
    let done = done.map_err(|error| match error.code() {
        Code::Permission if !error.has_own_hint() => error.hint(OWNER),
        _ => error,
    })?;
    wire.close().await;
    Ok(done)
}

/// Loads every table, or none.
async fn all(refill: Refill<'_>, wire: &mut Wire, copies: &[rows::BlockCopy]) -> Result<usize> {
    let Refill { job, backup, work } = refill;
    let mut expected: BTreeMap<Vec<u8>, Sum> = BTreeMap::new();
    if work.check {
        // They were empty when they were looked at.
        for copy in copies {
            if !expected.contains_key(&copy.place) {
                let there = sum(job, wire, copy).await?;
                if there != Sum::default() {
                    return Err(not_empty(&backup.stored.name(copy.index)));
                }
                expected.insert(copy.place.clone(), there);
            }
        }
    }
    let mut open: VecDeque<&rows::BlockCopy> = copies.iter().collect();
    // How many in a row were refused: they wait for others to be loaded.
    let mut waiting = 0;
    while let Some(copy) = open.pop_front() {
        execute(wire, "SAVEPOINT one").await?;
        match work.acting.load(job, backup, wire, copy).await {
            Ok(sum) => {
                execute(wire, "RELEASE SAVEPOINT one").await?;
                expected.entry(copy.place.clone()).or_default().merge(sum);
                waiting = 0;
            }
            Err(unloaded) if unloaded.may_wait() && waiting < open.len() => {
                execute(wire, "ROLLBACK TO SAVEPOINT one; RELEASE SAVEPOINT one").await?;
                open.push_back(copy);
                waiting += 1;
            }
            Err(unloaded) => return Err(unloaded.error),
        }
    }
    if !work.check {
        return Ok(0);
    }
    job.observer.phase("comparing the rows");
    let mut seen = BTreeMap::new();
    for copy in copies {
        if seen.insert(copy.place.clone(), ()).is_none() && sum(job, wire, copy).await? != expected[&copy.place] {
            return Err(other_rows(&backup.stored.name(copy.index)));
        }
    }
    Ok(copies.len())
}

fn not_empty(table: &str) -> Error {
    Error::new(Code::RestoreErr, format!("{table} has rows now")).hint("empty it first with --clean")
}

fn other_rows(table: &str) -> Error {
    let what = format!("{table} would not hold the rows of the backup: its columns' types, or a rule, change them");
    Error::new(Code::RestoreErr, what).hint(
        "restore the table under its own definition (without --data-only); or skip the comparison with --no-check",
    )
}

async fn filled(refill: Refill<'_>, session: &Session, wire: &mut Wire, state: &State) -> Result<FilledTables> {
    let Refill { job, backup, work } = refill;
    let encoding = rows::encoding(backup.items);
    transaction::open(refill, session, wire).await?;
    let archives = format!("SET client_encoding = {}", literal(&encoding));
    let copies = rows::in_turn(rows::copies(backup)?, backup);
    let mut replaced = None;
    if !work.emptied.is_empty() && !work.keep_going {
        if work.check {
            execute(wire, &archives).await?;
            replaced = Some(held(job, wire, &copies).await?);
            execute(wire, "SET client_encoding = 'UTF8'").await?;
        }
        // All at once, since they may refer to each other.
        let emptied = format!("TRUNCATE TABLE {}", work.emptied.join(", "));
        execute(wire, &emptied).await?;
    }

    execute(wire, &archives).await?;
    job.observer.phase("loading the data");
    job.observer.estimate(backup.plan.stored_bytes());
    let filled = if work.keep_going {
        let emptied = !work.emptied.is_empty();
        each::fill(refill, wire, copies, emptied).await?
    } else {
        FilledTables {
            compared: all(refill, wire, &copies).await?,
            losses: Losses::default(),
            replaced,
        }
    };

    execute(wire, "SET client_encoding = 'UTF8'").await?;
    transaction::enable_checks(refill, wire).await?;
    transaction::commit(wire, state).await?;
    positions(backup, wire, &encoding).await?;
    Ok(filled)
}

/// The number of rows in all of these tables.
async fn held(job: &Job<'_>, wire: &mut Wire, copies: &[rows::BlockCopy]) -> Result<u64> {
    let mut places: BTreeSet<&[u8]> = BTreeSet::new();
    let mut held = 0;
    for copy in copies {
        if places.insert(&copy.place) {
            let counted = rows::count(wire, copy, job.settings.postgres.stall).await;
            held += counted.map_err(|refusal| refused("cannot count the rows that are replaced", refusal))?;
        }
    }
    Ok(held)
}

/// The sum of what the table holds now.
async fn sum(job: &Job<'_>, wire: &mut Wire, copy: &rows::BlockCopy) -> Result<Sum> {
    let seen = rows::read_between(wire, copy, job.settings.postgres.stall).await;
    seen.map(|seen| seen.sum)
        .map_err(|refusal| refused("cannot read the rows again", refusal))
}

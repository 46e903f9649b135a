//! Puts rows back into existing tables, in one transaction of a session of ours, so that a failure at any point
//! leaves the target as it was.
//!
//! Foreign keys from and to the tables are dropped first, since a table that others refer to cannot be emptied. They
//! are made again after the rows are loaded, which proves that every reference holds. Triggers do not fire: rows are
//! loaded as they are in the backup. Before the commit, the tables are read again and compared.

mod acting;
mod each;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use acting::Acting;
use tokio_postgres::error::SqlState;

use super::Job;
use super::failed::Losses;
use super::plan::Plan;
use super::positions::positions;
use super::ready::{Target, some_of};
use super::rows::{self, Backup, execute, refused};
use super::state::{Stage, State};
use crate::error::{Code, Error, Result};
use crate::format::archive::{ArchiveError, Loading};
use crate::format::script::Sum;
use crate::job::restore::RestoreRequest;
use crate::postgres::quoting::{literal, qualified};
use crate::postgres::{ForeignKey, Refusal, Session, TableTrigger, Wire, not_locked};
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

/// The result.
#[derive(Default)]
pub(super) struct Filled {
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
    let may_not = |what: String| {
        let user = &session.server().user;
        Error::new(Code::Permission, format!("the role {user} may not {what}"))
    };
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
        return Err(may_not(what).hint("restore as the owner of these tables, or as a member of that role"));
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
            return Err(may_not(what).hint(
                "restore as the tables' owner, or GRANT SET ON PARAMETER session_replication_role to this role",
            ));
        }
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
    backup: Backup<'_>,
    target: &Target,
    work: &InPlace,
    state: &State,
) -> Result<Filled> {
    let session = Session::connect(&target.info, &job.settings.postgres).await?;
    let mut wire = session.open_loading_wire().await?;
    let done = filled(job, backup, &session, &mut wire, work, state).await;
    if done.is_err() {
        rows::roll_back(&mut wire).await;
    }
    let done = done?;
    wire.close().await;
    Ok(done)
}

/// Loads every table, or none.
async fn all(
    job: &Job<'_>,
    backup: Backup<'_>,
    wire: &mut Wire,
    work: &InPlace,
    copies: &[rows::BlockCopy],
) -> Result<usize> {
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

async fn filled(
    job: &Job<'_>,
    backup: Backup<'_>,
    session: &Session,
    wire: &mut Wire,
    work: &InPlace,
    state: &State,
) -> Result<Filled> {
    let (plan, stored) = (backup.plan, backup.stored);
    let wait = job.settings.postgres.lock_wait;
    let names = tables(stored, plan)?;
    let encoding = rows::encoding(backup.items);
    // A server that checks its clients ends the work of a lost client; not every server can.
    if let Err(refusal @ Refusal::Broken(_)) = wire.execute(b"SET client_connection_check_interval = 1000").await {
        return Err(refusal.into_error());
    }
    let begin = format!(
        "SET client_encoding = 'UTF8'; SET client_min_messages = error; SET statement_timeout = 0; \
         SET idle_in_transaction_session_timeout = 0; SET row_security = off; SET xmloption = content; \
         SET lock_timeout = {}; BEGIN",
        wait.as_millis()
    );
    execute(wire, &begin).await?;
    let mut touched = names.clone();
    let keys = &work.foreign_keys;
    touched.extend(keys.iter().flat_map(|key| [key.of.clone(), key.to.clone()]));
    let locked = lock_all(wire, &names, work).await;
    if let Err(refusal) = locked {
        if !refusal.is(&SqlState::LOCK_NOT_AVAILABLE) {
            return Err(refused("cannot lock the tables", refusal));
        }
        return Err(not_locked(wait, "the tables", &session.holders(&touched).await));
    }
    // They were listed before the lock, and a trigger that was made since would fire as this role.
    let about = (session.server().major, !work.emptied.is_empty());
    let changed = wire.changed_around(&names, &work.foreign_keys, &work.triggers, about);
    let changed = changed
        .await
        .map_err(|refusal| refused("cannot look at the tables again", refusal))?;
    if let Some(what) = changed {
        let what = format!("the target has changed since it was checked: {what}");
        return Err(Error::new(Code::RestoreErr, what).hint("run it again"));
    }
    job.observer.phase("emptying the tables");
    if work.as_replica {
        execute(wire, "SET LOCAL session_replication_role = replica").await?;
    } else {
        for trigger in &work.triggers {
            execute(wire, &trigger.disabling()).await?;
        }
    }
    for key in keys {
        let statement = key.dropping();
        if let Err(refusal) = wire.execute(statement.as_bytes()).await {
            // A table of another role that the key refers to could not be locked before.
            if refusal.is(&SqlState::LOCK_NOT_AVAILABLE) {
                let what = format!("what {statement} needs");
                return Err(not_locked(wait, &what, &session.holders(&touched).await));
            }
            return Err(refused(&statement, refusal));
        }
    }
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
    job.observer.estimate(plan.stored_bytes());
    let filled = if work.keep_going {
        let emptied = !work.emptied.is_empty();
        each::fill(job, backup, wire, copies, work, emptied).await?
    } else {
        Filled {
            compared: all(job, backup, wire, work, &copies).await?,
            losses: Losses::default(),
            replaced,
        }
    };

    execute(wire, "SET client_encoding = 'UTF8'").await?;
    if !work.as_replica {
        for trigger in &work.triggers {
            execute(wire, &trigger.enabling()).await?;
        }
    }
    if !work.foreign_keys.is_empty() {
        job.observer.phase("checking the references");
    }
    for key in &work.foreign_keys {
        let made = work.acting.make(wire, key).await;
        made.map_err(|refusal| {
            if !refusal.is(&SqlState::FOREIGN_KEY_VIOLATION) {
                let what = format!("the foreign key {} of {} could not be made again", key.name, key.table);
                return refused(&what, refusal);
            }
            let what = format!("the foreign key {} of {} would not hold", key.name, key.table);
            let to = qualified(&key.to.0, &key.to.1);
            refused(&what, refusal).hint(format!(
                "the rows of {} and of {to} must be from the same backup: name both with --table; rows written since \
                 the backup are then lost: to keep them, make copies with --into and copy the missing rows",
                key.table
            ))
        })?;
    }
    state.set(Stage::Committing);
    match wire.execute(b"COMMIT").await {
        Err(refusal @ Refusal::Server { .. }) => {
            state.set(Stage::Untouched);
            return Err(refused("the rows could not be committed", refusal));
        }
        Err(refusal) => return Err(refusal.into_error()),
        Ok(()) => state.set(Stage::Committed),
    }
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

/// Before anything else and in a fixed order, so that two runs of pgstow do not wait for each other.
async fn lock_all(wire: &mut Wire, names: &[(String, String)], work: &InPlace) -> std::result::Result<(), Refusal> {
    let mut all: Vec<&(String, String)> = names.iter().collect();
    for key in &work.foreign_keys {
        all.push(&key.of);
        // A table that may not be locked in this mode is locked when its key is dropped.
        all.extend(key.to_is_ours.then_some(&key.to));
    }
    all.sort();
    all.dedup();
    // A partitioned table is locked together with partitions that the backup does not have.
    let spelt = |table: &(String, String)| match work.acting.is_root(table) {
        true => qualified(&table.0, &table.1),
        false => format!("ONLY {}", qualified(&table.0, &table.1)),
    };
    let tables: Vec<String> = all.into_iter().map(spelt).collect();
    let lock = |mode: &str| format!("LOCK TABLE {} IN {mode} MODE", tables.join(", "));
    if !(work.foreign_keys.is_empty() && work.triggers.is_empty() && work.emptied.is_empty()) {
        return wire.execute(lock("ACCESS EXCLUSIVE").as_bytes()).await;
    }
    wire.execute(b"SAVEPOINT unlocked").await?;
    match wire.execute(lock("SHARE ROW EXCLUSIVE").as_bytes()).await {
        // A role that may only insert cannot take this lock: then others may insert too.
        Err(refusal) if refusal.is(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            wire.execute(b"ROLLBACK TO SAVEPOINT unlocked").await
        }
        locked => locked,
    }
}

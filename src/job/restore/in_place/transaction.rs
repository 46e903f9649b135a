//! The transaction in which the rows are put back: it locks tables and drops foreign keys first, and makes the keys
//! again at the end.

use tokio_postgres::error::SqlState;

use super::{Refill, tables};
use crate::error::{Code, Error, Result};
use crate::job::restore::in_place::InPlace;
use crate::job::restore::rows::{execute, refused};
use crate::job::restore::state::{Milestone, State};
use crate::postgres::quoting::qualified;
use crate::postgres::{Names, Refusal, Session, Wire, not_locked};

/// Begins the transaction, locks the tables, and removes what would keep rows from being loaded as they are.
pub(super) async fn open(refill: Refill<'_>, session: &Session, wire: &mut Wire) -> Result<()> {
    let Refill { job, backup, work } = refill;
    let wait = job.settings.postgres.lock_wait;
    let names = tables(backup.stored, backup.plan)?;
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
    lock(refill, session, wire, (&names, &touched)).await?;
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
    Ok(())
}

/// Locks the tables, and checks that nothing around them has changed since they were looked at. `touched` are all
/// tables that the locks concern.
async fn lock(
    refill: Refill<'_>,
    session: &Session,
    wire: &mut Wire,
    (names, touched): (&Names, &Names),
) -> Result<()> {
    let Refill { job, work, .. } = refill;
    let wait = job.settings.postgres.lock_wait;
    let locked = lock_all(wire, names, work).await;
    if let Err(refusal) = locked {
        if !refusal.is(&SqlState::LOCK_NOT_AVAILABLE) {
            return Err(refused("cannot lock the tables", refusal));
        }
        return Err(not_locked(wait, "the tables", &session.holders(touched).await));
    }
    // They were listed before the lock, and a trigger that was made since would fire as this role.
    let about = (session.server().major, !work.emptied.is_empty());
    let changed = wire.changed_around(names, &work.foreign_keys, &work.triggers, about);
    let changed = changed
        .await
        .map_err(|refusal| refused("cannot look at the tables again", refusal))?;
    if let Some(what) = changed {
        let what = format!("the target has changed since it was checked: {what}");
        return Err(Error::new(Code::RestoreErr, what).hint("run it again"));
    }
    Ok(())
}

/// Enables the triggers, and makes the foreign keys: this proves that every reference holds.
pub(super) async fn enable_checks(refill: Refill<'_>, wire: &mut Wire) -> Result<()> {
    let Refill { job, work, .. } = refill;
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
    Ok(())
}

pub(super) async fn commit(wire: &mut Wire, state: &State) -> Result<()> {
    state.set(Milestone::Committing);
    match wire.execute(b"COMMIT").await {
        Err(refusal @ Refusal::Server { .. }) => {
            state.set(Milestone::Untouched);
            return Err(refused("the rows could not be committed", refusal));
        }
        Err(refusal) => return Err(refusal.into_error()),
        Ok(()) => state.set(Milestone::Committed),
    }
    Ok(())
}

/// Before anything else and in a fixed order, so that two runs of pgstow do not wait for each other.
async fn lock_all(wire: &mut Wire, names: &Names, work: &InPlace) -> std::result::Result<(), Refusal> {
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

//! Makes the copies: one transaction of one session. After any failure at any time, nothing of it is left.

use tokio_postgres::error::SqlState;

use super::{Copies, TableCopy};
use crate::error::{Code, Error, Result};
use crate::format::script::Sum;
use crate::job::restore::Job;
use crate::job::restore::plan::LeftOut;
use crate::job::restore::ready::Target;
use crate::job::restore::rows::{BackupRows, execute, load, read_between, refused, roll_back};
use crate::job::restore::state::{Milestone, State};
use crate::postgres::quoting::{identifier, literal, qualified};
use crate::postgres::{COPY_OF, Refusal, Row, Session, Wire, not_locked};

/// The class of errors that say a statement does not fit here: an object that it names is missing, or of another
/// kind.
const NOT_HERE: &str = "42";

/// The result.
#[derive(Debug, Default)]
pub(in crate::job::restore) struct Made {
    /// How many copies were read again and hold the backup's rows.
    pub compared: Option<usize>,
    pub left_out: Vec<LeftOut>,
}

pub(in crate::job::restore) async fn run(
    job: &Job<'_>,
    backup: BackupRows<'_>,
    target: &Target,
    work: &Copies,
    state: &State,
) -> Result<Made> {
    let session = Session::connect(&target.info, &job.settings.postgres).await?;
    let wire = session.open_loading_wire().await?;
    let mut making = Making {
        job,
        backup,
        session,
        wire,
        work,
        encoded: false,
    };
    let made = making.all(state).await;
    if made.is_err() {
        roll_back(&mut making.wire).await;
    }
    making.wire.close().await;
    made
}

struct Making<'a> {
    job: &'a Job<'a>,
    backup: BackupRows<'a>,
    session: Session,
    wire: Wire,
    work: &'a Copies,
    /// Whether the session uses the archive's encoding, and not UTF-8.
    encoded: bool,
}

impl Making<'_> {
    async fn all(&mut self, state: &State) -> Result<Made> {
        let work = self.work;
        self.begin().await?;
        if work.makes_schema {
            execute(&mut self.wire, &format!("CREATE SCHEMA {}", identifier(&work.schema))).await?;
        }
        self.job.observer.phase("making the tables");
        for table in &work.tables {
            if table.replaced.is_some() {
                self.remove(table).await?;
            }
            self.define(table).await?;
        }
        self.job.observer.phase("loading the data");
        self.job.observer.estimate(self.backup.plan.stored_bytes());
        self.as_archive(true).await?;
        let mut expected = Vec::new();
        for table in &work.tables {
            let mut sum = Sum::default();
            for rows in &table.rows {
                let loaded = load(self.job, self.backup, &mut self.wire, rows).await;
                sum.merge(loaded.map_err(|unloaded| unloaded.error)?);
            }
            expected.push(sum);
        }
        if work.check {
            self.job.observer.phase("comparing the rows");
            for (table, expected) in work.tables.iter().zip(expected) {
                self.compare(table, expected).await?;
            }
        }
        self.job.observer.phase("making indexes and keys");
        let mut left_out = Vec::new();
        for finishing in work.tables.iter().flat_map(|table| &table.finishing) {
            left_out.extend(self.finish(&finishing.what, &finishing.statement).await?);
        }
        state.set(Milestone::Committing);
        match self.wire.execute(b"COMMIT").await {
            Ok(()) => {}
            Err(refusal @ Refusal::Server { .. }) => {
                state.set(Milestone::Untouched);
                return Err(refused("the copies could not be committed", refusal));
            }
            Err(refusal) => return Err(refusal.into_error()),
        }
        Ok(Made {
            compared: work.check.then_some(work.tables.len()),
            left_out,
        })
    }

    /// With the session settings of pg_restore that matter to a table.
    async fn begin(&mut self) -> Result<()> {
        // A server that checks its clients ends the work of a lost client; not every server can.
        let asked = self.wire.execute(b"SET client_connection_check_interval = 1000").await;
        if let Err(refusal @ Refusal::Broken(_)) = asked {
            return Err(refusal.into_error());
        }
        let begin = format!(
            "SET client_encoding = 'UTF8'; SET client_min_messages = error; SET statement_timeout = 0; \
             SET idle_in_transaction_session_timeout = 0; SET row_security = off; SET lock_timeout = {}; \
             SET standard_conforming_strings = on; SET check_function_bodies = off; SET xmloption = content; \
             SET default_tablespace = ''; BEGIN",
            self.job.settings.postgres.lock_wait.as_millis()
        );
        execute(&mut self.wire, &begin).await
    }

    /// Switches to the archive's encoding, or to UTF-8.
    async fn as_archive(&mut self, encoded: bool) -> Result<()> {
        if self.encoded == encoded {
            return Ok(());
        }
        let encoding = if encoded { &self.work.encoding } else { "UTF8" };
        execute(&mut self.wire, &format!("SET client_encoding = {}", literal(encoding))).await?;
        self.encoded = encoded;
        Ok(())
    }

    /// Removes the table that was looked at, and no other.
    async fn remove(&mut self, table: &TableCopy) -> Result<()> {
        self.as_archive(false).await?;
        let (schema, name) = &table.place;
        let (quoted, wait) = (qualified(schema, name), self.job.settings.postgres.lock_wait);
        let lock = format!("LOCK TABLE ONLY {quoted} IN ACCESS EXCLUSIVE MODE");
        match self.wire.execute(lock.as_bytes()).await {
            Err(refusal) if refusal.is(&SqlState::LOCK_NOT_AVAILABLE) => {
                let holders = self.session.holders(std::slice::from_ref(&table.place)).await;
                return Err(not_locked(wait, &table.name(), &holders));
            }
            locked => locked.map_err(|refusal| refused(&format!("cannot replace {}", table.name()), refusal))?,
        }
        if self.session.standing(schema, name).await? != table.replaced {
            let what = format!("{} has changed since it was checked", table.name());
            return Err(Error::new(Code::RestoreErr, what).hint("run it again"));
        }
        let dropped = self.wire.execute(format!("DROP TABLE {quoted}").as_bytes()).await;
        dropped.map_err(|refusal| {
            let is_needed = refusal.is(&SqlState::DEPENDENT_OBJECTS_STILL_EXIST);
            let error = refused(&format!("cannot replace {}", table.name()), refusal);
            match is_needed {
                true => error.hint("remove the objects that need it, or choose another place"),
                false => error,
            }
        })
    }

    async fn define(&mut self, table: &TableCopy) -> Result<()> {
        if let Some(method) = &table.access_method {
            self.as_archive(false).await?;
            let set = format!("SET default_table_access_method = {}", identifier(method));
            execute(&mut self.wire, &set).await?;
        }
        self.as_archive(true).await?;
        let made = self.wire.execute_one(&table.definition).await;
        made.map_err(|refusal| {
            let lacks = matches!(&refusal, Refusal::Server { state, .. } if state.code().starts_with(NOT_HERE));
            let error = refused(&format!("cannot make {} as {} was", table.name(), table.of), refusal);
            match lacks && !error.has_own_hint() {
                true => error.hint("restore the table into another database, without --into"),
                false => error,
            }
        })?;
        self.as_archive(false).await?;
        self.make_our_own(table).await
    }

    /// Checks and makes sure, whatever the definition said and the database grants by default, that it is a plain
    /// table with no ties to others, which only its owner may read.
    async fn make_our_own(&mut self, table: &TableCopy) -> Result<()> {
        let oid = self.plain_table(table).await?;
        let quoted = qualified(&table.place.0, &table.place.1);
        let question = format!(
            "SELECT DISTINCT CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'
                    ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END
               FROM pg_catalog.pg_class c CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) a
              WHERE c.oid OPERATOR(pg_catalog.=) {oid} AND a.grantee OPERATOR(pg_catalog.<>) c.relowner"
        );
        let grantees = self.ask(&question).await?;
        for grantee in grantees.iter().filter_map(|row| row.text(0)) {
            execute(
                &mut self.wire,
                &format!("REVOKE ALL ON TABLE {quoted} FROM {grantee} CASCADE"),
            )
            .await?;
        }
        if table.is_guarded {
            execute(
                &mut self.wire,
                &format!("ALTER TABLE {quoted} ENABLE ROW LEVEL SECURITY"),
            )
            .await?;
        }
        let comment = format!("{COPY_OF}{} in {}", table.of, self.work.backup);
        execute(
            &mut self.wire,
            &format!("COMMENT ON TABLE {quoted} IS {}", literal(&comment)),
        )
        .await
    }

    /// The OID of the new table, if it is a plain one without ties to others.
    async fn plain_table(&mut self, table: &TableCopy) -> Result<u32> {
        let (schema, name) = &table.place;
        let question = format!(
            "SELECT c.oid, c.relkind OPERATOR(pg_catalog.=) 'r' AND NOT c.relispartition
               AND pg_catalog.pg_get_userbyid(c.relowner) OPERATOR(pg_catalog.=) current_user
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i
                                WHERE i.inhrelid OPERATOR(pg_catalog.=) c.oid OR i.inhparent OPERATOR(pg_catalog.=) c.oid)
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k
                                WHERE k.contype OPERATOR(pg_catalog.=) 'f'
                                  AND (k.conrelid OPERATOR(pg_catalog.=) c.oid OR k.confrelid OPERATOR(pg_catalog.=) c.oid))
                   , (SELECT pg_catalog.string_agg(made.what, ', ' ORDER BY made.what)
                        FROM (SELECT 'the trigger ' OPERATOR(pg_catalog.||) pg_catalog.quote_ident(t.tgname) AS what
                                FROM pg_catalog.pg_trigger t WHERE t.tgrelid OPERATOR(pg_catalog.=) c.oid
                               UNION ALL
                              SELECT 'the rule ' OPERATOR(pg_catalog.||) pg_catalog.quote_ident(r.rulename)
                                FROM pg_catalog.pg_rewrite r WHERE r.ev_class OPERATOR(pg_catalog.=) c.oid) made)
               FROM pg_catalog.pg_class c
               JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
              WHERE n.nspname OPERATOR(pg_catalog.=) {} AND c.relname OPERATOR(pg_catalog.=) {}",
            literal(schema),
            literal(name)
        );
        let rows = self.ask(&question).await?;
        let found = rows.first().filter(|row| row.text(1) == Some("t"));
        let Some(oid) = found.and_then(|row| row.number::<u32>(0)) else {
            let what = format!("{}: its definition does not make a plain table of its own", table.of);
            return Err(Error::new(Code::Integrity, what));
        };
        if let Some(added) = rows.first().and_then(|row| row.text(2)) {
            let what = format!(
                "{} gets {added} as soon as it is made: the copy would not be a plain table",
                table.name()
            );
            return Err(Error::new(Code::RestoreErr, what).hint(
                "an event trigger of the target adds it: disable that one meanwhile (ALTER EVENT TRIGGER ... DISABLE), \
                 or restore the table into another database, without --into",
            ));
        }
        Ok(oid)
    }

    async fn ask(&mut self, question: &str) -> Result<Vec<Row>> {
        let rows = self.wire.query(question.as_bytes()).await;
        rows.map_err(|refusal| refused("cannot look at the new table", refusal))
    }

    async fn compare(&mut self, table: &TableCopy, expected: Sum) -> Result<()> {
        let Some(rows) = table.rows.first() else { return Ok(()) };
        let seen = read_between(&mut self.wire, rows, self.job.settings.postgres.stall).await;
        let seen = seen.map_err(|refusal| refused(&format!("cannot read {} again", table.name()), refusal))?;
        if seen.sum == expected {
            return Ok(());
        }
        let what = format!(
            "{} would not hold the rows of {}: something changes them",
            table.name(),
            table.of
        );
        Err(Error::new(Code::RestoreErr, what).hint("check its columns' types; or skip the comparison with --no-check"))
    }

    /// Makes an index or a key. If the target cannot make it, it is reported, and the copy has its rows without it.
    async fn finish(&mut self, what: &str, statement: &[u8]) -> Result<Option<LeftOut>> {
        execute(&mut self.wire, "SAVEPOINT one").await?;
        match self.wire.execute_one(statement).await {
            Ok(()) => {
                execute(&mut self.wire, "RELEASE one").await?;
                Ok(None)
            }
            Err(Refusal::Server { state, error, .. }) if state.code().starts_with(NOT_HERE) => {
                execute(&mut self.wire, "ROLLBACK TO one").await?;
                Ok(Some(LeftOut {
                    what: what.to_owned(),
                    why: error.message(),
                }))
            }
            Err(refusal) => Err(refused(&format!("cannot make {what}"), refusal)),
        }
    }
}

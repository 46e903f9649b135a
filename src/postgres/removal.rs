//! What a restore removes, and what it makes in its place: in one transaction.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::Session;
use super::surroundings::not_locked;
use super::tables::Names;
use super::target::{Named, is_absence};
use super::{Refusal, Wire};
use crate::error::{Code, Error, Result};

/// How long a server may take to roll back.
const ROLLING_BACK: Duration = Duration::from_secs(30);
/// The most objects that an error names.
const NAMED: usize = 5;

/// What a restore removes first.
#[derive(Debug, Clone, Copy)]
pub struct Removal<'a> {
    /// Statements that detach what must not be removed with the tables, in order.
    pub loosen: &'a [String],
    /// In order; a statement whose object others still need is tried again after the rest.
    pub statements: &'a [String],
    /// Statements that detach parts of these objects, where the objects depend on each other.
    pub parting: &'a [String],
    pub large_objects: &'a [u32],
    /// The tables that the statements remove, and around which nothing may have been added since the statements were
    /// made.
    pub tables: &'a Names,
    /// Other tables that another session may have locked.
    pub beside: &'a Names,
    /// How long to wait for locks.
    pub wait: Duration,
}

/// What is made in place of it.
#[derive(Debug, Clone, Copy)]
pub struct Renewal<'a> {
    pub definitions: &'a [Definition],
    /// The names of all relations and indexes that will be made, now or later.
    pub names: &'a Names,
    /// The objects that the definitions make and on which the target's default privileges may grant something to
    /// others; empty if these grants may stay.
    pub made: &'a [Named<'a>],
}

/// A definition from the archive, with the settings that pg_restore sends before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// For an error.
    pub what: String,
    pub statements: String,
}

impl Session {
    /// Removes objects in a transaction that stays open, and returns their number. An object that does not exist
    /// counts as removed. An error undoes everything.
    pub async fn remove(&self, removal: &Removal<'_>) -> Result<usize> {
        let removed = self.remove_all(removal).await;
        if removed.is_err() {
            self.roll_back().await;
        }
        removed
    }

    /// Called after an error, so an error here adds nothing. If the server no longer answers, it rolls back when the
    /// session ends.
    async fn roll_back(&self) {
        let _ = tokio::time::timeout(ROLLING_BACK, self.execute("ROLLBACK")).await;
    }

    /// Removes objects and makes others in their place, in a transaction that stays open. `None` if the server's lock
    /// table has no room for both in one transaction. Then, and after an error, everything is undone.
    pub async fn replace(&self, removal: &Removal<'_>, renewal: &Renewal<'_>) -> Result<Option<usize>> {
        let replaced = async {
            let removed = self.remove_all(removal).await?;
            let made = self.renew(removal, renewal).await?;
            Ok(made.then_some(removed))
        };
        let replaced: Result<Option<usize>> = replaced.await;
        if !matches!(replaced, Ok(Some(_))) {
            self.roll_back().await;
        }
        replaced
    }

    async fn remove_all(&self, removal: &Removal<'_>) -> Result<usize> {
        let &Removal {
            loosen,
            large_objects,
            tables,
            beside,
            wait,
            ..
        } = removal;
        let held = [tables, beside].concat();
        let failed = |error| self.refused(&error);
        let begin = format!("BEGIN; SET LOCAL lock_timeout = {}", wait.as_millis());
        self.client.batch_execute(&begin).await.map_err(failed)?;
        if let Err(error) = self.lock(tables).await {
            if error.code() != Some(&SqlState::LOCK_NOT_AVAILABLE) {
                return Err(self.refused(&error));
            }
            self.client.batch_execute("ROLLBACK").await.map_err(failed)?;
            return Err(not_locked(wait, "the tables", &self.holders(&held).await));
        }
        // The plan is some time old, and a partition that is not in it would be dropped with its root without a word.
        let known: BTreeSet<&String> = loosen.iter().collect();
        let now = self.loosening(tables).await?;
        if let Some(new) = now.iter().find(|statement| !known.contains(statement)) {
            let what = format!("the target has changed since it was checked: {new} is needed now and was not then");
            return Err(Error::new(Code::RestoreErr, what).hint("run it again"));
        }
        let mut removed = 0;
        for statement in loosen {
            match self.one(statement, wait, &held).await? {
                Tried::Done => removed += 1,
                Tried::Absent => {}
                Tried::Needed(error) | Tried::Refused(error) => return Err(error),
            }
        }
        removed += self.remove_each(removal, &held).await?;
        if !large_objects.is_empty() {
            let unlinked = self
                .client
                .query(
                    "SELECT pg_catalog.lo_unlink(oid) FROM pg_catalog.pg_largeobject_metadata
                      WHERE oid OPERATOR(pg_catalog.=) ANY($1)",
                    &[&large_objects],
                )
                .await
                .map_err(failed)?;
            removed += unlinked.len();
        }
        Ok(removed)
    }

    /// Runs the statements that remove objects, again and again as long as that removes more.
    async fn remove_each(&self, removal: &Removal<'_>, held: &Names) -> Result<usize> {
        let wait = removal.wait;
        let mut removed = 0;
        let mut open: Vec<&String> = removal.statements.iter().collect();
        let mut parted = removal.parting.is_empty();
        while !open.is_empty() {
            let (tried, mut still, mut first) = (open.len(), Vec::new(), None);
            for statement in open {
                match self.one(statement, wait, held).await? {
                    Tried::Done => removed += 1,
                    Tried::Absent => {}
                    // A dependent object may be removed later in the list, if the target has changed since the
                    // backup.
                    Tried::Needed(error) => {
                        first.get_or_insert(error);
                        still.push(statement);
                    }
                    // The temporary form of a view, made while others are detached, may not fit the view that exists.
                    Tried::Refused(_) if statement.starts_with("CREATE OR REPLACE VIEW ") => {}
                    Tried::Refused(error) => return Err(error),
                }
            }
            if let (Some(error), true) = (first, still.len() == tried) {
                if parted {
                    return Err(error);
                }
                parted = true;
                for statement in removal.parting {
                    self.one(statement, wait, held).await?;
                }
            }
            open = still;
        }
        Ok(removed)
    }

    /// Runs one statement in a savepoint, so that the others can continue after its failure.
    async fn one(&self, statement: &str, wait: Duration, held: &Names) -> Result<Tried> {
        let failed = |error| self.refused(&error);
        self.client.batch_execute("SAVEPOINT one").await.map_err(failed)?;
        let Err(error) = self.client.batch_execute(statement).await else {
            self.client.batch_execute("RELEASE one").await.map_err(failed)?;
            return Ok(Tried::Done);
        };
        if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) {
            self.client.batch_execute("ROLLBACK").await.map_err(failed)?;
            let what = format!("an object that {statement:?} needs");
            return Err(not_locked(wait, &what, &self.in_its_way(held).await));
        }
        let refused = self.refused(&error);
        if refused.code() == Code::ConnErr {
            return Err(refused);
        }
        let back = "ROLLBACK TO one; RELEASE one";
        self.client.batch_execute(back).await.map_err(failed)?;
        let refused = refused.context(statement);
        Ok(match error.code() {
            Some(state) if is_absence(state) => Tried::Absent,
            Some(state) if *state == SqlState::DEPENDENT_OBJECTS_STILL_EXIST => Tried::Needed(refused.hint(
                "other objects of the target, not in the backup or not selected, depend on this one: remove \
                 them first, or restore into a new database with --create",
            )),
            Some(state) if *state == SqlState::OUT_OF_MEMORY => Tried::Refused(refused.hint(
                "the restore removes everything in one transaction, with a lock for each object: raise \
                 max_locks_per_transaction on the target, which needs a restart, or restore into a new database with \
                 --create",
            )),
            _ => Tried::Refused(refused.hint("correct the cause, or restore into a new database with --create")),
        })
    }

    /// Returns whether the server had room for it.
    async fn renew(&self, removal: &Removal<'_>, renewal: &Renewal<'_>) -> Result<bool> {
        let taken = self.taken(renewal.names, &[]).await?;
        if !taken.is_empty() {
            return Err(names_are_taken(&taken));
        }
        if !self.define(renewal.definitions, removal.wait).await? {
            return Ok(false);
        }
        self.take_back_defaults(renewal.made).await?;
        Ok(true)
    }

    /// Runs the definitions in order in the open transaction; returns whether the server had room for the locks.
    pub async fn define(&self, definitions: &[Definition], wait: Duration) -> Result<bool> {
        for Definition { what, statements } in definitions {
            let Err(error) = self.client.batch_execute(statements).await else {
                continue;
            };
            let refused = self.refused(&error);
            return match error.code() {
                Some(state) if *state == SqlState::OUT_OF_MEMORY => Ok(false),
                Some(state) if *state == SqlState::LOCK_NOT_AVAILABLE => {
                    self.client
                        .batch_execute("ROLLBACK")
                        .await
                        .map_err(|error| self.refused(&error))?;
                    let holders = self.in_its_way(&[]).await;
                    Err(not_locked(wait, &format!("an object that {what} needs"), &holders))
                }
                _ => Err(refused.context(what)),
            };
        }
        Ok(true)
    }

    /// Which of these names belong to an object that is not in `going` and does not go with one of those.
    pub(crate) async fn taken(&self, names: &Names, going: &Names) -> Result<Vec<String>> {
        let (schemas, tags) = columns(names);
        let (going_schemas, going_tags) = columns(going);
        let question = "WITH going AS (
               SELECT c.oid FROM ROWS FROM (pg_catalog.unnest($3::pg_catalog.text[]), pg_catalog.unnest($4::pg_catalog.text[]))
                   AS asked (schema, name)
                 JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) asked.schema
                 JOIN pg_catalog.pg_class c ON c.relnamespace OPERATOR(pg_catalog.=) n.oid
                  AND c.relname OPERATOR(pg_catalog.=) asked.name)
             SELECT DISTINCT CASE c.relkind WHEN 'r' THEN 'the table ' WHEN 'p' THEN 'the table ' WHEN 'v' THEN 'the view '
                      WHEN 'm' THEN 'the materialized view ' WHEN 'S' THEN 'the sequence ' WHEN 'f' THEN 'the foreign table '
                      WHEN 'c' THEN 'the type ' ELSE 'the index ' END
                    || pg_catalog.format('%I.%I', n.nspname, c.relname)
                    || coalesce(' of ' || pg_catalog.quote_ident(tn.nspname) || '.' || pg_catalog.quote_ident(t.relname), '')
               FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[]))
                   AS asked (schema, name)
               JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) asked.schema
               JOIN pg_catalog.pg_class c ON c.relnamespace OPERATOR(pg_catalog.=) n.oid
                AND c.relname OPERATOR(pg_catalog.=) asked.name
               LEFT JOIN pg_catalog.pg_index i ON i.indexrelid OPERATOR(pg_catalog.=) c.oid
               LEFT JOIN pg_catalog.pg_class t ON t.oid OPERATOR(pg_catalog.=) i.indrelid
               LEFT JOIN pg_catalog.pg_namespace tn ON tn.oid OPERATOR(pg_catalog.=) t.relnamespace
              WHERE NOT EXISTS (SELECT FROM going g WHERE g.oid OPERATOR(pg_catalog.=) c.oid
                                   OR g.oid OPERATOR(pg_catalog.=) i.indrelid)
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN going g ON g.oid OPERATOR(pg_catalog.=) d.refobjid
                    WHERE c.relkind OPERATOR(pg_catalog.=) 'S' AND d.objid OPERATOR(pg_catalog.=) c.oid
                      AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
                      AND d.deptype OPERATOR(pg_catalog.=) ANY ('{a,i}'))
              ORDER BY 1";
        let rows = self
            .client
            .query(question, &[&schemas, &tags, &going_schemas, &going_tags])
            .await
            .map_err(|error| self.error("cannot look for names that are taken", &error))?;
        let read = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>();
        read.map_err(|error| self.error("cannot look for names that are taken", &error))
    }

    /// Undoes what the target's default privileges have granted on new objects and on the members of new extensions, or
    /// revoked from their owners and PUBLIC: the archive's grants start from the built-in privileges.
    pub(crate) async fn take_back_defaults(&self, made: &[Named<'_>]) -> Result<()> {
        let column = |of: fn(&Named<'_>) -> String| made.iter().map(of).collect::<Vec<_>>();
        let kinds = column(|named| named.kind.to_owned());
        let schemas = column(|named| named.schema.to_owned());
        let names = column(|named| named.name.to_owned());
        let question = "WITH asked AS (
               SELECT kind, schema, name FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]),
                 pg_catalog.unnest($2::pg_catalog.text[]), pg_catalog.unnest($3::pg_catalog.text[])) AS asked (kind, schema, name)),
             made AS (
               SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END
                        || pg_catalog.format('%I.%I', n.nspname, c.relname) AS what, c.relowner AS owner, c.relacl AS acl,
                      NULL::pg_catalog.text AS open
                 FROM asked JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) asked.schema
                 JOIN pg_catalog.pg_class c ON c.relnamespace OPERATOR(pg_catalog.=) n.oid
                  AND c.relname OPERATOR(pg_catalog.=) asked.name
                WHERE asked.kind OPERATOR(pg_catalog.=) ANY ('{TABLE,VIEW,MATERIALIZED VIEW,FOREIGN TABLE,SEQUENCE}')
               UNION ALL
               SELECT 'ROUTINE ' || p.oid::pg_catalog.regprocedure::pg_catalog.text, p.proowner, p.proacl, 'EXECUTE'
                 FROM asked JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) asked.schema
                 JOIN pg_catalog.pg_proc p ON p.pronamespace OPERATOR(pg_catalog.=) n.oid
                WHERE asked.kind OPERATOR(pg_catalog.=) ANY ('{FUNCTION,PROCEDURE,AGGREGATE}')
                  AND (p.proname || '(' || pg_catalog.array_to_string(ARRAY(
                         SELECT pg_catalog.format_type(u.t, NULL) FROM pg_catalog.unnest(p.proargtypes) WITH ORDINALITY AS u (t, at)
                         ORDER BY u.at), ', ') || ')' OPERATOR(pg_catalog.=) asked.name
                       OR (p.prokind OPERATOR(pg_catalog.=) 'a' AND p.proname || '(*)' OPERATOR(pg_catalog.=) asked.name))
               UNION ALL
               SELECT 'TYPE ' || pg_catalog.format('%I.%I', n.nspname, t.typname), t.typowner, t.typacl, 'USAGE'
                 FROM asked JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) asked.schema
                 JOIN pg_catalog.pg_type t ON t.typnamespace OPERATOR(pg_catalog.=) n.oid
                  AND t.typname OPERATOR(pg_catalog.=) asked.name
                WHERE asked.kind OPERATOR(pg_catalog.=) ANY ('{TYPE,DOMAIN}')
               UNION ALL
               SELECT 'SCHEMA ' || pg_catalog.quote_ident(n.nspname), n.nspowner, n.nspacl, NULL
                 FROM asked JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) asked.name
                WHERE asked.kind OPERATOR(pg_catalog.=) 'SCHEMA'
               UNION ALL
               -- The constructors of a range type and of its multirange type come with it, and have no entries.
               SELECT 'ROUTINE ' || p.oid::pg_catalog.regprocedure::pg_catalog.text, p.proowner, p.proacl, 'EXECUTE'
                 FROM asked JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) asked.schema
                 JOIN pg_catalog.pg_type t ON t.typnamespace OPERATOR(pg_catalog.=) n.oid
                  AND t.typname OPERATOR(pg_catalog.=) asked.name AND t.typtype OPERATOR(pg_catalog.=) 'r'
                 JOIN pg_catalog.pg_depend d ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
                  AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
                  AND d.deptype OPERATOR(pg_catalog.=) 'i'
                  AND (d.refobjid OPERATOR(pg_catalog.=) t.oid OR d.refobjid OPERATOR(pg_catalog.=) ANY (
                         SELECT m.objid FROM pg_catalog.pg_depend m
                          WHERE m.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
                            AND m.refobjid OPERATOR(pg_catalog.=) t.oid AND m.deptype OPERATOR(pg_catalog.=) 'i'
                            AND m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass))
                 JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) d.objid
                WHERE asked.kind OPERATOR(pg_catalog.=) 'TYPE' AND pg_catalog.pg_has_role(p.proowner, 'USAGE')
               UNION ALL
               SELECT coalesce(
                        (SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END
                                  || pg_catalog.format('%I.%I', cn.nspname, c.relname)
                           FROM pg_catalog.pg_class c
                           JOIN pg_catalog.pg_namespace cn ON cn.oid OPERATOR(pg_catalog.=) c.relnamespace
                          WHERE c.oid OPERATOR(pg_catalog.=) member.relation),
                        'ROUTINE ' || member.routine::pg_catalog.regprocedure::pg_catalog.text,
                        'TYPE ' || pg_catalog.format_type(member.type, NULL),
                        'SCHEMA ' || pg_catalog.quote_ident(member.schema)),
                      member.owner, member.acl, member.open
                 FROM asked JOIN pg_catalog.pg_extension e ON e.extname OPERATOR(pg_catalog.=) asked.name
                 JOIN pg_catalog.pg_depend d ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
                  AND d.refobjid OPERATOR(pg_catalog.=) e.oid AND d.deptype OPERATOR(pg_catalog.=) 'e'
                 JOIN LATERAL (
                   SELECT c.oid AS relation, NULL::pg_catalog.oid AS routine, NULL::pg_catalog.oid AS type,
                          NULL::pg_catalog.name AS schema, c.relowner AS owner, c.relacl AS acl, NULL AS open
                     FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) d.objid
                      AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
                      AND c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'p', 'v', 'm', 'f', 'S']::pg_catalog.\"char\"[])
                   UNION ALL
                   SELECT NULL, p.oid, NULL, NULL, p.proowner, p.proacl, 'EXECUTE' FROM pg_catalog.pg_proc p
                    WHERE p.oid OPERATOR(pg_catalog.=) d.objid
                      AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
                   UNION ALL
                   SELECT NULL, NULL, t.oid, NULL, t.typowner, t.typacl, 'USAGE' FROM pg_catalog.pg_type t
                    WHERE t.oid OPERATOR(pg_catalog.=) d.objid
                      AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
                   UNION ALL
                   SELECT NULL, NULL, NULL, s.nspname, s.nspowner, s.nspacl, NULL FROM pg_catalog.pg_namespace s
                    WHERE s.oid OPERATOR(pg_catalog.=) d.objid
                      AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass) member ON true
                WHERE asked.kind OPERATOR(pg_catalog.=) 'EXTENSION' AND pg_catalog.pg_has_role(member.owner, 'USAGE')
                  -- What the extension's own script grants and revokes is recorded there.
                  AND NOT EXISTS (SELECT FROM pg_catalog.pg_init_privs i
                                   WHERE i.classoid OPERATOR(pg_catalog.=) d.classid AND i.objoid OPERATOR(pg_catalog.=) d.objid))
             SELECT DISTINCT coalesce('REVOKE ALL ON ' || what || ' FROM '
                        || (SELECT pg_catalog.string_agg(DISTINCT CASE x.grantee WHEN 0 THEN 'PUBLIC'
                              ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(x.grantee)) END, ', ')
                              FROM pg_catalog.aclexplode(acl) x) || '; ', '')
                    || 'GRANT ALL ON ' || what || ' TO ' || pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(owner))
                    || coalesce('; GRANT ' || open || ' ON ' || what || ' TO PUBLIC', '')
               FROM made WHERE acl IS NOT NULL";
        if made.is_empty() {
            return Ok(());
        }
        let failed = |error| self.error("cannot look at default privileges", &error);
        let rows = self
            .client
            .query(question, &[&kinds, &schemas, &names])
            .await
            .map_err(failed)?;
        for row in &rows {
            let statements: String = row.try_get(0).map_err(failed)?;
            let done = self.client.batch_execute(&statements).await;
            done.map_err(|error| {
                let refused = self.refused(&error);
                let what = "grants by the target's default privileges could not be revoked";
                refused.context(format!("{what} ({statements})"))
            })?;
        }
        Ok(())
    }
}

impl Session {
    /// The same for new large objects: from 18 on they have default privileges.
    pub(crate) async fn take_back_of_objects(&self, objects: &[u32]) -> Result<()> {
        if objects.is_empty() {
            return Ok(());
        }
        let failed = |error| self.error("cannot look at the grants on large objects", &error);
        let rows = self
            .client
            .query(&given_of_objects(objects), &[])
            .await
            .map_err(failed)?;
        for row in &rows {
            let statements: String = row.try_get(0).map_err(failed)?;
            let done = self.client.batch_execute(&statements).await;
            done.map_err(|error| self.refused(&error))?;
        }
        Ok(())
    }
}

impl Wire {
    /// The same in an open transaction.
    pub(crate) async fn take_back_of_objects(&mut self, objects: &[u32]) -> std::result::Result<(), Refusal> {
        if objects.is_empty() {
            return Ok(());
        }
        for row in self.query(given_of_objects(objects).as_bytes()).await? {
            if let Some(statements) = row.text(0) {
                self.execute(statements.as_bytes()).await?;
            }
        }
        Ok(())
    }
}

fn given_of_objects(objects: &[u32]) -> String {
    let objects: Vec<String> = objects.iter().map(u32::to_string).collect();
    format!(
        "SELECT pg_catalog.concat('REVOKE ALL ON LARGE OBJECT ', m.oid, ' FROM ',
                  (SELECT pg_catalog.string_agg(DISTINCT CASE WHEN x.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'
                     ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(x.grantee)) END, ', ')
                     FROM pg_catalog.aclexplode(m.lomacl) x),
                  '; GRANT ALL ON LARGE OBJECT ', m.oid, ' TO ', pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(m.lomowner)))
           FROM pg_catalog.pg_largeobject_metadata m
          WHERE m.lomacl IS NOT NULL AND m.oid OPERATOR(pg_catalog.=) ANY ('{{{}}}'::pg_catalog.oid[])",
        objects.join(",")
    )
}

fn columns(names: &Names) -> (Vec<&str>, Vec<&str>) {
    let pairs = names.iter().map(|(schema, name)| (schema.as_str(), name.as_str()));
    pairs.unzip()
}

enum Tried {
    Done,
    Absent,
    /// Other objects still need it.
    Needed(Error),
    Refused(Error),
}

/// For the check before any change.
pub(crate) fn names_are_taken(taken: &[String]) -> Error {
    let mut shown: Vec<&str> = taken.iter().take(NAMED).map(String::as_str).collect();
    let more = format!("{} more", taken.len().saturating_sub(NAMED));
    if taken.len() > NAMED {
        shown.push(&more);
    }
    let what = format!(
        "objects that the restore does not replace have names that the backup's objects need: {}",
        shown.join(", ")
    );
    Error::new(Code::RestoreErr, what).hint("rename these first, or remove them; or restore into another database")
}

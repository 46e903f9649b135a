//! Finds what a backup needs and the role may not read, before the dump fails on it.

use super::Session;
use super::closed::names_in;
use super::quoting::identifier;
use crate::error::{Code, Error, Result};

/// An object on which pg_dump would fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    pub kind: UnreadableKind,
    /// Qualified and quoted for SQL; for a large object, its number.
    pub name: String,
    /// The quoted schema, if the role may not use it.
    pub schema: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnreadableKind {
    Table,
    Sequence,
    LargeObject,
}

/// One of PostgreSQL's own functions that this role may not call.
#[derive(Debug)]
struct ClosedFunction {
    name: String,
    /// With its arguments, for SQL.
    signature: String,
    need: Need,
}

/// Whether a backup calls a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// A backup of the database in its current state calls it.
    Now,
    /// A backup of a database with other objects, or by another version of pg_dump, calls it.
    Perhaps,
    Never,
}

impl Unreadable {
    /// The name for messages: a large object has only a number.
    fn called(&self) -> String {
        match self.kind {
            UnreadableKind::LargeObject => format!("large object {}", self.name),
            _ => self.name.clone(),
        }
    }

    /// The statement that grants the privilege to a (quoted) role.
    fn grant(&self, role: &str) -> String {
        let object = match self.kind {
            UnreadableKind::Table => format!("GRANT SELECT ON {} TO {role}", self.name),
            UnreadableKind::Sequence => format!("GRANT SELECT ON SEQUENCE {} TO {role}", self.name),
            UnreadableKind::LargeObject => grant_objects(&[&self.name], role),
        };
        match &self.schema {
            Some(schema) => format!("GRANT USAGE ON SCHEMA {schema} TO {role}; {object}"),
            None => object,
        }
    }
}

impl Session {
    /// Tables, sequences and large objects that pg_dump locks or reads and this role may not read, at most 1,000. It
    /// leaves out objects of extensions, because pg_dump does not save them, except their configuration tables.
    pub async fn unreadable_tables(&self) -> Result<Vec<Unreadable>> {
        let failed = |error| self.error("cannot read the role's privileges", &error);
        let rows = self
            .client
            .query(
                "SELECT c.relkind::pg_catalog.text, pg_catalog.format('%I.%I', n.nspname, c.relname),
                        CASE WHEN NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE') THEN pg_catalog.quote_ident(n.nspname) END
                 FROM pg_catalog.pg_class c
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't'
                   AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
                   AND NOT EXISTS (
                     SELECT FROM pg_catalog.pg_depend d
                     WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e'
                       AND NOT EXISTS (SELECT FROM pg_catalog.pg_extension e
                                       WHERE e.oid = d.refobjid AND c.oid = ANY (e.extconfig)))
                   AND (NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE')
                        OR CASE c.relkind WHEN 'S' THEN NOT pg_catalog.has_sequence_privilege(c.oid, 'SELECT')
                                          ELSE NOT pg_catalog.has_table_privilege(c.oid, 'SELECT') END)
                 ORDER BY c.relkind = 'S', n.nspname, c.relname LIMIT 1000",
                &[],
            )
            .await
            .map_err(failed)?;
        let mut found = Vec::new();
        for row in rows {
            let kind: String = row.try_get(0).map_err(failed)?;
            found.push(Unreadable {
                kind: if kind == "S" {
                    UnreadableKind::Sequence
                } else {
                    UnreadableKind::Table
                },
                name: row.try_get(1).map_err(failed)?,
                schema: row.try_get(2).map_err(failed)?,
            });
        }
        let objects = self
            .client
            .query(
                "SELECT m.oid::pg_catalog.text FROM pg_catalog.pg_largeobject_metadata m
                 WHERE NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)
                   AND pg_catalog.current_setting('lo_compat_privileges') <> 'on'
                   AND NOT pg_catalog.pg_has_role(m.lomowner, 'USAGE')
                   AND NOT EXISTS (
                     SELECT FROM pg_catalog.aclexplode(m.lomacl) AS a
                     WHERE a.privilege_type = 'SELECT' AND (a.grantee = 0 OR pg_catalog.pg_has_role(a.grantee, 'USAGE')))
                   AND NOT (pg_catalog.current_setting('server_version_num')::pg_catalog.int4 >= 190000
                            AND EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = 'pg_read_all_data'
                                        AND pg_catalog.pg_has_role(r.oid, 'USAGE')))
                 ORDER BY m.oid LIMIT 1000",
                &[],
            )
            .await
            .map_err(failed)?;
        for row in objects {
            found.push(Unreadable {
                kind: UnreadableKind::LargeObject,
                name: row.try_get(0).map_err(failed)?,
                schema: None,
            });
        }
        Ok(found)
    }

    /// Tables (qualified, quoted) in which row-level security would hide rows from this role.
    pub async fn rls_tables(&self) -> Result<Vec<String>> {
        let failed = |error| self.error("cannot read row-level security", &error);
        let rows = self
            .client
            .query(
                "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
                 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.relrowsecurity AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
                   AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND pg_catalog.row_security_active(c.oid)
                 ORDER BY 1 LIMIT 1000",
                &[],
            )
            .await
            .map_err(failed)?;
        rows.iter().map(|row| row.try_get(0).map_err(failed)).collect()
    }

    /// Fails with `PERMISSION` if the role cannot make a complete backup; the error names the objects and the GRANTs.
    pub async fn check_privileges(&self) -> Result<()> {
        let checked = match self.check_functions().await {
            Ok(()) => self.check_objects().await,
            refused => refused,
        };
        self.with_reset(checked).await
    }

    /// The same after a refusal with these words. They contain the function's name if the refusal was about a
    /// function.
    pub(super) async fn check_refusal(&self, words: &str) -> Result<()> {
        let named = names_in(words);
        let mut closed = self.closed_functions().await?;
        closed.retain(|function| named.contains(&function.name.as_str()));
        let checked = match self.refuse_without(&closed) {
            Ok(()) => self.check_objects().await,
            refused => refused,
        };
        self.with_reset(checked).await
    }

    /// Functions (with arguments) that the role may not call. A backup of the database in its current state may not
    /// need them; a backup of a database with other kinds of objects does.
    pub async fn perhaps_needed_functions(&self) -> Result<Vec<String>> {
        let closed = self.closed_functions().await?.into_iter();
        let perhaps = closed.filter(|function| function.need == Need::Perhaps);
        Ok(perhaps.map(|function| function.signature).collect())
    }

    async fn with_reset(&self, checked: Result<()>) -> Result<()> {
        let Err(error) = checked else { return Ok(()) };
        if error.code() != Code::Permission {
            return Err(error);
        }
        match self.other_role().await {
            // The GRANTs are for the role that a setting gives to the login.
            Ok(Some((login, reset))) => {
                let hint = format!(
                    "{}; or, because a setting makes the login {login} work as {role} here, {reset}",
                    error.hint_text(),
                    role = identifier(&self.server.user)
                );
                Err(error.hint(hint))
            }
            _ => Err(error),
        }
    }

    /// The quoted role that has logged in, if the session works as another role, and the statement that ends this.
    async fn other_role(&self) -> Result<Option<(String, String)>> {
        let failed = |error| self.error("cannot ask who has logged in", &error);
        let question = "SELECT session_user::pg_catalog.text";
        let row = self.client.query_one(question, &[]).await.map_err(failed)?;
        let login: String = row.try_get(0).map_err(failed)?;
        if login == self.server.user {
            return Ok(None);
        }
        let reset = self.resetting("role").await.map_err(failed)?;
        let reset = reset.unwrap_or_else(|| "leave `role` out of the connection's options".to_owned());
        Ok(Some((identifier(&login), reset)))
    }

    /// The statement that resets this setting of a role or database; if there are several, the one that takes
    /// precedence.
    pub(super) async fn resetting(&self, setting: &str) -> Result<Option<String>, tokio_postgres::Error> {
        let question = "SELECT r.rolname::pg_catalog.text, d.datname::pg_catalog.text
               FROM pg_catalog.pg_db_role_setting s CROSS JOIN pg_catalog.unnest(s.setconfig) AS one (setting)
               LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
               LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
              WHERE pg_catalog.split_part(one.setting, '=', 1) = $1
                AND (s.setrole = 0 OR r.rolname = session_user)
                AND (s.setdatabase = 0 OR d.datname = pg_catalog.current_database())
              ORDER BY s.setrole = 0, s.setdatabase = 0 LIMIT 1";
        let Some(row) = self.client.query_opt(question, &[&setting]).await? else {
            return Ok(None);
        };
        let (role, database): (Option<String>, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
        Ok(Some(
            match (role.as_deref().map(identifier), database.as_deref().map(identifier)) {
                (Some(role), Some(database)) => format!("ALTER ROLE {role} IN DATABASE {database} RESET {setting}"),
                (Some(role), None) => format!("ALTER ROLE {role} RESET {setting}"),
                (None, Some(database)) => format!("ALTER DATABASE {database} RESET {setting}"),
                (None, None) => format!("ALTER ROLE ALL RESET {setting}"),
            },
        ))
    }

    /// PostgreSQL's own functions that PUBLIC may call by default and that were revoked from this role.
    async fn closed_functions(&self) -> Result<Vec<ClosedFunction>> {
        let failed = |error| self.error("cannot read the role's privileges", &error);
        let question = closed_functions();
        let rows = self.client.query(question.as_str(), &[]).await.map_err(failed)?;
        let mut closed = Vec::new();
        for row in rows {
            let needed: Option<bool> = row.try_get(2).map_err(failed)?;
            closed.push(ClosedFunction {
                signature: row.try_get(0).map_err(failed)?,
                name: row.try_get(1).map_err(failed)?,
                need: match needed {
                    Some(true) => Need::Now,
                    Some(false) => Need::Perhaps,
                    None => Need::Never,
                },
            });
        }
        Ok(closed)
    }

    /// The functions that this database needs.
    async fn check_functions(&self) -> Result<()> {
        let mut closed = self.closed_functions().await?;
        closed.retain(|function| function.need == Need::Now);
        self.refuse_without(&closed)
    }

    fn refuse_without(&self, closed: &[ClosedFunction]) -> Result<()> {
        if closed.is_empty() {
            return Ok(());
        }
        let role = identifier(&self.server.user);
        let names: Vec<&str> = closed.iter().map(|function| function.signature.as_str()).collect();
        let grants: Vec<String> = names
            .iter()
            .map(|name| format!("GRANT EXECUTE ON FUNCTION {name} TO {role}"))
            .collect();
        let text = format!("role {role} may not call {}, which a backup needs", some_of(&names));
        let hint = format!("{}; or back up as a superuser", grants.join("; "));
        Err(Error::new(Code::Permission, text).hint(hint))
    }

    async fn check_objects(&self) -> Result<()> {
        let role = identifier(&self.server.user);
        let unreadable = self.unreadable_tables().await?;
        if !unreadable.is_empty() {
            let names: Vec<String> = unreadable.iter().map(Unreadable::called).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let hint = cure(&unreadable, &role, self.server.major);
            return Err(Error::new(
                Code::Permission,
                format!("role {role} may not read {}", some_of(&names)),
            )
            .hint(hint));
        }
        let filtered = self.rls_tables().await?;
        if !filtered.is_empty() {
            let names: Vec<&str> = filtered.iter().map(String::as_str).collect();
            return Err(Error::new(
                Code::Permission,
                format!(
                    "row-level security would hide rows of {} from role {role}",
                    some_of(&names)
                ),
            )
            .hint(format!(
                "ALTER ROLE {role} BYPASSRLS, or back up as the tables' owner (where it is forced on the owner too: \
                 ALTER TABLE … NO FORCE ROW LEVEL SECURITY)"
            )));
        }
        Ok(())
    }
}

/// Function (with arguments), name, and whether a backup of this database calls it now; NULL in the last column if no
/// backup calls it.
fn closed_functions() -> String {
    // The server checks the privilege when a query starts, whether the query finds rows or not. So if the database
    // has no such object, it depends on pg_dump's version whether pg_dump calls the function.
    let own = |catalog: &str, oid: &str| {
        format!(
            "{oid} >= 16384 AND NOT EXISTS (
               SELECT FROM pg_catalog.pg_depend d
               WHERE d.classid = 'pg_catalog.{catalog}'::pg_catalog.regclass AND d.objid = {oid} AND d.deptype = 'e')"
        )
    };
    let relation = |oid: &str| own("pg_class", oid);
    format!(
        "SELECT p.oid::pg_catalog.regprocedure::pg_catalog.text, p.proname::pg_catalog.text,
                CASE
                WHEN p.proname IN ('pg_export_snapshot', 'set_config', 'current_setting', 'pg_is_in_recovery',
                                   'pg_encoding_to_char', 'array_to_string') THEN true
                WHEN p.proname IN ('lo_open', 'loread', 'lo_close')
                THEN EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)
                WHEN p.proname = 'format_type'
                THEN EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'p') AND {of_class})
                WHEN p.proname = 'pg_get_viewdef'
                THEN EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relkind IN ('v', 'm') AND {of_class})
                WHEN p.proname = 'pg_get_partkeydef'
                THEN EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relkind = 'p' AND {of_class})
                WHEN p.proname = 'pg_get_ruledef'
                THEN EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.rulename <> '_RETURN' AND {of_rule})
                WHEN p.proname = 'pg_get_indexdef'
                THEN EXISTS (SELECT FROM pg_catalog.pg_index i WHERE {of_index})
                WHEN p.proname = 'pg_get_triggerdef'
                THEN EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE NOT t.tgisinternal AND {of_trigger})
                WHEN p.proname = 'pg_get_constraintdef'
                THEN EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.contype IN ('c', 'f') AND {of_constraint})
                WHEN p.proname = 'pg_get_expr'
                THEN EXISTS (SELECT FROM pg_catalog.pg_attrdef a WHERE {of_default})
                WHEN p.proname = 'pg_get_statisticsobjdef'
                THEN EXISTS (SELECT FROM pg_catalog.pg_statistic_ext s WHERE {of_statistics})
                WHEN p.proname IN ('pg_get_function_arguments', 'pg_get_function_identity_arguments',
                                   'pg_get_function_result')
                THEN EXISTS (SELECT FROM pg_catalog.pg_proc f WHERE f.prokind <> 'a' AND {of_function})
                WHEN p.proname IN ('pg_current_snapshot', 'pg_relation_size', 'pg_table_is_visible', 'pg_options_to_table',
                                   'quote_ident', 'pg_tablespace_location', 'pg_get_function_sqlbody',
                                   'pg_get_serial_sequence', 'pg_get_statisticsobjdef_columns', 'pg_get_userbyid',
                                   'pg_get_partition_constraintdef', 'pg_get_sequence_data')
                THEN false
                END
         FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
         WHERE n.nspname = 'pg_catalog' AND p.proacl IS NOT NULL
           AND NOT pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
           AND NOT EXISTS (
             SELECT FROM pg_catalog.pg_init_privs i
             WHERE i.classoid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND i.objoid = p.oid)
         ORDER BY 1",
        of_class = relation("c.oid"),
        of_rule = relation("r.ev_class"),
        of_index = relation("i.indrelid"),
        of_trigger = relation("t.tgrelid"),
        of_constraint = relation("k.conrelid"),
        of_default = relation("a.adrelid"),
        of_statistics = own("pg_statistic_ext", "s.oid"),
        of_function = own("pg_proc", "f.oid"),
    )
}

/// Statements that together let the role read all of these, and what else would.
fn cure(unreadable: &[Unreadable], role: &str, major: u32) -> String {
    let is_object = |one: &&Unreadable| one.kind == UnreadableKind::LargeObject;
    let objects: Vec<&str> = unreadable
        .iter()
        .filter(is_object)
        .map(|one| one.name.as_str())
        .collect();
    let others: Vec<&Unreadable> = unreadable.iter().filter(|one| !is_object(one)).collect();
    let everything = format!("GRANT pg_read_all_data TO {role}");
    let mut grants: Vec<String> = match others.len() {
        AT_ONCE.. if major >= READS_ALL_SINCE => vec![everything.clone()],
        _ => others.iter().map(|one| one.grant(role)).collect(),
    };
    let of_tables_only = !objects.is_empty() && major < READS_ALL_OBJECTS_SINCE;
    if !objects.is_empty() {
        grants.push(grant_objects(&objects, role));
    }
    let grants = grants.join("; ");
    match major {
        _ if of_tables_only => {
            format!("{grants}; a role with pg_read_all_data reads tables, but large objects only by their own grant")
        }
        READS_ALL_SINCE.. if grants != everything => format!("{grants}; or for everything: {everything}"),
        _ => grants,
    }
}

/// The first version with the role pg_read_all_data, and the first in which it also reads large objects.
const READS_ALL_SINCE: u32 = 14;
const READS_ALL_OBJECTS_SINCE: u32 = 19;
/// Up to so many are granted by name.
const AT_ONCE: usize = 20;

/// One statement for all objects, or for as many as fit into a line; then a statement that grants the rest.
fn grant_objects(objects: &[&str], role: &str) -> String {
    // A character with which a name could end the quotes around it.
    let odd = |c: char| !(c.is_ascii_alphanumeric() || "\"_-. ".contains(c));
    if objects.len() <= AT_ONCE || role.contains(odd) {
        return format!("GRANT SELECT ON LARGE OBJECT {} TO {role}", objects.join(", "));
    }
    format!(
        "DO $$ DECLARE l record; BEGIN FOR l IN SELECT oid FROM pg_catalog.pg_largeobject_metadata LOOP EXECUTE \
         pg_catalog.format('GRANT SELECT ON LARGE OBJECT %s TO {role}', l.oid); END LOOP; END $$"
    )
}

fn some_of(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let shown = names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cure_names_each_statement_once() {
        let table = |n: usize| Unreadable {
            kind: UnreadableKind::Table,
            name: format!("public.t{n}"),
            schema: None,
        };
        let tables = |count: usize, major: u32| cure(&(0..count).map(table).collect::<Vec<_>>(), "r", major);
        let everything = "GRANT pg_read_all_data TO r";
        let one = "GRANT SELECT ON public.t0 TO r";
        assert_eq!(tables(1, 15), format!("{one}; or for everything: {everything}"));
        assert_eq!(tables(1, 13), one);
        assert_eq!(tables(AT_ONCE, 15), everything);
    }

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(some_of(&["a", "b"]), "a, b");
        assert_eq!(
            some_of(&["1", "2", "3", "4", "5", "6", "7"]),
            "1, 2, 3, 4, 5 and 2 more"
        );
    }
}

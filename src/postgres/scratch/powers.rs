//! The privileges in a throwaway server. No role of the backup is a superuser there, whatever it was in the source,
//! so a function that runs with its owner's privileges gets no dangerous ones. The role that loads the data is a
//! member of all owners.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};

use super::super::Session;
use super::failed;
use crate::error::Result;
use crate::postgres::quoting::{identifier, qualified};

/// Memberships that give access to programs and files of the machine: a drill grants them to no role.
const DANGEROUS: &str = "'pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files'";

/// Other privileges of a superuser that give no way out of the server; granted if this major version has them.
const HARMLESS: [&str; 7] = [
    "pg_read_all_data",
    "pg_write_all_data",
    "pg_maintain",
    "pg_read_all_settings",
    "pg_read_all_stats",
    "pg_stat_scan_tables",
    "pg_monitor",
];

/// The first major version in which the privilege to change a setting can be granted.
const GRANTS_SETTINGS: u32 = 15;

/// How long other roles' sessions may take to end.
const QUIET: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// The position of a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequencePosition {
    sequence: u32,
    name: String,
    last_value: i64,
    is_called: bool,
}

impl SequencePosition {
    /// Without its schema.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The privileges on schemas before a change, by the schema's OID.
pub struct SchemaGrants(Vec<(u32, Option<String>)>);

impl Session {
    /// Makes every role except this session's an ordinary one, and returns the former superusers.
    pub async fn lower_roles(&self) -> Result<Vec<String>> {
        let were = self
            .texts(
                "SELECT rolname::pg_catalog.text FROM pg_catalog.pg_roles WHERE rolsuper AND rolname <> current_user",
            )
            .await?;
        let dangerous = format!(
            "DELETE FROM pg_catalog.pg_auth_members WHERE roleid IN
             (SELECT oid FROM pg_catalog.pg_roles WHERE rolname IN ({DANGEROUS}))"
        );
        let mut statements = vec![
            // As superusers they bypassed row-level security.
            "UPDATE pg_catalog.pg_authid SET rolbypassrls = rolbypassrls OR rolsuper, rolsuper = false,
               rolcreaterole = false, rolreplication = false
             WHERE rolname <> current_user",
            &dangerous,
        ];
        if self.server().major >= GRANTS_SETTINGS {
            statements.push("DELETE FROM pg_catalog.pg_parameter_acl");
        }
        for statement in statements {
            self.execute(statement).await?;
        }
        for role in &were {
            self.grant_harmless(role).await?;
        }
        Ok(were)
    }

    /// Makes a role that may log in, and may do to every object what its owner may.
    pub async fn make_loader(&self, name: &str, password: &SecretString) -> Result<()> {
        let roles = self
            .texts("SELECT rolname::pg_catalog.text FROM pg_catalog.pg_roles WHERE rolname !~ '^pg_' AND rolname <> current_user")
            .await?;
        let (loader, password) = (identifier(name), password.expose_secret());
        self.execute(&format!("CREATE ROLE {loader} LOGIN BYPASSRLS PASSWORD '{password}'"))
            .await?;
        for role in roles {
            self.execute(&format!("GRANT {} TO {loader}", identifier(&role)))
                .await?;
        }
        self.grant_harmless(name).await
    }

    async fn grant_harmless(&self, role: &str) -> Result<()> {
        let there = self
            .texts("SELECT rolname::pg_catalog.text FROM pg_catalog.pg_roles")
            .await?;
        for right in HARMLESS.iter().filter(|right| there.iter().any(|role| role == *right)) {
            self.execute(&format!("GRANT {right} TO {}", identifier(role))).await?;
        }
        Ok(())
    }

    /// Only a superuser may own some objects. No code of the backup may run while its roles are superusers.
    pub async fn set_superusers(&self, roles: &[String], are: bool) -> Result<()> {
        for role in roles {
            let word = if are { "SUPERUSER" } else { "NOSUPERUSER" };
            self.execute(&format!("ALTER ROLE {} {word}", identifier(role))).await?;
        }
        Ok(())
    }

    /// Ends everything that runs as another role: sessions, and background workers that they have left. (The server's
    /// own workers have no role, or this session's.)
    pub async fn end_others(&self) -> Result<()> {
        const OTHERS: &str =
            "SELECT pg_catalog.pg_terminate_backend(pid)::pg_catalog.text FROM pg_catalog.pg_stat_activity
             WHERE usename <> current_user";
        let until = Instant::now() + QUIET;
        while !self.texts(OTHERS).await?.is_empty() {
            if Instant::now() > until {
                return Err(failed("a session of the restore does not end"));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Languages in which every role may write functions.
    pub async fn trusted_languages(&self) -> Result<HashSet<String>> {
        let names = self.texts("SELECT lanname::pg_catalog.text FROM pg_catalog.pg_language WHERE lanpltrusted");
        Ok(names.await?.into_iter().collect())
    }

    /// Languages that check a new function only by code in C, or not at all. A validator in another language does
    /// what its owner wants.
    pub async fn inert_languages(&self) -> Result<HashSet<String>> {
        let names = self.texts(
            "SELECT l.lanname::pg_catalog.text FROM pg_catalog.pg_language l
             LEFT JOIN pg_catalog.pg_proc p ON p.oid = l.lanvalidator
             LEFT JOIN pg_catalog.pg_language w ON w.oid = p.prolang
             WHERE l.lanvalidator = 0 OR w.lanname IN ('c', 'internal')",
        );
        Ok(names.await?.into_iter().collect())
    }

    /// Functions in C that belong to extensions, by schema and name.
    pub async fn native_functions(&self) -> Result<HashSet<(String, String)>> {
        let failed = |error| self.error("cannot look at the extensions' functions", &error);
        let rows = self
            .client
            .query(
                "SELECT n.nspname::pg_catalog.text, p.proname::pg_catalog.text FROM pg_catalog.pg_proc p
                 JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
                 JOIN pg_catalog.pg_language l ON l.oid = p.prolang AND l.lanname = 'c'
                 JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                   AND d.objid = p.oid AND d.deptype = 'e'",
                &[],
            )
            .await
            .map_err(failed)?;
        let pair = |row: &tokio_postgres::Row| Ok((row.try_get(0)?, row.try_get(1)?));
        let pairs = rows
            .iter()
            .map(pair)
            .collect::<std::result::Result<_, tokio_postgres::Error>>();
        pairs.map_err(failed)
    }

    /// Settings that not every role may set.
    pub async fn guarded_settings(&self) -> Result<HashSet<String>> {
        let names = self.texts("SELECT name FROM pg_catalog.pg_settings WHERE context <> 'user'");
        Ok(names.await?.into_iter().collect())
    }

    /// Lets every role make objects in every schema, because an owner in the source may lack the privilege to make
    /// what it owns. Returns the former privileges.
    pub async fn open_schemas(&self) -> Result<SchemaGrants> {
        let failed = |error| self.error("cannot look at the schemas", &error);
        let rows = self
            .client
            .query(
                "SELECT oid, nspname::pg_catalog.text, nspacl::pg_catalog.text FROM pg_catalog.pg_namespace
                 WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'",
                &[],
            )
            .await
            .map_err(failed)?;
        let mut grants = Vec::new();
        for row in rows {
            let name: String = row.try_get(1).map_err(failed)?;
            self.execute(&format!(
                "GRANT USAGE, CREATE ON SCHEMA {} TO PUBLIC",
                identifier(&name)
            ))
            .await?;
            grants.push((row.try_get(0).map_err(failed)?, row.try_get(2).map_err(failed)?));
        }
        Ok(SchemaGrants(grants))
    }

    pub async fn close_schemas(&self, were: &SchemaGrants) -> Result<()> {
        for (schema, grants) in &were.0 {
            self.client
                .execute(
                    "UPDATE pg_catalog.pg_namespace SET nspacl = ($2::pg_catalog.text)::pg_catalog.aclitem[] WHERE oid OPERATOR(pg_catalog.=) $1",
                    &[schema, grants],
                )
                .await
                .map_err(|error| self.error("cannot close the schemas again", &error))?;
        }
        Ok(())
    }

    /// Lets every role make schemas in this database, because the later owner of a schema must be able to make it.
    pub async fn open_database(&self, name: &str, loader: &str) -> Result<()> {
        for statement in [
            format!("GRANT CREATE, TEMPORARY ON DATABASE {} TO PUBLIC", identifier(name)),
            format!(
                "ALTER DEFAULT PRIVILEGES FOR ROLE {} GRANT USAGE, CREATE ON SCHEMAS TO PUBLIC",
                identifier(loader)
            ),
        ] {
            self.execute(&statement).await?;
        }
        self.open_schemas().await?;
        // A script grants privileges on the schema, which only its owner may do.
        self.execute(&format!("ALTER SCHEMA public OWNER TO {}", identifier(loader)))
            .await
    }

    /// Makes it in the server's own folder, because the source's disks are not here.
    pub async fn make_tablespace(&self, name: &str) -> Result<()> {
        let name = identifier(name);
        self.execute("SET allow_in_place_tablespaces = on").await?;
        self.execute(&format!("CREATE TABLESPACE {name} LOCATION ''")).await?;
        self.execute(&format!("GRANT CREATE ON TABLESPACE {name} TO PUBLIC"))
            .await
    }

    /// From now on new schemas belong to their owners alone again. The schema `public` gets its former owner back,
    /// unless the script has changed its owner or dropped it.
    pub async fn close_database(&self, loader: &str) -> Result<()> {
        let owners = "SELECT pg_catalog.pg_get_userbyid(nspowner)::pg_catalog.text FROM pg_catalog.pg_namespace
             WHERE nspname OPERATOR(pg_catalog.=) 'public'";
        if self.texts(owners).await? == [loader] {
            let first = "SELECT coalesce((SELECT rolname::pg_catalog.text FROM pg_catalog.pg_roles
                           WHERE rolname OPERATOR(pg_catalog.=) 'pg_database_owner'), current_user::pg_catalog.text)";
            for owner in self.texts(first).await? {
                self.execute(&format!("ALTER SCHEMA public OWNER TO {}", identifier(&owner)))
                    .await?;
            }
        }
        self.execute(&format!(
            "ALTER DEFAULT PRIVILEGES FOR ROLE {} REVOKE USAGE, CREATE ON SCHEMAS FROM PUBLIC",
            identifier(loader)
        ))
        .await
    }

    /// The positions of the database's sequences. Reading a sequence calls no function.
    pub async fn sequence_positions(&self) -> Result<Vec<SequencePosition>> {
        let failed = |error| self.error("cannot look at the sequences", &error);
        let sequences = self
            .client
            .query(
                "SELECT c.oid, n.nspname::pg_catalog.text, c.relname::pg_catalog.text FROM pg_catalog.pg_class c
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'S' ORDER BY c.oid",
                &[],
            )
            .await
            .map_err(failed)?;
        let mut positions = Vec::with_capacity(sequences.len());
        for row in sequences {
            let (schema, name): (String, String) = (row.try_get(1).map_err(failed)?, row.try_get(2).map_err(failed)?);
            let sql = format!("SELECT last_value, is_called FROM {}", qualified(&schema, &name));
            let at = self.client.query_one(&sql, &[]).await.map_err(failed)?;
            positions.push(SequencePosition {
                sequence: row.try_get(0).map_err(failed)?,
                name,
                last_value: at.try_get(0).map_err(failed)?,
                is_called: at.try_get(1).map_err(failed)?,
            });
        }
        Ok(positions)
    }

    /// Resets the sequences whose position has changed.
    pub async fn reset_sequences(&self, were: &[SequencePosition]) -> Result<()> {
        let are = self.sequence_positions().await?;
        for was in were.iter().filter(|was| !are.contains(was)) {
            self.client
                .execute(
                    "SELECT pg_catalog.setval(($1::pg_catalog.oid)::pg_catalog.regclass, $2, $3)
                     WHERE EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid OPERATOR(pg_catalog.=) $1)",
                    &[&was.sequence, &was.last_value, &was.is_called],
                )
                .await
                .map_err(|error| self.error("cannot move a sequence back", &error))?;
        }
        Ok(())
    }

    /// Moves a sequence of this name back to this position, if it is beyond it.
    pub async fn move_sequence_back(&self, name: &str, value: i64, is_called: bool) -> Result<()> {
        self.client
            .execute(
                "SELECT pg_catalog.setval(s.seqrelid::pg_catalog.regclass, $2, $3)
                 FROM (SELECT s.seqrelid, s.seqincrement, s.seqcycle, pg_catalog.pg_sequence_last_value(s.seqrelid) AS at
                       FROM pg_catalog.pg_sequence s WHERE s.seqrelid = pg_catalog.to_regclass($1)) AS s
                 WHERE s.at > $2 AND s.seqincrement > 0 OR s.at < $2 AND s.seqincrement < 0
                    OR s.at = $2 AND NOT $3 OR s.at IS NOT NULL AND s.seqcycle",
                &[&name, &value, &is_called],
            )
            .await
            .map_err(|error| self.error("cannot move a sequence back", &error))?;
        Ok(())
    }

    /// The inner error shows that the server cannot make the database in this form: it does not know an option, or
    /// the machine lacks a locale.
    pub async fn create_database(&self, statement: &str) -> Result<Result<()>> {
        match self.client.batch_execute(statement).await {
            Ok(()) => Ok(Ok(())),
            Err(error) => {
                let of_an_option = error
                    .code()
                    .is_some_and(|state| ["0A", "22", "42"].contains(&&state.code()[..2]));
                match self.refused(&error) {
                    refused if of_an_option => Ok(Err(refused)),
                    refused => Err(refused),
                }
            }
        }
    }

    /// Removes a database, even if it has objects that would stop the server from dropping it.
    pub async fn drop_database(&self, name: &str) -> Result<()> {
        self.end_others().await?;
        for statement in [
            // Dropping a subscription would connect to its publisher.
            "DELETE FROM pg_catalog.pg_subscription",
            &format!("DROP DATABASE {}", identifier(name)),
        ] {
            self.execute(statement).await?;
        }
        Ok(())
    }

    async fn texts(&self, sql: &str) -> Result<Vec<String>> {
        let failed = |error| self.error("cannot look at the throwaway server", &error);
        let rows = self.client.query(sql, &[]).await.map_err(failed)?;
        rows.iter()
            .map(|row| row.try_get(0))
            .collect::<Result<_, _>>()
            .map_err(failed)
    }
}

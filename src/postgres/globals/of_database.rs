//! Settings of a database, as pg_dump writes them: for a throwaway database.

use super::setting_power::{Might, might};
use super::wanted;
use crate::error::Result;
use crate::postgres::Session;
use crate::postgres::quoting::{identifier, literal};

/// A setting for all roles, or for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseSetting {
    pub role: Option<String>,
    /// In lower case.
    pub name: String,
    pub values: Vec<String>,
}

impl DatabaseSetting {
    /// `None` for any other statement than those that pg_dump writes.
    pub fn parse(statement: &str) -> Option<Self> {
        let statement = statement.trim_end();
        let (role, name, values) = wanted::of_database(statement.strip_suffix(';').unwrap_or(statement))?;
        Some(Self { role, name, values })
    }

    /// The statement that gives it to a database, for all roles: written anew.
    pub fn making(&self, database: &str) -> String {
        format!("ALTER DATABASE {} SET {}", identifier(database), self.value())
    }

    /// Its name and role for a message, and the statement without the value: a value may be the owner's secret.
    pub fn told(&self, database: &str) -> (String, String) {
        let (database, name) = (identifier(database), identifier(&self.name));
        let (what, whose) = match &self.role {
            None => ("ALTER DATABASE …".to_owned(), format!("ALTER DATABASE {database}")),
            Some(role) => {
                let role = identifier(role);
                let what = format!("ALTER ROLE {role} IN DATABASE …");
                (what, format!("ALTER ROLE {role} IN DATABASE {database}"))
            }
        };
        (format!("{what} SET {}", self.name), format!("{whose} SET {name} TO …"))
    }

    fn value(&self) -> String {
        let values: Vec<String> = self.values.iter().map(|value| literal(value)).collect();
        format!("{} TO {}", identifier(&self.name), values.join(", "))
    }
}

impl Session {
    /// Whether the role may set it for a database. The server asks the same for a role, which can be tried in any
    /// database and leaves nothing behind.
    pub async fn may_keep(&self, setting: &DatabaseSetting) -> Result<bool> {
        self.takes(&format!("ALTER ROLE CURRENT_USER SET {}", setting.value()))
            .await
    }

    /// Whether the role's sessions may have it.
    pub async fn may_have(&self, setting: &DatabaseSetting) -> Result<bool> {
        self.takes(&format!("SET LOCAL {}", setting.value())).await
    }

    /// For each, whether it gives no power over a session and loads no code. A setting that belongs to a library of
    /// the server, or may belong to one, is not harmless.
    pub async fn are_harmless(&self, settings: &[DatabaseSetting]) -> Result<Vec<bool>> {
        let libraries = self.libraries().await?;
        let is_harmless = |setting: &DatabaseSetting| might(&setting.name, &libraries) == Might::Harmless;
        Ok(settings.iter().map(is_harmless).collect())
    }

    /// The settings of a role of this server for all databases; a list is the text that the server keeps.
    pub async fn settings_of_role(&self, role: &str) -> Result<Vec<DatabaseSetting>> {
        let failed = |error| self.error("cannot look at a role's settings", &error);
        let question = "SELECT pg_catalog.unnest(s.setconfig) FROM pg_catalog.pg_db_role_setting s
                        JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) s.setrole
                        WHERE s.setdatabase OPERATOR(pg_catalog.=) 0 AND r.rolname OPERATOR(pg_catalog.=) $1";
        let rows = self.client.query(question, &[&role]).await.map_err(failed)?;
        let mut settings = Vec::new();
        for row in &rows {
            let text: String = row.try_get(0).map_err(failed)?;
            if let Some((name, value)) = text.split_once('=') {
                settings.push(DatabaseSetting {
                    role: Some(role.to_owned()),
                    name: name.to_lowercase(),
                    values: vec![value.to_owned()],
                });
            }
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pg_dump_says_of_a_database_is_written_anew_and_nothing_else_is_understood() {
        let made = |statement: &str| DatabaseSetting::parse(statement).map(|setting| setting.making("new"));
        for (statement, role, expected) in [
            (
                "ALTER DATABASE \"Sh\"\"op\" SET \"TimeZone\" TO 'Asia/Tokyo';",
                None,
                "ALTER DATABASE \"new\" SET \"timezone\" TO 'Asia/Tokyo'",
            ),
            (
                "ALTER DATABASE shop SET \"my.tenant\" TO 'it''s; 7';\n",
                None,
                "ALTER DATABASE \"new\" SET \"my.tenant\" TO 'it''s; 7'",
            ),
            (
                "ALTER ROLE \"a SET b\" IN DATABASE shop SET search_path TO 'x', 'y';",
                Some("a SET b"),
                "ALTER DATABASE \"new\" SET \"search_path\" TO 'x', 'y'",
            ),
        ] {
            assert_eq!(made(statement).as_deref(), Some(expected));
            assert_eq!(DatabaseSetting::parse(statement).unwrap().role.as_deref(), role);
        }
        for other in [
            "ALTER DATABASE shop SET TABLESPACE fast;",
            "ALTER DATABASE shop CONNECTION LIMIT = 7;",
            "ALTER DATABASE shop SET x TO 'a'; DROP ROLE b;",
            "ALTER DATABASE shop SET x TO 'a', current_user;",
            "ALTER ROLE a SET x TO 'b';",
            "ALTER ROLE a WITH SUPERUSER;",
            "COMMENT ON DATABASE shop IS 'SET x TO ''y''';",
            "",
        ] {
            assert_eq!(made(other), None, "{other}");
        }
    }
}

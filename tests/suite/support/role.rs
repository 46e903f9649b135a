//! A login role of a test's own, gone when the test is.

use super::database::{Database, psql, quoted, try_psql, unique_word};
use super::services::postgres_url;

pub struct Role {
    pub name: String,
    pub password: String,
    major: u32,
}

impl Role {
    /// One that may read everything.
    pub fn reader(database: &Database, password: &str) -> Self {
        Self::fresh(database, password, "IN ROLE pg_read_all_data")
    }

    /// With further words of CREATE ROLE.
    pub fn fresh(database: &Database, password: &str, attributes: &str) -> Self {
        let role = Self {
            name: format!("role_{}", unique_word()),
            password: password.to_owned(),
            major: database.major,
        };
        role.command("CREATE", &format!("LOGIN PASSWORD {} {attributes}", literal(password)));
        role
    }

    pub fn change_password(&self, password: &str) {
        self.command("ALTER", &format!("PASSWORD {}", literal(password)));
    }

    fn command(&self, verb: &str, rest: &str) {
        let script = format!("{verb} ROLE {} {rest}", quoted(&self.name));
        psql(self.major, &postgres_url(self.major), &script);
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let script = format!("DROP ROLE {}", quoted(&self.name));
        drop(try_psql(self.major, &postgres_url(self.major), &script));
    }
}

/// As a server takes it whose `standard_conforming_strings` is on.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

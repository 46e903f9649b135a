//! `globals.sql`: filtered on its way into a backup ([`sieve`]), and restored from it: roles, memberships and their
//! settings. Each statement runs separately, because some of the roles may exist already. pgstow writes each
//! statement anew from what it has parsed, and never runs the file's own text.

mod again;
mod of_database;
mod plan;
mod setting_power;
mod sieve;
mod split;
mod wanted;

use std::collections::BTreeSet;

use super::Session;
use super::refusal::classify;
use crate::error::Result;
use plan::{Present, plan};

pub use again::ComparedGlobals;
pub use of_database::DatabaseSetting;
pub use plan::{GlobalsPlan, WITHHELD};
pub use sieve::Globals;
pub(super) use sieve::Sieve;
pub use split::{Statement, statements};

/// How much power the restored roles may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Powers {
    /// None over the server, and none over existing roles.
    Roles,
    /// As in the backup, because the user asked for it.
    Privileged,
    /// As in the backup, on a throwaway server; the roles that it started with get none.
    Throwaway,
}

/// A statement that is not run, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Omitted {
    pub what: String,
    pub why: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppliedGlobals {
    pub done: usize,
    /// Roles and other objects that existed already.
    pub existing: usize,
    /// What could not be done, and the reason.
    pub notes: Vec<String>,
    /// The roles that were made.
    pub made: Vec<String>,
    /// Statements that ran and give power over the server, in words without values.
    pub privileged: Vec<String>,
    /// Steps of the plan that failed, or whose object existed already.
    undone: BTreeSet<usize>,
    /// Steps that could only be done in another form.
    otherwise: BTreeSet<usize>,
}

const EXISTS: &str = "42710";

impl Session {
    /// Compares the statements with the roles of this server; changes nothing.
    pub async fn plan_globals(&self, statements: &[Statement], powers: Powers) -> Result<GlobalsPlan> {
        let mut asked = Vec::new();
        let mut encoding = "UTF8".to_owned();
        for statement in statements {
            if let Some(set) = statement.client_encoding() {
                encoding = set;
            }
            let text = self.decoded(statement, &encoding).await?;
            asked.push((statement.clone(), text.as_deref().and_then(wanted::wanted)));
        }
        Ok(plan(asked, &self.present().await?, powers))
    }

    async fn present(&self) -> Result<Present> {
        let failed = |error| self.error("cannot look at the target's roles", &error);
        let roles = self
            .client
            .query(
                "SELECT rolname::pg_catalog.text, rolsuper, rolcreaterole, rolreplication, rolbypassrls FROM pg_catalog.pg_roles",
                &[],
            )
            .await
            .map_err(failed)?;
        let memberships = self
            .client
            .query(
                "SELECT granted.rolname::pg_catalog.text, member.rolname::pg_catalog.text
                 FROM pg_catalog.pg_auth_members m
                 JOIN pg_catalog.pg_roles granted ON granted.oid OPERATOR(pg_catalog.=) m.roleid
                 JOIN pg_catalog.pg_roles member ON member.oid OPERATOR(pg_catalog.=) m.member",
                &[],
            )
            .await
            .map_err(failed)?;
        let mut powers = BTreeSet::new();
        for row in &roles {
            for (at, power) in ["SUPERUSER", "CREATEROLE", "REPLICATION", "BYPASSRLS"]
                .into_iter()
                .enumerate()
            {
                if row.try_get(at + 1).map_err(failed)? {
                    powers.insert((row.try_get(0).map_err(failed)?, power));
                }
            }
        }
        let roles = roles.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>();
        let pairs = memberships.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        Ok(Present {
            roles: roles.map_err(failed)?,
            powers,
            memberships: pairs.collect::<Result<_, _>>().map_err(failed)?,
            libraries: self.libraries().await?,
            major: self.server().major,
        })
    }

    /// Prefixes of the settings of libraries that the server has, or may have. A setting without a library is in no
    /// list.
    async fn libraries(&self) -> Result<BTreeSet<String>> {
        let failed = |error| self.error("cannot look at the settings of libraries", &error);
        let libraries = self
            .client
            .query(
                "SELECT name::pg_catalog.text FROM pg_catalog.pg_available_extensions
                 UNION SELECT pg_catalog.split_part(name, '.', 1) FROM pg_catalog.pg_settings
                 WHERE pg_catalog.strpos(name, '.') OPERATOR(pg_catalog.>) 0",
                &[],
            )
            .await
            .map_err(failed)?;
        let names = libraries.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>();
        names.map_err(failed)
    }

    /// Runs the plan. A statement that fails becomes a note; only a lost connection is an error.
    pub async fn apply_globals(&self, plan: &GlobalsPlan) -> Result<AppliedGlobals> {
        let mut applied = AppliedGlobals {
            existing: plan.existing,
            ..AppliedGlobals::default()
        };
        let mut made: BTreeSet<&str> = BTreeSet::new();
        // The role's own default may forbid writing.
        self.execute("SET default_transaction_read_only = off").await?;
        for (number, step) in plan.steps.iter().enumerate() {
            if !step.needs.iter().all(|role| made.contains(role.as_str())) {
                applied.existing += 1;
                applied.undone.insert(number);
                continue;
            }
            let mut done = self.client.batch_execute(&step.sql).await;
            if let (Some(otherwise), Err(first)) = (&step.otherwise, &done)
                && !self.client.is_closed()
                && first.code().is_none_or(|state| state.code() != EXISTS)
            {
                let why = classify(first, &self.redactor);
                done = self.client.batch_execute(otherwise).await;
                applied.otherwise.insert(number);
                // The grantor of a membership matters little; a missing ability of a role matters.
                if done.is_ok() && step.makes.is_some() {
                    let sql = split::summary(step.sql.as_bytes());
                    applied
                        .notes
                        .push(format!("{sql}: done without CREATEDB: {}", why.message()));
                }
            }
            if done.is_err() {
                applied.undone.insert(number);
            }
            match done {
                Ok(()) => {
                    applied.done += 1;
                    made.extend(step.makes.as_deref());
                    applied.made.extend(step.makes.clone());
                    if step.privileged {
                        applied.privileged.push(split::summary(step.sql.as_bytes()));
                    }
                }
                Err(error) if self.client.is_closed() => {
                    return Err(self.error("the connection was lost while roles were made", &error));
                }
                Err(error) if error.code().is_some_and(|state| state.code() == EXISTS) => applied.existing += 1,
                Err(error) => applied.notes.push(format!(
                    "{}: {}",
                    split::summary(step.sql.as_bytes()),
                    classify(&error, &self.redactor).message()
                )),
            }
        }
        Ok(applied)
    }

    /// Decodes a statement: pg_dumpall writes in the encoding of the database that it was connected to. `None` if the
    /// text is not valid in that encoding.
    async fn decoded(&self, statement: &Statement, encoding: &str) -> Result<Option<String>> {
        let bytes = statement.bytes();
        // Bytes in another encoding may also be valid UTF-8 by chance.
        let is_utf8 = bytes.is_ascii() || ["UTF8", "SQL_ASCII"].contains(&encoding);
        if let (Ok(text), true) = (std::str::from_utf8(bytes), is_utf8) {
            return Ok(Some(text.to_owned()));
        }
        let row = self
            .client
            .query_one(
                "SELECT pg_catalog.convert_from($1, $2::pg_catalog.text::pg_catalog.name)",
                &[&bytes, &encoding],
            )
            .await;
        match row.and_then(|row| row.try_get::<_, String>(0)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if self.client.is_closed() => {
                Err(self.error("the connection was lost while roles were read", &error))
            }
            Err(_) => Ok(None),
        }
    }
}

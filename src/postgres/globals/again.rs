//! Compares the roles of a server with `globals.sql`: they should have exactly what they were given. Statements that
//! were not run are reported where they were left out, and not here again.

mod comparing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio_postgres::Row;

use super::plan::GlobalsPlan;
use super::wanted::Wanted;
use super::{AppliedGlobals, Omitted};
use crate::error::Result;
use crate::postgres::Session;

use comparing::compare;

/// The first major version in which a membership has more options than `ADMIN`, and several roles can grant it.
const OPTIONS: u32 = 16;

/// The result of the comparison.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ComparedGlobals {
    /// Roles that are as the file says.
    pub equal: usize,
    /// What differs, and how.
    pub differences: Vec<(String, String)>,
    pub not_proved: Vec<Omitted>,
}

#[derive(Debug, Default)]
struct There {
    roles: BTreeMap<String, Role>,
    settings: BTreeMap<SettingKey, String>,
    comments: BTreeMap<String, String>,
    memberships: Vec<Granted>,
    /// Times in the file, with the form in which the server prints them.
    times: HashMap<String, String>,
    major: u32,
    /// The session's own role.
    user: String,
}

/// Role, database and name of a setting.
type SettingKey = (String, Option<String>, String);

#[derive(Debug, Default)]
struct Role {
    /// As in `CREATE ROLE`, if they are not the default.
    words: BTreeSet<String>,
    until: Option<String>,
    has_password: bool,
}

#[derive(Debug)]
struct Granted {
    granted: String,
    member: String,
    grantor: Option<String>,
    admin: bool,
    /// If this major version has them.
    inherit: Option<bool>,
    set: Option<bool>,
}

impl Session {
    /// Compares the roles that `plan` has made, with everything that it gave them.
    pub async fn compare_globals(&self, plan: &GlobalsPlan, applied: &AppliedGlobals) -> Result<ComparedGlobals> {
        let mut there = self.roles_there().await?;
        let of_roles = plan.asked.iter().filter_map(|asked| match &asked.wanted {
            Wanted::Attributes { attributes, .. } => attributes.until.clone(),
            _ => None,
        });
        for until in of_roles {
            let question = "SELECT ($1::pg_catalog.text)::pg_catalog.timestamptz::pg_catalog.text";
            // A time that the server does not understand was not given.
            if let Ok(row) = self.client.query_one(question, &[&until]).await
                && let Ok(Some(time)) = row.try_get(0)
            {
                there.times.insert(until, time);
            }
        }
        Ok(compare(plan, applied, &there))
    }

    async fn roles_there(&self) -> Result<There> {
        let failed = |error| self.error("cannot look at the roles", &error);
        let ask = |question: String| async move { self.client.query(question.as_str(), &[]).await };
        let roles = ask(
            "SELECT r.rolname::pg_catalog.text, r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb, \
                                r.rolcanlogin, r.rolreplication, r.rolbypassrls, r.rolconnlimit, \
                                r.rolvaliduntil::pg_catalog.text, r.rolpassword IS NOT NULL \
                           FROM pg_catalog.pg_authid r"
                .to_owned(),
        );
        let roles = roles.await.map_err(failed)?;
        let settings = ask(
            "SELECT r.rolname::pg_catalog.text, d.datname::pg_catalog.text, one.setting \
                              FROM pg_catalog.pg_db_role_setting s \
                             CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS one (setting) \
                              JOIN pg_catalog.pg_authid r ON r.oid OPERATOR(pg_catalog.=) s.setrole \
                              LEFT JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) s.setdatabase"
                .to_owned(),
        );
        let settings = settings.await.map_err(failed)?;
        let comments = ask("SELECT r.rolname::pg_catalog.text, d.description \
                              FROM pg_catalog.pg_shdescription d \
                              JOIN pg_catalog.pg_authid r ON r.oid OPERATOR(pg_catalog.=) d.objoid \
                             WHERE d.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_authid'::pg_catalog.regclass"
            .to_owned());
        let comments = comments.await.map_err(failed)?;
        let major = self.server().major;
        let options = match major >= OPTIONS {
            true => "a.inherit_option, a.set_option",
            false => "NULL::pg_catalog.bool, NULL::pg_catalog.bool",
        };
        let memberships = ask(format!(
            "SELECT g.rolname::pg_catalog.text, m.rolname::pg_catalog.text, b.rolname::pg_catalog.text, \
                    a.admin_option, {options} \
               FROM pg_catalog.pg_auth_members a \
               JOIN pg_catalog.pg_authid g ON g.oid OPERATOR(pg_catalog.=) a.roleid \
               JOIN pg_catalog.pg_authid m ON m.oid OPERATOR(pg_catalog.=) a.member \
               LEFT JOIN pg_catalog.pg_authid b ON b.oid OPERATOR(pg_catalog.=) a.grantor"
        ));
        let memberships = memberships.await.map_err(failed)?;
        Ok(There {
            roles: each(&roles, role).map_err(failed)?.into_iter().collect(),
            settings: each(&settings, setting)
                .map_err(failed)?
                .into_iter()
                .flatten()
                .collect(),
            comments: each(&comments, |row| Ok((row.try_get(0)?, row.try_get(1)?)))
                .map_err(failed)?
                .into_iter()
                .collect(),
            memberships: each(&memberships, granted).map_err(failed)?,
            times: HashMap::new(),
            major,
            user: self.server().user.clone(),
        })
    }
}

type Read<T> = std::result::Result<T, tokio_postgres::Error>;

fn each<T>(rows: &[Row], read: impl Fn(&Row) -> Read<T>) -> Read<Vec<T>> {
    rows.iter().map(read).collect()
}

fn role(row: &Row) -> Read<(String, Role)> {
    let mut role = Role {
        until: row.try_get(9)?,
        has_password: row.try_get(10)?,
        ..Role::default()
    };
    let words: [(usize, &str); 6] = [
        (1, "SUPERUSER"),
        (3, "CREATEROLE"),
        (4, "CREATEDB"),
        (5, "LOGIN"),
        (6, "REPLICATION"),
        (7, "BYPASSRLS"),
    ];
    for (column, word) in words {
        if row.try_get::<_, bool>(column)? {
            role.words.insert(word.to_owned());
        }
    }
    if !row.try_get::<_, bool>(2)? {
        role.words.insert("NOINHERIT".to_owned());
    }
    let limit: i32 = row.try_get(8)?;
    if limit != -1 {
        role.words.insert(format!("CONNECTION LIMIT {limit}"));
    }
    Ok((row.try_get(0)?, role))
}

fn setting(row: &Row) -> Read<Option<(SettingKey, String)>> {
    let (role, database, setting): (String, Option<String>, String) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let pair = setting.split_once('=');
    Ok(pair.map(|(name, value)| ((role, database, name.to_lowercase()), value.to_owned())))
}

fn granted(row: &Row) -> Read<Granted> {
    Ok(Granted {
        granted: row.try_get(0)?,
        member: row.try_get(1)?,
        grantor: row.try_get(2)?,
        admin: row.try_get(3)?,
        inherit: row.try_get(4)?,
        set: row.try_get(5)?,
    })
}

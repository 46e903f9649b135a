//! Compares the roles of a server with `globals.sql`: they should have exactly what they were given. Statements that
//! were not run are reported where they were left out, and not here again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio_postgres::Row;

use super::plan::GlobalsPlan;
use super::wanted::{Attributes, Membership, Wanted};
use super::{AppliedGlobals, Omitted};
use crate::error::Result;
use crate::postgres::Session;
use crate::postgres::quoting::identifier;

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

/// The attributes that differ from the default, with numbers as a server prints them.
fn words(attributes: &Attributes) -> BTreeSet<String> {
    const LIMIT: &str = "CONNECTION LIMIT ";
    let powers = attributes.privileged.iter().map(|&word| word.to_owned());
    let plain = attributes
        .plain
        .iter()
        .filter_map(|word| match word.strip_prefix(LIMIT) {
            Some(limit) => match limit.parse::<i64>() {
                Ok(-1) => None,
                Ok(limit) => Some(format!("{LIMIT}{limit}")),
                Err(_) => Some(word.clone()),
            },
            None => (!word.starts_with("VALID UNTIL ")).then(|| word.clone()),
        });
    powers.chain(plain).collect()
}

/// A list is stored with commas, and with quotes around some of its names.
fn bare(value: &str) -> String {
    value.replace('"', "")
}

fn compare(plan: &GlobalsPlan, applied: &AppliedGlobals, there: &There) -> ComparedGlobals {
    let mut comparing = Comparing {
        there,
        made: applied.made.iter().map(String::as_str).collect(),
        compared: ComparedGlobals::default(),
        otherwise: BTreeSet::new(),
    };
    let mut asked = Asked::default();
    for one in &plan.asked {
        let done = !one.steps.is_empty() && one.steps.clone().all(|step| !applied.undone.contains(&step));
        let by_us = one.steps.clone().any(|step| applied.otherwise.contains(&step));
        match &one.wanted {
            Wanted::Attributes { role, attributes } => {
                asked.attributes.insert(role, attributes);
            }
            // It was made without CREATEDB, and a note says so.
            Wanted::Role(role) if done && !by_us => {
                asked.roles.insert(role);
            }
            Wanted::Setting {
                role,
                database,
                name,
                values,
            } if done => {
                let place = (role.clone(), database.clone(), name.to_lowercase());
                asked.settings.insert(place, values.join(", "));
            }
            Wanted::Comment { role, text } if done => {
                asked.comments.insert(role, text.as_deref());
            }
            Wanted::Membership(membership) if done => asked.memberships.push((membership, by_us)),
            Wanted::Role(_) | Wanted::Setting { .. } | Wanted::Comment { .. } | Wanted::Membership(_) => {}
        }
    }
    comparing.attributes(&asked);
    comparing.settings(&asked);
    comparing.comments(&asked);
    comparing.memberships(&asked);
    comparing.end(&asked)
}

/// What was asked for, and done.
#[derive(Default)]
struct Asked<'a> {
    roles: BTreeSet<&'a String>,
    attributes: BTreeMap<&'a String, &'a Attributes>,
    settings: BTreeMap<SettingKey, String>,
    comments: BTreeMap<&'a String, Option<&'a str>>,
    /// Also whether this session's role granted it, because the server accepted no other grantor.
    memberships: Vec<(&'a Membership, bool)>,
}

struct Comparing<'a> {
    there: &'a There,
    /// The roles that this run has made.
    made: BTreeSet<&'a str>,
    compared: ComparedGlobals,
    /// The roles that differ.
    otherwise: BTreeSet<String>,
}

impl Comparing<'_> {
    fn differs(&mut self, role: &str, what: String, how: String) {
        self.otherwise.insert(role.to_owned());
        self.compared.differences.push((what, how));
    }

    fn attributes(&mut self, asked: &Asked<'_>) {
        let there = self.there;
        for role in &asked.roles {
            let what = format!("ROLE {}", identifier(role));
            let Some(found) = there.roles.get(*role) else {
                self.differs(role, what, "is not there".into());
                continue;
            };
            let attributes = asked.attributes.get(role).copied();
            let wanted = attributes.map(words).unwrap_or_default();
            let mut how = Vec::new();
            how.extend(wanted.difference(&found.words).map(|word| format!("is not {word}")));
            let more = found.words.difference(&wanted);
            how.extend(more.map(|word| format!("is {word}, and not so in the backup")));
            let until = attributes.and_then(|attributes| attributes.until.as_ref());
            let until = until.and_then(|until| there.times.get(until));
            if until != found.until.as_ref() {
                how.push("is valid until another time than in the backup".into());
            }
            if found.has_password {
                how.push("has a password, which no backup of pgstow contains".into());
            }
            if !how.is_empty() {
                self.differs(role, what, how.join("; "));
            }
        }
    }

    fn settings(&mut self, asked: &Asked<'_>) {
        let there = self.there;
        let what = |(role, database, name): &SettingKey| {
            let within = database
                .as_ref()
                .map_or_else(String::new, |name| format!(" IN DATABASE {}", identifier(name)));
            format!("ALTER ROLE {}{within} SET {}", identifier(role), identifier(name))
        };
        for (place, wanted) in &asked.settings {
            match there.settings.get(place) {
                None => self.differs(&place.0, what(place), "is not set".into()),
                Some(found) if bare(found) != bare(wanted) => {
                    self.differs(&place.0, what(place), "is set to another value".into());
                }
                Some(_) => {}
            }
        }
        for place in there.settings.keys() {
            if self.made.contains(place.0.as_str()) && !asked.settings.contains_key(place) {
                self.differs(&place.0, what(place), "is set, and not in the backup".into());
            }
        }
    }

    fn comments(&mut self, asked: &Asked<'_>) {
        let there = self.there;
        for role in there.roles.keys() {
            if !self.made.contains(role.as_str()) {
                continue;
            }
            let wanted = asked.comments.get(role).copied().flatten();
            // An empty comment is the same as no comment.
            let wanted = wanted.filter(|text| !text.is_empty());
            if wanted != there.comments.get(role).map(String::as_str) {
                let what = format!("COMMENT ON ROLE {}", identifier(role));
                self.differs(role, what, "is not as in the backup".to_owned());
            }
        }
    }

    fn memberships(&mut self, asked: &Asked<'_>) {
        let there = self.there;
        let what = |granted: &str, member: &str| format!("GRANT {} TO {}", identifier(granted), identifier(member));
        let all = &asked.memberships;
        for (wanted, by_us) in all {
            let of_pair = |granted: &str, member: &str| granted == wanted.granted && member == wanted.member;
            let same = all.iter().filter(|(one, _)| of_pair(&one.granted, &one.member));
            // Before 16 there is only one of each, whatever the grantor.
            let merged = there.major < OPTIONS && same.clone().count() > 1;
            let admin = match merged {
                true => same.clone().any(|(one, _)| option(one, "ADMIN") == Some(true)),
                false => option(wanted, "ADMIN").unwrap_or(false),
            };
            let inherits = there
                .roles
                .get(&wanted.member)
                .is_none_or(|role| !role.words.contains("NOINHERIT"));
            let found: Vec<&Granted> = there
                .memberships
                .iter()
                .filter(|one| of_pair(&one.granted, &one.member))
                .collect();
            let fits = |one: &&Granted| {
                let inherit = option(wanted, "INHERIT").unwrap_or(inherits);
                let set = option(wanted, "SET").unwrap_or(true);
                one.admin == admin
                    && one.inherit.is_none_or(|found| found == inherit)
                    && one.set.is_none_or(|found| found == set)
            };
            let name = what(&wanted.granted, &wanted.member);
            let how = if found.is_empty() {
                Some("is not there")
            } else if !found.iter().any(fits) {
                Some("has other options than in the backup")
            } else {
                None
            };
            if let Some(how) = how {
                self.differs(&wanted.member, name, how.to_owned());
                continue;
            }
            let Some(grantor) = wanted.grantor.as_ref().filter(|_| !merged) else {
                continue;
            };
            let given_by = |by: &str| {
                let mut fitting = found.iter().filter(|one| fits(one));
                fitting.any(|one| one.grantor.as_deref() == Some(by))
            };
            if given_by(grantor) {
                continue;
            }
            // The source's first superuser is an ordinary role here; this session's superuser replaces it.
            let is_superuser = asked
                .attributes
                .get(grantor)
                .is_some_and(|attributes| attributes.privileged.contains(&"SUPERUSER"));
            let replaced = *by_us || !there.roles.contains_key(grantor);
            if !(replaced && given_by(&there.user)) {
                self.differs(
                    &wanted.member,
                    name,
                    "was granted by another role than in the backup".to_owned(),
                );
            } else if !is_superuser {
                self.compared.not_proved.push(Omitted {
                    what: name,
                    why: format!(
                        "{} may not grant it here: who has granted it is not compared",
                        identifier(grantor)
                    ),
                });
            }
        }
        for one in &there.memberships {
            let given =
                |(wanted, _): &(&Membership, bool)| (&wanted.granted, &wanted.member) == (&one.granted, &one.member);
            if self.made.contains(one.member.as_str()) && !all.iter().any(given) {
                let name = what(&one.granted, &one.member);
                self.differs(&one.member, name, "is there, and not in the backup".to_owned());
            }
        }
    }

    fn end(self, asked: &Asked<'_>) -> ComparedGlobals {
        let equal = asked.roles.iter().filter(|role| !self.otherwise.contains(**role));
        ComparedGlobals {
            equal: equal.count(),
            ..self.compared
        }
    }
}

/// The last value that the statement gives for it.
fn option(membership: &Membership, name: &str) -> Option<bool> {
    let said = membership.options.iter().rev().find(|(option, _)| *option == name);
    said.map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Present, plan};
    use super::super::wanted::wanted;
    use super::super::{Powers, statements};
    use super::*;

    const SQL: &str = "CREATE ROLE owner; ALTER ROLE owner WITH SUPERUSER;
        CREATE ROLE app; ALTER ROLE app WITH LOGIN CREATEROLE NOINHERIT CONNECTION LIMIT 07 VALID UNTIL '2030-01-01';
        ALTER ROLE app SET search_path TO 'a b', 'c'; ALTER ROLE app SET log_statement TO 'all';
        COMMENT ON ROLE app IS 'said'; CREATE ROLE team; ALTER ROLE team WITH CONNECTION LIMIT -1;
        GRANT team TO app WITH ADMIN OPTION, INHERIT FALSE GRANTED BY owner";

    fn planned() -> (GlobalsPlan, AppliedGlobals) {
        let asked = statements(SQL.as_bytes()).into_iter().map(|statement| {
            let wanted = wanted(std::str::from_utf8(statement.bytes()).unwrap());
            (statement, wanted)
        });
        let present = Present {
            major: 17,
            ..Present::default()
        };
        let applied = AppliedGlobals {
            made: ["owner", "app", "team"].map(str::to_owned).into(),
            ..AppliedGlobals::default()
        };
        (plan(asked.collect(), &present, Powers::Throwaway), applied)
    }

    fn there() -> There {
        let role = |words: &[&str]| Role {
            words: words.iter().map(|&word| word.to_owned()).collect(),
            ..Role::default()
        };
        let time = "2030-01-01 00:00:00+00".to_owned();
        let app = Role {
            until: Some(time.clone()),
            ..role(&["LOGIN", "CREATEROLE", "NOINHERIT", "CONNECTION LIMIT 7"])
        };
        There {
            roles: [("owner", role(&["SUPERUSER"])), ("app", app), ("team", role(&[]))]
                .map(|(name, role)| (name.to_owned(), role))
                .into(),
            settings: [(("app".into(), None, "search_path".into()), "\"a b\", c".into())].into(),
            comments: [("app".into(), "said".into())].into(),
            memberships: vec![Granted {
                granted: "team".into(),
                member: "app".into(),
                grantor: Some("owner".into()),
                admin: true,
                inherit: Some(false),
                set: Some(true),
            }],
            times: [("2030-01-01".to_owned(), time)].into(),
            major: 17,
            user: "ours".into(),
        }
    }

    /// The differences after this change to the server's roles.
    fn found(injure: impl FnOnce(&mut There)) -> Vec<String> {
        let (plan, applied) = planned();
        let mut there = there();
        injure(&mut there);
        let compared = compare(&plan, &applied, &there);
        assert!(compared.not_proved.is_empty(), "{compared:?}");
        let differences = compared.differences.into_iter();
        differences.map(|(what, how)| format!("{what} {how}")).collect()
    }

    #[test]
    fn what_the_file_says_is_found_again() {
        let (plan, applied) = planned();
        let compared = compare(&plan, &applied, &there());
        assert_eq!((compared.equal, compared.differences), (3, Vec::new()));
        // A setting with power over sessions was not set, and is reported elsewhere.
        assert_eq!(plan.kept.len(), 1);
    }

    #[test]
    fn whatever_is_otherwise_is_named() {
        let app = |there: &mut There, word: &str, is: bool| {
            let words = &mut there.roles.get_mut("app").unwrap().words;
            match is {
                true => words.insert(word.to_owned()),
                false => words.remove(word),
            };
        };
        assert_eq!(found(|there| app(there, "LOGIN", false)), ["ROLE \"app\" is not LOGIN"]);
        let more = ["ROLE \"app\" is BYPASSRLS, and not so in the backup"];
        assert_eq!(found(|there| app(there, "BYPASSRLS", true)), more);
        let gone = found(|there| drop(there.roles.remove("team")));
        assert_eq!(gone, ["ROLE \"team\" is not there"]);
        let injuries: [fn(&mut There); 14] = [
            |there| there.roles.get_mut("app").unwrap().until = None,
            |there| there.roles.get_mut("team").unwrap().until = Some("x".into()),
            |there| there.roles.get_mut("team").unwrap().has_password = true,
            |there| there.settings.clear(),
            |there| there.settings.values_mut().for_each(|value| value.push('x')),
            |there| drop(there.settings.insert(("team".into(), None, "a".into()), "b".into())),
            |there| there.comments.clear(),
            |there| drop(there.comments.insert("team".into(), "more".into())),
            |there| there.memberships.clear(),
            |there| there.memberships[0].admin = false,
            |there| there.memberships[0].inherit = Some(true),
            |there| there.memberships[0].set = Some(false),
            |there| there.memberships[0].grantor = Some("team".into()),
            |there| {
                let (granted, member) = ("owner".into(), "team".into());
                there.memberships.push(Granted {
                    granted,
                    member,
                    grantor: None,
                    admin: false,
                    inherit: None,
                    set: None,
                });
            },
        ];
        for injure in injuries {
            let told = found(injure);
            assert_eq!(told.len(), 1, "{told:?}");
        }
    }

    #[test]
    fn what_was_not_done_is_no_difference() {
        let (plan, mut applied) = planned();
        // The server refused to let another role grant it, so this session's role did.
        let membership = plan.asked.last().unwrap().steps.clone();
        applied.otherwise.extend(membership.clone());
        let mut by_us = there();
        by_us.memberships[0].grantor = Some("ours".into());
        assert!(compare(&plan, &applied, &by_us).differences.is_empty());
        applied.undone.extend(membership);
        by_us.memberships.clear();
        assert!(compare(&plan, &applied, &by_us).differences.is_empty());
    }
}

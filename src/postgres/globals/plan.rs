//! Decides which statements of `globals.sql` run on a server, and which do not: a pure function of the statements and
//! of the server's roles.
//!
//! Anyone who can write to the store can write this file. So the plan only makes roles that do not exist. An existing
//! role stays as it is, and becomes a member of no other role. No role gets power over the server or over other roles
//! unless the user asked for that.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::setting_power::{Might, might};
use super::wanted::{Attributes, Membership, Wanted};
use super::{Omitted, Powers, Statement};
use crate::postgres::quoting::{identifier, literal};

/// What exists on the server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Present {
    pub roles: BTreeSet<String>,
    /// Roles with the power that they have over the server, as SQL names it.
    pub powers: BTreeSet<(String, &'static str)>,
    /// The granted role, and its member.
    pub memberships: BTreeSet<(String, String)>,
    /// Prefixes of the settings of its libraries.
    pub libraries: BTreeSet<String>,
    /// Its major version.
    pub major: u32,
}

/// What will be done, what exists already, and what is left out. Nothing has been done yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GlobalsPlan {
    pub(super) steps: Vec<Step>,
    /// The number of roles that existed already.
    pub existing: usize,
    /// What differs in the backup for those roles, and what does not matter on this server.
    pub kept: Vec<Omitted>,
    pub left_out: Vec<Omitted>,
    /// Statements that pgstow has parsed, in their order.
    pub(super) asked: Vec<Asked>,
}

/// A parsed statement, and the steps of the plan that come from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub wanted: Wanted,
    pub steps: Range<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub sql: String,
    /// Runs if that fails.
    pub otherwise: Option<String>,
    /// Roles that this run must have made: if one existed after all, the step is not run.
    pub needs: Vec<String>,
    pub makes: Option<String>,
    /// It gives power over the server.
    pub privileged: bool,
}

const NOT_ALLOWED: &str = "is not one of the statements that make roles";
const PRIVILEGED: &str = "gives power over the server: pgstow runs it only with --globals-privileged";
const STAYS: &str = "the role exists already, and stays as it is";
const UNLISTED: &str =
    "may give power over the server, or is not known here: pgstow runs it only with --globals-privileged";
/// For settings, in a throwaway server.
pub const WITHHELD: &str = "a drill gives no role a setting that has power over its sessions";
const LOADS: &str = "loads code into the role's sessions, or makes them another role's: pgstow never runs it";
const CHANGES: &str = "makes an existing role a member of a new one: pgstow runs it only with --globals-privileged";
const LESS: &str = "withholds SET, which this server cannot do: the role would get more there than in the backup";
const UNKNOWN: &str = "is about a role that the backup does not make";

impl GlobalsPlan {
    /// In words without values. The server refuses none of them to a superuser.
    pub fn steps(&self, is_superuser: bool) -> impl Iterator<Item = String> {
        self.steps.iter().map(move |step| {
            let told = super::split::summary(step.sql.as_bytes());
            match step.otherwise.as_deref().filter(|_| !is_superuser) {
                None => told,
                Some(otherwise) => {
                    let otherwise = super::split::summary(otherwise.as_bytes());
                    format!("{told}; or, if this role may not do that, {otherwise}")
                }
            }
        })
    }

    /// The roles that it makes.
    pub fn makes(&self) -> Vec<String> {
        self.steps.iter().filter_map(|step| step.makes.clone()).collect()
    }
}

pub(super) fn plan(asked: Vec<(Statement, Option<Wanted>)>, present: &Present, powers: Powers) -> GlobalsPlan {
    let mut planning = Planning {
        plan: GlobalsPlan::default(),
        present,
        powers,
        made: BTreeSet::new(),
        attributes: attributes(&asked),
    };
    for (statement, wanted) in asked {
        // Tablespaces are folders on the server's disk: they are on another machine, or the source uses them.
        if statement.is_setting() || statement.is_about_tablespace() {
            continue;
        }
        match wanted {
            Some(wanted) => {
                let first = planning.plan.steps.len();
                planning.one(&statement, wanted.clone());
                let steps = first..planning.plan.steps.len();
                planning.plan.asked.push(Asked { wanted, steps });
            }
            None => planning.leave(statement.summary(), NOT_ALLOWED),
        }
    }
    planning.plan
}

/// A role is made with all its attributes in one statement, so that a run that fails in between leaves no role
/// without them.
fn attributes(asked: &[(Statement, Option<Wanted>)]) -> BTreeMap<String, Attributes> {
    let each = asked.iter().filter_map(|(_, wanted)| match wanted {
        Some(Wanted::Attributes { role, attributes }) => Some((role.clone(), attributes.clone())),
        _ => None,
    });
    each.collect()
}

struct Planning<'p> {
    plan: GlobalsPlan,
    present: &'p Present,
    powers: Powers,
    /// By this plan.
    made: BTreeSet<String>,
    attributes: BTreeMap<String, Attributes>,
}

impl Planning<'_> {
    fn leave(&mut self, what: String, why: &str) {
        self.plan.left_out.push(Omitted {
            what,
            why: why.to_owned(),
        });
    }

    fn step(&mut self, sql: String, needs: &[&str], privileged: bool) -> &mut Step {
        let at = self.plan.steps.len();
        self.plan.steps.push(Step {
            sql,
            otherwise: None,
            needs: needs.iter().map(|&role| role.to_owned()).collect(),
            makes: None,
            privileged,
        });
        &mut self.plan.steps[at]
    }

    fn one(&mut self, statement: &Statement, wanted: Wanted) {
        match wanted {
            Wanted::Role(role) => self.role(role),
            // They are part of their role's statement.
            Wanted::Attributes { role, .. } => {
                if !self.made.contains(&role) && !self.present.roles.contains(&role) {
                    self.leave(statement.summary(), UNKNOWN);
                }
            }
            Wanted::Setting {
                role,
                database,
                name,
                values,
            } => {
                if !self.may_change(statement, &role) {
                    return;
                }
                let might = might(&name, &self.present.libraries);
                match (might, self.powers) {
                    // No client logs in to a throwaway server as one of its new roles.
                    (Might::Power | Might::Code, Powers::Throwaway) => {
                        return self.plan.kept.push(Omitted {
                            what: statement.summary(),
                            why: WITHHELD.to_owned(),
                        });
                    }
                    (Might::Code, _) => return self.leave(statement.summary(), LOADS),
                    (Might::Power, Powers::Roles) => return self.leave(statement.summary(), UNLISTED),
                    (Might::Harmless, _) | (Might::Power, Powers::Privileged) => {}
                }
                let place = database.map_or_else(String::new, |name| format!(" IN DATABASE {}", identifier(&name)));
                let values: Vec<String> = values.iter().map(|value| literal(value)).collect();
                let sql = format!(
                    "ALTER ROLE {}{place} SET {} TO {}",
                    identifier(&role),
                    identifier(&name),
                    values.join(", ")
                );
                self.step(sql, &[&role], might == Might::Power);
            }
            Wanted::Comment { role, text } => {
                if self.may_change(statement, &role) {
                    let text = text.map_or_else(|| "NULL".to_owned(), |text| literal(&text));
                    let sql = format!("COMMENT ON ROLE {} IS {text}", identifier(&role));
                    self.step(sql, &[&role], false);
                }
            }
            Wanted::Membership(membership) => self.membership(statement, &membership),
        }
    }

    fn role(&mut self, role: String) {
        if self.present.roles.contains(&role) || self.made.contains(&role) {
            self.plan.existing += 1;
            self.keep_powers(&role);
            return;
        }
        let attributes = self.attributes.remove(&role);
        let name = identifier(&role);
        let (mut sql, mut less) = (format!("CREATE ROLE {name}"), format!("CREATE ROLE {name}"));
        for word in attributes.iter().flat_map(|attributes| &attributes.plain) {
            sql = format!("{sql} {word}");
            // Since 16 a role cannot give an attribute that it does not have.
            if word != "CREATEDB" {
                less = format!("{less} {word}");
            }
        }
        let otherwise = (less != sql).then_some(less);
        let step = self.step(sql, &[], false);
        (step.makes, step.otherwise) = (Some(role.clone()), otherwise);
        if let Some(attributes) = attributes {
            if attributes.password {
                self.leave(
                    format!("the password of {name}"),
                    "pgstow's backups contain none: another program has written it",
                );
            }
            if !attributes.privileged.is_empty() {
                let sql = format!("ALTER ROLE {name} {}", attributes.privileged.join(" "));
                match self.powers {
                    Powers::Roles => self.leave(sql, PRIVILEGED),
                    // One at a time: a role that may not give one of them may give another.
                    Powers::Privileged | Powers::Throwaway => {
                        for power in attributes.privileged {
                            self.step(format!("ALTER ROLE {name} {power}"), &[&role], true);
                        }
                    }
                }
            }
        }
        self.made.insert(role);
    }

    /// Notes the power that the backup gives to a role of the server and that the role does not get.
    fn keep_powers(&mut self, role: &str) {
        let wanted = self.attributes.get(role).map(|attributes| &attributes.privileged[..]);
        let lacking: Vec<&str> = wanted
            .unwrap_or_default()
            .iter()
            .copied()
            .filter(|power| !self.present.powers.contains(&(role.to_owned(), *power)))
            .collect();
        if self.powers == Powers::Privileged && !lacking.is_empty() {
            self.plan.kept.push(Omitted {
                what: format!("ALTER ROLE {} {}", identifier(role), lacking.join(" ")),
                why: STAYS.to_owned(),
            });
        }
    }

    fn may_change(&mut self, statement: &Statement, role: &str) -> bool {
        if self.made.contains(role) {
            return true;
        }
        if self.present.roles.contains(role) {
            self.plan.kept.push(Omitted {
                what: statement.summary(),
                why: STAYS.to_owned(),
            });
        } else {
            self.leave(statement.summary(), UNKNOWN);
        }
        false
    }

    fn membership(&mut self, statement: &Statement, wanted: &Membership) {
        let known = |role: &str| self.made.contains(role) || self.present.roles.contains(role);
        let pair = (wanted.granted.clone(), wanted.member.clone());
        if self.present.memberships.contains(&pair) {
            self.plan.existing += 1;
            return;
        }
        if !known(&wanted.granted) || !known(&wanted.member) {
            return self.leave(statement.summary(), UNKNOWN);
        }
        let Some(told) = wanted.for_major(self.present.major) else {
            return self.leave(statement.summary(), LESS);
        };
        let (of_new, to_new) = (self.made.contains(&wanted.granted), self.made.contains(&wanted.member));
        let (needs, privileged) = match self.powers {
            // In a throwaway server the roles that it started with get nothing.
            Powers::Throwaway if !to_new => {
                return self.plan.kept.push(Omitted {
                    what: statement.summary(),
                    why: STAYS.to_owned(),
                });
            }
            _ if of_new && to_new => (Some(&wanted.granted), false),
            Powers::Roles => return self.leave(statement.summary(), if of_new { CHANGES } else { PRIVILEGED }),
            Powers::Privileged | Powers::Throwaway => {
                let new = [(of_new, &wanted.granted), (to_new, &wanted.member)];
                (new.into_iter().find_map(|(is_new, role)| is_new.then_some(role)), true)
            }
        };
        let needs: Vec<&str> = needs.into_iter().map(String::as_str).collect();
        let by_another = wanted.grantor.as_deref().is_some_and(known);
        let sql = told.sql(by_another);
        // Only a superuser or a member of the grantor may name another grantor.
        self.step(sql, &needs, privileged).otherwise = by_another.then(|| told.sql(false));
    }
}

#[cfg(test)]
mod tests {
    use super::super::wanted::wanted;
    use super::*;
    use crate::postgres::statements;

    fn planned(sql: &str, powers: Powers) -> GlobalsPlan {
        let present = Present {
            roles: ["postgres", "pg_monitor", "app"].map(str::to_owned).into(),
            powers: [("postgres".to_owned(), "SUPERUSER")].into(),
            memberships: [("pg_monitor".to_owned(), "app".to_owned())].into(),
            libraries: ["pgaudit".to_owned()].into(),
            major: 17,
        };
        let asked = statements(sql.as_bytes()).into_iter().map(|statement| {
            let wanted = wanted(std::str::from_utf8(statement.bytes()).unwrap());
            (statement, wanted)
        });
        plan(asked.collect(), &present, powers)
    }

    fn left_out(plan: &GlobalsPlan) -> Vec<&str> {
        plan.left_out.iter().map(|one| one.what.as_str()).collect()
    }

    fn run(plan: &GlobalsPlan) -> Vec<&str> {
        plan.steps.iter().map(|step| step.sql.as_str()).collect()
    }

    #[test]
    fn a_new_role_comes_whole_and_without_power() {
        let sql = "CREATE ROLE a; ALTER ROLE a WITH SUPERUSER LOGIN CONNECTION LIMIT 3 PASSWORD 'hash';
                   COMMENT ON ROLE a IS 'it''s'; ALTER ROLE a SET search_path TO 'x', 'y';
                   ALTER ROLE a SET role TO 'postgres'; GRANT a TO app; GRANT pg_monitor TO a;
                   CREATE TABLESPACE t LOCATION '/t'; DO 'x'; \\! id\n";
        let plain = planned(sql, Powers::Roles);
        let roles = [
            "CREATE ROLE \"a\" LOGIN CONNECTION LIMIT 3",
            "COMMENT ON ROLE \"a\" IS 'it''s'",
            "ALTER ROLE \"a\" SET \"search_path\" TO 'x', 'y'",
        ];
        assert_eq!(run(&plain), roles);
        let never = ["the password of \"a\"", "ALTER ROLE a SET role TO…", "DO…", "\\! id"];
        let left = left_out(&plain);
        assert!(never.iter().all(|what| left.contains(what)), "{left:?}");
        assert_eq!(left.len(), never.len() + 3, "{left:?}");
        let change = plain.left_out.iter().find(|one| one.what == "GRANT a TO app");
        assert_eq!(change.unwrap().why, CHANGES);
        assert!(left.contains(&"ALTER ROLE \"a\" SUPERUSER") && left.contains(&"GRANT pg_monitor TO a"));

        let privileged = planned(sql, Powers::Privileged);
        assert_eq!(left_out(&privileged), never);
        assert!(run(&privileged).contains(&"ALTER ROLE \"a\" SUPERUSER"));
        assert!(run(&privileged).contains(&"GRANT \"pg_monitor\" TO \"a\""));
        assert!(run(&privileged).contains(&"GRANT \"a\" TO \"app\""));
        assert_eq!(privileged.steps.iter().filter(|step| step.privileged).count(), 3);
        let throwaway = planned(sql, Powers::Throwaway);
        assert!(!run(&throwaway).contains(&"GRANT \"a\" TO \"app\""));
        assert!(run(&throwaway).contains(&"ALTER ROLE \"a\" SUPERUSER"));
    }

    #[test]
    fn a_role_that_is_there_stays_as_it_is() {
        let sql =
            "CREATE ROLE app; ALTER ROLE app WITH SUPERUSER PASSWORD 'x'; ALTER ROLE app SET search_path TO 'evil';
                   COMMENT ON ROLE postgres IS 'x'; GRANT postgres TO app; GRANT pg_monitor TO app";
        let plan = planned(sql, Powers::Roles);
        assert!(plan.steps.is_empty(), "{plan:?}");
        assert_eq!((plan.existing, plan.kept.len()), (2, 2));
        assert_eq!(left_out(&plan), ["GRANT postgres TO app"]);
        let plan = planned(sql, Powers::Privileged);
        assert_eq!(run(&plan), ["GRANT \"postgres\" TO \"app\""]);
        // Requested power is never left out without a note.
        let kept: Vec<&str> = plan.kept.iter().map(|one| one.what.as_str()).collect();
        assert!(kept.contains(&"ALTER ROLE \"app\" SUPERUSER"), "{kept:?}");
        let has = "CREATE ROLE postgres; ALTER ROLE postgres WITH SUPERUSER";
        assert!(planned(has, Powers::Privileged).kept.is_empty());
    }

    #[test]
    fn settings_with_power_come_where_that_was_asked_for_and_code_never() {
        let sql = "CREATE ROLE a; ALTER ROLE a SET app.tenant TO 'x'; ALTER ROLE a SET log_statement TO 'none';
                   ALTER ROLE a SET pgaudit.log TO 'all'; ALTER ROLE a SET plperl.on_init TO 'x';
                   ALTER ROLE a SET session_preload_libraries TO 'x'";
        let plain = planned(sql, Powers::Roles);
        assert_eq!(run(&plain)[1..], ["ALTER ROLE \"a\" SET \"app.tenant\" TO 'x'"]);
        assert_eq!(plain.left_out.len(), 4);
        let privileged = planned(sql, Powers::Privileged);
        let told: Vec<(&str, bool)> = privileged
            .steps
            .iter()
            .map(|one| (one.sql.as_str(), one.privileged))
            .collect();
        assert_eq!(
            told[2..],
            [
                ("ALTER ROLE \"a\" SET \"log_statement\" TO 'none'", true),
                ("ALTER ROLE \"a\" SET \"pgaudit.log\" TO 'all'", true)
            ]
        );
        assert_eq!(privileged.left_out.len(), 2);
        assert_eq!(run(&planned(sql, Powers::Throwaway)).len(), 2);
    }

    #[test]
    fn who_may_not_grant_for_another_grants_himself() {
        let plan = planned(
            "CREATE ROLE a; CREATE ROLE b; GRANT a TO b WITH INHERIT TRUE GRANTED BY postgres",
            Powers::Roles,
        );
        let grant = "GRANT \"a\" TO \"b\" WITH INHERIT OPTION";
        assert_eq!(plan.steps[2].sql, format!("{grant} GRANTED BY \"postgres\""));
        assert_eq!(plan.steps[2].otherwise.as_deref(), Some(grant));
        let told: Vec<String> = plan.steps(false).collect();
        assert!(
            told[2].ends_with(&format!("if this role may not do that, {grant}")),
            "{told:?}"
        );
        assert!(!plan.steps(true).any(|step| step.contains("may not")));
        assert_eq!(plan.makes(), ["a", "b"]);
    }

    #[test]
    fn roles_that_nobody_makes_are_not_changed() {
        let sql = "ALTER ROLE gone WITH SUPERUSER; ALTER ROLE gone SET work_mem TO '1MB'; GRANT gone TO app; GRANT app TO gone";
        let plan = planned(sql, Powers::Privileged);
        assert!(plan.steps.is_empty(), "{plan:?}");
        assert_eq!(plan.left_out.len(), 4);
    }
}

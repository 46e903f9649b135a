//! What was asked for, compared with what is there: a pure function.

use std::collections::{BTreeMap, BTreeSet};

use super::{ComparedGlobals, Granted, OPTIONS, SettingKey, There};
use crate::postgres::globals::plan::GlobalsPlan;
use crate::postgres::globals::wanted::{Attributes, Membership, Wanted};
use crate::postgres::globals::{AppliedGlobals, Omitted};
use crate::postgres::quoting::identifier;

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

pub(super) fn compare(plan: &GlobalsPlan, applied: &AppliedGlobals, there: &There) -> ComparedGlobals {
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
            if !merged {
                let fitting: Vec<&Granted> = found.into_iter().filter(fits).collect();
                self.grantor(asked, (wanted, *by_us), &fitting, name);
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

    /// Compares who granted a membership; `fitting`: the memberships of the server that are otherwise the same.
    fn grantor(&mut self, asked: &Asked<'_>, (wanted, by_us): (&Membership, bool), fitting: &[&Granted], name: String) {
        let Some(grantor) = &wanted.grantor else { return };
        let given_by = |by: &str| fitting.iter().any(|one| one.grantor.as_deref() == Some(by));
        if given_by(grantor) {
            return;
        }
        // The source's first superuser is an ordinary role here; this session's superuser replaces it.
        let is_superuser = asked
            .attributes
            .get(grantor)
            .is_some_and(|attributes| attributes.privileged.contains(&"SUPERUSER"));
        let replaced = by_us || !self.there.roles.contains_key(grantor);
        if !(replaced && given_by(&self.there.user)) {
            let how = "was granted by another role than in the backup";
            self.differs(&wanted.member, name, how.to_owned());
        } else if !is_superuser {
            let grantor = identifier(grantor);
            self.compared.not_proved.push(Omitted {
                what: name,
                why: format!("{grantor} may not grant it here: who has granted it is not compared"),
            });
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

//! Entries that the throwaway server cannot or must not have, and everything that needs them.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::evidence::{Excuses, Fault, OF_AN_EXTENSION};
use super::extensions::{ExtensionMembers, Others};
use super::missing::Missing;
use super::settings::Withheld;
use super::settings::has_money;
use crate::error::Result;
use crate::format::archive::Item;
use crate::job::restore::{self, LeftOut};
use crate::postgres::{Named, Session};

/// Reasons why a difference from the backup may be no damage.
#[derive(Debug, Clone, Default)]
pub(super) struct Reasons {
    pub extensions: Others,
    pub missing: Missing,
    /// The source's major and this server's, if they differ.
    pub majors: Option<(u32, u32)>,
    /// Why text may sort, compare and be classed differently here. That may be the reason for any refusal.
    pub locale: Option<String>,
    /// The same, if only the libraries that sort text differ: then only the order may differ.
    pub sorting: Option<String>,
    /// Settings that affect computed values in the source, but are missing here.
    pub withheld: Withheld,
}

/// Which entries of the archive are tried, and why the others are not.
pub(super) struct DrillExclusion<'a> {
    items: &'a [Item],
    by_id: HashMap<i64, &'a Item>,
    excluded: HashSet<i64>,
    pub not_proved: Vec<LeftOut>,
    /// Faults, by the entry's name. An entry that needs a faulty one is not proved.
    pub faults: Vec<(String, Fault)>,
    extension_lacks: bool,
    reasons: Reasons,
    /// Extensions of other versions and everything made with them, with the reason why their differences prove nothing.
    unsure: HashMap<i64, String>,
    /// Objects that such extensions made here.
    members: ExtensionMembers,
}

/// Entries that leave nothing if they fail: each is one statement, or one transaction.
const WHOLE: [&str; 13] = [
    "BLOBS",
    "CHECK CONSTRAINT",
    "CONSTRAINT",
    "DEFAULT",
    "FK CONSTRAINT",
    "INDEX",
    "MATERIALIZED VIEW DATA",
    "POLICY",
    "ROW SECURITY",
    "RULE",
    "SEQUENCE SET",
    "TABLE DATA",
    "TRIGGER",
];

impl<'a> DrillExclusion<'a> {
    /// Excludes the entries that a server with these extensions cannot restore.
    pub fn before(items: &'a [Item], extensions: &BTreeMap<String, String>, reasons: Reasons) -> DrillExclusion<'a> {
        let made = |name: &str| {
            items
                .iter()
                .any(|item| item.entry.desc == "EXTENSION" && item.entry.tag == name)
        };
        let reasons = Reasons {
            extensions: reasons.extensions.of(made),
            ..reasons
        };
        let mut exclusion = DrillExclusion {
            items,
            by_id: items.iter().map(|item| (item.entry.dump_id, item)).collect(),
            excluded: HashSet::new(),
            not_proved: Vec::new(),
            faults: Vec::new(),
            extension_lacks: false,
            unsure: unsure(items, &reasons.extensions),
            reasons,
            members: ExtensionMembers::default(),
        };
        for item in items.iter().filter(|item| item.entry.desc == "EXTENSION") {
            exclusion
                .not_proved
                .extend(exclusion.reasons.extensions.why(&item.entry.tag).map(|why| LeftOut {
                    what: item.entry.to_string(),
                    why: why.to_owned(),
                }));
        }
        for (entry, why) in exclusion.reasons.missing.entries(items) {
            exclusion.leave_out(entry, &why);
        }
        for item in items {
            let desc = item.entry.desc.as_str();
            let lacking = if desc == "EXTENSION" && !extensions.contains_key(&item.entry.tag) {
                Some(format!("this machine's PostgreSQL has no extension {}", item.entry.tag))
            } else if desc == "SECURITY LABEL" {
                Some("the label's provider is not loaded".to_owned())
            } else {
                None
            };
            if let Some(why) = lacking {
                exclusion.leave_out(item.entry.dump_id, &why);
            }
        }
        exclusion
    }

    /// Notes that this entry is wrong, and that its dependents are not proved.
    pub fn blame(&mut self, entry: i64, fault: Fault) {
        let Some(item) = self.by_id.get(&entry).copied() else {
            return;
        };
        let name = item.entry.to_string();
        self.leave_out(entry, &format!("it needs {name}, which does not restore"));
        self.not_proved.retain(|left| left.what != name);
        self.faults.push((name, fault));
    }

    /// Excludes this entry and everything that depends on it, also indirectly.
    pub fn leave_out(&mut self, entry: i64, why: &str) {
        let mut open = vec![entry];
        while let Some(id) = open.pop() {
            if !self.excluded.insert(id) {
                continue;
            }
            for item in self.items {
                if item.entry.dump_id == id {
                    self.extension_lacks |= item.entry.desc == "EXTENSION";
                    self.not_proved.push(LeftOut {
                        what: item.entry.to_string(),
                        why: why.to_owned(),
                    });
                    if item.entry.has_data {
                        open.extend(self.keys_of(item));
                    }
                    if item.entry.desc == "SERVER" {
                        open.extend(self.users_of(&item.entry.tag));
                    }
                }
                if item.details.dependencies.contains(&id) {
                    open.push(item.entry.dump_id);
                }
            }
        }
    }

    /// Foreign keys to and from a table, which cannot hold without its rows.
    fn keys_of<'b>(&'b self, data: &'b Item) -> impl Iterator<Item = i64> + 'b {
        let keys = self.items.iter().filter(|item| item.entry.desc == "FK CONSTRAINT");
        let of_it = keys.filter(|key| {
            let mut tables = key.details.dependencies.iter();
            tables.any(|id| data.details.dependencies.contains(id))
        });
        of_it.map(|key| key.entry.dump_id)
    }

    /// User mappings of a server. An archive does not record that they depend on it.
    fn users_of(&self, server: &str) -> Vec<i64> {
        let end = format!(" SERVER {server}");
        let mappings = self.items.iter().filter(|item| item.entry.desc == "USER MAPPING");
        let on_it = mappings.filter(|item| item.entry.tag.ends_with(&end));
        on_it.map(|item| item.entry.dump_id).collect()
    }

    /// Notes the differences of locale and settings, known once the database is made.
    pub fn set_place(&mut self, locale: Option<String>, withheld: Withheld) {
        self.reasons.locale = locale;
        self.reasons.withheld = withheld;
    }

    pub fn locale(&self) -> Option<&str> {
        self.reasons.locale.as_deref()
    }

    pub fn item(&self, entry: i64) -> Option<&'a Item> {
        self.by_id.get(&entry).copied()
    }

    pub fn knows(&self, entry: i64) -> bool {
        self.by_id.contains_key(&entry) && !self.excluded.contains(&entry)
    }

    /// The entries of the list that are not excluded.
    pub fn remaining(&self, list: &[i64]) -> Vec<i64> {
        list.iter().copied().filter(|id| !self.excluded.contains(id)).collect()
    }

    /// Whether a failed entry may have left something.
    pub fn may_leave_something(&self, entry: i64) -> bool {
        self.item(entry)
            .is_none_or(|item| !WHOLE.contains(&item.entry.desc.as_str()))
    }

    /// Whether the entry is about an object that the archive does not define, usually one of an extension. The archive
    /// then records no other dependency for it.
    pub fn is_orphan(&self, item: &Item) -> bool {
        matches!(
            item.entry.desc.as_str(),
            "ACL" | "COMMENT" | "ROW SECURITY" | "SECURITY LABEL" | "SEQUENCE SET" | "STATISTICS DATA" | "TABLE DATA"
        ) && item.details.dependencies.iter().any(|id| !self.by_id.contains_key(id))
    }

    /// Leaves out entries about objects of an extension that are missing here: rows of its configuration tables,
    /// positions of its sequences, and rights on its objects.
    pub async fn leave_out_orphans(&mut self, session: &Session) -> Result<()> {
        let orphans = self.items.iter().filter(|item| {
            !self.excluded.contains(&item.entry.dump_id) && !item.is_of_database() && self.is_orphan(item)
        });
        let orphans: Vec<(&Item, Vec<Named<'_>>)> = orphans.map(|item| (item, subjects(item))).collect();
        let asked: Vec<Named<'_>> = orphans
            .iter()
            .flat_map(|(_, subjects)| subjects.iter().cloned())
            .collect();
        let mut exist = session.exist(&asked).await?.into_iter();
        let members = ExtensionMembers::of(session, &self.reasons.extensions).await?;
        let others = self.reasons.extensions.any();
        let mut lacking = Vec::new();
        for (item, subjects) in &orphans {
            // Every query's answer must be read.
            let all_there = subjects.iter().filter(|_| !exist.next().unwrap_or(true)).count() == 0;
            // Without a reason for its absence, the restore must report that.
            let explained =
                self.extension_lacks || others.is_some() || item.entry.has_data || item.entry.desc == "SEQUENCE SET";
            if let Some(why) = members.why(item) {
                lacking.push((item.entry.dump_id, why.to_owned()));
            } else if !all_there && explained {
                let why = others.clone().unwrap_or_else(|| OF_AN_EXTENSION.to_owned());
                lacking.push((item.entry.dump_id, why));
            }
        }
        for (id, why) in lacking {
            self.leave_out(id, &why);
        }
        self.members = members;
        Ok(())
    }

    /// Why a refusal of this entry may say nothing about the backup.
    pub fn excuses(&self, item: Option<&Item>) -> Excuses {
        let Reasons {
            extensions, missing, ..
        } = &self.reasons;
        let of_item = item.and_then(|item| {
            let unsure = self.unsure.get(&item.entry.dump_id).map(String::as_str);
            unsure
                .or_else(|| self.members.why(item))
                .or_else(|| missing.key(item))
                .or_else(|| missing.of_large_objects(item))
                .or_else(|| self.is_orphan(item).then_some(OF_AN_EXTENSION))
        });
        Excuses {
            any: of_item.or(self.locale()).map(str::to_owned),
            settings: self.reasons.withheld.any(),
            money: self.reasons.withheld.money.clone(),
            names: extensions.any(),
            rows: missing.looked_for().map(str::to_owned),
            sorting: self.reasons.sorting.clone(),
        }
    }

    /// Why the object of an entry may be missing although its statement ran.
    pub fn doubt(&self, item: &Item) -> Option<&str> {
        self.unsure.get(&item.entry.dump_id).map(String::as_str)
    }

    /// Why rows may be printed differently than in the source.
    pub fn doubt_of_rows(&self, entry: i64) -> Option<String> {
        let of_major = || {
            let (source, here) = self.reasons.majors?;
            Some(other_major(source, here))
        };
        let of_extension = self.unsure.get(&entry).cloned();
        let of_place = of_extension.or_else(of_major).or_else(|| self.reasons.locale.clone());
        of_place.or_else(|| self.doubt_of_money(entry))
    }

    fn doubt_of_money(&self, entry: i64) -> Option<String> {
        let why = self.reasons.withheld.money.as_ref()?;
        let needed = &self.item(entry)?.details.dependencies;
        let mut tables = needed.iter().filter_map(|id| self.item(*id));
        tables
            .any(|table| has_money(table.details.definition.as_bytes()))
            .then(|| why.clone())
    }

    /// Why an object is in the second dump but not in the backup.
    pub fn doubt_of_more(&self, desc: &str, schema: &str, tag: &str) -> Option<&str> {
        let of_extension = self.members.of_tag(desc, schema, tag);
        of_extension.or_else(|| self.reasons.missing.of_tag(desc, schema, tag))
    }

    pub fn missing(&self) -> &Missing {
        &self.reasons.missing
    }

    /// Whether this entry makes an extension of another version than the source's.
    pub fn is_another_version(&self, item: &Item) -> bool {
        item.entry.desc == "EXTENSION" && self.reasons.extensions.why(&item.entry.tag).is_some()
    }

    pub fn excluded(&self) -> &HashSet<i64> {
        &self.excluded
    }

    pub fn chosen(&self) -> HashSet<i64> {
        restore::everything(self.items)
            .difference(&self.excluded)
            .copied()
            .collect()
    }
}

pub(super) fn other_major(source: u32, here: u32) -> String {
    format!("PostgreSQL {here} may print the same values differently than {source}, the source's")
}

/// The entries of these extensions, and everything that needs them, also indirectly.
fn unsure(items: &[Item], others: &Others) -> HashMap<i64, String> {
    let mut needed_by: HashMap<i64, Vec<i64>> = HashMap::new();
    for item in items {
        for needs in &item.details.dependencies {
            needed_by.entry(*needs).or_default().push(item.entry.dump_id);
        }
    }
    let mut unsure = HashMap::new();
    for item in items.iter().filter(|item| item.entry.desc == "EXTENSION") {
        let Some(why) = others.why(&item.entry.tag) else {
            continue;
        };
        let mut open = vec![item.entry.dump_id];
        while let Some(id) = open.pop() {
            if unsure.insert(id, why.to_owned()).is_none() {
                open.extend(needed_by.get(&id).into_iter().flatten());
            }
        }
    }
    unsure
}

/// The objects that must exist before an orphan can be made.
fn subjects(item: &Item) -> Vec<Named<'_>> {
    let schema = item.entry.namespace.as_deref().unwrap_or_default();
    let tag = item.entry.tag.as_str();
    let named = |kind, name| Named { kind, schema, name };
    let of_the_schema = (!schema.is_empty()).then_some(Named {
        kind: "SCHEMA",
        schema: "",
        name: schema,
    });
    let itself = match item.entry.desc.as_str() {
        "SEQUENCE SET" => Some(named("SEQUENCE", tag)),
        "TABLE DATA" | "ROW SECURITY" | "STATISTICS DATA" => Some(named("TABLE", tag)),
        "COMMENT" | "ACL" | "SECURITY LABEL" => match tag.split_once(' ') {
            Some(("COLUMN", column)) => column.split_once('.').map(|(table, _)| named("TABLE", table)),
            Some((kind @ ("TABLE" | "SEQUENCE" | "SCHEMA" | "TYPE" | "DOMAIN" | "EXTENSION"), name)) => {
                Some(named(kind, name))
            }
            Some(("LANGUAGE", name)) => Some(named("PROCEDURAL LANGUAGE", name)),
            _ => match tag
                .strip_prefix("FOREIGN DATA WRAPPER ")
                .map(|name| ("FOREIGN DATA WRAPPER", name))
            {
                Some((kind, name)) => Some(named(kind, name)),
                None => tag.strip_prefix("FOREIGN SERVER ").map(|name| named("SERVER", name)),
            },
        },
        _ => None,
    };
    of_the_schema.into_iter().chain(itself).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::archive::Section;

    #[test]
    fn what_needs_a_wrong_entry_is_not_proved_and_the_entry_itself_is_wrong() {
        let item = |id, desc: &str, tag: &str, dependencies: &[i64]| Item {
            section: Section::PostData,
            ..Item::sample(id, desc, tag).needing(dependencies)
        };
        let items = [
            item(1, "CONSTRAINT", "t k", &[]),
            item(2, "COMMENT", "c", &[1]),
            item(3, "ACL", "FUNCTION f()", &[99]),
        ];
        let mut exclusion = DrillExclusion::before(&items, &BTreeMap::new(), Reasons::default());
        let fault = Fault {
            what: "twice".into(),
            advice: "mend",
            of_source: true,
        };
        exclusion.blame(1, fault.clone());
        assert_eq!(exclusion.faults, [(items[0].entry.to_string(), fault)]);
        assert_eq!(exclusion.not_proved.len(), 1);
        assert!(exclusion.is_orphan(&items[2]) && !exclusion.is_orphan(&items[1]));
        assert!(!exclusion.may_leave_something(1) && exclusion.may_leave_something(3));
    }

    #[test]
    fn a_table_without_its_rows_takes_the_keys_along_that_look_for_them() {
        let item = |id, desc: &str, has_data, dependencies: &[i64]| {
            let mut item = Item::sample(id, desc, "").needing(dependencies);
            item.entry.has_data = has_data;
            item
        };
        let items = [
            item(1, "TABLE", false, &[]),
            item(2, "TABLE DATA", true, &[1]),
            item(3, "CONSTRAINT", false, &[1]),
            item(4, "TABLE", false, &[]),
            item(5, "TABLE DATA", true, &[4]),
            item(6, "FK CONSTRAINT", false, &[4, 3, 1]),
            item(7, "COMMENT", false, &[6]),
        ];
        let mut exclusion = DrillExclusion::before(&items, &BTreeMap::new(), Reasons::default());
        exclusion.leave_out(2, "so");
        assert_eq!(exclusion.excluded(), &HashSet::from([2, 6, 7]));
        assert!(exclusion.knows(3) && !exclusion.knows(7) && !exclusion.knows(8));
    }
}

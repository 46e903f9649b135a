//! What the entries of a plan need on the server beside their database: roles, extensions and tablespaces.

use std::collections::HashSet;

use super::{Plan, Without};
use crate::format::archive::Item;
use crate::job::restore::grants;

/// Kinds that have no owner, or the owner of the object that they are part of: pg_restore does not set an owner.
const OWNERLESS: [&str; 25] = [
    "CAST",
    "CHECK CONSTRAINT",
    "COMMENT",
    "CONSTRAINT",
    "DEFAULT",
    "EXTENSION",
    "FK CONSTRAINT",
    "INDEX",
    "INDEX ATTACH",
    "MATERIALIZED VIEW DATA",
    "POLICY",
    "PUBLICATION TABLE",
    "PUBLICATION TABLES IN SCHEMA",
    "ROW SECURITY",
    "RULE",
    "SECURITY LABEL",
    "SEQUENCE OWNED BY",
    "SEQUENCE SET",
    "STATISTICS DATA",
    "SUBSCRIPTION TABLE",
    "TABLE ATTACH",
    "TABLE DATA",
    "TRANSFORM",
    "TRIGGER",
    "USER MAPPING",
];

/// Whether pg_restore sets the owner of this entry's object.
pub(in crate::job::restore) fn is_given_away(item: &Item) -> bool {
    !item.details.owner.is_empty() && !item.is_grant() && !OWNERLESS.contains(&item.entry.desc.as_str())
}

impl Plan {
    /// Finds it anew, after entries were added to the plan or taken out.
    pub fn demand(&mut self, items: &[Item], without: Without) {
        self.roles.clear();
        self.owners.clear();
        self.extensions.clear();
        self.tablespaces.clear();
        if without.definitions {
            return;
        }
        let loaded = self.loads.iter().flat_map(|load| &load.list);
        let lists = [&self.ground, &self.before, &self.after, &self.joins, &self.events];
        let planned: HashSet<i64> = lists.into_iter().flatten().chain(loaded).copied().collect();
        for item in items.iter().filter(|item| planned.contains(&item.entry.dump_id)) {
            self.demand_of(item, without);
        }
    }

    fn demand_of(&mut self, item: &Item, without: Without) {
        let definition = &item.details.definition;
        match item.entry.desc.as_str() {
            // The objects that these are the contents of have entries of their own.
            "BLOBS" => return,
            _ if item.is_grant() => {
                self.roles.extend(grants::roles(definition));
                return;
            }
            "POLICY" => self.roles.extend(grants::of_policy(definition)),
            "USER MAPPING" => self.roles.extend(grants::of_mapping(definition)),
            "EXTENSION" => {
                self.extensions.insert(item.entry.tag.clone());
            }
            _ => {}
        }
        if !without.owners && is_given_away(item) {
            let owner = &item.details.owner;
            self.roles.insert(owner.clone());
            self.owners
                .entry(owner.clone())
                .or_insert_with(|| item.entry.to_string());
        }
        self.tablespaces
            .extend(item.details.tablespace.iter().filter(|name| !name.is_empty()).cloned());
    }
}

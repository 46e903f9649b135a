//! Definitions of tables that were made before the moment and after the definitions that are in force: they are in the
//! definitions of the increment that holds the moment, and are taken over alone.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::error::Result;
use crate::format::archive::{Graft, Head, Item, Place, Section, contents};

/// What a table is taken over with.
const BELONGINGS: [&str; 14] = [
    "TABLE ATTACH",
    "DEFAULT",
    "CONSTRAINT",
    "CHECK CONSTRAINT",
    "FK CONSTRAINT",
    "INDEX",
    "INDEX ATTACH",
    "STATISTICS",
    "TRIGGER",
    "POLICY",
    "ROW SECURITY",
    "ACL",
    "COMMENT",
    "SECURITY LABEL",
];

/// What only exists with rows of its own, so that it is never taken over beside a table.
const OF_ROWS: [&str; 3] = ["TABLE", "VIEW", "MATERIALIZED VIEW"];

/// Kind, schema and name.
type Identity = (String, [Vec<u8>; 2]);

/// Adds these tables, which `later` defines, with what belongs to them. A table that cannot be joined with the
/// definitions in force is left out: its parent was changed too, or an older table has its name.
pub(super) fn graft(head: &Head, later: &Head, tables: &BTreeSet<u32>) -> Result<Head> {
    let (items, later_items) = (contents(head)?, contents(later)?);
    let grafting = Grafting::new(&items, &later_items);
    let chosen = grafting.choose(tables);
    if chosen.is_empty() {
        return Ok(head.clone());
    }
    let first = items.iter().map(|item| item.entry.dump_id).max().unwrap_or(0) + 1;
    let taken = grafting
        .later
        .iter()
        .filter(|item| chosen.contains(&item.entry.dump_id));
    let ids: HashMap<i64, i64> = taken.clone().map(|item| item.entry.dump_id).zip(first..).collect();
    let here = |id: &i64| ids.get(id).or_else(|| grafting.known.get(id)).copied();
    let grafts: Vec<Graft> = taken
        .map(|item| Graft {
            of: item.entry.dump_id,
            dump_id: ids[&item.entry.dump_id],
            dependencies: item.details.dependencies.iter().filter_map(here).collect(),
            place: place(item),
        })
        .collect();
    let mut needed = HashMap::new();
    for item in grafting.later {
        let more: Vec<i64> = item
            .details
            .dependencies
            .iter()
            .filter_map(|id| ids.get(id).copied())
            .collect();
        if let (Some(known), false) = (grafting.known.get(&item.entry.dump_id), more.is_empty()) {
            needed.insert(*known, more);
        }
    }
    let grafted = head.grafted(later, &grafts, &needed)?;
    Ok(grafted.unwrap_or_else(|| head.clone()))
}

fn place(item: &Item) -> Place {
    match (item.section, item.entry.desc.as_str()) {
        (Section::PreData | Section::Data, _) => Place::BeforeRows,
        (Section::PostData, "CONSTRAINT" | "INDEX" | "INDEX ATTACH") => Place::BeforeKeys,
        (Section::PostData, _) => Place::Last,
    }
}

fn identity(item: &Item) -> Identity {
    (item.entry.desc.clone(), item.entry.path())
}

struct Grafting<'a> {
    later: &'a [Item],
    by_id: HashMap<i64, &'a Item>,
    /// Entries of the later definitions that the ones in force have too: by their dump id there, the one here.
    known: HashMap<i64, i64>,
    /// Those of them that are not the same text.
    changed: HashSet<i64>,
    names: HashSet<Identity>,
}

impl<'a> Grafting<'a> {
    fn new(items: &[Item], later: &'a [Item]) -> Self {
        let by_name: HashMap<Identity, &Item> = items.iter().map(|item| (identity(item), item)).collect();
        let tables = items.iter().filter(|item| item.entry.desc == "TABLE");
        let by_oid: HashMap<u32, &Item> = tables.map(|item| (item.entry.oid, item)).collect();
        let (mut known, mut changed) = (HashMap::new(), HashSet::new());
        for item in later {
            let same = match item.entry.desc.as_str() {
                "TABLE" => by_oid.get(&item.entry.oid).copied(),
                _ => by_name.get(&identity(item)).copied(),
            };
            let Some(same) = same else { continue };
            known.insert(item.entry.dump_id, same.entry.dump_id);
            if same.definition() != item.definition() {
                changed.insert(item.entry.dump_id);
            }
        }
        Self {
            later,
            by_id: later.iter().map(|item| (item.entry.dump_id, item)).collect(),
            known,
            changed,
            names: by_name.into_keys().collect(),
        }
    }

    /// The dump ids of all entries to take over.
    fn choose(&self, tables: &BTreeSet<u32>) -> HashSet<i64> {
        let mut chosen = HashSet::new();
        let wanted = |item: &&Item| item.entry.desc == "TABLE" && tables.contains(&item.entry.oid);
        for item in self.later.iter().filter(wanted) {
            let mut of_table = chosen.clone();
            if self.take(item, &mut of_table) && self.attach(item, &mut of_table) {
                chosen = of_table;
            }
        }
        // What belongs to a belonging may come before it, so look again until nothing more is found.
        loop {
            let before = chosen.len();
            for item in self
                .later
                .iter()
                .filter(|item| BELONGINGS.contains(&item.entry.desc.as_str()))
            {
                let mut with = chosen.clone();
                if !chosen.contains(&item.entry.dump_id) && self.belongs(item, &chosen) && self.take(item, &mut with) {
                    chosen = with;
                }
            }
            if chosen.len() == before {
                return chosen;
            }
        }
    }

    fn belongs(&self, item: &Item, chosen: &HashSet<i64>) -> bool {
        !self.known.contains_key(&item.entry.dump_id) && item.details.dependencies.iter().any(|id| chosen.contains(id))
    }

    /// Takes an entry, with what it needs. False if something that it needs cannot be had.
    fn take(&self, item: &Item, chosen: &mut HashSet<i64>) -> bool {
        if !chosen.insert(item.entry.dump_id) {
            return true;
        }
        // An older object has its name.
        if self.names.contains(&identity(item)) {
            return false;
        }
        item.details.dependencies.iter().all(|id| match self.by_id.get(id) {
            // Not in this archive: it is PostgreSQL's own, or left out.
            None => true,
            Some(_) if self.known.contains_key(id) || chosen.contains(id) => true,
            Some(needed) if OF_ROWS.contains(&needed.entry.desc.as_str()) => false,
            Some(needed) => self.take(needed, chosen),
        })
    }

    /// Takes what joins a partition with its parent, and a new parent itself.
    fn attach(&self, table: &Item, chosen: &mut HashSet<i64>) -> bool {
        let id = table.entry.dump_id;
        let path = table.entry.path();
        let joins = |item: &&Item| {
            item.entry.desc == "TABLE ATTACH" && item.entry.path() == path && item.details.dependencies.contains(&id)
        };
        self.later.iter().filter(joins).all(|join| {
            let parents = join.details.dependencies.iter().filter(|other| **other != id);
            let are_there = parents.filter_map(|parent| self.by_id.get(parent)).all(|parent| {
                let parent_id = parent.entry.dump_id;
                match self.known.contains_key(&parent_id) {
                    // A partition must have the columns of its parent.
                    true => !self.changed.contains(&parent_id),
                    false if chosen.contains(&parent_id) => true,
                    false => self.take(parent, chosen) && self.attach(parent, chosen),
                }
            });
            are_there && self.take(join, chosen)
        })
    }
}

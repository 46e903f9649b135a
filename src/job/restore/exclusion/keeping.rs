//! What `--clean` leaves unchanged in the target: the named objects, everything that belongs to them, and the objects
//! that they need there.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{SOUGHT, names_it};
use crate::error::{Code, Error, Result};
use crate::format::archive::Item;
use crate::job::restore::allowed::schema_of_extension;
use crate::job::restore::choice::{self, RELATIONS};

/// Kinds of entries that describe another entry, of any kind.
const ABOUT: [&str; 3] = ["COMMENT", "ACL", "SECURITY LABEL"];
/// Kinds that are part of a relation, and are replaced with it.
const PARTS: [&str; 13] = [
    "CHECK CONSTRAINT",
    "CONSTRAINT",
    "DEFAULT",
    "FK CONSTRAINT",
    "INDEX",
    "INDEX ATTACH",
    "POLICY",
    "ROW SECURITY",
    "RULE",
    "STATISTICS",
    "TABLE ATTACH",
    "TABLE DATA",
    "TRIGGER",
];
/// Kinds that belong to a sequence or an index.
const FOLLOWS: [&str; 4] = ["INDEX ATTACH", "SEQUENCE OWNED BY", "SEQUENCE SET", "STATISTICS DATA"];
/// Kinds that can be detached from what they need, and attached again after that is made anew.
const LOOSE: [&str; 12] = [
    "ACL",
    "BLOBS",
    "COMMENT",
    "DEFAULT ACL",
    "FK CONSTRAINT",
    "INDEX ATTACH",
    "MATERIALIZED VIEW DATA",
    "SECURITY LABEL",
    "SEQUENCE OWNED BY",
    "SEQUENCE SET",
    "TABLE ATTACH",
    "TABLE DATA",
];

/// Why an entry that was not named stays.
const BELONGS: &str = "it stays as it is, with what is left out";
/// The same for one that the target lacks.
const LACKS: &str = "the target does not have it, and does not get it: it belongs to what is left out";

/// Kinds whose statements are told if the target lacks them, and the longest such statement.
const TOLD: [&str; 3] = ["POLICY", "RULE", "TRIGGER"];
const LONGEST: usize = 1000;

#[derive(Debug, Default)]
pub(super) struct Keeping {
    pub entries: HashSet<i64>,
    /// The reasons for entries that were not named.
    pub why: BTreeMap<i64, String>,
}

enum Need {
    /// It can be detached from that.
    None,
    /// That stays too.
    Stays,
    /// That is replaced.
    Replaced,
}

impl Keeping {
    /// The named entries and everything that belongs to them. `exist` is what the target has.
    pub fn of(items: &[Item], asked: &HashSet<i64>, exist: &HashSet<i64>) -> Self {
        let by_id = choice::by_id(items);
        let mut entries = asked.clone();
        let holders = holders(items, asked, &by_id);
        entries.extend(holders.into_iter().filter(|id| exist.contains(id)));
        let mut keeping = Self {
            entries,
            why: BTreeMap::new(),
        };
        keeping.close(items, &by_id);
        let others = keeping.entries.iter().filter(|id| !asked.contains(id));
        keeping.why = others.map(|id| (*id, BELONGS.to_owned())).collect();
        keeping
    }

    fn close(&mut self, items: &[Item], by_id: &HashMap<i64, &Item>) {
        loop {
            let before = self.entries.len();
            self.entries = choice::with_partitions(items, std::mem::take(&mut self.entries));
            let schemas = items.iter().filter(|item| item.entry.desc == "SCHEMA");
            let schemas = schemas.filter(|item| self.entries.contains(&item.entry.dump_id));
            let schemas: HashSet<&str> = schemas.map(|item| item.entry.tag.as_str()).collect();
            let open = items.iter().filter(|item| !self.entries.contains(&item.entry.dump_id));
            let more = open.filter(|item| self.holds(item, &schemas, by_id));
            let more: Vec<i64> = more.map(|item| item.entry.dump_id).collect();
            self.entries.extend(more);
            if self.entries.len() == before {
                return;
            }
        }
    }

    /// Whether an entry belongs to what stays.
    fn holds(&self, item: &Item, schemas: &HashSet<&str>, by_id: &HashMap<i64, &Item>) -> bool {
        let kind = item.entry.desc.as_str();
        if item.is_of_database() {
            return false;
        }
        let lies_in = match kind {
            "EXTENSION" => schemas.contains(schema_of_extension(item).as_str()),
            _ => {
                let schema = item.entry.namespace.as_deref();
                !kind.starts_with("PUBLICATION") && schema.is_some_and(|schema| schemas.contains(schema))
            }
        };
        if lies_in {
            return true;
        }
        let needed = item.details.dependencies.iter();
        let mut needed = needed
            .filter(|id| self.entries.contains(id))
            .filter_map(|id| by_id.get(id));
        match kind {
            _ if ABOUT.contains(&kind) || FOLLOWS.contains(&kind) => needed.next().is_some(),
            "MATERIALIZED VIEW DATA" => {
                needed.any(|other| other.entry.tag == item.entry.tag && other.entry.namespace == item.entry.namespace)
            }
            "SEQUENCE" => needed.any(|other| RELATIONS.contains(&other.entry.desc.as_str())),
            "USER MAPPING" | "PUBLICATION TABLE" | "PUBLICATION TABLES IN SCHEMA" => {
                let mut kept = self.entries.iter().filter_map(|id| by_id.get(id));
                kept.any(|other| names_it(item, other))
            }
            _ if PARTS.contains(&kind) => {
                needed.any(|other| RELATIONS.contains(&other.entry.desc.as_str()))
                    && choice::owns(item, &self.entries, by_id)
            }
            _ => false,
        }
    }

    /// What the target lacks cannot stay as it is. Of rules on a table that stays, the statements are told.
    pub fn without_lacking(&mut self, items: &[Item], exist: &HashSet<i64>) {
        for item in items.iter().filter(|item| !exist.contains(&item.entry.dump_id)) {
            let Some(why) = self.why.get_mut(&item.entry.dump_id).filter(|why| *why == BELONGS) else {
                continue;
            };
            let statement = item.details.definition.trim();
            *why = match TOLD.contains(&item.entry.desc.as_str()) && statement.len() <= LONGEST {
                true => format!("{LACKS}: {statement}"),
                false => LACKS.to_owned(),
            };
        }
    }

    pub fn keep(&mut self, id: i64) {
        if self.entries.insert(id) {
            self.why.insert(id, BELONGS.to_owned());
        }
    }

    /// Those that the target has and that are not replaced with others.
    pub fn standing(&self, items: &[Item], exist: &HashSet<i64>) -> HashSet<i64> {
        let by_id = choice::by_id(items);
        let kept = items.iter().filter(|item| {
            let id = &item.entry.dump_id;
            let kind = item.entry.desc.as_str();
            self.entries.contains(id)
                && exist.contains(id)
                && (SOUGHT.contains(&kind) || (PARTS.contains(&kind) && self.stays(item, &by_id)))
        });
        kept.map(|item| item.entry.dump_id).collect()
    }

    /// Whether it is no part of a relation that is replaced.
    fn stays(&self, item: &Item, by_id: &HashMap<i64, &Item>) -> bool {
        let relations = item.details.dependencies.iter().filter_map(|id| by_id.get(id));
        let mut relations = relations.filter(|other| RELATIONS.contains(&other.entry.desc.as_str()));
        !PARTS.contains(&item.entry.desc.as_str()) || relations.any(|other| self.entries.contains(&other.entry.dump_id))
    }

    /// What stays needs others unchanged: types, functions, sequences. An error if it needs an object that is
    /// replaced.
    pub fn need(&mut self, items: &[Item], exist: &HashSet<i64>) -> Result<()> {
        let by_id = choice::by_id(items);
        let mut open: Vec<&Item> = items
            .iter()
            .filter(|item| self.entries.contains(&item.entry.dump_id))
            .collect();
        for item in &open {
            self.check_identity(item, &by_id, exist)?;
        }
        while let Some(item) = open.pop() {
            let is_there = exist.contains(&item.entry.dump_id) && self.stays(item, &by_id);
            if !is_there || LOOSE.contains(&item.entry.desc.as_str()) {
                continue;
            }
            let mut needed = item.details.dependencies.clone();
            needed.extend(choice::unrecorded::needs(item, &by_id));
            if item.entry.desc == "USER MAPPING" {
                let servers = items.iter().filter(|other| names_it(item, other));
                needed.extend(servers.map(|other| other.entry.dump_id));
            }
            for id in needed {
                let Some(other) = by_id.get(&id).filter(|_| exist.contains(&id)) else {
                    continue;
                };
                if self.entries.contains(&id) {
                    continue;
                }
                match need(item, other) {
                    // A partition is detached from its root.
                    Need::Replaced if is_partition(items, item, other) => {}
                    Need::None => {}
                    Need::Replaced => return Err(needs_what_is_replaced(item, other)),
                    Need::Stays => open.extend(self.add(items, &by_id, item, other)),
                }
            }
        }
        Ok(())
    }

    /// Adds what stays because another needs it, with everything that belongs to it.
    fn add<'a>(&mut self, items: &'a [Item], by_id: &HashMap<i64, &Item>, item: &Item, other: &Item) -> Vec<&'a Item> {
        let before = self.entries.clone();
        self.entries.insert(other.entry.dump_id);
        self.close(items, by_id);
        let added = items.iter().filter(|item| {
            let id = &item.entry.dump_id;
            self.entries.contains(id) && !before.contains(id)
        });
        let added: Vec<&Item> = added.collect();
        for one in &added {
            let why = match one.entry.dump_id == other.entry.dump_id {
                true => format!("it stays as it is: {}, which is left out, needs it", item.entry),
                false => BELONGS.to_owned(),
            };
            self.why.insert(one.entry.dump_id, why);
        }
        added
    }

    /// The sequence of an identity column is replaced with its table.
    fn check_identity(&self, item: &Item, by_id: &HashMap<i64, &Item>, exist: &HashSet<i64>) -> Result<()> {
        let is_there = exist.contains(&item.entry.dump_id);
        if item.entry.desc != "SEQUENCE" || choice::stands_alone(item) || !is_there {
            return Ok(());
        }
        let mut of_it = item.details.dependencies.iter().filter_map(|id| by_id.get(id));
        let goes = |other: &&&Item| {
            RELATIONS.contains(&other.entry.desc.as_str()) && !self.entries.contains(&other.entry.dump_id)
        };
        match of_it.find(goes) {
            Some(table) => Err(needs_what_is_replaced(item, table)),
            None => Ok(()),
        }
    }
}

/// If rows or a sequence's value are left out, the objects that hold them: replaced, they would be empty. Large
/// objects likewise.
fn holders(items: &[Item], asked: &HashSet<i64>, by_id: &HashMap<i64, &Item>) -> Vec<i64> {
    let of_kind = |kind: &'static str| items.iter().filter(move |item| item.entry.desc == kind);
    let mut holders = Vec::new();
    for (kind, of) in [
        ("TABLE DATA", "TABLE"),
        ("SEQUENCE SET", "SEQUENCE"),
        ("BLOBS", "BLOB METADATA"),
    ] {
        let left = of_kind(kind).filter(|item| asked.contains(&item.entry.dump_id));
        let needed = left.flat_map(|item| &item.details.dependencies).copied();
        holders.extend(needed.filter(|id| by_id.get(id).is_some_and(|item| item.entry.desc == of)));
    }
    let mut contents = of_kind("BLOBS").peekable();
    // Older archives do not say which objects have which contents.
    if contents.peek().is_some() && contents.all(|item| asked.contains(&item.entry.dump_id)) {
        let objects = of_kind("BLOB").chain(of_kind("BLOB METADATA"));
        holders.extend(objects.map(|item| item.entry.dump_id));
    }
    holders
}

fn need(item: &Item, other: &Item) -> Need {
    let (kind, of) = (item.entry.desc.as_str(), other.entry.desc.as_str());
    let is_table = |kind: &str| matches!(kind, "TABLE" | "FOREIGN TABLE");
    if of == "SCHEMA" || kind.starts_with("PUBLICATION") || kind == "SUBSCRIPTION" || is_data(of) {
        // A schema stays if an object in it stays.
        return Need::None;
    }
    if kind == "SEQUENCE" && RELATIONS.contains(&of) {
        // It is its table's by OWNED BY, which is taken off; the sequence of an identity column is refused elsewhere.
        return Need::None;
    }
    if RELATIONS.contains(&of) || PARTS.contains(&of) {
        // A partition's indexes only resemble those above it; a child table is detached from its parent.
        let of_parent = matches!(kind, "INDEX" | "CONSTRAINT") && matches!(of, "TABLE" | "INDEX" | "CONSTRAINT");
        let inherits = is_table(kind) && is_table(of) && item.details.definition.contains("\nINHERITS (");
        return match of_parent || inherits {
            true => Need::None,
            false => Need::Replaced,
        };
    }
    Need::Stays
}

/// Whether the one is attached to the other.
fn is_partition(items: &[Item], item: &Item, other: &Item) -> bool {
    let mut attached = items.iter().filter(|one| one.entry.desc == "TABLE ATTACH");
    attached.any(|one| {
        let needs = &one.details.dependencies;
        needs.contains(&item.entry.dump_id) && needs.contains(&other.entry.dump_id)
    })
}

fn is_data(kind: &str) -> bool {
    matches!(
        kind,
        "TABLE DATA" | "MATERIALIZED VIEW DATA" | "SEQUENCE SET" | "STATISTICS DATA" | "BLOBS"
    )
}

fn needs_what_is_replaced(item: &Item, other: &Item) -> Error {
    let what = format!(
        "{} cannot stay as it is in the target: it needs {}, which is replaced",
        item.entry, other.entry
    );
    let kind = other.entry.desc.replace(' ', "-");
    Error::new(Code::RestoreErr, what).hint(format!(
        "leave that out too, with --exclude '{kind}:{}'; or leave out neither",
        other.entry.name()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(id: i64, desc: &str, tag: &str, dependencies: &[i64]) -> Item {
        let definition = format!("CREATE {desc} {tag}");
        let item = Item::sample(id, desc, tag).defined(&definition).needing(dependencies);
        match desc {
            "SCHEMA" => item,
            _ => item.in_schema("s"),
        }
    }

    fn items() -> Vec<Item> {
        vec![
            item(1, "SCHEMA", "s", &[]),
            item(2, "TYPE", "e", &[1]),
            item(3, "TABLE", "t", &[1, 2]),
            item(4, "ACL", "TABLE t", &[3]),
            item(5, "SEQUENCE", "t_id_seq", &[1, 3]),
            item(6, "SEQUENCE OWNED BY", "t_id_seq", &[5]),
            item(7, "SEQUENCE SET", "t_id_seq", &[5]),
            item(8, "TABLE DATA", "t", &[3]),
            item(9, "CONSTRAINT", "t t_pkey", &[3]),
            item(10, "TABLE", "u", &[1]),
            item(11, "FK CONSTRAINT", "u fk", &[3, 9, 10]),
            item(12, "VIEW", "v", &[1, 3]),
            item(13, "TABLE", "p", &[1, 10]),
            item(14, "TABLE ATTACH", "p", &[10, 13]),
        ]
    }

    fn kept(asked: &[i64]) -> Vec<i64> {
        let items = items();
        let all = items.iter().map(|item| item.entry.dump_id).collect();
        let mut kept: Vec<i64> = Keeping::of(&items, &asked.iter().copied().collect(), &all)
            .entries
            .into_iter()
            .collect();
        kept.sort_unstable();
        kept
    }

    #[test]
    fn what_is_left_out_keeps_all_that_belongs_to_it() {
        assert_eq!(kept(&[3]), [3, 4, 5, 6, 7, 8, 9]);
        // Its rows are its own.
        assert_eq!(kept(&[8]), [3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(kept(&[5]), [5, 6, 7]);
        // A partitioned table's rows are in its partitions.
        assert_eq!(kept(&[10]), [10, 11, 13, 14]);
        assert_eq!(kept(&[1]).len(), 14);
        // A part of a replaced object is replaced with it.
        assert_eq!(kept(&[9]), [9]);
    }

    #[test]
    fn what_stays_keeps_what_it_needs_and_is_refused_where_that_is_replaced() {
        let items = items();
        let all: HashSet<i64> = items.iter().map(|item| item.entry.dump_id).collect();
        let mut keeping = Keeping::of(&items, &HashSet::from([3]), &all);
        keeping.need(&items, &all).unwrap();
        assert!(keeping.entries.contains(&2) && !keeping.entries.contains(&1));
        assert!(keeping.why[&2].contains("TABLE s.t"), "{:?}", keeping.why);
        let mut keeping = Keeping::of(&items, &HashSet::from([12]), &all);
        let refused = keeping.need(&items, &all).unwrap_err();
        assert!(refused.message().contains("VIEW s.v") && refused.message().contains("TABLE s.t"));
        // An object that the target lacks needs nothing there.
        let lacking = all.iter().copied().filter(|id| *id != 12).collect();
        let mut keeping = Keeping::of(&items, &HashSet::from([12]), &lacking);
        keeping.need(&items, &lacking).unwrap();
        let mut keeping = Keeping::of(&items, &HashSet::from([13]), &all);
        keeping.need(&items, &all).unwrap();
        assert_eq!(keeping.entries, HashSet::from([13, 14]));
        let mut keeping = Keeping::of(&items, &HashSet::from([3]), &all);
        keeping.without_lacking(&items, &all.iter().copied().filter(|id| *id != 9).collect());
        assert_eq!((keeping.why[&8].as_str(), keeping.why[&9].as_str()), (BELONGS, LACKS));
        // An object that is replaced with its table does not stay.
        let keeping = Keeping::of(&items, &HashSet::from([9]), &all);
        assert!(keeping.standing(&items, &all).is_empty());
    }
}

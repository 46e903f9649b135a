//! One table out of an archive: which of its entries belong to it, and what they need that the
//! target may lack. A pure function; what the target has is told to it.

pub mod older;
mod spelling;
pub mod unrecorded;

use std::collections::{BTreeSet, HashMap, HashSet};

use spelling::{ambiguous, is_extensions, of_extension, spelt, unknown};

use super::plan::LeftOut;
use crate::error::{Code, Error, Result};
use crate::format::archive::{Item, leading_names};
use crate::repository::stored_archive::StoredArchive;

/// What comes along with a table when it depends on it.
const BELONGS: &[&str] = &[
    "TABLE DATA",
    "MATERIALIZED VIEW DATA",
    "DEFAULT",
    "CONSTRAINT",
    "CHECK CONSTRAINT",
    "FK CONSTRAINT",
    "INDEX",
    "INDEX ATTACH",
    "TABLE ATTACH",
    "STATISTICS",
    "STATISTICS DATA",
    "TRIGGER",
    "RULE",
    "POLICY",
    "ROW SECURITY",
    "COMMENT",
    "SECURITY LABEL",
    "ACL",
    "SEQUENCE",
    "SEQUENCE OWNED BY",
    "SEQUENCE SET",
];
/// What may stay behind when the target lacks what it refers to.
const DISPENSABLE: &[&str] = &[
    "FK CONSTRAINT",
    "TABLE ATTACH",
    "INDEX ATTACH",
    "TRIGGER",
    "RULE",
    "POLICY",
];
/// What belongs to a prerequisite, and so comes along with one that is made.
const OF_PREREQUISITES: &[&str] = &[
    "ACL",
    "ACL LANGUAGE",
    "CHECK CONSTRAINT",
    "COMMENT",
    "DEFAULT ACL",
    "SECURITY LABEL",
    "SEQUENCE SET",
    "TABLE DATA",
];
pub(super) const RELATIONS: &[&str] = &["TABLE", "FOREIGN TABLE", "VIEW", "MATERIALIZED VIEW"];

/// The entries that hold relations of these names; partitions come with their table.
pub fn relations(archive: &StoredArchive, items: &[Item], names: &[String]) -> Result<HashSet<i64>> {
    let named = named(archive, items, names)?;
    Ok(with_partitions(items, named.into_iter().map(|(_, id)| id).collect()))
}

/// Those alone, with their names, in their order.
pub fn named(archive: &StoredArchive, items: &[Item], names: &[String]) -> Result<Vec<Named>> {
    let mut named = relation_names(archive, items);
    named.sort();
    let mut chosen: BTreeSet<Named> = BTreeSet::new();
    for wanted in names {
        let found = named
            .iter()
            .filter(|(name, _)| spelt(name).iter().any(|text| text == wanted));
        let found: Vec<Named> = found.cloned().collect();
        match found.len() {
            0 if is_extensions(archive, wanted) => return Err(of_extension(wanted)),
            0 => return Err(unknown(wanted, &named)),
            1 => chosen.extend(found),
            _ => return Err(ambiguous(wanted, &found)),
        }
    }
    Ok(chosen.into_iter().collect())
}

/// A partitioned table's rows are in its partitions.
pub fn with_partitions(items: &[Item], mut chosen: HashSet<i64>) -> HashSet<i64> {
    let by_id = by_id(items);
    loop {
        let attached: Vec<i64> = items
            .iter()
            .filter(|item| item.entry.desc == "TABLE ATTACH")
            .filter_map(|item| partition(item, &by_id, &chosen))
            .collect();
        let before = chosen.len();
        chosen.extend(attached);
        if chosen.len() == before {
            return chosen;
        }
    }
}

/// Schema and name, and the entry's dump id.
pub type Named = ((String, String), i64);

/// Of all relations.
pub fn relation_names(archive: &StoredArchive, items: &[Item]) -> Vec<Named> {
    // The manifest has the names as they are; the archive's bytes are in the database's encoding.
    let with_data: HashMap<i64, &(String, String)> = archive
        .head
        .data
        .iter()
        .zip(&archive.tables)
        .filter_map(|(entry, name)| Some((entry.dump_id, name.as_ref()?)))
        .collect();
    let mut better: HashMap<i64, &(String, String)> = HashMap::new();
    for item in items {
        if let (Some(name), Some(table)) = (with_data.get(&item.entry.dump_id), item.details.dependencies.first()) {
            better.insert(*table, name);
        }
    }
    items
        .iter()
        .filter(|item| RELATIONS.contains(&item.entry.desc.as_str()))
        .map(|item| {
            let id = item.entry.dump_id;
            let own = || (item.entry.namespace.clone().unwrap_or_default(), item.entry.tag.clone());
            (better.get(&id).map_or_else(own, |name| (*name).clone()), id)
        })
        .collect()
}

/// Partitions whose table is not chosen and so is in the target already: the entries that attach
/// them, and those that attach their indexes. The server attaches a partition's indexes with it if
/// they are there and valid, and makes them if they are not: so it is attached last, and they need
/// nothing. An index of a level in between is valid when those below it are attached: that comes first.
pub fn joins(items: &[Item], chosen: &HashSet<i64>, entries: &HashSet<i64>) -> (Vec<i64>, HashSet<i64>) {
    let here = |item: &&Item| entries.contains(&item.entry.dump_id);
    let by_id = by_id(items);
    let tables: Vec<i64> = items
        .iter()
        .filter(here)
        .filter(|item| item.entry.desc == "TABLE ATTACH" && partition(item, &by_id, chosen).is_none())
        .map(|item| item.entry.dump_id)
        .collect();
    let indexes = items
        .iter()
        .filter(here)
        .filter(|item| item.entry.desc == "INDEX ATTACH")
        .filter(|item| !attach_needs(item, &by_id).iter().all(|id| entries.contains(id)))
        .map(|item| item.entry.dump_id)
        .collect();
    (tables, indexes)
}

/// What an entry that attaches an index needs: that index, the one right above it, and their tables. pg_dump also names
/// the constraints of all levels above.
fn attach_needs(attach: &Item, by_id: &HashMap<i64, &Item>) -> Vec<i64> {
    let needs = &attach.details.dependencies;
    let Some(pair) = attached_indexes(attach, by_id) else {
        return needs.clone();
    };
    let indexes = pair.iter().filter_map(|id| by_id.get(id));
    let of_pair: HashSet<i64> = indexes
        .flat_map(|item| item.details.dependencies.iter().copied())
        .collect();
    let is_table = |id: &i64| {
        let found = by_id.get(id);
        of_pair.contains(id) && found.is_some_and(|item| RELATIONS.contains(&item.entry.desc.as_str()))
    };
    let needed = needs.iter().filter(|id| pair.contains(id) || is_table(id));
    needed.copied().collect()
}

/// Of an entry that attaches an index, that index and the one right above it, each by its own entry or by that of its
/// constraint.
fn attached_indexes(attach: &Item, by_id: &HashMap<i64, &Item>) -> Option<[i64; 2]> {
    let rest = attach.definition().strip_prefix(b"ALTER INDEX ")?;
    let (above, rest) = leading_names(rest)?;
    let (own, _) = leading_names(rest.strip_prefix(b" ATTACH PARTITION ")?)?;
    let find = |path: &[Vec<u8>]| {
        let mut needs = attach.details.dependencies.iter().filter_map(|id| by_id.get(id));
        let found = needs.find(|other| is_index(other, path, by_id))?;
        Some(found.entry.dump_id)
    };
    Some([find(&own)?, find(&above)?])
}

/// Whether an entry makes the index of this schema and name.
fn is_index(item: &Item, path: &[Vec<u8>], by_id: &HashMap<i64, &Item>) -> bool {
    let [schema, name] = path else { return false };
    let [of, tag] = item.entry.path();
    let is_named = match item.entry.desc.as_str() {
        "INDEX" => tag == *name,
        // It is tagged with its table's name in front.
        "CONSTRAINT" => {
            let tables = item.details.dependencies.iter().filter_map(|id| by_id.get(id));
            let mut tables = tables.filter(|other| RELATIONS.contains(&other.entry.desc.as_str()));
            tables.any(|table| {
                let [_, table] = table.entry.path();
                let rest = tag.strip_prefix(table.as_slice());
                rest.and_then(|rest| rest.strip_prefix(b" ")) == Some(name.as_slice())
            })
        }
        _ => false,
    };
    of == *schema && is_named
}

pub(super) fn by_id(items: &[Item]) -> HashMap<i64, &Item> {
    items.iter().map(|item| (item.entry.dump_id, item)).collect()
}

/// Of an entry that attaches a partition, the partition, if its table is chosen.
pub(super) fn partition(attach: &Item, by_id: &HashMap<i64, &Item>, chosen: &HashSet<i64>) -> Option<i64> {
    let tables: Vec<&Item> = attach
        .details
        .dependencies
        .iter()
        .filter_map(|id| by_id.get(id).copied())
        .filter(|item| RELATIONS.contains(&item.entry.desc.as_str()))
        .collect();
    let is_partition =
        |item: &&&Item| item.entry.tag == attach.entry.tag && item.entry.namespace == attach.entry.namespace;
    let partition = tables.iter().find(is_partition)?.entry.dump_id;
    let parent = tables.iter().find(|item| item.entry.dump_id != partition)?;
    chosen.contains(&parent.entry.dump_id).then_some(partition)
}

/// What is to be restored for the chosen relations.
#[derive(Debug, Default)]
pub struct Choice {
    /// The tables with all that belongs to them.
    pub entries: HashSet<i64>,
    /// What they need and the target lacks: schemas, types, functions; with what belongs to these.
    pub prerequisites: HashSet<i64>,
    /// What they need and the target has: it stays as it is.
    pub there: HashSet<i64>,
    pub left_out: Vec<LeftOut>,
}

/// `exists` says of an entry whether the target has its object already.
pub fn choose(items: &[Item], relations: &HashSet<i64>, exists: impl Fn(&Item) -> bool) -> Result<Choice> {
    let by_id = by_id(items);
    let mut entries = relations.clone();
    // What belongs to them, and what belongs to that: an index's comment.
    loop {
        let before = entries.len();
        for item in items {
            let belongs = BELONGS.contains(&item.entry.desc.as_str()) && !item.is_of_database();
            if belongs
                && item.details.dependencies.iter().any(|id| entries.contains(id))
                && owns(item, &entries, &by_id)
            {
                entries.insert(item.entry.dump_id);
            }
        }
        if entries.len() == before {
            break;
        }
    }
    let above = Above::of(items, relations, &by_id);
    let mut choice = Choice {
        entries,
        ..Choice::default()
    };
    let ordered: Vec<&Item> = items
        .iter()
        .filter(|item| choice.entries.contains(&item.entry.dump_id))
        .collect();
    for item in ordered {
        if !choice.entries.contains(&item.entry.dump_id) {
            continue;
        }
        match need(item, &by_id, &choice, &above, &exists) {
            Ok((needed, there)) => {
                choice.prerequisites.extend(needed);
                choice.there.extend(there);
            }
            Err(lacking) if DISPENSABLE.contains(&item.entry.desc.as_str()) => {
                choice.entries.remove(&item.entry.dump_id);
                choice.left_out.push(LeftOut {
                    what: item.entry.to_string(),
                    why: format!("the target lacks {}", lacking.entry),
                });
            }
            Err(lacking) => {
                let what = format!("{} needs {}, which the target lacks", item.entry, lacking.entry);
                return Err(Error::new(Code::RestoreErr, what).hint("restore it as well: name it with another --table"));
            }
        }
    }
    drop_orphans(items, &mut choice, relations);
    accompany(items, &mut choice);
    Ok(choice)
}

/// A sequence comes with its value, a function with its revokes, a schema with its grants and comment.
fn accompany(items: &[Item], choice: &mut Choice) {
    let of_kind = |kinds: &'static [&'static str]| {
        let wanted = items
            .iter()
            .filter(move |item| kinds.contains(&item.entry.desc.as_str()));
        wanted.filter(|item| !item.is_of_database())
    };
    // The rows of an extension's own table name no table of the archive.
    let tables: HashSet<i64> = of_kind(RELATIONS).map(|item| item.entry.dump_id).collect();
    let belongs = |item: &&Item| {
        let needs = &item.details.dependencies;
        needs.iter().any(|id| choice.prerequisites.contains(id)) && !needs.iter().any(|id| tables.contains(id))
    };
    let mut more: Vec<i64> = of_kind(OF_PREREQUISITES)
        .filter(belongs)
        .map(|item| item.entry.dump_id)
        .collect();
    let servers = of_kind(&["SERVER"]).filter(|item| choice.prerequisites.contains(&item.entry.dump_id));
    let ends: Vec<String> = servers.map(|item| format!(" SERVER {}", item.entry.tag)).collect();
    // The archive says no dependency of them.
    let mappings = of_kind(&["USER MAPPING"]).filter(|item| ends.iter().any(|end| item.entry.tag.ends_with(end)));
    more.extend(mappings.map(|item| item.entry.dump_id));
    choice.prerequisites.extend(more);
}

/// An entry that depends on a chosen table *and* belongs to another one stays with that other: a
/// foreign key that points here, a trigger's function that reads here.
pub(super) fn owns(item: &Item, entries: &HashSet<i64>, by_id: &HashMap<i64, &Item>) -> bool {
    // `FK CONSTRAINT`, `TRIGGER` and the like are tagged with the name of their table in front.
    let tables = item
        .details
        .dependencies
        .iter()
        .filter_map(|id| by_id.get(id))
        .filter(|other| RELATIONS.contains(&other.entry.desc.as_str()));
    let mut owners = tables.filter(|table| {
        table.entry.namespace == item.entry.namespace
            && (item.entry.tag == table.entry.tag
                || item
                    .entry
                    .tag
                    .strip_prefix(&table.entry.tag)
                    .is_some_and(|rest| rest.starts_with(' ')))
    });
    match item.entry.desc.as_str() {
        "FK CONSTRAINT" | "TRIGGER" | "RULE" | "POLICY" | "CONSTRAINT" | "DEFAULT" => match owners.next() {
            Some(owner) => entries.contains(&owner.entry.dump_id),
            None => true,
        },
        // A partition's needs the one above it too, which is another table's.
        "INDEX" => {
            let needs = &item.details.dependencies;
            let is_table = |id: &&i64| {
                by_id
                    .get(id)
                    .is_some_and(|other| RELATIONS.contains(&other.entry.desc.as_str()))
            };
            let mut tables = needs.iter().filter(is_table).peekable();
            tables.peek().is_none() || tables.any(|id| entries.contains(id))
        }
        "INDEX ATTACH" => attached_indexes(item, by_id).is_none_or(|[own, _]| entries.contains(&own)),
        _ => true,
    }
}

/// What an entry needs beyond what is chosen, all the way down: what the target lacks, and what it has. Or the relation
/// that is lacking.
fn need<'a>(
    item: &Item,
    by_id: &HashMap<i64, &'a Item>,
    choice: &Choice,
    above: &Above,
    exists: &impl Fn(&Item) -> bool,
) -> std::result::Result<(HashSet<i64>, HashSet<i64>), &'a Item> {
    let mut needed = HashSet::new();
    let mut there = HashSet::new();
    let mut open: Vec<i64> = match item.entry.desc.as_str() {
        "INDEX ATTACH" => attach_needs(item, by_id),
        _ => item.details.dependencies.clone(),
    };
    open.extend(unrecorded::needs(item, by_id));
    while let Some(id) = open.pop() {
        let Some(other) = by_id.get(&id) else { continue };
        if choice.entries.contains(&id) || choice.prerequisites.contains(&id) || needed.contains(&id) {
            continue;
        }
        if exists(other) {
            there.insert(id);
            continue;
        }
        if above.is_of_it(item, other) {
            continue;
        }
        if RELATIONS.contains(&other.entry.desc.as_str()) || BELONGS.contains(&other.entry.desc.as_str()) {
            // A constraint or index of another relation: it is that relation that is lacking.
            if other.entry.desc != "SEQUENCE" {
                return Err(other);
            }
        }
        needed.insert(id);
        let is_owner = |id: &i64| stands_alone(other) && by_id.get(id).is_some_and(|item| item.entry.desc == "TABLE");
        open.extend(other.details.dependencies.iter().filter(|id| !is_owner(id)));
    }
    Ok((needed, there))
}

/// The tables whose partitions are chosen without them. A partition is defined as a table of its own, and attached
/// afterwards: it needs nothing of them.
struct Above(HashSet<i64>);

impl Above {
    fn of(items: &[Item], relations: &HashSet<i64>, by_id: &HashMap<i64, &Item>) -> Above {
        let attached = items.iter().filter(|item| {
            let is_chosen = |id: &i64| relations.contains(id);
            item.entry.desc == "TABLE ATTACH" && item.details.dependencies.iter().any(is_chosen)
        });
        let parents = attached.filter(|item| partition(item, by_id, relations).is_none());
        let parents = parents.flat_map(|item| &item.details.dependencies);
        Above(parents.copied().filter(|id| !relations.contains(id)).collect())
    }

    /// Whether this is such a table, or an index or constraint of it, that the item names for being like it.
    fn is_of_it(&self, item: &Item, other: &Item) -> bool {
        let is_table = self.0.contains(&other.entry.dump_id);
        match item.entry.desc.as_str() {
            "TABLE" | "FOREIGN TABLE" => is_table && !item.details.definition.contains("\nINHERITS ("),
            "CONSTRAINT" | "INDEX" => {
                let of_table = other.details.dependencies.iter().any(|id| self.0.contains(id));
                is_table || (of_table && matches!(other.entry.desc.as_str(), "CONSTRAINT" | "INDEX"))
            }
            _ => false,
        }
    }
}

/// Whether it is a sequence that is made without the table that owns it: of a partition's default that is, as of its
/// root's, the root.
pub(super) fn stands_alone(item: &Item) -> bool {
    item.entry.desc == "SEQUENCE" && item.details.definition.trim_start().starts_with("CREATE ")
}

/// What belonged to an entry that was left out (its comment) stays behind too.
fn drop_orphans(items: &[Item], choice: &mut Choice, relations: &HashSet<i64>) {
    let left: BTreeSet<i64> = loop {
        let here = |id: &i64| choice.entries.contains(id);
        let orphans: BTreeSet<i64> = items
            .iter()
            .filter(|item| here(&item.entry.dump_id) && !relations.contains(&item.entry.dump_id))
            .filter(|item| !item.details.dependencies.iter().any(here))
            .map(|item| item.entry.dump_id)
            .collect();
        if orphans.is_empty() {
            break orphans;
        }
        choice.entries.retain(|id| !orphans.contains(id));
    };
    debug_assert!(left.is_empty());
}

//! Chooses the entries of an archive that belong to a table, and those that the table needs and the target may lack.
//! A pure function: the caller says which objects the target has.

pub mod older;
mod spelling;
pub mod unrecorded;

use std::collections::{BTreeSet, HashMap, HashSet};

use spelling::{ambiguous, is_extensions, of_extension, spelt, unknown};

use super::plan::LeftOut;
use crate::error::{Code, Error, Result};
use crate::format::archive::{Item, leading_names};
use crate::repository::stored_archive::StoredArchive;

/// Kinds of entries that come along with a table that they depend on.
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
/// Kinds of entries that may be left out if the target lacks an object that they refer to.
const DISPENSABLE: &[&str] = &[
    "FK CONSTRAINT",
    "TABLE ATTACH",
    "INDEX ATTACH",
    "TRIGGER",
    "RULE",
    "POLICY",
];
/// Kinds of entries that belong to a prerequisite, and come along when it is made.
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

/// The entries of the relations with these names. Partitions come with their table.
pub fn relations(archive: &StoredArchive, items: &[Item], names: &[String]) -> Result<HashSet<i64>> {
    let named = named(archive, items, names)?;
    Ok(with_partitions(items, named.into_iter().map(|(_, id)| id).collect()))
}

/// Only those entries, with their names, in the order in which they were named.
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

/// Adds the partitions of the chosen tables: a partitioned table's rows are in its partitions.
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

/// The names of all relations.
pub fn relation_names(archive: &StoredArchive, items: &[Item]) -> Vec<Named> {
    // The manifest has the names in UTF-8; the archive's bytes are in the database's encoding.
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

/// For partitions whose table is not chosen, since the target has it already: the entries that attach the partitions,
/// and those that attach their indexes. When the server attaches a partition, it also attaches the partition's
/// indexes if they exist and are valid, and makes those that are missing. So the partition is attached last, and its
/// indexes need nothing. An index of a level in between is valid only after those below it are attached, so these
/// come first.
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

/// What an entry that attaches an index needs: that index, the index directly above it, and the tables of both.
/// pg_dump also names the constraints of all levels above; they are not needed.
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

/// The two indexes that an entry attaches to each other: the own index and the one directly above it. Each is given
/// by its own entry or by that of its constraint.
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
        // Its tag begins with the name of its table.
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

/// The partition that this entry attaches, if its table is chosen.
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

/// The entries that are restored for the chosen relations.
#[derive(Debug, Default)]
pub struct Choice {
    /// The tables, with everything that belongs to them.
    pub entries: HashSet<i64>,
    /// Objects that the tables need and the target lacks (schemas, types, functions), with everything that belongs to
    /// these.
    pub prerequisites: HashSet<i64>,
    /// Objects that the tables need and the target has. They stay unchanged.
    pub there: HashSet<i64>,
    pub left_out: Vec<LeftOut>,
}

/// `exists` says whether the target already has the object of an entry.
pub fn choose(items: &[Item], relations: &HashSet<i64>, exists: impl Fn(&Item) -> bool) -> Result<Choice> {
    let by_id = by_id(items);
    let mut entries = relations.clone();
    // Repeats until nothing is added: an index belongs to a table, and a comment belongs to the index.
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

/// Adds the entries that come with others: the value of a sequence, the revokes of a function, the grants and the
/// comment of a schema.
fn accompany(items: &[Item], choice: &mut Choice) {
    let of_kind = |kinds: &'static [&'static str]| {
        let wanted = items
            .iter()
            .filter(move |item| kinds.contains(&item.entry.desc.as_str()));
        wanted.filter(|item| !item.is_of_database())
    };
    // The rows of an extension's own table depend on no table entry in the archive.
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
    // The archive records no dependency for user mappings.
    let mappings = of_kind(&["USER MAPPING"]).filter(|item| ends.iter().any(|end| item.entry.tag.ends_with(end)));
    more.extend(mappings.map(|item| item.entry.dump_id));
    choice.prerequisites.extend(more);
}

/// Whether the entry belongs to a chosen table. An entry that depends on a chosen table *and* belongs to another one
/// stays with the other: a foreign key of another table that points here, a trigger whose function reads this table.
pub(super) fn owns(item: &Item, entries: &HashSet<i64>, by_id: &HashMap<i64, &Item>) -> bool {
    // The tags of `FK CONSTRAINT`, `TRIGGER` and similar kinds begin with the name of their table.
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
        // The index of a partition also needs the index above it, which belongs to another table.
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

/// What an entry needs beyond the chosen entries, followed to the end: what the target lacks, and what it has. The
/// error is the relation that the target lacks.
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
            // For a constraint or an index of another relation, the relation is what the target lacks.
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

/// Tables that are not chosen but have chosen partitions. A partition is defined as a table of its own and attached
/// afterwards, so it needs nothing from them.
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

    /// Whether `other` is such a table, or an index or constraint of it, that the item names only because it
    /// resembles it.
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

/// Whether the item is a sequence that can be made without the table that owns it. A partition's default can use the
/// sequence of its root table, and the root owns that sequence.
pub(super) fn stands_alone(item: &Item) -> bool {
    item.entry.desc == "SEQUENCE" && item.details.definition.trim_start().starts_with("CREATE ")
}

/// An entry that belongs to an entry that was left out (its comment) is left out too.
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

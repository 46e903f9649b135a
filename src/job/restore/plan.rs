//! Decides what a restore will do before it does anything: a pure function of the archive's table of contents and of
//! the request.
//!
//! Every entry belongs to one of three steps. Stock pg_restore runs each step with a list of its entries: first the
//! definitions, then the data (several processes at once), then what is better made after the data (indexes,
//! constraints, triggers). Grants come last, as in pg_restore's own order, so that they cannot make the load of data
//! fail.

mod demands;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::load::Load;
use super::order::LoadOrder;
use super::parts::{self, Divisible};
use crate::format::archive::{Item, Section};
use crate::repository::stored_archive::StoredArchive;
pub(super) use demands::is_given_away;

/// A pg_restore takes a moment to start and to read a long table of contents. So small tables are grouped into one
/// pg_restore, up to these limits of stored bytes and of blocks.
const GROUP_BYTES: u64 = 32 << 20;
const GROUP_BLOCKS: usize = 250;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Schemas with their grants, if other roles will own objects in them: an owner needs the right to create there.
    pub ground: Vec<i64>,
    /// Dump ids of the definitions, in the archive's order.
    pub before: Vec<i64>,
    /// In the archive's order. With several jobs, loads that others wait for come first, and the late ones last.
    pub loads: Vec<Load>,
    pub order: LoadOrder,
    /// Dump ids of indexes, constraints, triggers and grants.
    pub after: Vec<i64>,
    /// Entries that attach the chosen tables to others that the target has.
    pub joins: Vec<i64>,
    /// Run last and alone: event triggers, which fire at every change of a definition.
    pub events: Vec<i64>,
    /// Statements that remove conflicting objects, dependents first as the backup records them.
    pub drops: Vec<String>,
    /// Statements that remove parts of these objects, run only if objects depend on each other.
    pub partings: Vec<String>,
    /// Tables that are emptied before rows are loaded into them, quoted; with `ONLY` if their child tables keep their
    /// rows.
    pub emptied: Vec<String>,
    /// Large objects with an OID that the backup has too.
    pub large_objects: Vec<u32>,
    /// Extensions that will be made.
    pub extensions: BTreeSet<String>,
    /// Roles that must exist: owners, and those that grants name.
    pub roles: BTreeSet<String>,
    /// Those of the roles that own objects, each with the first of them.
    pub owners: BTreeMap<String, String>,
    pub tablespaces: BTreeSet<String>,
    /// By the dump ids of their data: `COPY` statements for partitions whose rows would land in other partitions if
    /// they were loaded through the root.
    pub copies: HashMap<i64, Vec<u8>>,
    /// Dump ids of entries that the user excluded: their objects stay as they are in the target, or are not made.
    pub kept: HashSet<i64>,
    /// Entries that belong to the chosen tables and cannot be restored, with the reasons.
    pub left_out: Vec<LeftOut>,
    /// Objects that the chosen tables need and the target has. They stay unchanged.
    pub already_there: Vec<String>,
}

impl Plan {
    /// Takes entries without blocks out of every step.
    pub fn leave_out(&mut self, entries: &HashSet<i64>) {
        let Plan {
            ground,
            before,
            after,
            joins,
            events,
            ..
        } = self;
        let loads = self.loads.iter_mut().map(|load| &mut load.list);
        for list in loads.chain([ground, before, after, joins, events]) {
            list.retain(|id| !entries.contains(id));
        }
        self.loads
            .retain(|load| !load.list.is_empty() || !load.blocks.is_empty());
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct LeftOut {
    pub what: String,
    pub why: String,
}

/// What a restore leaves out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Without {
    pub owners: bool,
    pub grants: bool,
    pub definitions: bool,
    /// Loading tables in several parts, since some of the parts may fail.
    pub parts: bool,
}

/// The plan for the entries whose dump ids are `chosen`. It does everything that the archive's own pg_restore would
/// do with them. With several jobs, large tables are loaded in parts.
pub fn plan(archive: &StoredArchive, items: &[Item], chosen: &HashSet<i64>, without: Without, jobs: usize) -> Plan {
    let mut plan = Plan::default();
    let wanted = |item: &&Item| chosen.contains(&item.entry.dump_id) && !item.is_setting() && !item.is_of_database();
    let blocks: BTreeMap<i64, usize> = archive
        .head
        .data
        .iter()
        .enumerate()
        .map(|(index, entry)| (entry.dump_id, index))
        .collect();
    let mut loose = Load::default();
    let mut pieces: Vec<Load> = Vec::new();
    for item in items.iter().filter(wanted) {
        let id = item.entry.dump_id;
        if let Some(&index) = blocks.get(&id) {
            let stored = archive.places[index];
            pieces.push(Load {
                blocks: vec![index],
                list: with_metadata(item, items, chosen),
                part: None,
                stored_bytes: stored.length,
            });
            continue;
        }
        match item.entry.desc.as_str() {
            // Setting a sequence's value needs only the sequence.
            "SEQUENCE SET" => loose.list.push(id),
            "BLOB METADATA" if has_contents(item, items) => {}
            "BLOB METADATA" => loose.list.push(id),
            _ if item.is_grant() => {
                if !without.grants && !without.definitions {
                    plan.after.push(id);
                }
            }
            _ if without.definitions => {}
            _ if item.section == Section::PreData => plan.before.push(id),
            _ => plan.after.push(id),
        }
    }
    plan.order = LoadOrder::of(items);
    if jobs > 1 && !without.definitions && !without.parts {
        let allowed = divisible(items, chosen);
        pieces = divide(pieces, archive, &allowed, jobs, &plan.order);
    }
    plan.loads = match jobs {
        1 => in_order(pieces, &plan.order),
        _ => in_turn(pieces, &plan.order),
    };
    if !loose.list.is_empty() {
        plan.loads.push(loose);
    }
    plan.demand(items, without);
    plan
}

/// The tables that several pg_restores may load.
fn divisible(items: &[Item], chosen: &HashSet<i64>) -> HashSet<i64> {
    let divisible = Divisible::among(items, chosen);
    let allowed = items.iter().filter(|item| divisible.allows(item));
    allowed.map(|item| item.entry.dump_id).collect()
}

fn divide(
    pieces: Vec<Load>,
    archive: &StoredArchive,
    allowed: &HashSet<i64>,
    jobs: usize,
    order: &LoadOrder,
) -> Vec<Load> {
    let target = parts::target(pieces.iter().map(|piece| piece.stored_bytes).sum(), jobs);
    let divided = pieces.into_iter().flat_map(|piece| match piece.blocks[..] {
        [block] if !order.is_late(&piece) && piece.list.iter().all(|id| allowed.contains(id)) => {
            parts::cut(piece, &archive.ranges[block], target)
        }
        _ => vec![piece],
    });
    divided.collect()
}

/// Since archive version 1.16, large objects are made by entries of their own. These must be in the same pg_restore
/// as the contents.
fn with_metadata(item: &Item, items: &[Item], chosen: &HashSet<i64>) -> Vec<i64> {
    if item.entry.desc != "BLOBS" {
        return vec![item.entry.dump_id];
    }
    let belongs = |other: &&Item| {
        let id = other.entry.dump_id;
        other.entry.desc == "BLOB METADATA" && item.details.dependencies.contains(&id) && chosen.contains(&id)
    };
    let metadata = items.iter().filter(belongs).map(|other| other.entry.dump_id);
    metadata.chain([item.entry.dump_id]).collect()
}

fn has_contents(metadata: &Item, items: &[Item]) -> bool {
    items
        .iter()
        .any(|item| item.entry.desc == "BLOBS" && item.details.dependencies.contains(&metadata.entry.dump_id))
}

/// In the archive's order, except that a table with generated columns comes after the tables that these read.
fn in_order(pieces: Vec<Load>, order: &LoadOrder) -> Vec<Load> {
    let (computed, others): (Vec<Load>, Vec<Load>) = pieces.into_iter().partition(|piece| order.computes(piece));
    [others, computed].into_iter().flat_map(group).collect()
}

/// First the loads that others wait for, then those that depend on nothing, then those that depend on everything;
/// each group in the archive's order.
fn in_turn(pieces: Vec<Load>, order: &LoadOrder) -> Vec<Load> {
    let of_extension = |piece: &Load| piece.list.iter().any(|id| order.of_extensions.contains(id));
    let (late, others): (Vec<Load>, Vec<Load>) = pieces.into_iter().partition(|piece| order.is_late(piece));
    let (first, others): (Vec<Load>, Vec<Load>) = others.into_iter().partition(of_extension);
    [first, others, late].into_iter().flat_map(group).collect()
}

/// Groups neighbours while they are small.
fn group(pieces: Vec<Load>) -> Vec<Load> {
    let mut loads: Vec<Load> = Vec::new();
    let mut open: Option<Load> = None;
    for piece in pieces {
        let whole = |load: &Load| load.part.is_none();
        match &mut open {
            Some(load)
                if whole(load)
                    && whole(&piece)
                    && load.stored_bytes + piece.stored_bytes <= GROUP_BYTES
                    && load.blocks.len() < GROUP_BLOCKS =>
            {
                load.stored_bytes += piece.stored_bytes;
                load.blocks.extend(piece.blocks);
                load.list.extend(piece.list);
            }
            _ => loads.extend(open.replace(piece)),
        }
    }
    loads.extend(open);
    loads
}

impl Plan {
    pub fn stored_bytes(&self) -> u64 {
        self.loads.iter().map(|load| load.stored_bytes).sum()
    }

    /// Moves schemas and their grants into a step of their own, before everything else.
    pub fn part_ground(&mut self, items: &[Item]) {
        let of_schemas = items.iter().filter(|item| {
            item.entry.desc == "SCHEMA" || (item.entry.desc == "ACL" && item.entry.tag.starts_with("SCHEMA "))
        });
        let planned: HashSet<i64> = self.before.iter().chain(&self.after).copied().collect();
        let ground = of_schemas
            .map(|item| item.entry.dump_id)
            .filter(|id| planned.contains(id));
        self.ground = ground.collect();
        self.before.retain(|id| !self.ground.contains(id));
        self.after.retain(|id| !self.ground.contains(id));
    }

    /// Moves event triggers, and entries that depend on them, out of the step that several processes run at once.
    pub fn part_events(&mut self, items: &[Item]) {
        let of_events = with_dependents(items, "EVENT TRIGGER");
        let (events, after) = self.after.iter().partition(|id| of_events.contains(id));
        (self.events, self.after) = (events, after);
    }

    /// The dump ids of all entries that are restored.
    pub fn entries(&self) -> impl Iterator<Item = i64> {
        let lists = [&self.ground, &self.before, &self.after, &self.joins, &self.events];
        let loads = self.loads.iter().map(|load| &load.list);
        lists.into_iter().chain(loads).flatten().copied()
    }

    /// The blocks, each once, also those that are loaded in parts.
    pub fn blocks(&self) -> impl Iterator<Item = usize> {
        let first = |load: &&Load| load.part.as_ref().is_none_or(|part| part.ranges.start == 0);
        self.loads
            .iter()
            .filter(first)
            .flat_map(|load| load.blocks.iter().copied())
    }

    /// Tables that are loaded in parts.
    pub fn divided(&self) -> HashSet<usize> {
        let parts = self.loads.iter().filter(|load| load.part.is_some());
        parts.flat_map(|load| load.blocks.iter().copied()).collect()
    }
}

/// The entries of this kind, and all entries that need them.
fn with_dependents(items: &[Item], kind: &str) -> HashSet<i64> {
    let of_kind = items.iter().filter(|item| item.entry.desc == kind);
    let mut found: HashSet<i64> = of_kind.map(|item| item.entry.dump_id).collect();
    loop {
        let needs = |item: &&Item| item.details.dependencies.iter().any(|id| found.contains(id));
        let more: Vec<i64> = items.iter().filter(needs).map(|item| item.entry.dump_id).collect();
        let before = found.len();
        found.extend(more);
        if found.len() == before {
            return found;
        }
    }
}

/// Everything that is in the archive.
pub fn everything(items: &[Item]) -> HashSet<i64> {
    items.iter().map(|item| item.entry.dump_id).collect()
}

/// Statements that remove the objects of these entries, dependents first; and those for parts of them, kept apart.
/// A part is removed with its object, so it needs no statement. By now an index or default of its name may belong to
/// another table, or depend on an object that has changed.
pub fn drops(items: &[Item], chosen: &HashSet<i64>) -> (Vec<String>, Vec<String>) {
    let relations: HashSet<i64> = items
        .iter()
        .filter(|item| chosen.contains(&item.entry.dump_id) && is_relation(item))
        .map(|item| item.entry.dump_id)
        .collect();
    let partitions = partitions(items, chosen);
    let statement = |item: &Item| {
        let statement = item.details.drop_statement.trim();
        (!statement.is_empty() && !statement.starts_with("--")).then(|| statement.to_owned())
    };
    let (mut drops, mut partings) = (Vec::new(), Vec::new());
    let removed = items
        .iter()
        .rev()
        .filter(|item| chosen.contains(&item.entry.dump_id) && !item.is_of_database() && !item.is_grant())
        // Large objects have no statement of their own: see [`Plan::large_objects`].
        .filter(|item| !item.entry.desc.starts_with("BLOB"));
    for item in removed {
        let Some(statement) = statement(item) else { continue };
        match part_of(item, &relations) {
            None => drops.push(statement),
            // A view that is made without its query, so that both objects can be removed.
            Some(_) if statement.starts_with("CREATE OR REPLACE VIEW ") => drops.push(statement),
            Some(_) if PARTS_BY_NAME.contains(&item.entry.desc.as_str()) => {}
            Some(table) if partitions.contains(&table) => {}
            Some(_) => partings.push(statement),
        }
    }
    (drops, partings)
}

/// Kinds of parts that are named within a schema, and so may belong to another table by now.
const PARTS_BY_NAME: [&str; 2] = ["INDEX", "STATISTICS"];

/// The table that the item is part of, if that table is removed.
fn part_of(item: &Item, relations: &HashSet<i64>) -> Option<i64> {
    const PARTS: [&str; 10] = [
        "CHECK CONSTRAINT",
        "CONSTRAINT",
        "DEFAULT",
        "FK CONSTRAINT",
        "INDEX",
        "POLICY",
        "ROW SECURITY",
        "RULE",
        "STATISTICS",
        "TRIGGER",
    ];
    let mut needed = item.details.dependencies.iter().copied();
    let is_part = PARTS.contains(&item.entry.desc.as_str());
    needed.find(|id| is_part && relations.contains(id))
}

/// Schema and name of every relation and index that these entries make.
pub fn names(items: &[Item], made: &HashSet<i64>) -> Vec<(String, String)> {
    let tags: HashMap<i64, &str> = items
        .iter()
        .filter(|item| is_relation(item))
        .map(|item| (item.entry.dump_id, item.entry.tag.as_str()))
        .collect();
    let name = |item: &Item| match item.entry.desc.as_str() {
        "TABLE" | "FOREIGN TABLE" | "VIEW" | "MATERIALIZED VIEW" | "SEQUENCE" | "INDEX" => Some(item.entry.tag.clone()),
        // Constraints that make an index of the same name.
        "CONSTRAINT" => {
            let definition = &item.details.definition;
            let by_index = [" PRIMARY KEY ", " UNIQUE ", " EXCLUDE "]
                .iter()
                .any(|word| definition.contains(word));
            let mut tables = item
                .details
                .dependencies
                .iter()
                .filter_map(|id| tags.get(id))
                .filter(|_| by_index);
            tables.find_map(|table| Some(item.entry.tag.strip_prefix(*table)?.strip_prefix(' ')?.to_owned()))
        }
        _ => None,
    };
    let made = items.iter().filter(|item| made.contains(&item.entry.dump_id));
    let named = made.filter_map(|item| Some((item.entry.namespace.clone()?, name(item)?)));
    named.collect()
}

pub fn is_relation(item: &Item) -> bool {
    matches!(
        item.entry.desc.as_str(),
        "TABLE" | "FOREIGN TABLE" | "VIEW" | "MATERIALIZED VIEW"
    )
}

/// The partitions among these tables.
fn partitions(items: &[Item], chosen: &HashSet<i64>) -> HashSet<i64> {
    let tables: HashMap<(Option<&str>, &str), &Item> = items
        .iter()
        .filter(|item| chosen.contains(&item.entry.dump_id) && is_relation(item))
        .map(|item| ((item.entry.namespace.as_deref(), item.entry.tag.as_str()), item))
        .collect();
    let attached = items.iter().filter(|item| item.entry.desc == "TABLE ATTACH");
    let attached = attached.filter_map(|item| tables.get(&(item.entry.namespace.as_deref(), item.entry.tag.as_str())));
    // Older dumps attach a partition in the statement that makes it.
    let made = tables
        .values()
        .filter(|item| item.details.definition.contains(" ATTACH PARTITION "));
    attached.chain(made).map(|item| item.entry.dump_id).collect()
}

/// The OIDs of the large objects that these entries make.
pub fn large_objects(items: &[Item], chosen: &HashSet<i64>) -> Vec<u32> {
    let chosen = items.iter().filter(|item| chosen.contains(&item.entry.dump_id));
    chosen.flat_map(objects_of).collect()
}

pub fn objects_of(item: &Item) -> Vec<u32> {
    match item.entry.desc.as_str() {
        "BLOB" => vec![item.entry.oid],
        // Its definition is a list of OIDs, one per line.
        "BLOB METADATA" => item
            .details
            .definition
            .lines()
            .filter_map(|line| line.trim().parse().ok())
            .collect(),
        _ => Vec::new(),
    }
}

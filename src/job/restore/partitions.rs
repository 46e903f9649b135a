//! Partitions in the archive: which table each belongs to, and how its rows are loaded if the root is not chosen. A
//! pure function of the table of contents.

use std::collections::{HashMap, HashSet};

use super::choice::{RELATIONS, by_id, partition};
use crate::format::archive::{Item, Loading};

/// The tables that partitions belong to, by the dump ids of both.
struct Parents<'a> {
    by_id: HashMap<i64, &'a Item>,
    parents: HashMap<i64, i64>,
}

impl<'a> Parents<'a> {
    fn of(items: &'a [Item]) -> Self {
        let by_id = by_id(items);
        let all: HashSet<i64> = by_id.keys().copied().collect();
        let attached = items.iter().filter(|item| item.entry.desc == "TABLE ATTACH");
        let pair = |item: &Item| {
            let child = partition(item, &by_id, &all)?;
            let is_table = |id: &&i64| {
                by_id
                    .get(id)
                    .is_some_and(|item| RELATIONS.contains(&item.entry.desc.as_str()))
            };
            let mut tables = item.details.dependencies.iter().filter(is_table);
            Some((child, *tables.find(|id| **id != child)?))
        };
        let parents = attached.filter_map(pair).collect();
        Self { by_id, parents }
    }

    /// For an entry of rows: the table itself, then the tables above it, up to the root.
    fn line(&self, rows: &Item) -> Vec<&'a Item> {
        let tables = rows.details.dependencies.iter().filter_map(|id| self.by_id.get(id));
        let mut of_it = tables.filter(|item| item.entry.desc == "TABLE" && item.entry.path() == rows.entry.path());
        let mut line: Vec<&Item> = of_it.next().copied().into_iter().collect();
        while let Some(parent) = line.last().and_then(|item| self.parents.get(&item.entry.dump_id))
            && line.len() <= self.parents.len()
        {
            line.extend(self.by_id.get(parent));
        }
        line
    }
}

/// Chosen partitions whose rows pg_dump loads through a root that is not chosen: how they are loaded by themselves,
/// or through the highest chosen table. Through the root their rows would go to its other partitions, or nowhere,
/// since the partitions are attached last.
pub fn by_themselves(items: &[Item], relations: &HashSet<i64>) -> HashMap<i64, Vec<u8>> {
    let parents = Parents::of(items);
    let chosen: HashSet<Vec<Vec<u8>>> = items
        .iter()
        .filter(|item| relations.contains(&item.entry.dump_id))
        .map(|item| item.entry.path().into())
        .collect();
    let itself = |item: &Item| {
        let (entry, copy) = (&item.entry, &item.details.copy_statement);
        let loading = Loading::parse(copy).filter(|loading| loading.is_through_another(entry))?;
        if chosen.contains(&loading.path()) {
            return None;
        }
        let line = parents.line(item);
        let highest = line.iter().rev().find(|table| relations.contains(&table.entry.dump_id));
        let path = highest.map_or_else(|| entry.path(), |table| table.entry.path());
        Some((entry.dump_id, loading.for_table(&path)))
    };
    items
        .iter()
        .filter(|item| item.entry.has_data)
        .filter_map(itself)
        .collect()
}

/// For such rows, the highest chosen table, if the tables above it use hash partitions.
pub fn goes_by_hashes<'a>(items: &'a [Item], relations: &HashSet<i64>, rows: &Item) -> Option<&'a Item> {
    let line = Parents::of(items).line(rows);
    let at = line
        .iter()
        .rposition(|table| relations.contains(&table.entry.dump_id))?;
    let by_hashes = |table: &&&Item| table.details.definition.contains("PARTITION BY HASH (");
    line[at + 1..].iter().find(by_hashes).map(|_| line[at])
}

/// The chosen tables that have rows and are partitions of a named table, with that table.
pub fn attached<'a>(items: &'a [Item], named: &HashSet<i64>, rows: &[&'a Item]) -> Vec<(&'a Item, &'a Item)> {
    let parents = Parents::of(items);
    let pair = |item: &&'a Item| {
        let line = parents.line(item);
        let highest = line.iter().rposition(|table| named.contains(&table.entry.dump_id))?;
        (highest > 0).then(|| (line[0], line[highest]))
    };
    rows.iter().filter_map(pair).collect()
}

/// The database's own types in a table's rows.
pub fn types_of<'a>(items: &'a [Item], rows: &Item) -> Vec<&'a Item> {
    let by_id = by_id(items);
    let mut open = rows.details.dependencies.clone();
    let mut found: HashMap<i64, &Item> = HashMap::new();
    while let Some(id) = open.pop() {
        let Some(&item) = by_id.get(&id) else { continue };
        match item.entry.desc.as_str() {
            "TABLE" if rows.details.dependencies.contains(&id) => open.extend(&item.details.dependencies),
            "TYPE" | "DOMAIN" if found.insert(id, item).is_none() => open.extend(&item.details.dependencies),
            _ => {}
        }
    }
    found.into_values().collect()
}

/// A chosen root through which rows of its partitions are loaded.
pub struct Through {
    pub schema: String,
    pub name: String,
    /// Dump ids.
    pub rows: HashSet<i64>,
}

pub fn loaded_through(items: &[Item], relations: &HashSet<i64>, copies: &HashMap<i64, Vec<u8>>) -> Vec<Through> {
    let mut roots: Vec<Through> = Vec::new();
    let chosen = items.iter().filter(|item| relations.contains(&item.entry.dump_id));
    for root in chosen.filter(|item| item.entry.desc == "TABLE") {
        let (schema, name) = (root.entry.namespace.clone().unwrap_or_default(), root.entry.tag.clone());
        let through = |item: &&Item| {
            let statement = copies.get(&item.entry.dump_id).unwrap_or(&item.details.copy_statement);
            let loading = Loading::parse(statement).filter(|loading| loading.is_through_another(&item.entry));
            loading.is_some_and(|loading| loading.path() == root.entry.path())
        };
        let rows = items.iter().filter(|item| item.entry.has_data).filter(through);
        let rows: HashSet<i64> = rows.map(|item| item.entry.dump_id).collect();
        if !rows.is_empty() {
            roots.push(Through { schema, name, rows });
        }
    }
    roots
}

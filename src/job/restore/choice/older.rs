//! Finds the indexes of a partition that must be made before its keys. When a partition is attached, the server goes
//! through the indexes of the table above, the oldest first, and attaches to each the oldest matching index of the
//! partition. To a key it attaches only the index of a key. So a plain index of the table above that is older than
//! the key would get the index of the partition's key, and the key would get none. Servers before 18 do not
//! distinguish a primary key from a unique constraint: if both are on the same columns, the partition's must be made
//! in the same order as those above.

use std::collections::{BTreeMap, HashMap, HashSet};

use memchr::memmem;

use super::{RELATIONS, attached_indexes, by_id, leading_names};
use crate::format::archive::Item;

/// Of the indexes that come with a partition that is attached, those that match a key. `attaches` are the entries
/// that attach them.
pub fn than_keys(items: &[Item], attaches: &HashSet<i64>) -> HashSet<i64> {
    let by_id = by_id(items);
    let own = |id: &i64| {
        let [own, _] = attached_indexes(by_id.get(id)?, &by_id)?;
        by_id.get(&own).copied()
    };
    let own: Vec<&Item> = attaches.iter().filter_map(own).collect();
    let is_like_a_key = |index: &&&Item| own.iter().any(|key| is_like(index, key, &by_id));
    let found = own.iter().filter(is_like_a_key);
    found.map(|index| index.entry.dump_id).collect()
}

/// A key of a partition, with the schema and name of the index above it.
pub type Key = (i64, [String; 2]);

/// Groups of keys on the same columns that come with a partition that is attached. Only groups of several are
/// returned.
pub fn alike(items: &[Item], attaches: &HashSet<i64>) -> Vec<Vec<Key>> {
    let by_id = by_id(items);
    let mut alike: BTreeMap<(i64, &[u8]), Vec<Key>> = BTreeMap::new();
    for attach in attaches.iter().filter_map(|id| by_id.get(id)) {
        let key = attached_indexes(attach, &by_id).and_then(|[own, _]| by_id.get(&own).copied());
        let Some(key) = key.filter(|key| key.entry.desc == "CONSTRAINT") else {
            continue;
        };
        let table = key.details.dependencies.iter().find(|id| is_table(id, &by_id));
        if let (Some(table), Some(columns), Some(above)) = (table, columns(key), above(attach)) {
            alike
                .entry((*table, columns))
                .or_default()
                .push((key.entry.dump_id, above));
        }
    }
    alike.into_values().filter(|keys| keys.len() > 1).collect()
}

/// Schema and name of the index to which another is attached.
fn above(attach: &Item) -> Option<[String; 2]> {
    let (path, _) = leading_names(attach.definition().strip_prefix(b"ALTER INDEX ")?)?;
    let names: Option<Vec<String>> = path.into_iter().map(|name| String::from_utf8(name).ok()).collect();
    names?.try_into().ok()
}

fn is_table(id: &i64, by_id: &HashMap<i64, &Item>) -> bool {
    let found = by_id.get(id);
    found.is_some_and(|item| RELATIONS.contains(&item.entry.desc.as_str()))
}

/// A key's columns, with their brackets.
fn columns(key: &Item) -> Option<&[u8]> {
    let definition = key.definition();
    let words = [&b" PRIMARY KEY "[..], b" UNIQUE ", b" UNIQUE NULLS NOT DISTINCT "];
    let starts = words
        .iter()
        .filter_map(|word| Some(memmem::rfind(definition, word)? + word.len()));
    let rest = &definition[starts.max()?..];
    let end = memchr::memchr(b')', rest)?;
    rest.starts_with(b"(").then_some(&rest[..=end])
}

/// Whether the index is a plain index on the same columns as the key.
fn is_like(index: &Item, key: &Item, by_id: &HashMap<i64, &Item>) -> bool {
    let mut tables = index.details.dependencies.iter().filter(|id| is_table(id, by_id));
    let same_table = tables.any(|id| key.details.dependencies.contains(id));
    let definition = index.definition();
    let is_of = |columns: &[u8]| memmem::find(definition, &[b" USING btree ", columns].concat()).is_some();
    same_table
        && index.entry.desc == "INDEX"
        && key.entry.desc == "CONSTRAINT"
        && definition.starts_with(b"CREATE UNIQUE INDEX ")
        && columns(key).is_some_and(is_of)
}

//! Which indexes of a partition have to be older than its keys. When a partition is attached, the server gives each index
//! of the table above, the oldest first, the oldest index of the partition that is like it, and a key nothing but the index
//! of a key. A plain index of the table above that is older than the key would get the key's, and the key none.

use std::collections::{HashMap, HashSet};

use memchr::memmem;

use super::{RELATIONS, attached_indexes, by_id};
use crate::format::archive::Item;

/// Of the indexes that come with a partition that is attached (`attaches` are the entries that attach them), those
/// that are like a key.
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

/// Whether this is a plain index of the columns of that key.
fn is_like(index: &Item, key: &Item, by_id: &HashMap<i64, &Item>) -> bool {
    let is_table = |id: &i64| {
        let found = by_id.get(id);
        found.is_some_and(|item| RELATIONS.contains(&item.entry.desc.as_str()))
    };
    let mut tables = index.details.dependencies.iter().filter(|id| is_table(id));
    let same_table = tables.any(|id| key.details.dependencies.contains(id));
    let (definition, of_key) = (index.definition(), key.definition());
    let columns = || {
        let words = [&b" PRIMARY KEY "[..], b" UNIQUE ", b" UNIQUE NULLS NOT DISTINCT "];
        let starts = words
            .iter()
            .filter_map(|word| Some(memmem::rfind(of_key, word)? + word.len()));
        let rest = &of_key[starts.max()?..];
        let end = memchr::memchr(b')', rest)?;
        rest.starts_with(b"(").then_some(&rest[..=end])
    };
    let is_of = |columns: &[u8]| memmem::find(definition, &[b" USING btree ", columns].concat()).is_some();
    same_table
        && index.entry.desc == "INDEX"
        && key.entry.desc == "CONSTRAINT"
        && definition.starts_with(b"CREATE UNIQUE INDEX ")
        && columns().is_some_and(is_of)
}

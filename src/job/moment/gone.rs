//! Tables that were dropped between the definitions that are in force and the moment.

use std::collections::HashSet;

use super::bases::Choice;
use super::objects::{joined, origins};
use crate::error::{Error, Result};
use crate::format::archive::{Head, Item, contents};
use crate::repository::stored_archive::StoredArchive;

/// The definitions without these tables, and without all that needs them: it was dropped with them.
pub(super) fn without_dropped(head: &Head, choice: &Choice) -> Result<Option<Head>> {
    if choice.gone.is_empty() {
        return Ok(None);
    }
    let entries = dropped(&contents(head)?, choice);
    match entries.is_empty() {
        true => Ok(None),
        false => Ok(Some(head.without(&entries)?)),
    }
}

/// The same of an archive with rows.
pub(super) fn archive_without_dropped(archive: StoredArchive, choice: &Choice) -> Result<StoredArchive> {
    let Some(head) = without_dropped(&archive.head, choice)? else {
        return Ok(archive);
    };
    let mut origins = origins(archive);
    let blocks = head.data.iter().map(|entry| origins.blocks.remove(&entry.dump_id));
    let blocks: Option<Vec<_>> = blocks.collect();
    let blocks = blocks.ok_or_else(|| Error::internal("a block of the moment has no origin"))?;
    Ok(joined(head, &origins.archive, blocks))
}

/// The dump ids of the tables' entries, and of those that need them. A table that a table of the moment needs (its child
/// by inheritance) stays, without rows.
fn dropped(items: &[Item], choice: &Choice) -> HashSet<i64> {
    let is_gone = |item: &&Item| item.entry.desc == "TABLE" && choice.gone.contains(&item.entry.oid);
    let mut all = HashSet::new();
    for table in items.iter().filter(is_gone) {
        let mut found = HashSet::from([table.entry.dump_id]);
        if with_dependents(items, choice, &mut found) {
            all.extend(found);
        }
    }
    all
}

/// Adds all that needs these entries. False if a table of the moment does.
fn with_dependents(items: &[Item], choice: &Choice, found: &mut HashSet<i64>) -> bool {
    loop {
        let before = found.len();
        for item in items {
            let needs = item.details.dependencies.iter().any(|id| found.contains(id));
            if !needs || found.contains(&item.entry.dump_id) {
                continue;
            }
            if item.entry.desc == "TABLE" && choice.tables.contains_key(&item.entry.oid) {
                return false;
            }
            found.insert(item.entry.dump_id);
        }
        if found.len() == before {
            return true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::moment::bases::{Rows, TableBase};

    fn table(id: i64, oid: u32) -> Item {
        let mut item = Item::sample(id, "TABLE", &format!("t{oid}"));
        item.entry.oid = oid;
        item
    }

    /// What goes if the table 10 was dropped and 20 was not.
    fn gone(items: &[Item]) -> Vec<i64> {
        let mut choice = Choice::default();
        choice.gone.insert(10);
        choice.tables.insert(20, TableBase::new(Rows::Full));
        let mut gone: Vec<i64> = dropped(items, &choice).into_iter().collect();
        gone.sort_unstable();
        gone
    }

    #[test]
    fn a_dropped_table_goes_with_all_that_needs_it() {
        let items = [
            table(1, 10),
            table(2, 20),
            Item::sample(3, "SEQUENCE", "of_t10").needing(&[1]),
            Item::sample(4, "DEFAULT", "t10 id").needing(&[1, 3]),
            Item::sample(5, "VIEW", "both").needing(&[1, 2]),
            Item::sample(6, "VIEW", "above").needing(&[5]),
            Item::sample(7, "FK CONSTRAINT", "t20 to_t10").needing(&[2, 8]),
            Item::sample(8, "CONSTRAINT", "t10 key").needing(&[1]),
            Item::sample(9, "INDEX", "of_t20").needing(&[2]),
        ];
        assert_eq!(gone(&items), [1, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn a_dropped_table_that_another_one_needs_stays() {
        let heir = [table(1, 10), table(2, 20).needing(&[1])];
        assert_eq!(gone(&heir), [0i64; 0]);
        assert_eq!(gone(&[table(2, 20)]), [0i64; 0]);
    }
}

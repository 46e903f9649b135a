//! Foreign keys of tables that are not exact: their rows are those of another moment than the rows of the other table.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::bases::Choice;
use crate::error::Result;
use crate::format::archive::{Head, Item, contents};

const END: &[u8] = b";\n";
const NOT_VALID: &[u8] = b" NOT VALID";

/// The definitions, with foreign keys that PostgreSQL does not validate against the rows of these tables. `None`: there
/// are no such keys. It cannot leave a key of a partitioned table unvalidated.
pub(super) fn with_unchecked_keys(head: &Head, choice: &Choice) -> Result<Option<Head>> {
    let inexact = choice.tables.iter().filter(|(_, table)| table.not_exact.is_some());
    let inexact: BTreeSet<u32> = inexact.map(|(oid, _)| *oid).collect();
    if inexact.is_empty() {
        return Ok(None);
    }
    let items = contents(head)?;
    let keys = Keys::of(&items, &inexact);
    let definitions: HashMap<i64, Vec<u8>> = items.iter().filter_map(|item| keys.unchecked(item)).collect();
    match definitions.is_empty() {
        true => Ok(None),
        false => Ok(Some(head.edited(&definitions, &HashMap::new(), &[])?)),
    }
}

struct Keys {
    partitioned: HashSet<i64>,
    /// These tables, and what a foreign key needs of them.
    inexact: HashSet<i64>,
}

impl Keys {
    fn of(items: &[Item], inexact: &BTreeSet<u32>) -> Self {
        let ids = |is: &dyn Fn(&Item) -> bool| -> HashSet<i64> {
            let found = items.iter().filter(|item| is(item));
            found.map(|item| item.entry.dump_id).collect()
        };
        let tables = ids(&|item| item.entry.desc == "TABLE" && inexact.contains(&item.entry.oid));
        let mut inexact = ids(&|item| {
            let is_key = matches!(item.entry.desc.as_str(), "CONSTRAINT" | "INDEX");
            is_key && item.details.dependencies.iter().any(|id| tables.contains(id))
        });
        inexact.extend(&tables);
        Self {
            partitioned: ids(&Item::is_partitioned),
            inexact,
        }
    }

    fn unchecked(&self, item: &Item) -> Option<(i64, Vec<u8>)> {
        let needs = |ids: &HashSet<i64>| item.details.dependencies.iter().any(|id| ids.contains(id));
        let definition = item.definition().strip_suffix(END)?;
        let is_concerned = item.entry.desc == "FK CONSTRAINT" && needs(&self.inexact) && !needs(&self.partitioned);
        (is_concerned && !definition.ends_with(NOT_VALID))
            .then(|| (item.entry.dump_id, [definition, NOT_VALID, END].concat()))
    }
}

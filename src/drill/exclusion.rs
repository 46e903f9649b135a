//! What a throwaway server cannot have, or cannot be let have, and with it everything that needs it.

use std::collections::{BTreeMap, HashSet};

use crate::archive::Item;
use crate::restore::{self, LeftOut};

/// What of the archive is tried, and why the rest is not.
pub(super) struct Exclusion<'a> {
    items: &'a [Item],
    excluded: HashSet<i64>,
    pub not_proved: Vec<LeftOut>,
}

impl<'a> Exclusion<'a> {
    /// What cannot be restored on a server with these extensions.
    pub fn before(items: &'a [Item], extensions: &BTreeMap<String, bool>) -> Exclusion<'a> {
        let mut exclusion = Exclusion {
            items,
            excluded: HashSet::new(),
            not_proved: Vec::new(),
        };
        for item in items {
            let desc = item.entry.desc.as_str();
            let lacking = if desc == "EXTENSION" && !extensions.contains_key(&item.entry.tag) {
                Some(format!("this machine's PostgreSQL has no extension {}", item.entry.tag))
            } else if desc == "SECURITY LABEL" {
                Some("the label's provider is not loaded".to_owned())
            } else {
                None
            };
            if let Some(why) = lacking {
                exclusion.leave_out(item.entry.dump_id, &why);
            }
        }
        exclusion
    }

    /// This entry and all that depend on it, however far.
    pub fn leave_out(&mut self, entry: i64, why: &str) {
        let mut open = vec![entry];
        while let Some(id) = open.pop() {
            if !self.excluded.insert(id) {
                continue;
            }
            for item in self.items {
                if item.entry.dump_id == id {
                    self.not_proved.push(LeftOut {
                        what: item.entry.to_string(),
                        why: why.to_owned(),
                    });
                    if item.entry.has_data {
                        open.extend(self.keys_of(item));
                    }
                    if item.entry.desc == "SERVER" {
                        open.extend(self.users_of(&item.entry.tag));
                    }
                }
                if item.details.dependencies.contains(&id) {
                    open.push(item.entry.dump_id);
                }
            }
        }
    }

    /// Foreign keys to and from a table, which find nothing there without its rows.
    fn keys_of<'b>(&'b self, data: &'b Item) -> impl Iterator<Item = i64> + 'b {
        let keys = self.items.iter().filter(|item| item.entry.desc == "FK CONSTRAINT");
        let of_it = keys.filter(|key| {
            let mut tables = key.details.dependencies.iter();
            tables.any(|id| data.details.dependencies.contains(id))
        });
        of_it.map(|key| key.entry.dump_id)
    }

    /// Mappings of users on a server, of which an archive says no dependency.
    fn users_of(&self, server: &str) -> Vec<i64> {
        let end = format!(" SERVER {server}");
        let mappings = self.items.iter().filter(|item| item.entry.desc == "USER MAPPING");
        let on_it = mappings.filter(|item| item.entry.tag.ends_with(&end));
        on_it.map(|item| item.entry.dump_id).collect()
    }

    pub fn knows(&self, entry: i64) -> bool {
        self.items.iter().any(|item| item.entry.dump_id == entry) && !self.excluded.contains(&entry)
    }

    pub fn excluded(&self) -> &HashSet<i64> {
        &self.excluded
    }

    pub fn chosen(&self) -> HashSet<i64> {
        restore::everything(self.items)
            .difference(&self.excluded)
            .copied()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{Details, Entry, Section};

    #[test]
    fn a_table_without_its_rows_takes_the_keys_along_that_look_for_them() {
        let item = |id, desc: &str, has_data, dependencies: &[i64]| Item {
            entry: Entry {
                dump_id: id,
                desc: desc.into(),
                has_data,
                ..Entry::default()
            },
            section: Section::PreData,
            details: Details {
                dependencies: dependencies.into(),
                ..Details::default()
            },
        };
        let items = [
            item(1, "TABLE", false, &[]),
            item(2, "TABLE DATA", true, &[1]),
            item(3, "CONSTRAINT", false, &[1]),
            item(4, "TABLE", false, &[]),
            item(5, "TABLE DATA", true, &[4]),
            item(6, "FK CONSTRAINT", false, &[4, 3, 1]),
            item(7, "COMMENT", false, &[6]),
        ];
        let mut exclusion = Exclusion::before(&items, &BTreeMap::new());
        exclusion.leave_out(2, "so");
        assert_eq!(exclusion.excluded(), &HashSet::from([2, 6, 7]));
        assert!(exclusion.knows(3) && !exclusion.knows(7) && !exclusion.knows(8));
    }
}

//! What a throwaway server cannot have, and with it everything that needs it.

use std::collections::{BTreeMap, HashSet};

use crate::archive::Item;
use crate::restore::LeftOut;

/// The entries that cannot be restored on a server with these extensions, and what is thereby not
/// proved.
pub(super) fn unprovable(items: &[Item], extensions: &BTreeMap<String, bool>) -> (HashSet<i64>, Vec<LeftOut>) {
    let mut excluded: HashSet<i64> = HashSet::new();
    let mut not_proved = Vec::new();
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
            exclude(items, item, &why, &mut excluded, &mut not_proved);
        }
    }
    (excluded, not_proved)
}

/// This entry and all that depend on it, however far.
fn exclude(items: &[Item], first: &Item, why: &str, excluded: &mut HashSet<i64>, not_proved: &mut Vec<LeftOut>) {
    let mut open = vec![first.entry.dump_id];
    while let Some(id) = open.pop() {
        if !excluded.insert(id) {
            continue;
        }
        for item in items {
            if item.entry.dump_id == id {
                not_proved.push(LeftOut {
                    what: item.entry.to_string(),
                    why: why.to_owned(),
                });
            }
            if item.details.dependencies.contains(&id) {
                open.push(item.entry.dump_id);
            }
        }
    }
}

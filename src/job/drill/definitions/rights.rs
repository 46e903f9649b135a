//! Rights, as sets of statements: the order in which rights were given is ignored, the role that gave them counts. And
//! the owners of large objects, which a dump lists in groups.

use std::collections::{BTreeMap, BTreeSet};

use crate::format::archive::Item;
use crate::job::restore::database::statements;

/// The name for all groups of large objects together.
pub(super) const LARGE_OBJECTS: &str = "LARGE OBJECTS";

/// Every statement with the role that runs it.
pub(super) fn given(definition: &str) -> BTreeSet<String> {
    const BECOMES: &str = "SET SESSION AUTHORIZATION ";
    let mut grantor = "";
    let mut given = BTreeSet::new();
    for statement in statements(definition) {
        if let Some(role) = statement.strip_prefix(BECOMES) {
            grantor = role;
        } else if statement.starts_with("RESET SESSION AUTHORIZATION") {
            grantor = "";
        } else {
            given.insert(format!("{statement}\0{grantor}"));
        }
    }
    given
}

/// Owners by the number of the large object.
pub(super) fn owners_of_large_objects<'a>(items: impl Iterator<Item = &'a Item>) -> BTreeMap<u32, &'a str> {
    let mut owners = BTreeMap::new();
    for item in items {
        let owner = item.details.owner.as_str();
        match item.entry.desc.as_str() {
            "BLOB" => {
                owners.insert(item.entry.oid, owner);
            }
            // Its definition is a list of numbers, one per line.
            "BLOB METADATA" => {
                let numbers = item
                    .details
                    .definition
                    .lines()
                    .filter_map(|line| line.trim().parse().ok());
                owners.extend(numbers.map(|number| (number, owner)));
            }
            _ => {}
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_the_same_in_any_order_and_not_by_another_grantor() {
        let one = "REVOKE ALL ON TABLE t FROM o;\nGRANT SELECT ON TABLE t TO \"a;b\";\nSET SESSION AUTHORIZATION c;\n\
                   GRANT SELECT ON TABLE t TO d;\nRESET SESSION AUTHORIZATION;\nGRANT ALL ON TABLE t TO c WITH GRANT OPTION;\n";
        let other = "REVOKE ALL ON TABLE t FROM o;\nGRANT ALL ON TABLE t TO c WITH GRANT OPTION;\nSET SESSION \
                     AUTHORIZATION c;\nGRANT SELECT ON TABLE t TO d;\nRESET SESSION AUTHORIZATION;\nGRANT SELECT ON TABLE t TO \
                     \"a;b\";\n";
        assert_eq!(given(one), given(other));
        assert_eq!(given(one).len(), 4);
        assert_ne!(given(one), given(&other.replace("AUTHORIZATION c", "AUTHORIZATION e")));
        assert_ne!(given(one), given(&other.replace(" WITH GRANT OPTION", "")));
    }
}

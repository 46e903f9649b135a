use std::collections::{BTreeMap, HashSet};

use super::leaving::Leaving;
use super::rule::{KINDS, named};
use crate::error::Code;
use crate::format::archive::Item;
use crate::job::restore::RestoreRequest;

pub(super) fn item(id: i64, desc: &str, tag: &str, dependencies: &[i64]) -> Item {
    Item::sample(id, desc, tag).in_schema("s").needing(dependencies)
}

fn items() -> [Item; 7] {
    [
        item(1, "EXTENSION", "citext", &[]),
        item(2, "COMMENT", "EXTENSION citext", &[1]),
        item(3, "TABLE", "t", &[1]),
        item(4, "FUNCTION", "f(integer)", &[]),
        item(5, "TRIGGER", "t changed", &[3, 4]),
        item(6, "EVENT TRIGGER", "e", &[4]),
        item(7, "PUBLICATION TABLE", "few t", &[3]),
    ]
}

fn asking(options: &[&str]) -> RestoreRequest {
    RestoreRequest {
        exclude: options.iter().map(|&option| option.to_owned()).collect(),
        ..RestoreRequest::default()
    }
}

#[test]
fn entries_are_found_by_kind_and_name_however_they_are_written() {
    for (option, found) in [
        ("event-trigger", vec![6]),
        ("EVENT TRIGGER:e", vec![6]),
        ("function:s.f", vec![4]),
        ("function:f(integer)", vec![4]),
        ("Function:s.f(integer)", vec![4]),
        ("table:\"s\".\"t\"", vec![3]),
        ("trigger:t changed", vec![5]),
        ("publication", vec![]),
    ] {
        let found: HashSet<i64> = found.into_iter().collect();
        assert_eq!(named(&asking(&[option]), &items()).unwrap(), found, "{option}");
    }
    assert_eq!(
        named(&asking(&["function:g"]), &items()).unwrap_err().code(),
        Code::NotFound
    );
    let hint = named(&asking(&["foo"]), &items()).unwrap_err().hint_text().to_owned();
    for kind in KINDS.map(|kind| kind.to_lowercase().replace(' ', "-")) {
        assert!(hint.contains(&kind), "{kind}: {hint}");
    }
    for wrong in ["tabel", "table:", ":t"] {
        assert_eq!(
            named(&asking(&[wrong]), &items()).unwrap_err().code(),
            Code::Config,
            "{wrong}"
        );
    }
}

#[test]
fn what_needs_it_stays_away_unless_the_target_has_it() {
    let (items, request) = (items(), asking(&["extension"]));
    let asked = HashSet::from([1]);
    let none = HashSet::new();
    let left_by = |items: &[Item], asked: &HashSet<i64>, there: &HashSet<i64>, orphans: &HashSet<i64>| {
        let leaving = Leaving {
            request: &request,
            items,
            asked,
            kept: &BTreeMap::new(),
        };
        leaving.with_dependents(there, orphans)
    };
    let left = left_by(&items, &asked, &none, &none);
    assert_eq!(left.entries, HashSet::from([1, 2, 3, 5, 7]));
    assert_eq!(left.left_out.len(), 5);
    let left = left_by(&items, &asked, &HashSet::from([1]), &none);
    assert_eq!(left.entries, HashSet::from([1, 2]));
    let mut items = items.to_vec();
    items.push(item(8, "PUBLICATION", "few", &[]));
    let left = left_by(&items, &HashSet::from([8]), &none, &none);
    assert_eq!(left.entries, HashSet::from([7, 8]));
    items.push(item(9, "ACL", "FUNCTION f(s.citext)", &[99]));
    let left = left_by(&items, &asked, &none, &HashSet::from([9]));
    assert!(left.entries.contains(&9), "{left:?}");
    let told = left
        .left_out
        .iter()
        .find(|one| one.what.contains("f(s.citext)"))
        .unwrap();
    assert_eq!(told.why, "it needs an object that is left out");
}

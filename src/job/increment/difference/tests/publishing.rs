//! Tables that are not published, or were not for a while.

use std::collections::BTreeSet;

use super::world::*;
use crate::job::increment::difference::*;
use crate::postgres::ExtensionTable;

#[test]
fn a_new_table_that_could_not_be_published_is_left_with_the_reason() {
    let previous = seen(vec![]);
    let world = World {
        postponed: BTreeMap::from([(ORDERS, "VACUUM holds it".to_owned())]),
        ..World::of(vec![table(ORDERS)])
    };
    let Action::Leave { last_exact, why } = world.action(&previous, ORDERS) else {
        panic!("not left");
    };
    assert_eq!(last_exact, None);
    assert!(why.ends_with("VACUUM holds it"), "{why}");
}

#[test]
fn unlogged_tables_and_those_of_extensions_are_in_the_fulls_only() {
    let unlogged = CatalogTable {
        is_unlogged: true,
        ..table(ORDERS)
    };
    let extension = |extension, oid| CatalogTable {
        extension: Some(extension),
        ..table(oid)
    };
    let tables = vec![
        unlogged,
        extension(ExtensionTable::Configuration, ORDERS + 1),
        extension(ExtensionTable::Member, ORDERS + 2),
    ];
    let previous = seen(tables.clone());
    let decisions = World::of(tables).differences(Some(&previous));
    assert_eq!(decisions.len(), 2);
    for decision in decisions {
        assert!(matches!(decision.action, Action::Leave { last_exact: None, .. }));
    }
    // It was logged before.
    let logged = seen(vec![table(ORDERS)]);
    let unlogged = CatalogTable {
        is_unlogged: true,
        ..table(ORDERS)
    };
    let Action::Leave { last_exact, .. } = World::of(vec![unlogged]).action(&logged, ORDERS) else {
        panic!("not left");
    };
    assert_eq!(last_exact, Some(FROM));
}

#[test]
fn what_had_to_wait_is_read_by_the_next_increment() {
    let mut previous = seen(vec![table(ORDERS)]);
    previous.tables[0].lacking = Some("an older transaction went on".into());
    let reading = read(World::of(vec![table(ORDERS)]).action(&previous, ORDERS));
    assert!(reading.waits);
    assert_eq!(reading.why, "an older transaction went on");
    // What may be replayed up to it stays the same.
    previous.tables[0].proof = Some(ReplayProof::FromNothing);
    let reading = read(World::of(vec![table(ORDERS)]).action(&previous, ORDERS));
    assert_eq!(reading.proof, Some(ReplayProof::FromNothing));
}

#[test]
fn a_table_that_was_not_published_for_a_moment_is_read() {
    let previous = seen(vec![table(ORDERS)]);
    let world = World {
        interrupted: BTreeSet::from([ORDERS]),
        ..World::of(vec![table(ORDERS)])
    };
    assert!(read(world.action(&previous, ORDERS)).waits);
}

/// Without a difference that a catalog shows: an owner took it out of the publication, changed rows, and added it again;
/// or a partition was detached and attached.
#[test]
fn a_table_that_is_published_by_another_entry_than_before_is_read() {
    let previous = seen(vec![table(ORDERS)]);
    let world = World {
        added_again: true,
        ..World::of(vec![table(ORDERS)])
    };
    assert!(read(world.action(&previous, ORDERS)).waits);
    // An older pgstow did not record the entry.
    let mut older = seen(vec![table(ORDERS)]);
    older.tables[0].membership = None;
    let world = World {
        added_again: true,
        ..World::of(vec![table(ORDERS)])
    };
    assert_eq!(world.action(&older, ORDERS), Action::Keep);
}

#[test]
fn without_an_earlier_catalog_nothing_is_known_about_the_published_tables() {
    let decisions = World {
        unpublished: vec![ORDERS + 1],
        ..World::of(vec![table(ORDERS), table(ORDERS + 1)])
    }
    .differences(None);
    assert_eq!(decisions[0].action, Action::Begin);
    assert!(matches!(decisions[1].action, Action::Leave { .. }));
}

#[test]
fn a_new_partition_that_was_not_published_for_a_while_waits_for_older_transactions() {
    let previous = seen(vec![parent(EVENTS)]);
    let world = World {
        interrupted: BTreeSet::from([PART]),
        ..World::of(vec![parent(EVENTS), leaf(PART, EVENTS)])
    };
    let reading = read(world.action(&previous, PART));
    assert!(reading.waits && reading.proof.is_none());
}

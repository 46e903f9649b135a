//! Tables whose updates do not arrive.

use super::world::*;
use crate::job::increment::difference::*;

/// Its updates do not arrive, so no change of it tells how it was.
#[test]
fn a_table_without_a_key_is_exact_only_up_to_the_increment_that_drops_or_changes_it() {
    let before = seen(vec![keyless(ORDERS), keyless(EVENTS)]);
    let wider = CatalogTable {
        columns: vec![column(1, "id", 23), column(2, "v", 25), column(3, "w", 25)],
        ..keyless(EVENTS)
    };
    let inserts = two(
        vec![relation(&keyless(ORDERS)), insert(ORDERS)],
        vec![relation(&wider), insert(EVENTS)],
    );
    let decisions = World::hearing(vec![wider], inserts).differences(Some(&before));
    let Action::End { last_exact, .. } = &decisions[0].action else {
        panic!("{decisions:?}")
    };
    assert_eq!(*last_exact, Some(FROM));
    let reading = read(decisions[1].action.clone());
    assert_eq!((reading.last_exact, reading.proof), (Some(FROM), None));
}

#[test]
fn a_table_that_lost_its_key_is_read_if_it_is_small_and_else_left_with_the_remedy() {
    let previous = seen(vec![table(ORDERS)]);
    let reading = read(World::of(vec![keyless(ORDERS)]).action(&previous, ORDERS));
    assert_eq!(reading.last_exact, Some(FROM));
    let large = CatalogTable {
        bytes: SMALL + 1,
        ..keyless(ORDERS)
    };
    let Action::Leave { last_exact, why } = World::of(vec![large]).action(&previous, ORDERS) else {
        panic!("not left");
    };
    assert_eq!(last_exact, Some(FROM));
    assert!(why.contains("REPLICA IDENTITY FULL"), "{why}");
}

#[test]
fn a_table_that_got_a_key_is_read() {
    let previous = seen(vec![keyless(ORDERS)]);
    let reading = read(World::of(vec![table(ORDERS)]).action(&previous, ORDERS));
    assert!(reading.waits);
}

#[test]
fn a_small_table_without_a_key_is_looked_at_each_time() {
    let previous = seen(vec![keyless(ORDERS)]);
    assert_eq!(
        World::of(vec![keyless(ORDERS)]).action(&previous, ORDERS),
        Action::Probe
    );
}

#[test]
fn a_large_table_without_a_key_is_left_unless_the_counts_stay() {
    let large = CatalogTable {
        bytes: SMALL + 1,
        ..keyless(ORDERS)
    };
    let mut previous = seen(vec![large.clone()]);
    previous.tables[0].counted = Some(5);
    let with = |count: Option<u64>| World {
        counted: count.into_iter().map(|count| (ORDERS, count)).collect(),
        ..World::of(vec![large.clone()])
    };
    assert!(matches!(
        with(Some(5)).action(&previous, ORDERS),
        Action::CountInserts { .. }
    ));
    // Reset by a crash, or more than before, or unknown.
    for count in [Some(0), Some(6), None] {
        assert!(matches!(with(count).action(&previous, ORDERS), Action::Leave { .. }));
    }
}

#[test]
fn only_so_many_small_tables_are_looked_at() {
    let some = |bytes: u64, oid: u32| CatalogTable { bytes, ..keyless(oid) };
    let tables: Vec<_> = (0..6).map(|number| some(SMALL, ORDERS + number)).collect();
    let previous = seen(tables.clone());
    let decisions = World::of(tables).differences(Some(&previous));
    let probed = decisions.iter().filter(|one| one.action == Action::Probe).count();
    assert_eq!(probed as u64, SMALL_TOGETHER / SMALL);
}

//! Each difference between two catalogs, and what it means.

mod definitions;
mod keyless;
mod publishing;
mod world;

use proptest::prelude::*;

use super::*;
use crate::postgres::{ExtensionTable, ReplicaIdentity};
use world::*;

#[test]
fn a_table_that_stays_as_it_was_needs_nothing() {
    let previous = seen(vec![table(ORDERS)]);
    let heard = two(vec![relation(&table(ORDERS)), insert(ORDERS)], vec![insert(ORDERS)]);
    let world = World::hearing(vec![table(ORDERS)], heard);
    assert_eq!(world.action(&previous, ORDERS), Action::Keep);
}

#[test]
fn a_new_partition_of_a_published_table_is_read_and_may_be_proved_from_nothing() {
    let previous = seen(vec![parent(EVENTS)]);
    let reading = read(World::of(vec![parent(EVENTS), leaf(PART, EVENTS)]).action(&previous, PART));
    assert_eq!(reading.proof, Some(ReplayProof::FromNothing));
    assert_eq!(reading.last_exact, Some(FROM));
}

#[test]
fn a_new_partition_below_a_new_partition_is_one_of_the_published_table() {
    let previous = seen(vec![parent(EVENTS)]);
    let middle = CatalogTable {
        parent: Some(EVENTS),
        ..parent(PART)
    };
    let tables = vec![parent(EVENTS), middle, leaf(PART + 5, PART)];
    let reading = read(World::of(tables).action(&previous, PART + 5));
    assert_eq!(reading.proof, Some(ReplayProof::FromNothing));
}

#[test]
fn a_new_table_is_read_after_the_older_transactions() {
    let previous = seen(vec![]);
    let reading = read(World::of(vec![table(ORDERS)]).action(&previous, ORDERS));
    assert!(reading.waits);
    assert_eq!((reading.proof, reading.last_exact), (None, Some(FROM)));
}

#[test]
fn a_dropped_table_is_exact_up_to_its_last_change() {
    let previous = seen(vec![table(ORDERS), table(ORDERS + 9)]);
    let heard = two(vec![insert(ORDERS)], vec![]);
    let decisions = World::hearing(vec![], heard).differences(Some(&previous));
    let ends: Vec<_> = decisions
        .iter()
        .map(|decision| match &decision.action {
            Action::End { last_exact, .. } => *last_exact,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ends, [Some(Lsn(2008)), Some(FROM)]);
}

#[test]
fn a_table_made_again_under_its_name_is_a_dropped_one_and_a_new_one() {
    let previous = seen(vec![table(ORDERS)]);
    let again = CatalogTable {
        name: format!("t{ORDERS}"),
        ..table(ORDERS + 50)
    };
    let decisions = World::of(vec![again]).differences(Some(&previous));
    assert_eq!(decisions.len(), 2);
    assert_eq!(decisions[0].name, decisions[1].name);
    assert!(matches!(decisions[0].action, Action::End { .. }));
    assert!(matches!(decisions[1].action, Action::Read(_)));
}

#[test]
fn a_detached_partition_that_is_published_again_is_read() {
    let previous = seen(vec![parent(EVENTS), leaf(PART, EVENTS)]);
    // It is still published, now by its own entry, so that nothing was lost in between.
    assert_eq!(
        World::of(vec![parent(EVENTS), table(PART)]).action(&previous, PART),
        Action::Keep
    );
    let mut left = previous.clone();
    left.tables[1].published = None;
    let reading = read(World::of(vec![parent(EVENTS), table(PART)]).action(&left, PART));
    assert!(reading.waits);
}

#[test]
fn parents_that_go_round_in_a_circle_end() {
    let previous = seen(vec![]);
    let tables = vec![leaf(ORDERS, ORDERS + 1), leaf(ORDERS + 1, ORDERS)];
    read(World::of(tables).action(&previous, ORDERS));
}

prop_compose! {
    fn any_table()(
        oid in 20_000u32..20_012, kind in any::<bool>(), has_key in any::<bool>(), is_unlogged in any::<bool>(),
        parent in proptest::option::of(20_000u32..20_012), filenode in 0u32..3, columns in 1i16..4, big in any::<bool>(),
        member in proptest::option::of(any::<bool>()), identity in 0usize..4,
    ) -> CatalogTable {
        let mut table = if has_key { table(oid) } else { keyless(oid) };
        if kind {
            table.kind = TableKind::Partitioned;
        }
        table.identity = [
            ReplicaIdentity::Default, ReplicaIdentity::Index, ReplicaIdentity::Full, ReplicaIdentity::Nothing,
        ][identity];
        (table.is_unlogged, table.parent, table.filenode) = (is_unlogged, parent, filenode);
        table.columns = (1..=columns).map(|number| column(number, &format!("c{number}"), 25)).collect();
        table.bytes = if big { SMALL * 3 } else { 8192 };
        table.extension = member.map(|member| {
            if member { ExtensionTable::Member } else { ExtensionTable::Configuration }
        });
        table
    }
}

fn any_tables() -> impl Strategy<Value = Vec<CatalogTable>> {
    proptest::collection::vec(any_table(), 0..10).prop_map(|tables| {
        let by_oid: BTreeMap<u32, CatalogTable> = tables.into_iter().map(|table| (table.oid, table)).collect();
        by_oid.into_values().collect()
    })
}

proptest! {
    #[test]
    fn every_table_of_two_catalogs_gets_exactly_one_decision(
        before in any_tables(), after in any_tables(), known in any::<bool>(),
        unpublished in proptest::collection::vec(20_000u32..20_012, 0..4),
    ) {
        let previous = seen(before.clone());
        let world = World { unpublished, ..World::of(after.clone()) };
        let decisions = world.differences(known.then_some(&previous));
        let oids: Vec<u32> = decisions.iter().map(|decision| decision.oid).collect();
        prop_assert!(oids.is_sorted_by(|one, next| one < next));
        for table in &after {
            let has_rows = table.kind == TableKind::Ordinary && table.extension != Some(ExtensionTable::Member);
            prop_assert_eq!(oids.contains(&table.oid), has_rows);
        }
        for decision in decisions {
            if let Action::Read(reading) = decision.action {
                prop_assert!(reading.last_exact.is_none_or(|last| last >= FROM));
            }
        }
    }
}

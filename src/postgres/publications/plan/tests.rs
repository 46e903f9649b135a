use super::*;
use crate::postgres::{PrimaryKey, ReplicaIdentity, TableKind, Traces};

/// With a primary key.
fn table(oid: u32, kind: TableKind, parent: Option<u32>) -> CatalogTable {
    CatalogTable {
        oid,
        schema: "s".into(),
        name: format!("t{oid}"),
        kind,
        is_unlogged: false,
        parent,
        identity: ReplicaIdentity::Default,
        identity_index: Some(oid + 1000),
        key: vec!["id".into()],
        primary_key: Some(PrimaryKey::Immediate),
        columns: Vec::new(),
        types: None,
        labels: Vec::new(),
        filenode: oid,
        bytes: 0,
        owner: "app".into(),
        is_ours: true,
        extension: None,
        traces: Traces::default(),
    }
}

fn listing(all: &[u32], inserts: &[u32]) -> Listing {
    let mut listing = Listing::default();
    listing.set(PublicationKind::All, all.iter().copied().collect());
    listing.set(PublicationKind::Inserts, inserts.iter().copied().collect());
    listing
}

/// Carries the steps out.
fn after(mut listing: Listing, steps: &[Step]) -> Listing {
    for step in steps {
        for change in step.together.iter().chain([&step.changing]) {
            let oids = listing.0.entry(change.kind).or_default();
            let changed = if change.adds {
                oids.insert(change.oid)
            } else {
                oids.remove(&change.oid)
            };
            assert!(changed, "{change:?}");
        }
    }
    listing
}

fn parent_with(leaves: [ReplicaIdentity; 2]) -> TableCatalog {
    let leaf = |oid, identity| CatalogTable {
        identity,
        ..table(oid, TableKind::Ordinary, Some(1))
    };
    let tables = vec![
        table(1, TableKind::Partitioned, None),
        leaf(2, leaves[0]),
        leaf(3, leaves[1]),
    ];
    TableCatalog { major: 18, tables }
}

#[test]
fn a_partition_that_no_longer_identifies_its_rows_moves_its_parent_in_one_transaction() {
    let catalog = parent_with([ReplicaIdentity::Default, ReplicaIdentity::Nothing]);
    let begun = listing(&[1], &[]);
    let steps = steps(&begun, &catalog);
    assert_eq!(steps.len(), 1);
    assert!(steps[0].is_urgent);
    let name = SlotName::of("file:///b", "d");
    let statement = steps[0].in_one_transaction(&name, &catalog).unwrap();
    assert!(statement.starts_with("BEGIN; ALTER PUBLICATION") && statement.ends_with("COMMIT"));
    let end = after(begun, &steps);
    assert_eq!(end, listing(&[2], &[1]));
    let kinds: Vec<PublicationKind> = end.published(&catalog).into_values().collect();
    assert_eq!(
        kinds,
        [PublicationKind::Inserts, PublicationKind::All, PublicationKind::Inserts]
    );
}

#[test]
fn a_parent_that_can_be_published_again_is_added_before_its_partitions_are_taken_out() {
    let catalog = parent_with([ReplicaIdentity::Default, ReplicaIdentity::Full]);
    let begun = listing(&[2], &[1]);
    let planned = steps(&begun, &catalog);
    assert!(planned[0].changing.adds && planned.iter().all(|step| !step.is_urgent));
    let end = after(begun, &planned);
    assert_eq!(end, listing(&[1], &[]));
    assert_eq!(steps(&end, &catalog), []);
}

#[test]
fn what_a_publication_lists_beyond_the_catalog_is_left_alone() {
    let catalog = TableCatalog {
        major: 18,
        tables: vec![table(1, TableKind::Ordinary, None)],
    };
    assert_eq!(steps(&listing(&[1, 99], &[]), &catalog), []);
}

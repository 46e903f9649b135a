use super::*;
use crate::postgres::{CatalogColumn, Generated, sample_table};

/// With a primary key on the column `id`.
fn table(oid: u32, parent: Option<u32>) -> CatalogTable {
    CatalogTable {
        parent,
        columns: vec![column("id", None)],
        ..sample_table(oid)
    }
}

fn column(name: &str, generated: Option<Generated>) -> CatalogColumn {
    CatalogColumn {
        number: 1,
        name: name.into(),
        type_name: "integer".into(),
        type_oid: 23,
        modifier: -1,
        generated,
        identity: None,
    }
}

fn partitioned(oid: u32, parent: Option<u32>) -> CatalogTable {
    CatalogTable {
        kind: TableKind::Partitioned,
        ..table(oid, parent)
    }
}

fn without_key(table: CatalogTable) -> CatalogTable {
    CatalogTable {
        identity_index: None,
        key: Vec::new(),
        primary_key: None,
        ..table
    }
}

fn published(major: u32, tables: &[CatalogTable]) -> Vec<(u32, Option<PublicationKind>, Option<PublicationKind>)> {
    let tables = tables.to_vec();
    let publishing = TableCatalog { major, tables }.publishing();
    publishing
        .into_iter()
        .map(|(oid, one)| (oid, one.listed, one.covered))
        .collect()
}

const ALL: Option<PublicationKind> = Some(PublicationKind::All);
const INSERTS: Option<PublicationKind> = Some(PublicationKind::Inserts);

#[test]
fn a_table_is_in_the_first_publication_only_if_its_rows_are_identified() {
    let with = |change: fn(&mut CatalogTable)| {
        let mut table = table(1, None);
        change(&mut table);
        published(17, &[table])[0].1
    };
    assert_eq!(with(|_| {}), ALL);
    assert_eq!(with(|table| table.identity = ReplicaIdentity::Nothing), INSERTS);
    assert_eq!(with(|table| table.identity = ReplicaIdentity::Index), ALL);
    assert_eq!(with(|table| table.is_unlogged = true), None);
    assert_eq!(
        with(|table| table.extension = Some(ExtensionTable::Configuration)),
        None
    );
    assert_eq!(
        with(|table| table.columns[0].generated = Some(Generated::Stored)),
        INSERTS
    );
    assert_eq!(published(17, &[without_key(table(1, None))])[0].1, INSERTS);
    let deferrable = CatalogTable {
        primary_key: Some(PrimaryKey::Deferrable),
        ..without_key(table(1, None))
    };
    assert_eq!(published(17, &[deferrable])[0].1, INSERTS);
    let full = CatalogTable {
        identity: ReplicaIdentity::Full,
        columns: vec![column("a", None), column("b", Some(Generated::Stored))],
        ..without_key(table(1, None))
    };
    assert_eq!(published(17, std::slice::from_ref(&full))[0].1, ALL);
    assert_eq!(published(18, &[full])[0].1, INSERTS);
}

#[test]
fn a_partitioned_table_is_in_the_first_publication_only_with_all_its_partitions() {
    let good = [
        partitioned(1, None),
        table(2, Some(1)),
        partitioned(3, Some(1)),
        table(4, Some(3)),
    ];
    assert_eq!(
        published(18, &good),
        [(1, ALL, ALL), (2, None, ALL), (3, None, ALL), (4, None, ALL)]
    );
    let [top, first, below, last] = good;
    let nothing = CatalogTable {
        identity: ReplicaIdentity::Nothing,
        ..first.clone()
    };
    assert_eq!(
        published(18, &[top.clone(), nothing, below.clone(), last.clone()]),
        [(1, INSERTS, INSERTS), (2, None, INSERTS), (3, ALL, ALL), (4, None, ALL)]
    );
    // New partitions would have no key.
    let full = CatalogTable {
        identity: ReplicaIdentity::Full,
        ..without_key(top.clone())
    };
    assert_eq!(
        published(18, &[full, first.clone()]),
        [(1, INSERTS, INSERTS), (2, ALL, ALL)]
    );
    let unlogged = CatalogTable {
        is_unlogged: true,
        ..without_key(first)
    };
    assert_eq!(
        published(18, &[top, unlogged, below, last]),
        [(1, ALL, ALL), (2, None, None), (3, None, ALL), (4, None, ALL)]
    );
}

#[test]
fn parents_in_a_circle_end() {
    let round = [partitioned(1, Some(2)), partitioned(2, Some(1))];
    assert_eq!(published(18, &round).len(), 2);
}

#[test]
fn a_new_label_changes_no_row_and_a_renamed_one_does() {
    let label = |oid, label: &str| crate::postgres::EnumLabel {
        oid,
        label: label.into(),
    };
    let with = |labels| CatalogTable {
        labels,
        ..table(1, None)
    };
    let before = with(vec![label(5, "a"), label(7, "b")]);
    assert!(with(vec![label(5, "a"), label(7, "b"), label(9, "c")]).has_values_of(&before));
    assert!(!with(vec![label(5, "z"), label(7, "b")]).has_values_of(&before));
    assert!(!with(vec![label(5, "a")]).has_values_of(&before));
}

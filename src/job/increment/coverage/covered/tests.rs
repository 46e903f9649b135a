//! What the decisions make of the tables' coverage.

use super::*;
use crate::job::increment::coverage::large_objects::CoveredObjects;
use crate::postgres::{CatalogColumn, CatalogTable, EnumLabel, PublicationChanges, ReplicaIdentity, sample_table};

const FROM: Lsn = Lsn(100);
const SINCE: Lsn = Lsn(190);
const AT: Lsn = Lsn(200);
const BASELINE: Lsn = Lsn(250);
const TO: Lsn = Lsn(300);
const ORDERS: u32 = 20_000;

fn table(oid: u32) -> CatalogTable {
    CatalogTable {
        name: "orders".into(),
        identity: ReplicaIdentity::Full,
        identity_index: None,
        key: Vec::new(),
        primary_key: None,
        ..sample_table(oid)
    }
}

fn catalog(tables: Vec<CatalogTable>) -> TableCatalog {
    TableCatalog { major: 18, tables }
}

fn settled(action: Action, at: Option<Lsn>) -> Settled {
    Settled {
        at,
        looked: Looked {
            catalog: catalog(vec![table(ORDERS)]),
            fingerprint: String::new(),
            since: Some(SINCE),
            at: AT,
        },
        previous: None,
        publications: PublicationChanges {
            after: BTreeMap::from([(ORDERS, PublicationKind::All)]),
            ..PublicationChanges::default()
        },
        counted: BTreeMap::new(),
        decisions: vec![Decision {
            oid: ORDERS,
            schema: "public".into(),
            name: "orders".into(),
            bytes: 8192,
            action,
            renamed: None,
        }],
        probed: BTreeMap::new(),
        probed_in: None,
        postponed: BTreeMap::new(),
        baselines: None,
        large_objects: CoveredObjects::default(),
        warnings: Vec::new(),
    }
}

fn reading(last_exact: Option<Lsn>) -> Action {
    Action::Read(Reading {
        last_exact,
        proof: None,
        waits: false,
        why: "its columns changed".into(),
    })
}

/// State, `to` and `from` of the only table.
fn covered(settled: &Settled, again: &TableCatalog) -> (CoverageState, Option<Lsn>, Option<Lsn>) {
    let facts = StreamFacts::new(None, FROM);
    let late = late(&settled.looked, again, &facts);
    let tables = tables(((FROM, TO), None), settled, &late, again);
    assert_eq!(tables.len(), 1);
    (tables[0].state, tables[0].to, tables[0].from)
}

fn same() -> TableCatalog {
    catalog(vec![table(ORDERS)])
}

fn rewritten() -> TableCatalog {
    catalog(vec![CatalogTable {
        filenode: 7,
        ..table(ORDERS)
    }])
}

/// Rows with it may be in the increment, whose moments have the definitions from before.
#[test]
fn a_label_that_came_after_the_look_leaves_the_rest_of_the_increment_open() {
    let labelled = catalog(vec![CatalogTable {
        labels: vec![EnumLabel {
            oid: 9,
            label: "new".into(),
        }],
        ..table(ORDERS)
    }]);
    let open = (CoverageState::Exact, Some(SINCE), Some(Lsn(301)));
    assert_eq!(covered(&settled(Action::Keep, None), &labelled), open);
    // Its definition was stored behind the increment's end.
    let (settled, defined) = (settled(Action::Keep, None), Some(Lsn(350)));
    let late = late(&settled.looked, &labelled, &StreamFacts::new(None, FROM));
    let covered = tables(((FROM, TO), defined), &settled, &late, &labelled);
    assert_eq!((covered[0].to, covered[0].from), (Some(SINCE), defined));
}

#[test]
fn a_table_that_is_kept_is_exact_throughout() {
    let settled = settled(Action::Keep, None);
    assert_eq!(covered(&settled, &same()), (CoverageState::Exact, None, None));
}

#[test]
fn a_baseline_ends_the_gap() {
    let gap = settled(reading(Some(FROM)), Some(BASELINE));
    assert_eq!(
        covered(&gap, &same()),
        (CoverageState::Exact, Some(FROM), Some(BASELINE))
    );
    let none = settled(reading(None), Some(BASELINE));
    assert_eq!(covered(&none, &same()), (CoverageState::Exact, None, None));
}

#[test]
fn a_changed_table_is_exact_up_to_the_new_definitions_and_from_the_baseline_on() {
    let of = |last_exact: Option<Lsn>, defined: Lsn| {
        let settled = settled(reading(last_exact), Some(BASELINE));
        let covered = tables(((FROM, TO), Some(defined)), &settled, &BTreeSet::new(), &same());
        (covered[0].to, covered[0].from)
    };
    assert_eq!(of(None, AT), (Some(AT), Some(BASELINE)));
    assert_eq!(of(Some(Lsn(150)), AT), (Some(Lsn(150)), Some(BASELINE)));
    // The definitions changed once more, and were read later.
    assert_eq!(of(None, Lsn(270)), (Some(Lsn(270)), Some(Lsn(270))));
    assert_eq!(of(Some(Lsn(150)), Lsn(270)), (Some(Lsn(150)), Some(Lsn(270))));
}

#[test]
fn a_dropped_table_is_gone_from_the_look_on() {
    let action = Action::End {
        last_exact: Some(Lsn(150)),
        why: String::new(),
    };
    let settled = settled(action, None);
    let covered = tables(((FROM, TO), Some(AT)), &settled, &BTreeSet::new(), &catalog(vec![]));
    assert!(covered[0].is_gone);
    assert_eq!((covered[0].to, covered[0].from), (Some(Lsn(150)), Some(AT)));
}

#[test]
fn a_baseline_that_has_to_wait_leaves_the_table_lost_and_the_next_increment_knows() {
    let mut settled = settled(reading(Some(FROM)), None);
    settled.postpone(&[ORDERS], "a transaction goes on");
    assert_eq!(covered(&settled, &same()), (CoverageState::Exact, Some(FROM), None));
    assert!(!next(&settled, None, false).is_settled());
}

/// What the next increment compares with.
fn next(settled: &Settled, defined: Option<&TableCatalog>, is_undefined: bool) -> SeenCatalog {
    let definitions = SeenDefinitions {
        fingerprint: String::new(),
        from: AT,
    };
    seen(
        settled,
        (definitions, defined),
        is_undefined,
        &StreamFacts::new(None, FROM),
    )
}

#[test]
fn definitions_that_could_not_be_stored_are_a_matter_of_the_next_increment() {
    let define = Action::Define {
        last_exact: Lsn(150),
        why: String::new(),
    };
    assert!(!next(&settled(define, None), None, true).is_settled());
    let mut renamed = settled(Action::Keep, None);
    assert!(next(&renamed, None, true).is_settled());
    renamed.decisions[0].renamed = Some(Lsn(120));
    assert!(next(&renamed, None, false).is_settled());
    assert!(!next(&renamed, None, true).is_settled());
}

#[test]
fn names_that_columns_got_after_the_look_are_recorded_with_the_definitions_that_have_them() {
    let named = |name: &str| {
        let mut later = table(ORDERS);
        later.columns = vec![column("id"), column(name)];
        let mut settled = settled(Action::Keep, None);
        settled.looked.catalog.tables[0].columns = vec![column("id"), column("v")];
        next(&settled, Some(&catalog(vec![later])), false)
    };
    let last = |table: &CatalogTable| table.columns[1].name.clone();
    let later = &named("w").tables[0];
    assert_eq!(
        (last(later.in_definitions()), last(&later.table)),
        ("w".into(), "v".into())
    );
    let same = &named("v").tables[0];
    assert_eq!((last(same.in_definitions()), &same.defined), ("v".into(), &None));
}

fn column(name: &str) -> CatalogColumn {
    CatalogColumn {
        number: 1,
        name: name.into(),
        type_name: "text".into(),
        type_oid: 25,
        modifier: -1,
        generated: None,
        identity: None,
    }
}

#[test]
fn a_change_after_the_look_leaves_the_rest_of_the_increment_open_and_loses_nothing() {
    let mut settled = settled(Action::Keep, None);
    let open = |to| (CoverageState::Exact, Some(to), Some(Lsn(301)));
    assert_eq!(covered(&settled, &rewritten()), open(SINCE));
    let dropped = catalog(vec![]);
    assert_eq!(covered(&settled, &dropped), open(SINCE));
    // Somebody was about to commit a change.
    settled.looked.since = None;
    assert_eq!(covered(&settled, &rewritten()), open(FROM));
}

/// It was detached from its parent after the look, changed and attached again: both catalogs look the same.
#[test]
fn a_table_that_is_published_by_another_entry_after_the_look_is_late() {
    let mut settled = settled(Action::Keep, None);
    settled.publications.memberships.1 = BTreeMap::from([(ORDERS, "700 16400".to_owned())]);
    let now = |by: &str| Memberships::from([(ORDERS, by.to_owned())]);
    assert!(unpublished(&settled, &now("700 16400")).is_empty());
    for other in [now("731 16400"), Memberships::new()] {
        assert_eq!(unpublished(&settled, &other), BTreeSet::from([ORDERS]));
    }
}

/// TRUNCATE, VACUUM FULL or CLUSTER: the rows that are left have the same values.
#[test]
fn another_file_with_the_same_columns_leaves_nothing_open() {
    let with = |filenode| {
        let mut table = table(ORDERS);
        (table.filenode, table.traces.columns_changed_by) = (filenode, Some(-5));
        catalog(vec![table])
    };
    let mut settled = settled(Action::Keep, None);
    settled.looked.catalog = with(1);
    assert_eq!(covered(&settled, &with(2)), (CoverageState::Exact, None, None));
}

#[test]
fn a_table_that_is_made_after_the_look_is_not_exact_yet() {
    let settled = settled(Action::Keep, None);
    let again = catalog(vec![table(ORDERS), table(ORDERS + 9)]);
    let tables = tables(((FROM, TO), None), &settled, &BTreeSet::new(), &again);
    assert_eq!(tables.len(), 2);
    assert_eq!((tables[1].to, tables[1].from), (Some(SINCE), None));
}

#[test]
fn rows_that_only_new_definitions_can_hold_make_a_gap_up_to_these() {
    let action = Action::Define {
        last_exact: Lsn(150),
        why: String::new(),
    };
    assert_eq!(
        covered(&settled(action, None), &same()),
        (CoverageState::Exact, Some(Lsn(150)), Some(AT))
    );
}

#[test]
fn other_names_make_a_gap_up_to_the_definitions_that_have_them() {
    let named = |action: Action, at: Option<Lsn>, defined: Lsn| {
        let mut settled = settled(action, at);
        settled.decisions[0].renamed = Some(Lsn(120));
        let covered = tables(((FROM, TO), Some(defined)), &settled, &BTreeSet::new(), &same());
        assert!(covered[0].renamed && covered[0].why.as_ref().unwrap().contains("its name"));
        (covered[0].to, covered[0].from)
    };
    assert_eq!(named(Action::Keep, None, AT), (Some(Lsn(120)), Some(AT)));
    assert_eq!(named(Action::Keep, None, Lsn(270)), (Some(Lsn(120)), Some(Lsn(270))));
    let read = reading(Some(Lsn(110)));
    assert_eq!(named(read, Some(BASELINE), AT), (Some(Lsn(110)), Some(BASELINE)));
    // Without its baseline it is lost.
    let mut settled = settled(reading(Some(Lsn(150))), None);
    settled.decisions[0].renamed = Some(Lsn(120));
    settled.postpone(&[ORDERS], "a transaction goes on");
    assert_eq!(covered(&settled, &same()), (CoverageState::Exact, Some(Lsn(120)), None));
}

/// Between the look at the catalog and the end of the increment.
#[test]
fn names_that_changed_after_the_look_leave_the_rest_of_the_increment_open() {
    let open = (CoverageState::Exact, Some(SINCE), Some(Lsn(301)));
    let renamed = catalog(vec![CatalogTable {
        name: "sales".into(),
        ..table(ORDERS)
    }]);
    assert_eq!(covered(&settled(Action::Keep, None), &renamed), open);
}

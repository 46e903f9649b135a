//! Each difference between two catalogs, and what it means.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::format::pgoutput::Message;
use crate::postgres::{
    CatalogColumn, EnumLabel, ExtensionTable, Memberships, Postponed, ReplicaIdentity, Traces, sample_table,
};

const FROM: Lsn = Lsn(1000);
const ORDERS: u32 = 20_000;
const EVENTS: u32 = 21_000;
const PART: u32 = 21_001;

fn column(number: i16, name: &str, type_oid: u32) -> CatalogColumn {
    CatalogColumn {
        number,
        name: name.into(),
        type_name: "text".into(),
        type_oid,
        modifier: -1,
        generated: None,
        identity: None,
    }
}

/// `public.t<oid>(id, v)` with a primary key.
fn table(oid: u32) -> CatalogTable {
    CatalogTable {
        columns: vec![column(1, "id", 23), column(2, "v", 25)],
        ..sample_table(oid)
    }
}

fn keyless(oid: u32) -> CatalogTable {
    CatalogTable {
        identity_index: None,
        key: Vec::new(),
        primary_key: None,
        ..table(oid)
    }
}

fn parent(oid: u32) -> CatalogTable {
    CatalogTable {
        kind: TableKind::Partitioned,
        filenode: 0,
        ..table(oid)
    }
}

fn leaf(oid: u32, parent: u32) -> CatalogTable {
    CatalogTable {
        parent: Some(parent),
        ..table(oid)
    }
}

fn catalog(tables: Vec<CatalogTable>) -> TableCatalog {
    let mut tables = tables;
    tables.sort_by_key(|table| table.oid);
    TableCatalog { major: 18, tables }
}

/// Published as they should be.
fn members(catalog: &TableCatalog) -> BTreeMap<u32, PublicationKind> {
    let publishing = catalog.publishing();
    let covered = publishing.iter();
    covered.filter_map(|(oid, one)| Some((*oid, one.covered?))).collect()
}

/// Each by an entry with this OID.
fn by(members: &BTreeMap<u32, PublicationKind>, entry: u32) -> Memberships {
    members.keys().map(|oid| (*oid, entry.to_string())).collect()
}

fn seen(tables: Vec<CatalogTable>) -> SeenCatalog {
    let catalog = catalog(tables);
    let members = members(&catalog);
    let fingerprint = String::new();
    let memberships = by(&members, 1);
    SeenCatalog::first(catalog, Lsn(900), fingerprint, (&members, &memberships))
}

/// A world to compare: the tables now, with the counts and the messages of the stream.
#[derive(Default)]
struct World {
    tables: Vec<CatalogTable>,
    counted: BTreeMap<u32, u64>,
    unpublished: Vec<u32>,
    postponed: BTreeMap<u32, String>,
    interrupted: BTreeSet<u32>,
    /// They were taken out of their publication and added again.
    added_again: bool,
    messages: Vec<Vec<u8>>,
}

impl World {
    fn of(tables: Vec<CatalogTable>) -> Self {
        Self {
            tables,
            ..Self::default()
        }
    }

    fn hearing(tables: Vec<CatalogTable>, messages: Vec<Vec<u8>>) -> Self {
        Self {
            messages,
            ..Self::of(tables)
        }
    }

    fn differences(self, previous: Option<&SeenCatalog>) -> Vec<Decision> {
        let catalog = catalog(self.tables);
        let mut after = members(&catalog);
        after.retain(|oid, _| !self.unpublished.contains(oid) && !self.postponed.contains_key(oid));
        let postponed = |(oid, why): (u32, String)| Postponed {
            oid,
            schema: "public".into(),
            name: format!("t{oid}"),
            breaks_updates: false,
            why,
        };
        let memberships = by(&after, if self.added_again { 2 } else { 1 });
        let publications = PublicationChanges {
            memberships: (memberships.clone(), memberships),
            before: after.clone(),
            after,
            interrupted: self.interrupted,
            postponed: self.postponed.into_iter().map(postponed).collect(),
        };
        let mut facts = StreamFacts::new(previous, FROM);
        for message in &self.messages {
            facts.hear(&Message::parse(message).unwrap());
        }
        let now = Now {
            publishing: &catalog.publishing(),
            catalog: &catalog,
            publications: &publications,
            counted: &self.counted,
            from: FROM,
        };
        difference(previous, &now, &facts)
    }

    fn action(self, previous: &SeenCatalog, oid: u32) -> Action {
        let decisions = self.differences(Some(previous));
        let mut of_table = decisions.into_iter().filter(|decision| decision.oid == oid);
        let decision = of_table.next().unwrap();
        assert!(of_table.next().is_none());
        decision.action
    }
}

fn begin(commit: u64) -> Vec<u8> {
    [
        &b"B"[..],
        &commit.to_be_bytes(),
        &0_i64.to_be_bytes(),
        &7_u32.to_be_bytes(),
    ]
    .concat()
}

fn commit(commit: u64) -> Vec<u8> {
    let (at, end) = (commit.to_be_bytes(), (commit + 8).to_be_bytes());
    [&b"C\0"[..], &at, &end, &0_i64.to_be_bytes()].concat()
}

fn insert(oid: u32) -> Vec<u8> {
    [&b"I"[..], &oid.to_be_bytes(), b"N\0\0"].concat()
}

fn truncate(oid: u32) -> Vec<u8> {
    [&b"T"[..], &1_u32.to_be_bytes(), b"\0", &oid.to_be_bytes()].concat()
}

fn relation(table: &CatalogTable) -> Vec<u8> {
    let mut message = vec![b'R'];
    message.extend(table.oid.to_be_bytes());
    message.extend(format!("{}\0{}\0d", table.schema, table.name).bytes());
    message.extend(u16::try_from(table.columns.len()).unwrap().to_be_bytes());
    for column in &table.columns {
        message.push(u8::from(table.key.contains(&column.name)));
        message.extend(format!("{}\0", column.name).bytes());
        message.extend(column.type_oid.to_be_bytes());
        message.extend(column.modifier.to_be_bytes());
    }
    message
}

/// Two transactions, which commit at 2000 and 3000, with these messages.
fn two(first: Vec<Vec<u8>>, second: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let first = [vec![begin(2000)], first, vec![commit(2000)]].concat();
    [first, vec![begin(3000)], second, vec![commit(3000)]].concat()
}

fn read(action: Action) -> Reading {
    match action {
        Action::Read(reading) => reading,
        other => panic!("{other:?}"),
    }
}

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
fn new_columns_without_a_rewrite_leave_all_moments_exact_that_are_before_the_first_row_with_them() {
    let previous = seen(vec![table(ORDERS)]);
    let mut wider = table(ORDERS);
    wider.columns.push(column(3, "w", 25));
    let heard = two(
        vec![relation(&table(ORDERS)), insert(ORDERS)],
        vec![relation(&wider), insert(ORDERS)],
    );
    let reading = read(World::hearing(vec![wider.clone()], heard).action(&previous, ORDERS));
    assert_eq!((reading.last_exact, reading.proof), (Some(Lsn(3000)), None));
    let silent = read(World::of(vec![wider]).action(&previous, ORDERS));
    assert_eq!(silent.last_exact, None);
}

#[test]
fn new_types_with_a_rewrite_leave_all_moments_exact_that_are_before_the_first_row_with_them() {
    let previous = seen(vec![table(ORDERS)]);
    let mut bigger = table(ORDERS);
    bigger.columns[0].type_oid = 20;
    bigger.filenode += 7;
    let heard = two(
        vec![relation(&table(ORDERS)), insert(ORDERS)],
        vec![relation(&bigger), insert(ORDERS)],
    );
    let reading = read(World::hearing(vec![bigger.clone()], heard).action(&previous, ORDERS));
    assert_eq!(reading.last_exact, Some(Lsn(3000)));
    // An earlier rewrite may have left the columns as they were.
    let same = || vec![relation(&table(ORDERS)), insert(ORDERS)];
    let heard = [
        two(same(), same()),
        two(vec![], vec![relation(&bigger), insert(ORDERS)]),
    ]
    .concat();
    let reading = read(World::hearing(vec![bigger], heard).action(&previous, ORDERS));
    assert_eq!(reading.last_exact, Some(Lsn(3000)));
}

#[test]
fn a_column_that_was_dropped_and_made_again_is_not_a_renamed_one() {
    let previous = seen(vec![table(ORDERS)]);
    let mut again = table(ORDERS);
    again.columns[1] = column(3, "v", 25);
    read(World::of(vec![again]).action(&previous, ORDERS));
}

#[test]
fn a_renamed_label_and_another_type_are_rewrites_of_the_values() {
    let label = |label: &str| EnumLabel {
        oid: 500,
        label: label.into(),
    };
    let with = |labels: Vec<EnumLabel>| CatalogTable {
        labels,
        ..table(ORDERS)
    };
    let previous = seen(vec![with(vec![label("new")])]);
    let renamed = read(World::of(vec![with(vec![label("open")])]).action(&previous, ORDERS));
    assert_eq!((renamed.last_exact, renamed.proof), (None, None));
    let heard = two(vec![], vec![insert(ORDERS)]);
    let world = World::hearing(vec![with(vec![label("open")])], heard);
    assert_eq!(read(world.action(&previous, ORDERS)).last_exact, Some(Lsn(3000)));
    let mut other = with(vec![label("new")]);
    other.types = Some("other".into());
    read(World::of(vec![other]).action(&previous, ORDERS));
}

#[test]
fn a_new_label_needs_new_definitions_only_and_only_if_rows_came() {
    let labels = |count: u32| CatalogTable {
        labels: (0..count)
            .map(|oid| EnumLabel {
                oid,
                label: format!("l{oid}"),
            })
            .collect(),
        ..table(ORDERS)
    };
    let previous = seen(vec![labels(1)]);
    assert_eq!(World::of(vec![labels(2)]).action(&previous, ORDERS), Action::Keep);
    let heard = two(vec![], vec![insert(ORDERS)]);
    let Action::Define { last_exact, .. } = World::hearing(vec![labels(2)], heard).action(&previous, ORDERS) else {
        panic!("no new definitions");
    };
    assert_eq!(last_exact, Lsn(3000));
}

#[test]
fn another_file_without_truncate_is_a_rewrite_that_a_replay_may_prove_harmless() {
    let previous = seen(vec![table(ORDERS)]);
    let rewritten = CatalogTable {
        filenode: 5,
        ..table(ORDERS)
    };
    let reading = read(World::of(vec![rewritten.clone()]).action(&previous, ORDERS));
    assert_eq!(
        (reading.last_exact, reading.proof),
        (Some(FROM), Some(ReplayProof::FromBase))
    );
    let heard = two(vec![truncate(ORDERS)], vec![]);
    let world = World::hearing(vec![rewritten], heard);
    assert_eq!(world.action(&previous, ORDERS), Action::Keep);
}

/// `TRUNCATE; INSERT; ALTER TABLE … TYPE text USING upper(v)`: the file is another one, and the stream has the TRUNCATE.
#[test]
fn a_rewrite_after_a_truncate_is_not_taken_for_the_truncate() {
    let with = |filenode, toast, changed_by| {
        let traces = Traces {
            toast: Some(toast),
            changed_by: Some(changed_by),
            attached_by: None,
        };
        CatalogTable {
            filenode,
            traces,
            ..table(ORDERS)
        }
    };
    let heard = || two(vec![truncate(ORDERS)], vec![insert(ORDERS)]);
    let action = |before, now| World::hearing(vec![now], heard()).action(&seen(vec![before]), ORDERS);
    // TRUNCATE keeps the table of out-of-line values; ALTER TABLE does not.
    assert_eq!(action(with(1, 50, 3), with(2, 50, 900)), Action::Keep);
    assert!(read(action(with(1, 50, 3), with(2, 51, 900))).proof.is_some());
    // Without such a table, the transaction tells: it is number 7 that truncates.
    assert_eq!(action(with(1, 0, 3), with(2, 0, 7)), Action::Keep);
    assert!(read(action(with(1, 0, 3), with(2, 0, 900))).proof.is_some());
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
    assert_eq!(ends, [Some(Lsn(2000)), Some(FROM)]);
}

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
fn other_names_are_only_other_definitions() {
    let previous = seen(vec![table(ORDERS)]);
    let mut renamed = table(ORDERS);
    renamed.schema = "archive".into();
    renamed.name = "old_orders".into();
    renamed.columns[0].name = "number".into();
    renamed.key = vec!["number".into()];
    assert_eq!(World::of(vec![renamed]).action(&previous, ORDERS), Action::Keep);
}

#[test]
fn another_identity_is_read_and_exact_before_the_first_row_that_has_it() {
    let previous = seen(vec![table(ORDERS)]);
    let mut full = table(ORDERS);
    (full.identity, full.identity_index, full.key) = (ReplicaIdentity::Full, None, Vec::new());
    assert_eq!(read(World::of(vec![full]).action(&previous, ORDERS)).last_exact, None);
    let mut by_v = table(ORDERS);
    by_v.key = vec!["v".into()];
    let heard = two(
        vec![relation(&table(ORDERS)), insert(ORDERS)],
        vec![relation(&by_v), insert(ORDERS)],
    );
    let reading = read(World::hearing(vec![by_v], heard).action(&previous, ORDERS));
    assert_eq!(reading.last_exact, Some(Lsn(3000)));
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

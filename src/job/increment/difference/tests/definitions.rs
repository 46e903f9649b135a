//! Differences between two definitions of a table.

use super::world::*;
use crate::job::increment::difference::*;
use crate::postgres::{EnumLabel, ReplicaIdentity, Traces};

#[test]
fn new_columns_without_a_rewrite_leave_all_moments_exact_up_to_the_last_row_without_them() {
    let previous = seen(vec![table(ORDERS)]);
    let mut wider = table(ORDERS);
    wider.columns.push(column(3, "w", 25));
    let heard = two(
        vec![relation(&table(ORDERS)), insert(ORDERS)],
        vec![relation(&wider), insert(ORDERS)],
    );
    let reading = read(World::hearing(vec![wider.clone()], heard).action(&previous, ORDERS));
    // The first transaction has ended, and the new columns came at the second one at the latest.
    assert_eq!((reading.last_exact, reading.proof), (Some(Lsn(2008)), None));
    let silent = read(World::of(vec![wider.clone()]).action(&previous, ORDERS));
    assert_eq!(silent.last_exact, Some(FROM));
    // One transaction may have changed rows, and then the columns.
    let long = [
        vec![begin(2000), relation(&table(ORDERS)), insert(ORDERS)],
        vec![
            [
                &b"C\0"[..],
                &2000_u64.to_be_bytes(),
                &2080_u64.to_be_bytes(),
                &0_i64.to_be_bytes(),
            ]
            .concat(),
        ],
    ];
    let reading = read(World::hearing(vec![wider.clone()], long.concat()).action(&previous, ORDERS));
    assert_eq!(reading.last_exact, Some(Lsn(2000)));
    let all = vec![
        relation(&table(ORDERS)),
        insert(ORDERS),
        relation(&wider),
        insert(ORDERS),
    ];
    let heard = two(all, vec![insert(ORDERS)]);
    let reading = read(World::hearing(vec![wider], heard).action(&previous, ORDERS));
    assert_eq!(reading.last_exact, Some(Lsn(2000)));
}

#[test]
fn columns_that_came_and_went_make_the_table_read() {
    let previous = seen(vec![table(ORDERS)]);
    let mut wider = table(ORDERS);
    wider.columns.push(column(3, "w", 25));
    let heard = two(
        vec![relation(&table(ORDERS)), insert(ORDERS)],
        vec![relation(&wider), insert(ORDERS)],
    );
    let reading = read(World::hearing(vec![table(ORDERS)], heard).action(&previous, ORDERS));
    assert_eq!((reading.last_exact, reading.proof), (Some(Lsn(2008)), None));
}

/// An earlier rewrite may have left the columns as they were.
#[test]
fn new_types_with_a_rewrite_leave_no_moment_exact() {
    let previous = seen(vec![table(ORDERS)]);
    let mut bigger = table(ORDERS);
    bigger.columns[0].type_oid = 20;
    bigger.filenode += 7;
    let heard = two(
        vec![relation(&table(ORDERS)), insert(ORDERS)],
        vec![relation(&bigger), insert(ORDERS)],
    );
    let reading = read(World::hearing(vec![bigger], heard).action(&previous, ORDERS));
    assert_eq!(reading.last_exact, Some(FROM));
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
    assert_eq!((renamed.last_exact, renamed.proof), (Some(FROM), None));
    let heard = two(vec![], vec![insert(ORDERS)]);
    let world = World::hearing(vec![with(vec![label("open")])], heard);
    assert_eq!(read(world.action(&previous, ORDERS)).last_exact, Some(FROM));
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
            ..Traces::default()
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

/// `ALTER TABLE … ALTER v TYPE text USING upper(v)` leaves the columns as they were, but not their rows in the catalog.
#[test]
fn a_rewrite_by_alter_table_is_neither_proved_by_a_replay_nor_hidden_by_a_truncate() {
    let with = |filenode, columns_changed_by| {
        let mut table = table(ORDERS);
        table.filenode = filenode;
        table.traces.columns_changed_by = columns_changed_by;
        table
    };
    let (before, altered) = (with(1, Some(-5)), with(2, Some(6)));
    let reading = read(World::of(vec![altered.clone()]).action(&seen(vec![before.clone()]), ORDERS));
    assert_eq!((reading.last_exact, reading.proof), (Some(FROM), None));
    let action = |before: &CatalogTable, now: &CatalogTable| {
        let heard = two(vec![insert(ORDERS)], vec![truncate(ORDERS)]);
        World::hearing(vec![now.clone()], heard).action(&seen(vec![before.clone()]), ORDERS)
    };
    assert_eq!(action(&before, &with(2, Some(-5))), Action::Keep);
    assert_eq!(read(action(&before, &altered)).proof, None);
    // An older pgstow did not record it.
    assert_eq!(read(action(&with(1, None), &altered)).proof, None);
    // The default of a column was changed.
    assert_eq!(action(&before, &with(1, Some(6))), Action::Keep);
    // VACUUM FULL, and the baseline had to wait. Then ALTER TABLE.
    let mut waiting = seen(vec![before]);
    waiting.tables[0].lacking = Some("a transaction goes on".into());
    waiting.tables[0].proof = Some(ReplayProof::FromBase);
    let proof = |now| read(World::of(vec![now]).action(&waiting, ORDERS)).proof;
    assert_eq!(proof(with(2, Some(-5))), Some(ReplayProof::FromBase));
    assert_eq!(proof(altered), None);
    let other_types = CatalogTable {
        types: Some("another".into()),
        ..with(2, Some(-5))
    };
    assert_eq!(proof(other_types), None);
}

/// SET UNLOGGED and SET LOGGED leave its columns as they are, and what was written in between is not in the stream.
#[test]
fn a_partition_that_was_rewritten_is_neither_proved_by_a_replay_nor_taken_for_emptied() {
    let with = |filenode, changed_by| {
        let mut table = leaf(PART, EVENTS);
        table.filenode = filenode;
        table.traces = Traces {
            toast: Some(0),
            changed_by: Some(changed_by),
            columns_changed_by: Some(-5),
            ..Traces::default()
        };
        table
    };
    let action = |heard| {
        let previous = seen(vec![parent(EVENTS), with(1, 3)]);
        World::hearing(vec![parent(EVENTS), with(2, 7)], heard).action(&previous, PART)
    };
    assert_eq!(read(action(two(vec![insert(PART)], vec![]))).proof, None);
    assert_eq!(read(action(two(vec![truncate(PART)], vec![]))).proof, None);
}

#[test]
fn a_definition_that_was_changed_while_the_increment_before_was_made_and_changed_back_is_read() {
    let mut previous = seen(vec![table(ORDERS)]);
    let mut between = table(ORDERS);
    between.columns[1].name = "w".into();
    previous.tables[0].defined = Some(Box::new(between.clone()));
    assert!(matches!(
        World::of(vec![table(ORDERS)]).action(&previous, ORDERS),
        Action::Read(_)
    ));
    assert_eq!(World::of(vec![between]).action(&previous, ORDERS), Action::Keep);
}

#[test]
fn a_new_partition_whose_parent_was_altered_is_not_proved_by_a_replay() {
    let previous = seen(vec![parent(EVENTS)]);
    let mut altered = parent(EVENTS);
    altered.traces.columns_changed_by = Some(6);
    let reading = read(World::of(vec![altered, leaf(PART, EVENTS)]).action(&previous, PART));
    assert_eq!(reading.proof, None);
}

#[test]
fn other_names_are_only_other_definitions() {
    let previous = seen(vec![table(ORDERS)]);
    let mut renamed = table(ORDERS);
    renamed.schema = "archive".into();
    renamed.name = "old_orders".into();
    renamed.columns[0].name = "number".into();
    renamed.key = vec!["number".into()];
    let decisions = World::of(vec![renamed.clone()]).differences(Some(&previous));
    assert_eq!(
        (&decisions[0].action, decisions[0].renamed),
        (&Action::Keep, Some(FROM))
    );
    // Rows that came with the earlier names were before.
    let heard = two(
        vec![relation(&table(ORDERS)), insert(ORDERS)],
        vec![relation(&renamed), insert(ORDERS)],
    );
    let last = |now: CatalogTable, heard: &[Vec<u8>]| {
        let decisions = World::hearing(vec![now], heard.to_vec()).differences(Some(&previous));
        assert_eq!(decisions[0].action, Action::Keep);
        decisions[0].renamed
    };
    // The name of a schema changes without waiting for them.
    assert_eq!(last(renamed.clone(), &heard), Some(FROM));
    renamed.schema = "public".into();
    assert_eq!(last(renamed, &heard), Some(Lsn(2008)));
    // They were other ones for a while.
    assert_eq!(last(table(ORDERS), &heard), Some(Lsn(2008)));
    let plain = two(vec![relation(&table(ORDERS)), insert(ORDERS)], vec![insert(ORDERS)]);
    assert_eq!(last(table(ORDERS), &plain), None);
}

/// The catalog is in UTF-8, the stream in the database's encoding.
#[test]
fn names_in_another_encoding_are_not_taken_for_other_names() {
    let mut table = table(ORDERS);
    table.columns[1].name = "größe".into();
    let previous = seen(vec![table.clone()]);
    let mut sent = table.clone();
    sent.columns[1].name = "gr??e".into();
    let message: Vec<u8> = relation(&sent);
    let at = message.windows(5).position(|name| name == b"gr??e").unwrap();
    let mut message = message;
    message[at..at + 5].copy_from_slice(b"gr\xf6\xdfe");
    let decisions = World::hearing(vec![table], two(vec![message], vec![])).differences(Some(&previous));
    assert_eq!((&decisions[0].action, decisions[0].renamed), (&Action::Keep, None));
}

#[test]
fn another_identity_is_read_and_exact_up_to_the_last_row_that_has_the_earlier_one() {
    let previous = seen(vec![table(ORDERS)]);
    let mut full = table(ORDERS);
    (full.identity, full.identity_index, full.key) = (ReplicaIdentity::Full, None, Vec::new());
    assert_eq!(
        read(World::of(vec![full]).action(&previous, ORDERS)).last_exact,
        Some(FROM)
    );
    let mut by_v = table(ORDERS);
    by_v.key = vec!["v".into()];
    let heard = two(
        vec![relation(&table(ORDERS)), insert(ORDERS)],
        vec![relation(&by_v), insert(ORDERS)],
    );
    let reading = read(World::hearing(vec![by_v], heard).action(&previous, ORDERS));
    assert_eq!(reading.last_exact, Some(Lsn(2008)));
}

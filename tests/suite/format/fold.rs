//! The net effect of a stream on its tables: which transactions count, and which descriptions they allow.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgstow::format::Lsn;
use pgstow::format::changes::{Head, Index, Reader, Selection, Writer};
use pgstow::format::fold::{Base, Changed, Fold, FoldError, Horizon, Memory, Rewriter};

use crate::support::stream::{Transactions, delete, insert, relation, truncate, update};

const ORDERS: u32 = 16_400;
const OTHER: u32 = 16_401;

fn orders() -> Vec<u8> {
    relation(ORDERS, "public", "orders", b'd', 1, &["id", "item"])
}

fn memory() -> Arc<Memory> {
    Arc::new(Memory::new(1 << 20, tempfile::tempfile))
}

/// What the fold of these tables makes of the stream.
fn folded(transactions: &Transactions, only: Option<u32>, mut fold: Fold) -> BTreeMap<u32, Changed> {
    let head = Head {
        system_identifier: 1,
        timeline: 1,
        database_oid: 1,
        from: Lsn(0),
    };
    let mut writer = Writer::new(&head, 1).unwrap();
    let mut file = Vec::new();
    for message in &transactions.messages {
        file.extend(writer.push(message).unwrap().unwrap_or_default());
    }
    let (rest, summary) = writer.finish(Lsn(transactions.position)).unwrap();
    file.extend(rest);
    let at = usize::try_from(summary.index.offset).unwrap();
    let index = Arc::new(Index::parse(&file[at..], file.len() as u64).unwrap());
    let selection = Selection {
        relids: only.map(|relid| [relid].into()),
        ..Selection::default()
    };
    let mut reader = Reader::new(&file[Head::LENGTH..], Lsn(0), index, selection).unwrap();
    while let Some(item) = reader.next().unwrap() {
        if !fold.take(&item).unwrap() {
            break;
        }
    }
    fold.finish()
}

fn with(horizon: Horizon, cut: Option<Lsn>) -> Fold {
    let columns = Some(["id", "item"].map(|name| name.as_bytes().to_vec()).to_vec());
    Fold::new(
        BTreeMap::from([(
            ORDERS,
            Base {
                horizon,
                columns,
                ..Base::default()
            },
        )]),
        cut,
        memory(),
    )
}

/// The rows that come of these rows.
fn rows(changed: &Changed, base: &[&str]) -> Vec<String> {
    let mut rewriter = Rewriter::new(Arc::clone(&changed.net));
    let mut out = Vec::new();
    for line in base {
        rewriter.row(line.as_bytes(), &mut out).unwrap();
    }
    rewriter.finish::<FoldError>(&mut out, |_| Ok(())).unwrap();
    let mut rows: Vec<String> = String::from_utf8(out).unwrap().lines().map(str::to_owned).collect();
    rows.sort();
    rows
}

/// Three transactions, 701 to 703.
fn three() -> Transactions {
    let mut transactions = Transactions::after(0x1000);
    transactions
        .add([orders(), insert(ORDERS, &[Some("2"), Some("two")])])
        .add([update(ORDERS, None, &[Some("1"), Some("uno")])])
        .add([delete(ORDERS, b'K', &[Some("2"), None])]);
    transactions
}

#[test]
fn transactions_that_the_base_has_are_not_applied_again() {
    let all = folded(&three(), None, with(Horizon::default(), None));
    assert_eq!(rows(&all[&ORDERS], &["1\tone"]), ["1\tuno"]);
    // 701 had ended, 702 had not.
    let horizon = Horizon::new(702, 703, vec![702]);
    let later = folded(&three(), None, with(horizon, None));
    assert_eq!(rows(&later[&ORDERS], &["1\tone", "2\ttwo"]), ["1\tuno"]);
    assert!(folded(&three(), None, with(Horizon::new(704, 704, Vec::new()), None)).is_empty());
}

#[test]
fn what_is_behind_the_cut_or_unseen_by_a_later_snapshot_is_not_applied() {
    let transactions = three();
    let last = Lsn(transactions.position - 0x30);
    let cut = folded(&transactions, None, with(Horizon::default(), Some(last)));
    assert_eq!(rows(&cut[&ORDERS], &["1\tone"]), ["1\tuno", "2\ttwo"]);
    let seen = with(Horizon::default(), None).seen_by(Horizon::new(702, 704, vec![702]));
    // The row came and went again.
    assert!(folded(&transactions, None, seen).is_empty());
}

#[test]
fn a_table_whose_columns_change_is_followed_up_to_there() {
    let mut transactions = three();
    let until = transactions.position;
    let wider = relation(ORDERS, "public", "orders", b'd', 1, &["id", "item", "price"]);
    transactions.add([wider, insert(ORDERS, &[Some("3"), Some("three"), Some("9")])]);
    let changed = folded(&transactions, None, with(Horizon::default(), None));
    let broken = changed[&ORDERS].broken.as_ref().unwrap();
    assert_eq!(broken.until, Lsn(until));
    assert_eq!(rows(&changed[&ORDERS], &["1\tone"]), ["1\tuno"]);
}

#[test]
fn an_emptied_table_may_have_other_columns_afterwards() {
    let mut transactions = three();
    let wider = relation(ORDERS, "public", "orders", b'f', 3, &["id", "item", "price"]);
    transactions.add([
        truncate(&[ORDERS], 0),
        wider,
        insert(ORDERS, &[Some("3"), Some("three"), None]),
    ]);
    let changed = folded(&transactions, None, with(Horizon::default(), None));
    assert!(changed[&ORDERS].broken.is_none());
    assert_eq!(changed[&ORDERS].columns.len(), 3);
    assert_eq!(rows(&changed[&ORDERS], &["1\tone"]), ["3\tthree\t\\N"]);
}

#[test]
fn rows_with_other_columns_than_the_bases_are_not_joined_with_them() {
    let columns = Some(vec![b"id".to_vec()]);
    let base = Base {
        columns,
        ..Base::default()
    };
    let fold = Fold::new(BTreeMap::from([(ORDERS, base)]), None, memory());
    let changed = folded(&three(), None, fold);
    assert!(changed[&ORDERS].broken.is_some());
}

#[test]
fn changes_of_other_tables_are_passed_over() {
    let mut transactions = Transactions::after(0x1000);
    let other = relation(OTHER, "public", "other", b'd', 1, &["id"]);
    transactions.add([
        other,
        orders(),
        insert(OTHER, &[Some("1")]),
        insert(ORDERS, &[Some("1"), None]),
    ]);
    transactions.add([truncate(&[OTHER, ORDERS], 0)]);
    for only in [None, Some(ORDERS)] {
        let changed = folded(&transactions, only, with(Horizon::default(), None));
        assert_eq!(changed.keys().copied().collect::<Vec<_>>(), [ORDERS]);
        assert!(rows(&changed[&ORDERS], &["7\tseven"]).is_empty());
    }
}

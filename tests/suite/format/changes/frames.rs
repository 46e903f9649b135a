//! Where frames end, and which of them a reader needs.

use std::collections::BTreeSet;

use jiff::Timestamp;
use pgstow::format::Lsn;
use pgstow::format::changes::{Head, Selection, Writer};
use pgstow::format::pgoutput::{Message, time_of};

use super::{FROM, HEAD, ITEMS, ORDERS, checked, described, long, opened, selected, written};
use crate::support::stream::{self, NOON, Transactions};

const MIB: u64 = 1 << 20;

fn of_tables(relids: &[u32]) -> Selection {
    Selection {
        relids: Some(BTreeSet::from_iter(relids.iter().copied())),
        ..Selection::default()
    }
}

#[test]
fn a_frame_ends_with_a_transaction_once_it_has_2_mib() {
    let (_, file, summary) = long();
    let index = opened(&file, &summary).unwrap();
    assert_eq!(index.frames.len(), 2);
    assert!((2 * MIB..2 * MIB + 20_000).contains(&index.frames[0].raw));
    assert!(index.frames.iter().all(|frame| frame.inside.is_none()));
    assert_eq!(index.frames.iter().map(|frame| frame.transactions).sum::<u64>(), 301);
    assert_eq!(index.frames[0].offset, Head::LENGTH as u64);
    assert_eq!(index.frames[1].ends.unwrap().1, summary.position);
}

/// Of about so many MiB.
fn inserts(relid: u32, mib: usize) -> impl Iterator<Item = Vec<u8>> {
    let text = "y".repeat(64 << 10);
    std::iter::repeat_n(stream::insert(relid, &[Some("1"), Some(&text)]), mib * 16)
}

#[test]
fn a_large_transaction_is_split_and_each_part_knows_it() {
    let mut made = Transactions::after(FROM);
    made.add([described(ITEMS)]);
    made.add(std::iter::once(described(ORDERS)).chain(inserts(ORDERS, 13)));
    let (xid, end) = (made.xid, Lsn(made.position));
    made.add([stream::insert(ITEMS, &[Some("2"), None])]);
    let mut writer = Writer::new(&HEAD, 3).unwrap();
    let mut file = Vec::new();
    for message in &made.messages {
        // Never more than a frame is kept: the rest was given away.
        file.extend(writer.push(message).unwrap().unwrap_or_default());
        assert_eq!(writer.bytes().max(Head::LENGTH as u64), (file.len() as u64).max(Head::LENGTH as u64));
    }
    let to = writer.position();
    let (rest, summary) = writer.finish(to).unwrap();
    file.extend(rest);
    let index = opened(&file, &summary).unwrap();
    assert_eq!(index.frames.len(), 4);
    assert!(index.frames.iter().all(|frame| frame.raw < 4 * MIB + 70_000));
    for frame in &index.frames[1..] {
        let inside = frame.inside.unwrap();
        assert_eq!((inside.xid, inside.end), (xid, Some(end)));
    }
    assert_eq!(index.frames[0].inside, None);
    checked(&file, &summary).unwrap();
    // The end is known at its first message, although the commit is three frames later.
    let (ends, _) = selected(&file, index, of_tables(&[ORDERS]), |item| {
        matches!(item.message, Message::Insert { .. }).then(|| item.transaction.unwrap().end)
    });
    let ends: Vec<_> = ends.into_iter().flatten().collect();
    assert_eq!((ends.len(), ends.iter().all(|known| *known == Some(end))), (208, true));
}

#[test]
fn one_tables_reader_takes_only_the_frames_that_name_it_and_knows_its_columns() {
    let mut made = Transactions::after(FROM);
    // Described in the first frame, changed in the last one.
    made.add([described(ITEMS), described(ORDERS)]);
    for _ in 0..6 {
        made.add(inserts(ORDERS, 2));
    }
    made.add([stream::insert(ITEMS, &[Some("2"), Some("late")])]);
    let (file, summary) = written(&made.messages).unwrap();
    let index = opened(&file, &summary).unwrap();
    assert!(index.frames.len() > 5);
    let wanted = index.frames(&of_tables(&[ITEMS]));
    assert_eq!(wanted, [index.frames.len() - 1]);
    let length = index.frames[wanted[0]].length;
    let (changes, bytes) = selected(&file, index, of_tables(&[ITEMS]), |item| match &item.message {
        Message::Insert { relid, new } => {
            let relation = item.relation.unwrap();
            assert_eq!((relation.oid, relation.columns.len()), (*relid, new.len()));
            assert_eq!(item.transaction.unwrap().xid, made.xid);
            Some(*relid)
        }
        _ => None,
    });
    assert_eq!(changes.into_iter().flatten().collect::<Vec<_>>(), [ITEMS]);
    assert_eq!(bytes, length);
    let index = opened(&file, &summary).unwrap();
    let (nothing, bytes) = selected(&file, index, of_tables(&[1]), |_| ());
    assert_eq!((nothing.len(), bytes), (0, 0));
}

#[test]
fn a_new_description_holds_from_its_frame_on() {
    let mut made = Transactions::after(FROM);
    made.add([described(ITEMS), described(ORDERS), stream::insert(ITEMS, &[Some("1"), None])]);
    made.add(inserts(ORDERS, 3));
    let wider = stream::relation(ITEMS, "public", "renamed", b'f', 3, &["id", "text", "more"]);
    made.add([wider, stream::insert(ITEMS, &[Some("1"), None, None])]);
    made.add(inserts(ORDERS, 3));
    made.add([described(ORDERS), stream::insert(ITEMS, &[Some("2"), None, None])]);
    let (file, summary) = written(&made.messages).unwrap();
    let index = opened(&file, &summary).unwrap();
    // A description that repeats the one before is not in the index.
    assert_eq!(index.described.len(), 3);
    let (names, _) = selected(&file, index, of_tables(&[ITEMS]), |item| {
        item.relation.map(|relation| (relation.display(), relation.columns.len()))
    });
    let names: Vec<_> = names.into_iter().flatten().collect();
    let renamed = ("public.renamed".to_owned(), 3);
    assert_eq!(names, [("public.t16400".to_owned(), 2), renamed.clone(), renamed]);
    let last = summary.tables.iter().find(|table| table.oid == ITEMS).unwrap();
    assert_eq!((&*last.name, last.identity.name(), last.inserts), ("renamed", "full", 3));
}

#[test]
fn frames_are_chosen_by_time_also_if_commits_are_out_of_order() {
    let mut made = Transactions::after(FROM);
    made.add([described(ORDERS)]);
    // 13:00:10, 12:59:00, 13:00:20, each in its own frame.
    for time in [10, -60, 20] {
        made.time = NOON + (time - 1) * 1_000_000;
        made.add(inserts(ORDERS, 3));
    }
    let (file, summary) = written(&made.messages).unwrap();
    let index = opened(&file, &summary).unwrap();
    let at = |seconds: i64| -> Timestamp { time_of(NOON + seconds * 1_000_000).unwrap() };
    let between = |since: i64, until: i64| Selection {
        since: Some(at(since)),
        until: Some(at(until)),
        ..Selection::default()
    };
    assert_eq!(index.frames(&between(-60, -60)), [1]);
    assert_eq!(index.frames(&between(5, 15)), [0]);
    assert_eq!(index.frames(&between(10, 20)), [0, 2]);
    assert_eq!(index.frames(&between(30, 40)), [0_usize; 0]);
    // What is restored to 13:00:05 ends before the first later commit, although an earlier time comes behind it.
    assert_eq!(index.first_later(at(5)), Some(0));
    assert_eq!(index.first_later(at(15)), Some(2));
    assert_eq!(index.first_later(at(20)), None);
    let (times, _) = selected(&file, index, between(-90, 5), |item| item.transaction.unwrap().time);
    assert_eq!(BTreeSet::from_iter(times), BTreeSet::from([at(-60), at(1)]));
}

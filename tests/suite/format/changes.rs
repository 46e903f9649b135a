//! Files of changes: what is written comes back, and nothing else passes for it.

mod damage;
mod frames;

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

use pgstow::format::Lsn;
use pgstow::format::changes::{self, ChangesError, ChangesSummary, Head, Index, Item, Reader, Selection, Writer};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use crate::support::stream::{self, Transactions};

pub const FROM: u64 = 0x1_2345_6000;

pub const HEAD: Head = Head {
    system_identifier: 7_451_234_567_890_123_456,
    timeline: 2,
    database_oid: 16_384,
    from: Lsn(FROM),
};

/// Writes the messages, and ends at the last transaction's end.
pub fn written(messages: &[Vec<u8>]) -> Result<(Vec<u8>, ChangesSummary), ChangesError> {
    let mut writer = Writer::new(&HEAD, 3)?;
    let mut file = Vec::new();
    for message in messages {
        file.extend(writer.push(message)?.unwrap_or_default());
    }
    let to = writer.position();
    let (end, summary) = writer.finish(to)?;
    file.extend(end);
    Ok((file, summary))
}

/// As a reader of a stored file opens it, with the summary in the manifest.
pub fn opened(file: &[u8], summary: &ChangesSummary) -> Result<Index, String> {
    let at = usize::try_from(summary.index.offset).unwrap();
    let bytes = file.get(at..).ok_or("cut")?;
    if file.len() as u64 != summary.bytes || <[u8; 32]>::from(Sha256::digest(bytes)) != summary.index.sha256 {
        return Err("the index has another digest".into());
    }
    Index::parse(bytes, file.len() as u64).map_err(|error| error.to_string())
}

/// Opens the file and checks all of it.
pub fn checked(file: &[u8], summary: &ChangesSummary) -> Result<ChangesSummary, String> {
    let index = opened(file, summary)?;
    changes::check(file, &HEAD, index).map_err(|error| error.to_string())
}

/// What `read` makes of each selected message, with the number of bytes that were read for it.
pub fn selected<T>(
    file: &[u8],
    index: Index,
    selection: Selection,
    mut read: impl FnMut(&Item<'_>) -> T,
) -> (Vec<T>, u64) {
    let mut source = Vec::new();
    for frame in index.frames(&selection) {
        let frame = &index.frames[frame];
        let place = [frame.offset, frame.end()].map(|at| usize::try_from(at).unwrap());
        source.extend_from_slice(&file[place[0]..place[1]]);
    }
    let bytes = source.len() as u64;
    let mut reader = Reader::new(&*source, HEAD.from, Arc::new(index), selection).unwrap();
    let mut items = Vec::new();
    while let Some(item) = reader.next().unwrap() {
        items.push(read(&item));
    }
    (items, bytes)
}

pub fn all(file: &[u8], index: Index) -> Vec<Vec<u8>> {
    selected(file, index, Selection::default(), |item| item.bytes.to_vec()).0
}

pub const ORDERS: u32 = 16_390;
pub const ITEMS: u32 = 16_400;

pub fn described(oid: u32) -> Vec<u8> {
    stream::relation(oid, "public", &format!("t{oid}"), b'd', 1, &["id", "text"])
}

/// Random transactions of three tables, some of them with logical messages between.
fn transactions() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let text = prop::option::of("[a-z]{0,40}");
    let change = (0_u8..6, 0_u32..3, text, any::<bool>());
    let transaction = (
        prop::collection::vec(change, 0..8),
        any::<bool>(),
        -5_000_000_i64..5_000_000,
    );
    prop::collection::vec(transaction, 0..8).prop_map(|transactions| {
        let mut made = Transactions::after(FROM);
        let mut known = [false; 3];
        for (changes, between, skew) in transactions {
            if between {
                let message = stream::logical(false, made.position, "between", &[0, 1, 2]);
                made.messages.push(message);
            }
            // Times out of order, as of several processors' clocks.
            made.time += skew;
            let mut messages = Vec::new();
            for (kind, table, text, again) in changes {
                let oid = ORDERS + table;
                if !std::mem::replace(&mut known[table as usize], true) || again {
                    messages.push(described(oid));
                }
                let row = [Some("1"), text.as_deref()];
                messages.push(match kind {
                    0 => stream::insert(oid, &row),
                    1 => stream::update(oid, None, &row),
                    2 => stream::update(oid, Some((b'K', &[Some("0"), None])), &row),
                    3 => stream::delete(oid, b'O', &row),
                    4 => stream::truncate(&[oid], 0),
                    _ => stream::logical(true, 1, "inside", b""),
                });
            }
            made.add(messages);
        }
        made.messages
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_comes_back(messages in transactions()) {
        let (file, summary) = written(&messages).unwrap();
        prop_assert_eq!(summary.bytes, file.len() as u64);
        let index = opened(&file, &summary).unwrap();
        prop_assert_eq!(all(&file, index), messages);
        prop_assert_eq!(checked(&file, &summary), Ok(summary));
    }

    #[test]
    fn no_flipped_byte_and_no_cut_passes(messages in transactions(), at: prop::sample::Index, mask in 1_u8..) {
        let (mut file, summary) = written(&messages).unwrap();
        let at = at.index(file.len());
        prop_assert!(checked(&file[..at], &summary).is_err());
        file[at] ^= mask;
        prop_assert!(checked(&file, &summary).is_err(), "byte {} of {}", at, file.len());
    }
}

/// Some transactions that need two frames.
pub fn long() -> (Vec<Vec<u8>>, Vec<u8>, ChangesSummary) {
    let mut made = Transactions::after(FROM);
    made.add([described(ORDERS)]);
    let text = "x".repeat(10_000);
    for _ in 0..300 {
        made.add([stream::insert(ORDERS, &[Some("1"), Some(&text)])]);
    }
    let (file, summary) = written(&made.messages).unwrap();
    (made.messages, file, summary)
}

fn raw(messages: &[Vec<u8>]) -> Vec<u8> {
    let with_length = |message: &Vec<u8>| {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&length[..], message].concat()
    };
    messages.iter().flat_map(with_length).collect()
}

#[test]
fn any_zstd_decoder_reads_the_messages_with_their_lengths() {
    let (messages, file, _) = long();
    let mut decoded = Vec::new();
    zstd::Decoder::new(&*file).unwrap().read_to_end(&mut decoded).unwrap();
    assert!(decoded == raw(&messages));
}

#[test]
fn the_program_zstd_reads_them_too() {
    let (messages, file, _) = long();
    let mut zstd = Command::new("zstd")
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("scripts/tools.sh installs zstd");
    let mut input = zstd.stdin.take().unwrap();
    let feeding = std::thread::spawn(move || input.write_all(&file).unwrap());
    let output = zstd.wait_with_output().unwrap();
    feeding.join().unwrap();
    assert!(output.status.success() && output.stdout == raw(&messages));
}

#[test]
fn the_head_says_whose_stream_it_is() {
    let (file, _) = written(&[]).unwrap();
    let body = &file[8..Head::LENGTH];
    assert_eq!(&file[..8], b"\x50\x2a\x4d\x18\x24\0\0\0");
    let expected = [
        &b"PGSTOWCH\0\x01\0\x01"[..],
        &HEAD.system_identifier.to_be_bytes(),
        &HEAD.timeline.to_be_bytes(),
        &HEAD.database_oid.to_be_bytes(),
        &HEAD.from.0.to_be_bytes(),
    ];
    assert_eq!(body, expected.concat());
    assert_eq!(Head::parse(&file[..Head::LENGTH]).unwrap(), HEAD);
    let mut newer = file[..Head::LENGTH].to_vec();
    newer[17] = 2;
    let error = Head::parse(&newer).unwrap_err().to_string();
    assert!(error.contains("a newer pgstow wrote it"), "{error}");
}

#[test]
fn an_idle_span_is_a_head_and_an_index() {
    let writer = Writer::new(&HEAD, 3).unwrap();
    let to = Lsn(FROM + 0x5000);
    let (file, summary) = writer.finish(to).unwrap();
    assert_eq!((summary.transactions, summary.commits, summary.raw_bytes), (0, None, 0));
    assert_eq!(summary.index.offset, Head::LENGTH as u64);
    let index = opened(&file, &summary).unwrap();
    assert_eq!((index.to, index.frames.len()), (to, 0));
    assert_eq!(Index::offset_in(&file), Some(summary.index.offset));
    assert_eq!(checked(&file, &summary), Ok(summary));
}

#[test]
fn changes_are_counted_for_each_table() {
    let mut made = Transactions::after(FROM);
    let row = [Some("1"), None];
    made.add([
        described(ORDERS),
        stream::insert(ORDERS, &row),
        stream::insert(ORDERS, &row),
    ]);
    made.add([
        described(ITEMS),
        stream::delete(ITEMS, b'K', &row),
        stream::truncate(&[ORDERS, ITEMS], 1),
    ]);
    made.add([stream::update(ORDERS, None, &row)]);
    let (_, summary) = written(&made.messages).unwrap();
    let counts: Vec<_> = summary
        .tables
        .iter()
        .map(|table| (table.oid, table.inserts, table.updates, table.deletes, table.truncates))
        .collect();
    assert_eq!(counts, [(ORDERS, 2, 1, 0, 1), (ITEMS, 0, 0, 1, 1)]);
    assert_eq!(summary.transactions, 3);
    let (first, last) = summary.commits.unwrap();
    assert_eq!(last.duration_since(first).as_secs(), 2);
    assert_eq!(summary.position, Lsn(made.position));
}

#[test]
fn a_stream_out_of_order_is_not_written() {
    let row = [Some("1"), None];
    let begin = |lsn| stream::begin(FROM + lsn, stream::NOON, 1);
    let commit = |lsn, end| stream::commit(FROM + lsn, FROM + end, stream::NOON);
    let refused = [
        (vec![commit(1, 2)], "outside of any transaction"),
        (vec![stream::insert(ORDERS, &row)], "outside of any transaction"),
        (vec![begin(1), begin(2)], "begins inside of another one"),
        (vec![begin(1), commit(2, 3)], "not that of the transaction"),
        (
            vec![begin(1), stream::commit(FROM + 1, FROM + 2, stream::NOON + 1)],
            "not that of the transaction",
        ),
        (vec![begin(1), commit(1, 1)], "not that of the transaction"),
        (
            vec![begin(1), commit(1, 9), begin(3), commit(3, 9)],
            "not after the position",
        ),
        (
            vec![begin(1), stream::insert(ORDERS, &row)],
            "is not described before its first change",
        ),
        (
            vec![begin(1), stream::truncate(&[ORDERS], 0)],
            "is not described before its first change",
        ),
        (
            vec![begin(1), described(ORDERS), stream::insert(ORDERS, &row[..1])],
            "a row of public.t16390 has 1 columns, the table has 2",
        ),
        (
            vec![
                begin(1),
                described(ORDERS),
                stream::update(ORDERS, Some((b'K', &row[..1])), &row),
            ],
            "a row of public.t16390 has 1 columns, the table has 2",
        ),
        (vec![begin(1), b"S".to_vec()], "cannot be read"),
        (vec![begin(1), Vec::new()], "cannot be read"),
        (vec![begin(1)], "inside of a transaction"),
    ];
    for (messages, what) in refused {
        let error = written(&messages).unwrap_err().to_string();
        assert!(error.contains(what), "{what}: {error}");
    }
    // A transaction that ended at the beginning is in the file before.
    let before = [
        stream::begin(FROM - 1, stream::NOON, 1),
        stream::commit(FROM - 1, FROM, stream::NOON),
    ];
    let error = written(&before).unwrap_err().to_string();
    assert!(error.contains("not after the position"), "{error}");
    let mut writer = Writer::new(&HEAD, 3).unwrap();
    for message in [begin(1), commit(1, 9)] {
        writer.push(&message).unwrap();
    }
    let error = writer.finish(Lsn(FROM + 8)).unwrap_err().to_string();
    assert!(error.contains("before its last transaction"), "{error}");
}

/// The seeds of the fuzz target: whole files, and the messages of one.
#[test]
fn the_corpus_has_whole_files_and_messages() {
    let mut made = Transactions::after(FROM);
    let row = [Some("1"), None];
    made.add([
        described(ORDERS),
        stream::insert(ORDERS, &row),
        stream::update(ORDERS, Some((b'K', &row)), &row),
    ]);
    made.messages
        .push(stream::logical(false, made.position, "between", b"x"));
    made.add([
        described(ITEMS),
        stream::truncate(&[ORDERS, ITEMS], 1),
        stream::delete(ITEMS, b'O', &row),
    ]);
    made.add([stream::origin(1, "o"), stream::described_type(17_000, "public", "mood")]);
    let (file, _) = written(&made.messages).unwrap();
    let (idle, _) = written(&[]).unwrap();
    let mut lying = file.clone();
    let at = lying.len() - 20;
    lying[at] ^= 1;
    let seeds = [
        ("whole", file),
        ("idle", idle),
        ("index-that-lies", lying),
        ("messages", raw(&made.messages)),
        (
            "description-of-32767-columns",
            raw(&[b"R\0\0\0\x01a\0b\0d\x7f\xff".to_vec()]),
        ),
    ];
    for (name, bytes) in seeds {
        let path = format!("{}/fuzz/corpus/changes/{name}", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("PGSTOW_WRITE_CORPUS").is_some() {
            std::fs::write(&path, bytes).unwrap();
        } else {
            let stored = std::fs::read(&path).unwrap_or_default();
            assert!(stored == bytes, "{path}: write it anew with PGSTOW_WRITE_CORPUS=1");
        }
    }
}

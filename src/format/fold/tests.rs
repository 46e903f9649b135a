//! The fold against a naive model: a list of rows, changed one by one.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::format::pgoutput::Value;

/// One row as the table has it: a key, a small value, and a large one that updates leave out if they do not touch it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    key: [u8; 2],
    small: Option<u8>,
    large: u8,
}

const LARGE: usize = 300;

impl Row {
    fn values(&self) -> [Vec<u8>; 3] {
        // Bytes that COPY escapes are among them.
        let key = [self.key[0], b'\\', self.key[1], b'\t'];
        let small = self.small.map_or(Vec::new(), |small| vec![small]);
        [key.to_vec(), small, vec![self.large; LARGE]]
    }

    fn line(&self) -> Vec<u8> {
        let values = self.values();
        let mut line = Vec::new();
        text::write(self.given(&values, false).into_iter(), &mut line);
        line
    }

    fn given<'a>(&self, values: &'a [Vec<u8>; 3], leaves_out: bool) -> [Value<'a>; 3] {
        [
            Value::Text(&values[0]),
            self.small.map_or(Value::Null, |_| Value::Text(&values[1])),
            if leaves_out {
                Value::Unchanged
            } else {
                Value::Text(&values[2])
            },
        ]
    }
}

#[derive(Debug, Clone)]
enum Change {
    Insert(Row),
    /// Of the row with this number among those that are there: another key, value, large value.
    Update(usize, Option<[u8; 2]>, Option<u8>, Option<u8>),
    Delete(usize),
    Truncate,
}

fn row() -> impl Strategy<Value = Row> {
    (prop::array::uniform2(b'a'..b'e'), any::<Option<bool>>(), 0_u8..4).prop_map(|(key, small, large)| Row {
        key,
        small: small.map(|small| if small { b'\n' } else { b'x' }),
        large: b'A' + large,
    })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => row().prop_map(Change::Insert),
        8 => (any::<usize>(), any::<Option<[u8; 2]>>(), any::<Option<u8>>(), prop::option::of(b'A'..b'E')).prop_map(
            |(which, key, small, large)| {
                let key = key.map(|key| key.map(|byte| b'a' + byte % 4));
                Change::Update(which, key, small.map(|small| b'p' + small % 4), large)
            }
        ),
        5 => any::<usize>().prop_map(Change::Delete),
        1 => Just(Change::Truncate),
    ]
}

/// Applies the changes to the model and to the fold, and compares what comes out.
fn agrees(key: &RowKey, base: &[Row], changes: &[Change], budget: u64) -> Result<u64, TestCaseError> {
    let unique = *key != RowKey::Whole;
    let mut rows: Vec<Row> = Vec::new();
    for row in base {
        if !unique || !rows.iter().any(|other| other.key == row.key) {
            rows.push(row.clone());
        }
    }
    let base = rows.clone();
    let memory = Arc::new(Memory::new(budget, tempfile::tempfile));
    let mut net = Net::new(3, key.clone(), Arc::clone(&memory));
    for change in changes {
        apply(&mut net, &mut rows, change, unique).map_err(|error| TestCaseError::fail(error.to_string()))?;
    }
    let expected = net.rows_after(base.len() as u64);
    prop_assert_eq!(expected, Some(rows.len() as u64));
    let net = Arc::new(net);
    // A table may be read more than once.
    for _ in 0..2 {
        let (text, written) = rewritten(&net, &base).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(counted(text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec)), {
            counted(rows.iter().map(Row::line).chain([Vec::new()]))
        });
        prop_assert_eq!(written, rows.len() as u64);
    }
    Ok(memory.spilled())
}

fn counted(lines: impl Iterator<Item = Vec<u8>>) -> BTreeMap<Vec<u8>, usize> {
    let mut counted = BTreeMap::new();
    lines.for_each(|line| *counted.entry(line).or_default() += 1);
    counted
}

fn rewritten(net: &Arc<Net>, base: &[Row]) -> Result<(Vec<u8>, u64), FoldError> {
    let mut rewriter = Rewriter::new(Arc::clone(net));
    let mut out = Vec::new();
    for row in base {
        rewriter.row(&row.line(), &mut out)?;
    }
    let mut rest = Vec::new();
    let written = rewriter.finish::<FoldError>(&mut rest, |_| Ok(()))?;
    out.append(&mut rest);
    Ok((out, written))
}

fn apply(net: &mut Net, rows: &mut Vec<Row>, change: &Change, unique: bool) -> Result<(), FoldError> {
    let full = net.row_key() == RowKey::Whole;
    let taken = |rows: &[Row], key: [u8; 2]| unique && rows.iter().any(|row| row.key == key);
    match change {
        Change::Insert(row) => {
            if !taken(rows, row.key) {
                rows.push(row.clone());
                net.insert(row.given(&row.values(), false).into_iter())?;
            }
        }
        Change::Update(which, key, small, large) if !rows.is_empty() => {
            let at = which % rows.len();
            let before = rows[at].clone();
            let key = key.filter(|key| !taken(rows, *key)).unwrap_or(before.key);
            let after = Row {
                key,
                small: *small,
                large: large.unwrap_or(before.large),
            };
            rows[at] = after.clone();
            let values = before.values();
            let old = match full {
                true => before.given(&values, false),
                false => [Value::Text(&values[0]), Value::Null, Value::Null],
            };
            let old = (full || after.key != before.key).then_some(old.into_iter());
            net.update(old, after.given(&after.values(), large.is_none()).into_iter())?;
        }
        Change::Delete(which) if !rows.is_empty() => {
            let gone = rows.swap_remove(which % rows.len());
            let values = gone.values();
            let old = match full {
                true => gone.given(&values, false),
                false => [Value::Text(&values[0]), Value::Null, Value::Null],
            };
            net.delete(old.into_iter())?;
        }
        Change::Truncate => {
            rows.clear();
            net.truncate();
        }
        Change::Update(..) | Change::Delete(_) => {}
    }
    Ok(())
}

const ROOMY: u64 = 1 << 30;

proptest! {
    #[test]
    fn rows_with_a_key_become_those_of_the_moment(
        base in prop::collection::vec(row(), 0..12), changes in prop::collection::vec(change(), 0..40),
    ) {
        agrees(&RowKey::Columns(vec![0]), &base, &changes, ROOMY)?;
    }

    #[test]
    fn rows_that_are_known_as_a_whole_become_those_of_the_moment(
        base in prop::collection::vec(row(), 0..12), changes in prop::collection::vec(change(), 0..40),
    ) {
        agrees(&RowKey::Whole, &base, &changes, ROOMY)?;
    }

    #[test]
    fn rows_that_do_not_fit_into_memory_are_the_same(
        base in prop::collection::vec(row(), 0..12), changes in prop::collection::vec(change(), 0..40),
    ) {
        // The keys of 16 rows fit; of the rows, a few.
        agrees(&RowKey::Columns(vec![0]), &base, &changes, 6000)?;
        agrees(&RowKey::Whole, &base, &changes, 12_000)?;
    }
}

#[test]
fn rows_are_in_the_file_once_their_half_of_the_memory_is_full() {
    let rows: Vec<Row> = (b'a'..=b'y')
        .map(|key| Row {
            key: [key, b'a'],
            small: None,
            large: b'A',
        })
        .collect();
    let changes: Vec<Change> = rows.iter().cloned().map(Change::Insert).collect();
    let spilled = agrees(&RowKey::Columns(vec![0]), &[], &changes, 7000).unwrap();
    assert!(spilled > 4 * LARGE as u64, "{spilled}");
    assert_eq!(agrees(&RowKey::Columns(vec![0]), &[], &changes, ROOMY).unwrap(), 0);
    let error = agrees(&RowKey::Columns(vec![0]), &[], &changes, 1000).unwrap_err();
    assert!(
        error.to_string().contains("the keys of the changed rows need more"),
        "{error}"
    );
}

fn texts(values: &[&'static str]) -> std::vec::IntoIter<Value<'static>> {
    let value = |text: &&'static str| match *text {
        "null" => Value::Null,
        "same" => Value::Unchanged,
        text => Value::Text(text.as_bytes()),
    };
    values.iter().map(value).collect::<Vec<_>>().into_iter()
}

fn of_key() -> Net {
    Net::new(
        2,
        RowKey::Columns(vec![0]),
        Arc::new(Memory::new(ROOMY, tempfile::tempfile)),
    )
}

fn run(net: Net, base: &[&str]) -> Result<String, FoldError> {
    let mut rewriter = Rewriter::new(Arc::new(net));
    let mut out = Vec::new();
    for line in base {
        rewriter.row(line.as_bytes(), &mut out)?;
    }
    rewriter.finish::<FoldError>(&mut out, |_| Ok(()))?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn a_large_key_that_did_not_change_is_taken_from_the_old_row() {
    let mut net = of_key();
    net.update(Some(texts(&["long key", "null"])), texts(&["same", "new"]))
        .unwrap();
    assert_eq!(
        run(net, &["long key\told", "other\tx"]).unwrap(),
        "long key\tnew\nother\tx\n"
    );
    let mut net = of_key();
    let error = net.update(None::<std::vec::IntoIter<Value<'_>>>, texts(&["same", "new"]));
    assert!(matches!(error, Err(FoldError::Changes(_))));
}

#[test]
fn a_key_that_goes_there_and_back_is_the_same_row() {
    let mut net = of_key();
    net.update(Some(texts(&["1", "null"])), texts(&["2", "same"])).unwrap();
    net.update(Some(texts(&["3", "null"])), texts(&["1", "c"])).unwrap();
    net.update(Some(texts(&["1", "null"])), texts(&["3", "same"])).unwrap();
    net.update(Some(texts(&["2", "null"])), texts(&["1", "same"])).unwrap();
    assert_eq!(run(net, &["1\ta", "3\tb"]).unwrap(), "1\ta\n3\tc\n");
}

#[test]
fn changes_that_do_not_fit_the_base_are_refused() {
    let refused = |change: fn(&mut Net) -> Result<(), FoldError>, base: &[&str], what: &str| {
        let mut net = of_key();
        let error = change(&mut net).and_then(|()| run(net, base).map(drop)).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    };
    refused(
        |net| net.delete(texts(&["1", "null"])),
        &["2\tb"],
        "1 of the changed rows",
    );
    refused(
        |net| net.insert(texts(&["1", "a"])),
        &["1\tb"],
        "is in the backup already",
    );
    refused(
        |net| net.delete(texts(&["1", "null"])),
        &["1\ta", "1\tb"],
        "the same key",
    );
    refused(|net| net.delete(texts(&["1", "null"])), &[""], "not in it");
    refused(|net| net.insert(texts(&["1"])), &[], "a row of 1 columns");
    refused(|net| net.insert(texts(&["1", "same"])), &[], "lacks a value");
    let twice = |net: &mut Net| {
        net.delete(texts(&["1", "null"]))?;
        net.delete(texts(&["1", "null"]))
    };
    refused(twice, &["1\ta"], "removed before");
    let two = |net: &mut Net| {
        net.insert(texts(&["1", "a"]))?;
        net.insert(texts(&["1", "b"]))
    };
    refused(two, &[], "given to another row");
}

#[test]
fn a_table_without_identity_gets_rows_and_is_emptied() {
    let mut net = Net::new(1, RowKey::Nothing, Arc::new(Memory::new(ROOMY, tempfile::tempfile)));
    net.insert(texts(&["a"])).unwrap();
    net.truncate();
    net.insert(texts(&["b"])).unwrap();
    net.insert(texts(&["b"])).unwrap();
    assert_eq!(net.rows_after(7), Some(2));
    assert!(matches!(net.delete(texts(&["b"])), Err(FoldError::Changes(_))));
    assert_eq!(run(net, &["old"]).unwrap(), "b\nb\n");
}

#[test]
fn a_queue_whose_rows_come_and_go_takes_no_more_memory() {
    let memory = Arc::new(Memory::new(4096, tempfile::tempfile));
    for key in [RowKey::Columns(vec![0]), RowKey::Whole] {
        let mut net = Net::new(2, key, Arc::clone(&memory));
        for number in 0..1000 {
            let text = number.to_string();
            let row = || [Value::Text(text.as_bytes()), Value::Text(b"x")].into_iter();
            net.insert(row()).unwrap();
            net.delete(row()).unwrap();
        }
        assert_eq!(net.rows_after(5), Some(5));
    }
    assert_eq!(memory.spilled(), 0);
}

//! How fast changes become their net effect, and how fast a table's rows are rewritten with it, in one thread:
//! `cargo bench --bench fold`. It measures the thread's own time, so other work on the machine does not count.

#![allow(clippy::print_stdout)]

#[allow(dead_code, clippy::unwrap_used)]
#[path = "../tests/suite/support/stream.rs"]
mod stream;

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use pgstow::format::Lsn;
use pgstow::format::changes::{Head, Index, Reader, Selection, Writer};
use pgstow::format::fold::{Base, Fold, Memory, Rewriter};
use rustix::time::{ClockId, clock_gettime};
use stream::{Transactions, delete, insert, relation, update};

/// Rows of the base, and transactions of 150 changes.
const ROWS: u32 = 1_000_000;
const TRANSACTIONS: u32 = 8_000;
const RELID: u32 = 16_384;

fn pad(id: u32) -> String {
    format!("{id:032x}").repeat(8)
}

/// 100 updates, 30 inserts and 20 deletes in each transaction.
fn transactions() -> Transactions {
    let mut transactions = Transactions::after(0x1000);
    let mut seed = 1_u32;
    for number in 1..=TRANSACTIONS {
        let mut changes = Vec::new();
        if number == 1 {
            changes.push(relation(RELID, "public", "t", b'd', 1, &["id", "k", "pad"]));
        }
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let first = seed % (ROWS / 2 - 100);
        for id in first..first + 100 {
            let row = [id.to_string(), number.to_string(), pad(id)];
            changes.push(update(RELID, None, &row.each_ref().map(|text| Some(text.as_str()))));
        }
        for id in 0..30 {
            let row = [(2 * ROWS + number * 30 + id).to_string(), "0".to_owned(), pad(id)];
            changes.push(insert(RELID, &row.each_ref().map(|text| Some(text.as_str()))));
        }
        let gone = ROWS / 2 + (number * 20) % (ROWS / 2);
        changes.extend((gone..gone + 20).map(|id| delete(RELID, b'K', &[Some(&id.to_string()), None, None])));
        transactions.add(changes);
    }
    transactions
}

fn changes() -> Result<(Vec<u8>, Index), Box<dyn Error>> {
    let head = Head {
        system_identifier: 1,
        timeline: 1,
        database_oid: 1,
        from: Lsn(0),
    };
    let mut writer = Writer::new(&head, 3)?;
    let mut file = Vec::new();
    let transactions = transactions();
    for message in &transactions.messages {
        file.extend(writer.push(message)?.unwrap_or_default());
    }
    let (rest, summary) = writer.finish(Lsn(transactions.position))?;
    file.extend(rest);
    let index = Index::parse(&file[usize::try_from(summary.index.offset)?..], file.len() as u64)?;
    Ok((file, index))
}

fn seconds_of_thread() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn measured(what: &str, file: &[u8], index: &Arc<Index>, budget: u64, base: &[u8]) -> Result<(), Box<dyn Error>> {
    let memory = Arc::new(Memory::new(budget, tempfile::tempfile));
    let columns = Some([&b"id"[..], b"k", b"pad"].map(<[u8]>::to_vec).to_vec());
    let bases = BTreeMap::from([(
        RELID,
        Base {
            columns,
            ..Base::default()
        },
    )]);
    let mut fold = Fold::new(bases, None, Arc::clone(&memory));
    let began = seconds_of_thread();
    let mut reader = Reader::new(&file[Head::LENGTH..], Lsn(0), Arc::clone(index), Selection::default())?;
    while let Some(item) = reader.next()? {
        if !fold.take(&item)? {
            break;
        }
    }
    let seconds = seconds_of_thread() - began;
    let count = fold.changes() as f64;
    println!(
        "{what:<28} {:>10.0} changes/s, {} MB in the file",
        count / seconds,
        memory.spilled() >> 20
    );
    let mut changed = fold.finish();
    let Some(table) = changed.remove(&RELID) else {
        return Ok(());
    };
    let mut rewriter = Rewriter::new(table.net);
    let began = seconds_of_thread();
    let mut out = Vec::new();
    for line in base.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        rewriter.row(line, &mut out)?;
        if out.len() > 1 << 20 {
            out.clear();
        }
    }
    let rows = rewriter.finish::<pgstow::format::fold::FoldError>(&mut out, |out| {
        out.clear();
        Ok(())
    })?;
    let seconds = seconds_of_thread() - began;
    println!(
        "{what:<28} {:>10.0} rows/s rewritten, {rows} rows",
        f64::from(ROWS) / seconds
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let base: String = (0..ROWS)
        .map(|id| format!("{id}\t{}\t{}\n", id % 1000, pad(id)))
        .collect();
    let (file, index) = changes()?;
    let index = Arc::new(index);
    measured("in memory", &file, &index, 4 << 30, base.as_bytes())?;
    measured("with rows in a file", &file, &index, 232 << 20, base.as_bytes())
}

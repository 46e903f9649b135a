//! How fast changes become their net effect, and how fast a table's rows are rewritten with it, in one thread:
//! `cargo bench --bench fold`.

#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use pgstow::format::Lsn;
use pgstow::format::changes::{Head, Index, Reader, Selection, Writer};
use pgstow::format::fold::{Base, Fold, Memory, Rewriter};
use pgstow::format::pgoutput::microseconds_of;

/// Rows of the base, and transactions of 150 changes.
const ROWS: u32 = 1_000_000;
const TRANSACTIONS: u32 = 8_000;
const RELID: u32 = 16_384;

fn begin(xid: u32) -> Vec<u8> {
    let mut message = vec![b'B'];
    message.extend_from_slice(&(u64::from(xid) * 1000).to_be_bytes());
    message.extend_from_slice(&microseconds_of(Timestamp::UNIX_EPOCH).to_be_bytes());
    message.extend_from_slice(&xid.to_be_bytes());
    message
}

fn commit(xid: u32) -> Vec<u8> {
    let lsn = u64::from(xid) * 1000;
    let mut message = vec![b'C', 0];
    message.extend_from_slice(&lsn.to_be_bytes());
    message.extend_from_slice(&(lsn + 48).to_be_bytes());
    message.extend_from_slice(&microseconds_of(Timestamp::UNIX_EPOCH).to_be_bytes());
    message
}

fn relation() -> Vec<u8> {
    let mut message = vec![b'R'];
    message.extend_from_slice(&RELID.to_be_bytes());
    message.extend_from_slice(b"public\0t\0d");
    message.extend_from_slice(&3_u16.to_be_bytes());
    for (flags, name, type_oid) in [(1_u8, "id", 23_u32), (0, "k", 23), (0, "pad", 25)] {
        message.push(flags);
        message.extend_from_slice(name.as_bytes());
        message.push(0);
        message.extend_from_slice(&type_oid.to_be_bytes());
        message.extend_from_slice(&(-1_i32).to_be_bytes());
    }
    message
}

fn tuple(kind: u8, values: &[Option<&str>], message: &mut Vec<u8>) {
    message.push(kind);
    message.extend_from_slice(&(values.len() as u16).to_be_bytes());
    for value in values {
        match value {
            None => message.push(b'n'),
            Some(text) => {
                message.push(b't');
                message.extend_from_slice(&(text.len() as u32).to_be_bytes());
                message.extend_from_slice(text.as_bytes());
            }
        }
    }
}

fn change(kind: u8) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend_from_slice(&RELID.to_be_bytes());
    message
}

fn pad(id: u32) -> String {
    format!("{id:032x}").repeat(8)
}

/// 100 updates, 30 inserts and 20 deletes in each transaction.
fn changes() -> Result<(Vec<u8>, Index), Box<dyn Error>> {
    let head = Head {
        system_identifier: 1,
        timeline: 1,
        database_oid: 1,
        from: Lsn(0),
    };
    let mut writer = Writer::new(&head, 3)?;
    let mut file = Vec::new();
    let mut push = |writer: &mut Writer, message: &[u8]| -> Result<(), Box<dyn Error>> {
        file.extend(writer.push(message)?.unwrap_or_default());
        Ok(())
    };
    let mut seed = 1_u32;
    for number in 1..=TRANSACTIONS {
        push(&mut writer, &begin(number))?;
        if number == 1 {
            push(&mut writer, &relation())?;
        }
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let first = seed % (ROWS / 2 - 100);
        for id in first..first + 100 {
            let mut message = change(b'U');
            tuple(b'N', &[Some(&id.to_string()), Some(&number.to_string()), Some(&pad(id))], &mut message);
            push(&mut writer, &message)?;
        }
        for id in 0..30 {
            let id = 2 * ROWS + number * 30 + id;
            let mut message = change(b'I');
            tuple(b'N', &[Some(&id.to_string()), Some("0"), Some(&pad(id))], &mut message);
            push(&mut writer, &message)?;
        }
        let gone = ROWS / 2 + (number * 20) % (ROWS / 2);
        for id in gone..gone + 20 {
            let mut message = change(b'D');
            tuple(b'K', &[Some(&id.to_string()), None, None], &mut message);
            push(&mut writer, &message)?;
        }
        push(&mut writer, &commit(number))?;
    }
    let (rest, summary) = writer.finish(Lsn(u64::from(TRANSACTIONS + 1) * 1000))?;
    file.extend(rest);
    let index = Index::parse(&file[summary.index.offset as usize..], file.len() as u64)?;
    Ok((file, index))
}

fn measured(what: &str, file: &[u8], index: &Arc<Index>, budget: u64, base: &[u8]) -> Result<(), Box<dyn Error>> {
    let memory = Arc::new(Memory::new(budget, tempfile::tempfile));
    let columns = Some([&b"id"[..], b"k", b"pad"].map(<[u8]>::to_vec).to_vec());
    let bases = BTreeMap::from([(RELID, Base { columns, ..Base::default() })]);
    let mut fold = Fold::new(bases, None, Arc::clone(&memory));
    let began = Instant::now();
    let mut reader = Reader::new(&file[Head::LENGTH..], Lsn(0), Arc::clone(index), Selection::default())?;
    while let Some(item) = reader.next()? {
        if !fold.take(&item)? {
            break;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let count = fold.changes() as f64;
    println!("{what:<28} {:>10.0} changes/s, {} MB in the file", count / seconds, memory.spilled() >> 20);
    let mut changed = fold.finish();
    let Some(table) = changed.remove(&RELID) else { return Ok(()) };
    let mut rewriter = Rewriter::new(table.net);
    let began = Instant::now();
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
    let seconds = began.elapsed().as_secs_f64();
    println!("{what:<28} {:>10.0} rows/s rewritten, {rows} rows", f64::from(ROWS) / seconds);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let base: String = (0..ROWS).map(|id| format!("{id}\t{}\t{}\n", id % 1000, pad(id))).collect();
    let (file, index) = changes()?;
    let index = Arc::new(index);
    measured("in memory", &file, &index, 4 << 30, base.as_bytes())?;
    measured("with rows in a file", &file, &index, 232 << 20, base.as_bytes())
}

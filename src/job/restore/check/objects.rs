//! Large objects, read again by a session of ours: the length and the SHA-256 of each, which the manifest's digest is
//! made of.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::super::Job;
use super::super::plan;
use super::super::ready::some_of;
use super::super::rows::{self, BackupRows};
use super::{Verdict, unread};
use crate::error::{Code, Error, Result};
use crate::format::archive::{ArchiveError, BlockCheck, BlockContent, BlockDigest, BlockSink, Blocks, Unpack};
use crate::postgres::{Refusal, Row, StallClock, Wire};
use crate::run::threads::apart;

/// How many objects one statement asks for.
const AT_ONCE: usize = 500;
/// The server digests an object of up to this many bytes as a whole; a longer one is read in pieces of this size.
const WHOLE: u64 = 4 << 20;
/// How many bytes the server may have to digest before it answers.
const BEFORE_AN_ANSWER: u64 = 32 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Content {
    bytes: u64,
    sha256: [u8; 32],
}

/// Compares the objects of all these blocks.
pub(super) async fn compare(
    job: &Job<'_>,
    backup: BackupRows<'_>,
    wire: &mut Wire,
    blocks: &[usize],
) -> Result<Verdict> {
    let (mut others, mut not_read) = (Vec::new(), None);
    let mut number = 0;
    for &index in blocks {
        let promise = &backup.stored.promises[index];
        if let BlockContent::LargeObjects { count } = promise.content {
            number += count;
        }
        match of_block(job, backup, wire, index).await? {
            Ok(found) => others.extend(found),
            // The differences are reported all the same.
            Err(refusal) => {
                not_read.get_or_insert(unread(refusal)?);
            }
        }
    }
    if others.is_empty() {
        return Ok(not_read.unwrap_or(Verdict::Equal));
    }
    let differ = others.len();
    let named = some_of(&others, differ as u64);
    Ok(Verdict::Different(format!("differs in {differ} of {number}: {named}")))
}

/// The objects of one block that differ in the target, in words.
async fn of_block(
    job: &Job<'_>,
    backup: BackupRows<'_>,
    wire: &mut Wire,
    index: usize,
) -> Result<std::result::Result<Vec<String>, Refusal>> {
    let stall = job.settings.postgres.stall;
    let numbers = numbers(backup, index);
    let found = match there(wire, &numbers, stall).await {
        Ok(found) => found,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if digest(&numbers, &found).as_ref() == Some(&backup.stored.promises[index]) {
        return Ok(Ok(Vec::new()));
    }
    // The backup's own objects show which.
    let ours = ours(job, backup, index).await?;
    let numbers: Vec<u32> = ours.iter().map(|(number, _)| *number).collect();
    let found = match there(wire, &numbers, stall).await {
        Ok(found) => found,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let pairs = ours.iter().zip(found);
    let others = pairs.filter_map(|((number, ours), there)| match there {
        Some(there) if there == *ours => None,
        Some(there) if there.bytes == ours.bytes => Some(format!("{number} (as many bytes, and other ones)")),
        Some(there) => Some(format!(
            "{number} ({} bytes, in the backup {})",
            there.bytes, ours.bytes
        )),
        None => Some(format!("{number} (it is not there)")),
    });
    Ok(Ok(others.collect()))
}

/// The objects that a block holds, from the table of contents: those of its group, or before PostgreSQL 17 all of
/// them.
fn numbers(backup: BackupRows<'_>, index: usize) -> Vec<u32> {
    let entry = backup.stored.head.data[index].dump_id;
    let item = backup.items.iter().find(|item| item.entry.dump_id == entry);
    let group: HashSet<i64> = item
        .iter()
        .flat_map(|item| item.details.dependencies.iter().copied())
        .collect();
    let of_group = plan::large_objects(backup.items, &group);
    if !of_group.is_empty() {
        return of_group;
    }
    let all = backup.items.iter().map(|item| item.entry.dump_id).collect();
    let mut numbers = plan::large_objects(backup.items, &all);
    numbers.sort_unstable();
    numbers
}

/// The digest as in the manifest; `None` if an object is missing.
fn digest(numbers: &[u32], found: &[Option<Content>]) -> Option<BlockDigest> {
    let (mut lines, mut bytes) = (Sha256::new(), 0);
    for (number, content) in numbers.iter().zip(found) {
        let content = (*content)?;
        bytes += content.bytes;
        lines.update(format!("{number} {} {}\n", content.bytes, hex::encode(content.sha256)));
    }
    Some(BlockDigest {
        content: BlockContent::LargeObjects {
            count: numbers.len() as u64,
        },
        bytes,
        sha256: lines.finalize().into(),
    })
}

/// What the target holds of these objects, in their order; `None` for one that is missing.
async fn there(
    wire: &mut Wire,
    numbers: &[u32],
    stall: Duration,
) -> std::result::Result<Vec<Option<Content>>, Refusal> {
    let mut found = Vec::with_capacity(numbers.len());
    for numbers in numbers.chunks(AT_ONCE) {
        let lengths = lengths(wire, numbers, stall).await?;
        let mut contents: HashMap<u32, Content> = HashMap::new();
        let (mut together, mut due) = (Vec::new(), 0);
        for &number in numbers {
            let Some(&bytes) = lengths.get(&number) else { continue };
            if bytes > WHOLE {
                let sha256 = in_pieces(wire, number, bytes, stall).await?;
                contents.insert(number, Content { bytes, sha256 });
                continue;
            }
            together.push(number);
            due += bytes;
            if due >= BEFORE_AN_ANSWER {
                contents.extend(wholes(wire, &together, &lengths, stall).await?);
                together.clear();
                due = 0;
            }
        }
        contents.extend(wholes(wire, &together, &lengths, stall).await?);
        found.extend(numbers.iter().map(|number| contents.get(number).copied()));
    }
    Ok(found)
}

/// Fails if the server does not answer for `stall`.
async fn asked(wire: &mut Wire, question: &str, stall: Duration) -> std::result::Result<Vec<Row>, Refusal> {
    let clock = StallClock::default();
    clock.begin();
    tokio::select! {
        biased;
        rows = wire.query(question.as_bytes()) => rows,
        () = clock.watch(stall) => {
            let what = format!("the server has given no byte of the large objects for {} s", stall.as_secs());
            Err(Error::new(Code::Stalled, what).into())
        }
    }
}

fn list(numbers: &[u32]) -> String {
    let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
    numbers.join(",")
}

/// The lengths of the objects that exist.
async fn lengths(wire: &mut Wire, numbers: &[u32], stall: Duration) -> std::result::Result<HashMap<u32, u64>, Refusal> {
    // 262144 opens for reading, 2 seeks the end.
    let question = format!(
        "SELECT o.number, pg_catalog.lo_lseek64(pg_catalog.lo_open(m.oid, 262144), 0, 2)
           FROM pg_catalog.unnest('{{{}}}'::pg_catalog.oid[]) AS o (number)
           JOIN pg_catalog.pg_largeobject_metadata m ON m.oid OPERATOR(pg_catalog.=) o.number",
        list(numbers)
    );
    let rows = asked(wire, &question, stall).await?;
    Ok(rows
        .iter()
        .filter_map(|row| Some((row.number(0)?, row.number(1)?)))
        .collect())
}

async fn wholes(
    wire: &mut Wire,
    numbers: &[u32],
    lengths: &HashMap<u32, u64>,
    stall: Duration,
) -> std::result::Result<Vec<(u32, Content)>, Refusal> {
    if numbers.is_empty() {
        return Ok(Vec::new());
    }
    let question = format!(
        "SELECT o.number, pg_catalog.encode(pg_catalog.sha256(pg_catalog.lo_get(o.number)), 'hex')
           FROM pg_catalog.unnest('{{{}}}'::pg_catalog.oid[]) AS o (number)",
        list(numbers)
    );
    let rows = asked(wire, &question, stall).await?;
    let content = |row: &Row| {
        let number: u32 = row.number(0)?;
        let mut sha256 = [0; 32];
        hex::decode_to_slice(row.bytes(1)?, &mut sha256).ok()?;
        let bytes = *lengths.get(&number)?;
        Some((number, Content { bytes, sha256 }))
    };
    Ok(rows.iter().filter_map(content).collect())
}

async fn in_pieces(
    wire: &mut Wire,
    number: u32,
    bytes: u64,
    stall: Duration,
) -> std::result::Result<[u8; 32], Refusal> {
    let mut sha256 = Sha256::new();
    let mut at = 0;
    while at < bytes {
        let question = format!(
            "SELECT pg_catalog.encode(pg_catalog.lo_get('{number}'::pg_catalog.oid, '{at}'::pg_catalog.int8, {WHOLE}), 'hex')"
        );
        let rows = asked(wire, &question, stall).await?;
        let piece = rows.first().and_then(|row| row.bytes(0));
        let piece = piece.and_then(|piece| hex::decode(piece).ok()).unwrap_or_default();
        sha256.update(&piece);
        at += WHOLE;
    }
    Ok(sha256.finalize().into())
}

/// The backup's own objects, read once more.
async fn ours(job: &Job<'_>, backup: BackupRows<'_>, index: usize) -> Result<Vec<(u32, Content)>> {
    let stored = Arc::clone(backup.stored);
    let observer = Arc::clone(job.observer);
    let place = stored.places[index].range();
    let reading = stored.stored(backup.store).read(place.clone());
    let read = apart("read", move || {
        observer.bytes_read(place.end - place.start);
        let sink = BlockCheck::new(&stored.promises, Objects::default());
        let mut sink = Unpack::new(stored.head.compression, sink);
        Blocks::new(reading, place.start).read(&stored.head, index, &place, &mut sink)?;
        Ok(std::mem::take(&mut sink.inner().inner().found))
    });
    let read: std::result::Result<_, ArchiveError> = read.await?;
    read.map_err(|error| rows::unread(backup.stored, index, error))
}

/// Takes the objects of a block while it is read.
#[derive(Default)]
struct Objects {
    found: Vec<(u32, Content)>,
    open: Option<(u32, u64, Sha256)>,
}

impl BlockSink for Objects {
    fn begin(&mut self, _index: usize) -> Result<(), ArchiveError> {
        Ok(())
    }
    fn begin_object(&mut self, oid: i64) -> Result<(), ArchiveError> {
        // Above 2^31 an OID is read as a negative integer: its low 32 bits are right.
        self.open = Some((oid as u32, 0, Sha256::new()));
        Ok(())
    }
    fn data(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        if let Some((_, count, sha256)) = &mut self.open {
            *count += bytes.len() as u64;
            sha256.update(bytes);
        }
        Ok(())
    }
    fn end_object(&mut self) -> Result<(), ArchiveError> {
        if let Some((number, bytes, sha256)) = self.open.take() {
            let sha256 = sha256.finalize().into();
            self.found.push((number, Content { bytes, sha256 }));
        }
        Ok(())
    }
    fn end(&mut self, _at: u64) -> Result<(), ArchiveError> {
        Ok(())
    }
}

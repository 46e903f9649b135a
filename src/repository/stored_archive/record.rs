//! What the manifest says of one block, and whether the table of contents says the same.

use crate::format::archive::{BlockContent, BlockDigest, BlockKind, Layout, SealedRange, TocEntry};
use crate::repository::manifest::{FileIndex, FileRange, Manifest, RangeRecord};

pub(super) struct Record {
    pub(super) place: FileRange,
    pub(super) promise: BlockDigest,
    pub(super) ranges: Vec<SealedRange>,
    pub(super) table: Option<(String, String)>,
    owner: Option<String>,
}

impl Record {
    /// Gives the block, and its ranges, another place.
    pub(super) fn move_to(&mut self, file: FileIndex, offset: u64) {
        let before = self.place.offset;
        for range in &mut self.ranges {
            range.offset = range.offset.saturating_sub(before).saturating_add(offset);
        }
        self.place.file = file;
        self.place.offset = offset;
    }

    /// Whether the manifest and the table of contents describe the same block.
    pub(super) fn agrees(&self, entry: &TocEntry, utf8: bool) -> std::result::Result<(), String> {
        let position = self.place.offset;
        let kind = match self.promise.content {
            BlockContent::Table { .. } => BlockKind::Table,
            BlockContent::LargeObjects { .. } => BlockKind::LargeObjects,
        };
        if kind != entry.block_kind() {
            return Err(elsewhere(entry, self, position));
        }
        if let Some((schema, name)) = &self.table
            && !(is_named(schema, entry.namespace.as_deref().unwrap_or_default(), utf8)
                && is_named(name, &entry.tag, utf8))
        {
            return Err(format!(
                "the block at {position} is that of {entry}, but the manifest calls it {schema}.{name}"
            ));
        }
        if self.owner.as_ref().is_some_and(|owner| *owner != entry.owner) {
            return Err(format!(
                "the manifest and the table of contents differ on the owner of {entry}"
            ));
        }
        Ok(())
    }
}

pub(super) fn elsewhere(entry: &TocEntry, record: &Record, position: u64) -> String {
    format!(
        "the manifest and the table of contents differ on the place of {entry}: {} and {position}",
        record.place.offset
    )
}

/// Whether a name in the manifest, which came from the server, is the name in the table of contents, which has the
/// database's encoding. If that is not UTF-8, only the ASCII letters can be compared.
pub(crate) fn is_named(manifest: &str, head: &str, utf8: bool) -> bool {
    let ascii = |text: &str| text.chars().filter(char::is_ascii).collect::<String>();
    manifest == head || (!utf8 && ascii(manifest) == ascii(head))
}

/// Whether the ranges, if there are any, hold every chunk and every row of the block exactly once.
pub(super) fn make_up(ranges: &[SealedRange], record: &Record, int_size: usize) -> bool {
    let (Some(last), BlockContent::Table { rows }) = (ranges.last(), &record.promise.content) else {
        return ranges.is_empty();
    };
    let layout = Layout { int_size };
    let mut due = record.place.offset + layout.block_header();
    let (mut found_rows, mut bytes) = (0_u64, 0_u64);
    for range in ranges {
        if range.offset != due || range.length == 0 {
            return false;
        }
        due = range.end();
        found_rows = found_rows.saturating_add(range.rows);
        bytes = bytes.saturating_add(range.bytes);
    }
    last.end().checked_add(layout.terminator()) == Some(record.place.end())
        && found_rows == *rows
        && bytes == record.promise.bytes
}

/// The manifest's records of the blocks, in the archive's order. Large objects without a place belong to a script.
pub(super) fn records(manifest: &Manifest) -> std::result::Result<Vec<Record>, String> {
    let digest = |text: &str| -> std::result::Result<[u8; 32], String> {
        let mut digest = [0; 32];
        hex::decode_to_slice(text, &mut digest).map_err(|_| text.to_owned())?;
        Ok(digest)
    };
    let range = |range: &RangeRecord| -> std::result::Result<SealedRange, String> {
        Ok(SealedRange {
            offset: range.offset,
            length: range.length,
            rows: range.rows,
            bytes: range.bytes,
            stored_sha256: digest(&range.stored_sha256)?,
        })
    };
    let mut records = Vec::with_capacity(manifest.tables.len() + manifest.large_objects.len());
    for table in &manifest.tables {
        records.push(Record {
            place: table.place,
            promise: BlockDigest {
                content: BlockContent::Table { rows: table.rows },
                bytes: table.bytes,
                sha256: digest(&table.sha256)?,
            },
            ranges: table.ranges.iter().map(range).collect::<std::result::Result<_, _>>()?,
            table: Some((table.schema.clone(), table.name.clone())),
            owner: table.owner.clone(),
        });
    }
    for objects in &manifest.large_objects {
        let Some(place) = objects.place else {
            continue;
        };
        records.push(Record {
            place,
            promise: BlockDigest {
                content: BlockContent::LargeObjects { count: objects.count },
                bytes: objects.bytes,
                sha256: digest(&objects.sha256)?,
            },
            ranges: Vec::new(),
            table: None,
            owner: None,
        });
    }
    // A backup that refers to another lists its tables in the archive's order: their places are in two files.
    if manifest.references.is_none() {
        records.sort_by_key(|record| record.place.offset);
    }
    Ok(records)
}

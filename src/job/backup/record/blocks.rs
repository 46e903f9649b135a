//! The contents of the data, as the manifest lists them.

use std::collections::HashMap;

use super::notes::Notes;
use crate::dataflow::pipeline::{Archive, Block, Passed};
use crate::format::archive::{BlockContent, SealedRange, TocEntry};
use crate::format::script::Contents;
use crate::format::script::Refused;
use crate::job::backup::script;
use crate::postgres::{RawTable, TableColumn, TableName};
use crate::repository::manifest::{ColumnRecord, FileIndex, FileRange, LargeObjectsRecord, RangeRecord, ScriptRecord, TableRecord};

#[derive(Default)]
pub(in crate::job) struct Blocks {
    pub script: Option<ScriptRecord>,
    pub tables: Vec<TableRecord>,
    pub large_objects: Vec<LargeObjectsRecord>,
}

impl Blocks {
    pub(super) fn of(
        passed: &Passed,
        (names, columns): (&HashMap<u32, TableName>, &HashMap<u32, Vec<TableColumn>>),
        tables_of_script: &[RawTable],
        notes: &mut Notes,
    ) -> Self {
        let mut blocks = Self::default();
        if let Some(counted) = &passed.script {
            blocks.script(counted, tables_of_script, notes);
        }
        if let Some(archive) = &passed.archive {
            blocks.archive(archive, names);
        }
        for table in &mut blocks.tables {
            let known = table.oid.and_then(|oid| columns.get(&oid));
            table.columns = known.into_iter().flatten().map(column).collect();
        }
        blocks
    }

    /// The contents of a plain script, which pgstow counted while it was written.
    fn script(&mut self, counted: &Result<Contents, Refused>, tables_of_script: &[RawTable], notes: &mut Notes) {
        let contents = match counted {
            Ok(contents) => contents,
            Err(refused) => {
                return notes.warn(format!(
                    "the script {refused}: its tables are not counted, and pgstow will not restore or drill it; psql \
                     can run it"
                ));
            }
        };
        self.script = Some(ScriptRecord {
            bytes: contents.bytes,
            definitions: contents.headers,
        });
        self.tables = script::records(contents, tables_of_script);
        self.large_objects = contents.large_objects.iter().map(script::objects_record).collect();
    }

    pub(in crate::job) fn archive(&mut self, archive: &Archive, names: &HashMap<u32, TableName>) {
        for (entry, block) in archive.head.data.iter().zip(&archive.blocks) {
            match block.digest.content {
                BlockContent::Table { rows } => self.tables.push(table(entry, block, rows, names)),
                BlockContent::LargeObjects { count } => self.large_objects.push(LargeObjectsRecord {
                    dump_id: entry.dump_id,
                    count,
                    bytes: block.digest.bytes,
                    sha256: hex::encode(block.digest.sha256),
                    place: Some(place(block)),
                }),
            }
        }
    }
}

fn column(column: &TableColumn) -> ColumnRecord {
    ColumnRecord {
        name: column.name.clone(),
        type_name: column.type_name.clone(),
        is_generated: column.is_generated,
    }
}

fn table(entry: &TocEntry, block: &Block, rows: u64, names: &HashMap<u32, TableName>) -> TableRecord {
    let (schema, name) = match names.get(&entry.oid) {
        Some(known) => (known.schema.clone(), known.name.clone()),
        None => (entry.namespace.clone().unwrap_or_default(), entry.tag.clone()),
    };
    TableRecord {
        schema,
        name,
        owner: Some(entry.owner.clone()).filter(|owner| !owner.is_empty()),
        oid: Some(entry.oid),
        columns: Vec::new(),
        rows,
        bytes: block.digest.bytes,
        sha256: hex::encode(block.digest.sha256),
        place: place(block),
        read: block.read_by,
        ranges: block.ranges.iter().map(range_record).collect(),
    }
}

fn place(block: &Block) -> FileRange {
    FileRange {
        file: FileIndex::FIRST,
        offset: block.place.offset,
        length: block.place.length,
    }
}

fn range_record(range: &SealedRange) -> RangeRecord {
    RangeRecord {
        rows: range.rows,
        bytes: range.bytes,
        offset: range.offset,
        length: range.length,
        stored_sha256: hex::encode(range.stored_sha256),
    }
}

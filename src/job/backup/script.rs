//! The tables of a plain script, as the manifest lists them.

use std::collections::HashMap;

use crate::dataflow::read_by::ReadBy;
use crate::format::script::{Contents, Header, LargeObjects, Table, TablePath, header_of};
use crate::postgres::RawTable;
use crate::repository::manifest::{FileIndex, FileRange, LargeObjectsRecord, TableRecord};

/// A script has its names in the database's encoding, and in its headers without line breaks. The real names come from
/// the server.
pub(super) fn records(contents: &Contents, known: &[RawTable]) -> Vec<TableRecord> {
    let mut by_target: HashMap<TablePath, &RawTable> = HashMap::new();
    let mut by_header: HashMap<Header, Vec<&RawTable>> = HashMap::new();
    for table in known {
        let target = TablePath {
            schema: table.raw_schema.clone(),
            name: table.raw_name.clone(),
        };
        by_target.insert(target, table);
        let header = header_of(&table.raw_schema, &table.raw_name, &table.raw_owner);
        by_header.entry(header).or_default().push(table);
    }
    let mut named = |table: &Table| match &table.header {
        Some(header) if table.through_root => by_header.get_mut(header).and_then(|tables| match tables.len() {
            // If names differ only in line breaks, the script does not show which table is which; each gets one entry.
            2.. => Some(tables.remove(0)),
            _ => tables.first().copied(),
        }),
        _ => by_target.get(&table.target).copied(),
    };
    contents
        .tables
        .iter()
        .map(|table| record(table, named(table)))
        .collect()
}

fn record(table: &Table, known: Option<&RawTable>) -> TableRecord {
    let (schema, name) = match known {
        Some(known) => (known.schema.clone(), known.name.clone()),
        None => table.name(),
    };
    let owner = match known {
        Some(known) => Some(String::from_utf8_lossy(&known.raw_owner).into_owned()),
        None => table.header.as_ref().and_then(Header::owner),
    };
    TableRecord {
        schema,
        name,
        owner,
        oid: None,
        columns: Vec::new(),
        rows: table.rows(),
        bytes: table.digest.bytes,
        sha256: hex::encode(table.digest.sha256),
        place: FileRange {
            file: FileIndex::FIRST,
            offset: table.offset,
            length: table.digest.bytes,
        },
        read: ReadBy::PgDump,
        ranges: Vec::new(),
    }
}

pub(super) fn objects_record(objects: &LargeObjects) -> LargeObjectsRecord {
    LargeObjectsRecord {
        dump_id: 0,
        count: objects.count(),
        bytes: objects.digest.bytes,
        sha256: hex::encode(objects.digest.sha256),
        place: None,
    }
}

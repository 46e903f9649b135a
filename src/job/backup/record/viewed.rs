//! The record of a run that has its snapshot: what the server says about the database in it.

use std::collections::HashMap;

use super::begun::Begun;
use super::blocks::column;
use crate::dataflow::compress::Codec;
use crate::dataflow::pipeline::EarlierBlocks;
use crate::dataflow::throttle::{Pauses, Throttle};
use crate::error::Result;
use crate::job::backup::nice::ServerWatch;
use crate::job::backup::view::{Opened, View};
use crate::postgres::{RawTable, Snapshot, TableColumn, TableName};
use crate::repository::manifest::{Collation, Extension, Omission, TableRecord};
use crate::store::ObjectInfo;

/// The most emptied tables that the manifest names, as for other kinds; further ones are only counted.
const NAMED_TABLES: usize = 100;

pub(in crate::job::backup) struct Viewed<'a> {
    pub(super) begun: Begun<'a>,
    pub(super) snapshot: Snapshot,
    /// Names of tables whose names in the archive are not UTF-8, by OID.
    pub(super) names: HashMap<u32, TableName>,
    /// The columns of each table, by OID.
    pub(super) columns: HashMap<u32, Vec<TableColumn>>,
    /// `catalog.json`, for the increments that follow.
    pub(super) catalog: Option<Vec<u8>>,
    /// Tables that a plain script may hold, with their names in it.
    pub(super) tables_of_script: Vec<RawTable>,
    /// Streams that read the database at once.
    pub(super) streams: usize,
    pub(super) extensions: Option<Vec<Extension>>,
    pub(super) collations: Option<Vec<Collation>>,
}

impl<'a> Begun<'a> {
    /// Also returns the reader, and an estimate of the bytes that it will read.
    pub(in crate::job::backup) fn viewed(mut self, view: View) -> (Viewed<'a>, Opened, u64) {
        let notes = &mut self.notes;
        notes.warnings.extend(view.notes);
        let mut streams = 1;
        if let Opened::Streams(reading) = &view.reader {
            streams = reading.streams();
            notes.complaints(reading.complaints.clone());
        }
        let why = "emptied or rewritten after the backup's snapshot and before its lock: the backup may have none of its rows";
        let more = view.emptied.len().saturating_sub(NAMED_TABLES);
        let more = (more > 0).then(|| format!("{more} more"));
        let emptied = view.emptied.into_iter().take(NAMED_TABLES).chain(more);
        notes.left_out(emptied.map(|name| Omission {
            kind: "rows".into(),
            name,
            why: why.into(),
        }));
        notes.left_out(view.left_out);
        let viewed = Viewed {
            begun: self,
            snapshot: view.snapshot,
            names: view.names,
            columns: view.columns,
            catalog: view.catalog,
            tables_of_script: view.tables_of_script,
            streams,
            extensions: view.extensions,
            collations: view.collations,
        };
        (viewed, view.reader, view.table_bytes)
    }
}

impl Viewed<'_> {
    /// Whether it may refer to another backup.
    pub(in crate::job::backup) fn refers(&self) -> bool {
        self.begun.refers()
    }

    /// The blocks that the other backup has of tables which still have the same columns.
    pub(in crate::job::backup) fn earlier(&self) -> EarlierBlocks {
        let is_same = |oid: u32, table: &TableRecord| {
            let columns = self.columns.get(&oid).into_iter().flatten();
            columns.map(column).eq(table.columns.iter().cloned())
        };
        let blocks = self.begun.base.as_ref().map(|base| base.blocks(is_same));
        EarlierBlocks::new(blocks.unwrap_or_default())
    }

    pub(in crate::job::backup) fn codec(&self) -> Codec {
        self.begun.codec
    }

    pub(in crate::job::backup) fn data_key(&self) -> String {
        self.begun.id.key(&self.begun.data_name())
    }

    pub(in crate::job::backup) fn object_info(&self, size_estimate: u64) -> ObjectInfo {
        ObjectInfo {
            size_estimate: Some(size_estimate),
            ..self.begun.info("application/octet-stream")
        }
    }

    pub(in crate::job::backup) fn warn(&mut self, warning: String) {
        self.begun.notes.warn(warning);
    }

    /// Notes the messages of a pg_dump that succeeded.
    pub(in crate::job::backup) fn complaints(&mut self, complaints: Vec<String>) {
        self.begun.notes.complaints(complaints);
    }

    /// Notes the result of `--nice`.
    pub(in crate::job::backup) fn nice(&mut self, watch: Result<ServerWatch>, throttle: &Throttle) -> Pauses {
        let warnings = &mut self.begun.notes.warnings;
        match watch {
            Ok(watch) => warnings.extend(watch.warnings()),
            Err(error) => warnings.push(format!(
                "--nice could not look at the server's load: {}",
                error.message()
            )),
        }
        throttle.pauses()
    }
}

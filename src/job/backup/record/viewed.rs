//! What is known when the snapshot is taken: what the server says of the database in it.

use std::collections::{BTreeMap, HashMap};

use super::begun::Begun;
use super::blocks::Blocks;
use super::sidecar::Sidecar;
use super::stored::Stored;
use crate::dataflow::compress::Codec;
use crate::dataflow::pipeline::Passed;
use crate::dataflow::throttle::{Pauses, Throttle};
use crate::error::Result;
use crate::job::backup::nice::Watch;
use crate::job::backup::sidecars::Sidecars;
use crate::postgres::{RawTable, Snapshot, TableName};
use crate::repository::manifest::{Collation, Extension, FileRecord};
use crate::store::ObjectInfo;

pub(in crate::job::backup) struct Viewed<'a> {
    pub(super) begun: Begun<'a>,
    pub(super) snapshot: Snapshot,
    /// Of tables whose names in the archive are not UTF-8, by OID.
    pub(super) names: HashMap<u32, TableName>,
    /// Those that a plain script may hold, as they are called in it.
    pub(super) tables_of_script: Vec<RawTable>,
    /// That read the database at once.
    pub(super) streams: usize,
    pub(super) extensions: Option<Vec<Extension>>,
    pub(super) collations: Option<Vec<Collation>>,
}

impl<'a> Viewed<'a> {
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

    /// What pg_dump has said although all went well.
    pub(in crate::job::backup) fn complaints(&mut self, complaints: Vec<String>) {
        self.begun.notes.complaints(complaints);
    }

    /// How a backup that disturbs nobody went.
    pub(in crate::job::backup) fn nice(&mut self, watch: Result<Watch>, throttle: &Throttle) -> Pauses {
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

    /// The data has passed and is stored. Gives back the files that go beside it, the sums over all of them last.
    pub(in crate::job::backup) fn stored(
        mut self,
        passed: Passed,
        pauses: Option<Pauses>,
        gathered: Sidecars,
    ) -> (Stored<'a>, Vec<Sidecar>) {
        let data = FileRecord {
            name: self.begun.data_name(),
            bytes: passed.expected.bytes,
            sha256: hex::encode(passed.expected.sha256),
        };
        let md5_of_data = passed.md5.map(|md5| (data.name.clone(), hex::encode(md5)));
        let mut stored = Stored {
            files: BTreeMap::from([(self.begun.data_role().to_owned(), data)]),
            missing: BTreeMap::new(),
            sums: Vec::new(),
            blocks: Blocks::of(&passed, &self.names, &self.tables_of_script, &mut self.begun.notes),
            archive_version: passed.archive.as_ref().map(|archive| archive.head.version.to_string()),
            bytes_read: passed.bytes_read,
            levels: passed.levels,
            pauses,
            viewed: self,
        };
        let sidecars = stored.sidecars(passed.archive, md5_of_data, gathered);
        (stored, sidecars)
    }
}

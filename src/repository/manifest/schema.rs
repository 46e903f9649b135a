//! The manifest's bytes: schema 2, which pgstow writes and reads, and schema 1, which it reads.
//!
//! Schema 2 has all fields of schema 1, with the same meaning, and adds the data file to each place. Schema 3 adds
//! `references`, and `from` to the places in the backup that they name.

mod writing;

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::blocks::{LargeObjectsRecord, RangeRecord, ScriptRecord, TableRecord};
use super::data_file::{self, DataFile, FileIndex, FileRange};
use super::files::{FileRecord, check_names, role};
use super::{
    Baseline, Collation, ColumnRecord, CompressionRecord, Extension, Increment, Manifest, ManifestError, Metadata,
    ObjectsCoverage, Omission, PgDump, Predecessor, ReadSettings, References, SequenceState, Server, SnapshotRecord,
    Stream, StreamBeginning, TableChanges, TableCoverage, Tagged, bounded, custom, format_name,
};
use crate::dataflow::read_by::ReadBy;
use crate::format::Format;
use crate::repository::backup_id::{BackupId, BackupKind};
use crate::repository::retention::Tier;
use crate::repository::trigger::Trigger;
use crate::store::{Part, StoreChecksum};

/// The schema whose backups have one data file, named only by its role.
const OF_ONE_FILE: u32 = 1;

/// The fields of both schemas, as they are in the file. Fields that a later version adds are ignored.
#[derive(Deserialize)]
pub(super) struct Json {
    schema: u32,
    pub id: BackupId,
    #[serde(rename = "type")]
    kind: BackupKind,
    timestamp: Timestamp,
    finished_at: Timestamp,
    version: String,
    database: String,
    trigger: Trigger,
    #[serde(default)]
    digest_file: Option<String>,
    #[serde(default)]
    predecessor: Option<Predecessor>,
    #[serde(default)]
    store: Option<String>,
    #[serde(default, deserialize_with = "bounded::stores")]
    stores: Vec<String>,
    #[serde(default)]
    tags: Option<Tagged>,
    #[serde(default)]
    event_id: Option<String>,
    server: Server,
    pg_dump: PgDump,
    #[serde(with = "format_name", default = "custom")]
    format: Format,
    compression: CompressionRecord,
    snapshot: SnapshotRecord,
    tier: Tier,
    #[serde(default, deserialize_with = "bounded::option")]
    encryption: Option<Value>,
    #[serde(deserialize_with = "bounded::few")]
    files: BTreeMap<String, FileRecord>,
    #[serde(default, deserialize_with = "bounded::files")]
    data_files: Vec<JsonFile>,
    #[serde(default, deserialize_with = "bounded::few")]
    missing: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "bounded::items")]
    left_out: Vec<Omission>,
    #[serde(default, deserialize_with = "bounded::known_items")]
    extensions: Option<Vec<Extension>>,
    #[serde(default, deserialize_with = "bounded::known_items")]
    collations: Option<Vec<Collation>>,
    #[serde(default, deserialize_with = "bounded::items")]
    warnings: Vec<String>,
    #[serde(default)]
    script: Option<ScriptRecord>,
    #[serde(default)]
    tables: Vec<JsonTable>,
    #[serde(default)]
    large_objects: Vec<JsonObjects>,
    #[serde(default, deserialize_with = "bounded::known_settings")]
    settings: Option<ReadSettings>,
    #[serde(default)]
    references: Option<References>,
    #[serde(default)]
    beginning: Option<StreamBeginning>,
    #[serde(default)]
    stream: Option<Stream>,
    #[serde(default, deserialize_with = "bounded::tables")]
    changes: Vec<TableChanges>,
    #[serde(default, deserialize_with = "bounded::tables")]
    coverage: Vec<TableCoverage>,
    #[serde(default, deserialize_with = "bounded::tables")]
    baselines: Vec<Baseline>,
    #[serde(default, deserialize_with = "bounded::tables")]
    sequences: Vec<SequenceState>,
    #[serde(default)]
    large_objects_coverage: Option<ObjectsCoverage>,
    #[serde(default)]
    parts: Vec<Part>,
    #[serde(default)]
    store_checksum: Option<StoreChecksum>,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default, deserialize_with = "bounded::few")]
    checksums: BTreeMap<String, String>,
}

/// One of `data_files`. `files` has the same facts about the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct JsonFile {
    role: String,
    name: String,
    bytes: u64,
    digests: Digests,
    #[serde(default)]
    parts: Vec<Part>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    store_checksum: Option<StoreChecksum>,
    #[serde(default, deserialize_with = "bounded::option")]
    encryption: Option<Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Digests {
    /// Hex digits.
    sha256: String,
}

#[derive(Serialize, Deserialize)]
struct JsonTable {
    schema: String,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    oid: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    columns: Vec<ColumnRecord>,
    rows: u64,
    bytes: u64,
    sha256: String,
    /// The backup that has the data file, if it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<BackupId>,
    /// The data file's name. Schema 1 does not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    offset: u64,
    length: u64,
    #[serde(default)]
    read: ReadBy,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<RangeRecord>,
}

#[derive(Serialize, Deserialize)]
struct JsonObjects {
    dump_id: i64,
    count: u64,
    bytes: u64,
    sha256: String,
    /// The data file's name; `None` if the place is not known. Schema 1 does not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    offset: u64,
    length: u64,
}

/// How a place in a manifest names its data file.
enum Files {
    /// Schema 1: all places are in the first data file; large objects of a script have no place.
    One { is_script: bool, any: bool },
    /// By the name of the data file.
    Named(HashMap<String, FileIndex>),
}

impl Files {
    /// `what` names the thing in an error about its place.
    fn place(
        &self,
        file: Option<&str>,
        (offset, length): (u64, u64),
        what: impl Fn() -> String,
    ) -> Result<FileRange, ManifestError> {
        let index = match (self, file) {
            (Files::One { any: true, .. }, _) => FileIndex::default(),
            (Files::One { any: false, .. }, _) => {
                return Err(ManifestError::Shape(format!(
                    "it has {}, but names no file with data",
                    what()
                )));
            }
            (Files::Named(_), None) => {
                return Err(ManifestError::Shape(format!(
                    "it does not say which file holds {}",
                    what()
                )));
            }
            (Files::Named(files), Some(name)) => *files.get(name).ok_or_else(|| {
                ManifestError::Shape(format!(
                    "it says that {} is in {name:?}, which `data_files` does not name",
                    what()
                ))
            })?,
        };
        FileRange::new(index, offset, length).ok_or_else(|| {
            ManifestError::Shape(format!("it says that {} ends beyond the largest possible file", what()))
        })
    }

    fn table(&self, table: JsonTable, elsewhere: Option<&Elsewhere<'_>>) -> Result<TableRecord, ManifestError> {
        let what = || format!("the table {:?}.{:?}", table.schema, table.name);
        let extent = (table.offset, table.length);
        let place = match &table.from {
            None => self.place(table.file.as_deref(), extent, what)?,
            Some(from) => Elsewhere::place(elsewhere, from, table.file.as_deref(), extent, what)?,
        };
        Ok(TableRecord {
            schema: table.schema,
            name: table.name,
            owner: table.owner,
            oid: table.oid,
            columns: table.columns,
            rows: table.rows,
            bytes: table.bytes,
            sha256: table.sha256,
            place,
            read: table.read,
            ranges: table.ranges,
        })
    }

    fn objects(&self, objects: JsonObjects) -> Result<LargeObjectsRecord, ManifestError> {
        let extent = (objects.offset, objects.length);
        let is_nowhere = extent == (0, 0)
            && match self {
                Files::One { is_script, .. } => *is_script,
                Files::Named(_) => objects.file.is_none(),
            };
        let what = || "a block of large objects".to_owned();
        let place = match is_nowhere {
            true => None,
            false => Some(self.place(objects.file.as_deref(), extent, what)?),
        };
        Ok(LargeObjectsRecord {
            dump_id: objects.dump_id,
            count: objects.count,
            bytes: objects.bytes,
            sha256: objects.sha256,
            place,
        })
    }
}

/// The data file of the backup that this one refers to.
struct Elsewhere<'a> {
    references: &'a References,
    index: FileIndex,
}

impl Elsewhere<'_> {
    fn place(
        elsewhere: Option<&Self>,
        from: &BackupId,
        file: Option<&str>,
        (offset, length): (u64, u64),
        what: impl Fn() -> String,
    ) -> Result<FileRange, ManifestError> {
        let shape = |why: String| ManifestError::Shape(format!("it says that {} is in {from}, {why}", what()));
        let known = elsewhere.filter(|known| known.references.from == *from);
        let known = known.ok_or_else(|| shape("which its `references` do not name".to_owned()))?;
        let record = &known.references.file;
        if file != Some(record.name.as_str()) {
            return Err(shape(format!("but not in {:?}", record.name)));
        }
        FileRange::new(known.index, offset, length)
            .filter(|place| place.end() <= record.bytes)
            .ok_or_else(|| shape("beyond its end".to_owned()))
    }
}

impl Json {
    /// Converts to a manifest, if it is that of the backup with this id.
    pub(super) fn check(mut self, id: &BackupId) -> Result<Manifest, ManifestError> {
        ManifestError::unless_of(id, &self.id)?;
        check_names(&self.files)?;
        let (data_files, files) = if self.schema > OF_ONE_FILE {
            self.several()?
        } else {
            self.one()
        };
        data_file::check(&self.files, &data_files)?;
        let increment = self.increment()?;
        let references = self.references(&data_files)?;
        let elsewhere = references.as_ref().map(|references| Elsewhere {
            references,
            index: FileIndex(data_files.len()),
        });
        let tables = self
            .tables
            .into_iter()
            .map(|table| files.table(table, elsewhere.as_ref()));
        let tables = tables.collect::<Result<_, _>>()?;
        let objects = self.large_objects.into_iter().map(|objects| files.objects(objects));
        Ok(Manifest {
            id: self.id,
            kind: self.kind,
            timestamp: self.timestamp,
            finished_at: self.finished_at,
            version: self.version,
            database: self.database,
            trigger: self.trigger,
            digest_file: self.digest_file,
            predecessor: self.predecessor,
            store: self.store,
            stores: self.stores,
            tags: self.tags,
            event_id: self.event_id,
            server: self.server,
            pg_dump: self.pg_dump,
            format: self.format,
            compression: self.compression,
            snapshot: self.snapshot,
            tier: self.tier,
            encryption: self.encryption,
            missing: self.missing,
            left_out: self.left_out,
            extensions: self.extensions,
            collations: self.collations,
            warnings: self.warnings,
            script: self.script,
            tables,
            large_objects: objects.collect::<Result<_, _>>()?,
            settings: self.settings,
            beginning: self.beginning,
            increment,
            references,
            metadata: self.metadata,
            checksums: self.checksums,
            files: self.files,
            data_files,
        })
    }

    /// Only an archive can refer to another one.
    fn references(&mut self, data_files: &[DataFile]) -> Result<Option<References>, ManifestError> {
        let Some(references) = self.references.take() else {
            return Ok(None);
        };
        references.check(&self.id)?;
        let is_archive = matches!(data_files, [only] if only.role == role::DUMP) && self.format == Format::Custom;
        if self.kind != BackupKind::Full || !is_archive {
            let what = "it refers to another backup, and is not one archive of a full backup";
            return Err(ManifestError::Shape(what.to_owned()));
        }
        Ok(Some(references))
    }

    /// An increment needs a span of the stream; a full must not have one.
    fn increment(&mut self) -> Result<Option<Increment>, ManifestError> {
        match (self.kind, self.stream.take()) {
            (BackupKind::Full, None) => Ok(None),
            (BackupKind::Incremental, Some(stream)) => Ok(Some(Increment {
                stream,
                changes: std::mem::take(&mut self.changes),
                coverage: std::mem::take(&mut self.coverage),
                baselines: std::mem::take(&mut self.baselines),
                sequences: std::mem::take(&mut self.sequences),
                large_objects: self.large_objects_coverage.take(),
            })),
            (BackupKind::Full, Some(_)) => Err(ManifestError::Shape(
                "it is a full backup, and has a span of a stream".to_owned(),
            )),
            (BackupKind::Incremental, None) => Err(ManifestError::Shape(
                "it is an increment, and does not say which span of the stream it has".to_owned(),
            )),
        }
    }

    /// Schema 1: the archive or the script. The fields on encryption and the store's checksum apply to it.
    fn one(&mut self) -> (Vec<DataFile>, Files) {
        let is_script = self.files.contains_key(role::SQL);
        let roles = [role::SQL, role::DUMP].into_iter();
        let named = roles.filter(|role| self.files.contains_key(*role));
        let mut data_files: Vec<DataFile> = named.map(DataFile::of).collect();
        if let Some(first) = data_files.first_mut() {
            first.parts = std::mem::take(&mut self.parts);
            first.store_checksum = self.store_checksum.take();
            first.encryption.clone_from(&self.encryption);
        }
        let any = !data_files.is_empty();
        (data_files, Files::One { is_script, any })
    }

    /// Schema 2. Facts that are in the file twice must agree, so that no reader can take one and another reader the
    /// other.
    fn several(&mut self) -> Result<(Vec<DataFile>, Files), ManifestError> {
        let mut names = HashMap::new();
        let mut data_files = Vec::with_capacity(self.data_files.len());
        let first = self.data_files.first();
        let receipt = first.map_or((&[][..], None), |first| {
            (&first.parts[..], first.store_checksum.as_ref())
        });
        if receipt != (&self.parts[..], self.store_checksum.as_ref()) {
            let what = "`parts` and `store_checksum` are not those of the first of `data_files`";
            return Err(ManifestError::Shape(what.to_owned()));
        }
        for (index, file) in std::mem::take(&mut self.data_files).into_iter().enumerate() {
            let same = self.files.get(&file.role).is_none_or(|record| {
                (&record.name, record.bytes, &record.sha256) == (&file.name, file.bytes, &file.digests.sha256)
            });
            if !same {
                return Err(ManifestError::Shape(format!(
                    "`data_files` and `files` differ on the {:?} file: its name, its bytes or its SHA-256",
                    file.role
                )));
            }
            names.insert(file.name, FileIndex(index));
            data_files.push(DataFile {
                role: file.role,
                parts: file.parts,
                store_checksum: file.store_checksum,
                encryption: file.encryption,
            });
        }
        Ok((data_files, Files::Named(names)))
    }
}

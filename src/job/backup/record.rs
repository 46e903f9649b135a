//! What is known of the run as it goes: it becomes the manifest and the report.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use jiff::Timestamp;
use md5::Md5;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::sidecars::Sidecars;
use super::{Job, Source};
use crate::command::BackupRequest;
use crate::dataflow::compress::Codec;
use crate::dataflow::pipeline::{Archive, Passed};
use crate::dataflow::throttle::{Pauses, Throttle};
use crate::error::Result;
use crate::format::archive::{BlockContent, SealedRange};
use crate::format::script::Contents;
use crate::postgres::{FOREIGN_TABLE, RawTable, Refused, Snapshot, TableName};
use crate::report::BackupReport;
use crate::repository::backup_id::{BackupId, GLOBALS, MD5SUMS, SHA256SUMS, SYSTEM_INFO};
use crate::repository::catalog::object_info;
use crate::repository::lease::Previous;
use crate::repository::leftovers::{Cleared, LeftOver};
use crate::repository::manifest::{
    Algorithm, Collation, Compression, Extension, FileRecord, LargeObjectsRecord, LeftOut, Manifest, PgDump,
    RangeRecord, SCHEMA, ScriptRecord, Server, TableRecord, checksums, role,
};
use crate::repository::retention::Tier;
use crate::settings::{Format, Trigger};
use crate::store::{ObjectInfo, Stored};

use super::nice::Watch;
use super::replicas::Replicas;
use super::report;
use super::script;
use super::view::{Opened, View};

pub(super) struct Record<'a> {
    pub id: BackupId,
    source: &'a Source,
    host: &'a str,
    threads: usize,
    format: Format,
    md5: bool,
    trigger: Trigger,
    event_id: Option<String>,
    tier: Tier,
    started: Timestamp,
    pub finished: Timestamp,
    codec: Codec,
    archive_version: Option<String>,
    snapshot: Option<Snapshot>,
    /// Of tables whose names in the archive are not UTF-8, by OID.
    names: HashMap<u32, TableName>,
    /// Those that a plain script may hold, as they are called in it.
    tables_of_script: Vec<RawTable>,
    script: Option<ScriptRecord>,
    database_bytes: Option<u64>,
    /// That read the database at once.
    streams: usize,
    /// Of a run that disturbs nobody.
    pauses: Option<Pauses>,
    bytes_read: u64,
    /// Bytes of content by the level at which they were compressed.
    levels: BTreeMap<i32, u64>,
    files: BTreeMap<String, FileRecord>,
    missing: BTreeMap<String, String>,
    tables: Vec<TableRecord>,
    large_objects: Vec<LargeObjectsRecord>,
    /// Files that the manifest does not list: the sums over those that it does.
    sums: Vec<FileRecord>,
    md5_of_data: Option<[u8; 16]>,
    took_over: Option<Previous>,
    leftovers: Vec<LeftOver>,
    /// What the backup has not of the database.
    left_out: Vec<LeftOut>,
    extensions: Option<Vec<Extension>>,
    collations: Option<Vec<Collation>>,
    warnings: Vec<String>,
}

/// Names of one kind in a warning.
const NAMED: usize = 5;
/// More warnings than this, no manifest holds.
const WARNINGS: usize = 1_000;
/// Tables whose rows were left out, as of every other kind: what is more is counted.
const NAMED_TABLES: usize = 100;

/// A small file, ready to be put.
pub(super) struct Sidecar {
    pub key: String,
    pub bytes: Bytes,
    pub info: ObjectInfo,
}

impl<'a> Record<'a> {
    pub(super) fn begin(
        job: &Job<'a>,
        request: &BackupRequest,
        source: &'a Source,
        id: BackupId,
        tier: Tier,
        started: Timestamp,
    ) -> Self {
        Self {
            id,
            source,
            host: job.host,
            threads: job.settings.threads,
            format: job.settings.format,
            md5: job.settings.md5,
            trigger: request.trigger,
            event_id: request.event_id.clone(),
            tier,
            started,
            finished: started,
            codec: Codec::None,
            archive_version: None,
            snapshot: None,
            names: HashMap::new(),
            tables_of_script: Vec::new(),
            script: None,
            database_bytes: None,
            streams: 1,
            pauses: None,
            bytes_read: 0,
            levels: BTreeMap::new(),
            files: BTreeMap::new(),
            missing: BTreeMap::new(),
            tables: Vec::new(),
            large_objects: Vec::new(),
            sums: Vec::new(),
            md5_of_data: None,
            took_over: None,
            leftovers: Vec::new(),
            left_out: Vec::new(),
            extensions: None,
            collations: None,
            warnings: [&job.settings.notes[..], job.credentials.unused_settings().as_slice()].concat(),
        }
    }

    pub(super) fn leftovers(&mut self, took_over: Option<Previous>, cleared: Cleared) {
        self.took_over = took_over;
        self.leftovers = cleared.left_overs;
        self.warnings
            .extend(cleared.warnings.iter().map(crate::error::Error::message));
    }

    pub(super) fn codec(&mut self, codec: Codec) {
        self.codec = codec;
    }

    pub(super) fn database_bytes(&mut self, bytes: Option<u64>) {
        self.database_bytes = bytes;
    }

    /// Gives back who reads, and about how much.
    pub(super) fn view(&mut self, view: View) -> (Opened, u64) {
        self.snapshot = Some(view.snapshot);
        self.names = view.names;
        self.tables_of_script = view.tables_of_script;
        self.warnings.extend(view.notes);
        if let Opened::Streams(streams) = &view.reader {
            self.streams = streams.streams();
            self.complaints(streams.complaints.clone());
        }
        let why = "emptied or rewritten after the backup's snapshot and before its lock: the backup may have none of its rows";
        let more = view.emptied.len().saturating_sub(NAMED_TABLES);
        let more = (more > 0).then(|| format!("{more} more"));
        let emptied = view.emptied.into_iter().take(NAMED_TABLES).chain(more);
        self.left_out(emptied.map(|name| LeftOut {
            kind: "rows".into(),
            name,
            why: why.into(),
        }));
        self.left_out(view.left_out);
        self.extensions = view.extensions;
        self.collations = view.collations;
        (view.reader, view.table_bytes)
    }

    /// People are told of each kind once, unless it is what everybody expects.
    fn left_out(&mut self, things: impl IntoIterator<Item = LeftOut>) {
        let things: Vec<LeftOut> = things.into_iter().collect();
        for of_a_kind in things.chunk_by(|one, next| (&one.kind, &one.why) == (&next.kind, &next.why)) {
            let LeftOut { kind, why, .. } = &of_a_kind[0];
            if kind != FOREIGN_TABLE {
                // The last may stand for many.
                let counted = |one: &LeftOut| one.name.strip_suffix(" more").and_then(|count| count.parse().ok());
                let all: usize = of_a_kind.iter().map(|one| counted(one).unwrap_or(1)).sum();
                let mut names: Vec<&str> = of_a_kind.iter().take(NAMED).map(|one| one.name.as_str()).collect();
                let more = format!("{} more", all.saturating_sub(NAMED));
                names.extend((of_a_kind.len() > NAMED).then_some(more.as_str()));
                self.warn(format!(
                    "left out: {} {}: {why}",
                    kind.replace('_', " "),
                    names.join(", ")
                ));
            }
        }
        self.left_out.extend(things);
    }

    /// What pg_dump has said although all went well.
    pub(super) fn complaints(&mut self, complaints: Vec<String>) {
        for one in complaints {
            if !self.warnings.contains(&one) {
                self.warn(one);
            }
        }
    }

    /// How a backup that disturbs nobody went.
    pub(super) fn nice(&mut self, watch: Result<Watch>, throttle: &Throttle) {
        match watch {
            Ok(watch) => self.warnings.extend(watch.warnings()),
            Err(error) => self.warnings.push(format!(
                "--nice could not look at the server's load: {}",
                error.message()
            )),
        }
        self.pauses = Some(throttle.pauses());
    }

    pub(super) fn finished(&mut self, at: Timestamp) {
        self.finished = at;
    }

    pub(super) fn warn(&mut self, warning: String) {
        tracing::warn!("{warning}");
        self.warnings.push(warning);
    }

    fn algorithm(&self) -> Algorithm {
        match self.codec {
            Codec::None => Algorithm::None,
            Codec::Zstd(_) | Codec::AutoZstd => Algorithm::Zstd,
            Codec::Gzip(_) | Codec::AutoGzip => Algorithm::Gzip,
        }
    }

    fn data_name(&self) -> String {
        match self.format {
            Format::Custom => self.id.dump_name(),
            Format::Plain => self.id.sql_name(self.algorithm().extension()),
        }
    }

    pub(super) fn data_key(&self) -> String {
        self.id.key(&self.data_name())
    }

    pub(super) fn object_info(&self, size_estimate: u64) -> ObjectInfo {
        ObjectInfo {
            size_estimate: Some(size_estimate),
            ..self.info("application/octet-stream")
        }
    }

    fn info(&self, content_type: &'static str) -> ObjectInfo {
        object_info(&self.id, &self.source.session.server().version, content_type)
    }

    /// The data has passed and is stored.
    pub(super) fn data(&mut self, passed: &Passed) {
        let expected = &passed.expected;
        self.bytes_read = passed.bytes_read;
        self.levels.clone_from(&passed.levels);
        self.md5_of_data = passed.md5;
        let role = if self.format == Format::Custom {
            role::DUMP
        } else {
            role::SQL
        };
        let file = FileRecord {
            name: self.data_name(),
            bytes: expected.bytes,
            sha256: hex::encode(expected.sha256),
        };
        self.files.insert(role.to_owned(), file);
        if let Some(script) = &passed.script {
            self.script(script);
        }
        let Some(archive) = &passed.archive else {
            return;
        };
        self.archive_version = Some(archive.head.version.to_string());
        for (entry, block) in archive.head.data.iter().zip(&archive.blocks) {
            let (bytes, sha256) = (block.digest.bytes, hex::encode(block.digest.sha256));
            let (offset, length) = (block.place.offset, block.place.length);
            match block.digest.content {
                BlockContent::Table { rows } => {
                    let (schema, name) = match self.names.get(&entry.oid) {
                        Some(known) => (known.schema.clone(), known.name.clone()),
                        None => (entry.namespace.clone().unwrap_or_default(), entry.tag.clone()),
                    };
                    self.tables.push(TableRecord {
                        schema,
                        name,
                        owner: Some(entry.owner.clone()).filter(|owner| !owner.is_empty()),
                        rows,
                        bytes,
                        sha256,
                        offset,
                        length,
                        read: block.way,
                        ranges: block.ranges.iter().map(range_record).collect(),
                    });
                }
                BlockContent::LargeObjects { count } => self.large_objects.push(LargeObjectsRecord {
                    dump_id: entry.dump_id,
                    count,
                    bytes,
                    sha256,
                    offset,
                    length,
                }),
            }
        }
    }

    /// What a plain script holds, as it was counted.
    fn script(&mut self, counted: &Result<Contents, Refused>) {
        let contents = match counted {
            Ok(contents) => contents,
            Err(refused) => {
                return self.warn(format!(
                    "the script {refused}: its tables are not counted, and no restore or drill of pgstow's will run it; \
                     psql does"
                ));
            }
        };
        self.script = Some(ScriptRecord {
            bytes: contents.bytes,
            definitions: contents.headers,
        });
        let tables = script::records(contents, &self.tables_of_script);
        self.tables.extend(tables);
        let objects = contents.large_objects.iter().map(script::objects_record);
        self.large_objects.extend(objects);
    }

    /// The files beside the data, the sums over all of them last.
    pub(super) fn sidecars(&mut self, archive: Option<Archive>, gathered: Sidecars) -> Vec<Sidecar> {
        let mut files = Vec::new();
        if let Some(archive) = archive {
            let name = self.id.toc_name();
            files.push((role::TOC, name, Bytes::from(archive.toc), "application/octet-stream"));
        }
        match gathered.globals {
            Ok(globals) => {
                self.left_out(globals.left_out);
                let sql = Bytes::from(globals.sql);
                files.push((role::GLOBALS, GLOBALS.to_owned(), sql, "application/sql"));
            }
            Err(why) => {
                self.warn(format!("the backup holds no roles (globals.sql): {why}"));
                self.missing.insert(role::GLOBALS.to_owned(), why);
            }
        }
        let system_info = Bytes::from(gathered.system_info);
        files.push((
            role::SYSTEM_INFO,
            SYSTEM_INFO.to_owned(),
            system_info,
            "application/json",
        ));

        let mut md5sums: Vec<(String, String)> = self
            .md5_of_data
            .iter()
            .map(|md5| (self.data_name(), hex::encode(md5)))
            .collect();
        let mut sidecars = Vec::new();
        for (role, name, bytes, content_type) in files {
            if self.md5 {
                md5sums.push((name.clone(), hex::encode(Md5::digest(&bytes))));
            }
            self.files.insert(role.to_owned(), file_record(&name, &bytes));
            sidecars.push(Sidecar {
                key: self.id.key(&name),
                bytes,
                info: self.info(content_type),
            });
        }
        let sha256sums = self
            .files
            .values()
            .map(|file| (file.name.clone(), file.sha256.clone()))
            .collect();
        let mut sums = vec![(SHA256SUMS, sums_file(sha256sums))];
        if self.md5 {
            sums.push((MD5SUMS, sums_file(md5sums)));
        }
        for (name, bytes) in sums {
            self.sums.push(file_record(name, &bytes));
            sidecars.push(Sidecar {
                key: self.id.key(name),
                bytes,
                info: self.info("text/plain"),
            });
        }
        for sidecar in &mut sidecars {
            sidecar
                .info
                .tags
                .push(("sha256".to_owned(), hex::encode(Sha256::digest(&sidecar.bytes))));
        }
        sidecars
    }

    /// Name and digest of every file that is to be tagged before the manifest is put.
    pub(super) fn tagged_files(&self) -> Vec<(String, String)> {
        self.files
            .values()
            .chain(&self.sums)
            .map(|file| (file.name.clone(), file.sha256.clone()))
            .collect()
    }

    pub(super) fn manifest(&self, receipt: &Stored) -> Manifest {
        let snapshot = self.snapshot.as_ref();
        Manifest {
            schema: SCHEMA,
            id: self.id.clone(),
            kind: self.id.kind(),
            timestamp: self.started,
            finished_at: self.finished,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            database: self.id.database().to_owned(),
            trigger: self.trigger,
            digest_file: Some(crate::repository::backup_id::MANIFEST_DIGEST.to_owned()),
            // Each store's own.
            predecessor: None,
            store: None,
            stores: Vec::new(),
            tags: None,
            event_id: self.event_id.clone(),
            server: self.server(),
            pg_dump: self.pg_dump(),
            format: self.format,
            compression: self.compression(),
            snapshot: crate::repository::manifest::Snapshot {
                lsn: snapshot.and_then(|snapshot| snapshot.lsn.clone()),
                xmin: snapshot.map_or(0, |snapshot| snapshot.xmin),
                xmax: snapshot.map_or(0, |snapshot| snapshot.xmax),
                xip: snapshot.map(|snapshot| snapshot.xip.clone()).unwrap_or_default(),
            },
            tier: self.tier,
            encryption: None,
            checksums: checksums(&self.files),
            files: self.files.clone(),
            missing: self.missing.clone(),
            left_out: self.left_out.clone(),
            extensions: self.extensions.clone(),
            collations: self.collations.clone(),
            warnings: self.warnings[..self.warnings.len().min(WARNINGS)].to_vec(),
            script: self.script,
            tables: self.tables.clone(),
            large_objects: self.large_objects.clone(),
            parts: receipt.parts.clone(),
            store_checksum: receipt.checksum.clone(),
            metadata: self.metadata(),
        }
    }

    fn server(&self) -> Server {
        let server = self.source.session.server();
        Server {
            version: server.version.clone(),
            version_num: server.version_num,
            encoding: server.encoding.clone(),
            system_identifier: server.system_identifier.clone(),
            database_oid: Some(server.database_oid),
        }
    }

    fn pg_dump(&self) -> PgDump {
        PgDump {
            version: self.source.programs.version.clone(),
            archive_version: self.archive_version.clone(),
        }
    }

    fn compression(&self) -> Compression {
        Compression {
            algorithm: self.algorithm(),
            level: self.codec.level(),
        }
    }

    fn seconds(&self) -> f64 {
        self.finished.duration_since(self.started).as_secs_f64()
    }

    fn bytes_stored(&self) -> u64 {
        self.files.values().map(|file| file.bytes).sum()
    }

    fn metadata(&self) -> BTreeMap<String, Value> {
        let seconds = self.seconds();
        let rate = |bytes: u64| {
            if seconds > 0.0 {
                (bytes as f64 / seconds).round()
            } else {
                0.0
            }
        };
        let mut metadata = BTreeMap::from([
            ("host".to_owned(), json!(self.host)),
            ("database_bytes".to_owned(), json!(self.database_bytes)),
            ("bytes_read".to_owned(), json!(self.bytes_read)),
            ("bytes_stored".to_owned(), json!(self.bytes_stored())),
            ("duration_seconds".to_owned(), json!(seconds)),
            ("read_bytes_per_second".to_owned(), json!(rate(self.bytes_read))),
            ("rows".to_owned(), json!(self.rows())),
            ("compression_levels".to_owned(), json!(self.levels)),
            ("streams".to_owned(), json!(self.streams)),
            ("threads".to_owned(), json!(self.threads)),
        ]);
        if let Some(pauses) = self.pauses {
            metadata.insert("pauses".to_owned(), json!(pauses.count));
            metadata.insert("paused_seconds".to_owned(), json!(pauses.time.as_secs_f64()));
        }
        metadata
    }

    fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }

    pub(super) fn report(self, replicas: &Replicas) -> BackupReport {
        let manifest = self.manifest(&Stored {
            bytes: 0,
            checksum: None,
            parts: Vec::new(),
        });
        let mut report = report::of(&manifest, replicas.report());
        report.manifest_sha256 = replicas.manifest_sha256();
        report.signed_by = replicas.signed_by();
        report.took_over = self.took_over;
        report.leftovers = self.leftovers;
        report.warnings = self.warnings;
        report
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

fn file_record(name: &str, bytes: &[u8]) -> FileRecord {
    FileRecord {
        name: name.to_owned(),
        bytes: bytes.len() as u64,
        sha256: hex::encode(Sha256::digest(bytes)),
    }
}

/// As `sha256sum` and `md5sum` write and check it. Our names hold no backslash and no newline,
/// so no line needs their escapes.
fn sums_file(mut sums: Vec<(String, String)>) -> Bytes {
    sums.sort();
    sums.iter()
        .map(|(name, sum)| format!("{sum}  {name}\n"))
        .collect::<String>()
        .into()
}

//! The record of an increment whose changes are in the stores: its manifest, and the files beside it.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::baselines::StoredBaselines;
use super::coverage::{Coverage, CoverageFile};
use super::destination::{StoredChanges, Taken};
use super::run::Run;
use super::span::LEVEL;
use crate::error::{Error, Result};
use crate::format::changes::ChangesSummary;
use crate::format::{Format, Lsn};
use crate::job::backup::record::{Sidecar, file_record, md5_of, read_settings};
use crate::job::backup::replicas::Replicas;
use crate::job::backup::{BackupReport, report};
use crate::postgres::LogEnd;
use crate::repository::backup_id::{BackupId, CATALOG, MANIFEST_DIGEST};
use crate::repository::catalog::object_info;
use crate::repository::manifest::{
    CompressionAlgorithm, CompressionRecord, DataFile, FileRecord, Increment, Manifest, Metadata, PgDump, Server,
    SnapshotRecord, Stream, checksums, role,
};
use crate::repository::retention::Tier;
use crate::repository::seen_catalog::SeenCatalog;
use crate::store::{ObjectInfo, Stored};

/// What was known before the stream was read.
pub(super) struct Begun {
    pub started: Timestamp,
    pub taken: Option<Taken>,
    /// It ended before the end of the log.
    pub is_behind: bool,
    pub snapshot: SnapshotRecord,
}

/// The file of changes, which is in the stores.
pub(super) struct ChangesFile {
    pub stream: Stream,
    pub summary: ChangesSummary,
    pub stored: StoredChanges,
}

pub(super) struct Record<'a> {
    run: &'a Run<'a>,
    begun: Begun,
    id: BackupId,
    increment: Increment,
    files: BTreeMap<String, FileRecord>,
    sums: Vec<FileRecord>,
    baselines: Option<StoredBaselines>,
    catalog: Vec<u8>,
    raw_bytes: u64,
    warnings: Vec<String>,
}

/// A store's receipts for the large files of an increment.
pub(super) struct Receipts {
    /// Of the baselines, if there are any.
    dump: Option<Stored>,
    changes: Stored,
}

/// Where the server's log ended at the increment's beginning, with the position up to which the stream was to be read.
pub(super) fn snapshot(log_end: &LogEnd, goal: Lsn) -> SnapshotRecord {
    SnapshotRecord {
        lsn: Some(goal.to_string()),
        xmin: log_end.xmin,
        xmax: log_end.xmax,
        xip: log_end.xip.clone(),
        end: None,
    }
}

/// Joins the receipts of each store. A store that lacks one of the files takes no further part. `dumps`: `None` if there
/// are no baselines.
fn joined(changes: Vec<Option<Stored>>, dumps: Option<Vec<Option<Stored>>>) -> Vec<Option<Receipts>> {
    let has_dump = dumps.is_some();
    let mut dumps = dumps.unwrap_or_default().into_iter();
    let of_store = |changes: Option<Stored>| {
        let dump = dumps.next().flatten();
        changes
            .filter(|_| dump.is_some() == has_dump)
            .map(|changes| Receipts { dump, changes })
    };
    changes.into_iter().map(of_store).collect()
}

impl<'a> Record<'a> {
    /// Also returns the receipts, in the order of the stores, and the files that are still to be put, the sums last.
    pub fn new(
        run: &'a Run<'a>,
        begun: Begun,
        changes: ChangesFile,
        coverage: Coverage,
    ) -> Result<(Self, Vec<Option<Receipts>>, Vec<Sidecar>)> {
        let Some(taken) = &begun.taken else {
            return Err(Error::internal("an increment has no id"));
        };
        let id = taken.id.clone();
        let mut warnings = run.job.settings.notes.clone();
        warnings.extend(taken.warnings.iter().cloned());
        warnings.extend(coverage.warnings);
        let ChangesFile {
            stream,
            summary,
            stored,
        } = changes;
        let file = FileRecord {
            name: id.changes_name(),
            bytes: stored.bytes,
            sha256: hex::encode(stored.sha256),
        };
        let named_md5 = |name: &str, md5: [u8; 16]| (name.to_owned(), hex::encode(md5));
        let mut md5s = Vec::new();
        md5s.extend(stored.md5.map(|md5| named_md5(&file.name, md5)));
        let mut files = BTreeMap::from([(role::CHANGES.to_owned(), file)]);
        let mut baselines = coverage.archive;
        let mut dumps = None;
        if let Some(archive) = &mut baselines {
            md5s.extend(archive.md5.map(|md5| named_md5(&archive.file.name, md5)));
            files.insert(role::DUMP.to_owned(), archive.file.clone());
            dumps = Some(std::mem::take(&mut archive.receipts));
        }
        let mut record = Self {
            increment: Increment {
                changes: summary.tables.iter().map(Into::into).collect(),
                coverage: coverage.tables,
                baselines: coverage.baselines,
                sequences: coverage.sequences,
                large_objects: coverage.large_objects,
                stream,
            },
            run,
            begun,
            id,
            files,
            sums: Vec::new(),
            baselines,
            catalog: Vec::new(),
            raw_bytes: summary.raw_bytes,
            warnings,
        };
        let sidecars = record.sidecars(coverage.files, md5s);
        Ok((record, joined(stored.receipts, dumps), sidecars))
    }

    /// `md5s` are those of the large files, which have passed.
    fn sidecars(&mut self, files: Vec<CoverageFile>, md5s: Vec<(String, String)>) -> Vec<Sidecar> {
        let server = &self.run.source.session.server().version;
        let about = |media: &'static str| -> ObjectInfo { object_info(&self.id, server, media) };
        let mut sidecars = Vec::new();
        for file in files {
            if file.name == CATALOG {
                self.catalog = file.bytes.to_vec();
            }
            self.files
                .insert(file.role.to_owned(), file_record(&file.name, &file.bytes));
            sidecars.push(Sidecar::of(&self.id, about, &file.name, file.bytes, file.content_type));
        }
        let md5 = self.run.job.settings.md5.then(|| md5_of(md5s, &sidecars));
        let sums = Sidecar::sums(&self.id, about, &self.files, md5);
        self.sums = sums.iter().map(|sums| file_record(&sums.name, &sums.bytes)).collect();
        sidecars.extend(sums);
        sidecars
    }

    pub fn id(&self) -> &BackupId {
        &self.id
    }

    pub fn stream(&self) -> &Stream {
        &self.increment.stream
    }

    /// The catalog that the next increment compares the source with.
    pub fn catalog(&self) -> Result<Option<SeenCatalog>> {
        SeenCatalog::parse(&self.catalog, &self.id).map(Some)
    }

    /// Name and digest of every file that must be tagged before the manifest is put.
    pub fn tagged_files(&self) -> Vec<(String, String)> {
        self.files
            .values()
            .chain(&self.sums)
            .map(|file| (file.name.clone(), file.sha256.clone()))
            .collect()
    }

    /// The manifest for the store that gave these receipts.
    pub fn manifest(&self, receipts: &Receipts, finished: Timestamp) -> Manifest {
        let Run {
            job, request, source, ..
        } = self.run;
        let server = self.server();
        let (version, tables, large_objects) = match &self.baselines {
            None => (None, &[][..], &[][..]),
            Some(stored) => (
                Some(&stored.archive_version),
                &stored.tables[..],
                &stored.large_objects[..],
            ),
        };
        Manifest {
            id: self.id.clone(),
            kind: self.id.kind(),
            timestamp: self.begun.started,
            finished_at: finished,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            database: self.id.database().to_owned(),
            trigger: request.trigger,
            digest_file: Some(MANIFEST_DIGEST.to_owned()),
            // These fields differ from store to store.
            predecessor: None,
            store: None,
            stores: Vec::new(),
            tags: None,
            event_id: request.event_id.clone(),
            pg_dump: PgDump {
                version: source.programs.version.clone(),
                archive_version: version.cloned(),
            },
            format: Format::Custom,
            compression: CompressionRecord {
                algorithm: CompressionAlgorithm::Zstd,
                level: LEVEL,
            },
            snapshot: self.begun.snapshot.clone(),
            tier: Tier::Increment,
            encryption: None,
            checksums: checksums(&self.files),
            files: self.files.clone(),
            data_files: data_files(receipts),
            missing: BTreeMap::new(),
            left_out: Vec::new(),
            extensions: None,
            collations: None,
            warnings: self.warnings.clone(),
            script: None,
            tables: tables.to_vec(),
            large_objects: large_objects.to_vec(),
            settings: Some(read_settings(&server.encoding)),
            server,
            references: None,
            beginning: None,
            increment: Some(self.increment.clone()),
            metadata: self.metadata(job.host, finished),
        }
    }

    fn server(&self) -> Server {
        let server = self.run.source.session.server();
        Server {
            version: server.version.clone(),
            version_num: server.version_num,
            encoding: server.encoding.clone(),
            system_identifier: Some(self.increment.stream.system_identifier.clone()),
            database_oid: Some(server.database_oid),
        }
    }

    fn metadata(&self, host: &str, finished: Timestamp) -> Metadata {
        let seconds = finished.duration_since(self.begun.started).as_secs_f64();
        let tables = self.baselines.iter().flat_map(|stored| &stored.tables);
        let rows = tables.map(|table| table.rows);
        Metadata {
            bytes_read: Some(self.raw_bytes),
            bytes_stored: Some(self.files.values().map(|file| file.bytes).sum()),
            duration_seconds: Some(seconds),
            host: Some(host.to_owned()),
            rows: Some(rows.sum()),
            ..Metadata::default()
        }
    }

    pub fn report(self, manifest: &Manifest, replicas: &Replicas, warnings: Vec<String>) -> BackupReport {
        let mut report = BackupReport {
            manifest_sha256: replicas.manifest_sha256(),
            signed_by: replicas.signed_by(),
            took_over: self.run.took_over.clone(),
            leftovers: self.begun.taken.map(|taken| taken.leftovers).unwrap_or_default(),
            ..report::of(manifest, replicas.report())
        };
        if let Some(increment) = &mut report.increment {
            increment.is_behind = self.begun.is_behind;
        }
        report.warnings.extend(warnings);
        report
    }
}

/// Places of the baselines refer to the first one.
fn data_files(receipts: &Receipts) -> Vec<DataFile> {
    let dump = receipts.dump.iter().map(|dump| (role::DUMP, dump));
    let files = dump.chain([(role::CHANGES, &receipts.changes)]);
    files
        .map(|(role, stored)| DataFile {
            role: role.to_owned(),
            parts: stored.parts.clone(),
            store_checksum: stored.checksum.clone(),
            encryption: None,
        })
        .collect()
}

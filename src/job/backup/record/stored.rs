//! The record of a run whose data is in the store: all of the manifest, except the time at which it is put.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::blocks::Blocks;
use super::committed::Committed;
use super::sidecar::{Sidecar, file_record, md5_of};
use super::viewed::Viewed;
use crate::dataflow::pipeline::{Archive, Passed};
use crate::dataflow::throttle::Pauses;
use crate::job::backup::sidecars::Sidecars;
use crate::repository::backup_id::{BackupId, CATALOG, GLOBALS, MANIFEST_DIGEST, SYSTEM_INFO};
use crate::repository::manifest::{
    CompressionRecord, DataFile, FileRecord, Manifest, Metadata, PgDump, ReadSettings, References, Server,
    SnapshotRecord, checksums, role,
};
use crate::store;

/// The most warnings in a manifest.
const WARNINGS: usize = 1_000;

pub(in crate::job::backup) struct Stored<'a> {
    pub(super) viewed: Viewed<'a>,
    pub(super) archive_version: Option<String>,
    pub(super) bytes_read: u64,
    /// Bytes of content, by compression level.
    pub(super) levels: BTreeMap<i32, u64>,
    /// With `--nice`.
    pub(super) pauses: Option<Pauses>,
    pub(super) blocks: Blocks,
    /// The backup that has the tables which did not change.
    pub(super) references: Option<References>,
    pub(super) files: BTreeMap<String, FileRecord>,
    /// Files that could not be made, by role, and why.
    pub(super) missing: BTreeMap<String, String>,
    /// Files that the manifest does not list: the sums over those that it does.
    pub(super) sums: Vec<FileRecord>,
}

impl<'a> Viewed<'a> {
    /// Records that the data is stored. Also returns the files that go beside it, the sums over all of them last.
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
            blocks: Blocks::of(
                &passed,
                (&self.names, &self.columns),
                &self.tables_of_script,
                &mut self.begun.notes,
            ),
            references: None,
            archive_version: passed.archive.as_ref().map(|archive| archive.head.version.to_string()),
            bytes_read: passed.bytes_read,
            levels: passed.levels,
            pauses,
            viewed: self,
        };
        if let (Some(archive), Some(base)) = (&passed.archive, &stored.viewed.begun.base) {
            stored.references = stored.blocks.refer(archive, base);
            if stored.references.is_none() {
                let unlike = format!("no table is the same as in {}, so this backup has all tables", base.id);
                stored.viewed.begun.notes.warn(unlike);
            }
        }
        let sidecars = stored.sidecars(passed.archive, md5_of_data, gathered);
        (stored, sidecars)
    }
}

/// The settings of the sessions that read rows: pg_dump's own, those of the COPY streams, and those of the sessions
/// that stream changes.
pub(in crate::job) fn read_settings(encoding: &str) -> ReadSettings {
    [
        ("bytea_output", "hex"),
        ("client_encoding", encoding),
        ("datestyle", "ISO"),
        ("extra_float_digits", "3"),
        ("intervalstyle", "postgres"),
        ("quote_all_identifiers", "off"),
        ("search_path", ""),
        ("timezone", "UTC"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

impl Stored<'_> {
    pub(in crate::job::backup) fn id(&self) -> &BackupId {
        &self.viewed.begun.id
    }

    pub(in crate::job::backup) fn references(&self) -> Option<&References> {
        self.references.as_ref()
    }

    /// The files beside the data, the sums over all of them last.
    pub(super) fn sidecars(
        &mut self,
        archive: Option<Archive>,
        md5_of_data: Option<(String, String)>,
        gathered: Sidecars,
    ) -> Vec<Sidecar> {
        let catalog = self.viewed.catalog.take();
        let begun = &mut self.viewed.begun;
        let mut sidecars = Vec::new();
        let mut add = |role: &str, sidecar: Sidecar| {
            self.files
                .insert(role.to_owned(), file_record(&sidecar.name, &sidecar.bytes));
            sidecars.push(sidecar);
        };
        if let Some(archive) = archive {
            let name = begun.id.toc_name();
            add(role::TOC, begun.sidecar(&name, archive.toc, "application/octet-stream"));
        }
        match gathered.globals {
            Ok(globals) => {
                begun.notes.left_out(globals.left_out);
                add(role::GLOBALS, begun.sidecar(GLOBALS, globals.sql, "application/sql"));
            }
            Err(why) => {
                begun
                    .notes
                    .warn(format!("the backup holds no roles (globals.sql): {why}"));
                self.missing.insert(role::GLOBALS.to_owned(), why);
            }
        }
        add(
            role::SYSTEM_INFO,
            begun.sidecar(SYSTEM_INFO, gathered.system_info, "application/json"),
        );
        if let Some(catalog) = catalog {
            add(role::CATALOG, begun.sidecar(CATALOG, catalog, "application/json"));
        }
        let md5 = begun.md5.then(|| md5_of(md5_of_data, &sidecars));
        let sums = Sidecar::sums(&begun.id, |media| begun.info(media), &self.files, md5);
        self.sums
            .extend(sums.iter().map(|sums| file_record(&sums.name, &sums.bytes)));
        sidecars.extend(sums);
        sidecars
    }

    /// Name and digest of every file that must be tagged before the manifest is put.
    pub(in crate::job::backup) fn tagged_files(&self) -> Vec<(String, String)> {
        self.files
            .values()
            .chain(&self.sums)
            .map(|file| (file.name.clone(), file.sha256.clone()))
            .collect()
    }

    /// The manifest for the store that gave this receipt for the data.
    pub(in crate::job::backup) fn manifest(&self, receipt: &store::Stored, finished: Timestamp) -> Manifest {
        let Viewed { begun, snapshot, .. } = &self.viewed;
        let warnings = &begun.notes.warnings;
        Manifest {
            id: begun.id.clone(),
            kind: begun.id.kind(),
            timestamp: begun.started,
            finished_at: finished,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            database: begun.id.database().to_owned(),
            trigger: begun.trigger,
            digest_file: Some(MANIFEST_DIGEST.to_owned()),
            // These fields differ from store to store.
            predecessor: None,
            store: None,
            stores: Vec::new(),
            tags: None,
            event_id: begun.event_id.clone(),
            server: self.server(),
            pg_dump: PgDump {
                version: begun.source.programs.version.clone(),
                archive_version: self.archive_version.clone(),
            },
            format: begun.format,
            compression: CompressionRecord {
                algorithm: begun.algorithm(),
                level: begun.codec.level(),
            },
            snapshot: SnapshotRecord::from(snapshot),
            tier: begun.tier,
            encryption: None,
            checksums: checksums(&self.files),
            files: self.files.clone(),
            data_files: vec![DataFile {
                role: begun.data_role().to_owned(),
                parts: receipt.parts.clone(),
                store_checksum: receipt.checksum.clone(),
                encryption: None,
            }],
            missing: self.missing.clone(),
            left_out: begun.notes.left_out.clone(),
            extensions: self.viewed.extensions.clone(),
            collations: self.viewed.collations.clone(),
            warnings: warnings[..warnings.len().min(WARNINGS)].to_vec(),
            script: self.blocks.script,
            tables: self.blocks.tables.clone(),
            large_objects: self.blocks.large_objects.clone(),
            settings: Some(read_settings(&begun.source.session.server().encoding)),
            references: self.references.clone(),
            beginning: begun.beginning.clone(),
            increment: None,
            metadata: self.metadata(finished),
        }
    }

    fn server(&self) -> Server {
        let server = self.viewed.begun.source.session.server();
        Server {
            version: server.version.clone(),
            version_num: server.version_num,
            encoding: server.encoding.clone(),
            system_identifier: server.system_identifier.clone(),
            database_oid: Some(server.database_oid),
        }
    }

    fn metadata(&self, finished: Timestamp) -> Metadata {
        let begun = &self.viewed.begun;
        let seconds = finished.duration_since(begun.started).as_secs_f64();
        let rate = if seconds > 0.0 {
            (self.bytes_read as f64 / seconds).round()
        } else {
            0.0
        };
        Metadata {
            bytes_read: Some(self.bytes_read),
            bytes_stored: Some(self.files.values().map(|file| file.bytes).sum()),
            compression_levels: self.levels.clone(),
            database_bytes: begun.database_bytes,
            duration_seconds: Some(seconds),
            host: Some(begun.host.to_owned()),
            paused_seconds: self.pauses.map(|pauses| pauses.time.as_secs_f64()),
            pauses: self.pauses.map(|pauses| pauses.count),
            read_bytes_per_second: Some(rate),
            rows: Some(self.blocks.tables.iter().map(|table| table.rows).sum()),
            streams: Some(self.viewed.streams as u64),
            threads: Some(begun.threads as u64),
        }
    }

    /// Records that the backup exists in the primary, with this manifest.
    pub(in crate::job::backup) fn committed(self, manifest: Manifest) -> Committed {
        let begun = self.viewed.begun;
        Committed {
            manifest,
            took_over: begun.took_over,
            leftovers: begun.leftovers,
            notes: begun.notes,
        }
    }
}

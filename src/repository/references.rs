//! The backup that another one refers to: whether it is there, and still the same.

use std::collections::HashMap;

use super::backup_id::BackupId;
use super::catalog::{Found, is_committed, read_manifest};
use super::manifest::{CompressionAlgorithm, FileRecord, Manifest, References, TableRecord, role};
use crate::dataflow::pipeline::EarlierBlock;
use crate::error::{Code, Error, Result};
use crate::format::Format;
use crate::format::archive::{BlockContent, BlockDigest};
use crate::store::Store;

/// `INTEGRITY` if the store does not have the backup that `of` refers to, or has another one under its id.
pub async fn check(store: &dyn Store, of: &BackupId, references: &References) -> Result<()> {
    let References { from, file, .. } = references;
    let url = store.url();
    let broken = |what: String| {
        Error::new(
            Code::Integrity,
            format!(
                "{of} refers to {from} for {} unchanged tables, but {what}",
                references.tables
            ),
        )
        .hint("use another backup, or bring that one back from a copy of the store")
    };
    let manifest = match read_manifest(store, from).await? {
        Found::Good(manifest) => manifest,
        Found::Missing => return Err(broken(format!("that backup is not in {url}"))),
        Found::Broken(why) => return Err(broken(format!("its manifest in {url} cannot be used: {why}"))),
    };
    if data_file(&manifest) != Some(file) {
        return Err(broken(format!(
            "the backup under that id in {url} is another one: its data file has another digest than {}",
            file.sha256
        )));
    }
    let key = from.key(&file.name);
    match store.head(&key).await? {
        None => Err(broken(format!("{key} is missing in {url}"))),
        Some(head) if head.bytes != file.bytes => Err(broken(format!(
            "{key} in {url} has {} bytes, and not {}",
            head.bytes, file.bytes
        ))),
        Some(_) => Ok(()),
    }
}

/// The same as a question, for lists: whether the store has a backup under this id.
pub async fn is_there(store: &dyn Store, references: &References) -> Result<bool> {
    is_committed(store, &references.from).await
}

fn data_file(manifest: &Manifest) -> Option<&FileRecord> {
    manifest.files.get(role::DUMP)
}

/// A full backup to which another may refer.
#[derive(Debug, Clone)]
pub struct Referent {
    pub id: BackupId,
    pub file: FileRecord,
    tables: HashMap<u32, TableRecord>,
}

impl Referent {
    /// The inner `Err` says why no backup with this compression may refer to it.
    pub fn of(manifest: Manifest, compression: CompressionAlgorithm) -> Result<Self, String> {
        let id = &manifest.id;
        if manifest.references.is_some() {
            return Err(format!("{id} itself refers to another backup"));
        }
        if manifest.format != Format::Custom || manifest.encryption.is_some() {
            return Err(format!("{id} is no plain-text archive in the custom format"));
        }
        if manifest.compression.algorithm != compression {
            return Err(format!(
                "{id} is compressed with {}, and this run compresses with {}",
                manifest.compression.algorithm.name(),
                compression.name()
            ));
        }
        let own = manifest.data_file(role::DUMP).map(|(index, _)| index);
        let Some(file) = data_file(&manifest).cloned() else {
            return Err(format!("{id} has no archive"));
        };
        let id = manifest.id;
        // Without an OID and columns it is not known whether it is the same table.
        let known = manifest
            .tables
            .into_iter()
            .filter(|table| Some(table.place.file) == own);
        let known = known.filter(|table| !table.columns.is_empty());
        let tables = known.filter_map(|table| Some((table.oid?, table))).collect();
        Ok(Self { id, file, tables })
    }

    /// Whether this is its manifest, in some store.
    pub fn is_that_of(&self, manifest: &Manifest) -> bool {
        data_file(manifest) == Some(&self.file)
    }

    pub fn table(&self, oid: u32) -> Option<&TableRecord> {
        self.tables.get(&oid)
    }

    /// The blocks of the tables that are not empty, if `is_same` says that the table is still the same.
    pub fn blocks(&self, is_same: impl Fn(u32, &TableRecord) -> bool) -> HashMap<u32, EarlierBlock> {
        let block = |(oid, table): (&u32, &TableRecord)| {
            let mut sha256 = [0; 32];
            hex::decode_to_slice(&table.sha256, &mut sha256).ok()?;
            let block = EarlierBlock {
                schema: table.schema.clone(),
                name: table.name.clone(),
                digest: BlockDigest {
                    content: BlockContent::Table { rows: table.rows },
                    bytes: table.bytes,
                    sha256,
                },
                length: table.place.length,
            };
            (table.bytes > 0 && is_same(*oid, table)).then_some((*oid, block))
        };
        self.tables.iter().filter_map(block).collect()
    }

    /// What a backup records that refers to these tables.
    pub fn references<'a>(&self, tables: impl Iterator<Item = &'a TableRecord>) -> Option<References> {
        let (tables, bytes) = tables.fold((0, 0_u64), |(tables, bytes), table| {
            (tables + 1, bytes.saturating_add(table.place.length))
        });
        (tables > 0).then(|| References {
            from: self.id.clone(),
            file: self.file.clone(),
            tables,
            bytes,
        })
    }
}

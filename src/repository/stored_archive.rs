//! A backup's archive as it is stored: what the manifest says of each block, joined with the table of contents that
//! is stored beside it. Verify, restore and drill all read through this module.

mod joining;
mod record;

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::dataflow::stored_file::{Assembly, StoredFile};
use crate::error::{Code, Error, Result};
use crate::format::archive::{
    ArchiveError, BlockCheck, BlockCompression, BlockContent, BlockDigest, BlockSink, Blocks, Changing, Head, Input,
    Renumbered, SealedRange, Unpack, empty_block,
};
use crate::format::fold::Net;
use crate::repository::backup_id::BackupId;
use crate::repository::manifest::{self, FileIndex, FileRange, FileRecord, Manifest, role};
use crate::repository::references;
use crate::store::{Store, limits, unsteady};
pub(crate) use record::is_named;

use joining::Joining;
use record::{elsewhere, make_up, records};

/// The archive holds all tables and large objects that the manifest lists. It is one data file, unless the backup refers
/// to another one: then the blocks of unchanged tables are in that one's data file, and the places here are those in the
/// whole archive, as if it were one file.
#[derive(Debug)]
pub struct StoredArchive {
    /// The key of the object in the store.
    pub key: String,
    pub file: FileRecord,
    /// The head, with the offsets filled in.
    pub head: Head,
    /// The blocks' places in the content, in the order of [`Head::data`], without gaps from the head's end to its end.
    pub places: Vec<FileRange>,
    /// The content of each block, in the same order.
    pub promises: Vec<BlockDigest>,
    /// The ranges of each block's table, if it can be loaded in parts; empty for the others.
    pub ranges: Vec<Vec<SealedRange>>,
    /// Schema and name of each block's table; `None` for large objects.
    pub tables: Vec<Option<(String, String)>>,
    /// Where the rows of each block are. Empty: all are in the archive's own file.
    pub origins: Vec<Origin>,
    /// What was changed in each block's table between the backup and the moment that is restored, by the block's index.
    pub changes: HashMap<usize, Arc<Net>>,
    /// Set if some blocks are in another backup's data file.
    pub(crate) referred: Option<Referred>,
}

/// Where the rows of a block are stored. Only an archive that was composed for a moment has blocks from elsewhere.
#[derive(Debug, Clone)]
pub enum Origin {
    /// In the block of this index of another archive.
    Block(Arc<StoredArchive>, usize),
    /// The table was made after the backup, so it has no rows but those of its changes.
    Nothing,
}

/// The blocks that another backup has.
#[derive(Debug)]
pub(crate) struct Referred {
    /// The key of that backup's data file.
    key: String,
    /// By block: whether it is there.
    blocks: Vec<bool>,
    assembly: Assembly,
}

impl StoredArchive {
    /// Reads the table of contents and compares it with the manifest. `INTEGRITY` if they do not describe the same
    /// archive.
    pub async fn open(store: &dyn Store, manifest: &Manifest) -> Result<Self> {
        let toc = file_of(manifest, role::TOC)?;
        let bytes = read_file(store, &manifest.id, toc).await?;
        if let Some(references) = &manifest.references {
            references::check(store, &manifest.id, references).await?;
        }
        Self::describe(manifest, &bytes)
    }

    /// The same, from bytes that the caller has.
    pub fn describe(manifest: &Manifest, toc: &Bytes) -> Result<Self> {
        let id = &manifest.id;
        let file = file_of(manifest, role::DUMP)?.clone();
        let name = &file_of(manifest, role::TOC)?.name;
        let broken = |what: String| Error::new(Code::Integrity, format!("{}: {what}", id.key(name)));
        let head = head_of(manifest, toc).map_err(broken)?;
        let blocks = head.data.len();
        let mut archive = StoredArchive {
            key: id.key(&file.name),
            places: Vec::with_capacity(blocks),
            promises: Vec::with_capacity(blocks),
            ranges: Vec::with_capacity(blocks),
            tables: Vec::with_capacity(blocks),
            origins: Vec::new(),
            changes: HashMap::new(),
            referred: None,
            file,
            head,
        };
        archive.place_blocks(manifest).map_err(broken)?;
        Ok(archive)
    }

    /// Joins each entry of the table of contents with the manifest's record of its block.
    fn place_blocks(&mut self, manifest: &Manifest) -> std::result::Result<(), String> {
        let positions = self
            .head
            .positions()
            .ok_or_else(|| "the blocks' offsets are not filled in".to_owned())?;
        let records = records(manifest).map_err(|hex| format!("the manifest's {hex:?} is no SHA-256"))?;
        if positions.len() != records.len() {
            return Err(format!(
                "it has {} blocks, but the manifest {}",
                positions.len(),
                records.len()
            ));
        }
        let utf8 = manifest.server.encoding == "UTF8";
        let own = manifest.data_file(role::DUMP).map(|(index, _)| index);
        let mut end = self.head.len() as u64;
        let mut joining = Joining::new(manifest, own, &self.head);
        for ((entry, position), mut record) in self.head.data.iter().zip(positions).zip(records) {
            let Some(offset) = joining.join(entry, &record) else {
                return Err(format!(
                    "the manifest says that {entry} is in another file than {}, or not at its place there",
                    self.file.name
                ));
            };
            if offset != position || position != end {
                return Err(elsewhere(entry, &record, position));
            }
            record.move_to(FileIndex::FIRST, offset);
            record.agrees(entry, utf8)?;
            if !make_up(&record.ranges, &record, self.head.int_size) {
                return Err(format!("the manifest's ranges of {entry} do not make up its block"));
            }
            end = record.place.end();
            self.places.push(record.place);
            self.promises.push(record.promise);
            self.ranges.push(record.ranges);
            self.tables.push(record.table);
        }
        let end = joining.own_end;
        self.referred = joining.referred();
        if end != self.file.bytes {
            return Err(format!(
                "its blocks end at byte {end}, but the archive at {}",
                self.file.bytes
            ));
        }
        Ok(())
    }

    /// The file from which its content is read.
    pub fn stored(&self, store: &Arc<dyn Store>) -> StoredFile {
        let assembly = self.referred.as_ref().map(|referred| referred.assembly.clone());
        StoredFile::plain(store, &self.key).assembled(assembly)
    }

    /// Whether another backup has the block.
    pub fn is_referred(&self, index: usize) -> bool {
        self.referred.as_ref().is_some_and(|referred| referred.blocks[index])
    }

    /// The key of the object that has the block, for errors.
    pub fn key_of(&self, index: usize) -> &str {
        match &self.referred {
            Some(referred) if referred.blocks[index] => &referred.key,
            _ => &self.key,
        }
    }

    /// The length of its content.
    pub fn content_bytes(&self) -> u64 {
        self.places.last().map_or(self.head.length(), |place| place.end())
    }

    /// How many rows the table of this block gets. `None`: it is no table, or more of its rows are gone than it has.
    pub fn rows(&self, index: usize) -> Option<u64> {
        match (&self.promises[index].content, self.changes.get(&index)) {
            (BlockContent::Table { rows }, None) => Some(*rows),
            (BlockContent::Table { rows }, Some(net)) => net.rows_after(*rows),
            (BlockContent::LargeObjects { .. }, _) => None,
        }
    }

    /// The digest of the content that the table or the large objects get, if it is known before: not if rows have
    /// changed since the backup.
    pub fn promise(&self, index: usize) -> Option<&BlockDigest> {
        (!self.changes.contains_key(&index)).then(|| &self.promises[index])
    }

    /// Whether the block is in the archive's own file.
    pub fn is_own(&self, index: usize) -> bool {
        self.origins.get(index).is_none()
    }

    /// Reads one block into a sink that gets its content as it is at the moment. The stored rows are compared with the
    /// manifest before the sink gets the block's end. `read` hears how many bytes were read.
    pub fn read_block<S: BlockSink>(
        &self,
        store: &Arc<dyn Store>,
        index: usize,
        sink: &mut S,
        read: &dyn Fn(u64),
    ) -> Result<(), ArchiveError> {
        let mut sink = Changing::new(&self.changes, sink);
        match self.origins.get(index) {
            None => self.read_stored(store, index, &mut sink, read),
            Some(Origin::Block(other, of_other)) => {
                let mut sink = Renumbered {
                    index,
                    inner: &mut sink,
                };
                other.read_stored(store, *of_other, &mut sink, read)
            }
            Some(Origin::Nothing) => empty_block(index, &mut sink),
        }
    }

    fn read_stored<S: BlockSink>(
        &self,
        store: &Arc<dyn Store>,
        index: usize,
        sink: &mut S,
        read: &dyn Fn(u64),
    ) -> Result<(), ArchiveError> {
        let place = self.places[index].range();
        let reading = Counted {
            inner: self.stored(store).read(place.clone()),
            read,
        };
        let mut sink = Unpack::new(self.head.compression, BlockCheck::new(&self.promises, sink));
        Blocks::new(reading, place.start).read(&self.head, index, &place, &mut sink)
    }

    /// The block's name for people: `public.orders`, `large objects`.
    pub fn name(&self, index: usize) -> String {
        match &self.tables[index] {
            Some((schema, name)) => format!("{schema}.{name}"),
            None => "large objects".to_owned(),
        }
    }
}

/// The table of contents, if it is whole and says the same of the compression as the manifest.
fn head_of(manifest: &Manifest, toc: &Bytes) -> std::result::Result<Head, String> {
    let mut input = Input::new(&toc[..]);
    let head = Head::read(&mut input).map_err(|error| error.to_string())?;
    if !matches!(input.available(), Ok([])) {
        return Err("there are bytes after the table of contents".into());
    }
    let announced = match manifest.compression.algorithm {
        manifest::CompressionAlgorithm::None => BlockCompression::None,
        manifest::CompressionAlgorithm::Gzip => BlockCompression::Gzip,
        manifest::CompressionAlgorithm::Zstd => BlockCompression::Zstd,
    };
    // An increment's manifest tells how its changes are compressed. pg_dump before 16 has only gzip for its archive.
    if manifest.increment.is_none() && head.compression != announced {
        return Err(format!(
            "its compression is {:?}, but the manifest says {:?}",
            head.compression, announced
        ));
    }
    Ok(head)
}

/// Tells how many bytes are read.
struct Counted<'a, R> {
    inner: R,
    read: &'a dyn Fn(u64),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        (self.read)(count as u64);
        Ok(count)
    }
}

pub fn file_of<'m>(manifest: &'m Manifest, role: &str) -> Result<&'m FileRecord> {
    manifest.files.get(role).ok_or_else(|| {
        Error::new(
            Code::Integrity,
            format!("the manifest of {} names no {role} file", manifest.id),
        )
    })
}

/// Reads a small file of a backup whole, and checks it against the manifest.
pub async fn read_file(store: &dyn Store, id: &BackupId, file: &FileRecord) -> Result<Bytes> {
    let key = id.key(&file.name);
    let differs = |what: String| Error::new(Code::Integrity, format!("{key} {what}"));
    // Checks the size first, so that a giant file is not read. A second request must confirm that the file is missing
    // or has another size.
    let mut head = store.head(&key).await?;
    if head.as_ref().is_none_or(|head| head.bytes != file.bytes) {
        head = store.head(&key).await?;
    }
    let head = head.ok_or_else(|| differs("is missing".into()))?;
    if head.bytes != file.bytes {
        return Err(differs(format!(
            "has {} bytes, the manifest says {}",
            head.bytes, file.bytes
        )));
    }
    // Reads no more than it should have, even if the store reports another length.
    let most = file.bytes.min(limits::most(&key));
    let mut before: Option<String> = None;
    // A bit that flipped on the way from the store does not prove that the stored file is damaged: two reads must
    // agree.
    for _ in 0..READS {
        let object = store.get_up_to(&key, most).await?;
        let object = object.ok_or_else(|| differs("is missing".into()))?;
        let found = hex::encode(Sha256::digest(&object.body));
        if found == file.sha256 {
            if before.is_some() {
                tracing::warn!("{key} in {} was right when it was read again", store.url());
            }
            return Ok(object.body);
        }
        if before.as_ref() == Some(&found) {
            return Err(differs(format!(
                "has the SHA-256 {found}, the manifest says {}",
                file.sha256
            )));
        }
        before = Some(found);
    }
    Err(unsteady(&key, store.url()))
}

/// How often one small file is read, until it is right or two reads agree.
const READS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::manifest::References;

    /// The manifest and the table of contents of a kept backup.
    fn kept() -> (Manifest, Bytes) {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/backups");
        let id: BackupId = "shop/20250131T040459Z-full".parse().unwrap();
        let read = |key: String| std::fs::read(folder.join(key)).unwrap();
        let manifest = Manifest::parse(&read(id.manifest_key()), &id).unwrap();
        (manifest, read(id.key(&id.toc_name())).into())
    }

    type Change = (&'static str, fn(&mut Manifest));

    #[test]
    fn a_kept_archive_is_described() {
        let (manifest, toc) = kept();
        let archive = StoredArchive::describe(&manifest, &toc).unwrap();
        assert_eq!(archive.places.len(), 5);
        assert_eq!(archive.places[0].offset, toc.len() as u64);
        assert_eq!(archive.places[4].end(), archive.file.bytes);
        assert_eq!(
            (&*archive.name(1), &*archive.name(4)),
            ("public.customers", "large objects")
        );
    }

    /// The kept archive, as if its second table were in an older backup, at another place and as another entry.
    fn referring() -> (Manifest, Bytes) {
        let (mut manifest, toc) = kept();
        let moved = manifest.tables[1].place;
        manifest.references = Some(References {
            from: "shop/20250130T040459Z-full".parse().unwrap(),
            file: FileRecord {
                bytes: 5_000_000,
                ..manifest.files[role::DUMP].clone()
            },
            tables: 1,
            bytes: moved.length,
        });
        let after = moved.offset;
        for place in manifest.tables.iter_mut().map(|table| &mut table.place) {
            if place.offset > after {
                place.offset -= moved.length;
            }
        }
        manifest.tables[1].place = FileRange {
            file: FileIndex(1),
            offset: 4_000_000,
            length: moved.length,
        };
        for objects in &mut manifest.large_objects {
            objects.place.as_mut().unwrap().offset -= moved.length;
        }
        manifest.files.get_mut(role::DUMP).unwrap().bytes -= moved.length;
        (manifest, toc)
    }

    #[test]
    fn blocks_of_another_backup_have_their_places_in_the_whole_archive() {
        let (plain, toc) = kept();
        let whole = StoredArchive::describe(&plain, &toc).unwrap();
        let (manifest, toc) = referring();
        let archive = StoredArchive::describe(&manifest, &toc).unwrap();
        let places = |archive: &StoredArchive| {
            let places = archive.places.iter();
            places.map(|place| place.range()).collect::<Vec<_>>()
        };
        assert_eq!(places(&archive), places(&whole));
        assert_eq!(archive.content_bytes(), whole.content_bytes());
        let referred: Vec<bool> = (0..5).map(|index| archive.is_referred(index)).collect();
        assert_eq!(referred, [false, true, false, false, false]);
        assert_eq!(archive.key_of(1), "shop/20250130T040459Z-full/shop.dump");
        assert_eq!(archive.key_of(2), archive.key);
    }

    #[test]
    fn blocks_that_are_not_where_another_backup_can_have_them_are_refused() {
        let changes: [fn(&mut Manifest); 5] = [
            |manifest| manifest.tables[1].place.offset = 5_000_000,
            |manifest| manifest.tables[1].place.length = 3,
            |manifest| manifest.tables[1].place.file = FileIndex(2),
            |manifest| manifest.tables[2].place.offset += 1,
            |manifest| manifest.large_objects[0].place.as_mut().unwrap().file = FileIndex(1),
        ];
        for change in changes {
            let (mut manifest, toc) = referring();
            change(&mut manifest);
            let error = StoredArchive::describe(&manifest, &toc).unwrap_err();
            assert!(error.message().contains("another file"), "{error}");
        }
    }

    #[test]
    fn places_that_overlap_leave_gaps_or_lie_elsewhere_are_refused() {
        let (whole, toc) = kept();
        let changes: [Change; 8] = [
            ("differ on the place", |manifest| manifest.tables[1].place.offset -= 1),
            ("differ on the place", |manifest| manifest.tables[1].place.length -= 1),
            ("differ on the place", |manifest| manifest.tables[1].place.length += 1),
            ("differ on the place", |manifest| {
                manifest.tables[1].place = manifest.tables[2].place;
            }),
            ("end at byte", |manifest| {
                let place = manifest.large_objects[0].place.as_mut().unwrap();
                place.length = u64::MAX - place.offset;
            }),
            ("blocks, but the manifest 4", |manifest| {
                manifest.large_objects[0].place = None;
            }),
            ("blocks, but the manifest 6", |manifest| {
                let last = manifest.tables[3].clone();
                manifest.tables.push(last);
            }),
            ("in another file than shop.dump", |manifest| {
                manifest.tables[1].place.file = FileIndex(1);
            }),
        ];
        for (what, change) in changes {
            let mut manifest = whole.clone();
            change(&mut manifest);
            let error = StoredArchive::describe(&manifest, &toc).unwrap_err();
            assert_eq!(error.code(), Code::Integrity);
            assert!(error.message().contains(what), "{what}: {error}");
        }
    }
}

//! The data file of a backup: pgstow digests the stored bytes, and reads them as a restore does.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use md5::Md5;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::script::{self, ScriptReading};
use super::{Data, Finding, tallies};
use crate::error::{Code, Error, Result};
use crate::format::archive::{ArchiveError, BlockCheck, Blocks, Discard, RangeCheck, SealedRange, Spoilt, Unpack};
use crate::format::changes::{self, ChangesError};
use crate::repository::backup_id::{BackupId, MD5SUMS};
use crate::repository::manifest::{FileRecord, Manifest, role};
use crate::repository::stored_archive::{StoredArchive, file_of};
use crate::repository::stored_changes::StoredChanges;
use crate::run::progress::Observer;
use crate::run::threads::apart;
use crate::store::Store;
use crate::store::reading::Reading;

/// How many slices may wait for the slower thread.
const WAITING: usize = 2;

/// Compares every block and the digest of the whole file with the manifest.
pub(super) async fn archive(
    store: &Arc<dyn Store>,
    archive: StoredArchive,
    md5: Option<[u8; 16]>,
    observer: &Arc<dyn Observer>,
) -> Result<(u64, Vec<Finding>)> {
    let (key, file) = (archive.key.clone(), archive.file.clone());
    let watching = Arc::clone(observer);
    let stored = Arc::new(archive.stored(store));
    // What another backup has is verified with that one; here its content is compared, block by block.
    let own = (0..archive.places.len()).filter(|index| !archive.is_referred(*index));
    let ranges: Vec<SealedRange> = own.flat_map(|index| archive.ranges[index].iter().cloned()).collect();
    let ranges = stored.seals(&ranges);
    let runtime = Handle::current();
    let archive = Arc::new(archive);
    let (looking, undoing) = (Arc::clone(&archive), Arc::clone(&stored));
    let look = move |source: Slices| {
        let content = undoing.undo_own(0..looking.content_bytes(), source, &runtime);
        blocks(&looking, content, &*watching)
    };
    let Seen {
        bytes,
        mut findings,
        spoilt,
    } = read(
        store,
        key,
        Promise {
            file: &file,
            ranges,
            md5,
        },
        observer,
        look,
    )
    .await?;
    for spoilt in spoilt {
        let before = |index: &usize| {
            let place = archive.places[*index].range();
            !archive.is_referred(*index) && stored.stored(&place).start <= spoilt.range.offset
        };
        let table = (0..archive.places.len())
            .rev()
            .find(before)
            .map(|index| archive.name(index));
        // Damage in the rows is reported already.
        if !findings.iter().any(|known| known.table == table) {
            findings.push(Finding {
                file: file.name.clone(),
                table,
                what: spoilt.to_string(),
            });
        }
    }
    Ok((bytes, findings))
}

/// Checks a plain script. Also returns the counts, if the manifest does not count its tables.
pub(super) async fn script(
    store: &Arc<dyn Store>,
    manifest: &Manifest,
    md5: Option<[u8; 16]>,
    observer: &Arc<dyn Observer>,
) -> Result<Data> {
    let file = file_of(manifest, role::SQL)?.clone();
    let key = manifest.id.key(&file.name);
    let (name, promised) = (file.name.clone(), manifest.clone());
    let (tell, told) = oneshot::channel();
    let look = move |source| {
        let ScriptReading {
            findings,
            counted,
            refused,
        } = script::look(&promised, &name, source)?;
        // The receiver is gone only if the whole run has ended.
        let _ = tell.send((counted, refused));
        Ok(findings)
    };
    let seen = read(store, key, Promise::of(&file, md5), observer, look).await?;
    let (counted, refused) = told.await.unwrap_or_default();
    // A script whose digest differs is damaged, whatever it holds now. Otherwise it holds what the backup's run read.
    let not_run = refused.filter(|_| seen.findings.is_empty());
    Ok(Data {
        read: seen.bytes,
        findings: seen.findings,
        counted,
        not_run: not_run.map(|refused| {
            format!(
                "{} has the bytes that the manifest says, but this version would not run it, and did not count its \
                 tables: {refused}",
                file.name
            )
        }),
    })
}

/// Compares the changes of an increment, and the digest of their file, with the manifest.
pub(super) async fn changes(
    store: &Arc<dyn Store>,
    stored: StoredChanges,
    manifest: &Manifest,
    md5: Option<[u8; 16]>,
    observer: &Arc<dyn Observer>,
) -> Result<(u64, Vec<Finding>)> {
    let (key, file) = (stored.key.clone(), stored.file.clone());
    let (name, promised) = (file.name.clone(), manifest.clone());
    let look = move |source: Slices| match changes::check(source, &stored.head, (*stored.index).clone()) {
        Ok(found) => {
            let increment = promised.increment.as_ref();
            Ok(increment.map_or_else(Vec::new, |increment| tallies::differences(&promised, increment, &found)))
        }
        Err(ChangesError::Io(error)) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error.into()),
        Err(error) => Ok(vec![Finding::of_file(&name, error.to_string())]),
    };
    let seen = read(store, key, Promise::of(&file, md5), observer, look).await?;
    Ok((seen.bytes, seen.findings))
}

/// Checks only the digest of a data file.
pub(super) async fn object(
    store: &Arc<dyn Store>,
    id: &BackupId,
    file: &FileRecord,
    md5: Option<[u8; 16]>,
    observer: &Arc<dyn Observer>,
) -> Result<(u64, Vec<Finding>)> {
    let key = id.key(&file.name);
    let seen = read(store, key, Promise::of(file, md5), observer, |_| Ok(Vec::new())).await?;
    Ok((seen.bytes, seen.findings))
}

/// What the manifest says of an object.
struct Promise<'a> {
    file: &'a FileRecord,
    ranges: Vec<SealedRange>,
    /// The MD5 in `MD5SUMS`, if there is one.
    md5: Option<[u8; 16]>,
}

impl<'a> Promise<'a> {
    fn of(file: &'a FileRecord, md5: Option<[u8; 16]>) -> Self {
        Self {
            file,
            ranges: Vec::new(),
            md5,
        }
    }
}

/// The result of one reading.
#[derive(Default)]
struct Seen {
    bytes: u64,
    findings: Vec<Finding>,
    spoilt: Vec<Spoilt>,
}

/// Reads the object once, for two threads: one digests it, the other checks its contents.
async fn read(
    store: &Arc<dyn Store>,
    key: String,
    promise: Promise<'_>,
    observer: &Arc<dyn Observer>,
    look: impl FnOnce(Slices) -> Result<Vec<Finding>, ArchiveError> + Send + 'static,
) -> Result<Seen> {
    let Promise { file, ranges, md5 } = promise;
    let of_file = |what: String| Finding::of_file(&file.name, what);
    let unread = |what: String| Seen {
        findings: vec![of_file(what)],
        ..Seen::default()
    };
    let head = match store.head(&key).await {
        Ok(Some(head)) => head,
        Ok(None) => return Ok(unread("is missing".into())),
        // Another object has this key.
        Err(error) if error.code() == Code::Integrity => {
            return Ok(unread(format!("cannot be read: {}", error.message())));
        }
        Err(error) => return Err(error),
    };
    if head.bytes != file.bytes {
        let what = format!("has {} bytes, the manifest says {}", head.bytes, file.bytes);
        return Ok(unread(what));
    }
    observer.estimate(file.bytes);
    let (to_digest, mut digesting) = mpsc::channel::<Bytes>(WAITING);
    let (to_look, looking) = mpsc::channel::<Bytes>(WAITING);
    let digest = apart("digest", move || digest(&mut digesting, ranges, md5.is_some()));
    let source = Slices {
        slices: looking,
        current: Bytes::new(),
        left: file.bytes,
    };
    let looked = apart("look", move || look(source));
    let mut reading = Reading::start(Arc::clone(store), key, 0..file.bytes);
    while let Some(bytes) = reading.next().await? {
        observer.bytes_read(bytes.len() as u64);
        // The check of the contents may end early; the digest still needs the rest.
        let _ = to_look.send(bytes.clone()).await;
        let _ = to_digest.send(bytes).await;
    }
    drop((to_look, to_digest));
    let (sha256, sum, spoilt) = digest.await?;
    let mut findings = looked.await??;
    if sha256 != file.sha256 {
        let what = format!("has the SHA-256 {sha256}, the manifest says {}", file.sha256);
        findings.push(of_file(what));
    } else if sum != md5 {
        let what = format!("gives {} another digest than it has", file.name);
        findings.push(Finding::of_file(MD5SUMS, what));
    }
    Ok(Seen {
        bytes: file.bytes,
        findings,
        spoilt,
    })
}

/// The SHA-256 of all slices, their MD5 if it is asked for, and the ranges that differ.
fn digest(
    slices: &mut mpsc::Receiver<Bytes>,
    ranges: Vec<SealedRange>,
    with_md5: bool,
) -> (String, Option<[u8; 16]>, Vec<Spoilt>) {
    let mut sha256 = Sha256::new();
    let mut sum = with_md5.then(Md5::new);
    let mut check = RangeCheck::new(0, ranges);
    let mut spoilt = Vec::new();
    while let Some(bytes) = slices.blocking_recv() {
        sha256.update(&bytes);
        if let Some(sum) = &mut sum {
            sum.update(&bytes);
        }
        check.update(&bytes, |one| spoilt.push(one));
    }
    let sum: Option<[u8; 16]> = sum.map(|sum| sum.finalize().into());
    (hex::encode(sha256.finalize()), sum, spoilt)
}

fn blocks(
    archive: &StoredArchive,
    mut source: impl Read,
    observer: &dyn Observer,
) -> Result<Vec<Finding>, ArchiveError> {
    let mut findings = Vec::new();
    let finding = |file: &str, table: Option<String>, what: String| Finding {
        file: file.to_owned(),
        table,
        what,
    };
    let mut head = vec![0; archive.head.len()];
    source.read_exact(&mut head)?;
    let wanted = archive.head.without_offsets();
    if let Some(at) = head.iter().zip(&wanted).position(|(found, wanted)| found != wanted) {
        let what = format!("its header or table of contents differs from the stored .toc file at byte {at}");
        findings.push(finding(&archive.file.name, None, what));
    }
    let mut blocks = Blocks::new(source, head.len() as u64);
    let mut sink = Unpack::new(archive.head.compression, BlockCheck::new(&archive.promises, Discard));
    for (index, place) in archive.places.iter().enumerate() {
        let name = archive.name(index);
        observer.table(&name);
        match blocks.read(&archive.head, index, &place.range(), &mut sink) {
            Ok(()) => {}
            Err(ArchiveError::Io(error)) => return Err(error.into()),
            Err(error) => {
                // The block of another backup is named with that backup.
                let file = match archive.is_referred(index) {
                    true => archive.key_of(index),
                    false => &archive.file.name,
                };
                findings.push(finding(file, Some(name), error.to_string()));
            }
        }
    }
    Ok(findings)
}

/// The slices that one of the two threads gets, as a reader.
struct Slices {
    slices: mpsc::Receiver<Bytes>,
    current: Bytes,
    /// Bytes that have not come yet. If the stream ends before, the reader of the store has the reason.
    left: u64,
}

impl Read for Slices {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.current.is_empty() && self.left > 0 && !buffer.is_empty() {
            let cut = || Error::new(Code::Internal, "the task that reads from the store died");
            self.current = self.slices.blocking_recv().ok_or_else(|| io::Error::other(cut()))?;
            self.left -= self.current.len() as u64;
        }
        let length = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

//! A file of a backup for clients that read it piece by piece, such as over HTTP. No disk is between the store and the
//! client.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};

use super::{archive, head, local_name};
use crate::error::{Code, Error, Result};
use crate::repository::backup_id::BackupId;
use crate::repository::catalog::Located;
use crate::repository::manifest::{FileRecord, Manifest, role};
use crate::store::Store;
use crate::store::reading::Reading;

/// Which bytes a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileChoice {
    /// The archive with the offsets laid in, for stock `pg_restore -j` and `-t`.
    Seekable,
    /// The data file of the backup as it is stored: the archive, the script or the changes.
    Stored,
    /// The file of this name.
    Named(String),
}

/// A file that can be read. It does not change: its backup does not.
pub struct Offered {
    pub id: BackupId,
    /// A file name without anything that steers a terminal or a shell.
    pub name: String,
    pub bytes: u64,
    /// Of the file as it is offered, in hex digits. `None`: its start is replaced, and nobody has read the result yet.
    pub sha256: Option<String>,
    /// Differs for files that differ.
    pub tag: String,
    store: Arc<dyn Store>,
    record: FileRecord,
    /// What lies over the start.
    head: Option<Bytes>,
}

/// # Errors
/// `NOT_FOUND` for a name that the manifest does not have, `CONFIG` for a form that this backup does not have.
pub async fn offer(located: Located, wanted: &FileChoice) -> Result<Offered> {
    let Located { store, manifest, .. } = located;
    let record = match wanted {
        FileChoice::Seekable => archive(&manifest)?,
        FileChoice::Stored => manifest
            .files
            .get(role::CHANGES)
            .map_or_else(|| archive(&manifest), Ok)?,
        FileChoice::Named(name) => named(&manifest, name)?,
    };
    let head = match (wanted, manifest.files.get(role::TOC)) {
        (FileChoice::Seekable, Some(toc)) => {
            if let Some(references) = &manifest.references {
                let what = format!("the archive of {} has tables in {}", manifest.id, references.from);
                return Err(
                    Error::config(what).hint("`pgstow download` puts them together; form=stored leaves them out")
                );
            }
            Some((head(store.as_ref(), &manifest, toc).await?, toc))
        }
        _ => None,
    };
    let tag = match &head {
        Some((_, toc)) => format!("{}-{}", record.sha256, toc.sha256),
        None => record.sha256.clone(),
    };
    Ok(Offered {
        name: local_name(&manifest.id, record)?,
        bytes: record.bytes,
        sha256: head.is_none().then(|| record.sha256.clone()),
        tag,
        record: record.clone(),
        head: head.map(|(head, _)| head),
        id: manifest.id,
        store,
    })
}

fn named<'a>(manifest: &'a Manifest, name: &str) -> Result<&'a FileRecord> {
    let found = manifest.files.values().find(|file| file.name == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = manifest.files.values().map(|file| file.name.as_str()).collect();
        Error::new(Code::NotFound, format!("{} has no file of this name", manifest.id))
            .hint(format!("it has: {}", names.join(", ")))
    })
}

impl Offered {
    /// Reads a part of it. The first requests start when the first piece is asked for.
    pub fn read(&self, range: Range<u64>) -> Pieces {
        let whole = range == (0..self.bytes);
        Pieces {
            store: Arc::clone(&self.store),
            key: self.id.key(&self.record.name),
            at: range.start,
            range,
            reading: None,
            head: self.head.clone().unwrap_or_default(),
            digest: whole.then(|| (Sha256::new(), self.record.sha256.clone())),
            held: None,
        }
    }
}

/// The bytes of a part, in order. Dropping it ends the requests to the store.
pub struct Pieces {
    store: Arc<dyn Store>,
    key: String,
    range: Range<u64>,
    reading: Option<Reading>,
    /// Where the next slice begins.
    at: u64,
    head: Bytes,
    /// Of the stored bytes, if all of them are read, with what the manifest says.
    digest: Option<(Sha256, String)>,
    /// The last piece waits until the digest of all is known.
    held: Option<Bytes>,
}

impl Pieces {
    /// The next bytes; `None` at the end. If the stored bytes as a whole are not those of the manifest, the last piece
    /// is never returned, but `INTEGRITY`.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let start = || Reading::start(Arc::clone(&self.store), self.key.clone(), self.range.clone());
            let Some(slice) = self.reading.get_or_insert_with(start).next().await? else {
                return self.last();
            };
            if let Some((digest, _)) = &mut self.digest {
                digest.update(&slice);
            }
            let piece = laid(&self.head, self.at, slice);
            self.at += piece.len() as u64;
            if let Some(before) = self.held.replace(piece) {
                return Ok(Some(before));
            }
        }
    }

    fn last(&mut self) -> Result<Option<Bytes>> {
        let Some((digest, expected)) = self.digest.take() else {
            return Ok(self.held.take());
        };
        let found = hex::encode(digest.finalize());
        if found != expected {
            self.held = None;
            let (key, url) = (&self.key, self.store.url());
            return Err(Error::new(
                Code::Integrity,
                format!("{key} in {url} differs from the backup: its SHA-256 is {found}, the manifest says {expected}"),
            ));
        }
        Ok(self.held.take())
    }
}

/// The slice that begins at `at`, with the head over it.
fn laid(head: &Bytes, at: u64, slice: Bytes) -> Bytes {
    let Some(hidden) = usize::try_from(at).ok().and_then(|at| head.get(at..)) else {
        return slice;
    };
    let hidden = &hidden[..hidden.len().min(slice.len())];
    if hidden.is_empty() {
        return slice;
    }
    let mut laid = BytesMut::with_capacity(slice.len());
    laid.extend_from_slice(hidden);
    laid.extend_from_slice(&slice[hidden.len()..]);
    laid.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_lies_over_the_start_of_whatever_part_is_read() {
        let object: Vec<u8> = (0..=255).collect();
        let head = Bytes::from_static(&[7; 100]);
        let expected = [&head[..], &object[100..]].concat();
        for (from, to) in [
            (0, 256),
            (0, 50),
            (50, 100),
            (50, 150),
            (99, 101),
            (100, 200),
            (200, 256),
        ] {
            let slice = Bytes::copy_from_slice(&object[from..to]);
            assert_eq!(laid(&head, from as u64, slice), expected[from..to], "{from}..{to}");
        }
        let slice = Bytes::copy_from_slice(&object);
        assert_eq!(laid(&Bytes::new(), 0, slice), object);
    }
}

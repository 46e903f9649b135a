//! The archive of a backup that refers to another one: its own blocks, and those of the other, as one file that stock
//! pg_restore reads. No digest of the whole is known before, so every block is compared with the manifest.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::partial::Partial;
use super::target::file_error;
use crate::dataflow::stored_file::Content;
use crate::error::{Code, Error, Result};
use crate::format::archive::{ArchiveError, BlockCheck, Blocks, Discard, Unpack};
use crate::repository::stored_archive::StoredArchive;
use crate::run::progress::Observer;
use crate::run::stop::Stop;
use crate::run::threads::apart;
use crate::store::Store;

pub(super) struct Assembling<'a> {
    pub store: &'a Arc<dyn Store>,
    pub archive: StoredArchive,
    /// The table of contents, which replaces the start.
    pub head: Bytes,
    pub stop: &'a Stop,
    pub observer: &'a Arc<dyn Observer>,
}

impl Assembling<'_> {
    /// Fills the file from its start. Returns its length, and the digest that it has with the head laid over it.
    pub(super) async fn fill(self, partial: &Partial) -> Result<(u64, String)> {
        let bytes = self.archive.content_bytes();
        self.observer.phase("downloading");
        self.observer.estimate(bytes);
        let writing = Writing {
            content: self.archive.stored(self.store).read(0..bytes),
            file: partial.file(),
            path: partial.path().to_owned(),
            at: 0,
            hidden: self.head.len(),
            sha256: Sha256::new_with_prefix(&self.head),
            failed: None,
            stop: self.stop.clone(),
            observer: Arc::clone(self.observer),
        };
        let archive = self.archive;
        let written = apart("assemble", move || write(&archive, writing));
        let sha256 = self.stop.or_stop(async { written.await? }).await?;
        Ok((bytes, sha256))
    }
}

fn write(archive: &StoredArchive, mut writing: Writing) -> Result<String> {
    let copied = copy(archive, &mut writing);
    if let Some(error) = writing.failed.take() {
        return Err(error);
    }
    copied?;
    if writing.at != archive.content_bytes() {
        return Err(Error::internal("the blocks are not the whole archive"));
    }
    Ok(hex::encode(writing.sha256.finalize()))
}

fn copy(archive: &StoredArchive, writing: &mut Writing) -> Result<()> {
    let mut head = vec![0; archive.head.len()];
    let read = writing.read_exact(&mut head);
    read.map_err(|error| damaged(&archive.key, None, error.into()))?;
    let mut blocks = Blocks::new(&mut *writing, head.len() as u64);
    let mut sink = Unpack::new(archive.head.compression, BlockCheck::new(&archive.promises, Discard));
    for (index, place) in archive.places.iter().enumerate() {
        let read = blocks.read(&archive.head, index, &place.range(), &mut sink);
        read.map_err(|error| damaged(archive.key_of(index), Some(archive.name(index)), error))?;
    }
    Ok(())
}

fn damaged(key: &str, table: Option<String>, error: ArchiveError) -> Error {
    let of = table.map_or(String::new(), |table| format!(": {table}"));
    match error {
        ArchiveError::Io(error) => match error.downcast::<Error>() {
            Ok(ours) => ours,
            Err(error) => Error::new(Code::Store, format!("cannot read {key}{of}")).source(error),
        },
        other => Error::new(Code::Integrity, format!("{key}{of}: {other}")),
    }
}

/// Passes bytes on, and writes them into the file.
struct Writing {
    content: Content,
    file: Arc<File>,
    path: PathBuf,
    at: u64,
    /// How many bytes at the start the head will replace.
    hidden: usize,
    sha256: Sha256,
    /// Why the file could not be written.
    failed: Option<Error>,
    stop: Stop,
    observer: Arc<dyn Observer>,
}

impl Read for Writing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(reason) = self.stop.reason() {
            self.failed = Some(reason.into());
            return Err(io::ErrorKind::Other.into());
        }
        let count = self.content.read(buffer)?;
        let bytes = &buffer[..count];
        if let Err(error) = self.file.write_all_at(bytes, self.at) {
            self.failed = Some(file_error("write", &self.path, error));
            return Err(io::ErrorKind::Other.into());
        }
        let hidden = self.hidden.min(count);
        self.hidden -= hidden;
        self.sha256.update(&bytes[hidden..]);
        self.at += count as u64;
        self.observer.bytes_read(count as u64);
        Ok(count)
    }
}

//! An increment's changes as they are stored. Whatever reads changes reads them here: only the frames that can hold
//! what is selected are read, and every byte is checked against a digest that the manifest leads to.

mod frames;

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::error::{Code, Error, Result};
use crate::format::changes::{ChangesError, Head, Index, Item, Reader, Selection, Transaction};
use crate::format::pgoutput::Message;
use crate::repository::manifest::{FileRecord, IndexRecord, Manifest, Stream, role};
use crate::repository::stored_archive::file_of;
use crate::run::threads::apart;
use crate::store::reading::our_error;
use crate::store::{Store, unsteady};
use frames::Frames;

/// How often the index is read, until it is right or two reads agree.
const READS: usize = 4;

/// The file of changes of one increment, with its index.
pub struct StoredChanges {
    store: Arc<dyn Store>,
    /// The key of the object in the store.
    pub key: String,
    pub file: FileRecord,
    /// The head that the file must have.
    pub head: Head,
    pub index: Arc<Index>,
}

impl StoredChanges {
    /// Reads the index and compares it with the manifest. `INTEGRITY` if they do not describe the same file, and if
    /// the backup is no increment.
    pub async fn open(store: &Arc<dyn Store>, manifest: &Manifest) -> Result<Self> {
        let file = file_of(manifest, role::CHANGES)?.clone();
        let key = manifest.id.key(&file.name);
        let stream = stream_of(manifest)?;
        let bytes = index(store.as_ref(), &key, &file, &stream.index).await?;
        Self::describe(store, manifest, &bytes)
    }

    /// The same, from the bytes of the index, whose digest is right.
    pub fn describe(store: &Arc<dyn Store>, manifest: &Manifest, index: &[u8]) -> Result<Self> {
        let file = file_of(manifest, role::CHANGES)?.clone();
        let key = manifest.id.key(&file.name);
        let stream = stream_of(manifest)?;
        let head = head_of(stream).ok_or_else(|| {
            let what = format!("the manifest's {:?} is no system identifier", stream.system_identifier);
            wrong(&key, &what)
        })?;
        let index = Index::parse(index, file.bytes).map_err(|error| wrong(&key, &error.to_string()))?;
        if index.to != stream.to {
            let what = format!(
                "its index says that it ends at {}, the manifest {}",
                index.to, stream.to
            );
            return Err(wrong(&key, &what));
        }
        if index.times() != stream.index.earliest.zip(stream.index.latest) {
            return Err(wrong(&key, "its index has other commit times than the manifest says"));
        }
        Ok(Self {
            store: Arc::clone(store),
            key,
            file,
            head,
            index: Arc::new(index),
        })
    }

    /// The selected messages. The requests start at once, so call this in a tokio runtime; but read outside of it, in a
    /// thread of [`apart`].
    pub fn read(&self, selection: Selection) -> Result<ChangesReading> {
        let wanted = self.index.frames(&selection);
        let frames = wanted.iter().map(|frame| &self.index.frames[*frame]);
        let source = Frames::start(&self.store, &self.key, frames.map(|frame| frame.offset..frame.end()));
        let reader = Reader::new(source, self.head.from, Arc::clone(&self.index), selection);
        Ok(ChangesReading {
            reader: reader.map_err(|error| self.failed(error))?,
            key: self.key.clone(),
        })
    }

    /// The first transaction, in the order of the commits, whose time is later: what is restored to this time ends
    /// before it. `None`: there is none in this increment. It reads one frame.
    pub async fn first_later(&self, time: Timestamp) -> Result<Option<Transaction>> {
        let Some(number) = self.index.first_later(time) else {
            return Ok(None);
        };
        let mut reading = self.frame(number)?;
        let found = apart("first later", move || {
            while let Some(item) = reading.next()? {
                if let Some(transaction) = item.transaction.filter(|transaction| transaction.time > time) {
                    let mut last = transaction;
                    // The end is known in this frame, or from the next one.
                    while last.end.is_none()
                        && let Some(item) = reading.next()?
                    {
                        if let (Message::Commit(_), Some(ended)) = (&item.message, item.transaction) {
                            last = ended;
                        }
                    }
                    return Ok(Some(last));
                }
            }
            Ok(None)
        });
        found.await?
    }

    /// All messages of one frame.
    fn frame(&self, number: usize) -> Result<ChangesReading> {
        let frame = &self.index.frames[number];
        let source = Frames::start(&self.store, &self.key, std::iter::once(frame.offset..frame.end()));
        let reader = Reader::of_frames(source, self.head.from, Arc::clone(&self.index), vec![number]);
        Ok(ChangesReading {
            reader: reader.map_err(|error| self.failed(error))?,
            key: self.key.clone(),
        })
    }

    /// In the words of the command line.
    pub fn failed(&self, error: ChangesError) -> Error {
        failed(&self.key, error)
    }
}

/// The selected messages of an increment, for a thread outside of the runtime.
pub struct ChangesReading {
    reader: Reader<Frames>,
    key: String,
}

impl ChangesReading {
    /// The next message; `None` at the end. `INTEGRITY` if the file is damaged; or the store's error.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Item<'_>>> {
        let key = &self.key;
        self.reader.next().map_err(|error| failed(key, error))
    }
}

fn failed(key: &str, error: ChangesError) -> Error {
    match error {
        ChangesError::Io(error) => match our_error(error) {
            Ok(ours) => ours,
            Err(error) => Error::new(Code::Integrity, format!("{key} cannot be read")).source(error),
        },
        error => wrong(key, &error.to_string()),
    }
}

fn wrong(key: &str, what: &str) -> Error {
    Error::new(Code::Integrity, format!("{key}: {what}"))
}

fn stream_of(manifest: &Manifest) -> Result<&Stream> {
    let increment = manifest.increment.as_ref();
    let stream = increment.map(|increment| &increment.stream);
    stream.ok_or_else(|| Error::new(Code::Integrity, format!("{} is no increment", manifest.id)))
}

/// The head that the manifest promises. `None`: its system identifier is no number.
pub fn head_of(stream: &Stream) -> Option<Head> {
    Some(Head {
        system_identifier: stream.system_identifier.parse().ok()?,
        timeline: stream.timeline,
        database_oid: stream.database_oid,
        from: stream.from,
    })
}

/// The bytes of the index, whose digest is right.
async fn index(store: &dyn Store, key: &str, file: &FileRecord, record: &IndexRecord) -> Result<Bytes> {
    let is_at_the_end = record.offset.checked_add(record.length) == Some(file.bytes);
    if !is_at_the_end || record.length > crate::format::changes::limits::INDEX as u64 {
        return Err(wrong(key, "the manifest has an impossible place for its index"));
    }
    let mut before: Option<String> = None;
    for _ in 0..READS {
        let bytes = store.get_range(key, record.offset, record.length).await?;
        let bytes = bytes.ok_or_else(|| wrong(key, "is missing, or shorter than the manifest says"))?;
        let found = hex::encode(Sha256::digest(&bytes));
        if found == record.sha256 {
            return Ok(bytes);
        }
        if before.as_ref() == Some(&found) {
            let what = format!("its index has the SHA-256 {found}, the manifest says {}", record.sha256);
            return Err(wrong(key, &what));
        }
        before = Some(found);
    }
    Err(unsteady(key, store.url()))
}

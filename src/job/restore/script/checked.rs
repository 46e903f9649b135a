//! Checks a plain dump before psql is started: every stored byte against the manifest's digest, and every statement
//! with [`Screen`]. It keeps a digest of each piece, to compare when the script is read again.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};

use crate::error::{Code, Error, Result};
use crate::format::script::{Edit, Refused, Screen, Watch};
use crate::repository::manifest::{CompressionAlgorithm, FileRecord, Manifest, role};
use crate::repository::stored_archive::file_of;
use crate::repository::stored_script::{Unread, unpack};
use crate::run::progress::Observer;
use crate::run::threads::apart;
use crate::store::Store;
use crate::store::reading::{BlockingReading, Reading, our_error};

/// A script that passed the check.
pub(crate) struct Checked {
    object: Object,
    /// The SHA-256 of each piece: 32 bytes for every MiB.
    pub(super) pieces: Vec<[u8; 32]>,
    pub(super) edits: Vec<Edit>,
    bytes: u64,
}

/// Where a script is stored, and what the manifest says about it.
#[derive(Clone)]
struct Object {
    store: Arc<dyn Store>,
    key: String,
    file: FileRecord,
    algorithm: CompressionAlgorithm,
    /// The number of bytes that pg_dump wrote.
    limit: u64,
}

/// Returns `INTEGRITY` if the script differs from the manifest, `RESTORE_ERR` if it contains a statement that is not
/// allowed. `watch` sees every statement.
pub(crate) async fn check<W: Watch + Send + 'static>(
    store: &Arc<dyn Store>,
    manifest: &Manifest,
    observer: &Arc<dyn Observer>,
    watch: W,
) -> Result<(Checked, W)> {
    let file = file_of(manifest, role::SQL)?.clone();
    let object = Object {
        store: Arc::clone(store),
        key: manifest.id.key(&file.name),
        file,
        algorithm: manifest.compression.algorithm,
        limit: manifest.metadata.bytes_read.unwrap_or(u64::MAX),
    };
    // The observer counts the bytes twice: now, and when the script runs.
    observer.estimate(2 * object.file.bytes);
    let (reading, _reader) = object.read(observer);
    let looking = apart("look", move || look(object, reading, Screen::watched(watch)));
    looking.await?
}

fn look<W: Watch>(object: Object, mut stored: Stored, mut screen: Screen<W>) -> Result<(Checked, W)> {
    let mut refused: Option<Refused> = None;
    let mut pieces = Vec::new();
    let mut bytes = 0;
    object.pieces(&mut stored, |piece| {
        bytes += piece.len() as u64;
        pieces.push(Sha256::digest(&piece).into());
        if refused.is_none() {
            refused = screen.pass(&piece).err();
        }
        Ok::<_, Error>(())
    })?;
    // Bytes after the last frame are digested too.
    io::copy(&mut stored, &mut io::sink()).map_err(|error| object.unread(error))?;
    let found = hex::encode(stored.sha256.finalize());
    if found != object.file.sha256 {
        let what = format!("has the SHA-256 {found}, the manifest says {}", object.file.sha256);
        return Err(object.differs(&what));
    }
    let edits = match refused {
        Some(refused) => Err(refused),
        None => screen.end_watched(),
    };
    let (edits, watch) = edits.map_err(|refused| {
        Error::new(
            Code::RestoreErr,
            format!("the script {} is not run: {refused}", object.key),
        )
        .hint(
            "pg_dump does not write this: find out who has changed the script, or fetch it with pgstow download \
             and read it",
        )
    })?;
    let checked = Checked {
        object,
        pieces,
        edits,
        bytes,
    };
    Ok((checked, watch))
}

impl Checked {
    /// The size of the unpacked script.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads the script again, for [`Checked::each`] in a thread. The thread ends when the second value is dropped.
    pub(super) fn read(&self, observer: &Arc<dyn Observer>) -> (Stored, Reader) {
        self.object.read(observer)
    }

    /// Passes every piece to `take`, in order, after checking that it has not changed.
    pub(super) fn each<E: From<Error>>(
        &self,
        stored: &mut Stored,
        mut take: impl FnMut(Vec<u8>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut promised = self.pieces.iter();
        let changed = || self.object.differs("has changed since it was checked");
        self.object.pieces(stored, |piece| {
            let found: [u8; 32] = Sha256::digest(&piece).into();
            if promised.next() != Some(&found) {
                return Err(changed().into());
            }
            take(piece)
        })?;
        match promised.next() {
            None => Ok(()),
            Some(_) => Err(changed().into()),
        }
    }
}

impl Object {
    fn read(&self, observer: &Arc<dyn Observer>) -> (Stored, Reader) {
        let gone = Arc::new(AtomicBool::new(false));
        let reading = Reading::start(Arc::clone(&self.store), self.key.clone(), 0..self.file.bytes);
        let stored = Stored {
            inner: reading.into_blocking(),
            sha256: Sha256::new(),
            observer: Arc::clone(observer),
            gone: Arc::clone(&gone),
        };
        (stored, Reader(gone))
    }

    /// The script, unpacked.
    fn pieces<E: From<Error>>(
        &self,
        stored: &mut Stored,
        take: impl FnMut(Vec<u8>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        match unpack(self.algorithm, stored, self.limit, take) {
            Ok(bytes) if bytes <= self.limit => Ok(()),
            Ok(_) => Err(self.differs("contains more SQL than the manifest says").into()),
            Err(Unread::Stored(error)) => Err(self.unread(error).into()),
            Err(Unread::Taken(error)) => Err(error),
        }
    }

    fn unread(&self, error: io::Error) -> Error {
        match our_error(error) {
            Ok(ours) => ours,
            Err(error) => self.differs(&format!("does not decompress: {error}")),
        }
    }

    fn differs(&self, what: &str) -> Error {
        Error::new(Code::Integrity, format!("{} {what}", self.key))
    }
}

/// Held by the task that waits for the reading thread. When it is dropped, the thread ends.
pub(super) struct Reader(Arc<AtomicBool>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The stored bytes, digested while they are read.
pub(super) struct Stored {
    inner: BlockingReading,
    sha256: Sha256,
    observer: Arc<dyn Observer>,
    gone: Arc<AtomicBool>,
}

impl Read for Stored {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.gone.load(Ordering::Relaxed) {
            return Err(io::Error::other(Error::internal("reading the script was stopped")));
        }
        let count = self.inner.read(buffer)?;
        self.sha256.update(&buffer[..count]);
        self.observer.bytes_read(count as u64);
        Ok(count)
    }
}

//! The first look at a plain dump, before psql is started: every stored byte against the manifest's
//! digest, every statement by [`Screen`], and of each piece what it must be when it comes again.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};

use crate::error::{Code, Error, Result};
use crate::format::script::{Edit, Refused, Screen, Watch};
use crate::repository::manifest::{Algorithm, FileRecord, Manifest, role};
use crate::repository::stored_archive::file_of;
use crate::run::progress::Observer;
use crate::run::threads::apart;
use crate::store::Store;
use crate::store::reading::{BlockingReading, Reading, our_error};

/// Of the script, unpacked.
pub(super) const PIECE: usize = 1 << 20;
/// Our frames hold 2 MiB; see [`crate::format::archive::Unpack`].
const ZSTD_WINDOW_LOG: u32 = 24;

/// A script that may be run.
pub(crate) struct Checked {
    object: Object,
    /// The SHA-256 of each piece: 32 bytes for every MiB.
    pub(super) pieces: Vec<[u8; 32]>,
    pub(super) edits: Vec<Edit>,
    bytes: u64,
}

/// Where a script lies, and what the manifest says of it.
#[derive(Clone)]
struct Object {
    store: Arc<dyn Store>,
    key: String,
    file: FileRecord,
    algorithm: Algorithm,
    /// As many bytes as pg_dump wrote.
    limit: u64,
}

/// `INTEGRITY` if it is not what the manifest says, `RESTORE_ERR` if it holds what is not run. `watch` is told
/// what it holds.
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
    // Now, and once more when it is run.
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
    // What follows the last frame is digested as well.
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
    let (edits, watch) =
        edits.map_err(|refused| {
            Error::new(Code::RestoreErr, format!("the script {} is not run: {refused}", object.key)).hint(
            "pg_dump writes nothing of the kind: find out who has changed the script, or fetch it with pgstow download \
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
    /// Of the script, unpacked.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The script once more, for [`Checked::each`] in a thread. While the second value lives.
    pub(super) fn read(&self, observer: &Arc<dyn Observer>) -> (Stored, Reader) {
        self.object.read(observer)
    }

    /// Every piece, in order, when it is what it was before.
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

    /// The script, unpacked, in pieces of [`PIECE`] bytes; the last is shorter.
    fn pieces<E: From<Error>>(
        &self,
        stored: &mut Stored,
        take: impl FnMut(Vec<u8>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        match self.algorithm {
            Algorithm::None => self.cut(stored, take),
            Algorithm::Gzip => self.cut(MultiGzDecoder::new(stored), take),
            Algorithm::Zstd => {
                let decoder = zstd::stream::read::Decoder::new(stored);
                let decoder = decoder.and_then(|mut decoder| decoder.window_log_max(ZSTD_WINDOW_LOG).map(|()| decoder));
                self.cut(decoder.map_err(|error| self.unread(error))?, take)
            }
        }
    }

    fn cut<E: From<Error>>(
        &self,
        mut script: impl Read,
        mut take: impl FnMut(Vec<u8>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut left = self.limit;
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            let read = Read::by_ref(&mut script).take(PIECE as u64).read_to_end(&mut piece);
            read.map_err(|error| self.unread(error))?;
            if piece.is_empty() {
                return Ok(());
            }
            left = left
                .checked_sub(piece.len() as u64)
                .ok_or_else(|| self.differs("holds more SQL than the manifest says"))?;
            take(piece)?;
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

/// Who waits for the thread that reads; gone, that one ends.
pub(super) struct Reader(Arc<AtomicBool>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The stored bytes, digested as they pass.
pub(super) struct Stored {
    inner: BlockingReading,
    sha256: Sha256,
    observer: Arc<dyn Observer>,
    gone: Arc<AtomicBool>,
}

impl Read for Stored {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.gone.load(Ordering::Relaxed) {
            return Err(io::Error::other(Error::internal("reading the script was given up")));
        }
        let count = self.inner.read(buffer)?;
        self.sha256.update(&buffer[..count]);
        self.observer.bytes_read(count as u64);
        Ok(count)
    }
}

//! The texts of changed rows: in memory as long as they fit, then in a file.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::FoldError;

/// What a changed row takes beside its texts: its place in the map and in the list, and what the allocator adds.
const PER_ROW: u64 = 120;
/// The file is written in pieces of this size.
const PIECE: usize = if cfg!(test) { 256 } else { 1 << 20 };

/// The memory of all tables of one restore, and the file for what does not fit.
pub struct Memory {
    budget: u64,
    /// Bytes of keys, and of rows that are in memory.
    keys: AtomicU64,
    rows: AtomicU64,
    make_file: Box<dyn Fn() -> io::Result<File> + Send + Sync>,
    file: Mutex<SpillFile>,
}

#[derive(Default)]
struct SpillFile {
    file: Option<File>,
    /// How much of it is in the file; what follows is in `tail`.
    written: u64,
    tail: Vec<u8>,
}

/// The text of one row.
#[derive(Debug)]
pub(super) enum Image {
    Kept(Box<[u8]>),
    InFile { at: u64, length: u32 },
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("budget", &self.budget).finish_non_exhaustive()
    }
}

impl Memory {
    /// Rows may take half of the budget; the keys may take the rest. `make_file` makes an empty file that has no name;
    /// it is called if rows do not fit.
    pub fn new(budget: u64, make_file: impl Fn() -> io::Result<File> + Send + Sync + 'static) -> Self {
        Self {
            budget,
            keys: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            make_file: Box::new(make_file),
            file: Mutex::default(),
        }
    }

    /// How many bytes of rows are in the file.
    pub fn spilled(&self) -> u64 {
        let file = self.file();
        file.written + file.tail.len() as u64
    }

    /// Takes note of a new key.
    pub(super) fn take_key(&self, key: &[u8]) -> Result<(), FoldError> {
        let cost = key.len() as u64 + PER_ROW;
        let keys = self.keys.fetch_add(cost, Ordering::Relaxed).saturating_add(cost);
        match keys.saturating_add(self.rows.load(Ordering::Relaxed)) <= self.budget {
            true => Ok(()),
            false => Err(FoldError::Memory(self.budget)),
        }
    }

    pub(super) fn give_key_back(&self, key: &[u8]) {
        self.keys.fetch_sub(key.len() as u64 + PER_ROW, Ordering::Relaxed);
    }

    pub(super) fn keep(&self, row: &[u8]) -> Result<Image, FoldError> {
        let length = row.len() as u64;
        let rows = self.rows.load(Ordering::Relaxed).saturating_add(length);
        let keys = self.keys.load(Ordering::Relaxed);
        if rows <= self.budget / 2 && rows.saturating_add(keys) <= self.budget {
            self.rows.fetch_add(length, Ordering::Relaxed);
            return Ok(Image::Kept(row.into()));
        }
        let Ok(length) = u32::try_from(row.len()) else {
            return Err(FoldError::Changes("a row is longer than 4 GiB".into()));
        };
        let at = self.file().append(row, &self.make_file)?;
        Ok(Image::InFile { at, length })
    }

    pub(super) fn release(&self, image: &Image) {
        if let Image::Kept(row) = image {
            self.rows.fetch_sub(row.len() as u64, Ordering::Relaxed);
        }
    }

    /// Puts the row's text at the end of `out`.
    pub(super) fn read(&self, image: &Image, out: &mut Vec<u8>) -> Result<(), FoldError> {
        match image {
            Image::Kept(row) => out.extend_from_slice(row),
            Image::InFile { at, length } => self.file().read(*at, *length as usize, out)?,
        }
        Ok(())
    }

    fn file(&self) -> MutexGuard<'_, SpillFile> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SpillFile {
    fn append(&mut self, row: &[u8], make: impl Fn() -> io::Result<File>) -> io::Result<u64> {
        let at = self.written + self.tail.len() as u64;
        self.tail.extend_from_slice(row);
        if self.tail.len() >= PIECE {
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(make()?),
            };
            file.write_all(&self.tail)?;
            self.written += self.tail.len() as u64;
            self.tail.clear();
        }
        Ok(at)
    }

    /// A row is either in the file or in the tail: the tail is written as a whole.
    fn read(&self, at: u64, length: usize, out: &mut Vec<u8>) -> io::Result<()> {
        if let Some(from) = at.checked_sub(self.written) {
            let from = usize::try_from(from).map_err(io::Error::other)?;
            let row = self.tail.get(from..from + length);
            out.extend_from_slice(row.ok_or(io::ErrorKind::UnexpectedEof)?);
            return Ok(());
        }
        let file = self.file.as_ref().ok_or(io::ErrorKind::UnexpectedEof)?;
        let before = out.len();
        out.resize(before + length, 0);
        file.read_exact_at(&mut out[before..], at)
    }
}

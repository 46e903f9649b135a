//! The journal: who asked for what, and how it ended. It says nothing about which backups exist: only the store does.
//!
//! It is a folder of files of JSON lines. Every line has the digest of all lines before it, so a line that was changed,
//! removed or put in between is found ([`Journal::check`]). Whoever may write the folder can still write all of it anew:
//! copies of closed files elsewhere guard against that.

mod head;
mod line;

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::pauses::Pause;
use super::run::Run;
use super::scheduler::Kind;
use crate::error::{Code, Error, Result};
use crate::run::files::{io_error, sync_folder};
use head::{Digest, Head};
use line::Line;

pub use line::Record;

/// A file this long is closed, and the next one begun.
const SEGMENT: u64 = 8 << 20;
/// No line is longer. A run's report that is longer is left out of the journal.
const LONGEST: usize = 256 << 10;
const LOCK: &str = "journal.lock";

/// What a line records.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub enum Entry {
    /// The run as it is from now on.
    Run { run: Box<Run> },
    /// Somebody asked for something: written before it has an effect.
    Asked(Asked),
    /// A schedule rests.
    Paused(Pause),
    /// And goes on.
    Resumed { schedule: Kind, by: String },
    /// The end of the file was torn when the process before died, and was cut off.
    Torn { bytes: u64 },
    /// The record that was the last one is no longer there, or is another one: the journal's end was cut off or written
    /// anew while no process had it open.
    Missing { seq: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Asked {
    pub by: String,
    pub role: String,
    /// The address that the request came from.
    pub from: String,
    /// `restore`, `cancel`, `login` and the like.
    pub action: String,
    /// A run, a backup or a schedule.
    pub what: String,
    /// `asked` before it has an effect, or why it had none. For a login, `allowed` or `refused`.
    pub outcome: String,
}

/// What [`Journal::check`] found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    pub lines: u64,
    /// The first line that does not follow from those before it, or the first that is missing.
    pub broken: Option<String>,
}

/// The one writer of its folder.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    writing: Mutex<Writing>,
    /// Held as long as the journal is.
    _lock: File,
}

#[derive(Debug)]
struct Writing {
    file: File,
    head: Head,
    bytes: u64,
    next: u64,
    last: Digest,
}

impl Journal {
    /// Opens the journal of a folder, which is made if need be; every record so far goes to `past`, oldest first.
    ///
    /// # Errors
    /// `BUSY` if another process has it; `EACCES`, `ENOSPC` and the like if the folder cannot be used.
    pub fn open(folder: &Path, now: Timestamp, mut past: impl FnMut(Record)) -> Result<Journal> {
        let mut made = fs::DirBuilder::new();
        made.recursive(true).mode(0o700);
        made.create(folder).map_err(|error| io_error("create", folder, error))?;
        let lock = locked(folder)?;
        let (head, mark) = Head::open(folder)?;
        let mut is_marked_there = false;
        let mut last = Digest::default();
        let mut next = 1;
        let segments = segments(folder)?;
        for segment in &segments {
            let mut lines = Lines::open(segment)?;
            while let Some(text) = lines.next()? {
                // A line that is not ours breaks the chain, which `check` says; the rest is read all the same.
                let Some(line) = Line::read(&text) else { continue };
                is_marked_there |= mark == Some(line.mark());
                (last, next) = (line.digest, line.record.seq.saturating_add(1));
                past(line.record);
            }
        }
        let path = segments.last().cloned().unwrap_or_else(|| segment_path(folder, next));
        let (file, bytes, torn) = continued(&path)?;
        sync_folder(folder)?;
        let journal = Journal {
            folder: folder.to_owned(),
            writing: Mutex::new(Writing {
                file,
                head,
                bytes,
                next,
                last,
            }),
            _lock: lock,
        };
        if torn > 0 {
            journal.write(now, Entry::Torn { bytes: torn })?;
        }
        if let Some(mark) = mark.filter(|_| !is_marked_there) {
            journal.write(now, Entry::Missing { seq: mark.seq })?;
        }
        Ok(journal)
    }

    /// Writes a record to the disk. It blocks for as long as the disk takes.
    ///
    /// # Errors
    /// `ENOSPC`, `EACCES`, `STORE`. What depends on the record must then not be done.
    pub fn write(&self, at: Timestamp, entry: Entry) -> Result<()> {
        let mut writing = self.writing();
        if writing.bytes >= SEGMENT {
            let path = segment_path(&self.folder, writing.next);
            let (file, bytes, _) = continued(&path)?;
            sync_folder(&self.folder)?;
            (writing.file, writing.bytes) = (file, bytes);
        }
        let mut record = Record {
            seq: writing.next,
            at,
            entry,
        };
        let mut line = Line::after(writing.last, &record)?;
        if line.text.len() > LONGEST
            && let Entry::Run { run } = &mut record.entry
        {
            run.result = None;
            line = Line::after(writing.last, &record)?;
        }
        if line.text.len() > LONGEST {
            return Err(Error::new(Code::Config, "the record is too long for the journal"));
        }
        let before = writing.bytes;
        let written = writing
            .file
            .write_all(line.text.as_bytes())
            .and_then(|()| writing.file.sync_data());
        if let Err(error) = written {
            // Half a line must not stand before the next one.
            let _ = writing.file.set_len(before);
            let _ = writing.file.seek(SeekFrom::Start(before));
            return Err(io_error("write the journal in", &self.folder, error));
        }
        writing.bytes += line.text.len() as u64;
        writing.next += 1;
        writing.last = line.digest;
        // The record is written. Without its head, only a cut between two processes would not be seen.
        if let Err(error) = writing.head.set(line.mark()) {
            tracing::warn!("the head of the journal was not written: {error}");
        }
        Ok(())
    }

    /// Reads all records again up to the last one that this process knows, and compares each line with those before it.
    /// The records go to `found`, oldest first.
    pub fn check(&self, mut found: impl FnMut(Record)) -> Result<Checked> {
        let (end, last_digest) = {
            let writing = self.writing();
            (writing.next, writing.last)
        };
        let mut checked = Checked { lines: 0, broken: None };
        let mut last = Digest::default();
        let mut next = 1;
        for segment in segments(&self.folder)? {
            let name = segment.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mut lines = Lines::open(&segment)?;
            // What is written meanwhile is left to the next check.
            while next != end
                && let Some(text) = lines.next()?
            {
                checked.lines += 1;
                let line = Line::read(&text);
                let follows = |line: &Line| line.record.seq == next && line.is_after(last, &text);
                if !line.as_ref().is_some_and(follows) {
                    checked.broken.get_or_insert_with(|| format!("{name}, record {next}"));
                }
                if let Some(line) = line {
                    (last, next) = (line.digest, line.record.seq.saturating_add(1));
                    if let Entry::Missing { seq } = &line.record.entry {
                        checked
                            .broken
                            .get_or_insert_with(|| format!("{name}, records up to {seq}"));
                    }
                    found(line.record);
                }
            }
        }
        if (next, last) != (end, last_digest) {
            checked.broken.get_or_insert_with(|| format!("the end, record {next}"));
        }
        Ok(checked)
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        // A panic leaves at worst half a line, which is cut off when the file is opened again.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn locked(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK);
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    let file = options.open(&path).map_err(|error| io_error("open", &path, error))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        // A file system without locks: then it is the user's to start one process only.
        Ok(()) | Err(Errno::NOSYS | Errno::NOLCK | Errno::NOTSUP) => Ok(file),
        Err(Errno::AGAIN) => Err(Error::new(
            Code::Busy,
            format!("another pgstow serve uses the folder {}", folder.display()),
        )
        .hint("stop that process, or give this one another BACKUP_STATE_DIR")),
        Err(error) => Err(io_error("lock", &path, error.into())),
    }
}

fn segment_path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("journal-{first:012}.jsonl"))
}

/// The files of the journal, oldest first.
fn segments(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| io_error("list", folder, error);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let digits = name
            .to_str()
            .and_then(|name| name.strip_prefix("journal-")?.strip_suffix(".jsonl"));
        if digits.is_some_and(|digits| digits.len() == 12 && digits.bytes().all(|byte| byte.is_ascii_digit())) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Opens a file to go on after its last whole line: the file, its length, and the bytes that were cut off.
fn continued(path: &Path) -> Result<(File, u64, u64)> {
    let failed = |error| io_error("open", path, error);
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true).mode(0o600);
    let mut file = options.open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let tail = length.min(LONGEST as u64 + 1);
    file.seek(SeekFrom::Start(length - tail)).map_err(failed)?;
    let mut end = Vec::new();
    (&file).take(tail).read_to_end(&mut end).map_err(failed)?;
    let whole = match memchr::memrchr(b'\n', &end) {
        Some(at) => length - tail + at as u64 + 1,
        None => length - tail,
    };
    if whole < length {
        file.set_len(whole).and_then(|()| file.sync_data()).map_err(failed)?;
    }
    file.seek(SeekFrom::Start(whole)).map_err(failed)?;
    Ok((file, whole, length - whole))
}

/// The whole lines of a file, none longer than [`LONGEST`].
struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
}

impl Lines {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| io_error("open", path, error))?;
        Ok(Self {
            path: path.to_owned(),
            reader: BufReader::new(file),
        })
    }

    /// The next line without its end. What is longer than a line can be comes in pieces, none of which is a record.
    fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let limit = LONGEST as u64 + 1;
        let read = (&mut self.reader).take(limit).read_until(b'\n', &mut line);
        read.map_err(|error| io_error("read", &self.path, error))?;
        match line.pop() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(line)),
            // The torn end of the last file.
            Some(_) if (line.len() as u64) < limit - 1 => Ok(None),
            Some(_) => Ok(Some(line)),
        }
    }
}

#[cfg(test)]
mod tests;

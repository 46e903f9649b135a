//! One small file of a folder store: how it is read, how its versions are distinguished, and how it is replaced.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::way::{descend, segments};
use crate::error::{Code, Error, Result};
use crate::repository::backup_id::MANIFEST;
use crate::run::files::io_error;
use crate::run::publication::{Publish, Published};
use crate::store::beneath::Folder;
use crate::store::limits::{self, too_long};
use crate::store::temporary::Temporary;
use crate::store::{Condition, Object, ObjectVersion, Put};

/// Up to this length, a file's version is the digest of its bytes. For longer files that would cost too much, so it
/// is made from inode data. Files that are replaced under a condition are small.
const DIGEST_LIMIT: u64 = 16 << 20;
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// An open file of the store, with its folder, name and length.
pub(super) struct Opened {
    pub(super) file: File,
    pub(super) bytes: u64,
    pub(super) path: PathBuf,
}

pub(super) fn open(root: &Path, key: &str) -> Result<Option<Opened>> {
    let names = segments(key)?;
    let Some((name, folders)) = names.split_last() else {
        return Ok(None);
    };
    match descend(root, folders)? {
        Some(folder) => open_in(&folder, name),
        None => Ok(None),
    }
}

fn open_in(folder: &Folder, name: &str) -> Result<Option<Opened>> {
    Ok(folder.open(name)?.map(|(file, bytes)| Opened {
        file,
        bytes,
        path: folder.path().join(name),
    }))
}

/// The whole file, if it has at most `most` bytes: by its reported length and by the bytes read, since a file may
/// grow meanwhile.
pub(super) fn read(opened: &Opened, most: u64) -> Result<Object> {
    let Opened { file, bytes, path } = opened;
    if *bytes > most {
        return Err(too_long(&path.display().to_string(), *bytes, most));
    }
    let body = take(file, *bytes, most).map_err(|error| io_error("read", path, error))?;
    if body.len() as u64 > most {
        return Err(too_long(&path.display().to_string(), body.len() as u64, most));
    }
    let version = if *bytes > DIGEST_LIMIT {
        version(opened)?
    } else {
        digest_version(&body)
    };
    Ok(Object {
        body: Bytes::from(body),
        version,
    })
}

/// Reads at most one byte more than `most`; `expected` is the initial capacity.
fn take(file: &File, expected: u64, most: u64) -> io::Result<Vec<u8>> {
    let room = usize::try_from(expected.saturating_add(1)).unwrap_or(0);
    let mut body = Vec::with_capacity(room);
    file.take(most.saturating_add(1)).read_to_end(&mut body)?;
    Ok(body)
}

fn digest_version(bytes: &[u8]) -> ObjectVersion {
    ObjectVersion(hex::encode(Sha256::digest(bytes)))
}

pub(super) fn version(opened: &Opened) -> Result<ObjectVersion> {
    let Opened { file, bytes, path } = opened;
    let failed = |error: io::Error| io_error("read", path, error);
    if *bytes > DIGEST_LIMIT {
        // A new version is always a new file, with another inode or another time.
        let metadata = file.metadata().map_err(failed)?;
        return Ok(ObjectVersion(format!(
            "{}-{}-{}.{}",
            metadata.ino(),
            metadata.len(),
            metadata.mtime(),
            metadata.mtime_nsec()
        )));
    }
    Ok(digest_version(&take(file, *bytes, DIGEST_LIMIT).map_err(failed)?))
}

pub(super) fn put(root: &Path, names: &[String], body: &[u8], condition: Option<&Condition>) -> Result<Put> {
    let temporary = Temporary::create(root, names)?;
    let written = temporary.write(body).and_then(|()| temporary.sync());
    if let Err(error) = written {
        return Err(error.with_clean_up(temporary.remove()));
    }
    let name = names.last().map_or("", String::as_str);
    // Held from reading the old version to the rename, so that two processes cannot both find the version unchanged.
    // Dropping it releases the lock.
    let lock = match lock(temporary.folder()) {
        Ok(lock) => Some(lock),
        Err(error) if matches!(condition, Some(Condition::Unchanged(_))) => {
            return Err(error.with_clean_up(temporary.remove()));
        }
        // If the file system has no locks, the other two cases are atomic without one.
        Err(_) => None,
    };
    // The existing file may be larger than any that pgstow puts: then it is not the expected one.
    let current = |folder: &Folder| match open_in(folder, name)? {
        Some(opened) => read(&opened, limits::most(name).max(body.len() as u64)).map(Some),
        None => Ok(None),
    };
    let folder = temporary.folder().try_clone()?;
    let path = folder.path().join(name);
    let file = temporary.file();
    let published = match condition {
        None => temporary.publish(Publish::Replace)?,
        Some(Condition::Absent) => temporary.publish(Publish::IfAbsent)?,
        Some(Condition::Unchanged(expected)) => match current(&folder) {
            Ok(Some(current)) if current.version == *expected => temporary.publish(Publish::Replace)?,
            Ok(_) => {
                temporary.remove()?;
                Published::Exists
            }
            Err(error) => return Err(error.with_clean_up(temporary.remove())),
        },
    };
    // Only now: before, another member of the group could put a manifest in the place of ours.
    if published == Published::Done && name == MANIFEST {
        folder.admit();
    }
    let put = match published {
        Published::Done if body.len() as u64 > DIGEST_LIMIT => {
            let file = file.try_clone().map_err(|error| io_error("read", &path, error))?;
            let bytes = body.len() as u64;
            Put::Done(version(&Opened { file, bytes, path })?)
        }
        Published::Done => Put::Done(digest_version(body)),
        // It has the same bytes already: this put is a repeated one.
        Published::Exists => match current(&folder)? {
            Some(current) if current.body == body => Put::Done(current.version),
            _ => Put::Refused,
        },
    };
    drop(lock);
    Ok(put)
}

fn lock(folder: &Folder) -> Result<File> {
    let failed = |error: io::Error| io_error("lock", folder.path(), error);
    let file = folder.for_lock().map_err(failed)?;
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(fs::TryLockError::WouldBlock) => {
                let what = format!("cannot lock {}: another process holds it", folder.path().display());
                return Err(Error::new(Code::Store, what));
            }
            Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
}

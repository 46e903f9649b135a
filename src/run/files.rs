//! File operations that all modules share. They block, so call them within [`blocking`].

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock, fsync};
use rustix::io::Errno;

use crate::error::{Code, Error, Result};

/// Other runs hold a folder's lock for milliseconds, but any process could hold it for ever.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Keeps other runs from changing a file of the folder at the same time. Closing the handle releases the lock.
pub fn lock_folder(folder: &File) -> io::Result<()> {
    let end = Instant::now() + LOCK_PATIENCE;
    loop {
        match flock(folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            // This file system has no locks. The rename still keeps the file whole.
            Err(Errno::NOSYS | Errno::NOLCK | Errno::NOTSUP) => return Ok(()),
            Err(Errno::AGAIN | Errno::INTR) if Instant::now() < end => sleep(Duration::from_millis(20)),
            Err(Errno::AGAIN) => return Err(io::Error::other("another process holds the lock of its folder")),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Runs blocking work on the runtime's threads for it.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::internal("the thread that works on the store's folder died").source(error)),
    }
}

/// The folder of `path`; for a bare name, the working folder.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

pub fn sync_folder(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(sync_handle)
        .map_err(|error| io_error("sync the folder", path, error))
}

/// Writes added and removed names of an open folder to the disk.
pub fn sync_handle(folder: impl AsFd) -> io::Result<()> {
    match fsync(folder) {
        // This file system cannot sync a folder.
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes a file; a missing file is not an error.
pub fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path, error)),
        _ => Ok(()),
    }
}

/// `what` is the verb in "cannot … <path>".
pub fn io_error(what: &str, path: &Path, error: io::Error) -> Error {
    let code = match error.kind() {
        // A limit on file sizes (ulimit -f) counts as a full disk.
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => Code::Enospc,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Code::Eacces,
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Code::Enoent,
        _ => Code::Store,
    };
    let ours = Error::new(code, format!("cannot {what} {}", path.display())).source(error);
    let reads = ["list", "read", "open", "look at"]
        .iter()
        .any(|verb| what.starts_with(verb));
    if code == Code::Eacces && reads {
        return ours.hint(
            "let this user read it and enter the folders above it: check owner and mode with `ls -ld`, and whether an \
             earlier run was another user's",
        );
    }
    ours
}

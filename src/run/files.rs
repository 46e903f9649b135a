//! Work on files that every room does alike. All of it blocks, and so runs within [`blocking`].

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;

use crate::error::{Code, Error, Result};

/// Other runs hold a folder's lock for milliseconds; anybody may hold it for ever.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Keeps others of us from changing a file of the folder at the same time. It goes with the handle.
pub fn lock_folder(folder: &File) -> io::Result<()> {
    let end = Instant::now() + LOCK_PATIENCE;
    loop {
        match flock(folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            // A file system without locks: the rename still keeps the file whole.
            Err(Errno::NOSYS | Errno::NOLCK | Errno::NOTSUP) => return Ok(()),
            Err(Errno::AGAIN | Errno::INTR) if Instant::now() < end => sleep(Duration::from_millis(20)),
            Err(Errno::AGAIN) => return Err(io::Error::other("another process holds its folder's lock")),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Runs what blocks where blocking is allowed.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::internal("work on the store's folder was cut off").source(error)),
    }
}

/// Atomically, an existing name is refused.
pub fn rename_if_absent(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // Some file systems do not know the flag; a hard link refuses an existing name as well.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        Err(error) => Err(error.into()),
    }
}

/// The folder that `path` is in; the working folder for a bare name.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

pub fn sync_folder(path: &Path) -> Result<()> {
    match File::open(path).and_then(|folder| folder.sync_all()) {
        // This file system has no such thing as syncing a folder.
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Ok(()),
        other => other.map_err(|error| io_error("sync the folder", path, error)),
    }
}

/// A missing file is no error.
pub fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path, error)),
        _ => Ok(()),
    }
}

/// `what` is the verb of "cannot … <path>".
pub fn io_error(what: &str, path: &Path, error: io::Error) -> Error {
    let code = match error.kind() {
        // A limit on the length of files (ulimit -f) is an end of the room too.
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
            "let this user read it, and enter the folders around it: see its owner and mode with `ls -ld`, and whether an \
             earlier run was another user's",
        );
    }
    ours
}

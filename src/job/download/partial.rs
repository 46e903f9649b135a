//! An unfinished download: a hidden file beside its target. If a run is interrupted, the file stays and the next run
//! continues it. Everything here blocks.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, OFlags, fallocate};
use rustix::process::geteuid;

use super::target::file_error;
use crate::error::{Code, Error, Result};
use crate::repository::backup_id::BackupId;
use crate::run::files::{parent, remove_file};
use crate::run::publication::{Publish, Published, Step, give_name, kept};
use crate::units::human_bytes;

pub struct Partial {
    path: PathBuf,
    target: PathBuf,
    /// It is locked as long as it is open.
    file: Arc<File>,
}

impl Partial {
    /// Opens `.<name>.<stamp>.partial` beside the target: a new file, or the one of an earlier run.
    pub fn open(target: &Path, stamp: &str) -> Result<Self> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let path = parent(target).join(format!(".{}.{stamp}.partial", kept(&name)));
        loop {
            let opened = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
                .open(&path);
            let file = opened.map_err(|error| file_error("write", &path, error))?;
            lock(&file, &path)?;
            let ours = file.metadata().map_err(|error| file_error("look at", &path, error))?;
            // The run that held the lock before may have given the file its name, or removed it.
            if fs::symlink_metadata(&path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                // In a folder that all users may write to, another user may have put a file there to read the backup.
                if !ours.is_file() || ours.uid() != geteuid().as_raw() || ours.nlink() != 1 {
                    let what = format!(
                        "{} exists, but another user owns it or it is no plain file",
                        path.display()
                    );
                    return Err(Error::new(Code::Eacces, what).hint("remove it, or name a file elsewhere with -o"));
                }
                file.set_permissions(Permissions::from_mode(0o600))
                    .map_err(|error| file_error("protect", &path, error))?;
                return Ok(Self {
                    path,
                    target: target.to_owned(),
                    file: Arc::new(file),
                });
            }
        }
    }

    /// Its length, after the file system has reserved the room for all of `bytes`.
    pub fn resumable(&self, bytes: u64) -> Result<u64> {
        let mut there = self.length()?;
        if there > bytes {
            self.restart()?;
            there = 0;
        }
        match fallocate(&*self.file, FallocateFlags::KEEP_SIZE, 0, bytes) {
            Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => {
                let needed = human_bytes(bytes - there);
                let folder = parent(&self.target).display().to_string();
                Err(
                    Error::new(Code::Enospc, format!("{folder} has no room for {needed} more"))
                        .hint("free space there, or name a file elsewhere with -o"),
                )
            }
            // Not every file system can reserve room. A later write will fail if there is none.
            _ => Ok(there),
        }
    }

    pub fn restart(&self) -> Result<()> {
        self.file.set_len(0).map_err(|error| self.failed("empty", error))
    }

    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn length(&self) -> Result<u64> {
        let metadata = self.file.metadata();
        Ok(metadata.map_err(|error| self.failed("look at", error))?.len())
    }

    fn failed(&self, what: &str, error: io::Error) -> Error {
        file_error(what, &self.path, error)
    }

    /// Call this when the file is whole and proved: overwrites its start with `head` and gives it its name. A failure
    /// leaves the file as it was, except the start, which the next run fetches again.
    pub fn publish(self, head: Option<&[u8]>, replace: bool) -> Result<()> {
        let written = match head {
            Some(head) => self.file.write_all_at(head, 0),
            None => Ok(()),
        };
        // The bytes reach the disk before the name does.
        written
            .and_then(|()| self.file.sync_all())
            .map_err(|error| self.failed("write", error))?;
        let how = match replace {
            true => Publish::Replace,
            false => Publish::IfAbsent,
        };
        let folder = File::open(parent(&self.target)).map_err(|error| file_error("make", &self.target, error))?;
        let (from, to) = (self.path.file_name(), self.target.file_name());
        match give_name(&folder, from.unwrap_or_default(), to.unwrap_or_default(), how) {
            Ok(Published::Done) => Ok(()),
            Ok(Published::Exists) => {
                let what = format!("{} was created by another program meanwhile", self.target.display());
                Err(Error::config(what).hint("run it again with --force to replace it: nothing is fetched twice"))
            }
            Err(unpublished) if unpublished.step == Step::Rename => {
                let undone = unpublished.undone;
                let undone = undone.map_err(|error| file_error("undo the rename to", &self.target, error));
                Err(file_error("make", &self.target, unpublished.error).with_clean_up(undone))
            }
            Err(unpublished) => Err(unpublished.told("make", &self.target)),
        }
    }

    /// After a failure: removes the file if it is damaged or empty. Otherwise it stays for the next run of `id`'s
    /// download, and the error says so.
    pub fn keep_or_remove(self, id: &BackupId, error: Error) -> Error {
        let length = self.length().unwrap_or(0);
        if error.code() == Code::Integrity || length == 0 {
            return error.with_clean_up(remove_file(&self.path));
        }
        // Release the reserved room beyond the existing bytes.
        let _ = self.file.set_len(length);
        let again = format!(
            "download {id} again: it goes on with the {} that are in {}",
            human_bytes(length),
            self.path.display()
        );
        let hint = match error.code() {
            Code::Interrupted(_) => again,
            _ => format!("{}; {again}", error.hint_text()),
        };
        error.hint(hint)
    }
}

fn lock(file: &File, path: &Path) -> Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let what = format!("another download is writing {}", path.display());
            Err(Error::new(Code::Busy, what).hint("wait for it, or name another file with -o"))
        }
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        Err(TryLockError::Error(error)) => Err(file_error("lock", path, error)),
    }
}

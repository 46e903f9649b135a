//! A download on its way: a hidden file beside its target, which stays when a run is interrupted,
//! for the next one to go on with. Everything here blocks.

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
use crate::run::files::{parent, remove_file, rename_if_absent, sync_folder};
use crate::units::human_bytes;

/// Of the target's name, this much is kept: a file name has 255 bytes at most.
const NAME_KEPT: usize = 200;

pub struct Partial {
    path: PathBuf,
    target: PathBuf,
    /// Locked as long as it is open.
    file: Arc<File>,
}

impl Partial {
    /// `.<name>.<stamp>.partial` beside the target, new or as an earlier run left it.
    pub fn open(target: &Path, stamp: &str) -> Result<Self> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let kept = (0..=NAME_KEPT.min(name.len())).rfind(|end| name.is_char_boundary(*end));
        let path = parent(target).join(format!(".{}.{stamp}.partial", &name[..kept.unwrap_or(0)]));
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
            // Whoever held the lock before may have given the file its name, or removed it.
            if fs::symlink_metadata(&path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                // In a folder that is open to all, somebody may have put one there to read along.
                if !ours.is_file() || ours.uid() != geteuid().as_raw() || ours.nlink() != 1 {
                    let what = format!("{} is there already, and is not ours", path.display());
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

    /// Its length, after the disk has promised the room for all of `bytes`.
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
            // Not every file system can promise. The writing itself will tell.
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

    /// All of it is there and proved: lays `head` over its beginning and gives it its name. A
    /// failure leaves it as it was, but for the head, which the next run reads anew.
    pub fn publish(self, head: Option<&[u8]>, replace: bool) -> Result<()> {
        let written = match head {
            Some(head) => self.file.write_all_at(head, 0),
            None => Ok(()),
        };
        // The bytes reach the disk before the name does.
        written
            .and_then(|()| self.file.sync_all())
            .map_err(|error| self.failed("write", error))?;
        let renamed = if replace {
            fs::rename(&self.path, &self.target)
        } else {
            rename_if_absent(&self.path, &self.target)
        };
        renamed.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                let what = format!("{} has come to be there meanwhile", self.target.display());
                Error::config(what).hint("run it again with --force to replace it: nothing is fetched twice")
            }
            _ => file_error("make", &self.target, error),
        })?;
        sync_folder(parent(&self.target))
    }

    /// What to do with it after a failure: what is damaged, or empty, goes; anything else spares
    /// the next run of `id`'s download its time, and the error says so.
    pub fn keep_or_remove(self, id: &BackupId, error: Error) -> Error {
        let length = self.length().unwrap_or(0);
        if error.code() == Code::Integrity || length == 0 {
            return error.with_clean_up(remove_file(&self.path));
        }
        // Gives back the room beyond what is there.
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

//! A file on its way into a folder store. It is written under a temporary name beside its final
//! one and published by one rename, so that readers see nothing or all of it, after a crash too.
//! Everything here blocks, and so runs within [`blocking`].

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::error::{Code, Error, Result};

const SUFFIX: &str = ".pgstow-tmp";
/// Of the final name, this much is kept in the temporary one: a file name has 255 bytes at most.
const NAME_KEPT: usize = 200;

/// Runs what blocks where blocking is allowed.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::internal("work on the store's folder was cut off").source(error)),
    }
}

/// Whether a file of this name is a temporary one, and of which final name (its beginning, where
/// that is very long).
pub fn final_name(name: &str) -> Option<&str> {
    let (name, random) = name.strip_prefix('.')?.strip_suffix(SUFFIX)?.rsplit_once('.')?;
    (!name.is_empty() && !random.is_empty()).then_some(name)
}

/// Dropped without [`Temporary::publish`] or [`Temporary::remove`], it stays as a left-over.
pub struct Temporary {
    root: PathBuf,
    path: PathBuf,
    target: PathBuf,
    file: Arc<File>,
    /// Folders that did not exist before, outermost first.
    made: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publish {
    Replace,
    /// Only where no file has the final name, atomically among all processes.
    IfAbsent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    Done,
    /// Another file has the final name; ours is gone.
    Exists,
}

impl Temporary {
    /// Makes the folders that lead from `root` to `target`, and the file. `root` itself is made
    /// where its parent exists.
    pub fn create(root: &Path, target: &Path) -> Result<Self> {
        let folder = target.parent().unwrap_or(root);
        let name = target.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        let mut made = Vec::new();
        let mut tries = 0;
        loop {
            if let Err(error) = make_folders(root, folder, &mut made) {
                remove_made(&made);
                return Err(error);
            }
            let kept = (0..=NAME_KEPT.min(name.len())).rfind(|end| name.is_char_boundary(*end));
            let prefix = format!(".{}.", &name[..kept.unwrap_or(0)]);
            let temporary = tempfile::Builder::new()
                .prefix(&prefix)
                .suffix(SUFFIX)
                .rand_bytes(8)
                .make_in(folder, |path| {
                    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
                });
            match temporary.and_then(|temporary| temporary.keep().map_err(|error| error.error)) {
                Ok((file, path)) => {
                    return Ok(Self {
                        root: root.to_owned(),
                        path,
                        target: target.to_owned(),
                        file: Arc::new(file),
                        made,
                    });
                }
                // Another process may clean up empty folders, this one among them.
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries < 3 => tries += 1,
                Err(error) => {
                    remove_made(&made);
                    return Err(io_error("write into", folder, error));
                }
            }
        }
    }

    /// For writing from another thread.
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    pub fn target(&self) -> &Path {
        &self.target
    }

    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        (&*self.file)
            .write_all(bytes)
            .map_err(|error| io_error("write", &self.target, error))
    }

    /// The bytes reach the disk before the name does. Closing reports nothing that the sync did
    /// not, on network file systems neither.
    pub fn sync(&self) -> Result<()> {
        self.file
            .sync_all()
            .map_err(|error| io_error("sync", &self.target, error))
    }

    pub fn length(&self) -> Result<u64> {
        let metadata = self.file.metadata();
        Ok(metadata.map_err(|error| io_error("read", &self.target, error))?.len())
    }

    /// Gives the synced file its final name. A failure leaves neither name.
    pub fn publish(self, how: Publish) -> Result<Published> {
        let renamed = match how {
            Publish::Replace => fs::rename(&self.path, &self.target),
            Publish::IfAbsent => rename_if_absent(&self.path, &self.target),
        };
        match renamed {
            Ok(()) => {}
            Err(error) if how == Publish::IfAbsent && error.kind() == io::ErrorKind::AlreadyExists => {
                self.remove()?;
                return Ok(Published::Exists);
            }
            Err(error) => {
                let failed = io_error("publish", &self.target, error);
                return Err(match self.remove() {
                    Ok(()) => failed,
                    Err(second) => failed.also(second),
                });
            }
        }
        // Without this, a power cut may take the name back that we are about to report.
        let folder = self.target.parent().unwrap_or(&self.root);
        if let Err(error) = sync_folder(folder) {
            return Err(match remove_file(&self.target) {
                Ok(()) => error,
                Err(second) => error.also(second),
            });
        }
        Ok(Published::Done)
    }

    /// Removes the file, and the folders that were made for it when nothing else is in them.
    pub fn remove(self) -> Result<()> {
        remove_file(&self.path)?;
        remove_made(&self.made);
        Ok(())
    }
}

/// Removes the folders that were made for one file, as far as nothing else is in them.
fn remove_made(made: &[PathBuf]) {
    let _ = made.iter().rev().try_for_each(fs::remove_dir);
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

fn make_folders(root: &Path, folder: &Path, made: &mut Vec<PathBuf>) -> Result<()> {
    let below = folder.strip_prefix(root).unwrap_or(Path::new(""));
    let mut path = root.to_owned();
    make_folder(&path, made)?;
    for segment in below.components() {
        path.push(segment);
        make_folder(&path, made)?;
    }
    Ok(())
}

fn make_folder(path: &Path, made: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {
            made.push(path.to_owned());
            sync_folder(parent(path))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(io_error("make the folder", path, error)),
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

/// Removes `folder` and the folders around it as long as they are empty, up to `root`, which
/// stays. Not being able to is no failure: an empty folder is no object.
pub fn remove_folders(root: &Path, folder: &Path) {
    let mut folder = folder;
    while folder != root && folder.starts_with(root) && fs::remove_dir(folder).is_ok() {
        folder = parent(folder);
    }
}

/// The failure, with that of the clean-up after it attached.
pub fn with_clean_up(error: Error, clean_up: Result<()>) -> Error {
    match clean_up {
        Ok(()) => error,
        Err(second) => error.also(second),
    }
}

/// `what` is the verb of "cannot … <path>".
pub fn io_error(what: &str, path: &Path, error: io::Error) -> Error {
    let code = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::Enospc,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Code::Eacces,
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Code::Enoent,
        _ => Code::Store,
    };
    Error::new(code, format!("cannot {what} {}", path.display())).source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_name_tells_the_final_one() {
        assert_eq!(final_name(".shop.dump.x7Kq01ab.pgstow-tmp"), Some("shop.dump"));
        assert_eq!(final_name("shop.dump"), None);
        assert_eq!(final_name(".lease"), None);
        assert_eq!(final_name(".x.pgstow-tmp"), None);
        assert_eq!(final_name(".pgstow-tmp"), None);
    }

    #[test]
    fn an_abandoned_file_takes_the_folders_made_for_it_along_but_no_others() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("shop")).unwrap();
        let target = root.path().join("shop/20260102T030405Z-full/shop.dump");
        Temporary::create(root.path(), &target).unwrap().remove().unwrap();
        assert!(root.path().join("shop").is_dir());
        assert!(!root.path().join("shop/20260102T030405Z-full").exists());
    }
}

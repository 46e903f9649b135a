//! A file gets its name when it is whole: it is written under a temporary name in the same folder, reaches the disk
//! and is renamed, and then the folder reaches the disk too. A reader sees nothing, the former file or all of the new
//! one, after a power cut as well. Everything here blocks.

use std::collections::hash_map::RandomState;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::files::{io_error, parent, sync_handle};
use crate::error::Error;

const SUFFIX: &str = ".pgstow-tmp";
/// Of the final name, this much is kept in a temporary one: a file name has 255 bytes at most.
const NAME_KEPT: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publish {
    Replace,
    /// Only where no file has the final name, atomically among all processes.
    IfAbsent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    Done,
    /// Another file has the final name. Ours has its temporary one still.
    Exists,
}

/// Why a file did not get its name.
#[derive(Debug)]
pub struct Unpublished {
    pub step: Step,
    pub error: io::Error,
    /// Whether the file has its temporary name again, where it had got its final one.
    pub undone: io::Result<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Rename,
    SyncFolder,
}

impl Unpublished {
    /// `what` is the verb of "cannot … <target>", of a rename that failed.
    pub fn told(self, what: &str, target: &Path) -> Error {
        let error = match self.step {
            Step::Rename => io_error(what, target, self.error),
            Step::SyncFolder => io_error("sync the folder", parent(target), self.error),
        };
        let undone = self.undone;
        error.with_clean_up(undone.map_err(|error| io_error("take the name back from", target, error)))
    }
}

/// Who may do what with a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Exactly(u32),
    /// Less where the process's umask says so.
    AtMost(u32),
}

/// Gives a file whose bytes are on the disk its final name. A failure leaves it its temporary name, and where nothing
/// had the final name before, nothing has it after. A file that was replaced cannot be had back: so the new one keeps
/// the final name if only the folder did not reach the disk, though a power cut may undo that.
pub fn give_name(
    folder: impl AsFd,
    temporary: &OsStr,
    name: &OsStr,
    how: Publish,
) -> std::result::Result<Published, Unpublished> {
    let folder = folder.as_fd();
    let renamed = match how {
        Publish::Replace => rustix::fs::renameat(folder, temporary, folder, name),
        Publish::IfAbsent => rename_if_absent(folder, temporary, name),
    };
    match renamed {
        Ok(()) => {}
        Err(Errno::EXIST) if how == Publish::IfAbsent => return Ok(Published::Exists),
        Err(error) => {
            return Err(Unpublished {
                step: Step::Rename,
                error: error.into(),
                undone: Ok(()),
            });
        }
    }
    // Without this, a power cut may take the name back that the caller is about to report.
    sync_handle(folder).map_err(|error| Unpublished {
        step: Step::SyncFolder,
        error,
        undone: match how {
            Publish::Replace => Ok(()),
            Publish::IfAbsent => rustix::fs::renameat(folder, name, folder, temporary).map_err(Into::into),
        },
    })?;
    Ok(Published::Done)
}

fn rename_if_absent(folder: BorrowedFd<'_>, from: &OsStr, to: &OsStr) -> rustix::io::Result<()> {
    match rustix::fs::renameat_with(folder, from, folder, to, RenameFlags::NOREPLACE) {
        // Some file systems do not know the flag; a hard link refuses an existing name as well.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            rustix::fs::linkat(folder, from, folder, to, AtFlags::empty())?;
            rustix::fs::unlinkat(folder, from, AtFlags::empty())
        }
        renamed => renamed,
    }
}

/// All of a small file, from its bytes to its name. Without success nothing of it stays.
pub fn publish(path: &Path, bytes: &[u8], access: Access, how: Publish) -> io::Result<Published> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let folder = File::open(parent(path))?;
    let temporary = temporary_name(name);
    let (Access::Exactly(mode) | Access::AtMost(mode)) = access;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(&folder, &temporary, flags, Mode::from_raw_mode(mode))?;
    let mut file = File::from(opened);
    let permitted = match access {
        Access::Exactly(mode) => file.set_permissions(Permissions::from_mode(mode)),
        Access::AtMost(_) => Ok(()),
    };
    let published = permitted
        .and_then(|()| file.write_all(bytes))
        // The bytes reach the disk before the name does. Closing reports nothing that this does not.
        .and_then(|()| file.sync_all())
        .and_then(|()| give_name(&folder, &temporary, name, how).map_err(|unpublished| unpublished.error));
    if !matches!(published, Ok(Published::Done)) {
        let _ = rustix::fs::unlinkat(&folder, &temporary, AtFlags::empty());
    }
    published
}

/// For a file that shall have this name. [`final_name`] reads it.
pub fn temporary_name(name: &OsStr) -> OsString {
    let name = name.to_string_lossy();
    format!(".{}.{}{SUFFIX}", kept(&name), random()).into()
}

/// As much of a name as has room in a temporary one.
pub fn kept(name: &str) -> &str {
    let end = (0..=NAME_KEPT.min(name.len())).rfind(|end| name.is_char_boundary(*end));
    &name[..end.unwrap_or(0)]
}

/// Whether a file of this name is a temporary one, and of which final name (its beginning, where
/// that is very long).
pub fn final_name(name: &str) -> Option<&str> {
    let (name, random) = name.strip_prefix('.')?.strip_suffix(SUFFIX)?.rsplit_once('.')?;
    (!name.is_empty() && !random.is_empty()).then_some(name)
}

/// Unlikely to be met twice, which is all that it is for.
pub fn random() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_temporary_name_tells_the_final_one() {
        assert_eq!(final_name(".shop.dump.x7Kq01ab.pgstow-tmp"), Some("shop.dump"));
        assert_eq!(final_name("shop.dump"), None);
        assert_eq!(final_name(".lease"), None);
        assert_eq!(final_name(".x.pgstow-tmp"), None);
        assert_eq!(final_name(".pgstow-tmp"), None);
        let made = temporary_name(OsStr::new("shop.dump"));
        assert_eq!(final_name(made.to_str().unwrap()), Some("shop.dump"));
        let made = temporary_name(OsStr::new(&"é".repeat(127)));
        assert_eq!(final_name(made.to_str().unwrap()), Some("é".repeat(100).as_str()));
        assert!(made.len() <= 255);
    }

    #[test]
    fn a_published_file_is_whole_and_alone_and_has_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pgstow.prom");
        for (bytes, mode) in [("before", 0o600), ("after", 0o666)] {
            let published = publish(&path, bytes.as_bytes(), Access::Exactly(mode), Publish::Replace);
            assert_eq!(published.unwrap(), Published::Done);
            assert_eq!(fs::read_to_string(&path).unwrap(), bytes);
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, mode);
        }
        assert_eq!(names(folder.path()), ["pgstow.prom"]);
    }

    #[test]
    fn a_name_that_is_taken_is_left_alone_and_nothing_stays_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("key"), "precious").unwrap();
        symlink("nowhere", folder.path().join("link")).unwrap();
        for name in ["key", "link"] {
            let path = folder.path().join(name);
            let published = publish(&path, b"new", Access::AtMost(0o600), Publish::IfAbsent);
            assert_eq!(published.unwrap(), Published::Exists, "{name}");
        }
        assert_eq!(fs::read_to_string(folder.path().join("key")).unwrap(), "precious");
        assert_eq!(names(folder.path()), ["key", "link"]);
    }

    #[test]
    fn a_file_that_cannot_be_published_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let taken = folder.path().join("folder");
        fs::create_dir(&taken).unwrap();
        assert!(publish(&taken, b"new", Access::Exactly(0o600), Publish::Replace).is_err());
        assert!(publish(Path::new("/"), b"new", Access::Exactly(0o600), Publish::Replace).is_err());
        assert_eq!(names(folder.path()), ["folder"]);
    }
}

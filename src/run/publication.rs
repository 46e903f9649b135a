//! A file gets its final name only when it is complete. It is written under a temporary name in the same folder,
//! synced, and renamed; then the folder is synced. So a reader sees no file, the former file, or the whole new file,
//! even after a power failure. Everything here blocks.

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
/// A temporary name keeps this many bytes of the final name: a file name has at most 255 bytes.
const NAME_KEPT: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publish {
    Replace,
    /// Only if no file has the final name; atomic among all processes.
    IfAbsent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    Done,
    /// Another file has the final name. Our file still has its temporary name.
    Exists,
}

/// Why a file did not get its name.
#[derive(Debug)]
pub struct Unpublished {
    pub step: Step,
    pub error: io::Error,
    /// Whether the file has only its temporary name again, after it had its final one.
    pub undone: io::Result<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Rename,
    SyncFolder,
}

impl Unpublished {
    fn of_rename(error: Errno) -> Self {
        Self {
            step: Step::Rename,
            error: error.into(),
            undone: Ok(()),
        }
    }

    /// `what` is the verb in "cannot … <target>", for a rename that failed.
    pub fn told(self, what: &str, target: &Path) -> Error {
        let error = match self.step {
            Step::Rename => io_error(what, target, self.error),
            Step::SyncFolder => io_error("sync the folder", parent(target), self.error),
        };
        let undone = self.undone;
        error.with_clean_up(undone.map_err(|error| io_error("undo the rename to", target, error)))
    }
}

/// The permissions of a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Exactly(u32),
    /// This mode, minus the process's umask.
    AtMost(u32),
}

/// Gives a synced file its final name. If this fails, the file keeps its temporary name, and the final name does not
/// exist if it did not exist before. There is one exception: a replaced file cannot be restored, so if only the sync
/// of the folder failed, the new file keeps the final name, though a power failure may undo that.
pub fn give_name(
    folder: impl AsFd,
    temporary: &OsStr,
    name: &OsStr,
    how: Publish,
) -> std::result::Result<Published, Unpublished> {
    let folder = folder.as_fd();
    let renamed = match how {
        Publish::Replace => rustix::fs::renameat(folder, temporary, folder, name).map_err(Unpublished::of_rename),
        Publish::IfAbsent => rename_if_absent(folder, temporary, name),
    };
    match renamed {
        Ok(()) => {}
        Err(unpublished) if how == Publish::IfAbsent && unpublished.error.kind() == io::ErrorKind::AlreadyExists => {
            return Ok(Published::Exists);
        }
        Err(unpublished) => return Err(unpublished),
    }
    // Without this, a power failure may remove the name that the caller is about to report.
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

fn rename_if_absent(folder: BorrowedFd<'_>, from: &OsStr, to: &OsStr) -> Result<(), Unpublished> {
    match rustix::fs::renameat_with(folder, from, folder, to, RenameFlags::NOREPLACE) {
        // Some file systems lack the flag; a hard link also refuses an existing name.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => link_instead(folder, from, to, |name| {
            rustix::fs::unlinkat(folder, name, AtFlags::empty())
        }),
        renamed => renamed.map_err(Unpublished::of_rename),
    }
}

/// Gives the file its second name, and removes the first. If the first name stays, the second is removed again.
fn link_instead(
    folder: BorrowedFd<'_>,
    from: &OsStr,
    to: &OsStr,
    unlink: impl Fn(&OsStr) -> rustix::io::Result<()>,
) -> Result<(), Unpublished> {
    rustix::fs::linkat(folder, from, folder, to, AtFlags::empty()).map_err(Unpublished::of_rename)?;
    match unlink(from) {
        // If another process has removed the first name, the file has only the second too.
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(Unpublished {
            undone: unlink(to).map_err(Into::into),
            ..Unpublished::of_rename(error)
        }),
    }
}

/// Writes and publishes a small file. If this fails, it leaves nothing.
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
        // The bytes are on the disk before the name is. Close reports no error that sync does not.
        .and_then(|()| file.sync_all())
        .and_then(|()| give_name(&folder, &temporary, name, how).map_err(|unpublished| unpublished.error));
    if !matches!(published, Ok(Published::Done)) {
        let _ = rustix::fs::unlinkat(&folder, &temporary, AtFlags::empty());
    }
    published
}

/// A temporary name for a file with this final name. [`final_name`] reads it.
pub fn temporary_name(name: &OsStr) -> OsString {
    let name = name.to_string_lossy();
    format!(".{}.{}{SUFFIX}", kept(&name), random()).into()
}

/// As much of a name as a temporary name can hold.
pub fn kept(name: &str) -> &str {
    let end = (0..=NAME_KEPT.min(name.len())).rfind(|end| name.is_char_boundary(*end));
    &name[..end.unwrap_or(0)]
}

/// The final name in a temporary one (only its beginning if it is very long); `None` for other names.
pub fn final_name(name: &str) -> Option<&str> {
    let (name, random) = name.strip_prefix('.')?.strip_suffix(SUFFIX)?.rsplit_once('.')?;
    (!name.is_empty() && !random.is_empty()).then_some(name)
}

/// A random text that is unlikely to occur twice; it is not secret.
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
    fn a_hard_link_in_place_of_a_rename_leaves_one_name() {
        let folder = tempfile::tempdir().unwrap();
        let (temporary, key) = (folder.path().join(".tmp"), folder.path().join("key"));
        let opened = File::open(folder.path()).unwrap();
        let unlink = |name: &OsStr| rustix::fs::unlinkat(&opened, name, AtFlags::empty());
        let link = |unlink: &dyn Fn(&OsStr) -> rustix::io::Result<()>| {
            fs::write(&temporary, "new").unwrap();
            link_instead(opened.as_fd(), OsStr::new(".tmp"), OsStr::new("key"), unlink)
        };
        link(&unlink).unwrap();
        assert_eq!(names(folder.path()), ["key"]);
        let taken = link(&unlink).unwrap_err();
        assert_eq!(taken.error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(names(folder.path()), [".tmp", "key"]);

        fs::remove_file(&key).unwrap();
        let refused = link(&|name: &OsStr| match name == ".tmp" {
            true => Err(Errno::IO),
            false => unlink(name),
        });
        let refused = refused.unwrap_err();
        assert_eq!(names(folder.path()), [".tmp"]);
        assert!(refused.undone.is_ok() && refused.step == Step::Rename, "{refused:?}");

        let refused = link(&|_: &OsStr| Err(Errno::IO)).unwrap_err();
        assert_eq!(names(folder.path()), [".tmp", "key"]);
        let told = refused.told("publish", &key).message();
        assert!(told.contains("cannot undo the rename to"), "{told}");

        fs::remove_file(&key).unwrap();
        let by_another = |name: &OsStr| unlink(name).and(Err::<(), _>(Errno::NOENT));
        link(&by_another).unwrap();
        assert_eq!(names(folder.path()), ["key"]);
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

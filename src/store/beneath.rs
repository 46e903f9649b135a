//! Files below a folder store's root. Each folder is opened from its open parent by one name, so that no entry of a
//! store can lead out of it. The root itself may be a link; links below it are not followed, and only regular files
//! are opened: a FIFO would block its reader for ever, and opening a device can have effects. Everything here blocks.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use crate::error::{Code, Error, Result};
use crate::run::files::{io_error, sync_handle};

/// Keys and their parts were checked before; here no name may lead anywhere else.
fn one_name(name: &str) -> Result<()> {
    let hostile = matches!(name, "" | "." | "..") || name.contains(['/', '\0']);
    if hostile {
        return Err(Error::internal(format!("{name:?} is not a name within a store")));
    }
    Ok(())
}

/// An open folder: the root, or one below it.
pub struct Folder {
    handle: OwnedFd,
    /// For messages only.
    path: PathBuf,
}

/// An entry of a folder; a link is not followed.
pub struct Found {
    pub name: String,
    pub stat: Stat,
}

impl Found {
    pub fn kind(&self) -> FileType {
        kind(&self.stat)
    }
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// The mode of a folder that its group may read: `1750` if the group may not write, else `1770`. The sticky bit shows
/// that this is intended: in a folder that only its owner can write to, it has no other effect, so no folder has it
/// by chance. With it, a member of the group can remove or replace only their own files.
const SHARED: Mode = Mode::SVTX.union(Mode::RWXU).union(Mode::RGRP).union(Mode::XGRP);

fn is_shared(stat: &Stat) -> bool {
    let mode = Mode::from_raw_mode(stat.st_mode);
    mode.contains(Mode::SVTX | Mode::RGRP | Mode::XGRP) && !mode.intersects(Mode::RWXO)
}

/// What an entry is that should have been a file.
fn name_of(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a file",
        FileType::Directory => "a folder",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "no file",
    }
}

impl Folder {
    /// The root of a store, or its parent folder. `None` if it does not exist.
    pub fn root(path: &Path) -> Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
            Ok(handle) => Ok(Some(Self {
                handle,
                path: path.to_owned(),
            })),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(io_error("open", path, error.into())),
        }
    }

    pub fn handle(&self) -> &OwnedFd {
        &self.handle
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn try_clone(&self) -> Result<Self> {
        let handle = self.handle.try_clone();
        Ok(Self {
            handle: handle.map_err(|error| io_error("open", &self.path, error))?,
            path: self.path.clone(),
        })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The folder with this name. `None` if there is none; a link is an error, because with an empty answer the store
    /// would look like one without backups.
    pub fn folder(&self, name: &str) -> Result<Option<Self>> {
        one_name(name)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.handle, name, flags, Mode::empty()) {
            Ok(handle) => Ok(Some(Self {
                handle,
                path: self.at(name),
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => match self.look(name)? {
                Some(there) if kind(&there) == FileType::Symlink => Err(linked(&self.at(name))),
                _ => Ok(None),
            },
            Err(error) => Err(io_error("open", &self.at(name), error.into())),
        }
    }

    /// The same, created if there is none; the second value says whether it was created.
    pub fn make_folder(&self, name: &str) -> Result<(Self, bool)> {
        if let Some(there) = self.folder(name)? {
            return Ok((there, false));
        }
        let failed = |error: Errno| io_error("make the folder", &self.at(name), error.into());
        let made = match rustix::fs::mkdirat(&self.handle, name, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(failed(error)),
        };
        if made {
            self.sync()?;
        }
        match self.folder(name)? {
            Some(folder) => {
                if made {
                    self.give(&folder.handle)
                        .map_err(|error| io_error("give to its owner", &self.at(name), error))?;
                    self.share(folder.handle.as_fd(), SHARED);
                }
                Ok((folder, made))
            }
            // A file has this name, or another process removed the folder again.
            None => Err(failed(if made { Errno::NOENT } else { Errno::EXIST })),
        }
    }

    /// A regular file, for reading. `None` if there is no such entry, or if it is a folder; `INTEGRITY` if it is
    /// anything else.
    pub fn open(&self, name: &str) -> Result<Option<(File, u64)>> {
        one_name(name)?;
        let Some(there) = self.look(name)? else {
            return Ok(None);
        };
        // Checked before the open, because opening a device can have effects; and again afterwards.
        match kind(&there) {
            FileType::RegularFile => {}
            FileType::Directory => return Ok(None),
            other => return Err(no_file(&self.at(name), other)),
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let failed = |error: io::Error| io_error("read", &self.at(name), error);
        let file = match rustix::fs::openat(&self.handle, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(no_file(&self.at(name), FileType::Symlink)),
            Err(error) => return Err(failed(error.into())),
        };
        let opened = rustix::fs::fstat(&file).map_err(|error| failed(error.into()))?;
        match kind(&opened) {
            FileType::RegularFile => Ok(Some((file, u64::try_from(opened.st_size).unwrap_or(0)))),
            other => Err(no_file(&self.at(name), other)),
        }
    }

    /// Creates a new file; an existing one is an error, since others may have placed it there for us to write into.
    pub fn create_new(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.handle, name, flags, Mode::RUSR | Mode::WUSR)?;
        self.give(&file)?;
        self.share(file.as_fd(), Mode::RUSR | Mode::WUSR | Mode::RGRP);
        Ok(File::from(file))
    }

    /// In a folder that its group may read, new files and folders are readable for the group too. If that is not
    /// possible, only the owner can read them, and a reader gets an error.
    fn share(&self, made: BorrowedFd<'_>, mode: Mode) {
        let (Ok(around), Ok(new)) = (rustix::fs::fstat(&self.handle), rustix::fs::fstat(made)) else {
            return;
        };
        if !is_shared(&around) {
            return;
        }
        // Never give access to another group than this folder's.
        let group = Some(Gid::from_raw(around.st_gid));
        if new.st_gid == around.st_gid || rustix::fs::fchown(made, None, group).is_ok() {
            let _ = rustix::fs::fchmod(made, mode);
        }
    }

    /// Lets the group of a shared folder add files to this folder.
    pub fn admit(&self) {
        let shared = rustix::fs::fstat(&self.handle).is_ok_and(|stat| is_shared(&stat));
        if shared && let Err(error) = rustix::fs::fchmod(&self.handle, SHARED | Mode::WGRP) {
            tracing::warn!("{} cannot be made writable for its group: {error}", self.path.display());
        }
    }

    /// Gives files that root creates in another user's folder to that user: a backup made once as root must not lock
    /// out the user who makes the other backups.
    pub fn give(&self, made: impl AsFd) -> io::Result<()> {
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let around = rustix::fs::fstat(&self.handle)?;
        if around.st_uid == 0 {
            return Ok(());
        }
        let (user, group) = (Uid::from_raw(around.st_uid), Gid::from_raw(around.st_gid));
        // A failure is ignored, so that root's backup is made all the same: some file systems have no owners, or do
        // not let root of this machine change them.
        let _ = rustix::fs::fchown(made, Some(user), Some(group));
        Ok(())
    }

    /// The entry with this name; a link is not followed.
    pub fn look(&self, name: &str) -> Result<Option<Stat>> {
        match rustix::fs::statat(&self.handle, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(io_error("look at", &self.at(name), error.into())),
        }
    }

    /// All entries with names in UTF-8: pgstow uses no other names.
    pub fn entries(&self) -> Result<Vec<Found>> {
        let failed = |error: Errno| io_error("list", &self.path, error.into());
        let mut found = Vec::new();
        for entry in Dir::read_from(&self.handle).map_err(failed)? {
            let name = CString::from(entry.map_err(failed)?.file_name());
            let Ok(name) = name.into_string() else { continue };
            if matches!(name.as_str(), "." | "..") {
                continue;
            }
            // The entry may have been removed in the meantime.
            if let Some(stat) = self.look(&name)? {
                found.push(Found { name, stat });
            }
        }
        Ok(found)
    }

    /// Removes a file, or a link itself. A missing one is not an error.
    pub fn remove_file(&self, name: &str) -> Result<()> {
        one_name(name)?;
        match rustix::fs::unlinkat(&self.handle, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(io_error("remove", &self.at(name), error.into())),
        }
    }

    /// Removes an empty folder, and returns whether it existed and is removed.
    pub fn remove_folder(&self, name: &str) -> bool {
        rustix::fs::unlinkat(&self.handle, name, AtFlags::REMOVEDIR).is_ok()
    }

    /// Writes added and removed names to the disk.
    pub fn sync(&self) -> Result<()> {
        sync_handle(&self.handle).map_err(|error| io_error("sync the folder", &self.path, error))
    }

    /// A separate handle, for a lock that ends with it.
    pub fn for_lock(&self) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.handle, ".", flags, Mode::empty())?))
    }
}

fn no_file(path: &Path, kind: FileType) -> Error {
    Error::new(
        Code::Integrity,
        format!("{} is {}, not a file: it was not read", path.display(), name_of(kind)),
    )
    .hint("find out who put it there, then remove it: pgstow stores only regular files")
}

pub fn linked(path: &Path) -> Error {
    Error::new(
        Code::Store,
        format!("{} is a symbolic link, which is not followed", path.display()),
    )
    .hint(
        "only the store's own folder may be a link; to keep a database on another disk, mount it there \
         (mount --bind), or name that disk as a store of its own",
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

    use super::*;

    /// Without root, this test checks nothing.
    #[test]
    fn what_root_makes_in_another_users_folder_is_that_users() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let owner = |path: &Path| std::fs::metadata(path).map(|there| (there.uid(), there.gid())).unwrap();
        chown(root.path(), Some(4711), Some(4712)).unwrap();
        let store = Folder::root(root.path()).unwrap().unwrap();
        let (shop, _) = store.make_folder("shop").unwrap();
        shop.create_new(".lease").unwrap();
        assert_eq!(owner(&root.path().join("shop")), (4711, 4712));
        assert_eq!(owner(&root.path().join("shop/.lease")), (4711, 4712));
    }

    #[test]
    fn a_folder_is_shared_with_its_group_where_the_sticky_bit_says_so_and_all_that_is_made_in_it() {
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
        for (root_mode, folder_mode, file_mode, admitted) in [
            (0o1750, 0o1750, 0o640, 0o1770),
            (0o1770, 0o1750, 0o640, 0o1770),
            // As people make folders, and as /tmp is.
            (0o755, 0o700, 0o600, 0o700),
            (0o750, 0o700, 0o600, 0o700),
            (0o2770, 0o2700, 0o600, 0o2700),
            (0o1777, 0o700, 0o600, 0o700),
        ] {
            let root = tempfile::tempdir().unwrap();
            std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(root_mode)).unwrap();
            let (shop, _) = Folder::root(root.path()).unwrap().unwrap().make_folder("shop").unwrap();
            shop.create_new("file").unwrap();
            let path = root.path().join("shop");
            assert_eq!(mode(&path), folder_mode, "{root_mode:o}");
            assert_eq!(mode(&path.join("file")), file_mode, "{root_mode:o}");
            shop.admit();
            assert_eq!(mode(&path), admitted, "{root_mode:o}");
        }
    }
}

//! Files beneath a folder store's root, reached from an open folder to the next by one name at a
//! time, so that nothing that lies in a store leads out of it. The root itself may be a link; no
//! link beneath it is followed, and nothing but a regular file is opened: a FIFO would keep its
//! reader for ever, and opening a device does things to it. Everything here blocks.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Uid};
use rustix::io::Errno;

use crate::error::{Code, Error, Result};
use crate::run::files::io_error;

/// Keys and their parts have been looked at before; here nothing may come that leads anywhere else.
fn one_name(name: &str) -> Result<()> {
    let hostile = matches!(name, "" | "." | "..") || name.contains(['/', '\0']);
    if hostile {
        return Err(Error::internal(format!("{name:?} is not a name within a store")));
    }
    Ok(())
}

/// An open folder: the root, or one beneath it.
pub struct Folder {
    handle: OwnedFd,
    /// For messages alone.
    path: PathBuf,
}

/// What lies in a folder, looked at without following it.
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

/// Of a folder that its group may read: `1750`, where the group puts nothing, or `1770`. The sticky bit says that this is
/// meant: it does nothing in a folder to which its owner alone writes, so no folder has it by chance. With it, who
/// puts files into a folder can take away or replace none but those.
const SHARED: Mode = Mode::SVTX.union(Mode::RWXU).union(Mode::RGRP).union(Mode::XGRP);

fn is_shared(stat: &Stat) -> bool {
    let mode = Mode::from_raw_mode(stat.st_mode);
    mode.contains(Mode::SVTX | Mode::RGRP | Mode::XGRP) && !mode.intersects(Mode::RWXO)
}

/// As people call what should have been a file.
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
    /// The root of a store, or the folder around it. `None` when it is not there.
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

    /// The folder of this name. `None` when there is none; a link is an error, because an empty
    /// answer would pass for a store without backups.
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

    /// The same, made where there is none; the second says whether it was.
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
            // A file has the name, or another process took the folder away again.
            None => Err(failed(if made { Errno::NOENT } else { Errno::EXIST })),
        }
    }

    /// A regular file, for reading. `None` when there is no such file, or when it is a folder;
    /// `INTEGRITY` when it is neither.
    pub fn open(&self, name: &str) -> Result<Option<(File, u64)>> {
        one_name(name)?;
        let Some(there) = self.look(name)? else {
            return Ok(None);
        };
        // Looked at before, because opening alone does something to a device; and again after.
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

    /// A file that was not there before; never one that somebody put there for us to write into.
    pub fn create_new(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.handle, name, flags, Mode::RUSR | Mode::WUSR)?;
        self.give(&file)?;
        self.share(file.as_fd(), Mode::RUSR | Mode::WUSR | Mode::RGRP);
        Ok(File::from(file))
    }

    /// What is made in a folder that its group may read, the group may read too. Where that cannot be had it is its
    /// owner's alone, and a reader who is kept out is told so.
    fn share(&self, made: BorrowedFd<'_>, mode: Mode) {
        let (Ok(around), Ok(new)) = (rustix::fs::fstat(&self.handle), rustix::fs::fstat(made)) else {
            return;
        };
        if !is_shared(&around) {
            return;
        }
        // Never to another group than the one that reads here.
        let group = Some(Gid::from_raw(around.st_gid));
        if new.st_gid == around.st_gid || rustix::fs::fchown(made, None, group).is_ok() {
            let _ = rustix::fs::fchmod(made, mode);
        }
    }

    /// Lets the group of a shared folder put files into this one, beside those that are there.
    pub fn admit(&self) {
        let shared = rustix::fs::fstat(&self.handle).is_ok_and(|stat| is_shared(&stat));
        if shared && let Err(error) = rustix::fs::fchmod(&self.handle, SHARED | Mode::WGRP) {
            tracing::warn!("{} cannot be opened to its group: {error}", self.path.display());
        }
    }

    /// What root makes in another user's folder is that user's: a backup that is made as root once must not
    /// shut out the user who makes the others.
    pub fn give(&self, made: impl AsFd) -> io::Result<()> {
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let around = rustix::fs::fstat(&self.handle)?;
        if around.st_uid == 0 {
            return Ok(());
        }
        let (user, group) = (Uid::from_raw(around.st_uid), Gid::from_raw(around.st_gid));
        // A file system may have no owners, or let root of this machine change none: root's backup is made all the same.
        let _ = rustix::fs::fchown(made, Some(user), Some(group));
        Ok(())
    }

    /// What has this name, without following it.
    pub fn look(&self, name: &str) -> Result<Option<Stat>> {
        match rustix::fs::statat(&self.handle, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(io_error("look at", &self.at(name), error.into())),
        }
    }

    /// Everything in it whose name is UTF-8: nothing else is ours.
    pub fn entries(&self) -> Result<Vec<Found>> {
        let failed = |error: Errno| io_error("list", &self.path, error.into());
        let mut found = Vec::new();
        for entry in Dir::read_from(&self.handle).map_err(failed)? {
            let name = CString::from(entry.map_err(failed)?.file_name());
            let Ok(name) = name.into_string() else { continue };
            if matches!(name.as_str(), "." | "..") {
                continue;
            }
            // Gone in the meantime, perhaps.
            if let Some(stat) = self.look(&name)? {
                found.push(Found { name, stat });
            }
        }
        Ok(found)
    }

    /// Renames within the folder. What had the name `to` is replaced itself, never what it leads to.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.handle, from, &self.handle, to)?)
    }

    /// The same, but an existing name is refused, atomically.
    pub fn rename_if_absent(&self, from: &str, to: &str) -> io::Result<()> {
        let here = &self.handle;
        match rustix::fs::renameat_with(here, from, here, to, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(()),
            // Some file systems do not know the flag; a hard link refuses an existing name as well.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                rustix::fs::linkat(here, from, here, to, AtFlags::empty())?;
                Ok(rustix::fs::unlinkat(here, from, AtFlags::empty())?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a file, or a link itself. A missing one is no error.
    pub fn remove_file(&self, name: &str) -> Result<()> {
        one_name(name)?;
        match rustix::fs::unlinkat(&self.handle, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(io_error("remove", &self.at(name), error.into())),
        }
    }

    /// Whether an empty folder of this name was there and is gone.
    pub fn remove_folder(&self, name: &str) -> bool {
        rustix::fs::unlinkat(&self.handle, name, AtFlags::REMOVEDIR).is_ok()
    }

    /// Names that were given or taken in it reach the disk.
    pub fn sync(&self) -> Result<()> {
        match rustix::fs::fsync(&self.handle) {
            // This file system has no such thing as syncing a folder.
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(error) => Err(io_error("sync the folder", &self.path, error.into())),
        }
    }

    /// A handle of its own, for a lock that ends with it.
    pub fn for_lock(&self) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.handle, ".", flags, Mode::empty())?))
    }
}

fn no_file(path: &Path, kind: FileType) -> Error {
    Error::new(
        Code::Integrity,
        format!(
            "{} is {}, and not a file: it was not read",
            path.display(),
            name_of(kind)
        ),
    )
    .hint("find out who put it there, then remove it: pgstow stores regular files and nothing else")
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

    /// Tells nothing where the tests do not run as root.
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

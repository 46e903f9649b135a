//! A folder that only we can enter and that is removed when we end. It holds the password for PostgreSQL's programs,
//! small files that they read, and a throwaway server's data.

mod tether;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Dir, FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Code, Error, Result};
use crate::run::files::{blocking, io_error};

pub(crate) use tether::{Tether, Watchdog};

/// Locked while its owner lives; when the owner dies, the kernel releases the lock.
const LOCK: &str = "lock";
/// How often another run's sweep may remove a new folder before its lock is held.
const ATTEMPTS: usize = 20;
/// Deeper than PostgreSQL's data, and far from a stack overflow.
const DEEPEST: usize = 64;
/// How long TMPDIR may take to answer. If its file server is gone, calls never return.
const PATIENCE: Duration = Duration::from_secs(60);
/// The same for the removal at the end. A later run sweeps what is left.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(20);

/// Does blocking work in TMPDIR in a thread of its own, so that the caller can be stopped. If TMPDIR does not answer,
/// the caller gives up; the thread stays, and does not keep the process alive.
pub async fn answering<T: Send + 'static>(
    temp: &Path,
    work: impl FnOnce(&Path) -> Result<T> + Send + 'static,
) -> Result<T> {
    within(PATIENCE, temp, work).await
}

async fn within<T: Send + 'static>(
    patience: Duration,
    temp: &Path,
    work: impl FnOnce(&Path) -> Result<T> + Send + 'static,
) -> Result<T> {
    let place = temp.to_owned();
    match tokio::time::timeout(patience, blocking(move || work(&place))).await {
        Ok(done) => done,
        Err(_) => {
            let what = format!(
                "TMPDIR, {}, has not answered for {} s",
                temp.display(),
                patience.as_secs()
            );
            Err(Error::new(Code::Enoent, what).hint(
                "check the disk of TMPDIR, or the server that it is mounted from; or set TMPDIR to another folder",
            ))
        }
    }
}

/// Removed with its content on drop. A later [`sweep_stale`] removes the folder of a killed process.
#[derive(Debug)]
pub struct PrivateFolder {
    path: PathBuf,
    _lock: File,
    /// Removes the folder if we are killed.
    _watchdog: Option<(Tether, Watchdog)>,
}

impl PrivateFolder {
    /// A new folder below `temp`, of mode 0700.
    pub fn create(temp: &Path) -> Result<PrivateFolder> {
        let failed = |error| temp_error("make a private folder in TMPDIR,", temp, error);
        for _ in 0..ATTEMPTS {
            let path = temp.join(folder_name().map_err(failed)?);
            DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
            match lock(&path) {
                Ok(Some(lock)) => {
                    return Ok(PrivateFolder {
                        path,
                        _lock: lock,
                        _watchdog: None,
                    });
                }
                // Another run's sweep took it for a dead run's folder.
                Ok(None) => {}
                Err(error) => {
                    remove(&path);
                    return Err(failed(error));
                }
            }
        }
        Err(failed(std::io::Error::other("other runs removed it at each attempt")))
    }

    /// A folder that is removed at once even if we are killed, if the system has a shell: for content that is larger
    /// than a passfile, or should not wait for a later run.
    pub fn watched(temp: &Path) -> Result<PrivateFolder> {
        let mut folder = Self::create(temp)?;
        if let Ok(tether) = Tether::new()
            && let Some(watchdog) = tether.watchdog(&[&folder.path])
        {
            folder._watchdog = Some((tether, watchdog));
        }
        Ok(folder)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A new file of mode 0600 with these bytes. `name` is a bare file name.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        write_into(&self.path, name, bytes)
    }

    /// Checks that the disk has room for `bytes` more, before the caller does something that cannot be undone.
    pub fn make_room(&self, bytes: u64) -> Result<()> {
        let path = self.path.join("room");
        let made = create_file(&path).and_then(|file| {
            match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes.max(1)) {
                // Some file systems cannot reserve room. Then a full disk shows when the file is written.
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
                promised => promised.map_err(std::io::Error::from),
            }
        });
        let _ = fs::remove_file(&path);
        made.map_err(|error| temp_error("reserve room in TMPDIR,", &self.path, error))
    }
}

/// Writes a new file into a private folder that another value owns.
pub fn write_into(folder: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf> {
    let path = folder.join(name);
    create_file(&path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(|error| temp_error("write into TMPDIR,", &path, error))?;
    Ok(path)
}

/// An error below TMPDIR: the fault of this machine, not of the store.
fn temp_error(what: &str, path: &Path, error: std::io::Error) -> Error {
    let error = io_error(what, path, error);
    let code = match error.code() {
        Code::Store => Code::Internal,
        code => code,
    };
    let hint = match code {
        Code::Enospc => "free space on the disk of TMPDIR, or set TMPDIR to a folder on another disk",
        Code::Eacces => "set TMPDIR to a folder that this user may write to",
        Code::Enoent => "create the folder that TMPDIR names, or set TMPDIR to an existing folder",
        _ => "check the disk of TMPDIR, or set TMPDIR to a folder on another disk",
    };
    error.with_code(code).hint(hint)
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        let (done, removed) = mpsc::channel();
        let path = self.path.clone();
        let thread = std::thread::Builder::new().name("remove".to_owned()).spawn(move || {
            remove(&path);
            let _ = done.send(());
        });
        match thread {
            Ok(_) => {
                let _ = removed.recv_timeout(REMOVAL_PATIENCE);
            }
            Err(_) => remove(&self.path),
        }
    }
}

/// Locks a new folder. `None` if the sweep of another run has removed the folder or is about to: until the lock is
/// held, the folder of a living run looks like that of a dead run.
fn lock(folder: &Path) -> std::io::Result<Option<File>> {
    let lock = match create_file(&folder.join(LOCK)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        created => created?,
    };
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(None),
        locked => locked?,
    }
    let removed = rustix::fs::fstat(&lock)?.st_nlink == 0;
    Ok((!removed).then_some(lock))
}

fn create_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn folder_name() -> std::io::Result<String> {
    Ok(format!("pgstow-{}-{}", std::process::id(), hex::encode(random()?)))
}

fn random() -> std::io::Result<[u8; 8]> {
    let mut random = [0u8; 8];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(random)
}

fn is_folder_name(name: &str) -> bool {
    let Some((pid, random)) = name.strip_prefix("pgstow-").and_then(|rest| rest.split_once('-')) else {
        return false;
    };
    !pid.is_empty()
        && pid.bytes().all(|byte| byte.is_ascii_digit())
        && random.len() == 16
        && random.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A failure is ignored: the next sweep tries again.
fn remove(path: &Path) {
    if let Ok(folder) = open_folder(CWD, path) {
        let _ = empty(&folder).and_then(|()| absent_is_fine(rustix::fs::rmdir(path)));
    }
}

/// Removes the private folders below `temp` whose owners have died, and returns how many. It removes only folders
/// that belong to this user, have our name, and have no lock held; it does not follow links.
pub fn sweep_stale(temp: &Path) -> Result<usize> {
    let failed = |error| temp_error("look into TMPDIR,", temp, error);
    let parent = rustix::fs::openat(
        CWD,
        temp,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|error| failed(error.into()))?;
    let mut swept = 0;
    for entry in fs::read_dir(temp).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(name) = name.to_str().filter(|name| is_folder_name(name)) else {
            continue;
        };
        // A folder that disappears or changes meanwhile belongs to a living process.
        if sweep_one(&parent, name).unwrap_or(false) {
            swept += 1;
        }
    }
    Ok(swept)
}

fn sweep_one(parent: &OwnedFd, name: &str) -> rustix::io::Result<bool> {
    let folder = open_folder(parent, Path::new(name))?;
    let stat = rustix::fs::fstat(&folder)?;
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Ok(false);
    }
    let write = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match rustix::fs::openat(&folder, LOCK, write, Mode::empty()) {
        Ok(lock) => {
            if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
                return Ok(false);
            }
            empty(&folder)?;
        }
        // The owner died before it locked the folder or at the very end of its clean-up, or it is about to lock and
        // will then make another folder. So the folder is empty, or it is not ours.
        Err(Errno::NOENT) => {}
        Err(error) => return Err(error),
    }
    absent_is_fine(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR))?;
    Ok(true)
}

/// The lock is removed last, so that a sweep can finish an interrupted clean-up.
fn empty(folder: &OwnedFd) -> rustix::io::Result<()> {
    // Each pass moves folders that are too deep to the top; the next pass removes them.
    while remove_content(folder, Place { folder, depth: 0 })? {}
    absent_is_fine(rustix::fs::unlinkat(folder, LOCK, AtFlags::empty()))
}

/// The position of a removal: the top folder, and the depth below it.
#[derive(Clone, Copy)]
struct Place<'a> {
    folder: &'a OwnedFd,
    depth: usize,
}

/// Another process (a server that is ending, its watchdog) may remove the same files at the same time. Returns
/// whether folders were too deep and were moved to the top: a server's functions may have nested folders, or removed
/// our permissions, so that we cannot remove them.
fn remove_content(folder: &OwnedFd, place: Place<'_>) -> rustix::io::Result<bool> {
    let mut came_up = false;
    for name in entries(folder)? {
        if place.depth == 0 && name.to_bytes() == LOCK.as_bytes() {
            continue;
        }
        let removed = match rustix::fs::unlinkat(folder, &name, AtFlags::empty()) {
            // The owner of a folder may give itself access.
            Err(Errno::ACCESS) => rustix::fs::fchmod(folder, Mode::RWXU)
                .and_then(|()| rustix::fs::unlinkat(folder, &name, AtFlags::empty())),
            removed => removed,
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR) => {}
            Err(error) => return Err(error),
        }
        if place.depth == DEEPEST {
            let above = format!("deep-{}", hex::encode(random().map_err(|_| Errno::IO)?));
            absent_is_fine(rustix::fs::renameat(folder, &name, place.folder, above))?;
            came_up = true;
            continue;
        }
        let inner = match open_folder(folder, &name) {
            Err(Errno::ACCESS) => rustix::fs::chmodat(folder, &name, Mode::RWXU, AtFlags::empty())
                .and_then(|()| open_folder(folder, &name)),
            inner => inner,
        };
        match inner {
            Ok(inner) => {
                let depth = place.depth + 1;
                came_up |= remove_content(&inner, Place { depth, ..place })?;
            }
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error),
        }
        absent_is_fine(rustix::fs::unlinkat(folder, &name, AtFlags::REMOVEDIR))?;
    }
    Ok(came_up)
}

fn entries(folder: &OwnedFd) -> rustix::io::Result<Vec<std::ffi::CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

fn open_folder(parent: impl AsFd, path: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, path, flags, Mode::empty())
}

fn absent_is_fine(result: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match result {
        Err(error) if error != Errno::NOENT => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn it_is_private_and_gone_afterwards_with_all_that_is_in_it() {
        let temp = tempfile::tempdir().unwrap();
        let precious = temp.path().join("precious");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("file"), "keep").unwrap();
        let folder = PrivateFolder::create(temp.path()).unwrap();
        let file = folder.write("list", b"1; 2 3 TABLE").unwrap();
        assert_eq!((mode(folder.path()), mode(&file)), (0o700, 0o600));
        assert!(folder.write("list", b"again").is_err());
        fs::create_dir_all(folder.path().join("data/base/1")).unwrap();
        fs::write(folder.path().join("data/base/1/2"), "x").unwrap();
        symlink(&precious, folder.path().join("data/link")).unwrap();
        drop(folder);
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
        assert!(precious.join("file").exists());
    }

    #[tokio::test]
    async fn a_place_that_does_not_answer_is_given_up_and_keeps_nobody_from_stopping() {
        let temp = tempfile::tempdir().unwrap();
        let (alive, dead) = mpsc::channel::<()>();
        let waits = move |temp: &Path| {
            let _ = dead.recv();
            PrivateFolder::create(temp)
        };
        let error = within(Duration::from_millis(30), temp.path(), waits).await.unwrap_err();
        assert_eq!(error.code(), Code::Enoent);
        assert!(error.message().contains("has not answered"), "{error}");
        // A folder that it makes later is removed again.
        drop(alive);
        let folder = answering(temp.path(), PrivateFolder::create).await.unwrap();
        assert!(folder.path().exists());
        drop(folder);
        for _ in 0..500 {
            if fs::read_dir(temp.path()).unwrap().count() == 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{:?}", fs::read_dir(temp.path()).unwrap().collect::<Vec<_>>());
    }

    #[test]
    fn the_sweep_takes_dead_folders_and_leaves_living_ones() {
        let temp = tempfile::tempdir().unwrap();
        let living = PrivateFolder::create(temp.path()).unwrap();
        living.write("passfile", b"a").unwrap();
        let dead = temp.path().join("pgstow-1-0123456789abcdef");
        let sweeps = |expected, what| assert_eq!(sweep_stale(temp.path()).unwrap(), expected, "{what}");
        sweeps(0, "one that lives");
        fs::create_dir_all(dead.join("data/base")).unwrap();
        fs::write(dead.join("data/base/1"), "x").unwrap();
        fs::write(dead.join(LOCK), "").unwrap();
        sweeps(1, "content");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(LOCK), "").unwrap();
        sweeps(1, "a lock that nobody holds");
        fs::create_dir(&dead).unwrap();
        sweeps(1, "not even a lock");
        assert!(!dead.exists());
        assert!(living.path().join("passfile").exists());
    }

    #[test]
    fn folders_that_are_nested_without_end_or_closed_to_us_go_as_well() {
        let temp = tempfile::tempdir().unwrap();
        let folder = PrivateFolder::create(temp.path()).unwrap();
        let mut inner = open_folder(CWD, folder.path()).unwrap();
        for _ in 0..500 {
            fs::write(
                format!("/proc/self/fd/{}/file", std::os::fd::AsRawFd::as_raw_fd(&inner)),
                "x",
            )
            .unwrap();
            rustix::fs::mkdirat(&inner, "n", Mode::RWXU).unwrap();
            inner = open_folder(&inner, "n").unwrap();
        }
        // Root can enter every folder; this test may run as root.
        let closed = folder.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::write(closed.join("file"), "x").unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
        let unwritable = folder.path().join("unwritable");
        fs::create_dir(&unwritable).unwrap();
        fs::write(unwritable.join("file"), "x").unwrap();
        fs::set_permissions(&unwritable, fs::Permissions::from_mode(0o500)).unwrap();
        drop(folder);
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_is_made_while_others_sweep_stays() {
        let temp = tempfile::tempdir().unwrap();
        let made = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !made.load(std::sync::atomic::Ordering::Relaxed) {
                        sweep_stale(temp.path()).unwrap();
                    }
                });
            }
            for number in 0..300 {
                let folder = PrivateFolder::create(temp.path()).unwrap();
                let file = folder.write("passfile", b"a").unwrap();
                assert!(file.exists(), "{number}");
            }
            made.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_sweep_follows_no_link_and_takes_nothing_that_is_not_ours() {
        let temp = tempfile::tempdir().unwrap();
        let precious = temp.path().join("precious");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("file"), "keep").unwrap();
        fs::write(precious.join(LOCK), "").unwrap();
        symlink(&precious, temp.path().join("pgstow-1-0123456789abcdef")).unwrap();
        let foreign = temp.path().join("pgstow-2-0123456789abcdef");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("notes"), "keep").unwrap();
        let linked = temp.path().join("pgstow-3-0123456789abcdef");
        fs::create_dir(&linked).unwrap();
        fs::write(linked.join("notes"), "keep").unwrap();
        symlink(precious.join(LOCK), linked.join(LOCK)).unwrap();
        fs::create_dir(temp.path().join("pgstow-backups")).unwrap();
        assert_eq!(sweep_stale(temp.path()).unwrap(), 0);
        assert!(precious.join("file").exists() && precious.join(LOCK).exists());
        assert!(foreign.join("notes").exists() && linked.join("notes").exists());
        assert!(temp.path().join("pgstow-backups").exists());
    }
}

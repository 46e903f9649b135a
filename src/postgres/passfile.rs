//! The password's way to PostgreSQL's programs: a file that only we can read, in a folder that
//! only we can enter, gone when we are.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use secrecy::{ExposeSecret, SecretString};

use super::ConnectionInfo;
use crate::error::{Error, Result};

const PASSFILE: &str = "passfile";
/// Held locked while its owner lives; the kernel lets go of it however the owner dies.
const LOCK: &str = "lock";
/// A folder may be so new that its lock is not taken yet.
const YOUNG: Duration = Duration::from_secs(60);

/// A passfile of libpq's; removed with its folder on drop. What a killed process leaves behind
/// is removed by a later [`sweep_stale`].
#[derive(Debug)]
pub struct Passfile {
    folder: PathBuf,
    path: PathBuf,
    _lock: File,
}

impl Passfile {
    /// Writes the connection's password, if it has one, into a new private folder below `temp`.
    pub fn create(temp: &Path, info: &ConnectionInfo) -> Result<Option<Passfile>> {
        let Some(password) = &info.password else {
            return Ok(None);
        };
        let line = passfile_line(password)?;
        let failed = |error: std::io::Error| {
            Error::internal(format!("cannot write the passfile below {}", temp.display()))
                .source(error)
                .hint("point TMPDIR at a folder that this user may write to")
        };
        let folder = temp.join(folder_name().map_err(failed)?);
        DirBuilder::new().mode(0o700).create(&folder).map_err(failed)?;
        match fill(&folder, &line) {
            Ok(lock) => Ok(Some(Passfile {
                path: folder.join(PASSFILE),
                folder,
                _lock: lock,
            })),
            Err(error) => {
                remove(&folder);
                Err(failed(error))
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Passfile {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

fn fill(folder: &Path, line: &SecretString) -> std::io::Result<File> {
    let create = |name: &str| {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).open(folder.join(name))
    };
    let lock = create(LOCK)?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    create(PASSFILE)?.write_all(line.expose_secret().as_bytes())?;
    Ok(lock)
}

/// Our own two files and the folder; whatever else someone put there stays, and the folder too.
fn remove(folder: &Path) {
    // Nothing can be done about a failure here; the next sweep tries again.
    let _ = fs::remove_file(folder.join(PASSFILE));
    let _ = fs::remove_file(folder.join(LOCK));
    let _ = fs::remove_dir(folder);
}

/// Every host, port, database and user: the file serves one connection only.
fn passfile_line(password: &SecretString) -> Result<SecretString> {
    let password = password.expose_secret();
    if password.contains(['\n', '\r', '\0']) {
        return Err(
            Error::config("the password holds a line break, which a PostgreSQL passfile cannot carry")
                .hint("remove the line break (often the last character of a pasted secret), or change the password"),
        );
    }
    let escaped = password.replace('\\', "\\\\").replace(':', "\\:");
    Ok(SecretString::from(format!("*:*:*:*:{escaped}\n")))
}

fn folder_name() -> std::io::Result<String> {
    let mut random = [0u8; 8];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(format!("pgstow-{}-{}", std::process::id(), hex::encode(random)))
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

/// Removes the private folders below `temp` whose owners have died, and says how many. Only
/// folders of this user, named by us, whose lock nobody holds; links are not followed.
pub fn sweep_stale(temp: &Path, now: SystemTime) -> Result<usize> {
    let failed = |error: std::io::Error| Error::internal(format!("cannot look into {}", temp.display())).source(error);
    let parent = open_folder(rustix::fs::CWD, temp).map_err(|error| failed(error.into()))?;
    let mut swept = 0;
    for entry in fs::read_dir(temp).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(name) = name.to_str().filter(|name| is_folder_name(name)) else {
            continue;
        };
        // A folder that vanishes or changes under our hands is somebody's who is alive.
        if sweep_one(&parent, name, now).unwrap_or(false) {
            swept += 1;
        }
    }
    Ok(swept)
}

fn sweep_one(parent: &OwnedFd, name: &str, now: SystemTime) -> rustix::io::Result<bool> {
    let folder = open_folder(parent, Path::new(name))?;
    let stat = rustix::fs::fstat(&folder)?;
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or_default());
    let young = now.duration_since(changed).map_or(true, |age| age < YOUNG);
    // The passfile is written by whoever holds the lock: where there is one, nobody is about to
    // lock for the first time, and the lock alone tells whether the owner lives.
    let complete = rustix::fs::statat(&folder, PASSFILE, AtFlags::SYMLINK_NOFOLLOW).is_ok();
    if stat.st_uid != rustix::process::geteuid().as_raw() || (young && !complete) {
        return Ok(false);
    }
    let read = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match rustix::fs::openat(&folder, LOCK, read, Mode::empty()) {
        Ok(lock) => {
            if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
                return Ok(false);
            }
            unlink(&folder, PASSFILE)?;
            unlink(&folder, LOCK)?;
        }
        // Its owner died before it locked, or while it cleaned up.
        Err(rustix::io::Errno::NOENT) => unlink(&folder, PASSFILE)?,
        Err(error) => return Err(error),
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?;
    Ok(true)
}

fn open_folder(parent: impl std::os::fd::AsFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let mut flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if path.parent() == Some(Path::new("")) {
        flags |= OFlags::NOFOLLOW;
    }
    rustix::fs::openat(parent, path, flags, Mode::empty())
}

fn unlink(folder: &OwnedFd, name: &str) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Err(error) if error != rustix::io::Errno::NOENT => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn info(password: &str) -> ConnectionInfo {
        ConnectionInfo {
            password: Some(SecretString::from(password)),
            ..Default::default()
        }
    }

    fn later() -> SystemTime {
        SystemTime::now() + Duration::from_secs(3600)
    }

    #[test]
    fn the_file_is_private_escaped_and_gone_afterwards() {
        let temp = tempfile::tempdir().unwrap();
        let passfile = Passfile::create(temp.path(), &info(r"a:b\c'd")).unwrap().unwrap();
        let path = passfile.path().to_owned();
        let folder = path.parent().unwrap().to_owned();
        assert_eq!(fs::read_to_string(&path).unwrap(), "*:*:*:*:a\\:b\\\\c'd\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o7777, 0o700);
        drop(passfile);
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn without_a_password_there_is_no_file() {
        let temp = tempfile::tempdir().unwrap();
        assert!(
            Passfile::create(temp.path(), &ConnectionInfo::default())
                .unwrap()
                .is_none()
        );
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_password_with_a_line_break_is_refused_without_being_quoted() {
        let temp = tempfile::tempdir().unwrap();
        let error = Passfile::create(temp.path(), &info("hunter2\n")).unwrap_err();
        assert_eq!(error.code(), crate::error::Code::Config);
        assert!(!error.message().contains("hunter2"));
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_sweep_takes_dead_folders_and_leaves_living_ones() {
        let temp = tempfile::tempdir().unwrap();
        let living = Passfile::create(temp.path(), &info("a")).unwrap().unwrap();
        let dead = temp.path().join("pgstow-1-0123456789abcdef");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(LOCK), "").unwrap();
        assert_eq!(sweep_stale(temp.path(), SystemTime::now()).unwrap(), 0, "too young");
        fs::write(dead.join(PASSFILE), "x").unwrap();
        assert_eq!(sweep_stale(temp.path(), SystemTime::now()).unwrap(), 1, "a secret");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(LOCK), "").unwrap();
        assert_eq!(sweep_stale(temp.path(), later()).unwrap(), 1);
        assert!(!dead.exists());
        assert!(living.path().exists());
    }

    #[test]
    fn the_sweep_follows_no_link_and_takes_nothing_that_is_not_ours() {
        let temp = tempfile::tempdir().unwrap();
        let precious = temp.path().join("precious");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join(PASSFILE), "keep").unwrap();
        fs::write(precious.join(LOCK), "").unwrap();
        symlink(&precious, temp.path().join("pgstow-1-0123456789abcdef")).unwrap();
        let foreign = temp.path().join("pgstow-2-0123456789abcdef");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("notes"), "keep").unwrap();
        symlink(precious.join(LOCK), foreign.join(LOCK)).unwrap();
        fs::create_dir(temp.path().join("pgstow-backups")).unwrap();
        assert_eq!(sweep_stale(temp.path(), later()).unwrap(), 0);
        assert!(precious.join(PASSFILE).exists() && foreign.join("notes").exists());
        assert!(temp.path().join("pgstow-backups").exists());
    }
}

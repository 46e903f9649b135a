//! An upload into a folder store. The file is written under a temporary name beside its final one and published by
//! one rename, so that readers see no file or the whole file, even after a crash. Everything here blocks, so call it
//! within [`blocking`].

use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::beneath::Folder;
use crate::error::{Code, Error, Result};
use crate::run::files::{blocking, io_error, parent, sync_folder};
use crate::run::publication::{Publish, Published, give_name, temporary_name};

/// How long a folder may take for anything but the writing of an archive. On a network file system whose server is
/// gone, calls never return.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Runs blocking work as [`blocking`] does, and gives up when it takes longer than `patience`: its thread stays, and
/// does not keep the process alive. `folder` is for the message.
pub async fn within<T: Send + 'static>(
    patience: Duration,
    folder: &Path,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::time::timeout(patience, blocking(work)).await {
        Ok(done) => done,
        Err(_) => {
            let (path, seconds) = (folder.display(), patience.as_secs());
            let what = format!("the store's folder {path} has not answered for {seconds} s");
            Err(Error::new(Code::Store, what).hint("check its disk, or the server that it is mounted from"))
        }
    }
}

/// Dropped without [`Temporary::publish`] or [`Temporary::remove`], it leaves a left-over.
pub struct Temporary {
    /// The open folder of the file. It stays the same even if folders above it are renamed.
    folder: Folder,
    name: String,
    /// The final name, and its full path for messages.
    final_name: String,
    target: PathBuf,
    file: Arc<File>,
    /// Folders that were created for the file, outermost first: their parents and names.
    made: Vec<(Folder, String)>,
}

impl Temporary {
    /// Creates the file, and the folders from `root` to the last of `segments`, which is the file's final name. It
    /// creates `root` itself only if its parent exists.
    pub fn create(root: &Path, segments: &[String]) -> Result<Self> {
        let (name, folders) = match segments.split_last() {
            Some((name, folders)) => (name.as_str(), folders),
            None => return Err(Error::internal("a file without a name")),
        };
        let mut made = Vec::new();
        for tries in 0.. {
            let folder = match make_folders(root, folders, &mut made) {
                Ok(folder) => folder,
                // Another process may have removed an empty folder on the way.
                Err(error) if error.code() == Code::Enoent && tries < 3 => continue,
                Err(error) => {
                    remove_made(&made);
                    return Err(error);
                }
            };
            let temporary = temporary_name(OsStr::new(name)).to_string_lossy().into_owned();
            match folder.create_new(&temporary) {
                Ok(file) => {
                    return Ok(Self {
                        target: folder.path().join(name),
                        final_name: name.to_owned(),
                        name: temporary,
                        folder,
                        file: Arc::new(file),
                        made,
                    });
                }
                // The same; and an existing file with this name is not ours.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) && tries < 3 => {}
                Err(error) => {
                    remove_made(&made);
                    return Err(io_error("write into", folder.path(), error));
                }
            }
        }
        unreachable!("the loop ends by returning")
    }

    /// For writing from another thread.
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    pub fn target(&self) -> &Path {
        &self.target
    }

    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    pub fn final_name(&self) -> &str {
        &self.final_name
    }

    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        (&*self.file)
            .write_all(bytes)
            .map_err(|error| io_error("write", &self.target, error))
    }

    /// The bytes are on the disk before the name is. Close reports no error that sync does not, not even on network
    /// file systems.
    pub fn sync(&self) -> Result<()> {
        self.file
            .sync_all()
            .map_err(|error| io_error("sync", &self.target, error))
    }

    pub fn length(&self) -> Result<u64> {
        let metadata = self.file.metadata();
        Ok(metadata.map_err(|error| io_error("read", &self.target, error))?.len())
    }

    /// Gives the synced file its final name, as [`give_name`] does. If that fails, our file is removed.
    pub fn publish(self, how: Publish) -> Result<Published> {
        let (name, final_name) = (OsStr::new(&self.name), OsStr::new(&self.final_name));
        match give_name(self.folder.handle(), name, final_name, how) {
            Ok(Published::Done) => Ok(Published::Done),
            Ok(Published::Exists) => {
                self.remove()?;
                Ok(Published::Exists)
            }
            Err(unpublished) => {
                let failed = unpublished.told("publish", &self.target);
                Err(failed.with_clean_up(self.remove()))
            }
        }
    }

    /// Removes the file, and the folders that were created for it if they are empty.
    pub fn remove(self) -> Result<()> {
        self.folder.remove_file(&self.name)?;
        remove_made(&self.made);
        Ok(())
    }
}

/// Removes the folders that were created for one file, if they are empty.
fn remove_made(made: &[(Folder, String)]) {
    let _ = made.iter().rev().all(|(around, name)| around.remove_folder(name));
}

fn make_folders(root: &Path, folders: &[String], made: &mut Vec<(Folder, String)>) -> Result<Folder> {
    let mut folder = make_root(root, made)?;
    for name in folders {
        let (next, new) = folder.make_folder(name)?;
        let around = std::mem::replace(&mut folder, next);
        if new {
            made.push((around, name.clone()));
        }
    }
    Ok(folder)
}

fn make_root(root: &Path, made: &mut Vec<(Folder, String)>) -> Result<Folder> {
    if let Some(there) = Folder::root(root)? {
        return Ok(there);
    }
    let failed = |error: io::Error| io_error("make the folder", root, error);
    match DirBuilder::new().mode(0o700).create(root) {
        Ok(()) => {
            sync_folder(parent(root))?;
            let name = root.file_name().and_then(|name| name.to_str());
            if let (Some(around), Some(name)) = (Folder::root(parent(root))?, name) {
                if let Some(new) = around.folder(name)? {
                    around.give(new.handle()).map_err(failed)?;
                }
                made.push((around, name.to_owned()));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    Folder::root(root)?.ok_or_else(|| failed(io::ErrorKind::NotADirectory.into()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_abandoned_file_takes_the_folders_made_for_it_along_but_no_others() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("shop")).unwrap();
        let target = ["shop", "20260102T030405Z-full", "shop.dump"].map(str::to_owned);
        Temporary::create(root.path(), &target).unwrap().remove().unwrap();
        assert!(root.path().join("shop").is_dir());
        assert!(!root.path().join("shop/20260102T030405Z-full").exists());
    }

    /// Runs in a separate thread, for which every sync of the disk fails from then on.
    #[allow(unsafe_code)]
    fn where_no_sync_succeeds<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        let word = |code: u32, k: u32, jf: u8| libc::sock_filter {
            code: u16::try_from(code).unwrap(),
            jt: 0,
            jf,
            k,
        };
        let failed = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EIO).unwrap();
        let mut program = [
            word(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
            word(
                libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
                u32::try_from(libc::SYS_fsync).unwrap(),
                1,
            ),
            word(libc::BPF_RET | libc::BPF_K, failed, 0),
            word(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0),
        ];
        let filter = libc::sock_fprog {
            len: 4,
            filter: program.as_mut_ptr(),
        };
        let address = std::ptr::from_ref(&filter) as usize;
        let confined = move || {
            // SAFETY: the program outlives both calls, which hold for this thread alone.
            let done = unsafe {
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
                    | libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, address)
            };
            assert_eq!(done, 0, "{}", io::Error::last_os_error());
            work()
        };
        std::thread::scope(|scope| scope.spawn(confined).join().unwrap())
    }

    #[test]
    fn a_folder_whose_sync_fails_keeps_what_was_replaced_and_gets_nothing_new() {
        let root = tempfile::tempdir().unwrap();
        let kept = root.path().join("verification.json");
        fs::write(&kept, "before").unwrap();
        for (name, how) in [
            ("verification.json", Publish::Replace),
            ("manifest.json", Publish::IfAbsent),
        ] {
            let temporary = Temporary::create(root.path(), &[name.to_owned()]).unwrap();
            temporary.write(b"after").unwrap();
            let error = where_no_sync_succeeds(|| temporary.publish(how)).unwrap_err();
            assert_eq!(error.code(), Code::Store);
            assert!(error.message().contains("cannot sync the folder"), "{error}");
        }
        assert_eq!(fs::read_to_string(&kept).unwrap(), "after");
        let names: Vec<_> = fs::read_dir(root.path())
            .unwrap()
            .map(|one| one.unwrap().file_name())
            .collect();
        assert_eq!(names, ["verification.json"]);
    }

    #[tokio::test]
    async fn a_folder_that_does_not_answer_is_given_up() {
        let dead = || -> Result<()> {
            std::thread::sleep(Duration::from_secs(2));
            Ok(())
        };
        let error = within(Duration::from_millis(20), Path::new("/mnt/backups"), dead)
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::Store);
        assert!(error.message().contains("/mnt/backups has not answered"), "{error}");
    }
}

//! A file on its way into a folder store. It is written under a temporary name beside its final
//! one and published by one rename, so that readers see nothing or all of it, after a crash too.
//! Everything here blocks, and so runs within [`blocking`].

use std::collections::hash_map::RandomState;
use std::fs::{DirBuilder, File};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::beneath::Folder;
use crate::error::{Code, Error, Result};
use crate::run::files::{blocking, io_error, parent, sync_folder};

const SUFFIX: &str = ".pgstow-tmp";
/// Of the final name, this much is kept in the temporary one: a file name has 255 bytes at most.
const NAME_KEPT: usize = 200;
/// How long a folder may take to answer anything but the writing of an archive. A network file system
/// whose server is gone keeps its callers for ever.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Runs what blocks as [`blocking`] does, and gives it up when it takes longer than `patience`: its thread stays, and does not keep
/// the process. `folder` is for the message.
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
            Err(Error::new(Code::Store, what)
                .hint("see whether its disk, or the server that it is mounted from, is alive"))
        }
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
    /// The folder that the file is in, and stays in, whatever becomes of the names that lead there.
    folder: Folder,
    name: String,
    /// The final name, and where that is, for messages.
    final_name: String,
    target: PathBuf,
    file: Arc<File>,
    /// Folders that did not exist before, outermost first: where they are, and their names.
    made: Vec<(Folder, String)>,
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
    /// Makes the folders that lead from `root` to the last of `segments`, which is the file's final
    /// name, and the file. `root` itself is made where its parent exists.
    pub fn create(root: &Path, segments: &[String]) -> Result<Self> {
        let (name, folders) = match segments.split_last() {
            Some((name, folders)) => (name.as_str(), folders),
            None => return Err(Error::internal("a file without a name")),
        };
        let kept = (0..=NAME_KEPT.min(name.len())).rfind(|end| name.is_char_boundary(*end));
        let start = &name[..kept.unwrap_or(0)];
        let mut made = Vec::new();
        for tries in 0.. {
            let folder = match make_folders(root, folders, &mut made) {
                Ok(folder) => folder,
                // Another process may clean up empty folders, one of these among them.
                Err(error) if error.code() == Code::Enoent && tries < 3 => continue,
                Err(error) => {
                    remove_made(&made);
                    return Err(error);
                }
            };
            let random = format!(".{start}.{}{SUFFIX}", random());
            match folder.create_new(&random) {
                Ok(file) => {
                    return Ok(Self {
                        target: folder.path().join(name),
                        final_name: name.to_owned(),
                        name: random,
                        folder,
                        file: Arc::new(file),
                        made,
                    });
                }
                // The same; and a name that is taken already is not ours, whoever put it there.
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

    /// Gives the synced file its final name. A failure leaves no temporary name; and where nothing had
    /// the final name before, not that one either. What it has replaced cannot be had back, so the new
    /// file stays in its place then, though a power cut may undo that.
    pub fn publish(self, how: Publish) -> Result<Published> {
        let renamed = match how {
            Publish::Replace => self.folder.rename(&self.name, &self.final_name),
            Publish::IfAbsent => self.folder.rename_if_absent(&self.name, &self.final_name),
        };
        match renamed {
            Ok(()) => {}
            Err(error) if how == Publish::IfAbsent && error.kind() == io::ErrorKind::AlreadyExists => {
                self.remove()?;
                return Ok(Published::Exists);
            }
            Err(error) => {
                let failed = io_error("publish", &self.target, error);
                return Err(failed.with_clean_up(self.remove()));
            }
        }
        // Without this, a power cut may take the name back that we are about to report.
        match (self.folder.sync(), how) {
            (Ok(()), _) => Ok(Published::Done),
            (Err(error), Publish::Replace) => Err(error),
            (Err(error), Publish::IfAbsent) => Err(error.with_clean_up(self.folder.remove_file(&self.final_name))),
        }
    }

    /// Removes the file, and the folders that were made for it when nothing else is in them.
    pub fn remove(self) -> Result<()> {
        self.folder.remove_file(&self.name)?;
        remove_made(&self.made);
        Ok(())
    }
}

/// Removes the folders that were made for one file, as far as nothing else is in them.
fn remove_made(made: &[(Folder, String)]) {
    let _ = made.iter().rev().all(|(around, name)| around.remove_folder(name));
}

/// Unlikely to be met twice, which is all that it is for.
pub(super) fn random() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
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
        let target = ["shop", "20260102T030405Z-full", "shop.dump"].map(str::to_owned);
        Temporary::create(root.path(), &target).unwrap().remove().unwrap();
        assert!(root.path().join("shop").is_dir());
        assert!(!root.path().join("shop/20260102T030405Z-full").exists());
    }

    /// In a thread of its own, to which the kernel says from then on that its disk has failed to sync.
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

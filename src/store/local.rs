//! The folder store: objects are files, published atomically and durably. Folders are 0700 and
//! files 0600, because a backup holds everything that the database does.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{Access, access, statvfs};
use sha2::{Digest, Sha256};

use super::file_upload::FileUpload;
use super::temporary::{self, Publish, Published, Temporary, blocking, io_error, with_clean_up};
use super::{Condition, Entry, Head, Lifecycle, Object, ObjectInfo, Put, Space, Store, Unfinished, Upload, Version};
use crate::error::{Code, Error, Result};

/// Up to this length a file's version is the digest of its bytes; above, where reading it all
/// would cost too much, what its inode says. Whatever is replaced under a condition is small.
const DIGEST_LIMIT: u64 = 16 << 20;
const LOCK_WAIT: Duration = Duration::from_secs(10);

pub struct Local {
    root: PathBuf,
    url: String,
}

impl Local {
    /// Nothing is touched until the first request. The folder is made by the first write, where
    /// its parent exists.
    pub fn new(root: PathBuf) -> Self {
        let url = root.display().to_string();
        Self { root, url }
    }

    /// The file of a key. Keys have been encoded by the catalog; one that could leave the root, or
    /// that names a temporary file, is a bug there and must not become a path here.
    fn path(&self, key: &str) -> Result<PathBuf> {
        let mut path = self.root.clone();
        for segment in key.split('/') {
            let hostile = segment.is_empty()
                || segment == "."
                || segment == ".."
                || segment.contains('\0')
                || temporary::final_name(segment).is_some();
            if hostile {
                return Err(Error::internal(format!("{key:?} is not a key of a store")));
            }
            path.push(segment);
        }
        Ok(path)
    }

    /// The folder in which all keys with this prefix are.
    fn folder(&self, prefix: &str) -> Result<PathBuf> {
        match prefix.rsplit_once('/') {
            Some((folder, _)) => self.path(folder),
            None => Ok(self.root.clone()),
        }
    }
}

#[async_trait]
impl Store for Local {
    fn url(&self) -> &str {
        &self.url
    }

    async fn reach(&self) -> Result<()> {
        let root = self.root.clone();
        blocking(move || {
            let folder = match fs::metadata(&root) {
                Ok(metadata) if metadata.is_dir() => root.as_path(),
                Ok(_) => {
                    return Err(Error::new(Code::Enoent, format!("{} is not a folder", root.display())));
                }
                // It will be made; whether that can be done is its parent's business.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let parent = temporary::parent(&root);
                    if !parent.is_dir() {
                        let what = format!(
                            "the store's folder {} does not exist, nor does the folder around it",
                            root.display()
                        );
                        return Err(Error::new(Code::Enoent, what));
                    }
                    parent
                }
                Err(error) => return Err(io_error("open the store's folder", &root, error)),
            };
            access(folder, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)
                .map_err(|error| io_error("write into", folder, error.into()))
        })
        .await
    }

    async fn upload(&self, key: &str, _object: &ObjectInfo) -> Result<Box<dyn Upload>> {
        let root = self.root.clone();
        let target = self.path(key)?;
        let temporary = blocking(move || Temporary::create(&root, &target)).await?;
        Ok(Box::new(FileUpload::new(temporary)))
    }

    async fn put(&self, key: &str, body: Bytes, _object: &ObjectInfo, condition: Condition) -> Result<Put> {
        let root = self.root.clone();
        let target = self.path(key)?;
        blocking(move || put(&root, &target, &body, &condition)).await
    }

    async fn get(&self, key: &str) -> Result<Option<Object>> {
        let path = self.path(key)?;
        blocking(move || read(&path)).await
    }

    async fn get_range(&self, key: &str, offset: u64, length: u64) -> Result<Option<Bytes>> {
        let path = self.path(key)?;
        blocking(move || {
            let Some((file, metadata)) = open(&path)? else {
                return Ok(None);
            };
            let length = length.min(metadata.len().saturating_sub(offset));
            let length = usize::try_from(length)
                .map_err(|_| Error::internal("a range is longer than the memory of this machine"))?;
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, offset)
                .map_err(|error| io_error("read", &path, error))?;
            Ok(Some(Bytes::from(bytes)))
        })
        .await
    }

    async fn head(&self, key: &str) -> Result<Option<Head>> {
        let path = self.path(key)?;
        blocking(move || {
            let Some((file, metadata)) = open(&path)? else {
                return Ok(None);
            };
            Ok(Some(Head {
                bytes: metadata.len(),
                version: version(&file, &metadata, &path)?,
                metadata: Vec::new(),
            }))
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for (key, metadata) in self.files(prefix).await? {
            if !is_temporary(&key) {
                entries.push(Entry {
                    key,
                    bytes: metadata.len(),
                    modified: metadata.modified().ok().and_then(timestamp),
                });
            }
        }
        Ok(entries)
    }

    async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        let folder = self.folder(prefix)?;
        blocking(move || {
            let mut names = Vec::new();
            for entry in entries(&folder)? {
                if entry.path().is_dir()
                    && let Ok(name) = entry.file_name().into_string()
                {
                    names.push(name);
                }
            }
            names.sort();
            Ok(names)
        })
        .await
    }

    async fn unfinished(&self, prefix: &str) -> Result<Vec<Unfinished>> {
        let mut unfinished = Vec::new();
        for (path, metadata) in self.files(prefix).await? {
            let (folder, id) = path.rsplit_once('/').unwrap_or(("", &path));
            if let Some(name) = temporary::final_name(id) {
                let key = if folder.is_empty() {
                    name.to_owned()
                } else {
                    format!("{folder}/{name}")
                };
                unfinished.push(Unfinished {
                    key,
                    id: id.to_owned(),
                    started: metadata
                        .created()
                        .or_else(|_| metadata.modified())
                        .ok()
                        .and_then(timestamp),
                });
            }
        }
        Ok(unfinished)
    }

    async fn abort_unfinished(&self, unfinished: &Unfinished) -> Result<()> {
        if temporary::final_name(&unfinished.id).is_none() || unfinished.id.contains('/') {
            let what = format!("{:?} is not a temporary file of a store", unfinished.id);
            return Err(Error::internal(what));
        }
        let root = self.root.clone();
        let folder = self.folder(&unfinished.key)?;
        let file = folder.join(&unfinished.id);
        blocking(move || {
            temporary::remove_file(&file)?;
            temporary::remove_folders(&root, &folder);
            Ok(())
        })
        .await
    }

    async fn discard(&self, key: &str) -> Result<()> {
        let root = self.root.clone();
        let path = self.path(key)?;
        blocking(move || {
            let folder = temporary::parent(&path);
            if folder.is_dir() {
                temporary::remove_file(&path)?;
                // What is taken away first (a manifest) must not come back after what went later.
                match temporary::sync_folder(folder) {
                    // Whoever discarded the last file beside it has taken the folder away.
                    Err(_) if !folder.exists() => {}
                    synced => synced?,
                }
                temporary::remove_folders(&root, folder);
            }
            Ok(())
        })
        .await
    }

    async fn space(&self) -> Result<Option<Space>> {
        let root = self.root.clone();
        blocking(move || {
            // Before the first backup there is only the folder around it.
            let folder = if root.exists() {
                root.as_path()
            } else {
                temporary::parent(&root)
            };
            let disk = statvfs(folder).map_err(|error| io_error("measure the disk of", folder, error.into()))?;
            Ok(Some(Space {
                free: disk.f_bavail.saturating_mul(disk.f_frsize),
                total: disk.f_blocks.saturating_mul(disk.f_frsize),
            }))
        })
        .await
    }

    fn lifecycle(&self) -> Option<&dyn Lifecycle> {
        None
    }
}

impl Local {
    /// All files whose path below the root starts with `prefix`, temporary ones too, in byte
    /// order.
    async fn files(&self, prefix: &str) -> Result<Vec<(String, fs::Metadata)>> {
        let folder = self.folder(prefix)?;
        let prefix = prefix.to_owned();
        blocking(move || {
            let start = prefix.rfind('/').map_or("", |slash| &prefix[..=slash]);
            let mut found = Vec::new();
            walk(&folder, start, &prefix, &mut found)?;
            found.sort_by(|(one, _), (other, _)| one.as_bytes().cmp(other.as_bytes()));
            Ok(found)
        })
        .await
    }
}

/// `key` is `folder`'s path below the root, with a slash at its end. Links are followed directly in
/// the root alone: a database's folder may lie on another disk, but no link inside it may bring
/// foreign files into the store's listings, or lead in circles.
fn walk(folder: &Path, key: &str, prefix: &str, found: &mut Vec<(String, fs::Metadata)>) -> Result<()> {
    let in_root = key.is_empty();
    for entry in entries(folder)? {
        // Whatever has another name than UTF-8 is none of ours.
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let path = entry.path();
        let metadata = if in_root {
            fs::metadata(&path)
        } else {
            fs::symlink_metadata(&path)
        };
        let metadata = match metadata {
            Ok(metadata) => metadata,
            // Gone in the meantime, or a link that leads nowhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(io_error("read", &path, error)),
        };
        let key = format!("{key}{name}");
        if metadata.is_dir() {
            let folder_key = format!("{key}/");
            let on_the_way = folder_key.starts_with(prefix) || prefix.starts_with(&folder_key);
            // A disk's own folder, closed to all but root.
            let foreign = in_root && prefix.is_empty() && name == "lost+found";
            if on_the_way && !foreign {
                walk(&path, &folder_key, prefix, found)?;
            }
        } else if metadata.is_file() && key.starts_with(prefix) {
            found.push((key, metadata));
        }
    }
    Ok(())
}

/// What is in a folder; nothing when there is no such folder.
fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>> {
    let found = match fs::read_dir(folder) {
        Ok(found) => found.collect::<io::Result<Vec<_>>>(),
        Err(error) if absent(&error) => return Ok(Vec::new()),
        Err(error) => Err(error),
    };
    found.map_err(|error| io_error("list", folder, error))
}

fn is_temporary(key: &str) -> bool {
    let name = key.rsplit_once('/').map_or(key, |(_, name)| name);
    temporary::final_name(name).is_some()
}

fn absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn timestamp(time: SystemTime) -> Option<jiff::Timestamp> {
    jiff::Timestamp::try_from(time).ok()
}

/// `None` when there is no such file, or when it is a folder.
fn open(path: &Path) -> Result<Option<(File, fs::Metadata)>> {
    let opened = File::open(path).and_then(|file| file.metadata().map(|metadata| (file, metadata)));
    match opened {
        Ok((_, metadata)) if metadata.is_dir() => Ok(None),
        Ok(opened) => Ok(Some(opened)),
        Err(error) if absent(&error) => Ok(None),
        Err(error) => Err(io_error("read", path, error)),
    }
}

fn read(path: &Path) -> Result<Option<Object>> {
    let Some((file, metadata)) = open(path)? else {
        return Ok(None);
    };
    let mut body = Vec::new();
    io::Read::read_to_end(&mut &file, &mut body).map_err(|error| io_error("read", path, error))?;
    let version = if metadata.len() > DIGEST_LIMIT {
        version(&file, &metadata, path)?
    } else {
        digest_version(&body)
    };
    Ok(Some(Object {
        body: Bytes::from(body),
        version,
    }))
}

fn digest_version(bytes: &[u8]) -> Version {
    Version(hex::encode(Sha256::digest(bytes)))
}

fn version(mut file: &File, metadata: &fs::Metadata, path: &Path) -> Result<Version> {
    if metadata.len() > DIGEST_LIMIT {
        // A new version is always a new file: it has another inode, or another time.
        return Ok(Version(format!(
            "{}-{}-{}.{}",
            metadata.ino(),
            metadata.len(),
            metadata.mtime(),
            metadata.mtime_nsec()
        )));
    }
    let mut body = Vec::new();
    io::Read::read_to_end(&mut file, &mut body).map_err(|error| io_error("read", path, error))?;
    Ok(digest_version(&body))
}

fn put(root: &Path, target: &Path, body: &[u8], condition: &Condition) -> Result<Put> {
    let temporary = Temporary::create(root, target)?;
    let file = temporary.file();
    let written = temporary.write(body).and_then(|()| temporary.sync());
    if let Err(error) = written {
        return Err(with_clean_up(error, temporary.remove()));
    }
    // Held from the look at the old version to the rename, so that two processes cannot both find
    // the version unchanged. Let go when it is dropped.
    let lock = match lock(temporary::parent(target)) {
        Ok(lock) => Some(lock),
        Err(error) if matches!(condition, Condition::Unchanged(_)) => {
            return Err(with_clean_up(error, temporary.remove()));
        }
        // The other two are atomic by themselves where a file system has no locks.
        Err(_) => None,
    };
    let published = match condition {
        Condition::Always => temporary.publish(Publish::Replace)?,
        Condition::Absent => temporary.publish(Publish::IfAbsent)?,
        Condition::Unchanged(expected) => match read(target) {
            Ok(Some(current)) if current.version == *expected => temporary.publish(Publish::Replace)?,
            Ok(_) => {
                temporary.remove()?;
                Published::Exists
            }
            Err(error) => return Err(with_clean_up(error, temporary.remove())),
        },
    };
    let put = match published {
        Published::Done => {
            let metadata = file.metadata().map_err(|error| io_error("read", target, error))?;
            if metadata.len() > DIGEST_LIMIT {
                Put::Done(version(&file, &metadata, target)?)
            } else {
                Put::Done(digest_version(body))
            }
        }
        // The same bytes are there already: the put is a repeated one.
        Published::Exists => match read(target)? {
            Some(current) if current.body == body => Put::Done(current.version),
            _ => Put::Refused,
        },
    };
    drop(lock);
    Ok(put)
}

fn lock(folder: &Path) -> Result<File> {
    let file = File::open(folder).map_err(|error| io_error("lock", folder, error))?;
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(fs::TryLockError::WouldBlock) => {
                let what = format!("cannot lock {}: another process holds it", folder.display());
                return Err(Error::new(Code::Store, what));
            }
            Err(fs::TryLockError::Error(error)) => return Err(io_error("lock", folder, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_leaves_the_root() {
        let store = Local::new(PathBuf::from("/srv/backups"));
        for key in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a//b",
            "a/",
            ".",
            "a/./b",
            "a\0b",
        ] {
            assert_eq!(store.path(key).unwrap_err().code(), Code::Internal, "{key:?}");
        }
        assert_eq!(
            store.path("shop/.lease").unwrap(),
            PathBuf::from("/srv/backups/shop/.lease")
        );
    }
}

//! The folder store: objects are files, published atomically and durably. Folders are 0700 and
//! files 0600, because a backup holds everything that the database does; in a store whose own folder
//! is 1750 its group may read, and put results beside a backup.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{Access, FileType, Stat, access, statvfs};
use sha2::{Digest, Sha256};

use super::beneath::{Folder, linked};
use super::file_upload::{FileUpload, mark_of};
use super::limits::{self, too_long};
use super::mounts;
use super::settings::StoreCreate;
use super::temporary::{self, PATIENCE, Publish, Published, Temporary, within};
use super::{
    Condition, Entry, Lifecycle, Mark, Object, ObjectHead, ObjectInfo, Put, Space, Store, Unfinished, Upload, Version,
};
use crate::error::{Code, Error, Result};
use crate::repository::backup_id::{MANIFEST, database_of_folder};
use crate::run::files::{self, io_error};

/// Up to this length a file's version is the digest of its bytes; above, where reading it all
/// would cost too much, what its inode says. Whatever is replaced under a condition is small.
const DIGEST_LIMIT: u64 = 16 << 20;
/// Folders within each other that are looked into.
const DEEPEST: usize = 16;
/// How deep a backup's own folder is.
const OF_A_BACKUP: usize = 2;
const LOCK_WAIT: Duration = Duration::from_secs(10);

pub struct Local {
    root: PathBuf,
    url: String,
    create: StoreCreate,
    remembered: mounts::Remembered,
    /// It was there when it was written into: gone since, it is not made anew.
    begun: Arc<AtomicBool>,
}

impl Local {
    /// Nothing is touched until the first request. The folder is made by the first write, where
    /// its parent exists.
    pub fn new(root: PathBuf) -> Self {
        let url = root.display().to_string();
        Self {
            root,
            url,
            create: StoreCreate::Always,
            remembered: mounts::Remembered::default(),
            begun: Arc::default(),
        }
    }

    /// Whether a backup may begin in a folder that has none yet. Where stores are mounted is remembered in the
    /// folder `state`.
    pub fn created(self, create: StoreCreate, state: Option<&Path>) -> Self {
        let remembered = mounts::Remembered::in_folder(state);
        Self {
            create,
            remembered,
            ..self
        }
    }

    /// Work that may make the folder, once.
    async fn write<T: Send + 'static>(&self, work: impl FnOnce(&Path) -> Result<T> + Send + 'static) -> Result<T> {
        let begun = Arc::clone(&self.begun);
        self.work(move |root| {
            let exists = root.exists();
            if begun.load(Ordering::Relaxed) && !exists {
                let what = format!(
                    "the store's folder {} is gone, and was there a moment ago",
                    root.display()
                );
                return Err(Error::new(Code::Enoent, what).hint("mount its disk again, or find out who removed it"));
            }
            // What this work makes, it may also take away again: that it was there counts from the next one on, or from
            // the first object that is seen in it.
            begun.store(exists, Ordering::Relaxed);
            work(root)
        })
        .await
    }

    /// Work on small things, for which no folder that is alive takes long.
    async fn work<T: Send + 'static>(&self, work: impl FnOnce(&Path) -> Result<T> + Send + 'static) -> Result<T> {
        let root = self.root.clone();
        within(PATIENCE, &self.root, move || work(&root)).await
    }
}

/// The names that lead to the file of a key. Keys have been encoded by the catalog; one that could
/// leave the root, or that names a temporary file, is a bug there and must not become a path here.
fn segments(key: &str) -> Result<Vec<String>> {
    let hostile = |segment: &str| {
        matches!(segment, "" | "." | "..") || segment.contains('\0') || temporary::final_name(segment).is_some()
    };
    if key.split('/').any(hostile) {
        return Err(Error::internal(format!("{key:?} is not a key of a store")));
    }
    Ok(key.split('/').map(str::to_owned).collect())
}

/// The folders in which all keys with this prefix are.
fn folders_of(prefix: &str) -> Result<Vec<String>> {
    match prefix.rsplit_once('/') {
        Some((folder, _)) => segments(folder),
        None => Ok(Vec::new()),
    }
}

/// The folder that these names lead to; `None` where one of them is not there.
fn descend(root: &Path, names: &[String]) -> Result<Option<Folder>> {
    Ok(way(root, names)?.pop())
}

/// The root and each folder on the way, or none where one of them is not there.
fn way(root: &Path, names: &[String]) -> Result<Vec<Folder>> {
    let Some(root) = Folder::root(root)? else {
        return Ok(Vec::new());
    };
    let mut way = vec![root];
    for name in names {
        let Some(next) = way.last().map(|last| last.folder(name)).transpose()?.flatten() else {
            return Ok(Vec::new());
        };
        way.push(next);
    }
    Ok(way)
}

/// A file of the store, open; with its folder, its name and its length.
struct Opened {
    file: File,
    bytes: u64,
    path: PathBuf,
}

fn open(root: &Path, key: &str) -> Result<Option<Opened>> {
    let names = segments(key)?;
    let Some((name, folders)) = names.split_last() else {
        return Ok(None);
    };
    match descend(root, folders)? {
        Some(folder) => open_in(&folder, name),
        None => Ok(None),
    }
}

fn open_in(folder: &Folder, name: &str) -> Result<Option<Opened>> {
    Ok(folder.open(name)?.map(|(file, bytes)| Opened {
        file,
        bytes,
        path: folder.path().join(name),
    }))
}

/// Takes a name away from the end of a way, and then the folders on it that are empty, but not the
/// root. Not being able to is no failure: an empty folder is no object.
fn remove_folders(way: &[Folder], names: &[String]) {
    let _ = way
        .iter()
        .zip(names)
        .rev()
        .all(|(around, name)| around.remove_folder(name));
}

#[async_trait]
impl Store for Local {
    fn url(&self) -> &str {
        &self.url
    }

    async fn reach(&self) -> Result<()> {
        let (create, remembered) = (self.create, self.remembered.clone());
        self.work(move |root| {
            leads_somewhere(root)?;
            mounts::check(root, create, &remembered)?;
            let folder = match fs::metadata(root) {
                Ok(metadata) if metadata.is_dir() => root,
                Ok(_) => {
                    return Err(Error::new(Code::Enoent, format!("{} is not a folder", root.display())));
                }
                // It will be made; whether that can be done is its parent's business.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let parent = files::parent(root);
                    if !parent.is_dir() {
                        let what = format!(
                            "the store's folder {} does not exist, nor does the folder around it",
                            root.display()
                        );
                        return Err(Error::new(Code::Enoent, what));
                    }
                    parent
                }
                Err(error) => return Err(io_error("open the store's folder", root, error)),
            };
            access(folder, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)
                .map_err(|error| io_error("write into", folder, error.into()))
        })
        .await
    }

    async fn is_there(&self) -> Result<()> {
        let gone = self
            .work(|root| Ok(fs::symlink_metadata(root).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)));
        if gone.await? {
            let what = format!("the store's folder {} does not exist", self.url);
            return Err(Error::new(Code::Enoent, what)
                .hint("correct --store, or mount its disk; where no backup was made yet, the first one makes it"));
        }
        self.reach().await
    }

    async fn upload(&self, key: &str, object: &ObjectInfo) -> Result<Box<dyn Upload>> {
        let names = segments(key)?;
        let temporary = self.write(move |root| Temporary::create(root, &names)).await?;
        Ok(Box::new(FileUpload::new(temporary, object.replace)))
    }

    async fn put(&self, key: &str, body: Bytes, _object: &ObjectInfo, condition: Condition) -> Result<Put> {
        let names = segments(key)?;
        // A store has a backup from its first manifest on.
        let remembered = key.ends_with("/manifest.json").then(|| self.remembered.clone());
        let begun = Arc::clone(&self.begun);
        self.write(move |root| {
            let done = put(root, &names, &body, &condition)?;
            if matches!(done, Put::Done(_)) {
                begun.store(true, Ordering::Relaxed);
            }
            if let Some(remembered) = remembered {
                remembered.note(root);
            }
            Ok(done)
        })
        .await
    }

    async fn get(&self, key: &str) -> Result<Option<Object>> {
        self.get_up_to(key, limits::most(key)).await
    }

    async fn get_up_to(&self, key: &str, most: u64) -> Result<Option<Object>> {
        let key = key.to_owned();
        self.work(move |root| match open(root, &key)? {
            Some(opened) => read(&opened, most).map(Some),
            None => Ok(None),
        })
        .await
    }

    async fn get_range(&self, key: &str, offset: u64, length: u64) -> Result<Option<Bytes>> {
        let key = key.to_owned();
        self.work(move |root| {
            let Some(Opened { file, bytes, path }) = open(root, &key)? else {
                return Ok(None);
            };
            let length = length.min(bytes.saturating_sub(offset));
            let length = usize::try_from(length)
                .map_err(|_| Error::internal("a range is longer than the memory of this machine"))?;
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, offset)
                .map_err(|error| io_error("read", &path, error))?;
            Ok(Some(Bytes::from(bytes)))
        })
        .await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectHead>> {
        let key = key.to_owned();
        self.work(move |root| {
            let Some(opened) = open(root, &key)? else {
                return Ok(None);
            };
            Ok(Some(ObjectHead {
                bytes: opened.bytes,
                version: version(&opened)?,
                metadata: Vec::new(),
            }))
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for (key, stat) in self.files(prefix).await? {
            if !is_temporary(&key) {
                entries.push(Entry {
                    key,
                    bytes: if is_file(&stat) { length(&stat) } else { 0 },
                    modified: modified(&stat),
                });
            }
        }
        Ok(entries)
    }

    async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        let names = folders_of(prefix)?;
        self.work(move |root| {
            let mut folders = Vec::new();
            if let Some(folder) = descend(root, &names)? {
                for found in folder.entries()? {
                    match found.kind() {
                        FileType::Directory => folders.push(found.name),
                        FileType::Symlink if names.is_empty() => {
                            let error = linked(&folder.path().join(&found.name));
                            tracing::warn!("{}: {}", error.message(), error.hint_text());
                        }
                        _ => {}
                    }
                }
            }
            folders.sort();
            Ok(folders)
        })
        .await
    }

    async fn passed_over(&self) -> Result<Vec<Error>> {
        self.work(|root| {
            let Some(folder) = Folder::root(root)? else {
                return Ok(Vec::new());
            };
            // A database's, perhaps, from a time when such links were followed, or from another disk.
            let links = folder
                .entries()?
                .into_iter()
                .filter(|one| one.kind() == FileType::Symlink);
            let links = links.filter(|one| database_of_folder(&one.name).is_some());
            Ok(links.map(|one| linked(&folder.path().join(&one.name))).collect())
        })
        .await
    }

    async fn unfinished(&self, prefix: &str) -> Result<Vec<Unfinished>> {
        let mut unfinished = Vec::new();
        for (path, stat) in self.files(prefix).await? {
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
                    started: modified(&stat),
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
        let (names, file) = (folders_of(&unfinished.key)?, unfinished.id.clone());
        self.work(move |root| {
            let way = way(root, &names)?;
            if let Some(folder) = way.last() {
                folder.remove_file(&file)?;
                remove_folders(&way, &names);
            }
            Ok(())
        })
        .await
    }

    async fn came_from(&self, key: &str, mark: &Mark) -> Result<bool> {
        let (key, mark) = (key.to_owned(), mark.clone());
        self.work(move |root| {
            let there = open(root, &key)?;
            Ok(there.is_some_and(|there| !mark.0.is_empty() && mark_of(&there.file) == mark))
        })
        .await
    }

    async fn discard(&self, key: &str) -> Result<()> {
        let mut names = segments(key)?;
        self.work(move |root| {
            let Some(file) = names.pop() else { return Ok(()) };
            let way = way(root, &names)?;
            if let Some(folder) = way.last() {
                folder.remove_file(&file)?;
                // What is taken away first (a manifest) must not come back after what went later.
                folder.sync()?;
                remove_folders(&way, &names);
            }
            Ok(())
        })
        .await
    }

    async fn unmake(&self) -> Result<()> {
        self.work(|root| match fs::remove_dir(root) {
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
                Err(io_error("remove", root, error))
            }
            _ => Ok(()),
        })
        .await
    }

    async fn space(&self) -> Result<Option<Space>> {
        self.work(|root| {
            // Before the first backup there is only the folder around it.
            let folder = if root.exists() { root } else { files::parent(root) };
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
    /// Everything but folders whose path below the root starts with `prefix`, temporary files too, in
    /// byte order. What is no regular file is among them, so that whoever looks for it is told.
    async fn files(&self, prefix: &str) -> Result<Vec<(String, Stat)>> {
        let names = folders_of(prefix)?;
        let prefix = prefix.to_owned();
        self.work(move |root| {
            let start = prefix.rfind('/').map_or("", |slash| &prefix[..=slash]);
            let mut found = Vec::new();
            if let Some(folder) = descend(root, &names)? {
                walk(&folder, start, &prefix, &mut found)?;
            }
            found.sort_by(|(one, _), (other, _)| one.as_bytes().cmp(other.as_bytes()));
            Ok(found)
        })
        .await
    }
}

/// `key` is `folder`'s path below the root, with a slash at its end.
fn walk(folder: &Folder, key: &str, prefix: &str, found: &mut Vec<(String, Stat)>) -> Result<()> {
    let in_root = key.is_empty();
    for entry in folder.entries()? {
        let kind = entry.kind();
        let key = format!("{key}{}", entry.name);
        if kind == FileType::Directory {
            let folder_key = format!("{key}/");
            let on_the_way = folder_key.starts_with(prefix) || prefix.starts_with(&folder_key);
            // A disk's own folder, closed to all but root.
            let foreign = in_root && prefix.is_empty() && entry.name == "lost+found";
            // Ours are in the third; each one on the way is kept open.
            let too_deep = folder_key.matches('/').count() > DEEPEST;
            if on_the_way && !foreign && !too_deep {
                let below = folder.folder(&entry.name).and_then(|inner| match inner {
                    Some(inner) => walk(&inner, &folder_key, prefix, found),
                    None => Ok(()),
                });
                match below {
                    // Who may put results beside a backup may have made and closed it, and must not end every command.
                    Err(error) if error.code() == Code::Eacces && folder_key.matches('/').count() > OF_A_BACKUP => {
                        tracing::warn!("{}, so what is in it is not looked at", error.message());
                    }
                    below => below?,
                }
            }
        } else if key.starts_with(prefix) {
            found.push((key, entry.stat));
        }
    }
    Ok(())
}

fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

fn length(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

fn modified(stat: &Stat) -> Option<jiff::Timestamp> {
    let nanoseconds = i32::try_from(stat.st_mtime_nsec).ok()?;
    jiff::Timestamp::new(stat.st_mtime, nanoseconds).ok()
}

fn is_temporary(key: &str) -> bool {
    let name = key.rsplit_once('/').map_or(key, |(_, name)| name);
    temporary::final_name(name).is_some()
}

/// The whole file, where it has no more than `most` bytes: by what the file system says, and by what
/// comes, since a file may grow while it is read.
fn read(opened: &Opened, most: u64) -> Result<Object> {
    let Opened { file, bytes, path } = opened;
    if *bytes > most {
        return Err(too_long(&path.display().to_string(), *bytes, most));
    }
    let body = take(file, *bytes, most).map_err(|error| io_error("read", path, error))?;
    if body.len() as u64 > most {
        return Err(too_long(&path.display().to_string(), body.len() as u64, most));
    }
    let version = if *bytes > DIGEST_LIMIT {
        version(opened)?
    } else {
        digest_version(&body)
    };
    Ok(Object {
        body: Bytes::from(body),
        version,
    })
}

/// At most one byte more than `most`, into room for `expected`.
fn take(file: &File, expected: u64, most: u64) -> io::Result<Vec<u8>> {
    let room = usize::try_from(expected.saturating_add(1)).unwrap_or(0);
    let mut body = Vec::with_capacity(room);
    file.take(most.saturating_add(1)).read_to_end(&mut body)?;
    Ok(body)
}

fn digest_version(bytes: &[u8]) -> Version {
    Version(hex::encode(Sha256::digest(bytes)))
}

fn version(opened: &Opened) -> Result<Version> {
    let Opened { file, bytes, path } = opened;
    let failed = |error: io::Error| io_error("read", path, error);
    if *bytes > DIGEST_LIMIT {
        // A new version is always a new file: it has another inode, or another time.
        let metadata = file.metadata().map_err(failed)?;
        return Ok(Version(format!(
            "{}-{}-{}.{}",
            metadata.ino(),
            metadata.len(),
            metadata.mtime(),
            metadata.mtime_nsec()
        )));
    }
    Ok(digest_version(&take(file, *bytes, DIGEST_LIMIT).map_err(failed)?))
}

fn put(root: &Path, names: &[String], body: &[u8], condition: &Condition) -> Result<Put> {
    let temporary = Temporary::create(root, names)?;
    let written = temporary.write(body).and_then(|()| temporary.sync());
    if let Err(error) = written {
        return Err(error.with_clean_up(temporary.remove()));
    }
    let name = names.last().map_or("", String::as_str);
    // Held from the look at the old version to the rename, so that two processes cannot both find
    // the version unchanged. Let go when it is dropped.
    let lock = match lock(temporary.folder()) {
        Ok(lock) => Some(lock),
        Err(error) if matches!(condition, Condition::Unchanged(_)) => {
            return Err(error.with_clean_up(temporary.remove()));
        }
        // The other two are atomic by themselves where a file system has no locks.
        Err(_) => None,
    };
    // What has the name may be larger than anything that is put: then it is not what was expected.
    let current = |folder: &Folder| match open_in(folder, name)? {
        Some(opened) => read(&opened, limits::most(name).max(body.len() as u64)).map(Some),
        None => Ok(None),
    };
    let folder = temporary.folder().try_clone()?;
    let path = folder.path().join(name);
    let file = temporary.file();
    let published = match condition {
        Condition::Always => temporary.publish(Publish::Replace)?,
        Condition::Absent => temporary.publish(Publish::IfAbsent)?,
        Condition::Unchanged(expected) => match current(&folder) {
            Ok(Some(current)) if current.version == *expected => temporary.publish(Publish::Replace)?,
            Ok(_) => {
                temporary.remove()?;
                Published::Exists
            }
            Err(error) => return Err(error.with_clean_up(temporary.remove())),
        },
    };
    // Not before: until then, a manifest could be put in the place of ours.
    if published == Published::Done && name == MANIFEST {
        folder.admit();
    }
    let put = match published {
        Published::Done if body.len() as u64 > DIGEST_LIMIT => {
            let file = file.try_clone().map_err(|error| io_error("read", &path, error))?;
            let bytes = body.len() as u64;
            Put::Done(version(&Opened { file, bytes, path })?)
        }
        Published::Done => Put::Done(digest_version(body)),
        // The same bytes are there already: the put is a repeated one.
        Published::Exists => match current(&folder)? {
            Some(current) if current.body == body => Put::Done(current.version),
            _ => Put::Refused,
        },
    };
    drop(lock);
    Ok(put)
}

fn lock(folder: &Folder) -> Result<File> {
    let failed = |error: io::Error| io_error("lock", folder.path(), error);
    let file = folder.for_lock().map_err(failed)?;
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(fs::TryLockError::WouldBlock) => {
                let what = format!("cannot lock {}: another process holds it", folder.path().display());
                return Err(Error::new(Code::Store, what));
            }
            Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
}

/// A link whose disk is not mounted would pass for a folder that is yet to be made.
fn leads_somewhere(root: &Path) -> Result<()> {
    let Ok(target) = fs::read_link(root) else {
        return Ok(());
    };
    match fs::metadata(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::new(
            Code::Enoent,
            format!(
                "the store's folder {} is a link to {}, which does not exist",
                root.display(),
                target.display()
            ),
        )
        .hint("mount the disk that it leads to, or make the folder there, or correct the link")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_leaves_the_root() {
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
            assert_eq!(segments(key).unwrap_err().code(), Code::Internal, "{key:?}");
        }
        assert_eq!(segments("shop/.lease").unwrap(), ["shop", ".lease"]);
    }

    #[tokio::test]
    async fn a_link_that_leads_nowhere_is_no_store_that_is_yet_to_be_made() {
        let root = tempfile::tempdir().unwrap();
        let link = root.path().join("backups");
        std::os::unix::fs::symlink(root.path().join("disk"), &link).unwrap();
        let store = Local::new(link);
        for error in [store.reach().await.unwrap_err(), store.is_there().await.unwrap_err()] {
            assert_eq!(error.code(), Code::Enoent);
            assert!(error.message().contains("is a link to"), "{error}");
        }
        fs::create_dir(root.path().join("disk")).unwrap();
        store.reach().await.unwrap();
    }

    #[tokio::test]
    async fn a_folder_that_is_gone_after_its_first_object_is_not_made_anew() {
        let around = tempfile::tempdir().unwrap();
        let root = around.path().join("backups");
        let store = Local::new(root.clone());
        let (lease, info) = (Bytes::from_static(b"{}"), ObjectInfo::default());
        let put = store.put("shop/.lease", lease.clone(), &info, Condition::Absent);
        let Put::Done(version) = put.await.unwrap() else {
            panic!("it was refused");
        };
        fs::remove_dir_all(&root).unwrap();
        let again = store.put("shop/.lease", lease, &info, Condition::Unchanged(version));
        assert_eq!(again.await.unwrap_err().code(), Code::Enoent);
        assert!(!root.exists());
    }
}

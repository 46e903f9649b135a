//! The folder store: objects are files, published atomically and durably. Folders are 0700 and files 0600, because a
//! backup contains the whole database. If the store's own folder is 1750, its group may read, and may put results
//! beside a backup.

mod file;
mod listing;
mod way;

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{Access, FileType, Stat, access, statvfs};

use super::beneath::{Folder, linked};
use super::file_upload::{FileUpload, mark_of};
use super::limits;
use super::mounts;
use super::settings::StoreCreate;
use super::temporary::{PATIENCE, Temporary, within};
use super::{
    Condition, Conditional, Lifecycle, ListedObject, Mark, Object, ObjectHead, ObjectInfo, ObjectVersion, Put, Space,
    Store, Unfinished, Upload,
};
use crate::error::{Code, Error, Result};
use crate::repository::backup_id::database_of_folder;
use crate::run::files::{self, io_error};
use crate::run::publication::final_name;
use file::{Opened, open, put, read, version};
use listing::{is_file, is_temporary, length, modified, walk};
use way::{descend, folders_of, remove_folders, segments, way};

pub struct Local {
    root: PathBuf,
    url: String,
    create: StoreCreate,
    remembered: mounts::Remembered,
    /// The folder existed when this run wrote into it: if it is missing later, it is not created again.
    begun: Arc<AtomicBool>,
}

impl Local {
    /// Does nothing until the first request. The first write creates the folder if its parent exists.
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

    /// Sets whether a backup may start in a folder that has none yet. The folder `state` remembers where stores are
    /// mounted.
    pub fn created(self, create: StoreCreate, state: Option<&Path>) -> Self {
        let remembered = mounts::Remembered::in_folder(state);
        Self {
            create,
            remembered,
            ..self
        }
    }

    /// Does work that may create the folder, but only once.
    async fn write<T: Send + 'static>(&self, work: impl FnOnce(&Path) -> Result<T> + Send + 'static) -> Result<T> {
        let begun = Arc::clone(&self.begun);
        self.work(move |root| {
            // In this order: a write beside this one creates the folder before it says so.
            let had_begun = begun.load(Ordering::Acquire);
            let exists = root.exists();
            if had_begun && !exists {
                let what = format!("the store's folder {} has disappeared during the run", root.display());
                return Err(Error::new(Code::Enoent, what).hint("mount its disk again, or find out who removed it"));
            }
            // This work may create the folder and remove it again. So the folder counts as existing from the next
            // work on, or once an object was seen in it.
            if exists {
                begun.store(true, Ordering::Release);
            }
            work(root)
        })
        .await
    }

    /// Writes a small file as a whole.
    async fn place(&self, key: &str, body: Bytes, condition: Option<Condition>) -> Result<Put> {
        let names = segments(key)?;
        // A store has a backup once it has a manifest.
        let remembered = key.ends_with("/manifest.json").then(|| self.remembered.clone());
        let begun = Arc::clone(&self.begun);
        self.write(move |root| {
            let done = put(root, &names, &body, condition.as_ref())?;
            if matches!(done, Put::Done(_)) {
                begun.store(true, Ordering::Release);
            }
            if let Some(remembered) = remembered {
                remembered.note(root);
            }
            Ok(done)
        })
        .await
    }

    /// Does work on small files, for which no working disk takes long.
    async fn work<T: Send + 'static>(&self, work: impl FnOnce(&Path) -> Result<T> + Send + 'static) -> Result<T> {
        let root = self.root.clone();
        within(PATIENCE, &self.root, move || work(&root)).await
    }
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
                // The first write creates it, if its parent exists.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let parent = files::parent(root);
                    if !parent.is_dir() {
                        let what = format!(
                            "the store's folder {} does not exist, nor does its parent folder",
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

    async fn put(&self, key: &str, body: Bytes, _object: &ObjectInfo) -> Result<ObjectVersion> {
        self.place(key, body, None).await?.done(key)
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

    async fn list(&self, prefix: &str) -> Result<Vec<ListedObject>> {
        let mut entries = Vec::new();
        for (key, stat) in self.files(prefix).await? {
            if !is_temporary(&key) {
                entries.push(ListedObject {
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
            // Perhaps a database's folder, from an older version that followed such links, or from another disk.
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
            if let Some(name) = final_name(id) {
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
        if final_name(&unfinished.id).is_none() || unfinished.id.contains('/') {
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
                // A file that is removed first (a manifest) must not come back after files that are removed later.
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
            // Before the first backup, only the parent folder exists.
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

    fn conditional(&self) -> Option<&dyn Conditional> {
        Some(self)
    }
}

#[async_trait]
impl Conditional for Local {
    async fn put_if(&self, key: &str, body: Bytes, _object: &ObjectInfo, condition: Condition) -> Result<Put> {
        self.place(key, body, Some(condition)).await
    }
}

impl Local {
    /// Everything but folders whose path below the root starts with `prefix`, with temporary files, in byte order.
    /// Entries that are not regular files are included, so that reading them gives an error.
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

/// A link whose disk is not mounted must not pass for a folder that does not exist yet.
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
        .hint("mount the disk that it leads to, or create the folder there, or correct the link")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let put = store.put_if("shop/.lease", lease.clone(), &info, Condition::Absent);
        let Put::Done(version) = put.await.unwrap() else {
            panic!("it was refused");
        };
        fs::remove_dir_all(&root).unwrap();
        let again = store.put_if("shop/.lease", lease, &info, Condition::Unchanged(version));
        assert_eq!(again.await.unwrap_err().code(), Code::Enoent);
        assert!(!root.exists());
    }
}

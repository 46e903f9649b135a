//! Lists a folder store, with the file system's metadata.

use rustix::fs::{FileType, Stat};

use crate::error::{Code, Result};
use crate::run::publication::final_name;
use crate::store::beneath::Folder;

/// The greatest depth of folders that are read.
const DEEPEST: usize = 16;
/// The depth of a backup's own folder.
const OF_A_BACKUP: usize = 2;

/// `key` is the path of `folder` below the root, with a slash at its end.
pub(super) fn walk(folder: &Folder, key: &str, prefix: &str, found: &mut Vec<(String, Stat)>) -> Result<()> {
    let in_root = key.is_empty();
    for entry in folder.entries()? {
        let kind = entry.kind();
        let key = format!("{key}{}", entry.name);
        if kind == FileType::Directory {
            let folder_key = format!("{key}/");
            let on_the_way = folder_key.starts_with(prefix) || prefix.starts_with(&folder_key);
            // A folder of the file system, which only root can enter.
            let foreign = in_root && prefix.is_empty() && entry.name == "lost+found";
            // Ours have depth three at most; each folder on the way is kept open.
            let too_deep = folder_key.matches('/').count() > DEEPEST;
            if on_the_way && !foreign && !too_deep {
                let below = folder.folder(&entry.name).and_then(|inner| match inner {
                    Some(inner) => walk(&inner, &folder_key, prefix, found),
                    None => Ok(()),
                });
                match below {
                    // A person who may put results beside a backup may have created this folder and closed it. That
                    // must not end every command.
                    Err(error) if error.code() == Code::Eacces && folder_key.matches('/').count() > OF_A_BACKUP => {
                        tracing::warn!("{}, so its content is ignored", error.message());
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

pub(super) fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

pub(super) fn length(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

pub(super) fn modified(stat: &Stat) -> Option<jiff::Timestamp> {
    let nanoseconds = i32::try_from(stat.st_mtime_nsec).ok()?;
    jiff::Timestamp::new(stat.st_mtime, nanoseconds).ok()
}

pub(super) fn is_temporary(key: &str) -> bool {
    let name = key.rsplit_once('/').map_or(key, |(_, name)| name);
    final_name(name).is_some()
}

//! Removes one backup, in the reverse order of its making.

use crate::error::{Code, Error, Result};
use crate::repository::backup_id::{BackupId, MANIFEST};
use crate::repository::catalog;
use crate::store::{Deleted, Store};

use super::Folder;

pub(super) struct Removed {
    pub bytes: u64,
    /// The bucket keeps old versions: no listing shows them any more, but they still cost storage.
    pub versions_stay: bool,
    /// Files that pgstow did not write: they stay, with their folder.
    pub foreign: Vec<String>,
}

/// Safe to repeat: a file that is gone already is no failure. Returns the first failure, with the later ones attached.
pub(super) async fn remove(store: &dyn Store, folder: &Folder) -> Result<Removed> {
    let id = &folder.listed.id;
    // Withdraws the backup. If pgstow dies right after this, a folder without a manifest is left, which no command
    // treats as a backup; the next prune or backup removes the rest. If this step fails, the backup may still exist,
    // and must stay whole.
    let mut versions_stay = false;
    if folder.listed.has_manifest {
        versions_stay |= take_away(store, &id.manifest_key()).await?;
    } else if catalog::is_committed(store, id).await? {
        let what = format!("{id} was to be removed as a left-over, but it has a manifest");
        return Err(Error::new(Code::Store, what).hint("the store's list was not up to date: run it again"));
    }
    // The rest, in any order. If pgstow dies here, fewer files are left.
    let mut removed = Removed {
        bytes: 0,
        versions_stay,
        foreign: Vec::new(),
    };
    let mut failed = Vec::new();
    for file in &folder.listed.files {
        let name = BackupId::of_key(&file.key).map_or("", |(_, name)| name);
        if !id.makes(name) && !folder.named.iter().any(|own| own == name) {
            removed.foreign.push(name.to_owned());
        } else if name == MANIFEST {
            removed.bytes += file.bytes;
        } else {
            match take_away(store, &file.key).await {
                Ok(hidden) => {
                    removed.bytes += file.bytes;
                    removed.versions_stay |= hidden;
                }
                Err(error) => failed.push(error),
            }
        }
    }
    // The store removes the folder with the last file in it.
    for one in &folder.unfinished {
        if let Err(error) = store.abort_unfinished(one).await {
            failed.push(error);
        }
    }
    match Error::first_of(failed) {
        None => Ok(removed),
        Some(error) => Err(error),
    }
}

/// Deletes in a bucket, with a key that may. Returns `true` if the bucket keeps the old version.
async fn take_away(store: &dyn Store, key: &str) -> Result<bool> {
    let Some(lifecycle) = store.lifecycle() else {
        return store.discard(key).await.map(|()| false);
    };
    match lifecycle.try_delete(key).await? {
        Deleted::Gone => Ok(false),
        Deleted::Hidden => Ok(true),
        Deleted::Refused => Err(Error::new(
            Code::Store,
            format!("{} does not let this key delete {key}", store.url()),
        )
        .hint(if lifecycle.keeping().is_lost() {
            "prune with a key of its own that has s3:DeleteObject below the prefix, and that no policy or Object Lock \
                 denies it"
        } else {
            "prune with a key of its own that has s3:DeleteObject below the prefix, and that no policy or Object Lock \
                 denies it; or let the bucket's rules do it: `pgstow retention apply`, and prune without --allow-delete"
        })),
    }
}

//! Takes one backup away: the way of its making, backwards.

use crate::backup_id::{BackupId, MANIFEST};
use crate::catalog;
use crate::error::{Code, Error, Result};
use crate::store::Store;

use super::Folder;

pub(super) struct Removed {
    pub bytes: u64,
    /// Files that are not ours: they stay, and their folder with them.
    pub foreign: Vec<String>,
}

/// Safe to repeat: what is gone already is no failure. The first failure is given back, the later
/// ones attached to it.
pub(super) async fn remove(store: &dyn Store, folder: &Folder) -> Result<Removed> {
    let id = &folder.listed.id;
    // Withdraws the backup. A death right after this leaves a folder without a manifest, which no
    // command takes for a backup; the next prune, or the next backup, does the rest. If it fails,
    // the backup may be there still, and must stay whole.
    if folder.listed.has_manifest {
        store.discard(&id.manifest_key()).await?;
    } else if catalog::is_committed(store, id).await? {
        let what = format!("{id} was to be removed as left over, and has a manifest after all");
        return Err(Error::new(Code::Store, what).hint("the store's list was not up to date: run it again"));
    }
    // The rest, in any order. A death among these leaves fewer of them.
    let mut removed = Removed {
        bytes: 0,
        foreign: Vec::new(),
    };
    let mut failed: Option<Error> = None;
    for file in &folder.listed.files {
        let name = BackupId::of_key(&file.key).map_or("", |(_, name)| name);
        if !id.makes(name) && !folder.named.iter().any(|own| own == name) {
            removed.foreign.push(name.to_owned());
        } else if name == MANIFEST {
            removed.bytes += file.bytes;
        } else {
            match store.discard(&file.key).await {
                Ok(()) => removed.bytes += file.bytes,
                Err(error) => failed = Some(attach(failed, error)),
            }
        }
    }
    // The store takes the folder along with the last file in it.
    for one in &folder.unfinished {
        if let Err(error) = store.abort_unfinished(one).await {
            failed = Some(attach(failed, error));
        }
    }
    match failed {
        None => Ok(removed),
        Some(error) => Err(error),
    }
}

fn attach(first: Option<Error>, second: Error) -> Error {
    match first {
        None => second,
        Some(first) => first.also(second),
    }
}

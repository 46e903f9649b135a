//! What a store holds of a database before a run adds a backup to it.

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{BackupId, BackupKind, Found, Listed, parsed};
use crate::error::{Error, Result};
use crate::repository::manifest::{Figures, Predecessor};
use crate::store::Store;

/// How many manifests are read in search of a readable one.
const ASKED: usize = 5;

#[derive(Debug, Default)]
pub struct Before {
    /// The newest folder, with or without a manifest.
    pub newest: Option<BackupId>,
    /// The newest backup of the kind with a readable manifest; if there is none, the newest of the other kind.
    pub last: Option<Figures>,
    /// The digest of the manifest of the newest one of the kind, which the next manifest records.
    pub predecessor: Option<Predecessor>,
    /// Why newer manifests were skipped.
    pub unread: Option<Error>,
}

/// For a run that makes a backup of this kind. `listed` are the database's folders, newest first. Backups dated in the
/// future are skipped.
pub async fn before(store: &dyn Store, listed: &[Listed], kind: BackupKind, now: Timestamp) -> Result<Before> {
    let past = || listed.iter().filter(|one| !one.id.is_ahead(now));
    let mut before = Before {
        newest: past().next().map(|one| one.id.clone()),
        ..Before::default()
    };
    let finished = || past().filter(|one| one.has_manifest);
    let same = finished().filter(|one| one.id.kind() == kind).take(ASKED);
    let other = finished().filter(|one| one.id.kind() != kind).take(ASKED);
    for one in same.chain(other) {
        let (bytes, figures) = match parsed(store, &one.id, |bytes| Figures::parse(bytes, &one.id)).await {
            Ok(Found::Good(found)) => found,
            Ok(Found::Broken(_) | Found::Missing) => continue,
            // One file that the disk cannot read must not stop all later backups.
            Err(error) => {
                before.unread.get_or_insert(error);
                continue;
            }
        };
        before.predecessor = (one.id.kind() == kind).then(|| Predecessor {
            id: one.id.clone(),
            manifest_sha256: hex::encode(Sha256::digest(&bytes)),
        });
        before.last = Some(figures);
        break;
    }
    Ok(before)
}

//! What a store holds of a database when a run is about to add to it.

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{BackupId, Found, Listed, parsed};
use crate::error::{Error, Result};
use crate::repository::manifest::{Figures, Predecessor};
use crate::store::Store;

/// Manifests that are read in search of one that can be.
const ASKED: usize = 5;

#[derive(Debug, Default)]
pub struct Before {
    /// The newest folder, with or without a manifest.
    pub newest: Option<BackupId>,
    /// The newest backup whose manifest can be read.
    pub last: Option<Figures>,
    /// The same, for the next manifest to vouch for.
    pub predecessor: Option<Predecessor>,
    /// Why others were passed over.
    pub unread: Option<Error>,
}

/// `listed` are the database's folders, newest first. What is dated in the future is passed over.
pub async fn before(store: &dyn Store, listed: &[Listed], now: Timestamp) -> Result<Before> {
    let past = || listed.iter().filter(|one| !one.id.is_ahead(now));
    let mut before = Before {
        newest: past().next().map(|one| one.id.clone()),
        ..Before::default()
    };
    for one in past().filter(|one| one.has_manifest).take(ASKED) {
        let (bytes, figures) = match parsed(store, &one.id, |bytes| Figures::parse(bytes, &one.id)).await {
            Ok(Found::Good(found)) => found,
            Ok(Found::Broken(_) | Found::Missing) => continue,
            // One file that its disk does not give back must not end all backups.
            Err(error) => {
                before.unread.get_or_insert(error);
                continue;
            }
        };
        before.predecessor = Some(Predecessor {
            id: one.id.clone(),
            manifest_sha256: hex::encode(Sha256::digest(&bytes)),
        });
        before.last = Some(figures);
        break;
    }
    Ok(before)
}

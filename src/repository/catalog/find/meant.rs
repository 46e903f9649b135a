//! The backup that a check means: unlike [`find`](super::find), it never puts another backup in its place.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Asked, BackupId, Found, dated, no_id, none_good, read_manifest, there};
use crate::error::{Error, Result};
use crate::store::Store;

/// The backup that a check was given, whole or not.
pub struct Meant {
    pub id: BackupId,
    /// The backup was made for the first store, and the first store has none as new.
    pub is_lost: bool,
    /// Numbers of the stores that could not be read.
    pub failed: Vec<(usize, Error)>,
    pub warnings: Vec<String>,
}

/// Finds what [`find`](super::find) looks for, but never uses another backup instead. `latest` is the newest backup of the first
/// store, damaged or not; or a newer one that a copy has and that was made for the first store as well.
pub async fn meant(stores: &[Arc<dyn Store>], wanted: &str, database: Option<&str>, now: Timestamp) -> Result<Meant> {
    let mut meant = None;
    let (mut failed, mut warnings) = (Vec::new(), Vec::new());
    if wanted != "latest" {
        match wanted.parse() {
            Ok(id) => meant = Some((id, false)),
            Err(_) => return Err(no_id(stores, wanted).await),
        }
    } else {
        let mut database = database.map(str::to_owned);
        let mut none = None;
        for (at, store) in stores.iter().enumerate() {
            let listed = match there(store.as_ref(), database.as_deref()).await {
                Ok(listed) => listed,
                Err(error) => {
                    failed.push((at, error));
                    continue;
                }
            };
            let (ids, ahead) = dated(store.as_ref(), &listed, now)?;
            warnings.extend(ahead.map(|error| error.message()));
            let Some(&newest) = ids.first() else {
                if at == 0 {
                    none = Some(none_good(store.as_ref(), database.as_deref()).await);
                }
                continue;
            };
            database.get_or_insert_with(|| newest.database().to_owned());
            match &meant {
                None => {
                    let is_lost = none.is_some() && was_made_for(store.as_ref(), newest, stores).await?;
                    meant = Some((newest.clone(), is_lost));
                }
                // If the first store could not be read, nothing proves that it lacks a backup.
                Some((id, _)) if newest.timestamp() > id.timestamp() => {
                    let first_failed = failed.iter().any(|(at, _)| *at == 0);
                    if first_failed || was_made_for(store.as_ref(), newest, stores).await? {
                        meant = Some((newest.clone(), !first_failed));
                    }
                }
                Some(_) => {}
            }
        }
        if meant.is_none() {
            let failures = failed.into_iter().map(|(_, error)| error).chain(none);
            return Err(Asked {
                failures: failures.collect(),
            }
            .error());
        }
    }
    let (id, is_lost) = meant.ok_or_else(|| Error::config("no store is set"))?;
    Ok(Meant {
        id,
        is_lost,
        failed,
        warnings,
    })
}

/// Whether the manifest in a copy says that the backup was made for the first store.
async fn was_made_for(copy: &dyn Store, id: &BackupId, stores: &[Arc<dyn Store>]) -> Result<bool> {
    let Some(first) = stores.first() else { return Ok(false) };
    Ok(match read_manifest(copy, id).await? {
        Found::Good(manifest) => manifest.stores.iter().any(|url| url == first.url()),
        Found::Broken(_) | Found::Missing => false,
    })
}

//! The report on a backup that was made before.

use std::iter;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use super::report::{self, BackupReport, StoreReport};
use crate::error::{Code, Error, ErrorReport, Result};
use crate::repository::backup_id::BackupId;
use crate::repository::catalog::{self, Demand, Genuine};
use crate::repository::signature::Trust;
use crate::store::Store;

/// How long a copy may take to answer whether it holds a backup.
const PATIENCE: Duration = Duration::from_secs(30);

/// The report on a backup that was made before. It is `degraded` as long as a copy lacks the backup.
pub(in crate::job) async fn of(stores: &[Arc<dyn Store>], id: &BackupId, trust: &Trust) -> Result<BackupReport> {
    let (store, copies) = stores.split_first().ok_or_else(|| Error::config("no store is set"))?;
    let store = &**store;
    let demand = Demand {
        trust,
        manifest: None,
        now: id.timestamp(),
        altered: false,
    };
    let genuine = catalog::read_genuine(store, id, &demand).await?.require(id)?;
    let Genuine {
        manifest,
        sha256,
        signed_by,
        ..
    } = genuine;
    let sha256 = Some(hex::encode(sha256));
    let holder = StoreReport {
        url: store.url().to_owned(),
        primary: true,
        holds_backup: true,
        manifest_sha256: sha256.clone(),
        error: None,
    };
    let copies = join_all(copies.iter().map(|copy| held_by(&**copy, id))).await;
    Ok(BackupReport {
        repeated: true,
        manifest_sha256: sha256,
        signed_by,
        ..report::of(&manifest, iter::once(holder).chain(copies).collect())
    })
}

/// Whether a copy holds it now. The manifest does not record why a copy failed at the time.
async fn held_by(copy: &dyn Store, id: &BackupId) -> StoreReport {
    let committed = tokio::time::timeout(PATIENCE, catalog::is_committed(copy, id)).await;
    let committed = committed.unwrap_or_else(|_| {
        let what = format!("{} has not answered for {} s", copy.url(), PATIENCE.as_secs());
        Err(Error::new(Code::Store, what))
    });
    let error = match committed {
        Ok(true) => None,
        Ok(false) => Some(
            Error::new(Code::Store, format!("{} does not hold {id}", copy.url()))
                .hint("read the report of the run that made the backup: it says why this store lacks it"),
        ),
        Err(error) => Some(error),
    };
    StoreReport {
        url: copy.url().to_owned(),
        primary: false,
        holds_backup: error.is_none(),
        manifest_sha256: None,
        error: error.as_ref().map(ErrorReport::from),
    }
}

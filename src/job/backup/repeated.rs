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

/// How long a copy may take to say whether it holds a backup.
const PATIENCE: Duration = Duration::from_secs(30);

/// The report on a backup that was made before: `degraded`, as it was then, while a copy lacks it.
pub(super) async fn of(stores: &[Arc<dyn Store>], id: &BackupId, trust: &Trust) -> Result<BackupReport> {
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

/// Whether a copy holds it now: why it did not then, its manifest does not know.
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
                .hint("see the report of the run that made it for what kept it from there"),
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

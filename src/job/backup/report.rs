//! The report on a backup: what its manifest says.

use std::iter;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use crate::error::{Code, Error, Result};
use crate::report::{BackupReport, ErrorReport, StoreReport};
use crate::repository::backup_id::BackupId;
use crate::repository::catalog::{self, Demand, Genuine};
use crate::repository::manifest::Manifest;
use crate::repository::signature::Trust;
use crate::store::Store;

/// How long a copy may take to say whether it holds a backup.
const PATIENCE: Duration = Duration::from_secs(30);

/// The report on a backup that was made before: `degraded`, as it was then, while a copy lacks it.
pub(super) async fn repeated(stores: &[Arc<dyn Store>], id: &BackupId, trust: &Trust) -> Result<BackupReport> {
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
        ..of(&manifest, iter::once(holder).chain(copies).collect())
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

/// What a manifest says, as a report.
pub(super) fn of(manifest: &Manifest, stores: Vec<StoreReport>) -> BackupReport {
    let degraded = stores.iter().any(|store| store.error.is_some());
    BackupReport {
        status: if degraded { "degraded" } else { "succeeded" },
        id: manifest.id.clone(),
        database: manifest.database.clone(),
        kind: manifest.kind,
        trigger: manifest.trigger,
        repeated: false,
        tier: manifest.tier,
        started_at: manifest.timestamp,
        finished_at: manifest.finished_at,
        duration_seconds: manifest.finished_at.duration_since(manifest.timestamp).as_secs_f64(),
        server: manifest.server.clone(),
        pg_dump: manifest.pg_dump.clone(),
        compression: manifest.compression,
        snapshot: manifest.snapshot.clone(),
        tables: manifest.tables.len() as u64,
        rows: manifest.tables.iter().map(|table| table.rows).sum(),
        large_objects: manifest.large_objects.iter().map(|block| block.count).sum(),
        pauses: manifest.metadata.pauses,
        paused_seconds: manifest.metadata.paused_seconds,
        bytes_read: manifest.metadata.bytes_read.unwrap_or(0),
        bytes_stored: manifest.files.values().map(|file| file.bytes).sum(),
        files: manifest.files.clone(),
        missing: manifest.missing.clone(),
        left_out: manifest.left_out.clone(),
        manifest_sha256: None,
        signed_by: None,
        stores,
        took_over: None,
        leftovers: Vec::new(),
        warnings: manifest.warnings.clone(),
        notification: None,
    }
}

//! `/api/v1`: the API. Each group of paths has a module.

mod audit;
mod backups;
mod events;
mod restores;
mod runs;
mod schedules;
mod status;

use std::sync::Arc;

use axum::Router;

use super::Web;
use super::problem::Problem;
use crate::control::Asked;
use crate::error::Error;

pub(super) use audit::audited;
pub(super) use backups::{comparison, manifest_of, send};
pub(super) use restores::planned;
pub(super) use runs::{ask, cancelled};
pub(super) use schedules::{paused, resumed};

pub(super) fn routes() -> Router<Arc<Web>> {
    Router::new()
        .merge(status::routes())
        .merge(backups::routes())
        .merge(restores::routes())
        .merge(runs::routes())
        .merge(schedules::routes())
        .merge(events::routes())
        .merge(audit::routes())
}

/// A backup is made, and a run cancelled, even if the journal cannot be written.
pub(super) async fn write_down(web: &Web, asked: Asked) {
    if let Err(error) = web.control.audit(asked).await {
        tracing::error!("the journal was not written: {error}: {}", error.hint_text());
    }
}

/// A restore does not begin unless it is written down who asked for it.
async fn must_write_down(web: &Web, asked: Asked) -> Result<(), Problem> {
    if web.control.journal().is_none() {
        let what = "a restore must be written down, and this process keeps no journal";
        return Err(Error::config(what)
            .hint("set BACKUP_STATE_DIR to a folder that pgstow may write, and start it again")
            .into());
    }
    Ok(web.control.audit(asked).await?)
}

/// Does what was asked for and written down. If it is refused, that is written down as well.
async fn carried_out<T>(
    web: &Web,
    asked: Asked,
    doing: impl Future<Output = crate::error::Result<T>>,
) -> Result<T, Problem> {
    let done = doing.await;
    if let Err(error) = &done {
        let outcome = format!("refused: {}", error.code());
        write_down(web, Asked { outcome, ..asked }).await;
    }
    Ok(done?)
}

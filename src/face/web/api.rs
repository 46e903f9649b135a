//! `/api/v1`: the API. Each group of paths has a module.

mod audit;
mod backups;
mod events;
mod runs;
mod status;

use std::sync::Arc;

use axum::Router;

use super::Web;
use crate::control::Asked;

pub(super) use runs::ask;

pub(super) fn routes() -> Router<Arc<Web>> {
    Router::new()
        .merge(status::routes())
        .merge(backups::routes())
        .merge(runs::routes())
        .merge(events::routes())
        .merge(audit::routes())
}

/// A backup is made, and a run cancelled, even if the journal cannot be written.
async fn write_down(web: &Web, asked: Asked) {
    if let Err(error) = web.control.audit(asked).await {
        tracing::error!("the journal was not written: {error}: {}", error.hint_text());
    }
}

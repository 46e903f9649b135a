//! The pages for people. They are made on the server from what the stores say now, and need no scripts.

mod audit;
mod backups;
mod frame;
mod login;
mod overview;
mod restore;
mod runs;
mod schedules;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use serde::de::DeserializeOwned;

use super::Web;

pub(super) use overview::show as overview;

pub(super) fn routes() -> Router<Arc<Web>> {
    Router::new()
        .route("/login", get(login::show).post(login::log_in))
        .route("/logout", post(login::log_out))
        .route("/assets/{name}", get(frame::style))
        .route("/backups", get(backups::list))
        .route("/backups/{database}/{stamp}", get(backups::one))
        .route("/runs", get(runs::list).post(runs::begin))
        .route("/runs/{id}", get(runs::one))
        .route("/runs/{id}/cancel", post(runs::cancel))
        .route("/restore", get(restore::wizard).post(restore::plan))
        .route("/restore/confirm", post(restore::confirm))
        .route("/schedules", get(schedules::list))
        .route("/schedules/{name}/pause", post(schedules::pause))
        .route("/schedules/{name}/resume", post(schedules::resume))
        .route("/audit", get(audit::list))
}

/// What a form has sent. Its spelling is that of a query.
fn form<T: DeserializeOwned>(body: &str) -> Option<T> {
    let uri = format!("/?{body}").parse().ok()?;
    axum::extract::Query::try_from_uri(&uri)
        .ok()
        .map(|axum::extract::Query(form)| form)
}

//! Restores: a plan first, and then a run that was confirmed. Targets come from the settings alone.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::{carried_out, must_write_down};
use crate::control::{PlanRequest, RestorePlan};
use crate::face::web::Web;
use crate::face::web::access::{Admin, Caller, Viewer};
use crate::face::web::problem::Problem;

pub(super) fn routes() -> Router<Arc<Web>> {
    Router::new()
        .route("/targets", get(targets))
        .route("/restore-plans", post(plan))
}

/// The databases that may be restored into.
async fn targets(_: Viewer, State(web): State<Arc<Web>>) -> Json<Value> {
    let members = web.control.fleet().iter();
    let targets: Vec<Value> = members
        .filter(|member| member.app.has_target())
        .map(|member| json!({"member": member.name, "database": member.app.target_database()}))
        .collect();
    Json(json!({"targets": targets}))
}

/// Nothing is changed yet: the target is looked at, and the backup's manifest is read.
async fn plan(
    Admin(who): Admin,
    State(web): State<Arc<Web>>,
    body: Result<Json<PlanRequest>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(request) = body.map_err(|error| {
        Problem::http(
            error.status(),
            error.body_text(),
            "send a JSON document such as {\"backup\":\"latest\"}, with Content-Type: application/json",
        )
    })?;
    let plan = planned(&web, &who, &request).await?;
    Ok((StatusCode::CREATED, Json(plan)).into_response())
}

/// A plan in somebody's name.
pub(in crate::face::web) async fn planned(
    web: &Web,
    who: &Caller,
    request: &PlanRequest,
) -> Result<RestorePlan, Problem> {
    who.must_be_named()?;
    let asked = who.asks("plan a restore", &request.backup);
    must_write_down(web, asked.clone()).await?;
    carried_out(web, asked, web.control.plan_restore(request, &who.identity.to_string())).await
}

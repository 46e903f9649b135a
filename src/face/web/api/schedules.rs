//! The schedules: when runs are due next, and which of them rest.

use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{carried_out, write_down};
use crate::control::{Kind, Pause, Plan};
use crate::face::web::Web;
use crate::face::web::access::{Caller, Operator, Viewer};
use crate::face::web::problem::Problem;

/// How many of the next moments are told.
const NEXT: usize = 10;

pub(super) fn routes() -> Router<Arc<Web>> {
    Router::new()
        .route("/schedules", get(list))
        .route("/schedules/{name}/pause", post(pause))
        .route("/schedules/{name}/resume", post(resume))
}

async fn list(_: Viewer, State(web): State<Arc<Web>>) -> Json<Value> {
    let now = web.control.now();
    let pauses = web.control.pauses();
    let told = |plan: &Plan| {
        let next = std::iter::successors(plan.line.next(now), |moment| plan.line.next(*moment));
        json!({
            "name": plan.kind.name(),
            "database": plan.database,
            "line": plan.line.to_string(),
            "zone": plan.line.zone().iana_name(),
            "next": next.take(NEXT).collect::<Vec<_>>(),
            "paused": pauses.iter().find(|pause| pause.schedule == plan.kind),
        })
    };
    let schedules: Vec<Value> = web.control.plans().iter().map(told).collect();
    Json(json!({"schedules": schedules}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    reason: String,
    until: Timestamp,
}

fn known(web: &Web, name: &str) -> Result<Kind, Problem> {
    let plan = web.control.plans().iter().find(|plan| plan.kind.name() == name);
    plan.map(|plan| plan.kind)
        .ok_or_else(|| Problem::not_found("the settings have no schedule of this name: GET /api/v1/schedules"))
}

async fn pause(
    Operator(who): Operator,
    State(web): State<Arc<Web>>,
    Path(name): Path<String>,
    body: Result<Json<Wanted>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(wanted) = body.map_err(|error| {
        Problem::http(
            error.status(),
            error.body_text(),
            "send {\"reason\":…,\"until\":\"2026-01-31T12:00:00Z\"}, with Content-Type: application/json",
        )
    })?;
    let pause = paused(&web, &who, &name, (&wanted.reason, wanted.until)).await?;
    Ok((StatusCode::OK, Json(pause)).into_response())
}

/// Lets a schedule rest, in somebody's name, for this reason and until then.
pub(in crate::face::web) async fn paused(
    web: &Web,
    who: &Caller,
    name: &str,
    (reason, until): (&str, Timestamp),
) -> Result<Pause, Problem> {
    let kind = known(web, name)?;
    let pause = Pause::new(kind, &who.identity.to_string(), reason, until, web.control.now())?;
    let asked = who.asks("pause", kind.name());
    write_down(web, asked.clone()).await;
    carried_out(web, asked, web.control.pause(pause.clone())).await?;
    Ok(pause)
}

async fn resume(
    Operator(who): Operator,
    State(web): State<Arc<Web>>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    resumed(&web, &who, &name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Lets it go on, in somebody's name.
pub(in crate::face::web) async fn resumed(web: &Web, who: &Caller, name: &str) -> Result<(), Problem> {
    let kind = known(web, name)?;
    let asked = who.asks("resume", kind.name());
    write_down(web, asked.clone()).await;
    carried_out(web, asked, web.control.resume(kind, &who.identity.to_string())).await
}

//! What the stores say now: whether a person has to act.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::face::web::Web;
use crate::face::web::access::Viewer;
use crate::face::web::problem::Problem;
use crate::report::Report;

pub(super) fn routes() -> Router<Arc<Web>> {
    Router::new()
        .route("/status", get(status))
        .route("/databases", get(databases))
        .route("/databases/{database}", get(database))
        .route("/me", get(me))
}

/// A document with its ETag, or `304` if the client has it already.
pub(super) fn tagged(headers: &HeaderMap, document: &impl Serialize) -> Result<Response, Problem> {
    let body = serde_json::to_vec(document)
        .map_err(|error| crate::error::Error::internal("the document is not JSON").source(error))?;
    let tag = format!("\"{}\"", hex::encode(&Sha256::digest(&body)[..16]));
    let has_it = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| {
            value
                .split(',')
                .any(|one| matches!(one.trim(), "*") || one.trim().trim_start_matches("W/") == tag)
        });
    // `no-cache`: kept, and asked about each time.
    let kept = [
        (header::ETAG, tag),
        (header::CACHE_CONTROL, "private, no-cache".to_owned()),
    ];
    Ok(match has_it {
        true => (StatusCode::NOT_MODIFIED, kept).into_response(),
        false => (kept, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
    })
}

/// The report of `pgstow status` of each member. With one member it is that report.
async fn status(_: Viewer, State(web): State<Arc<Web>>, headers: HeaderMap) -> Result<Response, Problem> {
    let mut members = Vec::new();
    for (at, member) in web.control.fleet().iter().enumerate() {
        let seen = web.overview.status(at).await?;
        members.push(json!({"name": member.name, "checked_at": seen.at, "report": seen.report}));
    }
    let mut document = match &mut members[..] {
        [only] => only["report"].take(),
        _ => json!({"members": members}),
    };
    let pauses = web.control.pauses();
    if !pauses.is_empty() {
        document["paused"] = json!(pauses);
        document["status"] = json!("attention");
    }
    tagged(&headers, &document)
}

async fn every_database(web: &Web) -> Result<Vec<serde_json::Value>, Problem> {
    let mut all = Vec::new();
    for (at, member) in web.control.fleet().iter().enumerate() {
        let seen = web.overview.status(at).await?;
        let Report::Status(report) = &seen.report else { continue };
        for database in &report.databases {
            let mut document = json!(database);
            document["member"] = json!(member.name);
            document["checked_at"] = json!(seen.at);
            all.push(document);
        }
    }
    Ok(all)
}

async fn databases(_: Viewer, State(web): State<Arc<Web>>, headers: HeaderMap) -> Result<Response, Problem> {
    tagged(&headers, &json!({"databases": every_database(&web).await?}))
}

async fn database(
    _: Viewer,
    State(web): State<Arc<Web>>,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let all = every_database(&web).await?;
    let found = all.into_iter().find(|database| database["database"] == name);
    let found = found.ok_or_else(|| Problem::not_found("the store has no backup of a database of this name"))?;
    tagged(&headers, &found)
}

/// Who asks, as this server sees it.
async fn me(Viewer(who): Viewer) -> Response {
    Json(json!({"name": who.identity.name, "identity": who.identity.to_string(), "role": who.identity.role.name()}))
        .into_response()
}

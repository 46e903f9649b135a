//! The paths, documents and messages of the two systems that pgstow replaces, so that their clients go on working.

mod filename;
mod files;
mod socket;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Web;
use super::access::{Caller, Operator, Viewer};
use super::api::ask;
use super::problem::{OldProblem, Problem};
use crate::control::{Action, RunRequest};
use crate::report::{ListEntry, Proof, Report, StatusReport};
use crate::repository::verification::VerificationStatus;
use crate::units::human_span;

/// How many backups the status has.
const SHOWN: usize = 20;

pub(super) fn routes() -> Router<Arc<Web>> {
    Router::new()
        .route("/", get(socket::front))
        .route("/ws", get(socket::upgrade))
        .route("/api/backup/trigger", post(trigger))
        .route("/api/backup/status", get(status))
        .route("/api/backup/list", get(list))
        .route("/api/backup/download/{filename}", get(files::download))
        .route("/api/admin/system/backups", get(admin_list))
        .route("/api/admin/system/backups/status", get(admin_status))
        .route("/api/admin/system/backups/create", post(create))
        .route("/api/admin/system/backups/restore", post(files::restore))
}

type Answer = Result<Response, OldProblem>;

#[derive(Debug, Default, Deserialize)]
struct Wanted {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    database: Option<String>,
}

/// Their clients send a document, an empty body, or none at all.
fn wanted(body: &Bytes) -> Result<Wanted, OldProblem> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Wanted::default());
    }
    serde_json::from_slice(body).map_err(|error| {
        let detail = format!("the body is not understood: {error}");
        OldProblem(Problem::http(
            StatusCode::BAD_REQUEST,
            detail,
            "send {} or {\"type\":\"full\"}",
        ))
    })
}

async fn begin(web: &Web, who: &Caller, body: &Bytes) -> Answer {
    let wanted = wanted(body)?;
    let mut request = RunRequest::of(Action::Backup);
    request.kind = wanted.kind;
    request.database = wanted.database;
    let submitted = ask(web, who, &request, None).await.map_err(OldProblem)?;
    let id = submitted.id();
    let document = json!({
        "success": true,
        "message": "the backup is on its way",
        "runId": id,
        "statusUrl": format!("/api/v1/runs/{id}"),
    });
    Ok((StatusCode::ACCEPTED, Json(document)).into_response())
}

async fn trigger(Operator(who): Operator, State(web): State<Arc<Web>>, body: Bytes) -> Answer {
    begin(&web, &who, &body).await
}

async fn create(Operator(who): Operator, State(web): State<Arc<Web>>, body: Bytes) -> Answer {
    begin(&web, &who, &body).await
}

/// The backups of all members, newest first.
async fn backups(web: &Web) -> Result<Vec<Value>, OldProblem> {
    let mut found: Vec<(Timestamp, Value)> = Vec::new();
    for at in 0..web.control.fleet().len() {
        match web.overview.list(at).await {
            Ok(seen) => {
                let Report::List(report) = &seen.report else { continue };
                found.extend(report.backups.iter().map(|entry| (entry.timestamp, told(entry))));
            }
            Err(error) if error.code() == crate::error::Code::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    found.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    Ok(found.into_iter().map(|(_, entry)| entry).collect())
}

fn told(entry: &ListEntry) -> Value {
    let is_proved = |proof: &Option<Proof>| {
        proof
            .as_ref()
            .is_some_and(|proof| proof.status == VerificationStatus::Ok)
    };
    json!({
        "filename": filename::of(&entry.id, entry.format),
        "size": entry.bytes,
        "sizeMB": format!("{:.2}", megabytes(entry.bytes)),
        "created": entry.timestamp,
        "age": human_span(entry.age_seconds),
        "id": entry.id,
        "type": entry.kind,
        "verified": is_proved(&entry.verified),
        "drilled": is_proved(&entry.drilled),
    })
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

async fn list(_: Viewer, State(web): State<Arc<Web>>) -> Answer {
    Ok(Json(backups(&web).await?).into_response())
}

async fn admin_list(_: Viewer, State(web): State<Arc<Web>>) -> Answer {
    let backups = backups(&web).await?;
    let total = backups.len();
    Ok(Json(json!({"success": true, "backups": backups, "total": total})).into_response())
}

/// The settings, and the disks of the stores that are folders.
async fn facts(web: &Web) -> Result<(Value, Value, Value), OldProblem> {
    let seen = web.overview.status(0).await?;
    let Report::Status(report) = &seen.report else {
        return Ok((json!({}), json!({}), Value::Null));
    };
    let report: &StatusReport = report;
    let config = json!({
        "enabled": true,
        "store": report.settings.stores.first(),
        "stores": report.settings.stores,
        "retention": report.settings.retention,
        "compression": report.settings.compression,
        "notifications": report.settings.notifications,
    });
    let stores = json!(report.stores);
    let disk = stores
        .get(0)
        .and_then(|store| store.get("disk"))
        .cloned()
        .unwrap_or(Value::Null);
    Ok((config, json!(report.schedule), disk))
}

/// The lines of the newest run.
fn latest_log(web: &Web) -> String {
    let newest = web.control.runs().into_iter().find(|run| run.action == Action::Backup);
    let lines = newest.and_then(|run| web.control.lines(&run.id)).unwrap_or_default();
    lines.join("\n")
}

async fn status(_: Viewer, State(web): State<Arc<Web>>) -> Answer {
    let backups = backups(&web).await?;
    let (config, _, disk) = facts(&web).await?;
    let bytes: u64 = backups.iter().filter_map(|backup| backup["size"].as_u64()).sum();
    let document = json!({
        "success": true,
        "config": config,
        "backups": {
            "total": backups.len(),
            "list": backups.iter().take(SHOWN).collect::<Vec<_>>(),
            "totalSizeMB": (megabytes(bytes) * 100.0).round() / 100.0,
            "latest": backups.first(),
        },
        "latestLog": latest_log(&web),
        "diskUsage": disk,
    });
    Ok(Json(document).into_response())
}

async fn admin_status(_: Viewer, State(web): State<Arc<Web>>) -> Answer {
    let backups = backups(&web).await?;
    let (config, schedule, disk) = facts(&web).await?;
    let document = json!({
        "success": true,
        "config": config,
        "schedule": schedule,
        "recent": backups.iter().take(SHOWN).collect::<Vec<_>>(),
        "disk": disk,
    });
    Ok(Json(document).into_response())
}

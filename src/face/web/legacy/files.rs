//! A backup by the name of its file: downloads and restores of the older systems' clients. The name is compared with
//! those of the backups that are there; no path is made of it.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::json;

use super::{Answer, filename};
use crate::command::{Command, FileChoice, RestoreRequest};
use crate::control::{Action, PlanRequest, RunRequest};
use crate::error::{Code, Error};
use crate::face::web::Web;
use crate::face::web::access::{Admin, Operator};
use crate::face::web::api::{ask, planned, send};
use crate::face::web::problem::{OldProblem, Problem};
use crate::report::Report;
use crate::repository::backup_id::{BackupId, BackupKind};

/// The backup whose file has this name, or which has this id.
async fn named(web: &Web, name: &str) -> Result<BackupId, OldProblem> {
    for at in 0..web.control.fleet().len() {
        let seen = match web.overview.list(at).await {
            Ok(seen) => seen,
            Err(error) if error.code() == Code::NotFound => continue,
            Err(error) => return Err(error.into()),
        };
        let Report::List(report) = &seen.report else { continue };
        let is_meant = |id: &BackupId, format| id.to_string() == name || filename::of(id, format) == name;
        if let Some(entry) = report.backups.iter().find(|entry| is_meant(&entry.id, entry.format)) {
            return Ok(entry.id.clone());
        }
    }
    Err(Problem::not_found("there is no backup of this name: GET /api/backup/list").into())
}

pub(super) async fn download(
    Operator(who): Operator,
    State(web): State<Arc<Web>>,
    headers: HeaderMap,
    name: Result<Path<String>, PathRejection>,
) -> Answer {
    let Path(name) = name.map_err(|_| Problem::not_found("there is no backup of this name"))?;
    let id = named(&web, &name).await?;
    let choice = match id.kind() {
        BackupKind::Full => FileChoice::Seekable,
        BackupKind::Incremental => FileChoice::Stored,
    };
    send(&web, &who, &headers, &id, &choice).await.map_err(OldProblem)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Wanted {
    backup_path: String,
    #[serde(default)]
    include_logs: bool,
    /// The name of the database that is restored into: then what is there already is replaced.
    #[serde(default)]
    confirm: Option<String>,
}

/// Into the database that the settings name, and only where they allow it.
pub(super) async fn restore(
    Admin(who): Admin,
    State(web): State<Arc<Web>>,
    body: Result<Json<Wanted>, JsonRejection>,
) -> Answer {
    let Json(wanted) = body.map_err(|error| {
        Problem::http(
            error.status(),
            error.body_text(),
            "send {\"backupPath\":\"shop_2026-01-31_04-05-00.dump\"}",
        )
    })?;
    let app = &web.control.member(None)?.app;
    let restore = Command::Restore(RestoreRequest::default());
    if app.check_event(&restore).is_err() {
        let what = "restores by this path are refused: BACKUP_ALLOW_RESTORE is not true";
        let hint = "use POST /api/v1/restore-plans, or set BACKUP_ALLOW_RESTORE=true";
        return Err(Problem::http(StatusCode::FORBIDDEN, what, hint).into());
    }
    // Their clients may send the path of a folder before the name.
    let name = wanted.backup_path.rsplit('/').next().unwrap_or_default();
    let id = match wanted.backup_path.parse::<BackupId>() {
        Ok(_) => named(&web, &wanted.backup_path).await?,
        Err(_) => named(&web, name).await?,
    };
    let target = app.target_database();
    if wanted.confirm.is_some() && wanted.confirm != target {
        return Err(
            Error::config("`confirm` is not the name of the database that is restored into")
                .hint("send the name, if its objects may be replaced, or leave `confirm` out")
                .into(),
        );
    }
    let request = PlanRequest {
        backup: id.to_string(),
        clean: wanted.confirm.is_some(),
        ..PlanRequest::default()
    };
    let plan = planned(&web, &who, &request).await?;
    let mut request = RunRequest::of(Action::Restore);
    request.plan = Some(plan.id);
    request.confirm = Some(plan.confirm);
    let submitted = ask(&web, &who, &request, None).await.map_err(OldProblem)?;
    let run = submitted.id();
    let message = match wanted.include_logs {
        true => "the restore is on its way; backups of this version hold no log files",
        false => "the restore is on its way",
    };
    let document = json!({
        "success": true,
        "message": message,
        "runId": run,
        "statusUrl": format!("/api/v1/runs/{run}"),
    });
    Ok((StatusCode::ACCEPTED, Json(document)).into_response())
}

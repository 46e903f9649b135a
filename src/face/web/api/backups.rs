//! The backups in the stores.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value, json};

use super::status::tagged;
use crate::face::web::Web;
use crate::face::web::access::Viewer;
use crate::face::web::problem::Problem;
use crate::report::Report;
use crate::repository::backup_id::BackupId;

pub(super) fn routes() -> Router<Arc<Web>> {
    Router::new()
        .route("/backups", get(list))
        .route("/backups/{database}/{stamp}", get(one))
        .route("/backups/{database}/{stamp}/manifest", get(manifest))
        .route("/backups/{database}/{stamp}/tables", get(tables))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    database: Option<String>,
    /// `full` or `incremental`.
    kind: Option<String>,
    tier: Option<String>,
    /// `verified`, `drilled` or `no`.
    proved: Option<String>,
    /// Older than this backup: an id.
    before: Option<String>,
    limit: Option<usize>,
}

const DEFAULT_LIMIT: usize = 50;
const MOST: usize = 1_000;
const PARAMETERS: &str = "the parameters are database, kind, tier, proved (verified, drilled, no), before and limit";

impl Wanted {
    fn takes(&self, backup: &Value) -> bool {
        let is = |field: &str, wanted: &Option<String>| wanted.as_ref().is_none_or(|wanted| backup[field] == **wanted);
        let proof = |field: &str| backup[field]["status"] == "ok";
        is("database", &self.database)
            && is("type", &self.kind)
            && is("tier", &self.tier)
            && match self.proved.as_deref() {
                None => true,
                Some("verified") => proof("verified") || proof("drilled"),
                Some("drilled") => proof("drilled"),
                Some(_) => !proof("verified") && !proof("drilled"),
            }
    }
}

/// All backups of every member's store, newest first.
async fn every_backup(web: &Web) -> Result<(Vec<Value>, Vec<Value>), Problem> {
    let (mut backups, mut problems) = (Vec::new(), Vec::new());
    for at in 0..web.control.fleet().len() {
        match web.overview.list(at).await {
            Ok(seen) => {
                let Report::List(report) = &seen.report else { continue };
                backups.extend(report.backups.iter().map(|entry| json!(entry)));
                problems.extend(report.problems.iter().map(|problem| json!(problem)));
            }
            // A store without backups is empty here, and no error.
            Err(error) if error.code() == crate::error::Code::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    backups.sort_by(|left, right| {
        let key = |backup: &Value| (backup["timestamp"].to_string(), backup["id"].to_string());
        key(right).cmp(&key(left))
    });
    backups.dedup_by(|left, right| left["id"] == right["id"]);
    Ok((backups, problems))
}

async fn list(
    _: Viewer,
    State(web): State<Arc<Web>>,
    headers: HeaderMap,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Problem> {
    let refused = |detail: String| Problem::http(StatusCode::BAD_REQUEST, detail, PARAMETERS);
    let Query(wanted) = wanted.map_err(|error| refused(error.body_text()))?;
    if let Some(proved) = &wanted.proved
        && !["verified", "drilled", "no"].contains(&proved.as_str())
    {
        return Err(refused(format!("{proved:?} is no value of proved")));
    }
    let (mut backups, problems) = every_backup(&web).await?;
    backups.retain(|backup| wanted.takes(backup));
    if let Some(before) = &wanted.before {
        let Some(at) = backups.iter().position(|backup| backup["id"] == **before) else {
            return Err(Problem::not_found(format!("no backup {before:?} is in this list")));
        };
        backups.drain(..=at);
    }
    let limit = wanted.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MOST);
    let more = backups.len() > limit;
    backups.truncate(limit);
    let next = backups
        .last()
        .filter(|_| more)
        .and_then(|last| next_page(&wanted, last["id"].as_str()?, limit));
    let mut response = tagged(&headers, &json!({"backups": backups, "problems": problems}))?;
    if let Some(next) = next.and_then(|next| HeaderValue::from_str(&next).ok()) {
        response.headers_mut().insert(header::LINK, next);
    }
    Ok(response)
}

fn next_page(wanted: &Wanted, last: &str, limit: usize) -> Option<String> {
    let given = [
        ("database", wanted.database.as_deref()),
        ("kind", wanted.kind.as_deref()),
        ("tier", wanted.tier.as_deref()),
        ("proved", wanted.proved.as_deref()),
        ("before", Some(last)),
    ];
    let mut query = format!("limit={limit}");
    for (name, value) in given {
        if let Some(value) = value {
            let value = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
            query = format!("{query}&{name}={value}");
        }
    }
    Some(format!("</api/v1/backups?{query}>; rel=\"next\""))
}

/// The entry of a backup in its list. The two parts of the path are compared, never joined to a path of a store.
async fn entry(web: &Web, database: &str, stamp: &str) -> Result<(BackupId, Value), Problem> {
    let missing = || Problem::not_found("there is no such backup");
    let id: BackupId = format!("{database}/{stamp}").parse().map_err(|_| missing())?;
    let (backups, _) = every_backup(web).await?;
    let found = backups.into_iter().find(|backup| backup["id"] == id.to_string());
    Ok((id, found.ok_or_else(missing)?))
}

async fn one(
    _: Viewer,
    State(web): State<Arc<Web>>,
    headers: HeaderMap,
    Path((database, stamp)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (_, entry) = entry(&web, &database, &stamp).await?;
    tagged(&headers, &entry)
}

async fn read_manifest(web: &Web, id: &BackupId) -> Result<Value, Problem> {
    let mut failed = None;
    for member in web.control.fleet() {
        match member.app.manifest(id).await {
            Ok(manifest) => return Ok(json!(manifest)),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    Err(failed.map_or_else(|| Problem::not_found("there is no such backup"), Problem::from))
}

async fn manifest(
    _: Viewer,
    State(web): State<Arc<Web>>,
    headers: HeaderMap,
    Path((database, stamp)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (id, _) = entry(&web, &database, &stamp).await?;
    tagged(&headers, &read_manifest(&web, &id).await?)
}

async fn tables(
    _: Viewer,
    State(web): State<Arc<Web>>,
    headers: HeaderMap,
    Path((database, stamp)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (id, _) = entry(&web, &database, &stamp).await?;
    let manifest = read_manifest(&web, &id).await?;
    tagged(&headers, &json!({"id": id, "tables": manifest["tables"]}))
}

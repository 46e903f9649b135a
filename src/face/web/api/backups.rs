//! The backups in the stores.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value, json};

use super::status::tagged;
use super::write_down;
use crate::app::App;
use crate::command::FileChoice;
use crate::error::{self, Code};
use crate::face::web::Web;
use crate::face::web::access::{Caller, Operator, Viewer};
use crate::face::web::overview::in_time;
use crate::face::web::problem::Problem;
use crate::report::{Comparison, Report};
use crate::repository::backup_id::BackupId;

pub(super) fn routes() -> Router<Arc<Web>> {
    Router::new()
        .route("/backups", get(list))
        .route("/backups/{database}/{stamp}", get(one))
        .route("/backups/{database}/{stamp}/manifest", get(manifest))
        .route("/backups/{database}/{stamp}/tables", get(tables))
        .route("/backups/{database}/{stamp}/compare", get(compare))
        .route("/backups/{database}/{stamp}/files", get(files))
        .route("/backups/{database}/{stamp}/files/{name}", get(file))
        .route("/backups/{database}/{stamp}/download", get(download))
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
            Err(error) if error.code() == Code::NotFound => {}
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

/// The first member's answer that is none but "not there".
async fn ask_members<'a, T, F>(web: &'a Web, ask: impl Fn(&'a App) -> F) -> Result<T, Problem>
where
    F: Future<Output = error::Result<T>>,
{
    for member in web.control.fleet() {
        match in_time(ask(&member.app)).await {
            Err(error) if error.code() == Code::NotFound && web.control.fleet().len() > 1 => {}
            answer => return Ok(answer?),
        }
    }
    Err(Problem::not_found("there is no such backup"))
}

pub(in crate::face::web) async fn manifest_of(web: &Web, id: &BackupId) -> Result<Value, Problem> {
    ask_members(web, |app| app.manifest(id))
        .await
        .map(|manifest| json!(manifest))
}

async fn manifest(
    _: Viewer,
    State(web): State<Arc<Web>>,
    headers: HeaderMap,
    Path((database, stamp)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (id, _) = entry(&web, &database, &stamp).await?;
    tagged(&headers, &manifest_of(&web, &id).await?)
}

async fn tables(
    _: Viewer,
    State(web): State<Arc<Web>>,
    headers: HeaderMap,
    Path((database, stamp)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (id, _) = entry(&web, &database, &stamp).await?;
    let manifest = manifest_of(&web, &id).await?;
    tagged(&headers, &json!({"id": id, "tables": manifest["tables"]}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct With {
    /// `previous`, or the stamp of another backup of the same database.
    with: Option<String>,
}

/// What two full backups have in different tables.
async fn compare(
    _: Viewer,
    State(web): State<Arc<Web>>,
    headers: HeaderMap,
    Path((database, stamp)): Path<(String, String)>,
    with: Result<Query<With>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(With { with }) = with.map_err(|error| {
        Problem::http(
            StatusCode::BAD_REQUEST,
            error.body_text(),
            "the parameter is with: previous, or the stamp of another backup of this database",
        )
    })?;
    let (id, _) = entry(&web, &database, &stamp).await?;
    let compared = match with.as_deref() {
        None | Some("previous") => comparison(&web, &id).await?,
        Some(other) => {
            let (before, _) = entry(&web, &database, other).await?;
            ask_members(&web, |app| app.compare(&id, &before)).await?
        }
    };
    tagged(&headers, &compared)
}

/// What differs from the full backup before it.
pub(in crate::face::web) async fn comparison(web: &Web, id: &BackupId) -> Result<Comparison, Problem> {
    let before = previous(web, id).await?;
    ask_members(web, |app| app.compare(id, &before)).await
}

/// The newest full backup of the database that is older than this one.
async fn previous(web: &Web, id: &BackupId) -> Result<BackupId, Problem> {
    let (backups, _) = every_backup(web).await?;
    let older = backups
        .iter()
        .skip_while(|backup| backup["id"] != id.to_string())
        .skip(1);
    let full = older.filter(|backup| backup["database"] == id.database() && backup["type"] == "full");
    full.filter_map(|backup| backup["id"].as_str()?.parse().ok())
        .next()
        .ok_or_else(|| Problem::not_found(format!("there is no full backup before {id}")))
}

/// The files of a backup, by their roles.
async fn files(
    _: Viewer,
    State(web): State<Arc<Web>>,
    headers: HeaderMap,
    Path((database, stamp)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (id, _) = entry(&web, &database, &stamp).await?;
    let manifest = manifest_of(&web, &id).await?;
    tagged(&headers, &json!({"id": id, "files": manifest["files"]}))
}

/// One of them, as it is stored. Its name is compared with those of the manifest.
async fn file(
    Operator(who): Operator,
    State(web): State<Arc<Web>>,
    headers: HeaderMap,
    path: Result<Path<(String, String, String)>, PathRejection>,
) -> Result<Response, Problem> {
    let Path((database, stamp, name)) = path.map_err(|_| Problem::not_found("there is no such file"))?;
    let (id, _) = entry(&web, &database, &stamp).await?;
    send(&web, &who, &headers, &id, &FileChoice::Named(name)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wished {
    /// `seekable` (the default) or `stored`.
    form: Option<String>,
}

async fn download(
    Operator(who): Operator,
    State(web): State<Arc<Web>>,
    headers: HeaderMap,
    Path((database, stamp)): Path<(String, String)>,
    wished: Result<Query<Wished>, QueryRejection>,
) -> Result<Response, Problem> {
    let refused = |detail: String| {
        let hint = "the parameter is form: seekable (for pg_restore -j), or stored";
        Problem::http(StatusCode::BAD_REQUEST, detail, hint)
    };
    let Query(wished) = wished.map_err(|error| refused(error.body_text()))?;
    let choice = match wished.form.as_deref() {
        None | Some("seekable") => FileChoice::Seekable,
        Some("stored") => FileChoice::Stored,
        Some(other) => return Err(refused(format!("{other:?} is no form"))),
    };
    let (id, _) = entry(&web, &database, &stamp).await?;
    send(&web, &who, &headers, &id, &choice).await
}

/// Sends a file, or a part of it, and writes down who got it.
pub(in crate::face::web) async fn send(
    web: &Web,
    who: &Caller,
    headers: &HeaderMap,
    id: &BackupId,
    choice: &FileChoice,
) -> Result<Response, Problem> {
    let offered = ask_members(web, |app| app.offer(id, choice)).await?;
    write_down(web, who.asks("download", &format!("{id}/{}", offered.name))).await;
    web.downloads.answer(headers, &offered)
}

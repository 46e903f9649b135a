//! The backups, and what is in one of them.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

use super::frame::{Person, ago, failed, grouped, page};
use super::overview::encoded;
use crate::error::Code;
use crate::face::web::Web;
use crate::face::web::api::{comparison, manifest_of};
use crate::face::web::identity::Role;
use crate::face::web::problem::Problem;
use crate::report::{ListEntry, Proof, Report};
use crate::repository::backup_id::{BackupId, BackupKind};
use crate::repository::verification::VerificationStatus;
use crate::units::{count, human_bytes, human_span};

/// How many are shown.
const SHOWN: usize = 200;
/// How many tables are shown.
const TABLES: usize = 2_000;

#[derive(Deserialize)]
pub(super) struct Wanted {
    database: Option<String>,
}

pub(super) async fn list(who: Person, State(web): State<Arc<Web>>, Query(wanted): Query<Wanted>) -> Response {
    let now = web.control.now();
    let mut rows = Vec::new();
    let mut problems = Vec::new();
    for at in 0..web.control.fleet().len() {
        match web.overview.list(at).await {
            Ok(seen) => {
                let Report::List(report) = &seen.report else { continue };
                let is_meant = |entry: &&ListEntry| wanted.database.as_ref().is_none_or(|name| entry.database == *name);
                rows.extend(
                    report
                        .backups
                        .iter()
                        .filter(is_meant)
                        .take(SHOWN)
                        .map(|entry| row(entry, now)),
                );
                problems.extend(report.problems.iter().map(|problem| problem.problem.clone()));
            }
            Err(error) if error.code() == Code::NotFound => {}
            Err(error) => return failed(&error.into(), Some(&who)),
        }
    }
    let title = match &wanted.database {
        Some(name) => format!("Backups of {name}"),
        None => "Backups".to_owned(),
    };
    let content = html! {
        h1 { (title) }
        @if !problems.is_empty() { ul.problems { @for problem in &problems { li.bad { (problem) } } } }
        @if rows.is_empty() {
            p { "No backup yet: nothing here can be restored. Make one with " code { "pgstow backup" } "." }
        } @else {
            div.scroll {
                table {
                    caption { "Newest first, " (SHOWN) " at most" }
                    thead { tr {
                        th scope="col" { "Backup" } th scope="col" { "Age" } th.number scope="col" { "Size" }
                        th.number scope="col" { "Tables" } th scope="col" { "Kept as" } th scope="col" { "Verified" } th scope="col" { "Drilled" }
                    } }
                    tbody { @for row in &rows { (row) } }
                }
            }
        }
    };
    page(&title, "/backups", Some(&who), &content)
}

fn link(id: &BackupId) -> String {
    let text = id.to_string();
    let (database, stamp) = text.rsplit_once('/').unwrap_or((&text, ""));
    format!("/backups/{}/{}", encoded(database), encoded(stamp))
}

fn row(entry: &ListEntry, now: Timestamp) -> Markup {
    html! {
        tr {
            th scope="row" { a href=(link(&entry.id)) { (entry.id) } @if !entry.complete { " " span.bad { "incomplete" } } }
            td data-of="Age" { (ago(entry.timestamp, now)) }
            td.number data-of="Size" { (human_bytes(entry.bytes)) }
            td.number data-of="Tables" { (entry.tables) }
            td data-of="Kept as" { (format!("{:?}", entry.tier).to_lowercase()) }
            td data-of="Verified" { (proof(entry.verified.as_ref(), now)) }
            td data-of="Drilled" { (proof(entry.drilled.as_ref(), now)) }
        }
    }
}

fn proof(proof: Option<&Proof>, now: Timestamp) -> Markup {
    html! {
        @match proof {
            None => span.soft { "not yet" },
            Some(proof) if proof.status == VerificationStatus::Ok => span.good { "✓ " (ago(proof.at, now)) },
            Some(proof) => span.bad { "✗ " (ago(proof.at, now)) },
        }
    }
}

pub(super) async fn one(
    who: Person,
    State(web): State<Arc<Web>>,
    Path((database, stamp)): Path<(String, String)>,
) -> Response {
    match shown(&web, &who, &database, &stamp).await {
        Ok(response) => response,
        Err(problem) => failed(&problem, Some(&who)),
    }
}

async fn shown(web: &Web, who: &Person, database: &str, stamp: &str) -> Result<Response, Problem> {
    let now = web.control.now();
    let missing = || Problem::not_found("there is no such backup");
    let id: BackupId = format!("{database}/{stamp}").parse().map_err(|_| missing())?;
    let mut found = None;
    for at in 0..web.control.fleet().len() {
        let seen = web.overview.list(at).await?;
        let Report::List(report) = &seen.report else { continue };
        if report.backups.iter().any(|entry| entry.id == id) {
            found = Some(seen);
        }
    }
    let seen = found.ok_or_else(missing)?;
    let Report::List(report) = &seen.report else {
        return Err(missing());
    };
    let entry = report.backups.iter().find(|entry| entry.id == id).ok_or_else(missing)?;
    let manifest = manifest_of(web, &id).await?;
    let content = html! {
        h1 { (database) "/" wbr; (stamp) }
        dl {
            dt { "Made" } dd { (ago(entry.timestamp, now)) ", in " (human_span(entry.duration_seconds as i64)) }
            dt { "Size" } dd { (human_bytes(entry.bytes)) ", " (count(entry.tables, "table")) ", " (count(entry.rows, "row")) }
            dt { "Server" } dd { "PostgreSQL " (entry.server_version) }
            dt { "Complete" } dd { @if entry.complete { span.good { "✓ all files are there" } } @else { span.bad { "✗ lacks " (entry.lacks.join(", ")) } } }
            dt { "Verified" } dd { (proof(entry.verified.as_ref(), now)) }
            dt { "Drilled" } dd { (proof(entry.drilled.as_ref(), now)) }
        }
        @if who.may(Role::Operator) {
            div.actions {
                @for (action, name) in [("verify", "Verify"), ("drill", "Drill")] {
                    form method="post" action="/runs" {
                        input type="hidden" name="backup" value=(id);
                        button.quiet name="action" value=(action) type="submit" { (name) }
                    }
                }
                a.button.quiet href={ "/api/v1" (link(&id)) "/download?form=" @if id.kind() == BackupKind::Full { "seekable" } @else { "stored" } } { "Download" }
                @if who.may(Role::Admin) && id.kind() == BackupKind::Full {
                    a.button href={ "/restore?backup=" (encoded(&id.to_string())) } { "Restore…" }
                }
            }
        }
        (by_hand(&id))
        (tables(web, &id, &manifest).await)
    };
    Ok(page(&id.to_string(), "/backups", Some(who), &content))
}

fn by_hand(id: &BackupId) -> Markup {
    html! {
        section {
            h2 { "Restore by hand" }
            pre { "pgstow restore " (quoted(&id.to_string())) " --target postgres://USER@HOST/DATABASE" }
        }
    }
}

/// A word for a shell.
fn quoted(text: &str) -> String {
    let is_plain = text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.'));
    match is_plain {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

async fn tables(web: &Web, id: &BackupId, manifest: &Value) -> Markup {
    let compared = comparison(web, id).await.ok();
    let before = |schema: &Value, name: &Value| {
        let tables = &compared.as_ref()?.tables;
        let found = tables
            .iter()
            .find(|table| *schema == *table.schema && *name == *table.name);
        found.map(|table| format!("{:?}", table.difference).to_lowercase())
    };
    let tables = manifest["tables"].as_array().map(Vec::as_slice).unwrap_or_default();
    html! {
        section {
            h2 { "Tables" }
            @if let Some(compared) = &compared {
                p.soft { "Compared with " (compared.with) ": " (compared.same) " the same, " (compared.differs) " differ, " (compared.new) " new, " (compared.gone) " gone. The same rows in another order differ." }
            }
            div.scroll {
                table {
                    caption { (count(tables.len() as u64, "table")) @if tables.len() > TABLES { ", the first " (TABLES) } }
                    thead { tr { th scope="col" { "Table" } th.number scope="col" { "Rows" } th.number scope="col" { "Bytes" } th scope="col" { "Before" } th scope="col" { "SHA-256" } } }
                    tbody {
                        @for table in tables.iter().take(TABLES) {
                            tr {
                                th scope="row" { (table["schema"].as_str().unwrap_or_default()) "." (table["name"].as_str().unwrap_or_default()) }
                                td.number data-of="Rows" { @match table["rows"].as_u64() { Some(rows) => (grouped(rows)), None => "—" } }
                                td.number data-of="Bytes" { (human_bytes(table["bytes"].as_u64().unwrap_or_default())) }
                                td data-of="Before" { (before(&table["schema"], &table["name"]).unwrap_or_else(|| "—".to_owned())) }
                                td data-of="SHA-256" { code title=(table["sha256"].as_str().unwrap_or_default()) { (table["sha256"].as_str().and_then(|digest| digest.get(..12)).unwrap_or_default()) "…" } }
                            }
                        }
                    }
                }
            }
        }
    }
}

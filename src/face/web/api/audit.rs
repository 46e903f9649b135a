//! Who asked for what: the journal, with its chain checked.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::write_down;
use crate::control::{Checked, Entry, Record};
use crate::face::web::Web;
use crate::face::web::access::{Admin, Caller};
use crate::face::web::problem::Problem;
use crate::run::files::blocking;

pub(super) fn routes() -> Router<Arc<Web>> {
    Router::new().route("/audit", get(audit))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    /// `json` or `csv`.
    format: Option<String>,
}

/// The newest are told, if there are more.
const MOST: usize = 10_000;

async fn audit(
    Admin(who): Admin,
    State(web): State<Arc<Web>>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Problem> {
    let refused = |detail: String| {
        Problem::http(
            StatusCode::BAD_REQUEST,
            detail,
            "the parameters are from, to (RFC 3339) and format (json, csv)",
        )
    };
    let Query(wanted) = wanted.map_err(|error| refused(error.body_text()))?;
    let (checked, records) = audited(&web, &who, (wanted.from, wanted.to)).await?;
    match wanted.format.as_deref() {
        None | Some("json") => {
            let chain = json!({"ok": checked.broken.is_none(), "lines": checked.lines, "broken": checked.broken});
            Ok(Json(json!({"chain": chain, "records": records})).into_response())
        }
        Some("csv") => {
            let mut text = String::from("seq,at,by,role,from,action,what,outcome\r\n");
            records.iter().filter_map(row).for_each(|row| text += &row);
            let kept = [
                (header::CONTENT_TYPE, "text/csv; charset=utf-8; header=present"),
                (header::CONTENT_DISPOSITION, "attachment; filename=\"pgstow-audit.csv\""),
            ];
            Ok((kept, text).into_response())
        }
        Some(other) => Err(refused(format!("{other:?} is no format"))),
    }
}

/// The records of a time, oldest first, and whether the journal is whole; read in somebody's name.
pub(in crate::face::web) async fn audited(
    web: &Web,
    who: &Caller,
    (from, to): (Option<Timestamp>, Option<Timestamp>),
) -> Result<(Checked, VecDeque<Record>), Problem> {
    let Some(journal) = web.control.journal().cloned() else {
        return Err(Problem::not_found(
            "this process keeps no journal: BACKUP_STATE_DIR is not set",
        ));
    };
    write_down(web, who.asks("audit", "")).await;
    let read = move || {
        let mut records = VecDeque::new();
        let checked = journal.check(|record| {
            if from.is_none_or(|from| record.at >= from) && to.is_none_or(|to| record.at <= to) {
                if records.len() == MOST {
                    records.pop_front();
                }
                records.push_back(record);
            }
        })?;
        Ok((checked, records))
    };
    Ok(blocking(read).await?)
}

fn row(record: &Record) -> Option<String> {
    let fields = match &record.entry {
        Entry::Asked(asked) => [
            &asked.by,
            &asked.role,
            &asked.from,
            &asked.action,
            &asked.what,
            &asked.outcome,
        ]
        .map(String::clone),
        Entry::Run { run } if run.state.is_over() => [
            run.by.clone(),
            String::new(),
            String::new(),
            run.action.to_string(),
            run.id.to_string(),
            json!(run.state).as_str().unwrap_or_default().to_owned(),
        ],
        _ => return None,
    };
    let fields = fields.map(|field| quoted(&field)).join(",");
    Some(format!("{},{},{fields}\r\n", record.seq, record.at))
}

/// A field that no reader of tables takes for a formula or for several fields.
fn quoted(text: &str) -> String {
    let starts_a_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let mark = if starts_a_formula { "'" } else { "" };
    format!("\"{mark}{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_no_formula_and_stays_one_field() {
        assert_eq!(quoted("a,b\"c\n"), "\"a,b\"\"c\n\"");
        assert_eq!(quoted("=cmd|' /C calc'!A0"), "\"'=cmd|' /C calc'!A0\"");
    }
}

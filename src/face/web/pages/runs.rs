//! The runs: those that go on, those that ended, and how.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;

use super::form;
use super::frame::{Person, ago, failed, moment, page};
use crate::control::{Action, Run, RunId, RunRequest, RunState};
use crate::face::web::Web;
use crate::face::web::access::lacking;
use crate::face::web::api::{ask, cancelled};
use crate::face::web::identity::Role;
use crate::face::web::problem::Problem;
use crate::units::{human_bytes, human_span};

/// How many are shown.
const SHOWN: usize = 200;

pub(super) async fn list(who: Person, State(web): State<Arc<Web>>) -> Response {
    let now = web.control.now();
    let runs = web.control.runs();
    let content = html! {
        h1 { "Runs" }
        @if runs.is_empty() {
            p { "No run yet." }
        } @else {
            div.scroll {
                table {
                    caption { "Newest first, " (SHOWN) " at most. What backups there are, the stores say, not this list." }
                    thead { tr { th scope="col" { "Run" } th scope="col" { "State" } th scope="col" { "Asked for" } th scope="col" { "By" } th scope="col" { "Took" } } }
                    tbody {
                        @for run in runs.iter().take(SHOWN) {
                            tr {
                                th scope="row" { a href={ "/runs/" (run.id) } { @if let Some(kind) = &run.kind { (kind) " " } (run.action) @if let Some(database) = &run.database { " of " (database) } } }
                                td data-of="State" { (state(run.state)) }
                                td data-of="Asked for" { (ago(run.queued_at, now)) }
                                td data-of="By" { (run.by) }
                                td data-of="Took" { @match run.duration_ms() { Some(took) => (human_span((took / 1000) as i64)), None => "—" } }
                            }
                        }
                    }
                }
            }
        }
    };
    page("Runs", "/runs", Some(&who), &content)
}

fn state(state: RunState) -> Markup {
    html! {
        @match state {
            RunState::Succeeded => span.good { "✓ succeeded" },
            RunState::Failed | RunState::Lost => span.bad { "✗ " (state.name()) },
            RunState::Running => span { "● running" },
            RunState::Queued | RunState::Cancelled => span.soft { (state.name()) },
        }
    }
}

fn known(web: &Web, id: &str) -> Option<Run> {
    id.parse().ok().and_then(|id: RunId| web.control.run(&id))
}

pub(super) async fn one(who: Person, State(web): State<Arc<Web>>, Path(id): Path<String>) -> Response {
    let Some(run) = known(&web, &id) else {
        return failed(&Problem::not_found("no run of this id is known"), Some(&who));
    };
    let now = web.control.now();
    let lines = web.control.lines(&run.id).unwrap_or_default();
    let content = html! {
        h1.sentence { (run.action) @if let Some(database) = &run.database { " of " (database) } @if let Some(target) = &run.target { " into " (target) } }
        div class=(class(run.state)) role="status" {
            strong { (run.state.name()) }
            span { "asked for " (ago(run.queued_at, now)) " by " (run.by) }
        }
        @if !run.state.is_over() {
            (progress(&run, now))
            div.actions {
                a.button.quiet href={ "/runs/" (run.id) } { "Look again" }
                @if who.may(Role::Operator) {
                    form method="post" action={ "/runs/" (run.id) "/cancel" } { button.grave type="submit" { "Cancel" } }
                }
            }
        }
        @if let Some(error) = &run.error {
            section { h2 { (error.code) } p { (error.message) } p.soft { (error.hint) } }
        }
        dl {
            @if let Some(backup) = &run.backup { dt { "Backup" } dd { a href={ "/backups/" (backup) } { (backup) } } }
            @if let Some(at) = run.started_at { dt { "Began" } dd { (moment(at)) } }
            @if let Some(at) = run.finished_at { dt { "Ended" } dd { (moment(at)) } }
            @if let Some(took) = run.duration_ms() { dt { "Took" } dd { (format!("{:.1} s", took as f64 / 1000.0)) } }
        }
        @if !lines.is_empty() { section { h2 { "Log" } pre { (lines.join("\n")) } } }
        @if let Some(result) = &run.result {
            details { summary { "The report" } pre { (serde_json::to_string_pretty(result).unwrap_or_default()) } }
        }
    };
    page("Run", "/runs", Some(&who), &content)
}

fn class(state: RunState) -> &'static str {
    match state {
        RunState::Succeeded => "banner safe",
        RunState::Failed | RunState::Lost => "banner risk",
        RunState::Queued | RunState::Running | RunState::Cancelled => "banner unknown",
    }
}

fn progress(run: &Run, now: Timestamp) -> Markup {
    html! {
        @if let Some(progress) = &run.progress {
            section {
                p { (progress.phase) @if let Some(table) = &progress.table { ": " (table) } }
                @if let Some(estimate) = progress.estimate.filter(|estimate| *estimate > 0) {
                    progress max=(estimate) value=(progress.bytes_read.min(estimate)) {}
                }
                p.soft {
                    (human_bytes(progress.bytes_read)) " read, " (human_bytes(progress.bytes_stored)) " stored"
                    @if let Some(began) = run.started_at { ", begun " (ago(began, now)) }
                }
            }
        }
    }
}

#[derive(Deserialize)]
struct Wanted {
    action: Action,
    #[serde(default)]
    backup: Option<String>,
}

pub(super) async fn begin(who: Person, State(web): State<Arc<Web>>, body: String) -> Response {
    if let Some(problem) = lacking(&who.0, Role::Operator) {
        return failed(&problem, Some(&who));
    }
    let Some(wanted) = form::<Wanted>(&body) else {
        let problem = Problem::http(
            StatusCode::BAD_REQUEST,
            "the form is not understood",
            "load the page again",
        );
        return failed(&problem, Some(&who));
    };
    let mut request = RunRequest::of(wanted.action);
    request.backup = wanted.backup;
    match ask(&web, &who.0, &request, None).await {
        Ok(submitted) => Redirect::to(&format!("/runs/{}", submitted.id())).into_response(),
        Err(problem) => failed(&problem, Some(&who)),
    }
}

pub(super) async fn cancel(who: Person, State(web): State<Arc<Web>>, Path(id): Path<String>) -> Response {
    if let Some(problem) = lacking(&who.0, Role::Operator) {
        return failed(&problem, Some(&who));
    }
    match cancelled(&web, &who.0, &id).await {
        Ok(run) => Redirect::to(&format!("/runs/{}", run.id)).into_response(),
        Err(problem) => failed(&problem, Some(&who)),
    }
}

//! A restore: what is asked for, the plan, and the confirmation.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::form;
use super::frame::{Person, failed, moment, page};
use crate::control::{Action, PlanRequest, RestorePlan, RunRequest};
use crate::face::web::Web;
use crate::face::web::access::lacking;
use crate::face::web::api::{ask, planned};
use crate::face::web::identity::Role;
use crate::face::web::problem::Problem;
use crate::units::{count, human_bytes};

#[derive(Deserialize, Default)]
pub(super) struct Wanted {
    #[serde(default)]
    backup: String,
    #[serde(default)]
    to_time: String,
    #[serde(default)]
    tables: String,
    #[serde(default)]
    clean: Option<String>,
    #[serde(default)]
    create: Option<String>,
}

pub(super) async fn wizard(who: Person, State(web): State<Arc<Web>>, Query(wanted): Query<Wanted>) -> Response {
    let targets: Vec<String> = web
        .control
        .fleet()
        .iter()
        .filter(|member| member.app.has_target())
        .map(|member| {
            member
                .app
                .target_database()
                .unwrap_or_else(|| "named by its secret".to_owned())
        })
        .collect();
    let content = html! {
        h1 { "Restore" }
        @if targets.is_empty() {
            p { "The settings name no database to restore into. Set BACKUP_TARGET_URL or BACKUP_TARGET_SECRET_ID, and start pgstow again." }
        } @else if !who.may(Role::Admin) {
            p { "A restore needs the role admin." }
        } @else {
            div {
                p { "Into: " strong { (targets.join(", ")) } }
                p.soft { "First you see what would be done. Nothing is changed before you confirm it." }
            }
            form.fields method="post" action="/restore" {
                label { "Backup" input name="backup" required value=(if wanted.backup.is_empty() { "latest" } else { &wanted.backup }); }
                label { "To a moment, if not to its end" input name="to_time" placeholder="2026-01-31T04:05:00Z" value=(wanted.to_time); }
                label { "Only these tables, if not all" input name="tables" placeholder="public.orders public.customers" value=(wanted.tables); }
                label.tick { input type="checkbox" name="create" value="yes"; "Make the database" }
                label.tick { input type="checkbox" name="clean" value="yes"; "Replace what is there already" }
                div.actions { button type="submit" { "Show the plan" } }
            }
        }
    };
    page("Restore", "/restore", Some(&who), &content)
}

pub(super) async fn plan(who: Person, State(web): State<Arc<Web>>, body: String) -> Response {
    if let Some(problem) = lacking(&who.0, Role::Admin) {
        return failed(&problem, Some(&who));
    }
    let wanted: Wanted = form(&body).unwrap_or_default();
    let moment = wanted.to_time.trim();
    let request = PlanRequest {
        backup: wanted.backup.trim().to_owned(),
        tables: wanted.tables.split_whitespace().map(str::to_owned).collect(),
        clean: wanted.clean.is_some(),
        create: wanted.create.is_some(),
        to_time: (!moment.is_empty()).then(|| moment.to_owned()),
        ..PlanRequest::default()
    };
    match planned(&web, &who.0, &request).await {
        Ok(plan) => page("The plan", "/restore", Some(&who), &shown(&plan)),
        Err(problem) => failed(&problem, Some(&who)),
    }
}

fn shown(plan: &RestorePlan) -> Markup {
    let report = &plan.report;
    html! {
        h1 { "The plan" }
        div.banner.unknown role="status" {
            strong { "Nothing has been changed yet" }
            span { "good until " (moment(plan.expires_at)) }
        }
        dl {
            dt { "Backup" } dd { (report.id) }
            dt { "Into" } dd { (report.target) }
            @if let Some(tables) = report.tables { dt { "What" } dd { (count(tables as u64, "table")) @if let Some(rows) = report.rows { ", " (count(rows, "row")) } ", " (human_bytes(report.bytes_read)) " to read" } }
        }
        section { h2 { "Steps" } ol { @for step in &report.steps { li { (step) } } } }
        @if !report.warnings.is_empty() {
            section { h2 { "Warnings" } ul.problems { @for warning in &report.warnings { li.bad { (warning) } } } }
        }
        @if !report.left_out.is_empty() {
            section { h2 { "Left out" } ul.problems { @for left in &report.left_out { li { (left.what) ": " (left.why) } } } }
        }
        form.fields method="post" action="/restore/confirm" {
            input type="hidden" name="plan" value=(plan.id);
            label { "Type " (plan.confirm) " to go on" input name="confirm" required autocomplete="off"; }
            div.actions { button.grave type="submit" { "Restore" } a.button.quiet href="/restore" { "Go back" } }
        }
    }
}

#[derive(Deserialize)]
struct Confirmed {
    plan: String,
    confirm: String,
}

pub(super) async fn confirm(who: Person, State(web): State<Arc<Web>>, body: String) -> Response {
    let Some(confirmed) = form::<Confirmed>(&body) else {
        let problem = Problem::http(
            StatusCode::BAD_REQUEST,
            "the form is not understood",
            "load the page again",
        );
        return failed(&problem, Some(&who));
    };
    let mut request = RunRequest::of(Action::Restore);
    request.plan = Some(confirmed.plan);
    request.confirm = Some(confirmed.confirm);
    match ask(&web, &who.0, &request, None).await {
        Ok(submitted) => Redirect::to(&format!("/runs/{}", submitted.id())).into_response(),
        Err(problem) => failed(&problem, Some(&who)),
    }
}

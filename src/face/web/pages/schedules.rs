//! The schedules: when runs are due, and which rest.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};
use serde::Deserialize;

use super::form;
use super::frame::{Person, ago, failed, moment, page};
use crate::control::{Kind, Pause, Plan};
use crate::face::web::Web;
use crate::face::web::access::lacking;
use crate::face::web::api::{paused, resumed};
use crate::face::web::identity::Role;

pub(super) async fn list(who: Person, State(web): State<Arc<Web>>) -> Response {
    let now = web.control.now();
    let pauses = web.control.pauses();
    let content = html! {
        h1 { "Schedules" }
        @if web.control.plans().is_empty() {
            p { "The settings have none: set FULL_BACKUP_SCHEDULE, INCREMENTAL_BACKUP_SCHEDULE or CLEANUP_SCHEDULE, each a line of cron." }
        }
        @for plan in web.control.plans() {
            (shown(plan, pauses.iter().find(|pause| pause.schedule == plan.kind), &who, now))
        }
    };
    page("Schedules", "/schedules", Some(&who), &content)
}

fn shown(plan: &Plan, pause: Option<&Pause>, who: &Person, now: Timestamp) -> Markup {
    let name = plan.kind.name();
    let title = match plan.kind {
        Kind::Full => "Full backup",
        Kind::Incremental => "Increment",
        Kind::Cleanup => "Cleanup",
    };
    let next = std::iter::successors(plan.line.next(now), |moment| plan.line.next(*moment)).take(10);
    let local = |moment: Timestamp| moment.to_zoned_datetime(plan.line.zone().clone());
    html! {
        section {
            h2 { (title) " of " (plan.database) }
            p { code { (plan.line) } " in " (plan.line.zone().iana_name().unwrap_or("UTC")) }
            @if let Some(pause) = pause {
                div.banner.risk role="status" {
                    strong { "Paused" }
                    span { "by " (pause.by) " until " (moment(pause.until)) ": " (pause.reason) }
                }
            }
            div.apart {
                ol.moments { @for at in next { li { time datetime=(at) { (local(at).strftime("%a %d %b %Y %H:%M:%S %Z")) } span.soft { " · " (ago(at, now)) } } } }
                @if who.may(Role::Operator) { (rest(name, pause.is_some())) }
            }
        }
    }
}

/// The form that lets it rest, or go on.
fn rest(name: &str, is_paused: bool) -> Markup {
    html! {
        @if is_paused {
            form method="post" action={ "/schedules/" (name) "/resume" } { button type="submit" { "Let it go on" } }
        } @else {
            details {
                summary { "Pause…" }
                form.fields method="post" action={ "/schedules/" (name) "/pause" } {
                    label { "Reason for the pause" input name="reason" required maxlength="500"; }
                    label { "Hours, 168 at most" input name="hours" type="number" min="1" max="168" value="1" required; }
                    div.actions { button.quiet type="submit" { "Pause" } }
                }
            }
        }
    }
}

#[derive(Deserialize, Default)]
struct Wanted {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    hours: u32,
}

pub(super) async fn pause(
    who: Person,
    State(web): State<Arc<Web>>,
    Path(name): Path<String>,
    body: String,
) -> Response {
    if let Some(problem) = lacking(&who.0, Role::Operator) {
        return failed(&problem, Some(&who));
    }
    let wanted: Wanted = form(&body).unwrap_or_default();
    let until = web.control.now() + SignedDuration::from_hours(i64::from(wanted.hours.min(1_000)));
    match paused(&web, &who.0, &name, (&wanted.reason, until)).await {
        Ok(_) => Redirect::to("/schedules").into_response(),
        Err(problem) => failed(&problem, Some(&who)),
    }
}

pub(super) async fn resume(who: Person, State(web): State<Arc<Web>>, Path(name): Path<String>) -> Response {
    if let Some(problem) = lacking(&who.0, Role::Operator) {
        return failed(&problem, Some(&who));
    }
    match resumed(&web, &who.0, &name).await {
        Ok(()) => Redirect::to("/schedules").into_response(),
        Err(problem) => failed(&problem, Some(&who)),
    }
}

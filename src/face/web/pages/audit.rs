//! Who asked for what, and whether the journal is whole.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};

use super::frame::{Person, failed, page};
use crate::control::{Entry, Record};
use crate::face::web::Web;
use crate::face::web::access::lacking;
use crate::face::web::api::audited;
use crate::face::web::identity::Role;

/// How many records are shown.
const SHOWN: usize = 300;

pub(super) async fn list(who: Person, State(web): State<Arc<Web>>) -> Response {
    if let Some(problem) = lacking(&who.0, Role::Admin) {
        return failed(&problem, Some(&who));
    }
    let (checked, records) = match audited(&web, &who.0, (None, None)).await {
        Ok(found) => found,
        Err(problem) => return failed(&problem, Some(&who)),
    };
    let content = html! {
        h1 { "Audit" }
        @match &checked.broken {
            None => div.banner.safe role="status" { strong { "The journal is whole" } span { (checked.lines) " lines, each joined to those before" } },
            Some(place) => div.banner.risk role="alert" { strong { "The journal was changed" } span { "first at " (place) } },
        }
        div.actions {
            a.button.quiet href="/api/v1/audit?format=csv" { "CSV" }
            a.button.quiet href="/api/v1/audit" { "JSON" }
        }
        div.scroll {
            table {
                caption { "Newest first, " (SHOWN) " at most" }
                thead { tr { th scope="col" { "When" } th scope="col" { "Who" } th scope="col" { "From" } th scope="col" { "What" } th scope="col" { "Outcome" } } }
                tbody { @for record in records.iter().rev().take(SHOWN) { (row(record)) } }
            }
        }
    };
    page("Audit", "/audit", Some(&who), &content)
}

fn row(record: &Record) -> Markup {
    let (who, from, what, outcome) = match &record.entry {
        Entry::Asked(asked) => (
            format!("{} ({})", asked.by, asked.role),
            asked.from.clone(),
            format!("{} {}", asked.action, asked.what),
            asked.outcome.clone(),
        ),
        Entry::Run { run } => (
            run.by.clone(),
            String::new(),
            format!("{} {}", run.action, run.id),
            run.state.name().to_owned(),
        ),
        Entry::Paused(pause) => (
            pause.by.clone(),
            String::new(),
            format!("pause {}: {}", pause.schedule.name(), pause.reason),
            format!("until {}", pause.until),
        ),
        Entry::Resumed { schedule, by } => (
            by.clone(),
            String::new(),
            format!("resume {}", schedule.name()),
            String::new(),
        ),
        Entry::Torn { bytes } => (
            String::new(),
            String::new(),
            format!("{bytes} bytes at the end were torn"),
            String::new(),
        ),
        Entry::Missing { seq } => (
            String::new(),
            String::new(),
            format!("records up to {seq} are missing, or were written anew"),
            String::new(),
        ),
    };
    html! {
        tr {
            th scope="row" { time datetime=(record.at) { (record.at.strftime("%Y-%m-%d %H:%M:%SZ")) } }
            td data-of="Who" { (who) }
            td data-of="From" { (from) }
            td data-of="What" { (what) }
            td data-of="Outcome" { (outcome) }
        }
    }
}

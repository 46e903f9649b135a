//! `/metrics`: what the stores say and how the runs went, in Prometheus's text format. The names are those of the file
//! that runs write (docs/operations.md), where they mean the same.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::Web;
use super::access::Scraper;
use crate::control::{Action, RunState};
use crate::report::{Report, StatusReport};
use crate::repository::verification::VerificationStatus;

pub(super) async fn metrics(_: Scraper, State(web): State<Arc<Web>>) -> Response {
    let mut page = Page::default();
    page.family("pgstow_up", "1 if the process begins runs, 0 while it ends.");
    page.sample("pgstow_up", &[], f64::from(u8::from(!web.control.is_closing())));
    runs(&web, &mut page);
    let mut stores = Vec::new();
    for (at, member) in web.control.fleet().iter().enumerate() {
        stores.push((member.name.as_str(), web.overview.status(at).await.ok()));
    }
    page.family(
        "pgstow_store_answers",
        "1 if the store said what it holds, 0 if it could not be asked.",
    );
    for (member, seen) in &stores {
        match seen.as_deref().map(|seen| &seen.report) {
            Some(Report::Status(report)) => {
                for store in &report.stores {
                    let labels = [("member", *member), ("store", store.url.as_str())];
                    page.sample("pgstow_store_answers", &labels, f64::from(u8::from(store.reachable)));
                }
            }
            _ => page.sample("pgstow_store_answers", &[("member", member)], 0.0),
        }
    }
    let said: Vec<(&str, &StatusReport)> = stores
        .iter()
        .filter_map(|(member, seen)| match &seen.as_ref()?.report {
            Report::Status(report) => Some((*member, &**report)),
            _ => None,
        })
        .collect();
    status(&said, &mut page);
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], page.0).into_response()
}

fn runs(web: &Web, page: &mut Page) {
    let runs = web.control.runs();
    page.family("pgstow_runs", "The runs that this process knows, by action and state.");
    for action in Action::ALL {
        for state in RunState::ALL {
            let count = runs
                .iter()
                .filter(|run| run.action == action && run.state == state)
                .count();
            if count > 0 {
                let labels = [("action", action.name()), ("state", state.name())];
                page.sample("pgstow_runs", &labels, count as f64);
            }
        }
    }
}

fn status(said: &[(&str, &StatusReport)], page: &mut Page) {
    page.family("pgstow_problems", "What a person has to do something about.");
    for (member, report) in said {
        page.sample("pgstow_problems", &[("member", member)], report.problems.len() as f64);
    }
    let databases = || said.iter().flat_map(|(_, report)| &report.databases);
    let name = "pgstow_backup_last_success_timestamp_seconds";
    page.family(name, "When the newest good backup began; 0: there is none.");
    for database in databases() {
        let good = database.last_good.as_ref();
        let began = good.map_or(0, |good| good.id.timestamp().as_second());
        page.sample(name, &[("database", &database.database)], began as f64);
    }
    let name = "pgstow_backup_bytes";
    page.family(
        name,
        "The size of the newest good backup as stored, all files together.",
    );
    for database in databases() {
        if let Some(good) = &database.last_good {
            page.sample(name, &[("database", &database.database)], good.bytes as f64);
        }
    }
    let proofs = [
        (
            "pgstow_verify_last_success_timestamp_seconds",
            "When a verification last found no difference.",
        ),
        (
            "pgstow_drill_last_success_timestamp_seconds",
            "When a drill last proved a backup.",
        ),
    ];
    for (at, (name, help)) in proofs.into_iter().enumerate() {
        page.family(name, help);
        for database in databases() {
            let proof = [&database.last_verified, &database.last_drilled][at];
            if let Some(proof) = proof.as_ref().filter(|proof| proof.status == VerificationStatus::Ok) {
                page.sample(name, &[("database", &database.database)], proof.at.as_second() as f64);
            }
        }
    }
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(name, text)| format!("{name}=\"{}\"", escaped(text)))
            .collect();
        let _ = match labels.is_empty() {
            true => writeln!(self.0, "{name} {value}"),
            false => writeln!(self.0, "{name}{{{}}} {value}", labels.join(",")),
        };
    }
}

/// A name of a database may be any text.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_stays_within_its_label() {
        let mut page = Page::default();
        page.sample("x", &[("database", "a\"} 1\ny\\")], 7.0);
        page.sample("y", &[], 1_700_000_000.0);
        assert_eq!(page.0, "x{database=\"a\\\"} 1\\ny\\\\\"} 7\ny 1700000000\n");
    }
}

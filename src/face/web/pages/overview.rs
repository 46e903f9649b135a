//! Whether the backups are safe, at first glance.

use std::sync::Arc;

use axum::response::Response;
use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use super::frame::{Person, ago, page};
use crate::control::{Action, Pause, Run, RunState};
use crate::error::Error;
use crate::face::web::Web;
use crate::face::web::access::Caller;
use crate::face::web::identity::Role;
use crate::face::web::overview::Seen;
use crate::report::{DatabaseStatus, Judgement, Report, StatusReport};
use crate::repository::verification::VerificationStatus;
use crate::units::{count, human_bytes};

/// A proof older than this says little about the backups of today.
const PROOF: SignedDuration = SignedDuration::from_hours(35 * 24);
/// An answer older than this says nothing about now.
const FRESH: SignedDuration = SignedDuration::from_secs(60);

/// What is said in one word.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Safe,
    AtRisk(Vec<String>),
    Unknown(String),
}

/// Never `Safe` without an answer of the store that is fresh, a backup of each database, and a proof of it.
fn verdict(seen: &[Result<Arc<Seen>, Error>], pauses: &[Pause], now: Timestamp) -> Verdict {
    let mut risks: Vec<String> = Vec::new();
    for one in seen {
        match one {
            Err(error) => return Verdict::Unknown(error.to_string()),
            Ok(seen) if now.duration_since(seen.at) > FRESH => {
                return Verdict::Unknown(format!("the store answered last at {}", seen.at));
            }
            Ok(seen) => match &seen.report {
                Report::Status(report) => match away(report) {
                    Some(why) => return Verdict::Unknown(why),
                    None => risks.extend(of_store(report, now)),
                },
                _ => return Verdict::Unknown("the store was not asked for its status".to_owned()),
            },
        }
    }
    let paused = |pause: &Pause| {
        let (name, by, until) = (pause.schedule.name(), &pause.by, pause.until);
        format!("the schedule {name} is paused by {by} until {until}: {}", pause.reason)
    };
    risks.extend(pauses.iter().map(paused));
    match risks.is_empty() {
        true => Verdict::Safe,
        false => Verdict::AtRisk(risks),
    }
}

/// Why no store says what it holds.
fn away(report: &StatusReport) -> Option<String> {
    if report.stores.iter().any(|store| store.reachable) {
        return None;
    }
    let store = report.stores.first()?;
    let error = store.error.as_ref();
    let why = error.map_or_else(
        || format!("{} does not answer", store.url),
        |error| error.message.clone(),
    );
    Some(why)
}

fn of_store(report: &StatusReport, now: Timestamp) -> Vec<String> {
    let mut risks = report.problems.clone();
    if report.status != Judgement::Ok && risks.is_empty() {
        risks.push("the status asks for attention".to_owned());
    }
    if report.databases.is_empty() {
        risks.push("there is no backup yet, so nothing can be restored: make one with `pgstow backup`".to_owned());
    }
    for database in &report.databases {
        let name = &database.database;
        if database.last_good.is_none() {
            risks.push(format!("{name} has no good backup"));
        } else if proved(database).is_none_or(|at| now.duration_since(at) > PROOF) {
            risks.push(format!(
                "no backup of {name} was proved in the last 35 days: verify or drill one"
            ));
        }
    }
    risks
}

/// When a backup of it was last proved.
fn proved(database: &DatabaseStatus) -> Option<Timestamp> {
    let proofs = [&database.last_verified, &database.last_drilled];
    let good = proofs
        .into_iter()
        .flatten()
        .filter(|proof| proof.status == VerificationStatus::Ok);
    good.map(|proof| proof.at).max()
}

pub(in crate::face::web) async fn show(web: &Web, who: &Caller) -> Response {
    let who = &Person(who.clone());
    let now = web.control.now();
    let mut seen = Vec::new();
    for at in 0..web.control.fleet().len() {
        seen.push(web.overview.status(at).await);
    }
    let runs = web.control.runs();
    let reports = seen.iter().flatten().filter_map(|seen| match &seen.report {
        Report::Status(report) => Some(&**report),
        _ => None,
    });
    let reports: Vec<&StatusReport> = reports.collect();
    let checked = seen.iter().flatten().map(|seen| seen.at).min();
    let content = html! {
        h1.unseen { "Overview" }
        (banner(&verdict(&seen, &web.control.pauses(), now), checked, now))
        (databases(web, &reports, &runs, now))
        @if who.may(Role::Operator) {
            div.actions {
                form method="post" action="/runs" {
                    button name="action" value="backup" type="submit" { "Back up now" }
                }
                form method="post" action="/runs" {
                    button.quiet name="action" value="verify" type="submit" { "Verify the latest" }
                }
                @if who.may(Role::Admin) { a.button.quiet href="/restore" { "Restore…" } }
            }
        }
        (stores(&reports))
    };
    page("Overview", "/", Some(who), &content)
}

fn banner(verdict: &Verdict, checked: Option<Timestamp>, now: Timestamp) -> Markup {
    let (class, word) = match verdict {
        Verdict::Safe => ("banner safe", "✓ SAFE"),
        Verdict::AtRisk(_) => ("banner risk", "! AT RISK"),
        Verdict::Unknown(_) => ("banner unknown", "? UNKNOWN"),
    };
    html! {
        h1.skip { "Overview" }
        div class=(class) role="status" {
            strong { (word) }
            @match verdict {
                Verdict::Safe => span { "each database has a good backup, and a proof of one" },
                Verdict::AtRisk(risks) => span { (count(risks.len() as u64, "thing")) " to do" },
                Verdict::Unknown(why) => span { (why) },
            }
            @if let Some(at) = checked { span { "checked " (ago(at, now)) } }
        }
        @if let Verdict::AtRisk(risks) = verdict {
            ul.problems { @for risk in risks { li { (risk) } } }
        }
    }
}

fn databases(web: &Web, reports: &[&StatusReport], runs: &[Run], now: Timestamp) -> Markup {
    let databases = || reports.iter().flat_map(|report| &report.databases);
    if databases().next().is_none() {
        return html! {};
    }
    html! {
        div.scroll {
            table {
                caption { "The databases, each with its last good backup" }
                thead { tr { th scope="col" { "Database" } th scope="col" { "Last good" } th scope="col" { "Now" } th scope="col" { "Next run" } th scope="col" { "Proved" } } }
                tbody {
                    @for database in databases() {
                        tr {
                            th scope="row" { a href={ "/backups?database=" (encoded(&database.database)) } { (database.database) } }
                            td data-of="Last good" {
                                span {
                                    @match &database.last_good {
                                        Some(good) => { (ago(good.id.timestamp(), now)) " · " (human_bytes(good.bytes)) },
                                        None => span.bad { "none" },
                                    }
                                }
                            }
                            td data-of="Now" { (running(runs, &database.database)) }
                            td data-of="Next run" { (next(web, &database.database, now)) }
                            td data-of="Proved" {
                                @match proved(database) { Some(at) => (ago(at, now)), None => span.bad { "never" } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn running(runs: &[Run], database: &str) -> Markup {
    let is_here = |run: &&Run| run.database.as_deref() == Some(database) && run.state == RunState::Running;
    html! {
        @match runs.iter().find(is_here) {
            Some(run) => a href={ "/runs/" (run.id) } {
                @match run.action { Action::Backup => "backup", action => (action) } " is running"
            },
            None => "—",
        }
    }
}

fn next(web: &Web, database: &str, now: Timestamp) -> Markup {
    let plans = web.control.plans().iter().filter(|plan| plan.database == database);
    let next = plans
        .filter_map(|plan| Some((plan.line.next(now)?, plan.kind.name())))
        .min();
    html! {
        @match next { Some((at, name)) => span { (name) " " (ago(at, now)) }, None => "—" }
    }
}

fn stores(reports: &[&StatusReport]) -> Markup {
    html! {
        section {
            h2 { "Stores" }
            dl {
                @for store in reports.iter().flat_map(|report| &report.stores) {
                    dt { (store.url) }
                    dd {
                        @match &store.error {
                            Some(error) => span.bad { (error.message) },
                            None => span { (count(store.backups, "backup")) ", " (human_bytes(store.bytes)) },
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_answer_of_the_store_nothing_is_safe() {
        let now = Timestamp::UNIX_EPOCH;
        let away = Err(Error::new(crate::error::Code::Store, "it is away"));
        assert!(matches!(verdict(&[away], &[], now), Verdict::Unknown(_)));
    }
}

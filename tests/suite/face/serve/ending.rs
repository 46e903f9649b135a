//! Cancelled runs, a process that is asked to end, and one that is killed.

use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::events::Events;
use super::{OPERATOR, Serving, VIEWER, files, shop};
use crate::support::lock::Lock;

/// Asks for a backup, and waits until it runs.
fn begun(serving: &Serving) -> String {
    let answer = serving.ask(OPERATOR, "POST", "/api/v1/runs", r#"{"action":"backup"}"#);
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    while serving.get(&format!("/api/v1/runs/{id}"))["backup"].is_null() {
        thread::sleep(Duration::from_millis(20));
    }
    id
}

#[test]
fn a_run_that_is_cancelled_leaves_nothing_and_one_that_waits_never_begins() {
    let database = shop();
    let held = Lock::hold(&database, "orders");
    let serving = Serving::of(&database);
    let running = begun(&serving);
    let waiting = serving
        .ask(OPERATOR, "POST", "/api/v1/runs", r#"{"action":"doctor"}"#)
        .json();
    let waiting = waiting["id"].as_str().unwrap();
    assert_eq!(serving.get(&format!("/api/v1/runs/{waiting}"))["state"], "queued");
    let cancel = |id: &str| serving.ask(OPERATOR, "POST", &format!("/api/v1/runs/{id}/cancel"), "");
    assert_eq!(cancel(waiting).json()["state"], "cancelled");
    assert_eq!(cancel(&running).status, 202);
    let run = serving.ended(&running);
    assert_eq!(
        (run["state"].as_str(), run["error"]["code"].as_str()),
        (Some("cancelled"), Some("INTERRUPTED")),
        "{run}"
    );
    assert_eq!(cancel(&running).status, 400);
    assert_eq!(cancel("20260131T040500Z-5f0c1a2b3c4d5e6f").status, 404);
    drop(held);
    assert_eq!(files(&serving.store()), 0, "{:?}", super::walk(&serving.store()));
    assert_eq!(serving.run(r#"{"action":"backup"}"#)["state"], "succeeded");
}

#[test]
fn a_process_that_is_asked_to_end_cleans_up_first_and_one_that_is_killed_says_what_was_lost() {
    let database = shop();
    let held = Lock::hold(&database, "orders");
    let serving = Serving::of(&database);
    let events = Events::of(&serving, &format!("Authorization: Bearer {VIEWER}"));
    let stopped = begun(&serving);
    let waiting = serving
        .ask(OPERATOR, "POST", "/api/v1/runs", r#"{"action":"doctor"}"#)
        .json();
    let store = serving.store();
    let (place, code) = serving.end();
    assert_eq!(code, 0);
    // Who listens hears how the runs end, and is told to come back, before the connection closes.
    let told: Vec<String> = events
        .map(|(name, _)| name)
        .filter(|name| name != "run.progress")
        .collect();
    let [.., one, other, third, last] = &told[..] else {
        panic!("{told:?}")
    };
    let mut ends = [one.as_str(), other, third];
    ends.sort_unstable();
    assert_eq!(
        (ends, last.as_str()),
        (["run.cancelled", "run.failed", "status.changed"], "reset"),
        "{told:?}"
    );
    assert_eq!(files(&store), 0, "{:?}", super::walk(&store));
    let serving = Serving::at(place, &database, |_| {});
    let run = serving.get(&format!("/api/v1/runs/{stopped}"));
    assert_eq!(
        (run["state"].as_str(), run["error"]["code"].as_str()),
        (Some("failed"), Some("INTERRUPTED")),
        "{run}"
    );
    // What waited is over as well: it did not vanish, and was not lost.
    let waiting = serving.get(&format!("/api/v1/runs/{}", waiting["id"].as_str().unwrap()));
    assert_eq!(waiting["state"], "cancelled", "{waiting}");
    let killed = begun(&serving);
    serving.signal(Signal::KILL);
    let mut serving = serving;
    serving.child.wait().unwrap();
    drop(held);
    let place = std::mem::replace(&mut serving.place, tempfile::tempdir().unwrap());
    let serving = Serving::at(place, &database, |_| {});
    let run = serving.get(&format!("/api/v1/runs/{killed}"));
    assert_eq!(
        (run["state"].as_str(), run["finished_at"].is_string()),
        (Some("lost"), true),
        "{run}"
    );
}

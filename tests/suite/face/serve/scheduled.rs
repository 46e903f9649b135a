//! The scheduler.

use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::{OPERATOR, Serving, VIEWER, shop};

fn runs(serving: &Serving) -> Vec<Value> {
    serving.get("/api/v1/runs")["runs"].as_array().unwrap().clone()
}

#[test]
fn a_backup_is_made_when_it_is_due_and_says_so() {
    let database = shop();
    let serving = Serving::with(&database, |command| {
        // Without a backup, the moment before the start was missed.
        command.env("FULL_BACKUP_SCHEDULE", "* * * * * *");
    });
    while runs(&serving).iter().all(|run| run["state"] != "succeeded") {
        thread::sleep(Duration::from_millis(100));
    }
    let run = runs(&serving).pop().unwrap();
    assert_eq!(
        (run["trigger"].as_str(), run["by"].as_str()),
        (Some("schedule"), Some("schedule full")),
        "{run}"
    );
    assert_eq!(serving.get("/api/v1/backups")["backups"][0]["database"], database.name);
}

#[test]
fn a_schedule_rests_with_a_reason_and_an_end_also_after_a_restart() {
    let database = shop();
    let set = |command: &mut std::process::Command| {
        command
            .env("FULL_BACKUP_SCHEDULE", "30 2 * * *")
            .env("CLEANUP_SCHEDULE", "0 4 * * 0")
            .env("BACKUP_TIMEZONE", "Europe/Berlin");
    };
    let serving = Serving::with(&database, set);
    let listed = serving.get("/api/v1/schedules");
    let full = &listed["schedules"][0];
    assert_eq!(
        (full["name"].as_str(), full["line"].as_str(), full["zone"].as_str()),
        (Some("full"), Some("30 2 * * *"), Some("Europe/Berlin")),
        "{listed}"
    );
    assert_eq!(
        (full["next"].as_array().unwrap().len(), full["paused"].clone()),
        (10, Value::Null)
    );
    let until = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(3)).to_string();
    let pause = |serving: &Serving, token: &str, name: &str, body: &str| {
        serving.ask(token, "POST", &format!("/api/v1/schedules/{name}/pause"), body)
    };
    let good = format!(r#"{{"reason":"the store moves","until":"{until}"}}"#);
    assert_eq!(pause(&serving, VIEWER, "full", &good).status, 403);
    assert_eq!(pause(&serving, OPERATOR, "weekly", &good).status, 404);
    for wrong in [
        format!(r#"{{"reason":" ","until":"{until}"}}"#),
        r#"{"reason":"the store moves","until":"2020-01-01T00:00:00Z"}"#.to_owned(),
        r#"{"reason":"the store moves","until":"2999-01-01T00:00:00Z"}"#.to_owned(),
    ] {
        assert_eq!(pause(&serving, OPERATOR, "full", &wrong).status, 400, "{wrong}");
    }
    assert_eq!(serving.get("/api/v1/status")["paused"], Value::Null);
    let paused = pause(&serving, OPERATOR, "full", &good);
    assert_eq!(paused.status, 200, "{}", paused.body);
    let (place, _) = serving.end();
    let serving = Serving::at(place, &database, set);
    let status = serving.get("/api/v1/status");
    assert_eq!(
        (status["status"].as_str(), status["paused"][0]["reason"].as_str()),
        (Some("attention"), Some("the store moves")),
        "{status}"
    );
    assert_eq!(
        serving.get("/api/v1/schedules")["schedules"][0]["paused"]["by"],
        "token:the operator"
    );
    let resumed = serving.ask(OPERATOR, "POST", "/api/v1/schedules/full/resume", "");
    assert_eq!(resumed.status, 204, "{}", resumed.body);
    assert_eq!(serving.get("/api/v1/status")["paused"], Value::Null);
}

#[test]
fn a_schedule_that_rests_begins_nothing() {
    let database = shop();
    let serving = Serving::with(&database, |command| {
        command.env("FULL_BACKUP_SCHEDULE", "* * * * * *");
    });
    while runs(&serving).is_empty() {
        thread::sleep(Duration::from_millis(50));
    }
    let until = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    let body = format!(r#"{{"reason":"enough","until":"{until}"}}"#);
    assert_eq!(
        serving
            .ask(OPERATOR, "POST", "/api/v1/schedules/full/pause", &body)
            .status,
        200
    );
    // What was asked for before the pause ends.
    thread::sleep(Duration::from_secs(1));
    while runs(&serving).iter().any(|run| run["finished_at"].is_null()) {
        thread::sleep(Duration::from_millis(50));
    }
    let before = runs(&serving).len();
    thread::sleep(Duration::from_secs(3));
    assert_eq!(runs(&serving).len(), before);
}

//! The scheduler.

use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::{Serving, shop};

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

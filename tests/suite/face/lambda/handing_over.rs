//! A backup for which the function has not the time.

use std::fs;
use std::time::Duration;

use serde_json::json;

use super::place::{Place, failed, handed_over, succeeded, until};
use crate::support::function::Function;
use crate::support::lock::Lock;
use crate::support::moto::{Cluster, secret};
use crate::support::program::succeed;

/// Lambda's timeout of these functions; a tiny backup takes a second or two of it.
const MINUTE: Duration = Duration::from_secs(60);

/// The store holds one backup that took an hour, by what its manifest says.
async fn slow_database() -> (Place, String) {
    let place = Place::fresh().await;
    let report = succeed(place.command_line().args(["backup", "--json"])).json();
    let id = report["id"].as_str().unwrap().to_owned();
    let mut manifest = place.manifest(&id).await;
    let started: jiff::Timestamp = manifest["timestamp"].as_str().unwrap().parse().unwrap();
    manifest["finished_at"] = json!(started + jiff::SignedDuration::from_hours(1));
    let key = format!("nightly/{id}/manifest.json");
    place.bucket.put(&key, manifest.to_string().as_bytes()).await;
    // The message of that backup is not of these tests.
    place.topic.messages();
    (place, id)
}

fn function(place: &Place, timeout: Duration, cluster: Option<&Cluster>) -> Function {
    let id = secret(&place.secret().to_string());
    place.function_within(timeout, cluster, |command| {
        command.env("BACKUP_SECRET_ID", id);
    })
}

#[tokio::test]
async fn a_backup_that_will_not_fit_is_not_begun() {
    let (place, before) = slow_database().await;
    let function = function(&place, MINUTE, None);
    let told = failed(&function.invoke(&json!({})), "DEADLINE");
    assert!(
        told.contains("was not begun") && told.contains("container task"),
        "{told}"
    );
    assert_eq!(place.backups().await, [before]);
    assert_eq!(place.bucket.uploads().await, [""; 0]);
    assert_eq!(place.message().attributes["code"], "DEADLINE");
    // The lease is free for a run that has the time.
    succeed(place.command_line().args(["backup", "--json"]));
}

#[tokio::test]
async fn it_is_handed_over_to_a_container_task_with_the_same_request() {
    let (place, before) = slow_database().await;
    let cluster = Cluster::fresh();
    let function = function(&place, MINUTE, Some(&cluster));
    let event = json!({"action": "backup", "trigger": "schedule", "event_id": "full-2026-01-31T04:05:00Z",
                       "database": place.database.name});
    let answer = function.invoke(&event);
    let command = handed_over(&answer, &cluster);
    let database = format!("--database={}", place.database.name);
    let expected = [
        "backup",
        "--json",
        "--trigger=schedule",
        "--event-id=full-2026-01-31T04:05:00Z",
        &database,
    ];
    assert_eq!(command, expected);
    assert!(
        answer["reason"].as_str().unwrap().contains("was not begun"),
        "{answer:#}"
    );
    assert_eq!(place.backups().await, std::slice::from_ref(&before));
    // The task tells how it went.
    assert!(place.topic.messages().is_empty());

    // What the task runs makes the backup; the event, delivered again, finds it.
    let made = succeed(place.command_line().args(command)).json();
    assert_eq!(made["trigger"], "schedule");
    let again = function.invoke(&event);
    assert_eq!((&again["id"], &again["repeated"]), (&made["id"], &json!(true)));
}

#[tokio::test]
async fn a_backup_that_runs_out_of_time_goes_on_in_the_task() {
    let place = Place::fresh().await;
    let cluster = Cluster::fresh();
    let function = function(&place, Duration::from_secs(10), Some(&cluster));
    let lock = Lock::hold(&place.database, "orders");
    let answer = function.invoke(&json!({}));
    drop(lock);
    let command = handed_over(&answer, &cluster);
    assert_eq!(command[..3], ["backup", "--json", "--trigger=manual"]);
    assert_eq!(command[3], format!("--event-id={}", function.request_ids()[0]));
    assert_eq!(function.temporary_files(), [""; 0]);
    place.assert_nothing_is_left().await;
}

#[tokio::test]
async fn a_task_that_cannot_be_started_is_told_with_the_deadline() {
    let (place, _) = slow_database().await;
    let cluster = Cluster {
        name: "nowhere".to_owned(),
        ..Cluster::fresh()
    };
    let function = function(&place, MINUTE, Some(&cluster));
    let told = failed(&function.invoke(&json!({})), "DEADLINE");
    assert!(
        told.contains("was not begun") && told.contains("and then: cannot hand the backup over"),
        "{told}"
    );
    assert_eq!(place.message().attributes["code"], "DEADLINE");
}

#[tokio::test]
async fn settings_of_the_task_that_are_missing_are_named() {
    let place = Place::fresh().await;
    let function = place.function_with(|command| {
        command
            .env("DATABASE_URL", place.database.url())
            .env("BACKUP_HANDOVER", "ecs")
            .env("BACKUP_ECS_CLUSTER", "backups");
    });
    let told = failed(&function.invoke(&json!({})), "CONFIG");
    for name in ["BACKUP_ECS_TASK_DEFINITION", "BACKUP_ECS_SUBNETS"] {
        assert!(told.contains(name), "{told}");
    }
}

#[tokio::test]
async fn while_it_reads_the_passfile_is_all_that_lies_in_tmp() {
    let place = Place::fresh().await;
    let function = std::sync::Arc::new(function(&place, Duration::from_secs(20), None));
    // A catalog that pg_dump alone reads.
    let lock = Lock::hold(&place.database, "pg_catalog.pg_ts_template");
    let running = tokio::task::spawn_blocking({
        let function = function.clone();
        move || function.invoke(&json!({}))
    });
    let reading = || async { function.children().iter().any(|line| line.contains("--snapshot=")) };
    until("pg_dump waits for the lock", reading).await;
    let folders = function.temporary_files();
    assert_eq!(folders.len(), 1, "{folders:?}");
    let files = fs::read_dir(&folders[0]).unwrap().map(|file| file.unwrap().path());
    let files: Vec<_> = files.filter(|file| fs::metadata(file).unwrap().len() > 0).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let password = place.database.password();
    assert!(fs::read_to_string(&files[0]).unwrap().contains(&password));
    drop(lock);
    succeeded(&running.await.unwrap());
    assert_eq!(function.temporary_files(), [""; 0]);
}

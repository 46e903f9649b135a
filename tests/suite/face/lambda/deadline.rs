//! Lambda kills a function whose time is up, without a word. So it must end in good order before.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;

use super::place::{Place, failed, succeeded, until};
use crate::support::function::Function;
use crate::support::lock::Lock;
use crate::support::moto::secret;
use crate::support::services::postgres_bin;

const SHORT: Duration = Duration::from_secs(10);

async fn ended_in_good_order(place: &Place, function: &Function) {
    assert!(!function.log().contains("timed out"), "{}", function.log());
    assert_eq!(function.starts(), 1);
    assert_eq!(function.children(), [""; 0]);
    assert_eq!(function.temporary_files(), [""; 0]);
    place.assert_nothing_is_left().await;
    let message = place.message();
    assert_eq!(message.attributes["code"], "DEADLINE");
    assert_eq!(message.attributes["database"], place.database.name);
    // No session reads the database any more.
    let sessions = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND pid <> pg_backend_pid()",
        place.database.name
    );
    let gone = || async { place.database.sql(&sessions) == "0" };
    until("the sessions are gone", gone).await;
}

#[tokio::test]
async fn a_dump_that_waits_for_a_lock_ends_with_deadline_before_lambda_kills_it() {
    let place = Place::fresh().await;
    let id = secret(&place.secret().to_string());
    let function = Function::start(SHORT, |command| {
        place.configure(command);
        command.env("BACKUP_SECRET_ID", id);
    });
    let lock = Lock::hold(&place.database, "orders");
    let answer = function.invoke(&json!({}));
    drop(lock);
    let told = failed(&answer, "DEADLINE");
    assert!(told.contains("container task"), "{told}");
    ended_in_good_order(&place, &function).await;
    // The lease is free: the same process makes the backup at once.
    succeeded(&function.invoke(&json!({})));
    assert_eq!(function.starts(), 1);
}

/// pg_dump as it is, but for its output: after 20 MB nothing more comes. The process that we start
/// is the one that stays, so ending it ends all of it.
fn programs_that_falter(folder: &Path) {
    let real = postgres_bin(15);
    let real = real.display();
    let program = |name: &str, script: String| {
        let path = folder.join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    program(
        "pg_dump",
        format!(
            "#!/bin/bash\n[ \"$1\" = --version ] && exec {real}/pg_dump \"$@\"\n\
             exec 3< <({real}/pg_dump \"$@\")\nhead -c 20000000 <&3\nexec sleep 600\n"
        ),
    );
    program("pg_dumpall", format!("#!/bin/sh\nexec {real}/pg_dumpall \"$@\"\n"));
}

/// A function whose upload has begun and does not go on, and the answer that it will give.
async fn stuck_in_its_upload(place: &Place, programs: &Path) -> (Arc<Function>, JoinHandle<String>) {
    place
        .database
        .sql("CREATE TABLE heavy AS SELECT repeat(md5(id::text), 3) FROM generate_series(1, 300000) AS id");
    let id = secret(&place.secret().to_string());
    programs_that_falter(programs);
    let function = Arc::new(Function::start(SHORT, |command| {
        place.configure(command);
        command
            .env("BACKUP_SECRET_ID", id)
            .env("BACKUP_COMPRESSION", "none")
            .env("BACKUP_S3_PART_SIZE", "5MiB")
            .env("BACKUP_LEASE_SECONDS", "6")
            .env("BACKUP_PG_BIN", programs);
    }));
    let running = tokio::task::spawn_blocking({
        let function = function.clone();
        move || function.deliver(&json!({}))
    });
    let begun = || async { !place.bucket.uploads().await.is_empty() };
    until("the upload has begun", begun).await;
    (function, running)
}

#[tokio::test]
async fn an_upload_in_progress_is_aborted_when_the_deadline_comes() {
    let place = Place::fresh().await;
    let programs = tempfile::tempdir().unwrap();
    let (function, running) = stuck_in_its_upload(&place, programs.path()).await;
    failed(&serde_json::from_str(&running.await.unwrap()).unwrap(), "DEADLINE");
    ended_in_good_order(&place, &function).await;
}

#[tokio::test]
async fn what_lambda_kills_at_its_timeout_the_next_event_clears() {
    let place = Place::fresh().await;
    let programs = tempfile::tempdir().unwrap();
    let (function, running) = stuck_in_its_upload(&place, programs.path()).await;
    // It cannot end in good order now: the platform ends it, by SIGKILL.
    function.freeze();
    let killed = running.await.unwrap();
    assert!(killed.contains("timed out"), "{killed}");
    assert_eq!(place.backups().await, [""; 0]);
    let dead = || async { function.children().is_empty() };
    until("pg_dump has died with it", dead).await;

    for name in ["pg_dump", "pg_dumpall"] {
        fs::remove_file(programs.path().join(name)).unwrap();
        std::os::unix::fs::symlink(postgres_bin(15).join(name), programs.path().join(name)).unwrap();
    }
    // The dead run's lease keeps others out until it expires.
    let answer = loop {
        let answer = function.invoke(&json!({}));
        if answer["errorType"] != "BUSY" {
            break answer;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    succeeded(&answer);
    assert_eq!(function.starts(), 2);
    assert_eq!(answer["leftovers"][0]["found"], "unfinished_upload", "{answer:#}");
    assert_eq!(place.bucket.uploads().await, [""; 0]);
    assert_eq!(function.temporary_files(), [""; 0]);
}

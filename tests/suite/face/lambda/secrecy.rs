//! A password full of odd characters reaches the database, and nothing else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::place::{Place, failed, succeeded};
use crate::support::function::Function;
use crate::support::moto::secret;
use crate::support::role::Role;
use crate::support::services::{postgres_bin, postgres_ca};

const ODD: &str = "p@ss:w/ö%rd'\"\\ {}";

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// All that tells the password, whole or in part, in any of the ways in which text is written.
fn assert_untold(place: &str, text: &str) {
    let json = serde_json::to_string(ODD).unwrap();
    for form in [
        ODD,
        json.trim_matches('"'),
        &encoded(ODD),
        "p@ss:",
        "p%40ss",
        "ö%rd",
        "%25rd",
        "\\u00f6%rd",
    ] {
        assert!(!text.contains(form), "{form} is in {place}: {text}");
    }
}

/// Programs that write down their arguments and their environment, and then do their work.
fn recording(folder: &Path) {
    for name in ["pg_dump", "pg_dumpall"] {
        let (real, record) = (postgres_bin(15).join(name), folder.join("record"));
        let script = format!(
            "#!/bin/sh\n{{ printf '%s\\n' \"$0\" \"$@\"; env; }} >>'{}'\nexec '{}' \"$@\"\n",
            record.display(),
            real.display()
        );
        fs::write(folder.join(name), script).unwrap();
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// A backup with these settings, and a search for the password in all that came of it. Gives the
/// arguments and environments of PostgreSQL's programs.
async fn succeeds_untold(place: &Place, configure: impl FnOnce(&mut Command)) -> String {
    let programs = tempfile::tempdir().unwrap();
    recording(programs.path());
    let function = place.function_with(|command| {
        command
            .env("BACKUP_PG_BIN", programs.path())
            .env("RUST_LOG", "pgstow=trace,debug");
        configure(command);
    });
    let answer = function.invoke(&json!({}));
    let id = succeeded(&answer);
    assert_eq!(answer["missing"], Value::Null, "{answer:#}");
    assert_untold("the answer", &answer.to_string());
    assert_untold("the message", &place.message().body);
    everything_else_is_untold(place, &function).await;
    assert_eq!(place.backups().await, [id]);
    let record = fs::read_to_string(programs.path().join("record")).unwrap();
    assert_untold("a child's arguments or environment", &record);
    record
}

async fn everything_else_is_untold(place: &Place, function: &Function) {
    assert!(!function.lines().is_empty());
    assert_untold("the log", &function.log());
    assert_eq!(function.temporary_files(), [""; 0]);
    for key in place.bucket.keys().await {
        let text = String::from_utf8_lossy(&place.bucket.get(&key).await).into_owned();
        assert_untold(&key, &text);
        let head = place.bucket.client.head_object().bucket(&place.bucket.name).key(&key);
        assert_untold(&key, &format!("{:?}", head.send().await.unwrap().metadata()));
        assert_untold(&key, &format!("{:?}", place.bucket.tags(&key).await));
    }
}

#[tokio::test]
async fn an_odd_password_in_rds_json_works_and_is_told_nowhere() {
    let place = Place::fresh().await;
    let role = Role::reader(&place.database, ODD);
    // As RDS makes it by itself: without the database's name.
    let mut json = place.secret_of(&role.name, ODD);
    json.as_object_mut().unwrap().remove("dbname");
    let id = secret(&json.to_string());
    let record = succeeds_untold(&place, |command| {
        command.env("BACKUP_SECRET_ID", id).env("DB_NAME", &place.database.name);
    })
    .await;
    assert!(record.contains("PGPASSFILE="), "{record}");
}

#[tokio::test]
async fn an_odd_password_in_a_urls_secret_works_with_the_urls_own_parameters() {
    let place = Place::fresh().await;
    // This role may read nothing itself: only the URL's `options` make it one that may.
    let reader = Role::reader(&place.database, "unused");
    let attributes = format!("NOINHERIT IN ROLE {}", reader.name);
    let login = Role::fresh(&place.database, ODD, &attributes);
    let url = place.database.url_as(Some((&login.name, ODD)));
    let verified = format!(
        "sslmode=verify-full&sslrootcert={}",
        encoded(postgres_ca().to_str().unwrap())
    );
    let options = encoded(&format!("-c role={}", reader.name));
    let id = secret(&format!("{url}?{verified}&options={options}"));
    let record = succeeds_untold(&place, |command| {
        command.env("BACKUP_SECRET_ID", id);
    })
    .await;
    assert!(record.contains("verify-full"), "{record}");
    let plain = secret(&format!("{url}?{verified}"));
    let function = place.function_with(|command| {
        command.env("BACKUP_SECRET_ID", plain);
    });
    failed(&function.invoke(&json!({})), "PERMISSION");
    drop(login);
}

#[tokio::test]
async fn an_odd_password_in_database_url_works_and_is_told_nowhere() {
    let place = Place::fresh().await;
    let role = Role::reader(&place.database, ODD);
    let url = place.database.url_as(Some((&role.name, ODD)));
    succeeds_untold(&place, |command| {
        command.env("DATABASE_URL", url);
    })
    .await;
}

#[tokio::test]
async fn no_failure_tells_the_password_either() {
    let place = Place::fresh().await;
    let role = Role::reader(&place.database, "another one");
    let refused = place.secret_of(&role.name, ODD);
    let (mut away, mut broken, mut nobody) = (refused.clone(), refused.clone(), refused.clone());
    away["host"] = json!("nowhere.invalid");
    broken["port"] = json!(ODD);
    nobody.as_object_mut().unwrap().remove("username");
    let cut = refused.to_string();
    for (text, code) in [
        (refused.to_string(), "AUTH"),
        (place.database.url_as(Some((&role.name, ODD))), "AUTH"),
        (away.to_string(), "CONN_ERR"),
        (broken.to_string(), "SECRET"),
        (nobody.to_string(), "SECRET"),
        (cut[..cut.len() - 1].to_owned(), "SECRET"),
        // Not encoded, as people paste it.
        (format!("postgres://{}:{ODD}@127.0.0.1/shop", role.name), "SECRET"),
        (ODD.to_owned(), "SECRET"),
    ] {
        let id = secret(&text);
        let function = place.function_with(|command| {
            command
                .env("BACKUP_SECRET_ID", id)
                .env("RUST_LOG", "pgstow=trace,debug");
        });
        let answer = function.invoke(&json!({}));
        assert_untold("the answer", &failed(&answer, code));
        assert_untold("the message", &place.message().body);
        everything_else_is_untold(&place, &function).await;
    }
    place.assert_nothing_is_left().await;
}

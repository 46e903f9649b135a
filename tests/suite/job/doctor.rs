//! `pgstow doctor` on real servers and stores: what is well, what is not, and that nothing stays.

use std::path::Path;
use std::process::Command;

use crate::support::bucket::Bucket;
use crate::support::database::Database;
use crate::support::fault_proxy::{Fault, FaultProxy, On, Op};
use crate::support::moto::{Topic, secret};
use crate::support::program::{Run, pgstow, run, succeed};
use crate::support::role::Role;
use crate::support::services::{cloud, postgres_bin, postgres_ca, s3, s3_reader};
use serde_json::{Value, json};
use tempfile::TempDir;

struct Checks {
    run: Run,
    checks: Vec<Value>,
}

impl Checks {
    fn state(&self, name: &str) -> &str {
        self.get(name)["state"].as_str().unwrap()
    }

    fn get(&self, name: &str) -> &Value {
        let found = self.checks.iter().find(|check| check["name"] == name);
        found.unwrap_or_else(|| panic!("no check `{name}` in {}", self.run.text()))
    }

    fn detail(&self, name: &str) -> &str {
        self.get(name)["detail"].as_str().unwrap()
    }

    fn hint(&self, name: &str) -> &str {
        self.get(name)["hint"].as_str().unwrap()
    }

    fn exit(&self) -> i32 {
        self.run.status.code().unwrap()
    }

    /// Names of checks in this state.
    fn that_are(&self, state: &str) -> Vec<&str> {
        let checks = self.checks.iter().filter(|check| check["state"] == state);
        checks.map(|check| check["name"].as_str().unwrap()).collect()
    }
}

fn examined(command: &mut Command) -> Checks {
    let run = run(command.args(["doctor", "--json"]));
    let report = run.json();
    let failed = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .any(|check| check["state"] == "failed");
    assert_eq!(report["status"], if failed { "failed" } else { "ok" });
    assert_eq!(run.status.success(), !failed, "{}", run.stderr);
    Checks {
        checks: report["checks"].as_array().unwrap().clone(),
        run,
    }
}

/// In a folder of its own, with the database and a store there.
fn at(folder: &Path, database: &Database) -> Command {
    let mut command = pgstow();
    command
        .current_dir(folder)
        .env("DATABASE_URL", database.url())
        .env("BACKUP_STORE", "./store");
    command
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn all_is_well_with_a_folder_and_nothing_stays_in_it(major: u32) {
    let (database, folder) = (Database::fresh(major), folder());
    database.sql("CREATE TABLE t AS SELECT g FROM generate_series(1, 1000) g");
    std::fs::create_dir(folder.path().join("store")).unwrap();
    let checks = examined(&mut at(folder.path(), &database));
    assert_eq!(checks.exit(), 0);
    assert!(checks.that_are("warning").is_empty(), "{}", checks.run.text());
    for name in [
        "settings",
        "temp",
        "tcp",
        "login",
        "tls",
        "server",
        "wal",
        "clock",
        "privileges",
        "size",
        "snapshot",
        "pg_dump",
        "pg_restore",
        "drill",
        "reach",
        "write",
        "read",
        "remove",
        "disk",
    ] {
        assert_eq!(checks.state(name), "ok", "{name}: {}", checks.run.text());
    }
    assert!(checks.detail("pg_dump").starts_with(&major.to_string()));
    assert!(files(&folder.path().join("store")).is_empty());
}

on_majors! { all_is_well_with_a_folder_and_nothing_stays_in_it: 15 18 }

#[test]
fn a_setting_that_is_wrong_is_shown_and_stops_the_commands_that_use_it_alone() {
    let (database, folder) = (Database::fresh(17), folder());
    let wrong = |args: &[&str]| {
        let mut command = at(folder.path(), &database);
        command
            .args(args)
            .env("LOG_FORMAT", "xml")
            .env("BACKUP_SIGN_KEY", "arn:odd");
        command
    };
    let refused = run(&mut wrong(&["backup", "--json"]));
    assert_eq!(refused.status.code(), Some(2), "{}", refused.text());
    let message = refused.json()["error"]["message"].to_string();
    assert!(message.contains("BACKUP_SIGN_KEY"), "{message}");
    succeed(at(folder.path(), &database).arg("backup"));
    for args in [
        &["list", "--json"][..],
        &["status", "--json"],
        &["prune", "--dry-run", "--json"],
        &["download", "latest", "--json"],
    ] {
        let done = run(&mut wrong(args));
        assert!(done.json()["error"].is_null(), "{args:?}: {}", done.text());
        for variable in ["LOG_FORMAT", "BACKUP_SIGN_KEY"] {
            assert_eq!(done.stderr.matches(variable).count(), 1, "{args:?}: {}", done.stderr);
        }
    }
    let checks = examined(&mut wrong(&[])).checks;
    for variable in ["LOG_FORMAT", "BACKUP_SIGN_KEY"] {
        let shown = checks.iter().filter(|check| {
            check["name"] == "settings" && check["detail"].as_str().is_some_and(|detail| detail.contains(variable))
        });
        assert!(shown.map(|check| &check["state"]).eq(["failed"]), "{checks:?}");
    }
    assert!(
        checks
            .iter()
            .any(|check| check["name"] == "login" && check["state"] == "ok")
    );
}

#[test]
fn a_person_gets_signs_lines_and_hints_and_the_old_name_of_the_command_works() {
    let (database, folder) = (Database::fresh(17), folder());
    std::fs::create_dir(folder.path().join("store")).unwrap();
    let told = succeed(at(folder.path(), &database).arg("test")).text();
    assert!(told.starts_with("✓ settings       understood\n"), "{told}");
    let file = "BACKUP_STOER=s\nAWS_PROFILE=corp\n";
    std::fs::write(folder.path().join("named.env"), file).unwrap();
    let named = succeed(at(folder.path(), &database).args(["doctor", "--env-file", "named.env"])).text();
    assert_eq!(named.matches("not settings of pgstow").count(), 1, "{named}");
    assert_eq!(
        named.matches("AWS_PROFILE from named.env was ignored").count(),
        1,
        "{named}"
    );
    assert!(
        told.contains("\nstore ") && told.contains("\n✓ write          ") && told.ends_with("\nall is well\n"),
        "{told}"
    );
    let told = run(at(folder.path(), &database)
        .env("DATABASE_URL", "postgres://u@127.0.0.1:1/d")
        .arg("doctor"));
    assert_eq!(told.status.code(), Some(10));
    assert!(
        told.text()
            .contains("✗ tcp            CONN_ERR: 127.0.0.1:1: Connection refused"),
        "{}",
        told.text()
    );
    assert!(told.text().contains("→ check that the server runs"), "{}", told.text());
}

#[test]
fn the_step_on_the_way_that_fails_is_named_and_the_store_is_tried_all_the_same() {
    let (database, folder) = (Database::fresh(17), folder());
    std::fs::create_dir(folder.path().join("store")).unwrap();
    for (url, name, exit) in [
        (database.url_as(Some(("postgres", "hunter2"))), "login", 11),
        (database.url().replace("127.0.0.1", "no-such-host.invalid"), "dns", 10),
        (
            format!("{}?sslmode=verify-full&sslrootcert=/nowhere", database.url()),
            "login",
            2,
        ),
        (
            format!("{}?sslmode=verify-full&sslrootcert=system", database.url()),
            "login",
            10,
        ),
        (format!("{}x", database.url()), "login", 10),
    ] {
        let checks = examined(at(folder.path(), &database).env("DATABASE_URL", &url));
        assert_eq!(
            (checks.that_are("failed"), checks.exit()),
            (vec![name], exit),
            "{}",
            checks.run.text()
        );
        assert_eq!(checks.state("privileges"), "skipped");
        assert_eq!(checks.state("write"), "ok");
        assert!(!checks.run.text().contains("hunter2"));
    }
    let url = format!(
        "{}?sslmode=verify-full&sslrootcert={}",
        database.url().replace("127.0.0.1", "localhost"),
        postgres_ca().display()
    );
    let checks = examined(at(folder.path(), &database).env("DATABASE_URL", url));
    assert!(
        checks.detail("dns").starts_with("localhost is "),
        "{}",
        checks.detail("dns")
    );
    assert!(
        checks.detail("tls").starts_with("TLSv1.3") && checks.detail("tls").ends_with("certificate and name verified"),
        "{}",
        checks.detail("tls")
    );
    let checks = examined(at(folder.path(), &database).env_remove("DATABASE_URL"));
    assert_eq!((checks.that_are("failed"), checks.exit()), (vec!["source"], 2));
}

#[test]
fn every_table_that_cannot_be_read_is_named() {
    let (database, folder) = (Database::fresh(17), folder());
    std::fs::create_dir(folder.path().join("store")).unwrap();
    let role = Role::fresh(&database, "pw", "");
    let many: String = (0..12)
        .map(|n| format!("CREATE TABLE closed_{n:02} (a int);"))
        .collect();
    database.sql(&format!(
        "{many} CREATE TABLE open (a int); GRANT SELECT ON open TO \"{}\"; CREATE TABLE filtered (a int);
         ALTER TABLE filtered ENABLE ROW LEVEL SECURITY; GRANT SELECT ON filtered TO \"{}\";
         CREATE SEQUENCE unseen; SELECT lo_create(77)",
        role.name, role.name
    ));
    let url = database.url_as(Some((&role.name, "pw")));
    let checks = examined(at(folder.path(), &database).env("DATABASE_URL", url));
    assert_eq!((checks.that_are("failed"), checks.exit()), (vec!["privileges"], 13));
    let objects = checks.get("privileges")["objects"].as_array().unwrap();
    assert_eq!(objects.len(), 15, "{objects:?}");
    assert!(objects.contains(&json!("table public.closed_11")) && objects.contains(&json!("large object 77")));
    assert!(objects.contains(&json!("row-level security of public.filtered")));
    // Once is enough.
    assert!(objects.contains(&json!("sequence public.unseen")), "{objects:?}");
    let left_out = &checks.get("left_out")["objects"];
    assert!(!left_out.to_string().contains("unseen"), "{left_out}");
    assert!(
        checks.hint("privileges").contains("GRANT SELECT"),
        "{}",
        checks.hint("privileges")
    );
}

#[test]
fn programs_that_will_not_do_are_named_with_what_was_found() {
    let (database, folder) = (Database::fresh(17), folder());
    std::fs::create_dir(folder.path().join("store")).unwrap();
    let checks = examined(at(folder.path(), &database).env("BACKUP_PG_BIN", postgres_bin(15)));
    assert_eq!((checks.that_are("failed"), checks.exit()), (vec!["pg_dump"], 21));
    assert!(
        checks.detail("pg_dump").contains("found: 15."),
        "{}",
        checks.detail("pg_dump")
    );
    assert_eq!(checks.state("pg_restore"), "warning");
    assert_eq!(checks.state("drill"), "skipped");

    let older = Database::fresh(15);
    let checks = examined(at(folder.path(), &older).env("BACKUP_PG_BIN", postgres_bin(17)));
    assert_eq!(checks.exit(), 0);
    assert!(
        checks.detail("pg_dump").contains("newer than the server"),
        "{}",
        checks.detail("pg_dump")
    );

    let checks = examined(
        at(folder.path(), &older)
            .env("BACKUP_PG_BIN", postgres_bin(15))
            .env("BACKUP_COMPRESSION", "zstd:3"),
    );
    assert_eq!((checks.that_are("failed"), checks.exit()), (vec!["pg_dump"], 2));
}

#[test]
fn a_folder_that_is_not_there_is_said_and_not_left_behind() {
    let (database, folder) = (Database::fresh(17), folder());
    let checks = examined(at(folder.path(), &database).env("BACKUP_STORE", "./sotre"));
    assert_eq!(
        (checks.that_are("warning"), checks.exit()),
        (vec!["reach"], 0),
        "{}",
        checks.run.text()
    );
    assert_eq!(checks.detail("reach"), "the folder does not exist yet");
    assert_eq!((checks.state("write"), checks.state("remove")), ("ok", "ok"));
    assert!(files(folder.path()).is_empty(), "{:?}", files(folder.path()));
}

#[test]
fn a_folder_that_cannot_be_written_is_a_failure_of_the_store_alone() {
    let (database, folder) = (Database::fresh(17), folder());
    std::fs::write(folder.path().join("store"), "a file").unwrap();
    let checks = examined(&mut at(folder.path(), &database));
    assert_eq!(checks.that_are("failed").len(), 1, "{}", checks.run.text());
    assert!((30..40).contains(&checks.exit()), "{}", checks.run.text());
    assert_eq!(checks.state("login"), "ok");
    if rustix::process::geteuid().is_root() {
        // Root may write everywhere but in /proc.
        let checks = examined(at(folder.path(), &database).env("BACKUP_STORE", "/proc/self"));
        assert_eq!((checks.that_are("failed"), checks.exit()), (vec!["reach"], 32));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_tried_to_its_rules_and_the_topic_gets_no_message() {
    let (database, folder) = (Database::fresh(17), folder());
    let (bucket, topic) = (Bucket::fresh().await, Topic::fresh());
    let id = secret(&database.url());
    let command = |words: &[&str]| {
        let mut command = pgstow();
        cloud(command.current_dir(folder.path()))
            .env("BACKUP_SECRET_ID", &id)
            .env("BACKUP_STORE", bucket.url("here"))
            .env("BACKUP_SNS_TOPIC_ARN", &topic.arn)
            .args(words);
        command
    };
    let checks = examined(&mut command(&[]));
    assert_eq!(checks.exit(), 0, "{}", checks.run.text());
    for name in [
        "secret",
        "login",
        "reach",
        "write",
        "read",
        "checksums",
        "tags",
        "notifications",
    ] {
        assert_eq!(checks.state(name), "ok", "{name}: {}", checks.run.text());
    }
    assert!(
        checks.detail("checksums").contains("SHA256"),
        "{}",
        checks.detail("checksums")
    );
    assert!(!checks.run.text().contains(&database.password()));
    // The test's key may do everything.
    assert_eq!(checks.state("delete"), "warning");
    assert!(bucket.keys().await.is_empty());
    let apply = format!("pgstow retention apply --store {} --retention 30d", bucket.url("here"));
    assert_eq!(
        (checks.state("lifecycle"), checks.hint("lifecycle")),
        ("warning", apply.as_str())
    );
    succeed(&mut command(&["retention", "apply"]));
    let checks = examined(&mut command(&[]));
    assert_eq!(checks.state("lifecycle"), "ok", "{}", checks.run.text());
    assert!(topic.messages().is_empty());

    let gone = topic.arn.clone() + "x";
    let checks = examined(command(&[]).env("BACKUP_SNS_TOPIC_ARN", gone));
    assert_eq!((checks.that_are("failed"), checks.exit()), (vec!["notifications"], 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_is_refused_is_good_and_the_probe_that_stays_expires() {
    let (database, folder, bucket) = (Database::fresh(17), folder(), Bucket::fresh().await);
    let proxy = FaultProxy::start(&s3().endpoint).await;
    proxy.fault(On::op(Op::Other).target("DeleteObject"), Fault::Reject(403));
    let command = || {
        let mut command = at(folder.path(), &database);
        cloud(&mut command)
            .env("AWS_ENDPOINT_URL_S3", proxy.url())
            .env("BACKUP_STORE", bucket.url("x"));
        command
    };
    // The second one finds the first one's probe.
    for _ in 0..2 {
        let checks = examined(&mut command());
        assert_eq!(
            (checks.exit(), checks.state("delete")),
            (0, "ok"),
            "{}",
            checks.run.text()
        );
        assert!(checks.detail("delete").starts_with("refused, as it should be"));
        assert_eq!(bucket.keys().await, ["x/.pgstow-doctor"]);
        assert_eq!(bucket.tags("x/.pgstow-doctor").await["pgstow-tier"], "pending");
    }
    proxy.fault(On::op(Op::PutObject), Fault::NoChecksum);
    let checks = examined(&mut command());
    assert_eq!((checks.that_are("failed"), checks.exit()), (vec!["write"], 30));
    assert!(
        checks.detail("write").contains("it reports no checksum"),
        "{}",
        checks.detail("write")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_missing_or_closed_and_a_secret_that_is_missing_are_told_apart() {
    let (database, folder) = (Database::fresh(17), folder());
    let bucket = Bucket::fresh().await;
    let mut command = at(folder.path(), &database);
    let checks = examined(cloud(&mut command).env("BACKUP_STORE", "s3://no-such-bucket-of-ours/x"));
    assert_eq!((checks.that_are("failed"), checks.exit()), (vec!["reach"], 30));
    assert!(
        checks.detail("reach").contains("NoSuchBucket"),
        "{}",
        checks.detail("reach")
    );

    let mut command = at(folder.path(), &database);
    let checks = examined(
        cloud(&mut command)
            .envs(s3_reader().environment())
            .env("BACKUP_STORE", bucket.url("x")),
    );
    assert_eq!((checks.that_are("failed"), checks.exit()), (vec!["write"], 30));
    assert_eq!(checks.state("reach"), "ok");

    let mut command = at(folder.path(), &database);
    std::fs::create_dir(folder.path().join("store")).unwrap();
    cloud(&mut command)
        .env_remove("DATABASE_URL")
        .env("BACKUP_SECRET_ID", "no-such-secret");
    let checks = examined(&mut command);
    assert_eq!((checks.that_are("failed"), checks.exit()), (vec!["secret"], 12));
    assert_eq!(checks.state("write"), "ok");
}

//! `pgstow list`.

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::bucket::Bucket;
use crate::support::database::Database;
use crate::support::disk::Disk;
use crate::support::planted::{Folder, files, id};
use crate::support::program::{pgstow, run, succeed};
use crate::support::services::s3;

fn ids(report: &Value) -> Vec<&str> {
    let backups = report["backups"].as_array().unwrap();
    backups.iter().map(|backup| backup["id"].as_str().unwrap()).collect()
}

#[test]
fn a_real_backup_stands_in_the_table_and_in_the_document() {
    let (folder, database) = (Folder::new(), Database::fresh(15));
    database.sql("CREATE TABLE orders AS SELECT n FROM generate_series(1, 77) n; CREATE TABLE empty ()");
    let made = succeed(
        folder
            .command(&["backup", "--json"])
            .env("DATABASE_URL", database.url()),
    )
    .json();
    let id = made["id"].as_str().unwrap();

    let (report, code) = folder.json(&["list"]);
    assert_eq!(
        (code, &report["status"], &report["problems"]),
        (0, &json!("ok"), &json!([]))
    );
    assert_eq!(ids(&report), [id]);
    let backup = &report["backups"][0];
    assert_eq!((&backup["tables"], &backup["rows"]), (&json!(2), &json!(77)));
    assert_eq!(backup["tier"], made["tier"]);
    assert_eq!((&backup["complete"], &backup["verified"]), (&json!(true), &Value::Null));
    assert!(backup["bytes"].as_u64().unwrap() >= made["bytes_stored"].as_u64().unwrap());
    assert!(backup["age_seconds"].as_i64().unwrap() < 60);

    // No database is needed, nor a setting beside the store.
    let table = folder.run(&["list"]).text();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2, "{table}");
    assert!(
        lines[0].starts_with("BACKUP ") && lines[1].starts_with(&format!("{id}  ")),
        "{table}"
    );
}

#[test]
fn five_thousand_backups_in_a_folder_are_listed_newest_first() {
    let folder = Folder::new();
    for day in 0..5_000 {
        folder.plant("shop", 24 * day, "daily");
    }
    let started = Instant::now();
    let (report, code) = folder.json(&["list"]);
    println!("listed in {:?}", started.elapsed());
    assert_eq!((code, &report["problems"]), (0, &json!([])));
    let ids = ids(&report);
    assert_eq!(ids.len(), 5_000);
    assert!(ids.is_sorted_by(|newer, older| newer > older));
}

#[test]
fn what_is_broken_foreign_or_newer_is_said_in_its_place_and_the_rest_is_listed() {
    let folder = Folder::new();
    let good = folder.plant("shop", 1, "daily");
    let half = folder.plant("shop", 25, "daily");
    folder.write(&format!("{half}/manifest.json"), "{\"schema\": 1, \"id\": ");
    let newer = folder.plant("shop", 49, "daily");
    folder.write(&format!("{newer}/manifest.json"), "{\"schema\": 7, \"soul\": true}");
    let copied = folder.plant("shop", 73, "daily");
    let (_, manifest) = files(&good, "daily").pop().unwrap();
    folder.write(&format!("{copied}/manifest.json"), manifest);
    let lacking = folder.plant("shop", 97, "daily");
    std::fs::remove_file(folder.path().join(format!("{lacking}/shop.toc"))).unwrap();
    let judged = folder.plant("shop", 121, "monthly");
    folder.judge(&judged, Some("ok"), Some("failed"));
    folder.write(&format!("{}/shop.dump", id("shop", 145)), "a run's left-over");
    folder.write("shop/notes.txt", "mine");
    folder.write("shop/.lease", "{}");

    let (report, code) = folder.json(&["list"]);
    assert_eq!(code, 0);
    assert_eq!(ids(&report), [&*good, &*lacking, &*judged]);
    assert_eq!(report["backups"][1]["lacks"], json!(["shop.toc"]));
    assert_eq!(report["backups"][2]["verified"]["status"], "ok");
    assert_eq!(report["backups"][2]["drilled"]["status"], "failed");
    let problems = report["problems"].as_array().unwrap();
    let of: Vec<&str> = problems.iter().map(|one| one["backup"].as_str().unwrap()).collect();
    assert_eq!(of, [&*half, &*newer, &*copied, &*lacking]);

    let table = folder.run(&["list"]).text();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 8, "{table}");
    for (line, what) in lines.iter().zip([
        "BACKUP",
        &good,
        "is not JSON",
        "schema 7",
        "copied or moved",
        &lacking,
        "lacks shop.toc",
        "FAILED",
    ]) {
        assert!(line.contains(what), "{what} is not in {line}");
    }
}

#[test]
fn one_database_is_listed_and_not_those_whose_names_begin_like_it() {
    let folder = Folder::new();
    let app = folder.plant("app", 5, "daily");
    let prod = folder.plant("app_prod", 3, "daily");
    assert_eq!(ids(&folder.json(&["list"]).0), [&*prod, &*app]);
    assert_eq!(ids(&folder.json(&["list", "--database", "app"]).0), [&*app]);
    let (report, code) = folder.json(&["list", "--database", "ap"]);
    assert_eq!((&report["error"]["code"], code), (&json!("NOT_FOUND"), 42));
    let message = report["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("there is no backup of ap in "), "{report}");
    for command in [
        &["list"][..],
        &["verify", "latest"],
        &["verify", "--all"],
        &["download", "latest"],
        &["restore", "latest", "--target", "postgres://u@127.0.0.1:1/x"],
    ] {
        let (report, code) = folder.json(&[command, &["--database", "app_prd"]].concat());
        assert_eq!(
            (&report["error"]["code"], code),
            (&json!("NOT_FOUND"), 42),
            "{command:?}"
        );
        let hint = report["error"]["hint"].as_str().unwrap();
        assert!(hint.contains("has backups of: app_prod, app; "), "{report}");
    }
    let (report, _) = folder.json(&["status", "--database", "app_prd"]);
    let problem = report["problems"][0].as_str().unwrap();
    assert!(problem.contains("has backups of app, app_prod"), "{problem}");
}

#[test]
fn nothing_where_something_was_asked_for_is_an_error() {
    let folder = Folder::new();
    folder.write("notes.txt", "mine");
    let commands = [&["list"][..], &["verify", "--all"], &["verify", "--all", "--drill"]];
    for command in commands {
        let (report, code) = folder.json(command);
        assert_eq!(
            (&report["error"]["code"], code),
            (&json!("NOT_FOUND"), 42),
            "{command:?}"
        );
    }
    for command in [&["verify", "--all"][..], &["list"], &["prune"]] {
        let (report, code) = folder.json(&[command, &["--database", "shop"]].concat());
        assert_eq!((&report["error"]["code"], code), (&json!("NOT_FOUND"), 42), "{report}");
    }
    // Without a name nothing is missing.
    assert_eq!(folder.json(&["prune"]).1, 0);
    std::fs::remove_dir_all(folder.path()).unwrap();
    let never = id("shop", 1);
    let target = ["--target", "postgres://u@127.0.0.1:1/x"];
    let others = [
        &["prune"][..],
        &["verify", "latest"],
        &["verify", &never, "--drill"],
        &["verify", "no id"],
        &["download", "latest", "--database", "shop"],
        &["download", &never],
        &["restore", "latest", target[0], target[1]],
        &["restore", &never, target[0], target[1], "--dry-run"],
    ];
    for command in commands.into_iter().chain(others) {
        let (report, code) = folder.json(command);
        assert_eq!(
            (&report["error"]["code"], code),
            (&json!("ENOENT"), 33),
            "{command:?} {report}"
        );
        assert!(report.to_string().contains("does not exist"), "{report}");
    }
    let (report, code) = folder.json(&["status"]);
    assert_eq!(code, 1);
    assert!(report["problems"].to_string().contains("does not exist"), "{report}");
}

#[test]
fn a_primary_out_of_reach_is_warned_of_and_the_next_store_answers() {
    let folder = Folder::new();
    let id = folder.plant("shop", 1, "daily");
    let away = folder.path().join("no/such/place");
    let list = || {
        let mut command = pgstow();
        command.current_dir(folder.path()).args(["list", "--store"]).arg(&away);
        command
    };
    let both = run(list().arg("--store").arg(folder.path()).arg("--json"));
    assert_eq!(ids(&both.json()), [&*id]);
    assert!(
        both.json()["problems"][0]["problem"]
            .as_str()
            .unwrap()
            .contains("no/such/place")
    );
    let table = run(list().arg("--store").arg(folder.path())).text();
    assert!(table.starts_with("warning: ") && table.contains(&id), "{table}");

    let alone = run(list().arg("--json"));
    assert_eq!(alone.status.code(), Some(33));
    assert_eq!(alone.json()["error"]["code"], "ENOENT");
}

#[test]
fn a_store_that_may_only_be_read_is_listed() {
    let (folder, disk) = (Folder::new(), Disk::mount("size=1m"));
    let id = id("shop", 1);
    for (key, body) in files(&id, "daily") {
        let path = disk.path().join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, body).unwrap();
    }
    disk.remount("ro");
    let mut command = pgstow();
    command.current_dir(folder.path().parent().unwrap());
    let run = run(command.args(["list", "--json", "--store"]).arg(disk.path()));
    assert_eq!(ids(&run.json()), [&*id]);
}

#[tokio::test]
async fn a_bucket_is_listed_as_a_folder_is() {
    let bucket = Bucket::fresh().await;
    let (new, old) = (id("shop", 1), id("shop", 30));
    for (key, body) in [files(&new, "daily"), files(&old, "monthly")].concat() {
        bucket.put(&format!("pg/{key}"), &body).await;
    }
    bucket.put(&format!("pg/{old}/manifest.json"), b"[]").await;
    let place = tempfile::tempdir().unwrap();
    let mut command = pgstow();
    command.current_dir(place.path()).envs(s3().environment());
    let report = succeed(command.args(["list", "--json", "--store"]).arg(bucket.url("pg"))).json();
    assert_eq!(ids(&report), [&*new]);
    assert_eq!(report["backups"][0]["rows"], 1234);
    assert_eq!(report["backups"][0]["duration_seconds"], 42.0);
    assert_eq!(report["problems"][0]["backup"], old);
}

#[test]
fn a_chain_of_a_thousand_increments_is_one_line_and_takes_seconds() {
    let folder = Folder::new();
    let chain = folder.plant_chain("shop", 5, 1_000);
    let base = folder.plant_base("shop", 4_002, "daily");
    let started = Instant::now();
    let (report, code) = folder.json(&["list"]);
    println!("listed in {:?}", started.elapsed());
    assert_eq!((code, &report["problems"]), (0, &json!([])));
    assert_eq!(ids(&report).len(), 1_001);
    let [one] = &report["chains"].as_array().unwrap()[..] else {
        panic!("{:#}", report["chains"])
    };
    assert_eq!((&one["increments"], &one["first"]), (&json!(1_000), &json!(chain[0])));
    assert!(one["window"]["latest"]["time"].as_str() > one["window"]["earliest"]["time"].as_str());

    let table = folder.run(&["list"]).text();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    assert!(
        lines[1].starts_with(&format!("{} to ", chain[0])) && lines[1].contains("1000 increments"),
        "{table}"
    );
    assert!(lines[2].contains("any moment from "), "{table}");
    assert!(lines[3].starts_with(&base), "{table}");

    let started = Instant::now();
    let (report, code) = folder.json(&["status"]);
    println!("status in {:?}", started.elapsed());
    assert_eq!(code, 1, "{report:#}");
    let increments = &report["databases"][0]["increments"];
    assert_eq!(increments["count"], 1_000);
    assert!(increments["rpo_seconds"].as_i64().unwrap() < 120, "{increments:#}");
}

#[test]
fn a_missing_increment_makes_two_lines_of_a_chain_and_no_moment_behind_it_is_promised() {
    let folder = Folder::new();
    let chain = folder.plant_chain("shop", 10, 6);
    let base = folder.plant_base("shop", 55, "daily");
    std::fs::remove_dir_all(folder.path().join(&chain[2])).unwrap();
    let (report, _) = folder.json(&["list"]);
    let chains = report["chains"].as_array().unwrap();
    assert_eq!(chains.len(), 2, "{report:#}");
    assert_eq!(
        (&chains[0]["last"], &chains[1]["first"]),
        (&json!(chain[1]), &json!(chain[3]))
    );
    assert!(
        chains[0]["window"].is_object() && chains[1]["window"].is_null(),
        "{report:#}"
    );
    let table = folder.run(&["list"]).text();
    assert!(
        table.contains(&format!("after a gap between {} and {}", chain[1], chain[3])),
        "{table}"
    );
    assert!(table.contains("no moment of it can be restored"), "{table}");
    let (report, code) = folder.json(&["status"]);
    let told = report["problems"].to_string();
    assert_eq!(code, 1);
    assert!(
        told.contains("no moment of the newest increments") && told.contains(&base),
        "{told}"
    );
    assert!(told.contains("no moment can be restored between"), "{told}");
}

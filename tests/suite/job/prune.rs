//! `pgstow prune`.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pgstow::command::PruneRequest;
use pgstow::error::Result;
use pgstow::job::prune::{self, PruneReport};
use pgstow::repository::catalog;
use pgstow::repository::signature::Trust;
use pgstow::run::stop::Stop;
use pgstow::settings::{Policy, Retention};
use pgstow::store::Store;
use pgstow::store::local::Local;
use serde_json::{Value, json};

use crate::semantics::crashing::{Crashing, Fate, Script};
use crate::support::bucket::Bucket;
use crate::support::database::Database;
use crate::support::planted::{Folder, files, id};
use crate::support::program::{pgstow, run, succeed};
use crate::support::services::{s3, s3_reader};
use crate::support::wreck::Site;

fn verdicts(report: &Value) -> Vec<(&str, &str)> {
    let backups = report["stores"][0]["backups"].as_array().unwrap();
    backups
        .iter()
        .map(|backup| (backup["id"].as_str().unwrap(), backup["action"].as_str().unwrap()))
        .collect()
}

#[test]
fn what_is_past_its_time_goes_and_the_rest_stays_as_it_was() {
    let folder = Folder::new();
    let new = folder.plant("shop", 24, "daily");
    let daily = folder.plant("shop", 8 * 24, "daily");
    let monthly = folder.plant("shop", 40 * 24, "monthly");
    let old_monthly = folder.plant("shop", 70 * 24, "monthly");
    // The last good backup of a database that has no schedule any more, and two backups that lack a file.
    let last = folder.plant("shop_old", 900 * 24, "daily");
    let lacking = folder.plant("shop_old", 800 * 24, "daily");
    let newest_lacking = folder.plant("shop_old", 790 * 24, "daily");
    for lacking in [&lacking, &newest_lacking] {
        std::fs::remove_file(folder.path().join(format!("{lacking}/shop_old.toc"))).unwrap();
    }
    let broken = folder.plant("shop", 700 * 24, "daily");
    folder.write(&format!("{broken}/manifest.json"), "{");
    folder.judge(&daily, Some("ok"), None);
    folder.write("shop/notes.txt", "mine");
    let before = folder.keys();

    let policy = ["--retention", "daily=7,monthly=2"];
    let (report, code) = folder.json(&[&["prune", "--dry-run"][..], &policy].concat());
    assert_eq!(
        (code, &report["status"], &report["dry_run"]),
        (0, &json!("ok"), &json!(true))
    );
    assert_eq!(folder.keys(), before);
    let planned = [
        (&*new, "keep"),
        (&*daily, "remove"),
        (&*monthly, "keep"),
        (&*old_monthly, "remove"),
        (&*broken, "keep"),
        (&*newest_lacking, "keep"),
        (&*lacking, "remove"),
        (&*last, "keep"),
    ];
    assert_eq!(verdicts(&report), planned);
    assert_eq!(report["stores"][0]["backups"][1]["reason"], "daily, older than 7 days");

    let (report, code) = folder.json(&[&["prune"][..], &policy].concat());
    assert_eq!((code, &report["removed"]), (0, &json!(3)));
    assert_eq!(verdicts(&report), planned);
    let gone = [&daily, &old_monthly, &lacking];
    let stays = |key: &&String| !gone.iter().any(|id| key.starts_with(&format!("{id}/")));
    let expected: Vec<String> = before.iter().filter(stays).cloned().collect();
    assert_eq!(folder.keys(), expected);
    assert!(gone.iter().all(|id| !folder.exists(id)));

    let (report, _) = folder.json(&[&["cleanup"][..], &policy].concat());
    assert_eq!(report["removed"], 0);
}

#[test]
fn files_of_others_stay_and_their_folder_with_them() {
    let folder = Folder::new();
    folder.plant("shop", 1, "daily");
    let old = folder.plant("shop", 900, "daily");
    folder.write(&format!("{old}/notes.txt"), "mine");
    folder.write(&format!("{old}/deeper/shop.dump"), "mine too");
    folder.write(&format!("{old}/.shop.dump.x7Kq01ab.pgstow-tmp"), "half");
    folder.write(&format!("{old}/MD5SUMS"), "ours");
    let shown = folder.run(&["prune", "--retention", "7d"]);
    assert!(
        shown.status.success() && shown.text().contains("files that pgstow did not write: notes.txt"),
        "{}",
        shown.text()
    );
    let left: Vec<String> = folder.keys().into_iter().filter(|key| key.starts_with(&old)).collect();
    assert_eq!(left, [format!("{old}/deeper/shop.dump"), format!("{old}/notes.txt")]);

    // The rest is no left-over: prune does not report it again, and the next run does not take it.
    let (report, _) = folder.json(&["prune", "--retention", "7d"]);
    assert_eq!(report["stores"][0]["backups"].as_array().unwrap().len(), 1);
    assert_eq!(folder.json(&["status"]).1, 0);
}

#[test]
fn verified_backups_are_kept_beside_the_newest_where_they_alone_count() {
    let folder = Folder::new();
    let newest = folder.plant("shop", 900, "daily");
    let damaged = folder.plant("shop", 1000, "daily");
    folder.judge(&damaged, Some("ok"), Some("failed"));
    let verified = folder.plant("shop", 1100, "daily");
    folder.judge(&verified, Some("ok"), None);
    let other = folder.plant("shop", 1200, "daily");
    folder.judge(&other, Some("ok"), None);
    let plan = |args: &[&str]| {
        let args = [&["prune", "--dry-run", "--retention", "7d"], args].concat();
        let (report, _) = folder.json(&args);
        let kept = verdicts(&report).into_iter().filter(|(_, action)| *action == "keep");
        kept.map(|(id, _)| id.to_owned()).collect::<Vec<String>>()
    };
    assert_eq!(plan(&[]), [&*newest]);
    // A backup that was found damaged keeps its place in the plan.
    assert_eq!(plan(&["--verified-only"]), [&*newest, &*damaged, &*verified]);
    assert_eq!(plan(&["--keep-last", "2"]), [&*newest, &*damaged, &*verified]);
}

#[test]
fn a_left_over_goes_after_two_days_and_not_while_a_run_is_at_work() {
    let folder = Folder::new();
    folder.plant("shop", 1, "daily");
    let (young, old) = (id("shop", 40), id("shop", 50));
    for id in [&young, &old] {
        folder.write(&format!("{id}/shop.dump"), "x");
        folder.write(&format!("{id}/.shop.toc.x7Kq01ab.pgstow-tmp"), "x");
    }
    let lease = |until: &str| {
        let holder = json!({"host": "vm", "pid": 1});
        let times = json!({
            "holder": holder, "run": "r", "acquired_at": "2025-01-01T00:00:00Z", "expires_at": until
        });
        folder.write("shop/.lease", times.to_string());
    };
    lease("2095-01-01T00:00:00Z");
    folder.run(&["prune"]);
    assert!(folder.exists(&young) && folder.exists(&old));
    lease("2025-01-01T00:00:00Z");
    let (report, _) = folder.json(&["prune"]);
    assert_eq!(report["removed"], 1);
    assert!(folder.exists(&format!("{young}/.shop.toc.x7Kq01ab.pgstow-tmp")) && !folder.exists(&old));
}

#[test]
fn real_backups_are_pruned_and_the_last_one_is_listed_after() {
    let (folder, database) = (Folder::new(), Database::fresh(16));
    let backup = || {
        succeed(
            folder
                .command(&["backup", "--json"])
                .env("DATABASE_URL", database.url()),
        )
        .json()
    };
    let (_, second) = (backup(), backup());
    // As if the first were a year old: the whole folder moved, and its manifest with it.
    let first = folder
        .keys()
        .into_iter()
        .find(|key| key.ends_with("/manifest.json"))
        .unwrap();
    let first = first.strip_suffix("/manifest.json").unwrap().to_owned();
    let aged = format!("{}/20240101T000000Z-full", database.name);
    std::fs::rename(folder.path().join(&first), folder.path().join(&aged)).unwrap();
    let manifest = folder.path().join(&aged).join("manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap().replace(&first, &aged);
    std::fs::write(&manifest, text).unwrap();
    let (report, code) = folder.json(&["prune", "--retention", "30d"]);
    assert_eq!((code, &report["removed"]), (0, &json!(1)), "{report:#}");
    let (report, _) = folder.json(&["list"]);
    assert_eq!(report["backups"].as_array().unwrap().len(), 1);
    assert_eq!(report["backups"][0]["id"], second["id"]);
    assert_eq!(report["problems"], json!([]));
}

#[tokio::test]
async fn in_a_bucket_nothing_is_removed_and_the_plan_is_shown() {
    let bucket = Bucket::fresh().await;
    let (new, old) = (id("shop", 1), id("shop", 900));
    for (key, body) in [files(&new, "daily"), files(&old, "daily")].concat() {
        bucket.put(&format!("pg/{key}"), &body).await;
    }
    let before = bucket.keys().await;
    let place = tempfile::tempdir().unwrap();
    let mut command = pgstow();
    command.current_dir(place.path()).envs(s3().environment());
    command.args(["prune", "--json", "--retention", "7d", "--store", &bucket.url("pg")]);
    let report = succeed(&mut command).json();
    assert_eq!(verdicts(&report), [(&*new, "keep"), (&*old, "remove")]);
    assert_eq!(
        (&report["stores"][0]["by_lifecycle"], &report["removed"]),
        (&json!(true), &json!(0))
    );
    assert_eq!(bucket.keys().await, before);
    for key in &before {
        assert!(bucket.tags(key).await.is_empty(), "{key}");
    }
    let note = report["stores"][0]["note"].as_str().unwrap();
    assert!(
        note.contains("no lifecycle rules") && note.contains("--allow-delete"),
        "{note}"
    );
}

#[tokio::test]
async fn in_a_bucket_without_rules_prune_deletes_where_that_is_allowed() {
    let bucket = Bucket::fresh().await;
    let (new, old, older) = (id("shop", 1), id("shop", 900), id("shop", 1000));
    let left = id("shop", 1100);
    for (key, body) in [files(&new, "daily"), files(&old, "daily"), files(&older, "daily")].concat() {
        bucket.put(&format!("pg/{key}"), &body).await;
    }
    bucket.put(&format!("pg/{left}/shop.dump"), b"left over").await;
    bucket.put(&format!("pg/{older}/notes.txt"), b"mine").await;
    let before = bucket.keys().await;
    let place = tempfile::tempdir().unwrap();
    let prune = |service: &crate::support::services::S3, args: &[&str]| {
        let mut command = pgstow();
        command.current_dir(place.path()).envs(service.environment());
        command.args(["prune", "--json", "--retention", "7d", "--store", &bucket.url("pg")]);
        run(command.args(args))
    };
    let planned = prune(&s3(), &["--allow-delete", "--dry-run"]).json();
    assert_eq!(verdicts(&planned)[..2], [(&*new, "keep"), (&*old, "remove")]);
    assert_eq!(bucket.keys().await, before);
    // A key that may not: each backup stays whole, and the hint says what it lacks.
    let refused = prune(&s3_reader(), &["--allow-delete"]);
    let report = refused.json();
    assert_eq!(
        (refused.status.code(), &report["error"]["code"]),
        (Some(30), &json!("STORE")),
        "{report:#}"
    );
    assert!(
        report["error"]["hint"].as_str().unwrap().contains("s3:DeleteObject"),
        "{report:#}"
    );
    assert_eq!(bucket.keys().await, before);

    let report = prune(&s3(), &["--allow-delete"]).json();
    assert_eq!(
        (&report["status"], &report["removed"]),
        (&json!("ok"), &json!(3)),
        "{report:#}"
    );
    assert_eq!(report["stores"][0]["by_lifecycle"], json!(false));
    let mut kept: Vec<String> = files(&new, "daily")
        .into_iter()
        .map(|(key, _)| format!("pg/{key}"))
        .collect();
    kept.push(format!("pg/{older}/notes.txt"));
    kept.sort();
    assert_eq!(bucket.keys().await, kept);
}

#[test]
fn a_store_out_of_reach_is_the_exit_code_and_the_others_are_pruned() {
    let folder = Folder::new();
    let new = folder.plant("shop", 1, "daily");
    let old = folder.plant("shop", 900, "daily");
    let mut command = pgstow();
    command
        .current_dir(folder.path())
        .args(["prune", "--json", "--retention", "7d", "--store"]);
    let run = run(command
        .arg(folder.path().join("no/such"))
        .arg("--store")
        .arg(folder.path()));
    assert_eq!(run.status.code(), Some(33));
    let report = run.json();
    assert_eq!(
        (&report["status"], &report["error"]["code"]),
        (&json!("failed"), &json!("ENOENT"))
    );
    assert_eq!(report["removed"], 1);
    assert!(folder.exists(&new) && !folder.exists(&old));
}

#[test]
fn a_prune_that_is_told_to_stop_leaves_no_half_backup() {
    let (folder, site) = (Folder::new(), Site::new());
    for day in 0..3_000 {
        folder.plant("shop", 24 * day, "daily");
    }
    let mut running = site.start(&mut folder.command(&["prune", "--retention", "7d", "--json"]));
    let backups = || std::fs::read_dir(folder.path().join("shop")).unwrap().count();
    running.until("some have gone", || backups() < 2_990);
    running.signal(rustix::process::Signal::TERM);
    let run = running.end(Duration::from_secs(10));
    assert_eq!(run.status.code(), Some(143), "{}", run.stderr);
    assert!(
        run.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("were removed"),
        "{}",
        run.text()
    );
    let left = backups();
    assert!(left > 7, "it was over before it was stopped");
    let (report, _) = folder.json(&["list"]);
    assert_eq!(report["backups"].as_array().unwrap().len(), left);
    assert_eq!(report["problems"], json!([]));
    assert_eq!(folder.keys().len(), left * 5);
}

async fn prune(store: Arc<dyn Store>) -> Result<PruneReport> {
    let retention = Retention::of(Policy::Days(7));
    let request = PruneRequest::default();
    let job = prune::Job {
        stores: &[store],
        retention: &retention,
        trust: &Trust::default(),
        now: Timestamp::now(),
        stop: &Stop::new(),
    };
    prune::run(&job, &request).await
}

/// Nothing that lists shows a backup that lacks a file; the kept one is whole.
async fn consistent(store: &dyn Store, kept: &str) {
    let listed = catalog::backups(store, None).await.unwrap();
    let seen = catalog::overviews(store, listed, &Trust::default()).await.unwrap();
    assert!(seen.iter().all(catalog::Overview::is_good));
    assert!(seen.iter().any(|one| one.id().to_string() == kept));
}

#[tokio::test]
async fn a_prune_that_dies_anywhere_leaves_no_half_backup_and_the_next_finishes() {
    let mut number = 1;
    loop {
        let folder = Folder::new();
        let kept = folder.plant("shop", 1, "daily");
        for days in [100, 200] {
            let id = folder.plant("shop", 24 * days, "daily");
            folder.judge(&id, Some("ok"), None);
        }
        let store: Arc<dyn Store> = Arc::new(Local::new(folder.path()));
        let script = Script::at(number, Fate::Die);
        let over = tokio::select! {
            report = prune(Crashing::around(Arc::clone(&store), &script)) => {
                assert_eq!(report.unwrap().removed, 2);
                true
            }
            () = script.died() => false,
        };
        consistent(&*store, &kept).await;
        let after = prune(Arc::clone(&store)).await.unwrap();
        assert_eq!(after.exit_code(), 0);
        assert_eq!(
            folder.keys().len(),
            5,
            "after {:?}: {:?}",
            script.calls(),
            folder.keys()
        );
        assert!(folder.keys().iter().all(|key| key.starts_with(&kept)));
        if over {
            break;
        }
        number += 1;
    }
    // Two backups of six files each, and what it takes to find them.
    assert!(number > 12, "{number}");
}

#[tokio::test]
async fn whatever_fails_in_a_prune_no_backup_is_left_half_and_the_next_finishes() {
    for fate in [Fate::Reject, Fate::LoseAnswer] {
        let mut number = 1;
        loop {
            let folder = Folder::new();
            let kept = folder.plant("shop", 1, "daily");
            folder.plant("shop", 2_400, "daily");
            folder.plant("shop", 4_800, "daily");
            let store: Arc<dyn Store> = Arc::new(Local::new(folder.path()));
            let script = Script::at(number, fate);
            let report = prune(Crashing::around(Arc::clone(&store), &script)).await.unwrap();
            consistent(&*store, &kept).await;
            let met = script.calls().len() >= number;
            if report.exit_code() == 0 && !met {
                break;
            }
            prune(Arc::clone(&store)).await.unwrap();
            assert_eq!(folder.keys().len(), 5, "{fate:?} at {number}: {:?}", script.calls());
            number += 1;
        }
        assert!(number > 10, "{number}");
    }
}

#[test]
fn a_dry_run_says_why_each_increment_stays_or_goes() {
    const DAY: i64 = 24 * 60;
    let folder = Folder::new();
    let chain = folder.plant_chain("shop", DAY / 2, 30);
    let fulls: Vec<String> = (0..15)
        .map(|day| folder.plant_base("shop", day * DAY + 30, "daily"))
        .collect();
    let (report, code) = folder.json(&["prune", "--dry-run", "--retention", "9d"]);
    assert_eq!(code, 0);
    let of = |id: &str| {
        let backups = report["stores"][0]["backups"].as_array().unwrap();
        let one = backups.iter().find(|one| one["id"] == id).unwrap();
        (one["action"].as_str().unwrap(), one["reason"].as_str().unwrap())
    };
    assert_eq!(of(&chain[0]), ("remove", "increment, older than 9 days"));
    assert_eq!(of(&chain[29]).0, "keep");
    assert_eq!(of(&fulls[14]), ("remove", "daily, older than 9 days"));
    // A shorter retention of full backups does not take the base of the span.
    let (report, _) = folder.json(&["prune", "--retention", "daily=3,weekly=2"]);
    assert_eq!(report["status"], "ok");
    let (list, _) = folder.json(&["list"]);
    assert_eq!(list["chains"].as_array().unwrap().len(), 1, "{list:#}");
    assert!(list["chains"][0]["window"].is_object());
}

//! `pgstow status`.

use aws_sdk_s3::types::{
    BucketLifecycleConfiguration, ExpirationStatus, LifecycleExpiration, LifecycleRule, LifecycleRuleFilter,
};
use serde_json::{Value, json};

use crate::support::bucket::{Bucket, client};
use crate::support::database::{Database, unique_word};
use crate::support::planted::{Folder, files, id};
use crate::support::program::{Run, pgstow, run, succeed};
use crate::support::services::{S3, aws_endpoint, cloud, s3};

fn problems(report: &Value) -> String {
    let problems = report["problems"].as_array().unwrap();
    let sentences: Vec<&str> = problems.iter().map(|one| one.as_str().unwrap()).collect();
    sentences.join("\n")
}

#[test]
fn after_a_good_backup_all_is_well_and_no_secret_is_shown() {
    let (folder, database) = (Folder::new(), Database::fresh(15));
    let run_with = |args: &[&str]| {
        let mut command = folder.command(args);
        command
            .env("DATABASE_URL", database.url_as(Some(("ada", "hunter2"))))
            .env("FULL_BACKUP_SCHEDULE", "0 2 * * *")
            .env("CLEANUP_SCHEDULE", "");
        run(&mut command)
    };
    succeed(folder.command(&["backup"]).env("DATABASE_URL", database.url()));
    let status = run_with(&["status", "--json"]);
    let report = status.json();
    assert_eq!(
        (status.status.code(), &report["status"]),
        (Some(0), &json!("ok")),
        "{report:#}"
    );
    assert_eq!(report["problems"], json!([]));
    let of = &report["databases"][0];
    assert_eq!((&of["database"], &of["backups"]), (&json!(database.name), &json!(1)));
    assert!(of["last_good"]["age_seconds"].as_i64().unwrap() < 60);
    let source = &report["settings"]["source"];
    assert_eq!(
        (&source["user"], &source["from_secret"]),
        (&json!("ada"), &json!(false))
    );
    assert_eq!(report["settings"]["max_age_seconds"], 26 * 3_600);
    assert_eq!(
        report["schedule"],
        json!({"full": "0 2 * * *", "incremental": null, "cleanup": null})
    );
    let store = &report["stores"][0];
    assert_eq!((&store["reachable"], &store["leases"]), (&json!(true), &json!([])));
    assert!(store["disk"]["free"].as_u64() < store["disk"]["total"].as_u64());

    let shown = run_with(&["status"]).text();
    assert!(
        shown.starts_with("all is well\n") && shown.contains("full 0 2 * * *"),
        "{shown}"
    );
    for text in [shown, report.to_string()] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_store_without_a_backup_needs_a_person() {
    let folder = Folder::new();
    // It may be that none was made yet, and that its disk is not mounted.
    let (report, code) = folder.json(&["status"]);
    assert_eq!((code, &report["status"]), (1, &json!("attention")));
    assert!(problems(&report).contains("does not exist"), "{report}");
    folder.write("notes.txt", "mine");
    let (report, code) = folder.json(&["status"]);
    assert_eq!((code, &report["status"]), (1, &json!("attention")));
    assert!(problems(&report).contains("no backup yet"), "{report}");

    // A backup of another database is none of this one.
    folder.plant("shop", 1, "daily");
    assert_eq!(folder.json(&["status"]).1, 0);
    let (report, code) = folder.json(&["status", "--database", "shop2"]);
    assert_eq!(code, 1);
    assert!(
        problems(&report).contains("no backup yet of database \"shop2\""),
        "{report}"
    );
    let other = run(folder
        .command(&["status"])
        .env("DATABASE_URL", "postgres://ada@h/shop3"));
    assert_eq!(other.status.code(), Some(1));
    assert!(
        other
            .text()
            .starts_with("needs attention:\n  - no backup yet of database \"shop3\"")
    );
}

#[test]
fn a_last_good_backup_that_is_too_old_needs_a_person() {
    let folder = Folder::new();
    let old = folder.plant("shop", 27, "daily");
    // Newer ones do not count: this one has lost a file, and that one was found damaged.
    let lacking = folder.plant("shop", 3, "daily");
    std::fs::remove_file(folder.path().join(format!("{lacking}/shop.dump"))).unwrap();
    let damaged = folder.plant("shop", 2, "daily");
    folder.judge(&damaged, Some("failed"), None);
    let (report, code) = folder.json(&["status"]);
    assert_eq!(code, 1);
    assert_eq!(report["databases"][0]["last_good"]["id"], old);
    let found = problems(&report);
    assert!(
        found.contains(&format!("{old}, is 27 h old, more than 26 h")),
        "{found}"
    );
    assert!(
        found.contains(&format!("{lacking} in ")) && found.contains("lacks shop.dump"),
        "{found}"
    );
    assert!(
        found.contains(&format!("{damaged} in ")) && found.contains("found damaged"),
        "{found}"
    );

    let (report, _) = folder.json(&["status", "--max-age", "2d"]);
    assert!(!problems(&report).contains("more than"), "{report}");
    let refused = folder.run(&["status", "--max-age", "26"]);
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn what_lies_about_in_a_store_is_told_and_what_needs_a_person_is_a_problem() {
    let folder = Folder::new();
    folder.plant("shop", 1, "daily");
    let broken = folder.plant("shop", 25, "daily");
    folder.write(&format!("{broken}/manifest.json"), "{");
    let (young, old) = (id("shop", 2), id("shop", 50));
    folder.write(&format!("{young}/shop.dump"), "x");
    folder.write(&format!("{old}/shop.dump"), "x");
    folder.write(&format!("{young}/.shop.toc.x7Kq01ab.pgstow-tmp"), "x");
    folder.write("shop/films.mov", "mine");
    let lease = |until: &str| {
        json!({
            "holder": {"host": "vm-7", "pid": 4711}, "run": "r", "acquired_at": "2025-01-01T00:00:00Z",
            "expires_at": until
        })
        .to_string()
    };
    folder.write("shop/.lease", lease("2025-01-01T00:02:00Z"));

    let (report, code) = folder.json(&["status"]);
    assert_eq!(code, 1);
    let store = &report["stores"][0];
    assert_eq!(store["broken"][0]["id"], broken);
    assert_eq!(store["left_overs"].as_array().unwrap().len(), 2);
    assert_eq!(store["uploads_in_progress"][0]["key"], format!("{young}/shop.toc"));
    assert_eq!(store["leases"][0]["state"], "expired");
    assert_eq!(store["leases"][0]["holder"], json!({"host": "vm-7", "pid": 4711}));
    let found = problems(&report);
    assert_eq!(found.lines().count(), 2, "{found}");
    assert!(found.contains(&broken) && found.contains("not JSON"), "{found}");
    assert!(
        found.contains(&format!("{old} in ")) && found.contains("pgstow prune"),
        "{found}"
    );

    // Held, the left-overs may be a run's that is at work.
    folder.write("shop/.lease", lease("2095-01-01T00:00:00Z"));
    let (report, _) = folder.json(&["status"]);
    assert_eq!(report["stores"][0]["leases"][0]["state"], "held");
    let found = problems(&report);
    assert!(!found.contains(&old) && found.contains("a clock was wrong"), "{found}");
    folder.write("shop/.lease", "mine");
    assert!(problems(&folder.json(&["status"]).0).contains("is not a lease of pgstow's"));
}

#[test]
fn a_store_out_of_reach_and_a_copy_that_lags_are_problems_and_the_others_are_told() {
    let (primary, copy) = (Folder::new(), Folder::new());
    let new = primary.plant("shop", 1, "daily");
    let old = copy.plant("shop", 25, "daily");
    let status = |stores: [&std::path::Path; 2]| -> Run {
        let mut command = pgstow();
        command.current_dir(primary.path()).args(["status", "--json"]);
        for store in stores {
            command.arg("--store").arg(store);
        }
        run(&mut command)
    };
    let run = status([&primary.path(), &copy.path()]);
    let found = problems(&run.json());
    assert_eq!((run.status.code(), found.lines().count()), (Some(1), 1), "{found}");
    assert!(
        found.contains(&format!("lacks {new}, its newest good one is {old}")),
        "{found}"
    );

    let away = primary.path().join("no/such/place");
    let run = status([&away, &primary.path()]);
    let report = run.json();
    assert_eq!(run.status.code(), Some(1));
    assert_eq!(report["stores"][0]["reachable"], false);
    assert_eq!(report["stores"][0]["error"]["code"], "ENOENT");
    assert_eq!(report["databases"][0]["last_good"]["id"], new);
    assert!(problems(&report).contains("no/such/place"), "{report}");
}

#[tokio::test]
async fn of_a_bucket_lifecycle_drift_and_uploads_in_progress_are_told() {
    let bucket = Bucket::fresh().await;
    let id = id("shop", 1);
    for (key, body) in files(&id, "daily") {
        bucket.put(&format!("pg/{key}"), &body).await;
    }
    let upload = bucket.client.create_multipart_upload().bucket(&bucket.name);
    upload.key(format!("pg/{id}/verification.json")).send().await.unwrap();
    let place = tempfile::tempdir().unwrap();
    let command = |args: &[&str]| {
        let mut command = pgstow();
        command
            .current_dir(place.path())
            .envs(s3().environment())
            .args(args)
            .args(["--json", "--store", &bucket.url("pg")]);
        run(&mut command)
    };
    let before = command(&["status"]);
    let report = before.json();
    let store = &report["stores"][0];
    assert_eq!(before.status.code(), Some(1), "{report:#}");
    assert_eq!(store["lifecycle"], json!({"state": "not_installed"}));
    assert_eq!(
        store["uploads_in_progress"][0]["key"],
        format!("{id}/verification.json")
    );
    assert!(store.get("disk").is_none() && store.get("unknown").is_none(), "{store}");
    assert!(problems(&report).contains("retention apply"), "{report}");

    assert!(command(&["retention", "apply"]).status.success());
    let after = command(&["status"]);
    assert_eq!(after.status.code(), Some(0), "{:#}", after.json());
    assert_eq!(after.json()["stores"][0]["lifecycle"], json!({"state": "none"}));

    let drifted = command(&["status", "--retention", "7d"]).json();
    let lifecycle = &drifted["stores"][0]["lifecycle"];
    assert_eq!(
        (&lifecycle["state"], &lifecycle["missing"]),
        (&json!("drifted"), &json!([]))
    );
    let different = lifecycle["different"][0].as_str().unwrap();
    assert!(
        different.ends_with("-daily") && problems(&drifted).contains(different),
        "{drifted}"
    );
}

/// Below everything, after 5 days, with the last good backup.
async fn put_a_rule_of_others(bucket: &Bucket) {
    let rule = LifecycleRule::builder()
        .id("x")
        .status(ExpirationStatus::Enabled)
        .filter(LifecycleRuleFilter::builder().prefix("").build())
        .expiration(LifecycleExpiration::builder().days(5).build())
        .build()
        .unwrap();
    let rules = BucketLifecycleConfiguration::builder().rules(rule).build().unwrap();
    let put = bucket.client.put_bucket_lifecycle_configuration().bucket(&bucket.name);
    put.lifecycle_configuration(rules).send().await.unwrap();
}

#[tokio::test]
async fn a_rule_of_others_that_expires_backups_is_judged_as_the_doctor_judges_it() {
    // It keeps rules word by word.
    let server = S3 {
        endpoint: aws_endpoint(),
        ..s3()
    };
    let bucket = Bucket {
        name: format!("test-{}", unique_word()),
        client: client(&server),
    };
    bucket.client.create_bucket().bucket(&bucket.name).send().await.unwrap();
    for (key, body) in files(&id("shop", 1), "daily") {
        bucket.put(&format!("pg/{key}"), &body).await;
    }
    put_a_rule_of_others(&bucket).await;
    let place = tempfile::tempdir().unwrap();
    let command = |args: &[&str]| {
        let mut command = pgstow();
        cloud(command.current_dir(place.path()))
            .env("AWS_ENDPOINT_URL_S3", &server.endpoint)
            .args(args)
            .args(["--json", "--store", &bucket.url("pg")]);
        run(&mut command)
    };
    let judged = || {
        let (status, doctor) = (command(&["status"]).json(), command(&["doctor"]).json());
        let mut checks = doctor["checks"].as_array().unwrap().iter();
        let check = checks.find(|check| check["name"] == "lifecycle").unwrap().clone();
        let word = |name: &str| check[name].as_str().unwrap().to_owned();
        let (detail, hint) = (word("detail"), word("hint"));
        assert_eq!(check["state"], "warning", "{check}");
        // Both say the same.
        assert!(problems(&status).contains(&detail), "{status:#}{check}");
        (status, detail, hint)
    };
    let takes = "the rule x expires everything in the bucket after 5 days, the last good backup too";
    let spare = format!("change the rule x so that {} is not affected", bucket.url("pg"));

    let (status, detail, hint) = judged();
    assert_eq!(detail, format!("{takes}; pgstow's rules are not installed"));
    assert!(hint.starts_with(&format!("first {spare}")), "{hint}");
    assert!(hint.contains("; then pgstow retention apply --store"), "{hint}");
    assert!(problems(&status).contains(&spare), "{status:#}");
    assert!(
        problems(&status).contains("then run `pgstow retention apply"),
        "{status:#}"
    );

    // With ours beside it, it still takes the last one.
    let applied = command(&["retention", "apply"]);
    assert!(applied.status.success(), "{}", applied.text());
    let (status, detail, hint) = judged();
    assert_eq!(detail, takes);
    assert!(hint.starts_with(&spare) && !hint.contains("--store"), "{hint}");
    assert_eq!(
        status["stores"][0]["lifecycle"],
        json!({"state": "overruled", "by": ["x"]})
    );
}

#[test]
fn the_last_verified_is_the_newest_backup_that_was_although_the_oldest_is_looked_at_last() {
    let folder = Folder::new();
    let (new, old) = (folder.plant("shop", 1, "daily"), folder.plant("shop", 25, "daily"));
    for id in [&new, &old] {
        folder.judge(id, Some("ok"), None);
    }
    let (report, _) = folder.json(&["status"]);
    assert_eq!(report["databases"][0]["last_verified"]["id"], *new, "{report}");
}

#[test]
fn the_moments_that_can_be_restored_are_shown_and_increments_that_stopped_are_a_problem() {
    let folder = Folder::new();
    folder.plant_chain("shop", 10, 12);
    let base = folder.plant_base("shop", 100, "daily");
    let (report, code) = folder.json(&["status"]);
    assert_eq!((code, &report["problems"]), (0, &json!([])), "{report:#}");
    let of = &report["databases"][0];
    // The last good backup is a full one, however many increments are newer.
    assert_eq!(of["last_good"]["id"], json!(base));
    assert!(of["increments"]["window"].is_object(), "{of:#}");
    let shown = folder.run(&["status"]).text();
    assert!(
        shown.contains("  any moment   from ") && shown.contains("any moment of 7d"),
        "{shown}"
    );

    let folder = Folder::new();
    folder.plant_increment("shop", (400, 300), true);
    folder.plant_base("shop", 350, "daily");
    let (report, code) = folder.json(&["status"]);
    assert_eq!(code, 1);
    let told = problems(&report);
    assert!(told.contains("end 5 h ago, more than 2 h"), "{told}");
    let patient = folder
        .command(&["status", "--json"])
        .env("BACKUP_INCREMENTAL_MAX_AGE", "6h")
        .output()
        .unwrap();
    assert_eq!(
        patient.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&patient.stdout)
    );
}

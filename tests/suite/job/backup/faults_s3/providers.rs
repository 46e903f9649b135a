//! S3 as others provide it: what a provider does not know, a backup does without, and says so.

use serde_json::Value;

use super::scene::Scene;
use crate::support::fault_proxy::{Fault, On, Op, Seen};

const NOT_IMPLEMENTED: &str = "<Error><Code>NotImplemented</Code><Message>Header 'x-amz-tagging' with value \
                               'pgstow-tier=pending' not implemented</Message></Error>";
const UNSUPPORTED: &str = "<Error><Code>InvalidArgument</Code><Message>Unsupported header 'x-amz-tagging' received for \
                           this API call.</Message></Error>";
const NO_TAGS: &str = "<Tagging><TagSet/></Tagging>";

/// As R2 (501) and B2 (400) answer.
fn refuse_tags(scene: &Scene, status: u16) {
    let body = if status == 501 { NOT_IMPLEMENTED } else { UNSUPPORTED };
    let answer = Fault::Answer(status, body);
    scene.proxy.fault(On::any().header("x-amz-tagging"), answer.clone());
    scene.proxy.fault(On::op(Op::Tagging), answer);
}

fn about_tags(warnings: &[String]) -> Vec<&String> {
    warnings
        .iter()
        .filter(|text| text.contains("BACKUP_S3_TAGGING"))
        .collect()
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let mut checks = report["checks"].as_array().unwrap().iter();
    checks.find(|check| check["name"] == name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_tags_gets_its_backups_without() {
    for (mut scene, status) in [(Scene::small().await, 400), (Scene::three_parts().await, 501)] {
        refuse_tags(&scene, status);
        let ended = scene.run();
        let report = ended.succeeded();
        let warnings = ended.warnings();
        assert_eq!(about_tags(&warnings).len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("prune --allow-delete"), "{warnings:?}");
        let id = report["id"].as_str().unwrap().to_owned();
        scene.assert_holds(&scene.primary, &id).await;
        scene.primary.assert_nothing_in_progress().await;
        assert!(scene.tell(&["verify", &id, "--json"]).status.success());

        // Once found out, it is not asked again by the same run; with the setting it never is.
        scene.set("BACKUP_S3_TAGGING", "off");
        let before = scene.proxy.faults();
        assert!(before < 6, "{before}");
        let ended = scene.run();
        assert_eq!(
            (ended.succeeded()["status"].as_str(), ended.warnings().len()),
            (Some("succeeded"), 0)
        );
        assert_eq!(scene.proxy.faults(), before);
        let refused = scene.tell(&["retention", "apply", "--json"]);
        assert!(refused.text().contains("prune --allow-delete"), "{}", refused.text());

        scene.set("BACKUP_S3_TAGGING", "on");
        scene.run().store_failed("", "BACKUP_S3_TAGGING=off");
    }
}

/// The tags of all files are set at once, and the answers come in any order.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_takes_tags_with_an_object_and_knows_no_request_about_them_gets_its_backups() {
    for scene in [Scene::small().await, Scene::three_parts().await] {
        let answer = Fault::Answer(501, NOT_IMPLEMENTED);
        scene.proxy.fault(On::op(Op::Tagging), answer);
        for _ in 0..2 {
            let ended = scene.run();
            let report = ended.succeeded();
            assert_eq!(report["status"], "succeeded", "{report}");
            let warnings = ended.warnings();
            assert_eq!(about_tags(&warnings).len(), 1, "{warnings:?}");
            let id = report["id"].as_str().unwrap();
            scene.assert_holds(&scene.primary, id).await;
        }
    }
}

/// `retention apply` puts no rules that would expire nothing.
fn assert_no_rules_are_put(scene: &Scene, why: &str) {
    let refused = scene.tell(&["retention", "apply", "--json"]);
    assert_eq!(refused.status.code(), Some(30), "{}", refused.text());
    let error = refused.json()["error"].to_string();
    assert!(error.contains(why) && error.contains("prune --allow-delete"), "{error}");
    let seen = scene.proxy.seen();
    let put = |seen: &&Seen| seen.method == "PUT" && seen.target.contains("lifecycle");
    assert_eq!(seen.iter().filter(put).count(), 0);
}

/// That no tags are kept, by `status` and by `prune`, in one sentence each.
fn assert_is_told_of(scene: &Scene) {
    let status = scene.tell(&["status", "--json"]).json();
    assert_eq!(status["stores"][0]["lifecycle"]["state"], "no_tags", "{status}");
    let doctor = scene.tell(&["doctor", "--json"]).json();
    let checks = doctor["checks"].as_array().unwrap();
    let lifecycle = checks.iter().find(|check| check["name"] == "lifecycle").unwrap();
    assert_eq!(lifecycle["state"], "warning", "{doctor:#}");
    let text = scene.tell(&["status"]).text();
    assert_eq!(text.matches("this store keeps no tags").count(), 1, "{text}");
    let pruned = scene.tell(&["prune", "--json"]).json();
    let note = pruned["stores"][0]["note"].as_str().unwrap_or_default();
    assert!(
        note.contains("no object tags") && note.contains("--allow-delete"),
        "{pruned}"
    );
}

fn assert_nothing_is_told(scene: &Scene) {
    let status = scene.tell(&["status", "--json"]).json();
    assert_ne!(status["stores"][0]["lifecycle"]["state"], "no_tags", "{status}");
    let pruned = scene.tell(&["prune", "--json"]).json();
    let note = pruned["stores"][0]["note"].as_str().unwrap_or_default();
    assert!(!note.contains("no object tags"), "{note}");
}

/// And its manifest says this of its tags.
async fn backed_up_with_tags(scene: &Scene, tags: &str) {
    let ended = scene.run();
    let id = ended.succeeded()["id"].as_str().unwrap();
    let key = format!("{}/{id}/manifest.json", scene.primary.prefix);
    let manifest: Value = serde_json::from_slice(&scene.primary.bucket.get(&key).await).unwrap();
    assert_eq!(manifest["tags"], tags);
}

/// The backup's manifest says that it was given tags, and the store shows none.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_has_forgotten_the_tags_of_its_newest_backup_is_told_of() {
    let mut scene = Scene::small().await;
    backed_up_with_tags(&scene, "set").await;
    assert_nothing_is_told(&scene);

    let get = On::op(Op::Tagging).method("GET");
    scene.proxy.fault(get, Fault::Answer(200, NO_TAGS));
    assert_is_told_of(&scene);
    // One that was made without tags shows nothing.
    scene.proxy.heal();
    scene.set("BACKUP_S3_TAGGING", "off");
    backed_up_with_tags(&scene, "off").await;
    scene.set("BACKUP_S3_TAGGING", "auto");
    assert_nothing_is_told(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_tags_is_told_of_by_every_command_and_pruned_by_ours() {
    let mut scene = Scene::small().await;
    refuse_tags(&scene, 501);
    // A run that fails late leaves nothing: nothing would ever expire it.
    let on = On::op(Op::PutObject).target("manifest.json");
    scene.proxy.heal();
    scene.proxy.fault(on, Fault::Reject(403));
    refuse_tags(&scene, 501);
    scene.run().failed("STORE", 30);
    assert_eq!(scene.primary.files().await, [""; 0]);
    scene.proxy.heal();
    refuse_tags(&scene, 501);

    // There is no backup yet by which it could be known.
    assert_no_rules_are_put(&scene, "refuses object tags");
    let first = scene.run().succeeded()["id"].as_str().unwrap().to_owned();
    assert_no_rules_are_put(&scene, "refuses object tags");
    let report = scene.tell(&["doctor", "--json"]).json();
    let (tags, rules) = (check(&report, "tags"), check(&report, "lifecycle"));
    assert!(
        tags["detail"].as_str().unwrap().contains("refuses object tags"),
        "{tags}"
    );
    assert!(rules["hint"].as_str().unwrap().contains("--allow-delete"), "{rules}");
    assert_eq!(rules["state"], "warning", "{rules}");
    let status = scene.tell(&["status", "--json"]).json();
    assert_eq!(status["stores"][0]["lifecycle"]["state"], "no_tags", "{status}");
    let pruned = scene.tell(&["prune", "--json"]).json();
    let note = pruned["stores"][0]["note"].as_str().unwrap();
    assert!(
        note.contains("no object tags") && note.contains("--allow-delete"),
        "{note}"
    );

    // What another run has left is removed by prune, and the good backup stays.
    let (database, stamp) = first.split_once('/').unwrap();
    let left = format!(
        "{}/{database}/20200101T000000Z-full/{database}.dump",
        scene.primary.prefix
    );
    scene.primary.bucket.put(&left, b"left over").await;
    let pruned = scene.tell(&["prune", "--allow-delete", "--json"]).json();
    assert_eq!(pruned["removed"], 1, "{pruned}");
    let files = scene.primary.files().await;
    assert!(
        files.iter().all(|key| key.contains(stamp)) && !files.is_empty(),
        "{files:?}"
    );

    // It takes tags, and forgets them.
    scene.proxy.heal();
    let put = On::op(Op::Tagging).method("PUT");
    scene.proxy.fault(put, Fault::Answer(200, ""));
    scene
        .proxy
        .fault(On::op(Op::Tagging).method("GET"), Fault::Answer(200, NO_TAGS));
    let ended = scene.run();
    ended.succeeded();
    let warnings = ended.warnings();
    assert_eq!(about_tags(&warnings).len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("does not keep them"), "{warnings:?}");
    assert_is_told_of(&scene);
    let before = scene.primary.keys().await;
    assert_no_rules_are_put(&scene, "does not keep them");
    assert_eq!(scene.primary.keys().await, before);
    scene.set("BACKUP_S3_TAGGING", "off");
    assert_eq!(scene.run().warnings(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retention_that_is_not_the_buckets_is_told_in_one_sentence() {
    let mut scene = Scene::small().await;
    scene.set("BACKUP_RETENTION", "7d");
    assert!(scene.tell(&["retention", "apply"]).status.success());
    assert_eq!(scene.run().warnings(), [""; 0]);
    scene.set("BACKUP_RETENTION", "30d");
    let warnings = scene.run().warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let told = "daily backups after 7 days, not 30";
    assert!(
        warnings[0].contains(told) && warnings[0].contains("retention apply"),
        "{warnings:?}"
    );
}

/// What was put with a tag expires by it, unless the commit sets another.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_has_taken_tags_is_not_taken_for_one_without() {
    let scene = Scene::three_parts().await;
    let broken = "<Error><Code>IncompleteBody</Code><Message>fewer bytes than announced</Message></Error>";
    let sidecar = On::op(Op::PutObject).target("globals.sql").header("x-amz-tagging");
    scene.proxy.fault(sidecar, Fault::Answer(400, broken));
    scene.run().store_failed("IncompleteBody", "");
    scene.proxy.heal();
    let unknown = On::op(Op::PutObject).target("globals.sql").header("x-amz-tagging");
    scene.proxy.fault(unknown, Fault::Answer(501, NOT_IMPLEMENTED));
    scene.run().store_failed("NotImplemented", "BACKUP_S3_TAGGING");
}

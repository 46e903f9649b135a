//! S3 with the limits of providers: what they refuse has a setting or a command that helps, and the hint names it.

use serde_json::Value;

use super::scene::Scene;
use crate::support::fault_proxy::{Fault, On, Op};

const HEADER: &str = "<Error><Code>NotImplemented</Code><Message>A header you provided implies functionality that is \
                      not implemented</Message></Error>";
const CONDITION: &str = "<Error><Code>InvalidArgument</Code><Message>Unsupported header 'if-none-match' received for this \
                         API call.</Message></Error>";
const TAGS: &str = "<Error><Code>InvalidArgument</Code><Message>Unsupported header 'x-amz-tagging' received for this API \
                    call.</Message></Error>";
const MALFORMED: &str = "<Error><Code>MalformedXML</Code><Message>The XML you provided was not well-formed or did not \
                         validate against our published schema</Message></Error>";
const CHECKSUM: &str = "<Error><Code>InvalidArgument</Code><Message>Unsupported header 'x-amz-checksum-sha256' received \
                        for this API call.</Message></Error>";
const LIFECYCLE: &str = "<Error><Code>NotImplemented</Code><Message>A parameter you provided implies functionality \
                         that is not implemented</Message></Error>";
const PART: &str = "<Error><Code>InvalidArgument</Code><Message>Part number must be an integer between 1 and 2, \
                    inclusive</Message></Error>";
const ARCHIVED: &str = "<Error><Code>InvalidObjectState</Code><Message>The operation is not valid for the object's \
                        storage class</Message></Error>";
const QUOTA: &str =
    "<Error><Code>QuotaExceeded</Code><Message>The quota set for the bucket is exceeded</Message></Error>";
const FULL: &str = "<Error><Code>XMinioStorageFull</Code><Message>Storage backend has reached its minimum free drive \
                    threshold</Message></Error>";

fn error<'a>(document: &'a Value, field: &str) -> &'a str {
    document["error"][field]
        .as_str()
        .unwrap_or_else(|| panic!("{document}"))
}

/// A backup there is whole by every command's word.
async fn is_good(scene: &Scene, id: &str) {
    scene.assert_holds(&scene.primary, id).await;
    let verified = scene.tell(&["verify", id, "--json"]);
    assert!(verified.status.success(), "{}{}", verified.text(), verified.stderr);
    let listed = scene.tell(&["list", "--json"]).json();
    assert_eq!(listed["backups"][0]["id"], id, "{listed}");
    assert_eq!(listed["problems"].as_array().map_or(0, Vec::len), 0, "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_conditional_writes_holds_copies_and_no_leases() {
    let scene = Scene::small().await;
    for header in ["if-none-match", "if-match"] {
        scene.proxy.fault(On::any().header(header), Fault::Answer(501, HEADER));
    }
    scene.run().store_failed(".lease", "If-None-Match");
    let told = scene.tell(&["doctor", "--json"]).text();
    assert!(told.contains("If-None-Match"), "{told}");
    assert_eq!(scene.primary.files().await, [""; 0]);

    for scene in [Scene::small().await.with_copy(), Scene::three_parts().await.with_copy()] {
        let copy = format!("/{}/", scene.copy.bucket.name);
        for header in ["if-none-match", "if-match"] {
            let on = On::any().bucket(&copy).header(header);
            scene.proxy.fault(on, Fault::Answer(501, HEADER));
        }
        let ended = scene.run();
        let report = ended.succeeded();
        assert_eq!(report["status"], "succeeded", "{report}");
        let id = report["id"].as_str().unwrap();
        scene.assert_holds(&scene.copy, id).await;
        assert_eq!(scene.run().succeeded()["status"], "succeeded");
        let told = scene.tell(&["doctor", "--json"]);
        assert!(
            told.status.success() && told.text().contains("knows no conditional writes"),
            "{}",
            told.text()
        );
    }
}

/// The results beside the backup, when this command has succeeded.
async fn recorded(scene: &Scene, key: &str, args: &[&str]) -> Value {
    let told = scene.tell(args);
    assert!(told.status.success(), "{args:?}: {}{}", told.text(), told.stderr);
    serde_json::from_slice(&scene.copy.bucket.get(key).await).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_conditional_writes_keeps_the_newest_result_of_a_verification() {
    for (status, body) in [(501, HEADER), (400, CONDITION)] {
        let mut scene = Scene::small().await.with_copy();
        let copy = format!("/{}/", scene.copy.bucket.name);
        for header in ["if-none-match", "if-match"] {
            let on = On::any().bucket(&copy).header(header);
            scene.proxy.fault(on, Fault::Answer(status, body));
        }
        let id = scene.run().succeeded()["id"].as_str().unwrap().to_owned();
        let key = format!("{}/{id}/verification.json", scene.copy.prefix);
        let first = recorded(&scene, &key, &["verify", &id, "--json"]).await;
        let second = recorded(&scene, &key, &["verify", &id, "--json"]).await;
        assert_ne!(first["verify"]["at"], second["verify"]["at"]);

        // The copy alone, and what another command has found stays beside what is new.
        scene.set("BACKUP_STORE", &scene.copy.url());
        let drilled = recorded(&scene, &key, &["verify", &id, "--drill", "--json"]).await;
        assert_eq!(drilled["drill"]["status"], "ok", "{drilled}");
        let last = recorded(&scene, &key, &["verify", &id, "--json"]).await;
        assert_eq!(last["drill"], drilled["drill"]);
        assert_ne!(last["verify"]["at"], drilled["verify"]["at"]);
    }
}

/// As B2 answers, which knows no tags either.
#[tokio::test(flavor = "multi_thread")]
async fn conditions_that_are_refused_as_unsupported_headers_are_done_without_in_a_copy_and_so_are_tags() {
    let refuse = |scene: &Scene, bucket: &str| {
        for header in ["if-none-match", "if-match"] {
            let on = On::any().bucket(bucket).header(header);
            scene.proxy.fault(on, Fault::Answer(400, CONDITION));
        }
    };
    let scene = Scene::small().await;
    refuse(&scene, &format!("/{}/", scene.primary.bucket.name));
    scene.run().store_failed(".lease", "If-None-Match");
    assert_eq!(scene.primary.files().await, [""; 0]);

    for (scene, has_tags) in [
        (Scene::small().await.with_copy(), false),
        (Scene::three_parts().await.with_copy(), true),
    ] {
        let copy = format!("/{}/", scene.copy.bucket.name);
        if !has_tags {
            let answer = Fault::Answer(400, TAGS);
            let header = On::any().bucket(&copy).header("x-amz-tagging");
            scene.proxy.fault(header, answer.clone());
            scene.proxy.fault(On::op(Op::Tagging).bucket(&copy), answer);
        }
        refuse(&scene, &copy);
        let ended = scene.run();
        let report = ended.succeeded();
        assert_eq!(report["status"], "succeeded", "{report}");
        scene.assert_holds(&scene.copy, report["id"].as_str().unwrap()).await;
        scene.copy.assert_nothing_in_progress().await;
        if has_tags {
            continue;
        }
        let told = scene.tell(&["doctor", "--json"]);
        assert!(
            told.status.success() && told.text().contains("knows no conditional writes"),
            "{}",
            told.text()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_checksums_names_the_setting_and_does_without() {
    let mut scene = Scene::three_parts().await;
    for header in [
        "x-amz-checksum-sha256",
        "x-amz-checksum-algorithm",
        "x-amz-sdk-checksum-algorithm",
    ] {
        scene
            .proxy
            .fault(On::any().header(header), Fault::Answer(400, CHECKSUM));
    }
    scene.run().store_failed("", "BACKUP_S3_CHECKSUMS=when_required");
    let told = scene.tell(&["doctor", "--json"]).text();
    assert!(told.contains("BACKUP_S3_CHECKSUMS=when_required"), "{told}");
    assert_eq!(scene.primary.files().await, [""; 0]);
    scene.set("BACKUP_S3_CHECKSUMS", "when_required");
    let ended = scene.run();
    let id = ended.succeeded()["id"].as_str().unwrap();
    is_good(&scene, id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_lifecycle_rules_has_its_retention_by_prune() {
    let scene = Scene::small().await;
    scene
        .proxy
        .fault(On::any().target("lifecycle"), Fault::Answer(501, LIFECYCLE));
    let ended = scene.run();
    let id = ended.succeeded()["id"].as_str().unwrap();
    is_good(&scene, id).await;
    let refused = scene.tell(&["retention", "apply", "--json"]).json();
    assert!(error(&refused, "hint").contains("prune --allow-delete"), "{refused}");
    for command in [&["doctor", "--json"][..], &["prune", "--json"]] {
        let told = scene.tell(command).text();
        assert!(told.contains("--allow-delete"), "{command:?}: {told}");
    }
    let status = scene.tell(&["status", "--json"]).text();
    assert!(status.contains(id), "{status}");
    let pruned = scene.tell(&["prune", "--allow-delete", "--json"]).json();
    assert_eq!(
        (pruned["status"].as_str(), pruned["removed"].as_u64()),
        (Some("ok"), Some(0))
    );
    is_good(&scene, id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_a_store_cannot_read_are_told_in_its_words_with_the_command_that_does_without() {
    let scene = Scene::small().await;
    let rules = On::any().target("lifecycle");
    let malformed = Fault::Answer(400, MALFORMED);
    scene.proxy.fault(rules.clone().method("PUT"), malformed.clone());
    let refused = scene.tell(&["retention", "apply", "--json"]).json();
    let (message, hint) = (error(&refused, "message"), error(&refused, "hint"));
    assert!(message.contains("not well-formed"), "{refused}");
    for words in [
        "as the store's answer demands",
        "retention show",
        "prune --allow-delete",
    ] {
        assert!(hint.contains(words), "{refused}");
    }
    // Where the request bears no rules, none of them can be what is wrong.
    scene.proxy.heal();
    scene.proxy.fault(rules, malformed);
    let refused = scene.tell(&["retention", "apply", "--json"]).json();
    let hint = error(&refused, "hint");
    assert!(
        hint.contains("no lifecycle rules") && hint.contains("prune --allow-delete"),
        "{refused}"
    );
}

/// An archive that takes more parts than the provider knows, until it is told how many those are.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_few_parts_gets_longer_ones_when_it_is_said() {
    let mut scene = Scene::three_parts().await;
    for part in 3..10 {
        let on = On::op(Op::UploadPart).target(&format!("partNumber={part}"));
        scene.proxy.fault(on, Fault::Answer(400, PART));
    }
    scene.run().store_failed("part 3", "BACKUP_S3_MAX_PARTS");
    scene.assert_no_trace().await;
    scene.set("BACKUP_S3_MAX_PARTS", "2");
    let ended = scene.run();
    let id = ended.succeeded()["id"].as_str().unwrap();
    is_good(&scene, id).await;
    // The length was not known before.
    scene.set("BACKUP_S3_MAX_PARTS", "1");
    scene
        .run()
        .store_failed("does not fit 1 part in", "BACKUP_S3_PART_SIZE");
}

/// Lists that do not show what is there yet: nothing takes a good backup for a left-over.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_lags_costs_no_backup() {
    let scene = Scene::small().await;
    let ended = scene.run();
    let id = ended.succeeded()["id"].as_str().unwrap().to_owned();
    let lagging = On::any().target("list-type=2");
    scene.proxy.fault(lagging.clone(), Fault::Unlisted("manifest.json"));
    let verified = scene.tell(&["verify", &id, "--json"]);
    assert!(verified.status.success(), "{}{}", verified.text(), verified.stderr);
    let planned = scene.tell(&[
        "restore",
        &id,
        "--target",
        &scene.database.url(),
        "--clean",
        "--dry-run",
        "--json",
    ]);
    assert!(planned.status.success(), "{}{}", planned.text(), planned.stderr);
    let pruned = scene.tell(&["prune", "--allow-delete", "--json"]).json();
    assert_eq!(pruned["removed"], 0, "{pruned}");
    let second = scene.run().succeeded()["id"].as_str().unwrap().to_owned();
    scene.proxy.heal();
    for id in [&id, &second] {
        scene.assert_holds(&scene.primary, id).await;
    }
    let tiers = scene.primary.tiers().await;
    assert!(
        tiers.values().all(|tier| tier.as_deref() != Some("pending")),
        "{tiers:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_in_an_archive_class_is_named_with_what_fetches_it() {
    let scene = Scene::small().await;
    let ended = scene.run();
    let id = ended.succeeded()["id"].as_str().unwrap().to_owned();
    let on = On::op(Op::GetObject).target(".dump");
    scene.proxy.fault(on, Fault::Answer(403, ARCHIVED));
    let listed = scene.tell(&["list", "--json"]).json();
    assert_eq!(listed["backups"][0]["id"], id.as_str(), "{listed}");
    let target = scene.database.copy();
    let restore = ["restore", &id, "--target", &target.url(), "--clean", "--json"];
    for command in [
        &["verify", &id, "--json"][..],
        &restore,
        &["download", &id, "-o", "there/", "--json"],
    ] {
        let refused = scene.tell(command).json();
        let hint = error(&refused, "hint");
        let key = format!("--key {}/{id}/", scene.primary.prefix);
        assert!(
            hint.contains("restore-object") && hint.contains(&key),
            "{command:?}: {refused}"
        );
        assert_ne!(error(&refused, "code"), "INTEGRITY", "{refused}");
    }
    assert_eq!(
        target.sql("SELECT count(*) FROM noise"),
        scene.database.sql("SELECT count(*) FROM noise")
    );
}

/// No message tells a person to remove such a backup, and the class by which pgstow would make them is refused.
#[tokio::test(flavor = "multi_thread")]
async fn an_archived_manifest_is_named_with_what_fetches_it_and_does_not_pass_for_a_broken_one() {
    let mut scene = Scene::small().await;
    let ended = scene.run();
    let id = ended.succeeded()["id"].as_str().unwrap().to_owned();
    let on = On::op(Op::GetObject).target("manifest.json");
    scene.proxy.fault(on, Fault::Answer(403, ARCHIVED));
    let key = format!("--key {}/{id}/manifest.json", scene.primary.prefix);
    for command in ["list", "status"] {
        let told = scene.tell(&[command, "--json"]).json()["problems"].to_string();
        assert!(told.contains("restore-object") && told.contains(&key), "{told}");
        assert!(
            !told.contains("remove its folder") && !told.contains("it is not good"),
            "{told}"
        );
    }
    scene.proxy.heal();
    for class in ["GLACIER", "deep_archive"] {
        scene.set("BACKUP_S3_STORAGE_CLASS", class);
        let (message, _) = scene.run().failed("CONFIG", 2);
        assert!(message.contains("BACKUP_S3_STORAGE_CLASS"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_is_reached_is_named_and_nothing_is_left() {
    for (scene, op) in [
        (Scene::small().await, Op::PutObject),
        (Scene::three_parts().await, Op::UploadPart),
    ] {
        for (status, body) in [(403, QUOTA), (507, FULL)] {
            let on = On::op(op).target(".dump");
            scene.proxy.fault(on, Fault::Answer(status, body));
            scene.run().store_failed(".dump", "quota");
            scene.proxy.heal();
            scene.assert_no_trace().await;
        }
    }
}

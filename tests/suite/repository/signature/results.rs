//! Lists, and the results of verifications: what is not signed counts for nothing.

use std::fs;

use serde_json::{Value, json};

use super::place::{MANIFEST, SIGNATURE, Signed, keygen, line};
use crate::support::program::{pgstow, run, succeed};
use crate::support::wreck::{backups, fail};

const RESULT: &str = "verification.json";

fn forged(signed: &Signed, status: &str) -> Vec<u8> {
    let outcome = json!({"status": status, "at": "2026-01-01T00:00:00Z"});
    let result = json!({"schema": 1, "id": signed.id(), "verify": outcome, "drill": outcome});
    serde_json::to_vec(&result).unwrap()
}

fn verify(signed: &Signed, sign: bool) -> Value {
    let mut command = signed.command(&["verify", signed.id()]);
    if sign {
        command.arg("--sign-key").arg(&signed.key);
    }
    succeed(&mut command).json()
}

#[test]
fn a_forged_result_counts_for_nothing_and_is_not_signed_by_the_next_run() {
    let signed = Signed::up(&[]);
    for (status, why) in [("ok", "is not signed"), ("failed", "does not match its content")] {
        signed.write(RESULT, forged(&signed, status));
        let listed = signed.json(&["list"]);
        let entry = &listed["backups"][0];
        assert_eq!(
            (&entry["verified"], &entry["drilled"]),
            (&Value::Null, &Value::Null),
            "{listed}"
        );
        let problem = listed["problems"][0]["problem"].as_str().unwrap();
        assert!(
            problem.starts_with("verification.json") && problem.contains(why),
            "{listed}"
        );
        let told = signed.json(&["status"]);
        let database = &told["databases"][0];
        assert_eq!(database["last_good"]["id"], signed.id(), "{told}");
        assert_eq!(database["last_verified"], Value::Null, "{told}");
        assert!(!told["problems"].to_string().contains("found damaged"), "{told}");
        // A manifest's signature is none of the result's.
        fs::copy(
            signed.folder().join(SIGNATURE),
            signed.folder().join("verification.json.minisig"),
        )
        .unwrap();
        let listed = signed.json(&["list"]);
        assert_eq!(listed["backups"][0]["verified"], Value::Null, "{listed}");
    }
    verify(&signed, true);
    let result: Value = serde_json::from_slice(&signed.read(RESULT)).unwrap();
    assert_eq!(
        (&result["verify"]["status"], result.get("drill")),
        (&json!("ok"), None),
        "{result}"
    );
    assert_eq!(signed.json(&["list"])["backups"][0]["verified"]["status"], "ok");
    // What is signed is kept, and not replaced by what is not.
    let before = signed.read(RESULT);
    let report = verify(&signed, false);
    assert!(
        report["warnings"][0].as_str().unwrap().contains("BACKUP_SIGN_KEY"),
        "{report}"
    );
    assert_eq!(signed.read(RESULT), before);
    signed.write(RESULT, forged(&signed, "failed"));
    let problem = signed.json(&["list"])["problems"][0]["problem"].to_string();
    assert!(problem.contains("does not match its content"), "{problem}");
}

/// Retention does not believe it.
#[test]
fn prune_keeps_the_good_one_that_a_forged_verdict_condemns() {
    let mut signed = Signed::up(&[]);
    signed.another();
    signed.write(RESULT, forged(&signed, "failed"));
    let plan = signed.json(&["prune", "--dry-run", "--retention", "1d"]);
    let kept = plan["stores"][0]["backups"].as_array().unwrap();
    assert!(kept[0]["reason"].as_str().unwrap().contains("newest good"), "{plan}");
    // A forged manifest is none that anything is decided by.
    let manifest = signed.read(MANIFEST);
    signed.write(
        MANIFEST,
        String::from_utf8(manifest).unwrap().replace("\"daily\"", "\"yearly\""),
    );
    let plan = signed.json(&["prune", "--dry-run", "--retention", "1d"]);
    let reasons: Vec<&str> = plan["stores"][0]["backups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|backup| backup["reason"].as_str().unwrap())
        .collect();
    assert!(
        reasons[0].contains("cannot be used") && reasons[1].contains("newest good"),
        "{plan}"
    );
    assert_eq!(backups(&signed.site.store()).len(), 2);
}

#[test]
fn list_and_status_mark_what_is_signed_unsigned_and_bad() {
    let mut signed = Signed::up(&[]);
    let good = signed.id().to_owned();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let unsigned = succeed(&mut signed.site.backup(&signed.source.url())).json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    signed.another();
    signed.write(MANIFEST, [&signed.read(MANIFEST)[..], b" "].concat());
    let bad = signed.id().to_owned();
    let listed = signed.json(&["list"]);
    let states: Vec<_> = listed["backups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            (
                entry["id"].as_str().unwrap(),
                entry["signature"]["state"].as_str().unwrap(),
            )
        })
        .collect();
    let expected = [(bad.as_str(), "bad"), (&unsigned, "unsigned"), (&good, "signed")];
    assert_eq!(states, expected);
    let mut table = pgstow();
    table
        .arg("list")
        .arg("--store")
        .arg(signed.site.store())
        .env("BACKUP_VERIFY_KEYS", line(&signed.key));
    let table = succeed(&mut table).text();
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].ends_with("SIGNED") && lines[1].ends_with("BAD"), "{table}");
    assert!(
        lines[2].contains("does not match its content") && lines[3].ends_with("not signed"),
        "{table}"
    );

    let told = run(&mut signed.command(&["status"])).json();
    let problems = told["problems"].to_string();
    assert!(
        problems.contains(&format!("{bad} in")) && problems.contains(&format!("{unsigned} in")),
        "{told}"
    );
    assert_eq!(told["databases"][0]["last_good"]["id"], good.as_str(), "{told}");
    assert_eq!(
        told["stores"][0]["signatures"][2]["signature"]["state"], "signed",
        "{told}"
    );

    let other = keygen(&signed.site, "other");
    let listed = run(&mut signed.trusting(&line(&other), &["list"])).json();
    assert_eq!(listed["backups"][2]["signature"]["state"], "bad", "{listed}");

    // Of all, the good one is verified, and the others have failed.
    let failure = fail(&mut signed.command(&["verify", "--all"]), "SIGNATURE", 47);
    assert!(failure.message.contains(&bad), "{}", failure.message);
    let report = run(&mut signed.command(&["verify", "--all"])).json();
    let states: Vec<_> = report["backups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["status"])
        .collect();
    assert_eq!(states, ["failed", "failed", "ok"], "{report}");
}

/// A signed result moved: the manifest beside it is signed as well, and another.
#[test]
fn a_verdict_on_another_manifest_counts_for_nothing() {
    let signed = Signed::up(&[]);
    verify(&signed, true);
    let (result, manifest) = (signed.read(RESULT), signed.read(MANIFEST));
    let said: Value = serde_json::from_slice(&result).unwrap();
    assert_eq!(
        said["verify"]["manifest_sha256"], signed.report["manifest_sha256"],
        "{said}"
    );
    assert_eq!(signed.json(&["list"])["backups"][0]["verified"]["status"], "ok");

    let sign =
        |file: &str| succeed(&mut signed.minisign(&["-S", "-W", "-s", signed.key.to_str().unwrap(), "-m", file]));
    signed.write(MANIFEST, [&manifest[..], b"\n"].concat());
    sign(MANIFEST);
    for mut list in [signed.command(&["list"]), signed.trusting("", &["list"])] {
        let listed = succeed(&mut list).json();
        assert_eq!(listed["backups"][0]["verified"], Value::Null, "{listed}");
        let problem = listed["problems"][0]["problem"].as_str().unwrap();
        assert!(problem.contains("another manifest"), "{listed}");
    }
    let told = signed.json(&["status"]);
    assert_eq!(told["databases"][0]["last_verified"], Value::Null, "{told}");
    // Nor is it taken over into the next result.
    let mut drilled = said.clone();
    drilled["drill"] = said["verify"].clone();
    signed.write(RESULT, drilled.to_string());
    sign(RESULT);
    verify(&signed, true);
    let now: Value = serde_json::from_slice(&signed.read(RESULT)).unwrap();
    assert_eq!(now.get("drill"), None, "{now}");
    assert_eq!(signed.json(&["list"])["backups"][0]["verified"]["status"], "ok");

    // One that names no manifest may be of any: it counts where nothing has to be signed.
    signed.write(RESULT, forged(&signed, "ok"));
    sign(RESULT);
    assert_eq!(signed.json(&["list"])["backups"][0]["verified"], Value::Null);
    let listed = succeed(&mut signed.trusting("", &["list"])).json();
    assert_eq!(listed["backups"][0]["verified"]["status"], "ok", "{listed}");
}

/// When a key is trusted no more, what it has signed goes by its age, as if it were not signed.
#[test]
fn prune_removes_in_their_time_what_a_key_of_the_past_has_signed() {
    let signed = Signed::up(&[]);
    let (database, _) = signed.id().split_once('/').unwrap();
    let old = format!("{database}/20200131T040500Z-full");
    let target = signed.site.store().join(&old);
    fs::create_dir(&target).unwrap();
    for entry in fs::read_dir(signed.folder()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), target.join(entry.file_name())).unwrap();
    }
    let manifest = String::from_utf8(signed.read(MANIFEST)).unwrap();
    fs::write(target.join(MANIFEST), manifest.replace(signed.id(), &old)).unwrap();
    let new = keygen(&signed.site, "new");
    let mut backup = signed.site.backup(&signed.source.url());
    std::thread::sleep(std::time::Duration::from_millis(1100));
    succeed(backup.arg("--sign-key").arg(&new));

    let decided = |keys: &str| -> Value {
        let plan = run(&mut signed.trusting(keys, &["prune", "--dry-run", "--retention", "1d"])).json();
        let backups = plan["stores"][0]["backups"].as_array().unwrap();
        backups.iter().find(|one| one["id"] == old.as_str()).unwrap().clone()
    };
    let goes = decided(&line(&new));
    assert!(goes["reason"].as_str().unwrap().contains("older than 1 day"), "{goes}");
    assert!(!goes["reason"].as_str().unwrap().contains("cannot be used"), "{goes}");
    // Signed by a trusted key, but over other bytes: the file was changed, and stays for an investigation.
    let stays = decided(&line(&signed.key));
    assert!(stays["reason"].as_str().unwrap().contains("cannot be used"), "{stays}");
}

#[test]
fn whoever_has_no_keys_puts_no_end_to_a_signed_result() {
    let signed = Signed::up(&[]);
    verify(&signed, true);
    let (result, signature) = (signed.read(RESULT), signed.read("verification.json.minisig"));
    let mut command = pgstow();
    command
        .args(["verify", signed.id(), "--json", "--store"])
        .arg(signed.site.store());
    let report = succeed(&mut command).json();
    assert!(
        report["warnings"].to_string().contains("a signed result is there"),
        "{report}"
    );
    assert_eq!(
        (signed.read(RESULT), signed.read("verification.json.minisig")),
        (result, signature)
    );
}

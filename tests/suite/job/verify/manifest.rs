//! The manifest itself: everything else is compared with it, so what becomes of it must be found first.

use std::fs;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::job::verify::place::{Kept, flip, source};
use crate::support::program::{pgstow, succeed};
use crate::support::wreck::{Site, fail, reseal};

fn alter(kept: &Kept, change: impl FnOnce(&mut Value)) {
    let mut manifest = kept.manifest();
    change(&mut manifest);
    fs::write(
        kept.folder().join("manifest.json"),
        serde_json::to_vec(&manifest).unwrap(),
    )
    .unwrap();
    reseal(&kept.folder());
}

fn found(kept: &Kept, what: &str) {
    let problems = kept.problems();
    assert!(
        problems.iter().any(|(_, _, found)| found.contains(what)),
        "{what}: {problems:?}"
    );
}

#[test]
fn a_flipped_bit_of_the_manifest_is_found_wherever_it_is() {
    let kept = Kept::of(&source(17), &[]);
    let path = kept.folder().join("manifest.json");
    let whole = fs::read(&path).unwrap();
    let seed: u64 = std::env::var("PGSTOW_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(15);
    println!("PGSTOW_TEST_SEED={seed}");
    let mut state = seed;
    let mut next = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    for _ in 0..40 {
        let (at, bit) = (next(whole.len()), next(8));
        let mut spoilt = whole.clone();
        spoilt[at] ^= 1 << bit;
        fs::write(&path, &spoilt).unwrap();
        let (report, exit, _) = kept.verify(&[&kept.id]);
        assert_eq!(exit, 40, "bit {bit} of byte {at}: {report}");
        assert_eq!(report["error"]["code"], "INTEGRITY");
    }
    fs::write(&path, &whole).unwrap();
    kept.is_good();
    // The digest itself.
    for at in [0, 40, 63, 64, 66, 79] {
        flip(&kept.folder().join("manifest.json.sha256"), at);
        found(&kept, "manifest.json.sha256 beside it says");
        flip(&kept.folder().join("manifest.json.sha256"), at);
    }
    // Stock tools read it too.
    succeed(
        std::process::Command::new("sha256sum")
            .args(["-c", "--strict", "--quiet", "manifest.json.sha256"])
            .current_dir(kept.folder()),
    );
}

#[test]
fn a_manifest_with_a_flipped_bit_is_not_restored_from_nor_downloaded() {
    let kept = Kept::of(&source(17), &[]);
    let path = kept.folder().join("manifest.json");
    let whole = fs::read_to_string(&path).unwrap();
    fs::write(&path, whole.replace("\"rows\": 3000", "\"rows\": 3001")).unwrap();
    for command in [
        &["download", &kept.id][..],
        &["restore", &kept.id, "--target", "postgres://x@127.0.0.1:1/y"],
    ] {
        let mut pgstow = pgstow();
        pgstow
            .args(command)
            .args(["--json", "--store"])
            .arg(kept.site.store())
            .current_dir(kept.site.path());
        let failure = fail(&mut pgstow, "INTEGRITY", 40);
        assert!(failure.message.contains("was changed"), "{}", failure.message);
        assert!(failure.hint.contains("--expect-manifest"), "{}", failure.hint);
    }
    // A user who has the digest from elsewhere needs no digest file.
    fs::write(&path, &whole).unwrap();
    flip(&kept.folder().join("manifest.json.sha256"), 3);
    let digest = kept.report["manifest_sha256"].as_str().unwrap().to_owned();
    let mut download = pgstow();
    download
        .args(["download", &kept.id, "--expect-manifest", &digest, "--store"])
        .arg(kept.site.store());
    succeed(download.current_dir(kept.site.path()));
}

#[test]
fn exchanged_names_are_found_by_the_table_of_contents() {
    let kept = Kept::of(&source(17), &[]);
    let whole = fs::read(kept.folder().join("manifest.json")).unwrap();
    let exchanged = |kept: &Kept| {
        alter(kept, |manifest| {
            for table in manifest["tables"].as_array_mut().unwrap() {
                table["name"] = match table["name"].as_str().unwrap() {
                    "first" => "second".into(),
                    "second" => "first".into(),
                    other => other.into(),
                };
            }
        });
    };
    exchanged(&kept);
    found(&kept, "but the manifest calls it public.second");
    let target = crate::support::database::Database::fresh(17);
    let mut restore = pgstow();
    restore
        .args([
            "restore",
            &kept.id,
            "--table",
            "public.first",
            "--target",
            &target.url(),
            "--json",
            "--store",
        ])
        .arg(kept.site.store())
        .env("TMPDIR", kept.site.path().join("tmp"));
    fail(restore.current_dir(kept.site.path()), "INTEGRITY", 40);
    for (what, change) in [
        ("calls it other.", &|table: &mut Value| table["schema"] = "other".into()),
        ("differ on the owner", &|table: &mut Value| {
            table["owner"] = "nobody".into();
        }),
    ] as [(&str, &dyn Fn(&mut Value)); 2]
    {
        fs::write(kept.folder().join("manifest.json"), &whole).unwrap();
        alter(&kept, |manifest| change(&mut manifest["tables"][0]));
        found(&kept, what);
    }
}

#[test]
fn what_the_manifest_says_twice_it_must_say_alike() {
    let kept = Kept::of(&source(17), &[]);
    let whole = fs::read(kept.folder().join("manifest.json")).unwrap();
    let sums = kept.folder().join("SHA256SUMS");
    for (what, change) in [
        ("under `checksums`", &|m: &mut Value| {
            m["checksums"]["toc"] = format!("sha256:{}", "00".repeat(32)).into();
        }),
        ("under `checksums`", &|m: &mut Value| m["checksums"] = json!({})),
        ("the database", &|m: &mut Value| m["database"] = "other".into()),
        ("it is an increment, and does not say", &|m: &mut Value| {
            m["type"] = "incremental".into();
        }),
        ("not the time of its id", &|m: &mut Value| {
            m["timestamp"] = "2020-01-01T00:00:00Z".into();
        }),
        ("before it started", &|m: &mut Value| {
            m["finished_at"] = "2020-01-01T00:00:00Z".into();
        }),
    ] as [(&str, &dyn Fn(&mut Value)); 6]
    {
        fs::write(kept.folder().join("manifest.json"), &whole).unwrap();
        alter(&kept, |manifest| change(manifest));
        found(&kept, what);
    }
    // A date alone is found and not kept: the clock that is wrong may be this machine's.
    fs::write(kept.folder().join("manifest.json"), &whole).unwrap();
    alter(&kept, |m| m["finished_at"] = "2099-01-01T00:00:00Z".into());
    let result = kept.folder().join("verification.json");
    fs::remove_file(&result).unwrap();
    let (report, exit, _) = kept.verify(&[&kept.id]);
    assert_eq!(exit, 40, "{report}");
    assert!(
        report["problems"].to_string().contains("dated in the future"),
        "{report}"
    );
    assert!(!result.exists(), "{report}");
    fs::write(kept.folder().join("manifest.json"), &whole).unwrap();
    reseal(&kept.folder());
    let text = fs::read_to_string(&sums).unwrap();
    fs::write(&sums, format!("{text}{}  more.txt\n", "00".repeat(32))).unwrap();
    found(&kept, "names \"more.txt\", which is not in the manifest");
    fs::write(&sums, text).unwrap();
    kept.is_good();
}

#[test]
fn the_sums_by_md5_are_held_against_the_files() {
    let source = source(17);
    for format in ["custom", "plain"] {
        let site = crate::support::wreck::Site::new();
        let mut backup = site.backup(&source.url());
        let report = succeed(backup.args(["--format", format]).env("BACKUP_MD5", "true")).json();
        let kept = Kept {
            id: report["id"].as_str().unwrap().to_owned(),
            site,
            report,
        };
        kept.is_good();
        let path = kept.folder().join("MD5SUMS");
        let sums = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = sums.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let (digest, name) = line.split_once("  ").unwrap();
            let other = digest.replace(&digest[..1], if digest.starts_with('a') { "b" } else { "a" });
            let lacking: String = lines
                .iter()
                .filter(|one| *one != line)
                .map(|one| format!("{one}\n"))
                .collect();
            let mut changes = vec![sums.replace(digest, &other), lacking];
            // Each is read twice.
            if number == 0 {
                changes.extend([sums.replace(digest, "no digest"), format!("{sums}{other}  another\n")]);
            }
            for changed in changes {
                fs::write(&path, &changed).unwrap();
                let problems = kept.problems();
                assert_eq!(problems.len(), 1, "{changed}: {problems:?}");
                assert_eq!(problems[0].0, "MD5SUMS", "{changed}: {problems:?}");
                assert!(
                    problems[0].2.contains(name) || problems[0].2.contains("another"),
                    "{problems:?}"
                );
            }
        }
        // A backup need not have them.
        fs::remove_file(&path).unwrap();
        kept.is_good();
    }
}

#[test]
fn each_backup_vouches_for_the_one_before_it() {
    let source = source(17);
    let mut kept = Kept::of(&source, &[]);
    let (first, digest) = (kept.id.clone(), kept.report["manifest_sha256"].clone());
    let folder = kept.folder();
    kept.another(&source);
    assert_eq!(
        kept.manifest()["predecessor"],
        json!({"id": first, "manifest_sha256": digest})
    );
    // Altered together with its own digest.
    let path = folder.join("manifest.json");
    let whole = fs::read_to_string(&path).unwrap();
    fs::write(&path, whole.replace("\"trigger\": \"cli\"", "\"trigger\": \"api\"")).unwrap();
    reseal(&folder);
    let (report, exit, _) = kept.verify(&[&first]);
    assert_eq!(exit, 40, "{report}");
    assert!(
        report
            .to_string()
            .contains(&format!("but the manifest of {} says", kept.id)),
        "{report}"
    );
    fs::write(&path, whole).unwrap();
    reseal(&folder);
    let (report, exit, _) = kept.verify(&["--all"]);
    assert_eq!(exit, 0, "{report}");
}

#[test]
fn a_backup_from_before_there_were_digests_is_said_and_not_failed() {
    let kept = Kept::of(&source(17), &[]);
    let without = |manifest: &mut Value| {
        for field in ["digest_file", "predecessor", "stores"] {
            manifest.as_object_mut().unwrap().remove(field);
        }
        for table in manifest["tables"].as_array_mut().unwrap() {
            table.as_object_mut().unwrap().remove("owner");
        }
    };
    fs::remove_file(kept.folder().join("manifest.json.sha256")).unwrap();
    found(&kept, "but that file is missing");
    alter(&kept, without);
    fs::remove_file(kept.folder().join("manifest.json.sha256")).unwrap();
    let (report, exit, _) = kept.verify(&[&kept.id]);
    assert_eq!((exit, &report["status"]), (0, &"ok".into()), "{report}");
    assert!(
        report["warnings"][0].as_str().unwrap().contains("no digest"),
        "{report}"
    );
}

#[test]
fn a_backup_that_the_store_had_before_it_was_made_is_as_old_as_the_store_says() {
    let kept = Kept::of(&source(17), &[]);
    // Made by a clock that was two days ahead, two days ago.
    let manifest = kept.folder().join("manifest.json");
    let file = fs::File::options().write(true).open(&manifest).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(2 * 86_400))
        .unwrap();
    // No byte of it is wrong for that.
    let (report, code, _) = kept.verify(&["latest"]);
    assert_eq!(code, 0, "{report}");
    assert!(
        report["warnings"]
            .to_string()
            .contains("but the store has had it since"),
        "{report}"
    );
    let mut status = pgstow();
    status.args(["status", "--json", "--store"]).arg(kept.site.store());
    let status = crate::support::program::run(status.current_dir(kept.site.path()));
    let report = status.json();
    assert_eq!(status.status.code(), Some(1), "{report}");
    assert!(
        report["problems"]
            .to_string()
            .contains("but the store has had it since"),
        "{report}"
    );
    let age = report["databases"][0]["last_good"]["age_seconds"].as_u64().unwrap();
    assert!((172_800..180_000).contains(&age), "{report}");
}

#[test]
fn a_manifest_that_was_altered_displaces_no_good_backup() {
    let source = source(17);
    let mut kept = Kept::of(&source, &[]);
    let first = kept.id.clone();
    kept.another(&source);
    let manifest = kept.folder().join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replacen("\"rows\": 3000", "\"rows\": 3001", 1)).unwrap();
    let run = |args: &[&str]| {
        let mut command = pgstow();
        command.args(args).args(["--json", "--store"]).arg(kept.site.store());
        crate::support::program::run(command.current_dir(kept.site.path())).json()
    };
    let status = run(&["status"]);
    assert_eq!(status["databases"][0]["last_good"]["id"], first, "{status}");
    assert!(
        status["problems"].to_string().contains("manifest.json.sha256"),
        "{status}"
    );
    let pruned = run(&["prune", "--retention", "30d", "--dry-run"]);
    let reasons = pruned["stores"][0]["backups"].to_string();
    assert!(reasons.contains("one of the newest good backups"), "{pruned}");
    assert_eq!(pruned["removed"], 0, "{pruned}");
}

#[test]
fn a_digest_file_that_was_altered_is_told_and_makes_no_good_backup_a_bad_one() {
    let source = source(17);
    let mut kept = Kept::of(&source, &[]);
    let digest = kept.folder().join("manifest.json.sha256");
    let text = fs::read_to_string(&digest).unwrap();
    fs::write(
        &digest,
        text.replacen(&text[..1], if text.starts_with('0') { "1" } else { "0" }, 1),
    )
    .unwrap();
    let first = kept.id.clone();
    // No other record says which of the two is the original.
    assert_eq!(kept.verify(&[&first]).1, 40);
    kept.another(&source);
    let (report, code, _) = kept.verify(&[&first]);
    assert_eq!(code, 0, "{report}");
    assert!(
        report["warnings"]
            .to_string()
            .contains("the manifest is confirmed from elsewhere"),
        "{report}"
    );
}

#[test]
fn a_manifest_that_was_copied_from_another_store_is_good_there() {
    let source = source(17);
    let site = Site::new();
    let backup = |stores: &[&str]| {
        let mut command = pgstow();
        command.args(["backup", "--json"]).env("DATABASE_URL", source.url());
        command.args(stores.iter().flat_map(|store| ["--store", *store]));
        std::thread::sleep(Duration::from_millis(1100));
        crate::support::program::succeed(command.current_dir(site.path())).json()["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    // The copy begins later, so that its chain is another one.
    backup(&["one"]);
    let second = backup(&["one", "two"]);
    backup(&["one", "two"]);
    let folder = site.path().join("two").join(&second);
    fs::remove_dir_all(&folder).unwrap();
    let copied = crate::support::program::program("cp")
        .arg("-a")
        .arg(site.path().join("one").join(&second))
        .arg(&folder)
        .status();
    assert!(copied.unwrap().success());
    let mut verify = pgstow();
    verify.args(["verify", &second, "--json", "--store", "two"]);
    let run = crate::support::program::run(verify.current_dir(site.path()));
    assert_eq!(run.status.code(), Some(0), "{}", run.text());
    assert!(
        run.json()["warnings"].to_string().contains("was copied here"),
        "{}",
        run.text()
    );
}

#[test]
fn every_data_file_is_read_and_compared() {
    for (format, told) in [("custom", "is in another file"), ("plain", "in another file")] {
        let kept = Kept::of(&source(17), &["--format", format]);
        let (path, sums) = (kept.folder().join("more.changes"), kept.folder().join("SHA256SUMS"));
        fs::write(&path, "changes").unwrap();
        let digest = hex::encode(Sha256::digest("changes"));
        let listed = fs::read_to_string(&sums).unwrap();
        fs::write(&sums, format!("{listed}{digest}  more.changes\n")).unwrap();
        alter(&kept, |manifest| {
            manifest["files"]["changes"] = json!({"name": "more.changes", "bytes": 7, "sha256": digest});
            manifest["checksums"]["changes"] = format!("sha256:{digest}").into();
            manifest["data_files"].as_array_mut().unwrap().push(json!({
                "role": "changes", "name": "more.changes", "bytes": 7, "digests": {"sha256": digest},
                "parts": [], "encryption": null
            }));
        });
        kept.is_good();
        flip(&path, 3);
        let problems = kept.problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].0, "more.changes");
        assert!(problems[0].2.contains("has the SHA-256"), "{problems:?}");
        flip(&path, 3);
        // No version has rows there.
        alter(&kept, |manifest| manifest["tables"][0]["file"] = "more.changes".into());
        found(&kept, told);
    }
}

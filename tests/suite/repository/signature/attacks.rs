//! Attacks by a person who can write to the store and corrects all digests.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::place::{MANIFEST, SIGNATURE, Signed, keygen, line, public};
use crate::security::forging::mend_data_files;
use crate::support::bucket::Bucket;
use crate::support::database::Database;
use crate::support::program::{program, succeed};
use crate::support::services::cloud;
use crate::support::wreck::fail;

/// `SHA256SUMS` and, if wanted, the manifest say of a file what it holds now.
fn mend(signed: &Signed, role: &str, manifest_too: bool) {
    let name = signed.name(role);
    let bytes = signed.read(&name);
    let (new, length) = (hex::encode(Sha256::digest(&bytes)), bytes.len());
    let mut manifest: Value = serde_json::from_slice(&signed.read(MANIFEST)).unwrap();
    let old = manifest["files"][role]["sha256"].as_str().unwrap().to_owned();
    let sums = String::from_utf8(signed.read("SHA256SUMS"))
        .unwrap()
        .replace(&old, &new);
    signed.write("SHA256SUMS", sums);
    if manifest_too {
        manifest["files"][role]["sha256"] = new.clone().into();
        manifest["files"][role]["bytes"] = length.into();
        manifest["checksums"][role] = format!("sha256:{new}").into();
        mend_data_files(&mut manifest);
        signed.write(MANIFEST, serde_json::to_vec_pretty(&manifest).unwrap());
    }
}

/// SQL that leaves a trace on the server's machine.
fn poison(signed: &Signed) -> (String, std::path::PathBuf) {
    let marker = std::env::temp_dir().join(format!("pgstow-poison-{}", crate::support::database::unique_word()));
    let sql = format!(
        "\nDO $$ BEGIN COPY (SELECT 1) TO PROGRAM 'touch {}'; END $$;\n",
        marker.display()
    );
    assert!(!marker.exists() && signed.site.path().exists());
    (sql, marker)
}

#[test]
fn poisoned_roles_run_nowhere_whatever_sums_were_mended() {
    let signed = Signed::up(&[]);
    let (sql, marker) = poison(&signed);
    let good = signed.read("globals.sql");
    // As many bytes as before: the poison first, so that a restore would run it before it knows.
    let mut bad = sql.into_bytes();
    bad.extend_from_slice(&good);
    for manifest_too in [false, true] {
        let mut poisoned = bad.clone();
        if !manifest_too {
            poisoned.truncate(good.len());
        }
        signed.write("globals.sql", &poisoned);
        mend(&signed, "globals", manifest_too);
        if manifest_too {
            let failures = signed.refused_everywhere(signed.id(), "SIGNATURE", 47);
            assert!(
                failures[0].message.contains("does not match its content"),
                "{}",
                failures[0].message
            );
        } else {
            let target = Database::fresh(17);
            for args in [
                ["verify", signed.id(), "--drill"],
                ["restore", signed.id(), "--globals"],
            ] {
                let mut command = signed.command(&args);
                let failure = fail(command.env("BACKUP_TARGET_URL", target.url()), "INTEGRITY", 40);
                assert!(failure.message.contains("globals.sql"), "{}", failure.message);
            }
            assert_eq!(target.sql("SELECT count(*) FROM pg_class WHERE relname = 'goods'"), "0");
        }
        assert!(!marker.exists(), "{manifest_too}");
    }
}

#[test]
fn a_poisoned_table_of_contents_makes_nothing_whatever_sums_were_mended() {
    let signed = Signed::up(&[]);
    let toc = signed.name("toc");
    let good = signed.read(&toc);
    // Another definition of the same length.
    let (from, to) = (b"<> 'seldom'".as_slice(), b"<> 'nowise'".as_slice());
    let at = good.windows(from.len()).position(|window| window == from).unwrap();
    let mut bad = good.clone();
    bad[at..at + to.len()].copy_from_slice(to);
    signed.write(&toc, &bad);
    mend(&signed, "toc", false);
    let failures = signed.refused_everywhere(signed.id(), "INTEGRITY", 40);
    assert!(failures.iter().all(|failure| failure.message.contains(&toc)));
    mend(&signed, "toc", true);
    signed.refused_everywhere(signed.id(), "SIGNATURE", 47);
    // Without keys all of this fits together, which is why there are keys.
    succeed(&mut signed.trusting(
        "",
        &[
            "restore",
            signed.id(),
            "--dry-run",
            "--target",
            &Database::fresh(17).url(),
        ],
    ));
}

#[test]
fn a_poisoned_script_runs_nowhere() {
    let signed = Signed::up(&["--format", "plain", "--compress", "none"]);
    let (sql, marker) = poison(&signed);
    let mut script = sql.into_bytes();
    script.extend_from_slice(&signed.read(&signed.name("sql")));
    signed.write(&signed.name("sql"), script);
    mend(&signed, "sql", true);
    signed.refused_everywhere(signed.id(), "SIGNATURE", 47);
    assert!(!marker.exists());
}

#[test]
fn what_is_wrong_with_a_signature_is_named() {
    let mut signed = Signed::up(&[]);
    let old = signed.read(SIGNATURE);
    let old_manifest = signed.read(MANIFEST);
    signed.another();
    let good = signed.read(SIGNATURE);
    let manifest = signed.read(MANIFEST);
    let text = String::from_utf8(good.clone()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let with = |line: usize, new: &str| {
        let mut lines = lines.clone();
        lines[line] = new;
        (lines.join("\n") + "\n").into_bytes()
    };
    let flipped = |line: usize, at: usize| {
        let mut bytes = STANDARD.decode(lines[line]).unwrap();
        bytes[at] ^= 1;
        with(line, &STANDARD.encode(bytes))
    };
    let comment = lines[2].replace(signed.id(), "shop/20200101T000000Z-full");
    let wrong: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "cannot be read"),
        (b"\0\xff\xfe".to_vec(), "cannot be read"),
        (vec![b'a'; 1 << 20], "too long for a signature"),
        (good[..good.len() / 2].to_vec(), "cannot be read"),
        (good[..good.len() - 20].to_vec(), "cannot be read"),
        ([&good[..], &good].concat(), "more text after its end"),
        (flipped(1, 0), "does not match its content"),
        (flipped(1, 3), "not among BACKUP_VERIFY_KEYS"),
        (flipped(1, 20), "does not match its content"),
        (with(2, &comment), "trusted comment was changed"),
        (flipped(3, 20), "trusted comment was changed"),
        (old.clone(), "does not match its content"),
    ];
    for (bytes, why) in wrong {
        signed.write(SIGNATURE, &bytes);
        let failure = fail(&mut signed.command(&["verify", "latest"]), "SIGNATURE", 47);
        assert!(failure.message.contains(why), "{why}: {}", failure.message);
        assert!(failure.message.contains(signed.id()), "{}", failure.message);
    }
    signed.write(SIGNATURE, &good);
    for (at, why) in [
        (manifest.len() / 2, "does not match its content"),
        (0, "does not match its content"),
    ] {
        let mut changed = manifest.clone();
        changed[at] ^= 1;
        signed.write(MANIFEST, changed);
        let failure = fail(&mut signed.command(&["verify", signed.id()]), "SIGNATURE", 47);
        assert!(failure.message.contains(why), "{}", failure.message);
    }
    // The old backup in the new one's place, signature and all.
    signed.write(MANIFEST, &old_manifest);
    signed.write(SIGNATURE, &old);
    let failures = signed.refused_everywhere("latest", "SIGNATURE", 47);
    assert!(
        failures[0].message.contains("a signature of another file"),
        "{}",
        failures[0].message
    );
    // No signature at all, for the latest: the one before it is not taken instead.
    signed.write(MANIFEST, &manifest);
    fs::remove_file(signed.folder().join(SIGNATURE)).unwrap();
    let failures = signed.refused_everywhere("latest", "SIGNATURE", 47);
    for failure in failures {
        assert!(failure.message.contains(signed.id()) && failure.message.contains("is not signed"));
    }
    signed.write(SIGNATURE, &good);
    signed.accepted(&line(&signed.key));
}

#[test]
fn an_old_backup_that_stock_minisign_signed_does_not_pass_for_a_new_one() {
    let mut signed = Signed::up(&[]);
    let sign = |signed: &Signed| {
        let key = signed.key.to_str().unwrap();
        succeed(&mut signed.minisign(&["-S", "-W", "-s", key, "-m", MANIFEST]));
        (signed.read(MANIFEST), signed.read(SIGNATURE))
    };
    let (manifest, signature) = sign(&signed);
    signed.another();
    signed.write(MANIFEST, manifest);
    signed.write(SIGNATURE, signature);
    let failures = signed.refused_everywhere(signed.id(), "INTEGRITY", 40);
    assert!(
        failures[0].message.contains("copied or moved"),
        "{}",
        failures[0].message
    );
}

#[test]
fn one_of_several_keys_is_enough_and_another_ones_signature_is_not() {
    let signed = Signed::up(&[]);
    let other = keygen(&signed.site, "other");
    let keys = format!("{} {}", public(&other).display(), line(&signed.key));
    signed.accepted(&keys);
    fail(
        &mut signed.trusting(&line(&other), &["verify", "latest"]),
        "SIGNATURE",
        47,
    );
    // Flags name them as well.
    let mut verify = signed.trusting("", &["verify", "latest", "--verify-key", &line(&other)]);
    fail(&mut verify, "SIGNATURE", 47);
    succeed(verify.arg("--verify-key").arg(public(&signed.key)));
    // A key that goes by the id of the trusted one.
    let mut forged = STANDARD.decode(line(&other)).unwrap();
    forged[2..10].copy_from_slice(&STANDARD.decode(line(&signed.key)).unwrap()[2..10]);
    let forged = STANDARD.encode(forged);
    let failure = fail(&mut signed.trusting(&forged, &["verify", "latest"]), "SIGNATURE", 47);
    assert!(
        failure.message.contains("does not match its content"),
        "{}",
        failure.message
    );
    signed.accepted(&format!("{forged} {}", line(&signed.key)));
}

#[test]
fn without_keys_the_manifests_digest_names_the_one_that_is_meant() {
    let signed = Signed::up(&[]);
    let digest = hex::encode(Sha256::digest(signed.read(MANIFEST)));
    assert_eq!(signed.report["manifest_sha256"], digest.as_str());
    let target = Database::fresh(17);
    let wrong = "ab".repeat(32);
    let file = signed.site.path().join("file");
    for which in ["latest", signed.id()] {
        let commands: [&[&str]; 3] = [
            &["verify", which],
            &["restore", which],
            &["download", which, "-o", file.to_str().unwrap(), "--force"],
        ];
        for args in commands {
            let command = |digest: &str| {
                let mut command = signed.trusting("", args);
                command
                    .args(["--expect-manifest", digest])
                    .env("BACKUP_TARGET_URL", target.url());
                command
            };
            let failure = fail(&mut command(&wrong), "INTEGRITY", 40);
            assert!(failure.message.contains(&digest) && failure.message.contains(&wrong));
            fail(&mut command("abc"), "CONFIG", 2);
            if args[0] != "restore" || which == "latest" {
                let report = succeed(&mut command(&format!("sha256:{digest}"))).json();
                assert_eq!(report["manifest_sha256"], digest.as_str(), "{report}");
            }
        }
    }
    let mut all = signed.trusting("", &["verify", "--all", "--expect-manifest", &digest]);
    fail(&mut all, "CONFIG", 2);
    // A whole forged backup fits together, and is not the one that was reported.
    signed.write("globals.sql", "-- nothing");
    mend(&signed, "globals", true);
    let mut verify = signed.trusting("", &["verify", "latest", "--expect-manifest", &digest]);
    fail(&mut verify, "INTEGRITY", 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_and_its_copy_are_signed_each_and_a_forged_object_is_refused() {
    let bucket = Bucket::fresh().await;
    let site = crate::support::wreck::Site::new();
    let (key, source) = (keygen(&site, "key"), super::place::source());
    let store = bucket.url("pg");
    let mut backup = site.backup(&source.url());
    backup.args(["--store", &store, "--sign-key"]).arg(&key);
    let report = succeed(cloud(&mut backup)).json();
    let id = report["id"].as_str().unwrap();
    let prefix = format!("pg/{id}/");
    let tags = bucket.tags(&format!("{prefix}{SIGNATURE}")).await;
    assert_eq!(tags["pgstow-tier"], "latest");
    let copies = site.path().join("from-s3");
    fs::create_dir(&copies).unwrap();
    for (folder, url) in [(site.store().join(id), 0), (copies.clone(), 1)] {
        if url == 1 {
            for file in [MANIFEST, SIGNATURE] {
                fs::write(folder.join(file), bucket.get(&format!("{prefix}{file}")).await).unwrap();
            }
        }
        let mut minisign = program("minisign");
        succeed(
            minisign
                .args(["-V", "-m", MANIFEST, "-P", &line(&key)])
                .current_dir(&folder),
        );
        let digest = hex::encode(Sha256::digest(fs::read(folder.join(MANIFEST)).unwrap()));
        assert_eq!(report["stores"][url]["manifest_sha256"], digest.as_str(), "{report}");
    }
    let command = |args: &[&str]| {
        let mut command = crate::support::program::pgstow();
        command
            .args(args)
            .args(["--json", "--store", &store])
            .env("BACKUP_VERIFY_KEYS", line(&key));
        command.env("TMPDIR", site.path().join("tmp")).current_dir(site.path());
        cloud(&mut command);
        command
    };
    succeed(command(&["verify", "latest"]).arg("--sign-key").arg(&key));
    let tags = bucket.tags(&format!("{prefix}verification.json.minisig")).await;
    assert_eq!(tags["pgstow-tier"], "latest");
    let listed = succeed(&mut command(&["list"])).json();
    assert_eq!(listed["backups"][0]["signature"]["state"], "signed", "{listed}");
    assert_eq!(listed["backups"][0]["verified"]["status"], "ok", "{listed}");

    let manifest = bucket.get(&format!("{prefix}{MANIFEST}")).await;
    bucket
        .put(&format!("{prefix}{MANIFEST}"), &[&manifest[..], b"\n"].concat())
        .await;
    let target = Database::fresh(17);
    for args in [
        &["verify", "latest"][..],
        &["restore", "latest"],
        &["download", id, "-o", "x"],
    ] {
        // Nor is the folder's copy taken instead.
        let mut command = command(args);
        command
            .arg("--store")
            .arg(site.store())
            .env("BACKUP_TARGET_URL", target.url());
        fail(&mut command, "SIGNATURE", 47);
    }
    bucket.put(&format!("{prefix}{MANIFEST}"), &manifest).await;
    bucket.put(&format!("{prefix}{SIGNATURE}"), b"").await;
    let failure = fail(&mut command(&["verify", "latest"]), "SIGNATURE", 47);
    assert!(failure.message.contains("cannot be read"), "{}", failure.message);
}

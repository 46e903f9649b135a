//! What was asked for is verified, and nothing in its place.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::job::verify::place::{Kept, source};
use crate::support::database::Database;
use crate::support::program::{pgstow, run, succeed};
use crate::support::wreck::{Site, fail};

fn cut(path: &Path) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() - 1).unwrap();
}

#[test]
fn the_latest_is_the_newest_whatever_is_wrong_with_it() {
    let source = source(17);
    let mut kept = Kept::of(&source, &[]);
    let first = kept.id.clone();
    kept.another(&source);
    let (dump, manifest) = (kept.file("dump"), kept.folder().join("manifest.json"));
    for broken in [&dump, &manifest] {
        let whole = fs::read(broken).unwrap();
        cut(broken);
        for args in [&["latest"][..], &["latest", "--drill"]] {
            let (report, exit, stderr) = kept.verify(args);
            assert_eq!(
                (exit, &report["error"]["code"]),
                (40, &"INTEGRITY".into()),
                "{report}\n{stderr}"
            );
            assert_eq!(report["id"], kept.id.as_str());
            assert_eq!(
                report["problems"][0]["file"],
                broken.file_name().unwrap().to_str().unwrap()
            );
            assert_eq!(report["drill"], Value::Null);
        }
        fs::write(broken, whole).unwrap();
        if broken == &dump {
            let kept = fs::read_to_string(kept.folder().join("verification.json")).unwrap();
            assert!(kept.contains("\"failed\""), "{kept}");
        }
    }
    let (report, exit, _) = kept.verify(&["latest"]);
    assert_eq!((exit, &report["id"]), (0, &kept.id.as_str().into()), "{report}");
    kept.id = first;
    kept.is_good();
}

#[test]
fn a_backup_is_verified_in_every_store_and_no_copy_stands_for_another() {
    let (site, source) = (Site::new(), Database::fresh(17));
    source.sql("CREATE TABLE t AS SELECT n FROM generate_series(1, 100) n");
    let both = ["one", "two"].map(|name| site.path().join(name));
    let with = |args: &[&str]| {
        let mut command = pgstow();
        command.args(args).arg("--json").current_dir(site.path());
        command.args(both.iter().flat_map(|store| [Path::new("--store"), store]));
        command
            .env("TMPDIR", site.path().join("tmp"))
            .env("DATABASE_URL", source.url());
        command
    };
    let verify = |args: &[&str]| {
        let run = run(&mut with(&[&["verify"], args].concat()));
        (run.json(), run.status.code().unwrap())
    };
    let backup = || {
        let report = succeed(&mut with(&["backup"])).json();
        std::thread::sleep(std::time::Duration::from_millis(1100));
        report["id"].as_str().unwrap().to_owned()
    };
    let (older, newest) = (backup(), backup());
    let (report, exit) = verify(&[&newest]);
    assert_eq!((exit, &report["copies"][0]["status"]), (0, &"ok".into()), "{report}");
    assert!(
        report["copies"][0]["store"].as_str().unwrap().ends_with("/two"),
        "{report}"
    );
    let (report, exit) = verify(&["--all"]);
    assert_eq!((exit, report["backups"].as_array().unwrap().len()), (0, 4), "{report}");

    let name = format!("{}.dump", source.name);
    for (broken, other) in [(0, 1), (1, 0)] {
        let [broken, other] = [broken, other].map(|at: usize| both[at].join(&newest).join(&name));
        fs::remove_file(&broken).unwrap();
        for args in [&[newest.as_str()][..], &["latest"], &["--all"]] {
            let (report, exit) = verify(args);
            assert_eq!(
                (exit, &report["error"]["code"]),
                (40, &"INTEGRITY".into()),
                "{args:?}: {report}"
            );
            assert!(!report.to_string().contains("is used instead"), "{report}");
        }
        // A restore takes it from the store that has it.
        let downloaded = succeed(&mut with(&["download", "latest", "-o", "it.dump", "--force"])).json();
        assert_eq!(downloaded["id"], newest.as_str());
        fs::copy(other, broken).unwrap();
    }

    // A copy that has none of it is told.
    let (aside, gone) = (site.path().join("aside"), both[1].join(&newest));
    fs::rename(&gone, &aside).unwrap();
    for args in [&[newest.as_str()][..], &["latest"], &["--all"]] {
        let (report, exit) = verify(args);
        assert_eq!(exit, 0, "{report}");
        assert!(
            report.to_string().contains(&format!("does not hold {newest}")),
            "{report}"
        );
    }
    fs::rename(&aside, &gone).unwrap();
    // The first store has lost its newest: the one before is not the latest.
    fs::rename(both[0].join(&newest), &aside).unwrap();
    let (report, exit) = verify(&["latest"]);
    assert_eq!((exit, &report["id"]), (40, &newest.as_str().into()), "{report}");
    assert!(
        report["problems"][0]["what"]
            .as_str()
            .unwrap()
            .contains("was made for this store"),
        "{report}"
    );
    let failed = run(&mut with(&["verify", &newest]));
    assert_eq!(failed.status.code(), Some(42), "{}", failed.text());
    let (report, exit) = verify(&[&older, "--drill"]);
    assert_eq!(
        (exit, &report["drill"]["status"], &report["copies"][0]["drill"]),
        (0, &"ok".into(), &Value::Null)
    );
    // A copy that cannot be asked is no copy that is good.
    fs::rename(&both[1], site.path().join("unmounted")).unwrap();
    for args in [&["latest"][..], &[older.as_str()], &["--all"]] {
        let (report, exit) = verify(args);
        assert_eq!((exit, &report["error"]["code"]), (33, &"ENOENT".into()), "{report}");
    }
}

#[test]
fn a_manifest_whose_digest_was_taken_away_is_held_against_all_others_that_know_it() {
    let source = source(17);
    let mut kept = Kept::of(&source, &[]);
    let (older, folder) = (kept.id.clone(), kept.folder());
    kept.another(&source);
    let alter = |folder: &Path| {
        let path = folder.join("manifest.json");
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, whole.replace("\"rows\": 3000", "\"rows\": 3001")).unwrap();
        whole
    };
    let with = |args: &[&str]| {
        let mut command = pgstow();
        command.args(args).args(["--json", "--store"]).arg(kept.site.store());
        command.current_dir(kept.site.path());
        command
    };
    // The next backup knows the one before it.
    fs::remove_file(folder.join("manifest.json.sha256")).unwrap();
    let whole = alter(&folder);
    for args in [
        &["download", &older, "-o", "x"][..],
        &["restore", &older, "--target", "postgres://x@127.0.0.1:1/y"],
    ] {
        let failure = fail(&mut with(args), "INTEGRITY", 40);
        assert!(
            failure.message.contains("manifest.json.sha256 is missing"),
            "{}",
            failure.message
        );
    }
    let listed = run(&mut with(&["list"])).json();
    assert!(
        listed["problems"].to_string().contains("manifest was changed"),
        "{listed}"
    );
    fs::write(folder.join("manifest.json"), whole).unwrap();
    let report = succeed(&mut with(&["download", &older, "-o", "x"])).json();
    assert!(
        report["warnings"]
            .to_string()
            .contains("the manifest is confirmed from elsewhere"),
        "{report}"
    );
    assert_eq!(
        run(&mut with(&["list"])).json()["problems"]
            .as_array()
            .map_or(0, Vec::len),
        0
    );

    // No other record has the digest of the newest.
    fs::remove_file(kept.folder().join("manifest.json.sha256")).unwrap();
    alter(&kept.folder());
    let report = run(&mut with(&["download", "latest", "-o", "y", "--force"]));
    assert!(
        report.text().contains("nothing else confirms the manifest"),
        "{}",
        report.text()
    );
    for command in ["list", "status"] {
        let report = run(&mut with(&[command])).json();
        assert!(
            report["problems"].to_string().contains("nothing else confirms"),
            "{report}"
        );
    }
    assert_eq!(kept.verify(&["latest"]).1, 40);
    let digest = kept.report["manifest_sha256"].as_str().unwrap();
    fail(
        &mut with(&["download", "latest", "-o", "z", "--expect-manifest", digest]),
        "INTEGRITY",
        40,
    );
}

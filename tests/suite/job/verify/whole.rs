//! Backups that are whole.

use std::fs;

use serde_json::Value;

use crate::job::verify::place::{Kept, source};
use crate::support::database::Database;
use crate::support::program::{pgstow, run, succeed};

fn passes(source: &Database, options: &[&str]) {
    let kept = Kept::of(source, options);
    let before = kept.content();
    let (report, exit, stderr) = kept.verify(&[&kept.id]);
    assert_eq!(
        (exit, &report["status"]),
        (0, &"ok".into()),
        "{options:?}: {report}\n{stderr}"
    );
    assert_eq!(report["id"], kept.id.as_str());
    for absent in ["problems", "warnings", "error"] {
        assert_eq!(report[absent], Value::Null, "{report}");
    }
    assert_eq!(report["files"], kept.report["files"].as_object().unwrap().len());
    assert_eq!(report["tables"], kept.manifest()["tables"].as_array().unwrap().len());
    // Every byte of every file that the backup has stored, as its own report counts them.
    assert_eq!(report["bytes"], kept.report["bytes_stored"], "{report}");

    // It has written its result, and nothing else.
    let mut after = kept.content();
    let written = after.remove(&format!("{}/verification.json", kept.id)).unwrap();
    assert!(after == before);
    let written: Value = serde_json::from_slice(&written).unwrap();
    assert_eq!(
        (&written["schema"], &written["id"]),
        (&1.into(), &kept.id.as_str().into())
    );
    assert_eq!(written["verify"]["status"], "ok");
    assert!(
        written["verify"]["at"]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .is_ok()
    );
    // And those who read it understand it.
    let list = run(pgstow()
        .args(["list", "--json", "--store"])
        .arg(kept.site.store())
        .current_dir(kept.site.path()))
    .json();
    assert_eq!(list["backups"][0]["verified"]["status"], "ok", "{list}");
}

#[test]
fn a_backup_of_each_compression_and_format_passes() {
    let rich = Database::loaded(15, "rich.sql");
    passes(&rich, &["--compress", "gzip"]);
    passes(&rich, &["--compress", "zstd", "--format", "plain"]);
    let other = source(17);
    passes(&other, &["--compress", "zstd"]);
    passes(&other, &["--compress", "none"]);
    passes(&other, &["--compress", "gzip:9"]);
    passes(&other, &["--compress", "gzip", "--format", "plain"]);
    passes(&other, &["--compress", "none", "--format", "plain"]);
    passes(&Database::fresh(18), &[]);
}

#[test]
fn a_store_that_may_not_be_written_gives_a_warning_and_the_result_all_the_same() {
    let kept = Kept::of(&source(17), &[]);
    // root writes wherever it likes, but not where a folder stands.
    fs::create_dir(kept.folder().join("verification.json")).unwrap();
    fs::write(kept.folder().join("verification.json/x"), "").unwrap();
    let (report, exit, _) = kept.verify(&[&kept.id]);
    assert_eq!((exit, &report["status"]), (0, &"ok".into()), "{report}");
    let warnings = report["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0]
            .as_str()
            .unwrap()
            .contains("could not be written beside the backup"),
        "{report}"
    );
}

#[test]
fn all_goes_on_past_a_broken_one_and_since_leaves_the_old_aside() {
    let source = source(17);
    let mut kept = Kept::of(&source, &[]);
    let first = kept.id.clone();
    kept.another(&source);
    let (second, damaged) = (kept.id.clone(), kept.file("dump"));
    kept.another(&source);
    let third = kept.id.clone();
    let (report, exit, _) = kept.verify(&["--all"]);
    assert_eq!(exit, 0, "{report}");
    let at = kept.block("first").0 + 500;
    crate::job::verify::place::flip(&damaged, at);
    fs::write(kept.site.store().join(&third).join("manifest.json"), "{\"schema\": 1, ").unwrap();
    let (report, exit, _) = kept.verify(&["--all"]);
    assert_eq!((exit, &report["error"]["code"]), (40, &"INTEGRITY".into()), "{report}");
    let told: Vec<(&str, &str)> = report["backups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["id"].as_str().unwrap(), one["status"].as_str().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            (third.as_str(), "failed"),
            (second.as_str(), "failed"),
            (first.as_str(), "ok")
        ]
    );
    assert_eq!(report["backups"][0]["problems"][0]["file"], "manifest.json");
    assert!(
        report["error"]["message"]
            .as_str()
            .unwrap()
            .contains("2 backups differ"),
        "{report}"
    );

    let moment = kept.manifest_of(&second);
    let (report, exit, _) = kept.verify(&["--all", "--since", &moment]);
    assert_eq!(exit, 40);
    assert_eq!(report["backups"].as_array().unwrap().len(), 2, "{report}");
    let (report, exit, _) = kept.verify(&["--all", "--since", "2100-01-01"]);
    assert_eq!((exit, &report["error"]["code"]), (42, &"NOT_FOUND".into()), "{report}");
}

#[test]
fn all_are_all_whatever_database_the_settings_read() {
    let (one, other) = (source(17), source(17));
    let kept = Kept::of(&one, &[]);
    let report = succeed(&mut kept.site.backup(&other.url())).json();
    let damaged = kept.site.store().join(report["id"].as_str().unwrap());
    let damaged = damaged.join(report["files"]["dump"]["name"].as_str().unwrap());
    crate::job::verify::place::flip(&damaged, 5000);
    let verify = |args: &[&str]| {
        let mut verify = pgstow();
        verify
            .args(["verify", "--all", "--json", "--store"])
            .arg(kept.site.store())
            .args(args);
        run(verify.env("DATABASE_URL", one.url()).current_dir(kept.site.path()))
    };
    let all = verify(&[]);
    assert_eq!(
        (all.status.code(), all.json()["backups"].as_array().unwrap().len()),
        (Some(40), 2)
    );
    let mine = verify(&["--database", &one.name]);
    assert_eq!(
        (mine.status.code(), mine.json()["backups"].as_array().unwrap().len()),
        (Some(0), 1)
    );
}

impl Kept {
    fn manifest_of(&self, id: &str) -> String {
        let manifest = fs::read(self.site.store().join(id).join("manifest.json")).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let second = manifest["timestamp"].as_str().unwrap();
        // Ids have whole seconds.
        let moment: jiff::Timestamp = second.parse().unwrap();
        jiff::Timestamp::from_second(moment.as_second()).unwrap().to_string()
    }
}

//! Partitions that pg_dump loads through their root: by hash over an enum, whose values have other hashes in
//! every database.

use std::fs;

use serde_json::Value;

use super::{assert_proved, drill, drill_with_injuries, problems, results};
use crate::support::database::Database;
use crate::support::program::{pgstow, run, stock, succeed};
use crate::support::wreck::{Site, report};

const SCHEMA: &str = "the \"schema\".";

/// All that an archive says, as stock pg_restore writes it, and every table's digest.
fn contents(site: &Site, database: &Database, jobs: usize) -> (String, Vec<Value>) {
    let store = site.path().join(format!("jobs-{jobs}"));
    let mut command = site.backup_into(&database.url(), &store);
    let told = report(command.args(["--jobs", &jobs.to_string()]));
    assert!(told["warnings"].is_null(), "{told:#}");
    let folder = store.join(told["id"].as_str().unwrap());
    let manifest: Value = serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    let dump = folder.join(manifest["files"]["dump"]["name"].as_str().unwrap());
    let text = succeed(stock(database.major, "pg_restore").args(["-f", "-"]).arg(dump)).text();
    // A word of the moment, against what else a script might hold.
    let lines = text.lines().filter(|line| !line.contains("restrict "));
    let digests = manifest["tables"].as_array().unwrap().iter();
    (
        lines.collect::<Vec<_>>().join("\n"),
        digests.map(|table| table["sha256"].clone()).collect(),
    )
}

fn many_streams_read_them_as_pg_dump_does_and_they_are_proved_together(major: u32) {
    let (site, database) = (Site::new(), Database::loaded(major, "roots.sql"));
    assert!(
        contents(&site, &database, 1) == contents(&site, &database, 4),
        "{major}"
    );
    for jobs in [1, 4] {
        fs::rename(site.path().join(format!("jobs-{jobs}")), site.store()).unwrap();
        assert_proved(&succeed(&mut drill(&site)).json());
        fs::remove_dir_all(site.store()).unwrap();
    }
    site.assert_nothing_runs();
}

on_majors! { many_streams_read_them_as_pg_dump_does_and_they_are_proved_together: 15 16 17 18 }

fn a_row_that_is_injured_in_a_partition_is_found(major: u32) {
    let (site, database) = (Site::new(), Database::loaded(major, "roots.sql"));
    succeed(site.backup(&database.url()).args(["--jobs", "4"]));
    let injuries = r#"UPDATE "the ""schema""."."root (a, b)" SET "say ""hi"", (x)" = 'other' WHERE id = 7;
        DELETE FROM "the ""schema"".".mixed WHERE kind = 'hashed' AND n = 3;"#;
    let run = drill_with_injuries(&site, major, injuries);
    assert_eq!(run.status.code(), Some(40), "{}", run.stderr);
    let told = run.json();
    let mut named = problems(&told);
    named.sort();
    assert_eq!(
        named,
        [
            (
                format!("{SCHEMA}.mixed"),
                "has 99 rows in its partitions, the backup 100".to_owned()
            ),
            (
                format!("{SCHEMA}.root (a, b)"),
                "has partitions with as many rows as in the backup, and other ones".to_owned()
            ),
        ]
    );
    let mut differ: Vec<String> = results(&told)
        .into_iter()
        .filter(|(_, result)| result == "differs")
        .map(|(name, _)| name)
        .collect();
    differ.sort();
    let leaves = ["leaf, 0", "leaf_1", "leaf_2_high", "leaf_2_low", "leaf_3"];
    let hashed = ["mixed_hashed_0", "mixed_hashed_1"];
    let all: Vec<String> = leaves
        .iter()
        .chain(&hashed)
        .map(|name| format!("{SCHEMA}.{name}"))
        .collect();
    assert_eq!(differ, all);
}

on_majors! { a_row_that_is_injured_in_a_partition_is_found: 15 16 17 18 }

/// In the same database the values have the same hashes: there a partition can be had back by itself.
#[test]
fn a_partition_by_itself_gets_its_own_rows_and_its_neighbours_none() {
    let (site, database) = (Site::new(), Database::loaded(17, "roots.sql"));
    succeed(site.backup(&database.url()).args(["--jobs", "2"]));
    let count = |table: &str| database.sql(&format!("SELECT count(*) FROM \"the \"\"schema\"\".\".{table}"));
    let tables = ["\"leaf, 0\"", "leaf_1", "leaf_2_low", "leaf_2_high", "leaf_3"];
    let before = tables.map(count);
    let restore = |options: &[&str], table: &str| {
        let mut command = pgstow();
        command
            .args(["restore", "latest", "--store"])
            .arg(site.store())
            .args(["--target", &database.url(), "--table", &format!("{SCHEMA}.{table}")])
            .args(options)
            .env("TMPDIR", site.path().join("tmp"));
        run(&mut command)
    };
    for table in ["leaf, 0", "leaf_1", "leaf_3", "leaf_2_low"] {
        for options in [&["--clean"][..], &["--data-only", "--clean"]] {
            let done = restore(options, table);
            assert!(done.status.success(), "{table} {options:?}: {}", done.stderr);
            assert_eq!(tables.map(count), before, "{table} {options:?}");
        }
    }
    for options in [&["--clean"][..], &["--data-only", "--clean"]] {
        let done = restore(options, "root (a, b)");
        assert!(done.status.success(), "{options:?}: {}", done.stderr);
        let all = database.sql("SELECT count(*) FROM \"the \"\"schema\"\".\".\"root (a, b)\"");
        assert_eq!(all, "1000", "{options:?}");
    }
}

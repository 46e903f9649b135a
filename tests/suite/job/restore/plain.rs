//! Plain backups: a script for psql, all of it or nothing.

use rustix::process::Signal;

use crate::job::restore::place::{Backed, copy, flip, three};
use crate::support::contents::Contents;
use crate::support::database::Database;
use crate::support::wreck::assert_no_session;

fn comes_back(major: u32, compress: &str) {
    let backed = Backed::up(
        Database::loaded(major, "rich.sql"),
        &["--format", "plain", "--compress", compress],
    );
    let target = Database::fresh(major);
    let report = backed.restored(&target, &[]);
    Contents::of(&backed.source).assert_equals(&Contents::of(&target));
    // The numbers are those of the backup, and what a script does not count is left out.
    for field in ["tables", "rows", "large_objects", "definitions"] {
        assert!(report[field].as_u64().unwrap() > 0, "{field}: {report:#}");
    }
    assert_eq!(
        report["bytes_read"],
        std::fs::metadata(backed.file("sql")).unwrap().len(),
        "{report:#}"
    );
    for field in ["finishing", "pg_restore"] {
        assert!(report.get(field).is_none(), "{field}: {report:#}");
    }
}

#[test]
fn the_rich_database_comes_back_from_a_gzip_script_of_15() {
    comes_back(15, "gzip");
}

#[test]
fn the_rich_database_comes_back_from_a_zstd_script_of_18() {
    comes_back(18, "zstd");
}

#[test]
fn a_script_that_nobody_has_counted_is_restored_without_numbers() {
    let backed = Backed::up(three(17), &["--format", "plain"]);
    let manifest = backed.folder().join("manifest.json");
    let mut older: serde_json::Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
    let older = older.as_object_mut().unwrap();
    older.remove("script");
    older.insert("tables".into(), serde_json::json!([]));
    std::fs::write(&manifest, serde_json::to_vec(older).unwrap()).unwrap();
    crate::support::wreck::reseal(&backed.folder());
    let target = Database::fresh(17);
    let report = backed.restored(&target, &[]);
    for field in ["tables", "rows", "large_objects", "definitions", "finishing"] {
        assert!(report.get(field).is_none(), "{field}: {report:#}");
    }
    assert!(report["bytes_read"].as_u64().unwrap() > 0, "{report:#}");
}

#[test]
fn a_flipped_bit_or_a_statement_that_fails_leaves_the_target_as_it_was() {
    for compress in ["none", "zstd", "gzip"] {
        let backed = Backed::up(three(17), &["--format", "plain", "--compress", compress]);
        let file = backed.file("sql");
        // More than pg_dump wrote: a bomb need not be passed on to its end.
        let manifest = backed.folder().join("manifest.json");
        let whole = std::fs::read(&manifest).unwrap();
        let mut less: serde_json::Value = serde_json::from_slice(&whole).unwrap();
        less["metadata"]["bytes_read"] = (less["metadata"]["bytes_read"].as_u64().unwrap() - 1).into();
        std::fs::write(&manifest, less.to_string()).unwrap();
        crate::support::wreck::reseal(&backed.folder());
        let target = Database::fresh(17);
        let failed = backed.refused(&target.url(), &[], "INTEGRITY", 40);
        assert!(
            failed.message.contains("contains more SQL than the manifest says"),
            "{}",
            failed.message
        );
        std::fs::write(&manifest, whole).unwrap();
        crate::support::wreck::reseal(&backed.folder());
        let middle = std::fs::metadata(&file).unwrap().len() / 2;
        flip(&file, usize::try_from(middle).unwrap());
        // Before anything is changed, and so before the database is replaced by a new one.
        target.sql("CREATE TABLE mark ()");
        crate::job::restore::place::untouched(&target, || {
            let failed = backed.refused(&target.url(), &["--create", "--clean"], "INTEGRITY", 40);
            assert!(failed.message.contains(".sql"), "{}", failed.message);
            assert!(
                failed.message.contains("nothing was changed in the target"),
                "{}",
                failed.message
            );
        });
        target.sql("DROP TABLE mark");
        backed.refused(&target.url(), &[], "INTEGRITY", 40);
        flip(&file, usize::try_from(middle).unwrap());
        backed.restored(&target, &[]);
        Contents::of(&backed.source).assert_equals(&Contents::of(&target));
    }
}

#[test]
fn a_script_knows_no_single_tables_and_fills_only_an_empty_database() {
    let backed = Backed::up(three(17), &["--format", "plain"]);
    let target = copy(&backed.source);
    crate::job::restore::place::untouched(&target, || {
        let refused = backed.refused(&target.url(), &["--table", "public.a"], "CONFIG", 2);
        assert!(refused.message.contains("--table"), "{}", refused.message);
        let refused = backed.refused(&target.url(), &["--clean"], "CONFIG", 2);
        assert!(refused.hint.contains("--create"), "{}", refused.hint);
        backed.refused(&target.url(), &[], "RESTORE_ERR", 41);
    });
}

#[test]
fn a_script_that_is_stopped_or_killed_midway_leaves_the_target_as_it_was() {
    let source = Database::fresh(17);
    source.sql("CREATE TABLE t AS SELECT n, md5(n::text) AS text FROM generate_series(1, 1000000) n");
    let backed = Backed::up(source, &["--format", "plain"]);
    let target = Database::fresh(17);
    let before = Contents::of(&target);
    for signal in [Signal::KILL, Signal::TERM, Signal::KILL] {
        let mut running = backed.site.start(&mut backed.restore(&target.url(), &[]));
        running.until("rows are on their way", || {
            target.sql("SELECT count(*) FROM pg_stat_progress_copy WHERE datname = current_database() AND tuples_processed > 1000") == "1"
        });
        running.signal(signal);
        let run = running.end(std::time::Duration::from_secs(20));
        if signal == Signal::TERM {
            let told = crate::job::restore::place::ended(&run, "INTERRUPTED", 143);
            assert!(told.message.contains("the target is as it was"), "{}", told.message);
            backed.site.assert_nothing_runs();
        }
        let patience = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while !backed.site.processes().is_empty() && std::time::Instant::now() < patience {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(backed.site.processes(), [""; 0]);
        let busy =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
        while target.sql(busy) != "0" && std::time::Instant::now() < patience {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        before.assert_equals(&Contents::of(&target));
    }
    backed.restored(&target, &[]);
    assert_no_session(&target);
    assert_eq!(target.sql("SELECT count(*) FROM t"), "1000000");
}

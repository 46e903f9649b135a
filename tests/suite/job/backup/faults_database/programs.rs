use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::database::Database;
use crate::support::impostor::{bin_with, write_script};
use crate::support::services::postgres_bin;
use crate::support::wreck::{Site, assert_good, fail, report};

const BOTH: [&str; 2] = ["pg_dump", "pg_dumpall"];

#[test]
fn no_pg_dump_at_all_is_pg_dump_err() {
    let (site, database) = (Site::new(), Database::fresh(15));
    let empty = bin_with(site.path(), "empty", 15, &[]);
    let mut command = site.backup(&database.url());
    let failure = fail(command.env("BACKUP_PG_BIN", &empty), "PG_DUMP_ERR", 20);
    assert!(failure.message.contains(empty.to_str().unwrap()), "{}", failure.message);
    assert!(failure.hint.contains("BACKUP_PG_BIN"), "{}", failure.hint);
    site.assert_nothing_is_left_of(&database);
    assert!(!site.store().exists());
}

#[test]
fn a_pg_dump_that_does_not_run_is_pg_dump_err_and_says_why() {
    let (site, database) = (Site::new(), Database::fresh(15));
    let broken = bin_with(site.path(), "broken", 15, &[]);
    let program = broken.join("pg_dump");
    for (content, word) in [
        ("#!/no/such/interpreter\n", "No such file"),
        (
            "#!/bin/sh\necho libpq.so.5: cannot open shared object file >&2; exit 127\n",
            "libpq.so.5",
        ),
        ("#!/bin/sh\nkill -SEGV $$\n", "does not run"),
        ("#!/bin/sh\necho hello\n", "does not say its version"),
    ] {
        fs::write(&program, content).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = site.backup(&database.url());
        let failure = fail(command.env("BACKUP_PG_BIN", &broken), "PG_DUMP_ERR", 20);
        assert!(failure.message.contains(word), "{}", failure.message);
        site.assert_nothing_is_left_of(&database);
    }
}

#[test]
fn only_an_older_pg_dump_is_version_and_both_are_named() {
    let (site, database) = (Site::new(), Database::fresh(18));
    let mut command = site.backup(&database.url());
    let failure = fail(command.env("BACKUP_PG_BIN", postgres_bin(16)), "VERSION", 21);
    assert!(
        failure.message.contains("PostgreSQL 18") && failure.message.contains("16."),
        "{}",
        failure.message
    );
    site.assert_nothing_is_left_of(&database);
    assert!(!site.store().exists());
}

#[test]
fn a_pg_dump_that_lies_about_its_version_is_version() {
    let (site, database) = (Site::new(), Database::fresh(17));
    let liar = bin_with(site.path(), "liar", 17, &[]);
    // It says 17 and is 15.
    let script = format!("exec {} \"$@\"", postgres_bin(15).join("pg_dump").display());
    write_script(
        &liar.join("pg_dump"),
        &postgres_bin(17).join("pg_dump"),
        site.path(),
        &script,
    );
    let mut command = site.backup(&database.url());
    fail(command.env("BACKUP_PG_BIN", &liar), "VERSION", 21);
    site.assert_nothing_is_left_of(&database);
}

#[test]
fn a_major_that_is_set_too_old_or_is_not_there_is_version() {
    let (site, database) = (Site::new(), Database::fresh(17));
    let mut command = site.backup(&database.url());
    let failure = fail(command.env("BACKUP_PG_DUMP_MAJOR", "16"), "VERSION", 21);
    assert!(
        failure.message.contains("BACKUP_PG_DUMP_MAJOR=16"),
        "{}",
        failure.message
    );
    let failure = fail(command.env("BACKUP_PG_DUMP_MAJOR", "44"), "VERSION", 21);
    assert!(failure.message.contains("44"), "{}", failure.message);
    site.assert_nothing_is_left_of(&database);
}

#[test]
fn a_newer_pg_dump_does_where_the_servers_own_is_missing() {
    let (site, database) = (Site::new(), Database::fresh(15));
    database.sql("CREATE TABLE t AS SELECT 1 AS a");
    let mut command = site.backup(&database.url());
    let folders = format!("{}:{}", postgres_bin(18).display(), postgres_bin(16).display());
    let report = report(command.env("BACKUP_PG_BIN", folders));
    assert!(
        report["pg_dump"]["version"].as_str().unwrap().starts_with("16."),
        "{report}"
    );
    assert_good(&site.store(), report["id"].as_str().unwrap(), 16);
    site.assert_nothing_runs();
}

#[test]
fn without_pg_dumpall_the_backup_lacks_the_globals_and_says_so() {
    let (site, database) = (Site::new(), Database::fresh(15));
    let mut command = site.backup(&database.url());
    let report = report(command.env("BACKUP_PG_BIN", bin_with(site.path(), "alone", 15, &BOTH[..1])));
    assert!(
        report["missing"]["globals"].as_str().unwrap().contains("pg_dumpall"),
        "{report}"
    );
    assert_good(&site.store(), report["id"].as_str().unwrap(), 15);
}

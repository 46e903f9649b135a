//! pg_dump's stream, spoilt in every way: nothing of it may count as a backup.

use crate::support::database::Database;
use crate::support::impostor::{impostor, trickle};
use crate::support::wreck::{Failure, Site, assert_good, fail, report};

/// Some megabytes, so that half of them is not yet all that a pipe holds.
fn database(major: u32) -> Database {
    let database = Database::fresh(major);
    database.sql("CREATE TABLE t AS SELECT i, repeat(md5(i::text), 5) AS a FROM generate_series(1, 30000) i");
    database
}

/// A backup by an impostor, and by the same with `--format plain`, both to fail.
fn spoilt(script: &str, code: &str, exit: i32) -> [Failure; 2] {
    ["custom", "plain"].map(|format| spoilt_format(format, script, code, exit))
}

fn spoilt_format(format: &str, script: &str, code: &str, exit: i32) -> Failure {
    let (site, database) = (Site::new(), database(17));
    let mut command = site.backup(&database.url());
    command
        .env("BACKUP_PG_BIN", impostor(site.path(), 17, script))
        .env("BACKUP_STALL_SECONDS", "2");
    command
        .env_remove("BACKUP_LOCK_WAIT_SECONDS")
        .args(["--format", format]);
    let failure = fail(&mut command, code, exit);
    site.assert_nothing_is_left_of(&database);
    failure
}

fn says(failures: &[Failure], word: &str) {
    for failure in failures {
        assert!(
            failure.message.contains(word),
            "{word:?} is not in: {}",
            failure.message
        );
    }
}

#[test]
fn killed_midway_is_pg_dump_err_and_names_the_signal() {
    let failures = spoilt("$REAL \"$@\" | head -c 1000000; kill -KILL $$", "PG_DUMP_ERR", 20);
    says(&failures, "SIGKILL");
    assert!(failures[0].hint.contains("memory"), "{}", failures[0].hint);
}

#[test]
fn a_crash_midway_is_pg_dump_err_and_names_the_signal() {
    says(
        &spoilt(
            "$REAL \"$@\" | head -c 1000000; ulimit -c 0; kill -SEGV $$",
            "PG_DUMP_ERR",
            20,
        ),
        "SIGSEGV",
    );
}

#[test]
fn exit_1_after_the_last_byte_of_a_whole_archive_is_pg_dump_err() {
    says(
        &spoilt(
            "$REAL \"$@\"; echo 'pg_dump: error: could not close' >&2; exit 1",
            "PG_DUMP_ERR",
            20,
        ),
        "could not close",
    );
}

#[test]
fn a_crash_after_the_last_byte_is_pg_dump_err() {
    says(&spoilt("$REAL \"$@\"; kill -ABRT $$", "PG_DUMP_ERR", 20), "SIGABRT");
}

#[test]
fn half_of_the_stream_is_pg_dump_err_although_it_exits_0() {
    spoilt("$REAL \"$@\" | head -c 1000000; exit 0", "PG_DUMP_ERR", 20);
}

#[test]
fn all_but_the_last_byte_is_pg_dump_err_although_it_exits_0() {
    spoilt("$REAL \"$@\" | head -c -1; exit 0", "PG_DUMP_ERR", 20);
}

#[test]
fn not_a_byte_is_pg_dump_err_although_it_exits_0() {
    spoilt("exit 0", "PG_DUMP_ERR", 20);
}

#[test]
fn garbage_before_the_stream_is_pg_dump_err() {
    spoilt("echo 'NOTICE: have a nice day'; exec $REAL \"$@\"", "PG_DUMP_ERR", 20);
}

#[test]
fn bytes_after_the_stream_are_pg_dump_err() {
    spoilt("$REAL \"$@\"; printf 'x'", "PG_DUMP_ERR", 20);
    spoilt("$REAL \"$@\"; head -c 3000000 /dev/zero", "PG_DUMP_ERR", 20);
}

#[test]
fn two_streams_in_a_row_are_pg_dump_err() {
    // In plain SQL the first's end may as well be a row's text, so no reader can tell.
    spoilt_format("custom", "$REAL \"$@\"; $REAL \"$@\"", "PG_DUMP_ERR", 20);
}

#[test]
fn much_garbage_is_pg_dump_err() {
    spoilt("exec head -c 200000000 /dev/urandom", "PG_DUMP_ERR", 20);
}

#[test]
fn never_a_byte_is_stalled() {
    let failures = spoilt("sleep 1000", "STALLED", 22);
    says(&failures, "2 s");
}

#[test]
fn silence_midway_is_stalled() {
    spoilt("$REAL \"$@\" | { head -c 1000000; sleep 1000; }", "STALLED", 22);
}

#[test]
fn a_pg_dump_that_ignores_being_stopped_is_stalled_and_killed() {
    spoilt(
        "trap '' TERM INT HUP; $REAL \"$@\" | head -c 1000000; while :; do sleep 1; done",
        "STALLED",
        22,
    );
}

#[test]
fn a_whole_stream_without_an_end_of_the_program_is_stalled() {
    spoilt("$REAL \"$@\"; exec >&-; sleep 1000", "STALLED", 22);
}

#[test]
fn slow_is_not_stalled() {
    let (site, database) = (Site::new(), database(17));
    let mut command = site.backup(&database.url());
    command.env("BACKUP_PG_BIN", impostor(site.path(), 17, &trickle(1_000_000, 0.7)));
    command
        .env("BACKUP_STALL_SECONDS", "2")
        .env_remove("BACKUP_LOCK_WAIT_SECONDS");
    let report = report(&mut command);
    assert!(report["duration_seconds"].as_f64().unwrap() > 3.0, "{report}");
    assert_good(&site.store(), report["id"].as_str().unwrap(), 17);
    site.assert_nothing_runs();
}

#[test]
fn a_flood_of_complaints_is_cut_and_does_not_hold_up_the_dump() {
    let flood = "head -c 30000000 /dev/zero | tr '\\0' 'x' >&2; yes 'pg_dump: warning: again' | head -n 300000 >&2;";
    let (site, database) = (Site::new(), database(17));
    let mut command = site.backup(&database.url());
    command.env(
        "BACKUP_PG_BIN",
        impostor(site.path(), 17, &format!("{flood} exec $REAL \"$@\"")),
    );
    report(&mut command);
    // `spoilt` sees that the error is short.
    let failures = spoilt(
        &format!("{flood} echo 'pg_dump: error: enough' >&2; {flood} exit 1"),
        "PG_DUMP_ERR",
        20,
    );
    for failure in failures {
        assert!(failure.stderr.len() < 10_000, "{} bytes", failure.stderr.len());
    }
}

#[test]
fn a_complaint_that_quotes_the_password_is_told_without_it() {
    // `spoilt` looks for the password in all that is told.
    let script = "IFS=: read -r _ _ _ _ password <$PGPASSFILE
        echo \"pg_dump: error: password=$password and $password did not do\" >&2; exit 1";
    let failures = spoilt(script, "PG_DUMP_ERR", 20);
    says(&failures, "*** did not do");
}

#[test]
fn a_complaint_in_bytes_that_are_no_text_is_told_all_the_same() {
    let script = r"printf 'pg_dump: error: \377\376 bad\r\033[2J\a\n' >&2; exit 1";
    for failure in spoilt(script, "PG_DUMP_ERR", 20) {
        assert!(!failure.stderr.contains('\u{1b}'), "{:?}", failure.stderr);
    }
}

#[test]
fn what_pg_dump_leaves_running_does_not_survive_it() {
    let (site, database) = (Site::new(), database(17));
    let mut command = site.backup(&database.url());
    command.env(
        "BACKUP_PG_BIN",
        impostor(site.path(), 17, "sleep 1000 & exec $REAL \"$@\""),
    );
    // The one that is left holds the pipe open: it is the end of pg_dump that counts.
    report(&mut command);
    site.assert_nothing_runs();
}

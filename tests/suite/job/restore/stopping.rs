//! Restores that are stopped, killed, or lose their server.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::job::restore::place::{Backed, ended};
use crate::support::contents::Contents;
use crate::support::database::Database;
use crate::support::server::OwnServer;
use crate::support::wreck::{Running, assert_no_session, processes};

/// One table that takes a while, and one that does not.
pub fn slow() -> Database {
    let source = Database::fresh(17);
    source.sql(
        "CREATE TABLE big AS SELECT n, md5(n::text) || md5((-n)::text) AS text FROM generate_series(1, 1500000) n;
         CREATE INDEX ON big (text); CREATE TABLE small AS SELECT 1 AS n",
    );
    source
}

/// Rows of `big` are on their way.
pub fn midway(running: &mut Running, target: &Database) {
    running.until("rows are on their way", || {
        target.sql(
            "SELECT count(*) > 0 FROM pg_stat_progress_copy WHERE datname = current_database() AND tuples_processed > 1000",
        ) == "t"
    });
}

pub fn gone(backed: &Backed, target: &Database) {
    let patience = Instant::now() + Duration::from_secs(5);
    while !backed.site.processes().is_empty() && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(backed.site.processes(), [""; 0]);
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
        AND backend_type = 'client backend'";
    while target.sql(busy) != "0" && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(target.sql(busy), "0");
}

#[test]
fn sigterm_and_sigkill_midway_leave_no_process_and_a_target_that_clean_puts_right() {
    let backed = Backed::up(slow(), &[]);
    let target = Database::fresh(17);
    let password = target.password();
    let mut running = backed.site.start(&mut backed.restore(&target.url(), &["--jobs", "2"]));
    midway(&mut running, &target);
    let family: Vec<_> = processes()
        .into_iter()
        .filter(|process| process.pid == running.pid() || process.parent == running.pid())
        .collect();
    assert!(family.len() >= 2, "{}", family.len());
    for process in &family {
        assert!(!process.command_line.contains(&password), "{}", process.command_line);
        if process.pid != running.pid() {
            assert!(!process.environment.contains(&password), "{}", process.environment);
        }
    }
    running.signal(Signal::TERM);
    let run = running.end(Duration::from_secs(10));
    let told = ended(&run, "INTERRUPTED", 143);
    assert!(told.message.contains("without data: public.big"), "{}", told.message);
    assert!(told.message.contains("SIGTERM"), "{}", told.message);
    assert!(told.hint.contains("--clean"), "{}", told.hint);
    assert!(!told.stderr.contains(&password), "{}", told.stderr);
    backed.site.assert_nothing_runs();
    gone(&backed, &target);
    assert_eq!(target.sql("SELECT count(*) FROM big"), "0");

    let mut running = backed.site.start(&mut backed.restore(&target.url(), &["--clean"]));
    midway(&mut running, &target);
    running.signal(Signal::KILL);
    drop(running.end(Duration::from_secs(10)));
    gone(&backed, &target);
    assert_eq!(target.sql("SELECT count(*) FROM big"), "0");

    // The next run clears the dead one's folder, and makes the target whole.
    backed.restored(&target, &["--clean"]);
    assert_no_session(&target);
    Contents::of(&backed.source).assert_equals(&Contents::of(&target));
}

#[test]
fn a_server_that_stops_midway_is_told_and_nothing_hangs() {
    let backed = Backed::up(slow(), &[]);
    let mut server = OwnServer::start(17);
    let target = server.database("stopped");
    let mut running = backed.site.start(&mut backed.restore(&target.url(), &["--jobs", "2"]));
    midway(&mut running, &target);
    server.stop();
    let run = running.end(Duration::from_secs(20));
    let code = run.json()["error"]["code"].as_str().unwrap().to_owned();
    let exit = if code == "CONN_ERR" { 10 } else { 41 };
    let told = ended(&run, &code, exit);
    assert!(
        told.message.contains("the target holds all definitions"),
        "{}",
        told.message
    );
    assert!(told.message.contains("perhaps without data"), "{}", told.message);
    backed.site.assert_nothing_runs();
}

/// The target's default privileges are revoked while an event trigger makes it last.
#[test]
fn sigterm_while_default_privileges_are_taken_back_ends_the_restore() {
    let source = Database::fresh(15);
    source.sql("CREATE TABLE t AS SELECT 1 AS n");
    let backed = Backed::up(source, &[]);
    let target = backed.source.copy();
    target.sql(
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC;
         CREATE FUNCTION slow() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); END';
         CREATE EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('REVOKE') EXECUTE FUNCTION slow()",
    );
    let options = ["--clean", "--keep-going"];
    let mut running = backed.site.start(&mut backed.restore(&target.url(), &options));
    running.until("the server sleeps in the trigger", || {
        target
            .sql("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'")
            == "1"
    });
    running.signal(Signal::TERM);
    let run = running.end(Duration::from_secs(10));
    let told = ended(&run, "INTERRUPTED", 143);
    assert!(told.message.contains("some of the definitions"), "{}", told.message);
    backed.site.assert_nothing_runs();
}

/// The server waits for a standby that does not exist, so the answer to the commit does not come.
#[test]
fn sigterm_while_a_removal_is_committed_says_that_the_objects_may_be_gone() {
    let source = Database::fresh(17);
    source.sql("CREATE TABLE t (n int PRIMARY KEY); INSERT INTO t VALUES (1)");
    let backed = Backed::up(source, &[]);
    let server = OwnServer::start(17);
    for options in [["--clean", "--jobs=2"], ["--clean", "--keep-going"]] {
        let target = server.database("committing");
        target.sql("CREATE TABLE t (n int PRIMARY KEY); CREATE TABLE outside (n int REFERENCES t)");
        target.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
        target.sql("SELECT pg_reload_conf()");
        let mut running = backed.site.start(&mut backed.restore(&target.url(), &options));
        running.until("the commit waits", || {
            target.sql(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'SyncRep'",
            ) == "1"
        });
        running.signal(Signal::TERM);
        let run = running.end(Duration::from_secs(10));
        let told = ended(&run, "INTERRUPTED", 143);
        for words in ["the removal was being committed", "are gone", "outside_n_fkey"] {
            assert!(told.message.contains(words), "{words}: {}", told.message);
        }
        assert!(!told.message.contains("rolled back"), "{}", told.message);
        assert!(told.hint.contains("--clean"), "{}", told.hint);
        backed.site.assert_nothing_runs();
        target.sql("ALTER SYSTEM RESET synchronous_standby_names");
        target.sql("SELECT pg_reload_conf()");
        backed.restored(&target, &["--clean"]);
        assert_eq!(target.sql("SELECT count(*) FROM t"), "1");
    }
}

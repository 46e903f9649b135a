//! Sessions that end, are refused, or must wait: a clean end, or fewer streams; never another
//! archive.

use std::fs;
use std::time::Duration;

use crate::support::database::{Database, psql};
use crate::support::impostor::impostor;
use crate::support::lock::Lock;
use crate::support::server::OwnServer;
use crate::support::wreck::{Failure, Running, Site, assert_good, fail, failure, password_of, report};

const LARGE: &str = "CREATE TABLE t AS SELECT i, repeat(md5(i::text), 10) AS a FROM generate_series(1, 600000) i";

/// A run whose pg_dump waits, before it does anything, for [`go_on`].
fn before_pg_dump(site: &Site, database: &Database) -> Running {
    let script = "touch $SITE/started; while [ ! -e $SITE/go-on ]; do sleep 0.02; done; exec $REAL \"$@\"";
    let mut command = site.backup(&database.url());
    command
        .args(["--jobs", "3"])
        .env("BACKUP_PG_BIN", impostor(site.path(), database.major, script));
    let mut running = site.start(&mut command);
    running.until("pg_dump is about to start", || site.path().join("started").exists());
    running.until("the holder has all it asks for", || {
        database.sql(&format!(
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database()
             AND query LIKE '{HOLDER}' AND state = 'idle in transaction'"
        )) == "t"
    });
    running
}

fn go_on(site: &Site) {
    fs::write(site.path().join("go-on"), "").unwrap();
}

fn failed(running: Running, site: &Site, database: &Database, code: &str, exit: i32) -> Failure {
    let secret = password_of(&site.backup(&database.url()));
    let run = running.end(Duration::from_secs(20));
    let failure = failure(&run, code, exit, secret.as_deref());
    site.assert_nothing_is_left_of(database);
    failure
}

/// Ends one of our sessions: whose last statement is like this.
fn terminate(database: &Database, query: &str) -> bool {
    let ended = database.sql(&format!(
        "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM
         (SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pgstow'
          AND query LIKE '{query}' LIMIT 1) one"
    ));
    ended == "1"
}

/// The last statement of the session that holds the locks, until it is asked for something.
const HOLDER: &str = "%extcondition%";
const WORKER: &str = "SAVEPOINT task%";

#[test]
fn a_workers_session_that_is_terminated_is_conn_err() {
    let (site, database) = (Site::new(), Database::fresh(17));
    database.sql(LARGE);
    let mut running = site.start(site.backup(&database.url()).args(["--jobs", "2"]));
    running.until("a worker reads", || terminate(&database, WORKER));
    let failure = failed(running, &site, &database, "CONN_ERR", 10);
    assert!(failure.message.contains("TABLE DATA public.t"), "{}", failure.message);
}

#[test]
fn the_coordinators_session_that_is_terminated_is_conn_err() {
    let (site, database) = (Site::new(), Database::fresh(17));
    database.sql(LARGE);
    let mut running = site.start(site.backup(&database.url()).args(["--jobs", "2"]));
    running.until("a worker reads", || {
        database.sql(&format!(
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '{WORKER}'"
        )) == "t"
    });
    assert!(terminate(&database, HOLDER));
    let failure = failed(running, &site, &database, "CONN_ERR", 10);
    assert!(failure.message.contains("holds the tables"), "{}", failure.message);
}

#[test]
fn a_server_that_stops_midway_is_conn_err() {
    for fast in [true, false] {
        let mut server = OwnServer::start(16);
        let database = server.database("stopped");
        database.sql(LARGE);
        let site = Site::new();
        let mut running = site.start(site.backup(&database.url()).args(["--jobs", "3"]));
        running.until("a worker reads", || {
            database.sql(&format!(
                "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '{WORKER}'"
            )) == "t"
        });
        if fast {
            server.stop();
        } else {
            server.crash();
        }
        let secret = password_of(&site.backup(&database.url()));
        let run = running.end(Duration::from_secs(20));
        failure(&run, "CONN_ERR", 10, secret.as_deref());
        site.assert_nothing_is_left();
    }
}

#[test]
fn a_snapshot_that_is_gone_before_the_workers_come_is_conn_err_and_named() {
    let (site, database) = (Site::new(), Database::fresh(17));
    database.sql("CREATE TABLE t AS SELECT 1 AS a");
    let running = before_pg_dump(&site, &database);
    // The session that exported it, not the one that holds.
    let ended = database.sql(
        "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'pgstow' AND query NOT LIKE '%extcondition%'",
    );
    assert_eq!(ended, "1");
    go_on(&site);
    let failure = failed(running, &site, &database, "CONN_ERR", 10);
    assert!(failure.message.contains("snapshot"), "{}", failure.message);
}

#[test]
fn too_few_connections_mean_fewer_streams_and_the_report_says_so() {
    // Three for superusers; what is left goes to our first session, the holder, pg_dump, workers.
    for (connections, streams) in [("12", 4), ("8", 3), ("5", 1)] {
        let server = OwnServer::start_with(
            17,
            &[
                &format!("max_connections={connections}"),
                "superuser_reserved_connections=3",
                "max_wal_senders=0",
                "autovacuum=off",
                "max_logical_replication_workers=0",
            ],
        );
        let database = server.database("crowded");
        database.sql("CREATE TABLE t AS SELECT i, repeat(md5(i::text), 10) AS a FROM generate_series(1, 100000) i");
        psql(
            17,
            &server.url(),
            "CREATE ROLE guest LOGIN PASSWORD 'guest''s own'; GRANT pg_read_all_data TO guest",
        );
        // Ours have ended when the server has noticed it.
        let others =
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        while psql(17, &server.url(), others) != "0" {
            std::thread::sleep(Duration::from_millis(50));
        }
        let site = Site::new();
        let mut command = site.backup(&database.url_as(Some(("guest", "guest's own"))));
        let report = report(command.args(["--jobs", "4"]));
        let id = report["id"].as_str().unwrap();
        assert_good(&site.store(), id, 17);
        let manifest = fs::read(site.store().join(id).join("manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        assert_eq!(manifest["metadata"]["streams"], streams, "{connections}: {report}");
        let warnings = report["warnings"].to_string();
        assert_eq!(
            warnings.contains("streams") || warnings.contains("one stream"),
            streams < 4,
            "{warnings}"
        );
    }
}

/// pg_dump alone needs as many: there is no way round, but for a larger table of locks.
#[test]
fn no_room_for_the_locks_is_said_with_the_setting_that_helps() {
    let server = OwnServer::start_with(
        17,
        &[
            "max_connections=10",
            "max_locks_per_transaction=10",
            "max_wal_senders=0",
            "autovacuum=off",
        ],
    );
    let database = server.database("many");
    for hundred in 0..40 {
        database.sql(&format!(
            "DO $$BEGIN FOR i IN 1..100 LOOP EXECUTE 'CREATE TABLE t_{hundred}_' || i || ' (a int)'; END LOOP; END$$"
        ));
    }
    let site = Site::new();
    for jobs in ["1", "2"] {
        let told = fail(site.backup(&database.url()).args(["--jobs", jobs]), "PG_DUMP_ERR", 20);
        assert!(
            told.hint.contains("max_locks_per_transaction"),
            "{} {}",
            told.message,
            told.hint
        );
    }
    site.assert_nothing_is_left_of(&database);
}

#[test]
fn a_table_locked_for_longer_than_the_lock_wait_is_pg_dump_err_with_a_hint() {
    let (site, database) = (Site::new(), Database::fresh(15));
    database.sql("CREATE TABLE locked (a int)");
    let lock = Lock::hold(&database, "locked");
    let mut command = site.backup(&database.url());
    command.args(["--jobs", "2"]).env("BACKUP_LOCK_WAIT_SECONDS", "1");
    let failure = fail(&mut command, "PG_DUMP_ERR", 20);
    assert!(failure.hint.contains("BACKUP_LOCK_WAIT_SECONDS"), "{}", failure.hint);
    drop(lock);
    site.assert_nothing_is_left_of(&database);
    report(&mut command);
}

#[test]
fn what_the_role_may_not_read_is_permission_and_named() {
    let (site, database) = (Site::new(), Database::fresh(17));
    database.sql("CREATE TABLE open AS SELECT 1 AS a; CREATE TABLE secret AS SELECT 1 AS a");
    let role = crate::support::role::Role::fresh(&database, "a role's own", "");
    database.sql(&format!("GRANT SELECT ON open TO {}", role.name));
    let mut command = site.backup(&database.url_as(Some((&role.name, "a role's own"))));
    let told = fail(command.args(["--jobs", "2"]), "PERMISSION", 13);
    assert!(told.message.contains("secret"), "{}", told.message);
    assert!(told.hint.contains("GRANT"), "{}", told.hint);
    // Rows that a policy hides must not be missing without a word.
    database.sql(&format!(
        "GRANT SELECT ON secret TO {}; ALTER TABLE secret ENABLE ROW LEVEL SECURITY",
        role.name
    ));
    let mut command = site.backup(&database.url_as(Some((&role.name, "a role's own"))));
    let told = fail(command.args(["--jobs", "2"]), "PERMISSION", 13);
    assert!(told.message.contains("row-level security"), "{}", told.message);
    site.assert_nothing_is_left_of(&database);
}

#[test]
fn a_stop_midway_leaves_no_session_and_no_file() {
    let (site, database) = (Site::new(), Database::fresh(17));
    database.sql(LARGE);
    let mut running = site.start(site.backup(&database.url()).args(["--jobs", "3"]));
    running.until("a worker reads", || {
        database.sql(&format!(
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '{WORKER}'"
        )) == "t"
    });
    running.signal(rustix::process::Signal::TERM);
    let run = running.end(Duration::from_secs(10));
    assert!(!run.status.success());
    site.assert_nothing_is_left_of(&database);
}

#[test]
fn a_table_whose_pages_are_damaged_is_pg_dump_err_and_named() {
    // So little memory that the server has to read the table from its file.
    let server = OwnServer::start_with(17, &["shared_buffers=128kB", "max_connections=20"]);
    let database = server.database("damaged");
    database.sql("CREATE TABLE t AS SELECT i, repeat(md5(i::text), 10) AS a FROM generate_series(1, 100000) i");
    database.sql("CHECKPOINT");
    let path = server.data().join(database.sql("SELECT pg_relation_filepath('t')"));
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() / 2 / 8192 * 8192;
    bytes[at..at + 16].fill(0x5a);
    fs::write(&path, bytes).unwrap();
    let site = Site::new();
    let told = fail(site.backup(&database.url()).args(["--jobs", "2"]), "PG_DUMP_ERR", 20);
    assert!(
        told.message.contains("public t") || told.message.contains("public.t"),
        "{}",
        told.message
    );
    site.assert_nothing_is_left_of(&database);
}

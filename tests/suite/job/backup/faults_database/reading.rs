//! The server that goes away, freezes or holds its locks while it is read.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::database::{Database, psql};
use crate::support::impostor::{impostor, trickle};
use crate::support::program::stock;
use crate::support::server::OwnServer;
use crate::support::wreck::{Failure, Running, Site, assert_good, fail, failure, password_of, processes, report};

const LARGE: &str = "CREATE TABLE t AS SELECT i, repeat(md5(i::text), 10) AS a FROM generate_series(1, 60000) i";

/// A run whose dump has given its first megabyte and goes on slowly.
fn midway(site: &Site, database: &Database) -> Running {
    let mut command = site.backup(&database.url());
    command.env(
        "BACKUP_PG_BIN",
        impostor(site.path(), database.major, &trickle(1_000_000, 0.1)),
    );
    let mut running = site.start(&mut command);
    running.until("the dump has started", || site.path().join("started").exists());
    running.until("the dump holds the tables alone", || sessions(database) == "2");
    running
}

fn sessions(database: &Database) -> String {
    database.sql(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
         AND application_name ~ '^(pgstow|pg_dump)'",
    )
}

fn failed(running: Running, site: &Site, database: &Database, code: &str, exit: i32) -> Failure {
    let secret = password_of(&site.backup(&database.url()));
    let run = running.end(Duration::from_secs(20));
    let failure = failure(&run, code, exit, secret.as_deref());
    site.assert_nothing_is_left();
    failure
}

#[test]
fn a_server_that_is_stopped_midway_is_conn_err() {
    for fast in [true, false] {
        let mut server = OwnServer::start(15);
        let database = server.database("stopped");
        database.sql(LARGE);
        let site = Site::new();
        let running = midway(&site, &database);
        if fast {
            server.stop();
        } else {
            server.crash();
        }
        failed(running, &site, &database, "CONN_ERR", 10);
    }
}

#[test]
fn a_server_that_freezes_midway_is_stalled() {
    let server = OwnServer::start(16);
    let database = server.database("frozen");
    database.sql(LARGE);
    let site = Site::new();
    let mut command = site.backup(&database.url());
    command.env("BACKUP_PG_BIN", impostor(site.path(), 16, &trickle(1_000_000, 0.1)));
    command
        .env("BACKUP_STALL_SECONDS", "2")
        .env_remove("BACKUP_LOCK_WAIT_SECONDS");
    let mut running = site.start(&mut command);
    running.until("the dump has started", || site.path().join("started").exists());
    let frozen = Frozen::all_of(&server);
    failed(running, &site, &database, "STALLED", 22);
    drop(frozen);
}

#[test]
fn a_server_that_freezes_before_the_dump_does_not_hold_the_run_for_ever() {
    let server = OwnServer::start(16);
    let database = server.database("frozen");
    let site = Site::new();
    let bin = impostor(site.path(), 16, "exec $REAL \"$@\"");
    // pg_dumpall runs before the dump; the test freezes the server while it waits.
    fs::remove_file(bin.join("pg_dumpall")).unwrap();
    let real = crate::support::services::postgres_bin(16).join("pg_dumpall");
    let script = "touch $SITE/started; while [ ! -e $SITE/frozen ]; do sleep 0.02; done; exec true";
    crate::support::impostor::write_script(&bin.join("pg_dumpall"), &real, site.path(), script);
    let mut command = site.backup(&database.url());
    command.env("BACKUP_PG_BIN", bin);
    command
        .env("BACKUP_STALL_SECONDS", "2")
        .env_remove("BACKUP_LOCK_WAIT_SECONDS");
    let mut running = site.start(&mut command);
    running.until("the roles are read", || site.path().join("started").exists());
    let frozen = Frozen::all_of(&server);
    fs::write(site.path().join("frozen"), "").unwrap();
    failed(running, &site, &database, "STALLED", 22);
    drop(frozen);
}

/// Processes that are stopped until this is dropped.
struct Frozen(Vec<Pid>);

impl Frozen {
    fn all_of(server: &OwnServer) -> Self {
        let data = server.data();
        let data = data.to_str().unwrap();
        let all = processes();
        let postmaster = all.iter().find(|one| one.command_line.contains(data)).unwrap().pid;
        let family = all
            .iter()
            .filter(|one| one.pid == postmaster || one.parent == postmaster);
        let pids: Vec<Pid> = family.filter_map(|one| Pid::from_raw(one.pid.cast_signed())).collect();
        for pid in &pids {
            let _ = kill_process(*pid, Signal::STOP);
        }
        Self(pids)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = kill_process(*pid, Signal::CONT);
        }
    }
}

/// pg_dump's session is the one that copies; ours are the others.
fn terminate(database: &Database, copying: bool, sessions: &str) {
    let which = if copying {
        "query LIKE 'COPY%'"
    } else {
        "query NOT LIKE 'COPY%'"
    };
    let ended = database.sql(&format!(
        "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name ~ '^(pgstow|pg_dump)' AND {which}"
    ));
    assert_eq!(ended, sessions);
}

#[test]
fn a_dumps_session_that_is_terminated_is_conn_err() {
    let (site, database) = (Site::new(), Database::fresh(15));
    database.sql(LARGE);
    let running = midway(&site, &database);
    terminate(&database, true, "1");
    failed(running, &site, &database, "CONN_ERR", 10);
    site.assert_nothing_is_left_of(&database);
}

#[test]
fn our_own_session_may_go_once_the_dump_has_its_snapshot() {
    let (site, database) = (Site::new(), Database::fresh(15));
    database.sql(LARGE);
    let running = midway(&site, &database);
    terminate(&database, false, "1");
    let run = running.end(Duration::from_secs(30));
    assert!(run.status.success(), "{}", run.stderr);
    assert_good(&site.store(), run.json()["id"].as_str().unwrap(), 15);
}

#[test]
fn our_own_session_cut_before_the_dump_has_its_snapshot_is_conn_err() {
    let (site, database) = (Site::new(), Database::fresh(15));
    let script = "touch $SITE/started; while [ ! -e $SITE/cut ]; do sleep 0.02; done; exec $REAL \"$@\"";
    let mut command = site.backup(&database.url());
    command.env("BACKUP_PG_BIN", impostor(site.path(), 15, script));
    let mut running = site.start(&mut command);
    running.until("the dump is about to start", || site.path().join("started").exists());
    // The one that has the snapshot, and the one that holds the tables.
    terminate(&database, false, "2");
    fs::write(site.path().join("cut"), "").unwrap();
    failed(running, &site, &database, "CONN_ERR", 10);
    site.assert_nothing_is_left_of(&database);
}

fn a_table_that_stays_locked_is_pg_dump_err_with_a_hint_in_bounded_time(major: u32) {
    let (site, database) = (Site::new(), Database::fresh(major));
    database.sql("CREATE TABLE locked (a int)");
    let mut locker = stock(major, "psql")
        .args(["-X", "-q", "-d", &database.url()])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut session = locker.stdin.take().unwrap();
    std::io::Write::write_all(&mut session, b"BEGIN; LOCK TABLE locked IN ACCESS EXCLUSIVE MODE;\n").unwrap();
    let held = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 'locked'::regclass";
    (0..200).find(|_| database.sql(held) == "1").unwrap();
    let mut command = site.backup(&database.url());
    command.env("BACKUP_LOCK_WAIT_SECONDS", "1");
    let failure = fail(&mut command, "PG_DUMP_ERR", 20);
    assert!(failure.hint.contains("BACKUP_LOCK_WAIT_SECONDS"), "{}", failure.hint);
    assert!(failure.message.contains("locked"), "{}", failure.message);
    site.assert_nothing_is_left_of(&database);
    drop(session);
    locker.wait().unwrap();
    report(&mut command);
}

on_majors! { a_table_that_stays_locked_is_pg_dump_err_with_a_hint_in_bounded_time: 15 18 }

#[test]
fn a_server_without_a_free_connection_is_conn_err_and_says_so() {
    let server = OwnServer::start_with(15, &["max_connections=5", "superuser_reserved_connections=3"]);
    let database = server.database("crowded");
    psql(
        15,
        &server.url(),
        "CREATE ROLE guest LOGIN PASSWORD 'guest''s own'; GRANT pg_read_all_data TO guest",
    );
    let site = Site::new();
    let url = database.url_as(Some(("guest", "guest's own")));
    // Two are left: a stranger has one, ours takes the other, and pg_dump finds none.
    let stranger = Guest::enter(&server, &url, 1);
    let failure = fail(&mut site.backup(&url), "CONN_ERR", 10);
    assert!(failure.message.contains("connection slots"), "{}", failure.message);
    // And none at all for our own.
    let another = Guest::enter(&server, &url, 2);
    let failure = fail(&mut site.backup(&url), "CONN_ERR", 10);
    assert!(failure.hint.contains("max_connections"), "{}", failure.hint);
    drop((stranger, another));
}

/// A session of the role `guest`, until dropped.
struct Guest(std::process::Child);

impl Guest {
    /// The place may still be taken by a session that is about to end: so until `guests` are there.
    fn enter(server: &OwnServer, url: &str, guests: u32) -> Self {
        for _ in 0..100 {
            let psql = stock(15, "psql")
                .args(["-X", "-q", "-d", url])
                .stdin(Stdio::piped())
                .spawn();
            let mut guest = Self(psql.unwrap());
            for _ in 0..20 {
                let there = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'guest' AND state IS NOT NULL";
                std::thread::sleep(Duration::from_millis(50));
                let refused = guest.0.try_wait().unwrap().is_some();
                if !refused && psql_count(server, there) == guests {
                    return guest;
                }
                if refused {
                    break;
                }
            }
        }
        panic!("no place for {guests} guests");
    }
}

fn psql_count(server: &OwnServer, query: &str) -> u32 {
    psql(server.major, &server.url(), query).parse().unwrap()
}

impl Drop for Guest {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

//! A real PgBouncer in between.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::database::{Database, try_psql};
use crate::support::program::{pgstow, program, run};
use crate::support::server::postgres_user;
use crate::support::wreck::{Site, assert_good, fail, report};

/// In front of one database; gone with the test.
struct Pooler {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Pooler {
    fn start(database: &Database, mode: &str) -> Self {
        Self::start_ignoring(database, mode, "extra_float_digits,options")
    }

    fn start_ignoring(database: &Database, mode: &str, ignored: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("pgstow-pooler-")
            .tempdir_in("/tmp")
            .unwrap();
        let (host, port) = database.address();
        let own = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (path, name, password) = (folder.path().display(), &database.name, database.password());
        let users = folder.path().join("users");
        fs::write(&users, format!("\"postgres\" \"{password}\"\n")).unwrap();
        let settings = folder.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n{name} = host={host} port={port} dbname={name}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {own}\nunix_socket_dir =\nauth_type = plain\nauth_file = {path}/users\npool_mode = {mode}\n\
             ignore_startup_parameters = {ignored}\n"
        );
        fs::write(&settings, text).unwrap();
        let mut command = program("setpriv");
        command.args(["--pdeathsig", "TERM"]);
        if let Some((uid, gid)) = postgres_user() {
            for path in [folder.path(), &users, &settings] {
                chown(path, Some(uid), Some(gid)).unwrap();
            }
            command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
        }
        command.args(["--", "/usr/sbin/pgbouncer", "-q"]).arg(&settings);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let pooler = Self {
            child,
            port: own,
            _folder: folder,
        };
        let end = Instant::now() + Duration::from_secs(20);
        while !try_psql(database.major, &pooler.url(database), "SELECT 1")
            .status
            .success()
        {
            assert!(Instant::now() < end, "PgBouncer does not answer");
            sleep(Duration::from_millis(50));
        }
        pooler
    }

    fn url(&self, database: &Database) -> String {
        let (host, port) = database.address();
        let direct = format!("{host}:{port}");
        database.url().replace(&direct, &format!("127.0.0.1:{}", self.port))
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn transaction_mode_is_conn_err_and_named() {
    let (site, database) = (Site::new(), Database::fresh(17));
    database.sql("CREATE TABLE t AS SELECT 1 AS a");
    let pooler = Pooler::start(&database, "transaction");
    for jobs in ["1", "3"] {
        let told = fail(
            site.backup(&pooler.url(&database)).args(["--jobs", jobs]),
            "CONN_ERR",
            10,
        );
        assert!(told.message.contains("transaction mode"), "{}", told.message);
        assert!(told.hint.contains("session mode"), "{}", told.hint);
    }
    drop(pooler);
    site.assert_nothing_is_left_of(&database);
}

#[test]
fn session_mode_is_as_good_as_the_server_itself() {
    let (site, database) = (Site::new(), Database::fresh(17));
    database.sql("CREATE TABLE t AS SELECT i, md5(i::text) AS a FROM generate_series(1, 200000) i");
    let pooler = Pooler::start(&database, "session");
    let report = report(site.backup(&pooler.url(&database)).args(["--jobs", "3"]));
    assert_good(&site.store(), report["id"].as_str().unwrap(), 17);
    assert_eq!(report["warnings"].as_array().map_or(0, Vec::len), 0, "{report}");
}

/// Settings that a session must be started with do not get through, as PgBouncer is by default.
#[test]
fn a_setting_that_a_pool_does_not_let_us_change_is_named_with_what_resets_it() {
    let (site, database) = (Site::new(), Database::fresh(17));
    database.sql("CREATE TABLE t AS SELECT decode('ff', 'hex') AS a");
    let set = format!("ALTER DATABASE \"{}\" ", database.name);
    database.sql(&format!(
        "{set} SET bytea_output = escape; {set} SET quote_all_identifiers = on"
    ));
    let pooler = Pooler::start_ignoring(&database, "session", "extra_float_digits");
    let told = fail(&mut site.backup(&pooler.url(&database)), "CONN_ERR", 10);
    for setting in ["bytea_output", "quote_all_identifiers"] {
        let reset = format!("{set}RESET {setting}");
        assert!(told.hint.contains(&reset), "{}", told.hint);
        database.sql(&reset);
    }
    drop(pooler);
    let pooler = Pooler::start_ignoring(&database, "session", "extra_float_digits");
    let report = report(&mut site.backup(&pooler.url(&database)));
    assert_good(&site.store(), report["id"].as_str().unwrap(), 17);
}

/// Each statement may come to a connection on which nothing of ours is set, and the owner's path is.
#[test]
fn nothing_that_a_path_could_lead_astray_is_asked_through_a_shared_session() {
    let (site, database) = (Site::new(), Database::fresh(17));
    database.sql(&format!(
        "CREATE SCHEMA evil; CREATE SEQUENCE evil.calls;
         CREATE FUNCTION evil.equal(text, text) RETURNS bool LANGUAGE plpgsql AS
           $f$ BEGIN PERFORM pg_catalog.nextval('evil.calls'); RETURN $1 OPERATOR(pg_catalog.=) $2; END $f$;
         CREATE FUNCTION evil.equal(name, name) RETURNS bool LANGUAGE plpgsql AS
           $f$ BEGIN PERFORM pg_catalog.nextval('evil.calls'); RETURN $1 OPERATOR(pg_catalog.=) $2; END $f$;
         CREATE OPERATOR evil.= (FUNCTION = evil.equal, LEFTARG = text, RIGHTARG = text);
         CREATE OPERATOR evil.= (FUNCTION = evil.equal, LEFTARG = name, RIGHTARG = name);
         CREATE TABLE t AS SELECT 1 AS a;
         ALTER DATABASE {} SET search_path = evil, pg_catalog",
        database.name
    ));
    let id = report(&mut site.backup(&database.url()))["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let pooler = Pooler::start(&database, "transaction");
    let through = pooler.url(&database);
    let before = database.sql("SELECT is_called FROM evil.calls");
    for args in [
        &["backup", "--database-url", &through][..],
        &["doctor", "--database-url", &through],
        &["restore", &id, "--target", &through, "--clean"],
        &["restore", &id, "--target", &through, "--clean", "--dry-run"],
    ] {
        let mut command = pgstow();
        command.args(args).arg("--store").arg(site.store());
        command.env("TMPDIR", site.path().join("tmp")).current_dir(site.path());
        let run = run(&mut command);
        assert!(!run.status.success(), "{args:?}");
        let told = format!("{}{}", run.text(), run.stderr);
        assert!(
            told.contains("transaction mode") && told.contains("session mode"),
            "{args:?}: {told}"
        );
    }
    assert_eq!(database.sql("SELECT is_called FROM evil.calls"), before);
    assert_eq!(before.trim(), "f", "a backup over a line of its own has stepped on it");
    // What others find in the pool is as it was.
    let path = try_psql(17, &through, "SHOW search_path");
    assert!(path.text().contains("evil"), "{}", path.text());
}

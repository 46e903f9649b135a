//! A password that is changed while a run lasts. The run is held at a lock, so that it has connected before, and
//! connects again after.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{TABLE, done, waits};
use crate::support::database::Database;
use crate::support::lock::Lock;
use crate::support::moto;
use crate::support::program::pgstow;
use crate::support::role::Role;
use crate::support::services::cloud;
use crate::support::wreck::{Site, fail, report};

const MAJOR: u32 = 18;
const LIMIT: Duration = Duration::from_secs(60);

/// A role, and the secret that holds its password.
struct Rotated {
    role: Role,
    secret: String,
    place: (String, u16),
    database: String,
}

impl Rotated {
    fn of(database: &Database) -> Self {
        let role = Role::fresh(database, "first password", "SUPERUSER");
        let mut rotated = Self {
            role,
            secret: String::new(),
            place: database.address(),
            database: database.name.clone(),
        };
        rotated.secret = moto::secret(&rotated.value("first password"));
        rotated
    }

    fn value(&self, password: &str) -> String {
        let (host, port) = &self.place;
        json!({"host": host, "port": port, "username": self.role.name, "password": password, "dbname": self.database})
            .to_string()
    }

    fn rotate(&self, password: &str) {
        self.role.change_password(password);
        moto::rotate(&self.secret, &self.value(password));
    }
}

fn backup(site: &Site, store: &str, jobs: &str) -> Command {
    let mut command = site.backup_into("", &site.path().join(store));
    command.env_remove("DATABASE_URL").env("BACKUP_JOBS", jobs);
    cloud(&mut command);
    command
}

#[test]
fn a_secret_that_is_rotated_midway_is_asked_for_again_by_every_session_and_program() {
    let (site, database) = (Site::new(), Database::fresh(MAJOR));
    database.sql(TABLE);
    let rotated = Rotated::of(&database);
    for jobs in ["1", "2"] {
        let lock = Lock::hold(&database, "public.t");
        let mut command = backup(&site, jobs, jobs);
        let mut running = site.start(command.env("BACKUP_SECRET_ID", &rotated.secret));
        running.until("the run waits for a lock", || waits(MAJOR, &rotated.role.name));
        rotated.rotate(&format!("password {jobs}"));
        drop(lock);
        let run = running.end(LIMIT);
        assert_eq!(done(&run)["rows"], 1000, "{}", run.text());
        for password in ["first password", "password 1", "password 2"] {
            assert!(!format!("{}{}", run.stderr, run.text()).contains(password));
        }
    }

    // The same of a restore: what makes the definitions has the old password, what loads the rows the new.
    let target = Database::fresh(MAJOR);
    let theirs = Rotated::of(&target);
    let holding = Lock::by(&target, "CREATE TABLE public.t ()");
    let mut command = pgstow();
    command
        .args(["restore", "latest", "--json", "--jobs", "2", "--store"])
        .arg(site.path().join("2"))
        .env("BACKUP_TARGET_SECRET_ID", &theirs.secret)
        .env("TMPDIR", site.path().join("tmp"))
        .current_dir(site.path());
    let mut running = site.start(cloud(&mut command));
    running.until("the restore waits for a lock", || waits(MAJOR, &theirs.role.name));
    theirs.rotate("another password");
    drop(holding);
    done(&running.end(LIMIT));
    assert_eq!(target.sql("SELECT count(*) FROM public.t"), "1000");
    site.assert_nothing_runs();
    // What it owns goes before it.
    drop(target);
}

/// An index that can be made when another session releases a lock.
const HELD_INDEX: &str = "CREATE FUNCTION public.held(n integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql
    AS 'BEGIN PERFORM pg_advisory_xact_lock_shared(16); RETURN n; END';
    CREATE INDEX held ON public.t (public.held(n)); CREATE INDEX other ON public.t (n);";

/// With several jobs, pg_restore logs in for each of them, and again at the end.
#[test]
fn a_secret_that_is_rotated_while_indexes_are_made_is_asked_for_again() {
    let (site, database) = (Site::new(), Database::fresh(MAJOR));
    database.sql(TABLE);
    database.sql(HELD_INDEX);
    let store = site.path().join("store");
    report(&mut site.backup_into(&database.url(), &store));

    let target = Database::fresh(MAJOR);
    let theirs = Rotated::of(&target);
    let restore = || {
        let mut command = pgstow();
        command
            .args(["restore", "latest", "--json", "--jobs", "3", "--store"])
            .arg(&store)
            .env("BACKUP_TARGET_SECRET_ID", &theirs.secret)
            .env("TMPDIR", site.path().join("tmp"))
            .current_dir(site.path());
        cloud(&mut command);
        command
    };
    let holding = Lock::by(&target, "DO 'BEGIN PERFORM pg_advisory_xact_lock(16); END'");
    let mut running = site.start(&mut restore());
    running.until("an index waits for a lock", || waits(MAJOR, &theirs.role.name));
    theirs.rotate("another password");
    drop(holding);
    let run = running.end(LIMIT);
    done(&run);
    for password in ["first password", "another password"] {
        assert!(!format!("{}{}", run.stderr, run.text()).contains(password));
    }
    let made = "SELECT count(*) FROM pg_index WHERE indrelid = 'public.t'::regclass AND indisvalid";
    assert_eq!(target.sql(made), "2");

    // A run that is told to stop cancels what its programs do.
    target.sql("DROP TABLE public.t; DROP FUNCTION public.held; SELECT lo_unlink(oid) FROM pg_largeobject_metadata");
    let holding = Lock::by(&target, "DO 'BEGIN PERFORM pg_advisory_xact_lock(16); END'");
    let mut running = site.start(&mut restore());
    running.until("an index waits for a lock", || waits(MAJOR, &theirs.role.name));
    running.signal(Signal::TERM);
    let run = running.end(LIMIT);
    assert!(!run.status.success());
    let mut patience = (0..100).map(|_| std::thread::sleep(Duration::from_millis(50)));
    assert!(patience.any(|()| !waits(MAJOR, &theirs.role.name)));
    drop(holding);
    site.assert_nothing_runs();
    drop(target);
}

#[test]
fn a_port_of_libpqs_that_is_none_counts_where_the_secret_has_none() {
    let (site, database) = (Site::new(), Database::fresh(MAJOR));
    database.sql(TABLE);
    let rotated = Rotated::of(&database);
    let mut command = backup(&site, "store", "1");
    command.env("BACKUP_SECRET_ID", &rotated.secret).env("PGPORT", "abc");
    report(&mut command);
    let mut without: Value = serde_json::from_str(&rotated.value("first password")).unwrap();
    without.as_object_mut().unwrap().remove("port");
    moto::rotate(&rotated.secret, &without.to_string());
    let failure = fail(&mut command, "CONFIG", 2);
    assert!(failure.message.contains("PGPORT"), "{}", failure.message);
}

#[test]
fn a_mounted_file_that_changes_midway_is_read_again() {
    let (site, database) = (Site::new(), Database::fresh(MAJOR));
    database.sql(TABLE);
    let role = Role::fresh(&database, "first password", "SUPERUSER");
    let file = site.path().join("password");
    std::fs::write(&file, "first password\n").unwrap();
    let lock = Lock::hold(&database, "public.t");
    let (host, port) = database.address();
    let mut command = backup(&site, "store", "2");
    command
        .env("DB_HOST", host)
        .env("DB_PORT", port.to_string())
        .env("DB_NAME", &database.name)
        .env("DB_USER", &role.name)
        .env("DB_PASSWORD_FILE", &file);
    let mut running = site.start(&mut command);
    running.until("the run waits for a lock", || waits(MAJOR, &role.name));
    role.change_password("second password");
    std::fs::write(&file, "second password\n").unwrap();
    drop(lock);
    done(&running.end(LIMIT));
}

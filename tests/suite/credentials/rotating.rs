//! A password that is changed while a run lasts. The run is held at a lock, so that it has connected before, and
//! connects again after.

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use super::{TABLE, done, waits};
use crate::support::database::Database;
use crate::support::lock::Lock;
use crate::support::moto;
use crate::support::program::pgstow;
use crate::support::role::Role;
use crate::support::services::cloud;
use crate::support::wreck::Site;

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
        let (run, _) = running.end(LIMIT);
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
    done(&running.end(LIMIT).0);
    assert_eq!(target.sql("SELECT count(*) FROM public.t"), "1000");
    site.assert_nothing_runs();
    // What it owns goes before it.
    drop(target);
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
    done(&running.end(LIMIT).0);
}

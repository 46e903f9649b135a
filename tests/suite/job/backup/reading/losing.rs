//! A run that loses what it needs before it has begun to read ends, and soon.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::database::Database;
use crate::support::lock::Lock;
use crate::support::wreck::{Site, assert_no_session, failure, password_of};

const WAITS: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
    AND wait_event_type = 'Lock' AND query LIKE 'LOCK TABLE%'";

/// Another session holds the table, and the lease is broken meanwhile.
#[test]
fn a_lease_that_is_lost_while_a_table_is_held_ends_the_run_every_time() {
    let database = Database::fresh(17);
    database.sql("CREATE TABLE facts AS SELECT 1 AS a; CREATE TABLE other AS SELECT 1 AS a");
    for number in 0..16 {
        let site = Site::new();
        let lock = Lock::hold(&database, "facts");
        let mut command = site.backup(&database.url());
        command.args(["--jobs", if number % 4 == 3 { "1" } else { "2" }]);
        command.env("BACKUP_LEASE_SECONDS", "2");
        let secret = password_of(&command);
        let mut running = site.start(&mut command);
        running.until("the backup waits for its lock", || database.sql(WAITS) == "1");
        fs::remove_file(site.store().join(&database.name).join(".lease")).unwrap();
        // Half of them get their locks in the moment in which they learn of it.
        if number % 2 == 0 {
            std::thread::sleep(Duration::from_millis(550 + 20 * number));
            drop(lock);
        }
        let run = running.end(Duration::from_secs(15));
        failure(&run, "BUSY", 51, secret.as_deref());
        site.assert_nothing_runs();
        assert_no_session(&database);
    }
}

#[test]
fn sigterm_ends_a_run_that_waits_for_a_table() {
    for jobs in ["1", "2"] {
        let (site, database) = (Site::new(), Database::fresh(17));
        database.sql("CREATE TABLE facts AS SELECT 1 AS a");
        let _lock = Lock::hold(&database, "facts");
        let mut command = site.backup(&database.url());
        let secret = password_of(&command);
        let mut running = site.start(command.args(["--jobs", jobs]));
        running.until("the backup waits for its lock", || database.sql(WAITS) == "1");
        running.signal(Signal::TERM);
        let run = running.end(Duration::from_secs(5));
        failure(&run, "INTERRUPTED", 143, secret.as_deref());
        site.assert_nothing_is_left();
    }
}

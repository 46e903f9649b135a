use std::time::Duration;

use crate::support::database::Database;
use crate::support::impostor::{impostor, trickle};
use crate::support::wreck::{Running, Site, assert_good, assert_no_session, backups, fail, tree};

fn database() -> Database {
    let database = Database::fresh(15);
    database.sql("CREATE TABLE t AS SELECT i, md5(i::text) AS a FROM generate_series(1, 60000) i");
    database
}

/// Whether a run has begun its archive there.
fn writes(site: &Site) -> bool {
    tree(&site.store())
        .iter()
        .any(|path| path.contains(".dump.") && path.ends_with(".pgstow-tmp"))
}

/// A run that is slow enough for another to meet it.
fn slow(site: &Site, database: &Database, into: &Site) -> Running {
    let mut command = site.backup_into(&database.url(), &into.store());
    command.env("BACKUP_PG_BIN", impostor(site.path(), 15, &trickle(200_000, 0.15)));
    let mut running = site.start(&mut command);
    running.until("it writes", || writes(into));
    running
}

#[test]
fn a_second_run_of_the_same_database_is_busy_and_does_the_first_no_harm() {
    let (first, second, database) = (Site::new(), Site::new(), database());
    let mut running = slow(&first, &database, &first);
    let before = tree(&first.store());
    let failure = fail(&mut second.backup_into(&database.url(), &first.store()), "BUSY", 51);
    assert!(
        failure.message.contains(&format!("process {}", running.pid())),
        "{}",
        failure.message
    );
    assert!(failure.hint.contains("wait"), "{}", failure.hint);
    assert!(!running.is_over(), "too quick to tell");
    assert_eq!(tree(&first.store()), before);
    second.assert_nothing_runs();

    let run = running.end(Duration::from_secs(30));
    assert!(run.status.success(), "{}", run.stderr);
    let id = run.json()["id"].as_str().unwrap().to_owned();
    assert_good(&first.store(), &id, 15);
    assert_eq!(backups(&first.store()), [id]);
    first.assert_nothing_runs();
    assert_no_session(&database);
}

#[test]
fn runs_of_different_databases_share_a_store() {
    let (store, sites) = (Site::new(), [Site::new(), Site::new()]);
    let databases = [database(), database()];
    let runs: Vec<Running> = sites
        .iter()
        .zip(&databases)
        .map(|(site, database)| slow(site, database, &store))
        .collect();
    for running in runs {
        let run = running.end(Duration::from_secs(30));
        assert!(run.status.success(), "{}", run.stderr);
        assert_good(&store.store(), run.json()["id"].as_str().unwrap(), 15);
    }
    assert_eq!(backups(&store.store()).len(), 2);
    for (site, database) in sites.iter().zip(&databases) {
        site.assert_nothing_runs();
        assert_no_session(database);
    }
}

#[test]
fn a_run_that_was_killed_is_taken_over_when_its_lease_has_ended() {
    let (first, second, database) = (Site::new(), Site::new(), database());
    let mut command = first.backup(&database.url());
    command
        .env("BACKUP_PG_BIN", impostor(first.path(), 15, &trickle(200_000, 0.15)))
        .env("BACKUP_LEASE_SECONDS", "6");
    let mut running = first.start(&mut command);
    running.until("it writes", || writes(&first));
    // Dropping it kills it.
    drop(running);
    assert!(backups(&first.store()).is_empty());
    // The kernel ends the script that we started; what the script started ends with its pipe.
    let patience = std::time::Instant::now() + Duration::from_secs(4);
    while !first.processes().is_empty() {
        assert!(std::time::Instant::now() < patience, "{:?}", first.processes());
        std::thread::sleep(Duration::from_millis(20));
    }
    fail(&mut second.backup_into(&database.url(), &first.store()), "BUSY", 51);
    std::thread::sleep(Duration::from_secs(7));
    let report = crate::support::wreck::report(&mut second.backup_into(&database.url(), &first.store()));
    assert!(report["took_over"]["holder"]["pid"].is_u64(), "{report}");
    assert!(!report["leftovers"].as_array().unwrap().is_empty(), "{report}");
    let id = report["id"].as_str().unwrap();
    assert_good(&first.store(), id, 15);
    assert!(
        tree(&first.store())
            .iter()
            .all(|path| path.starts_with(id) || id.starts_with(path) || path.ends_with(".lease")),
        "{:?}",
        tree(&first.store())
    );
    assert_no_session(&database);
}

//! A folder store that is missing, closed, full or taken away: what the run says, and that nothing
//! but the lease stays behind.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::support::database::Database;
use crate::support::disk::Disk;
use crate::support::impostor::{impostor, trickle};
use crate::support::program::program;
use crate::support::wreck::{
    Site, assert_good, assert_no_session, assert_only_a_lease, backups, fail, failure, password_of, report, tree,
};
use serde_json::Value;

/// Small enough to be quick, and with every kind of file in its backup.
fn small() -> Database {
    let database = Database::fresh(15);
    database.sql("CREATE TABLE small AS SELECT i, md5(i::text) AS t FROM generate_series(1, 200) i");
    database
}

/// Some megabytes that do not compress away.
fn large() -> Database {
    let database = Database::fresh(15);
    database.sql(
        "CREATE TABLE large AS SELECT i, (SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, 12) j) AS t
         FROM generate_series(1, 16000) i",
    );
    database
}

#[test]
fn a_store_whose_parent_is_missing_is_enoent_and_not_made() {
    let (site, database) = (Site::new(), small());
    let store = site.path().join("no/such/backups");
    let failure = fail(&mut site.backup_into(&database.url(), &store), "ENOENT", 33);
    assert!(failure.message.contains("no/such/backups"), "{}", failure.message);
    assert!(!site.path().join("no").exists());
    site.assert_nothing_is_left_of(&database);
}

#[test]
fn a_file_in_the_stores_place_is_enoent_and_stays_as_it_is() {
    let (site, database) = (Site::new(), small());
    fs::write(site.store(), "precious").unwrap();
    let failure = fail(&mut site.backup(&database.url()), "ENOENT", 33);
    assert!(failure.message.contains("is not a folder"), "{}", failure.message);
    assert_eq!(fs::read_to_string(site.store()).unwrap(), "precious");
    site.assert_nothing_is_left_of(&database);
}

#[test]
fn a_file_in_the_place_of_the_databases_folder_is_named_and_stays_as_it_is() {
    let (site, database) = (Site::new(), small());
    fs::create_dir(site.store()).unwrap();
    let file = site.store().join(&database.name);
    fs::write(&file, "precious").unwrap();
    let failure = fail(&mut site.backup(&database.url()), "STORE", 30);
    assert!(failure.message.contains(file.to_str().unwrap()), "{}", failure.message);
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    assert_eq!(tree(&site.store()).len(), 1);
    site.assert_nothing_runs();
    assert_no_session(&database);
}

#[test]
fn a_read_only_store_is_eacces_before_the_dump_starts() {
    let (site, database, disk) = (Site::new(), small(), Disk::mount("size=1m"));
    let store = disk.path().join("backups");
    fs::create_dir(&store).unwrap();
    disk.remount("ro");
    let mut command = site.backup_into(&database.url(), &store);
    command.env(
        "BACKUP_PG_BIN",
        impostor(site.path(), 15, "touch $SITE/dumped; exec $REAL \"$@\""),
    );
    let failure = fail(&mut command, "EACCES", 32);
    assert!(failure.message.contains(store.to_str().unwrap()), "{}", failure.message);
    assert!(!site.path().join("dumped").exists());
    assert!(tree(&store).is_empty());
    site.assert_nothing_runs();
    assert_no_session(&database);
}

#[test]
fn a_disk_that_is_full_midway_is_enospc_and_leaves_only_the_lease() {
    let (site, database, disk) = (Site::new(), large(), Disk::mount("size=1m"));
    let failure = fail(&mut site.backup_into(&database.url(), disk.path()), "ENOSPC", 31);
    assert!(failure.message.contains(".dump"), "{}", failure.message);
    assert_only_a_lease(disk.path());
    site.assert_nothing_runs();
    assert_no_session(&database);
}

/// A disk of each size: either all of the backup fits, or nothing of it stays.
fn every_size(sizes: impl Iterator<Item = String>) {
    let (site, database) = (Site::new(), small());
    let mut outcomes = Vec::new();
    for size in sizes {
        let disk = Disk::mount(&size);
        let mut command = site.backup_into(&database.url(), disk.path());
        let secret = password_of(&command);
        let run = site.start(&mut command).end(Duration::from_secs(20));
        site.assert_nothing_runs();
        if run.status.success() {
            let id = run.json()["id"].as_str().unwrap().to_owned();
            assert_good(disk.path(), &id, 15);
            assert_eq!(backups(disk.path()), [id]);
            outcomes.push((size, String::new()));
        } else {
            let failure = failure(&run, "ENOSPC", 31, secret.as_deref());
            let left = tree(disk.path());
            assert!(
                left.iter()
                    .all(|path| *path == database.name || path.ends_with("/.lease")),
                "{size}: {left:?} after {}",
                failure.message
            );
            outcomes.push((size, failure.message));
        }
    }
    assert_no_session(&database);
    let failed = outcomes.iter().take_while(|(_, message)| !message.is_empty()).count();
    assert!(
        outcomes[failed..].iter().all(|(_, message)| message.is_empty()),
        "{outcomes:#?}"
    );
    assert!(failed > 4 && failed < outcomes.len(), "{outcomes:#?}");
}

#[test]
fn a_disk_without_room_for_one_more_file_is_enospc_whichever_file_that_is() {
    every_size((3..=13).map(|inodes| format!("size=8m,nr_inodes={inodes}")));
}

#[test]
fn a_disk_without_room_for_one_more_page_is_enospc_whichever_page_that_is() {
    every_size((1..=16).map(|pages| format!("size={}k", 4 * pages)));
}

#[test]
fn a_store_that_is_deleted_midway_is_enoent_and_not_made_anew() {
    let (site, database) = (Site::new(), large());
    let mut command = site.backup(&database.url());
    command.env("BACKUP_PG_BIN", impostor(site.path(), 15, &trickle(1_000_000, 0.1)));
    let secret = password_of(&command);
    let mut running = site.start(&mut command);
    let writes = || {
        tree(&site.store())
            .iter()
            .any(|path| path.contains(".dump.") && path.ends_with(".pgstow-tmp"))
    };
    running.until("it writes", writes);
    // In one moment, or the run may find its lease gone in a folder that is still there.
    let away = site.path().join("away");
    fs::rename(site.store(), &away).unwrap();
    fs::remove_dir_all(&away).unwrap();
    let run = running.end(Duration::from_secs(20));
    failure(&run, "ENOENT", 33, secret.as_deref());
    assert!(tree(&site.store()).is_empty(), "{:?}", tree(&site.store()));
    site.assert_nothing_is_left_of(&database);
}

fn store<'a>(report: &'a Value, place: &Path) -> &'a Value {
    let stores = report["stores"].as_array().unwrap();
    stores
        .iter()
        .find(|store| store["url"] == place.to_str().unwrap())
        .unwrap()
}

#[test]
fn a_copys_disk_that_is_full_or_closed_does_not_hurt_the_backup_and_is_reported() {
    let database = large();
    for (options, code) in [("size=1m", "ENOSPC"), ("size=1m,ro", "EACCES")] {
        let (site, disk) = (Site::new(), Disk::mount(options));
        let copy = site.path().join("copy");
        let mut command = site.backup(&database.url());
        command.arg("--store").arg(disk.path()).arg("--store").arg(&copy);
        let report = report(&mut command);
        assert_eq!(report["status"], "degraded");
        let failed = store(&report, disk.path());
        assert_eq!(failed["holds_backup"], false, "{report}");
        assert_eq!(failed["error"]["code"], code, "{report}");
        let id = report["id"].as_str().unwrap();
        for good in [&site.store(), &copy] {
            assert_eq!(store(&report, good)["holds_backup"], true, "{report}");
            assert_good(good, id, 15);
        }
        assert_holds_nothing(disk.path());
        site.assert_nothing_runs();
    }
    assert_no_session(&database);
}

/// No file but the lease, which remembers the ids that were taken.
fn assert_holds_nothing(store: &Path) {
    let mut files = tree(store);
    files.retain(|path| store.join(path).is_file() && !path.ends_with("/.lease"));
    assert!(files.is_empty(), "{files:?}");
}

#[test]
fn a_copys_disk_that_is_full_at_the_last_files_holds_nothing_of_the_backup() {
    let (site, database) = (Site::new(), small());
    for inodes in 3..=9 {
        let disk = Disk::mount(&format!("size=8m,nr_inodes={inodes}"));
        let mut command = site.backup(&database.url());
        command.arg("--store").arg(disk.path());
        let report = report(&mut command);
        assert_eq!(store(&report, &site.store())["holds_backup"], true, "{report}");
        if store(&report, disk.path())["holds_backup"] == false {
            assert_eq!(store(&report, disk.path())["error"]["code"], "ENOSPC", "{report}");
            assert_holds_nothing(disk.path());
        }
    }
    site.assert_nothing_runs();
    assert_no_session(&database);
}

/// A limit on the length of files (ulimit -f) ends a program by a signal, unless it says that it is not to.
#[test]
fn a_file_that_may_not_grow_is_as_a_full_disk() {
    let (site, database) = (Site::new(), large());
    let backup = site.backup(&database.url());
    let mut limited = program("prlimit");
    limited.args(["--fsize=2000000", "--"]).arg(backup.get_program());
    limited.args(backup.get_args()).current_dir(site.path());
    for (name, value) in backup.get_envs() {
        limited.env(name, value.unwrap());
    }
    let failure = fail(&mut limited, "ENOSPC", 31);
    assert!(failure.message.contains("cannot write"), "{}", failure.message);
    site.assert_nothing_is_left_of(&database);
}

//! TMPDIR, where the password and pg_restore's small files lie: what is wrong with it is found before
//! anything is changed, and told as such.

use std::fs;

use crate::job::restore::place::{Backed, untouched};
use crate::support::database::Database;
use crate::support::disk::Disk;
use crate::support::wreck::{Site, fail};

fn backed() -> Backed {
    let source = Database::fresh(17);
    source.sql("CREATE TABLE t AS SELECT i, md5(i::text) AS a FROM generate_series(1, 500) i");
    Backed::up(source, &[])
}

#[test]
fn no_room_in_tmpdir_is_found_before_a_database_is_dropped() {
    let (backed, target) = (backed(), Database::fresh(17));
    target.sql("CREATE TABLE precious AS SELECT 1 AS a");
    let disk = Disk::mount("size=64k");
    fs::write(disk.path().join("ballast"), vec![0; 60 << 10]).unwrap();
    untouched(&target, || {
        let mut restore = backed.restore(&target.url(), &["--create", "--clean"]);
        let failure = fail(restore.env("TMPDIR", disk.path()), "ENOSPC", 31);
        assert!(failure.message.contains("TMPDIR"), "{}", failure.message);
        assert!(failure.hint.contains("TMPDIR"), "{}", failure.hint);
    });
}

#[test]
fn a_tmpdir_that_is_missing_or_closed_is_named_by_every_command_that_needs_it() {
    let (backed, target) = (backed(), Database::fresh(17));
    let disk = Disk::mount("size=1m");
    disk.remount("ro");
    let missing = backed.site.path().join("no/such/folder");
    for (temp, code, exit) in [(missing.as_path(), "ENOENT", 33), (disk.path(), "EACCES", 32)] {
        let site = Site::new();
        let commands = [
            site.backup(&backed.source.url()),
            backed.restore(&target.url(), &[]),
            backed.restore(&target.url(), &["--create", "--clean"]),
        ];
        for mut command in commands {
            let failure = fail(command.env("TMPDIR", temp), code, exit);
            assert!(failure.message.contains("TMPDIR"), "{}", failure.message);
            assert!(failure.hint.contains("TMPDIR"), "{}", failure.hint);
        }
    }
    assert_eq!(
        target.sql("SELECT count(*) FROM pg_class WHERE relname = 't'").trim(),
        "0"
    );
}

//! Extensions that the target's server, or the role, cannot make: found before a database is made.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use crate::job::restore::place::{Backed, untouched};
use crate::support::database::{Database, psql, quoted};
use crate::support::program::succeed;
use crate::support::role::Role;
use crate::support::server::OwnServer;

/// A server with extensions of our own beside those that it comes with.
struct Extended {
    server: OwnServer,
    folder: TempDir,
}

impl Extended {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = folder.path().join("extension");
        fs::create_dir(&files).unwrap();
        for path in [folder.path(), &files] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let place = format!("extension_control_path=$system:{}", folder.path().display());
        Self {
            server: OwnServer::start_with(18, &[&place]),
            folder,
        }
    }

    /// The control file of an extension, with these lines.
    fn control(&self, name: &str, lines: &str) {
        let files = self.folder.path().join("extension");
        fs::write(files.join(format!("{name}.control")), lines).unwrap();
        let script = files.join(format!("{name}--1.0.sql"));
        let made = format!("CREATE FUNCTION @extschema@.{name}() RETURNS int LANGUAGE sql AS 'SELECT 1';");
        fs::write(script, made).unwrap();
    }

    fn sql(&self, script: &str) -> String {
        psql(18, &self.server.url(), script)
    }

    /// The URL of a database that does not exist.
    fn free(&self) -> Database {
        let database = self.server.database("new");
        self.sql(&format!("DROP DATABASE {}", quoted(&database.name)));
        database
    }

    fn has(&self, database: &Database) -> bool {
        self.sql(&format!(
            "SELECT count(*) FROM pg_database WHERE datname = '{}'",
            database.name
        )) == "1"
    }
}

const WHOLE: &str = "default_version = '1.0'\n";

#[test]
fn what_the_server_lacks_for_an_extension_is_found_before_anything_is_made() {
    let extended = Extended::start();
    extended.control("needy", WHOLE);
    let source = extended.server.database("source");
    source.sql("CREATE EXTENSION needy; CREATE TABLE t AS SELECT 1 AS a");
    let backed = Backed::up(source, &[]);
    let (new, other) = (extended.free(), extended.server.database("other"));
    let standing = backed.source.copy();
    let refused = |options: &[&str], target: &Database, words: &str, hint: &str| {
        let refused = backed.refused(&target.url(), options, "RESTORE_ERR", 41);
        assert!(refused.message.contains(words), "{}", refused.message);
        assert!(refused.message.contains("nothing was changed"), "{}", refused.message);
        assert!(refused.hint.contains(hint), "{}", refused.hint);
        assert!(!extended.has(&new));
    };

    // Every new database has this one, and the backup does not name it.
    extended.control("needy", &format!("{WHOLE}requires = 'plpgsql'\n"));
    succeed(&mut backed.restore(&new.url(), &["--create", "--dry-run"]));
    // On this server it needs another one.
    extended.control("base", WHOLE);
    extended.control("needy", &format!("{WHOLE}requires = 'base'\n"));
    let words = "needy needs base";
    refused(
        &["--create"],
        &new,
        words,
        "run CREATE EXTENSION \"base\" in it, and restore without --create",
    );
    refused(
        &["--clean"],
        &standing,
        words,
        "run CREATE EXTENSION \"base\" in the target first",
    );
    refused(&[], &other, words, "run CREATE EXTENSION \"base\" in the target first");
    other.sql("CREATE EXTENSION base");
    backed.restored(&other, &[]);
    backed.restored(&extended.server.database("other"), &["--exclude", "EXTENSION:needy"]);

    // The files of its default version are not there, or no file at all.
    extended.control("needy", "default_version = '9'\n");
    let words = "lacks files of extensions that the backup needs, and cannot make them: needy";
    refused(&["--create"], &new, words, "--exclude EXTENSION:NAME");
    refused(&["--clean"], &standing, words, "install their packages");
    fs::remove_file(extended.folder.path().join("extension/needy.control")).unwrap();
    refused(&["--clean"], &standing, words, "install their packages");
    refused(
        &["--create"],
        &new,
        "lacks extensions that the backup needs: needy",
        "--keep-going",
    );
    untouched(&standing, || {
        refused(&["--clean", "--dry-run"], &standing, words, "install their packages");
    });
    // One that stays needs no files.
    backed.restored(&standing, &["--clean", "--exclude", "EXTENSION:needy"]);
}

#[test]
fn an_extension_that_stands_everywhere_is_judged_by_others_like_it() {
    let source = Database::fresh(18);
    source.sql("CREATE EXTENSION pg_stat_statements; CREATE TABLE t AS SELECT 1 AS a");
    let backed = Backed::up(source, &[]);
    let extended = Extended::start();
    let url = extended.server.url();
    let (before, _) = url.rsplit_once('/').unwrap();
    for database in ["postgres", "template1"] {
        psql(
            18,
            &format!("{before}/{database}"),
            "CREATE EXTENSION pg_stat_statements",
        );
    }
    extended.sql("CREATE ROLE maker LOGIN CREATEDB PASSWORD 'its secret'");
    let new = extended.free();
    let as_maker = |database: &Database| database.url_as(Some(("maker", "its secret")));
    let refused = backed.refused(&as_maker(&new), &["--create", "--no-owner"], "PERMISSION", 13);
    assert!(
        refused.message.contains("may not make an extension"),
        "{}",
        refused.message
    );
    assert!(refused.message.contains("nothing was changed"), "{}", refused.message);
    assert!(!extended.has(&new));
    // As the hint says.
    extended.sql(&format!("CREATE DATABASE {} OWNER maker", quoted(&new.name)));
    succeed(&mut backed.restore(&as_maker(&new), &["--no-owner"]));
}

fn the_right_to_make_a_trusted_extension_is_told(major: u32) {
    let source = Database::fresh(major);
    source.sql("CREATE EXTENSION citext; CREATE TABLE t AS SELECT 'a'::citext AS a");
    let backed = Backed::up(source, &[]);
    let target = Database::fresh(major);
    let role = Role::fresh(&target, "its secret", "");
    target.sql(&format!("GRANT CREATE ON SCHEMA public TO {}", role.name));
    let url = target.url_as(Some((&role.name, &role.password)));
    let refused = backed.refused(&url, &["--no-owner", "--no-comments"], "PERMISSION", 13);
    assert!(
        refused.message.contains("may not make an extension"),
        "{}",
        refused.message
    );
    let right = format!("CREATE ON DATABASE {} TO \"{}\"", quoted(&target.name), role.name);
    assert!(refused.hint.contains(&right), "{}", refused.hint);
    target.sql(&format!("GRANT {right}"));
    succeed(&mut backed.restore(&url, &["--no-owner", "--no-comments"]));
    target.sql(&format!("DROP OWNED BY {} CASCADE", role.name));
}

on_majors! { the_right_to_make_a_trusted_extension_is_told: 15 18 }

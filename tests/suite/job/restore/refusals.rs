//! What the restore finds out before it changes anything.

use crate::job::restore::place::{Backed, copy, three, untouched};
use crate::support::database::{Database, quoted};
use crate::support::program::{pgstow, succeed};
use crate::support::role::Role;
use crate::support::wreck::{Failure, fail};

fn unchanged(failure: &Failure) {
    assert!(
        failure.message.contains("nothing was changed in the target"),
        "{}",
        failure.message
    );
}

#[test]
fn a_target_that_holds_objects_is_refused_without_clean() {
    let backed = Backed::up(three(17), &[]);
    for sql in [
        "CREATE TABLE mine ()",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "SELECT lo_create(0)",
        "CREATE SCHEMA s",
        "CREATE TYPE t AS (a int)",
    ] {
        let target = Database::fresh(17);
        target.sql(sql);
        untouched(&target, || {
            let refused = backed.refused(&target.url(), &[], "RESTORE_ERR", 41);
            assert!(
                refused.message.contains("1 object already"),
                "{sql}: {}",
                refused.message
            );
            assert!(refused.hint.contains("--clean"), "{}", refused.hint);
            unchanged(&refused);
        });
    }
}

#[test]
fn an_older_server_is_refused() {
    let backed = Backed::up(three(17), &[]);
    let target = Database::fresh(16);
    untouched(&target, || {
        let refused = backed.refused(&target.url(), &[], "VERSION", 21);
        assert!(refused.message.contains("older"), "{}", refused.message);
        assert!(refused.hint.contains("17"), "{}", refused.hint);
        unchanged(&refused);
    });
}

#[test]
fn roles_and_extensions_that_are_lacking_are_named() {
    let source = three(17);
    let owner = Role::fresh(&source, "secret", "");
    source.sql(&format!("ALTER TABLE c OWNER TO {}", quoted(&owner.name)));
    let backed = Backed::up(source, &[]);
    let target = Database::fresh(18);
    untouched(&target, || {
        let refused = backed.refused(&target.url(), &[], "RESTORE_ERR", 41);
        assert!(refused.message.contains(&owner.name), "{}", refused.message);
        assert!(refused.hint.contains("--no-owner"), "{}", refused.hint);
        unchanged(&refused);
    });
    backed.restored(&target, &["--no-owner", "--no-privileges"]);
    assert_eq!(
        target.sql("SELECT tableowner FROM pg_tables WHERE tablename = 'c'"),
        "postgres"
    );
    backed.source.sql("ALTER TABLE c OWNER TO postgres");
}

/// PostgreSQL 17 has it no more.
#[test]
fn an_extension_that_the_targets_server_lacks_is_named_before_anything_is_made() {
    let source = three(15);
    source.sql("CREATE EXTENSION adminpack");
    let backed = Backed::up(source, &[]);
    let target = Database::fresh(17);
    untouched(&target, || {
        let refused = backed.refused(&target.url(), &[], "RESTORE_ERR", 41);
        assert!(
            refused
                .message
                .contains("lacks extensions that the backup needs: adminpack"),
            "{}",
            refused.message
        );
        unchanged(&refused);
    });
}

#[test]
fn a_role_that_may_not_create_is_told_the_grant() {
    let backed = Backed::up(three(17), &[]);
    let target = Database::fresh(17);
    let role = Role::fresh(&target, "its own secret", "");
    let url = target.url_as(Some((&role.name, &role.password)));
    untouched(&target, || {
        let refused = backed.refused(&url, &[], "PERMISSION", 13);
        assert!(
            refused.hint.contains("GRANT CREATE ON SCHEMA \"public\" TO "),
            "{}",
            refused.hint
        );
        assert!(!refused.stderr.contains(&role.password), "{}", refused.stderr);
        unchanged(&refused);
    });
    target.sql(&format!("GRANT CREATE ON SCHEMA public TO {}", quoted(&role.name)));
    let refused = backed.refused(&url, &[], "PERMISSION", 13);
    assert!(
        refused.message.contains("postgres") && refused.hint.contains("--no-owner"),
        "{}",
        refused.message
    );
    // With what it may do, it gets its own copy.
    let mut restore = backed.restore(&url, &["--no-owner", "--no-privileges", "--jobs", "2"]);
    crate::support::program::succeed(&mut restore);
    assert_eq!(target.sql("SELECT count(*) FROM b"), "1000");
    target.sql(&format!("DROP OWNED BY {}", quoted(&role.name)));
}

#[test]
fn a_wrong_password_and_a_database_that_is_not_there_are_told_without_the_password() {
    let backed = Backed::up(three(17), &[]);
    let target = Database::fresh(17);
    let wrong = target.url_as(Some(("postgres", "a wrong one")));
    let refused = backed.refused(&wrong, &[], "AUTH", 11);
    assert!(
        !refused.stderr.contains("a wrong one") && !refused.stderr.contains("wrong%20one"),
        "{}",
        refused.stderr
    );
    let (before, _) = target
        .url()
        .rsplit_once('/')
        .map(|(before, after)| (before.to_owned(), after.to_owned()))
        .unwrap();
    let refused = backed.refused(&format!("{before}/not_there"), &[], "CONN_ERR", 10);
    assert!(refused.message.contains("not_there"), "{}", refused.message);
    assert!(refused.hint.contains("database's name"), "{}", refused.hint);
}

#[test]
fn an_unknown_table_is_told_with_the_nearest() {
    let backed = Backed::up(Database::loaded(17, "shop.sql"), &[]);
    let target = Database::fresh(17);
    let table = backed.manifest()["tables"][0]["name"].as_str().unwrap().to_owned();
    let schema = backed.manifest()["tables"][0]["schema"].as_str().unwrap().to_owned();
    untouched(&target, || {
        let refused = backed.refused(
            &target.url(),
            &["--table", &format!("{schema}.{table}x")],
            "NOT_FOUND",
            42,
        );
        assert!(refused.hint.contains(&format!("{schema}.{table}")), "{}", refused.hint);
        // Never by a prefix.
        backed.refused(
            &target.url(),
            &["--table", &format!("{schema}.{}", &table[..table.len() - 1])],
            "NOT_FOUND",
            42,
        );
        unchanged(&refused);
    });
}

#[test]
fn a_backup_is_meant_by_its_whole_id() {
    let source = Database::named(17, "app");
    source.sql("CREATE TABLE t ()");
    let backed = Backed::up(source, &[]);
    let target = Database::fresh(17);
    let (database, time) = backed.id().split_once('/').unwrap();
    let ask = |backup: &str| {
        let mut restore = pgstow();
        restore
            .args(["restore", backup, "--json", "--store", &backed.store])
            .env("BACKUP_TARGET_URL", target.url())
            .current_dir(backed.site.path());
        fail(&mut restore, "NOT_FOUND", 42)
    };
    untouched(&target, || {
        // The name of the database, without its end.
        for wrong in [
            format!("app/{time}"),
            format!("{database}_prod/{time}"),
            format!("{database}/20200101T000000Z-full"),
        ] {
            let refused = ask(&wrong);
            assert!(
                refused.hint.contains(backed.id()) || refused.message.contains(backed.id()),
                "{wrong}: {} {}",
                refused.message,
                refused.hint
            );
            unchanged(&refused);
        }
    });
}

#[test]
fn a_table_that_is_there_and_options_in_conflict_are_refused() {
    let backed = Backed::up(three(16), &[]);
    let target = copy(&backed.source);
    target.sql("CREATE VIEW few AS SELECT * FROM a WHERE n < 3");
    untouched(&target, || {
        let refused = backed.refused(&target.url(), &["--table", "public.a"], "RESTORE_ERR", 41);
        assert!(refused.message.contains("has public.a already"), "{}", refused.message);
        assert!(refused.hint.contains("--clean"), "{}", refused.hint);
        unchanged(&refused);
        // Something else needs it.
        let refused = backed.refused(&target.url(), &["--table", "public.a", "--clean"], "RESTORE_ERR", 41);
        assert!(refused.message.contains("view public.few"), "{}", refused.message);
        unchanged(&refused);
        backed.refused(&target.url(), &["--create", "--table", "public.a"], "CONFIG", 2);
    });
}

#[test]
fn what_a_superusers_restore_means_is_said_once() {
    let backed = Backed::up(three(17), &[]);
    let target = Database::fresh(17);
    for more in [&["--dry-run"][..], &[]] {
        let mut restore = pgstow();
        restore
            .args(["restore", backed.id(), "--store", &backed.store])
            .args(more)
            .env("BACKUP_TARGET_URL", target.url())
            .current_dir(backed.site.path());
        let run = succeed(&mut restore);
        let said = [&*run.text(), &*run.stderr].concat();
        assert_eq!(said.matches("role is a superuser").count(), 1, "{said}");
    }
}

#[test]
fn an_option_that_asks_for_what_is_not_done_is_refused() {
    let backed = Backed::up(three(17), &[]);
    let target = Database::fresh(17);
    let single = ["--table", "public.a"];
    let copy = ["--table", "public.a", "--into", "apart"];
    untouched(&target, || {
        for (options, idle) in [
            (&["--clean"][..], "--force"),
            (&single, "--globals-privileged"),
            (&copy, "--keep-going"),
        ] {
            let refused = backed.refused(&target.url(), &[options, &[idle]].concat(), "CONFIG", 2);
            assert!(
                refused.message.contains(idle),
                "{options:?} {idle}: {}",
                refused.message
            );
            assert!(!refused.hint.contains("backup --help"), "{}", refused.hint);
        }
        let other = ["--database", "another", "--dry-run"];
        let refused = backed.refused(&target.url(), &other, "CONFIG", 2);
        assert!(
            refused.message.contains("no backup of the database"),
            "{}",
            refused.message
        );
        // What waives something is true where that is not done anyway.
        let waivers = [
            "--no-check",
            "--no-verify",
            "--dry-run",
            "--database",
            &backed.source.name,
        ];
        succeed(&mut backed.restore(&target.url(), &waivers));
        let waivers = [&copy[..], &["--no-owner", "--no-comments", "--dry-run"]].concat();
        succeed(&mut backed.restore(&target.url(), &waivers));
    });
}

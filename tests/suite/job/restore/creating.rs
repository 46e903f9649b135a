//! `--create`: the database itself, with what belongs to it.

use std::process::Stdio;
use std::time::Duration;

use crate::job::restore::place::Backed;
use crate::support::contents::Contents;
use crate::support::database::{Database, psql, quoted};
use crate::support::program::{stock, succeed};
use crate::support::role::Role;
use crate::support::server::OwnServer;
use crate::support::services::postgres_url;

const ABOUT: &str = "SELECT pg_encoding_to_char(encoding), datcollate, datctype, pg_get_userbyid(datdba),
    shobj_description(oid, 'pg_database'), datconnlimit, has_database_privilege('public', oid, 'TEMPORARY'),
    (SELECT array_agg(s.setconfig::text ORDER BY s.setrole) FROM pg_db_role_setting s WHERE s.setdatabase = d.oid)
    FROM pg_database d WHERE datname = current_database()";

#[test]
fn create_makes_the_database_as_it_was_and_clean_makes_it_anew() {
    let source = Database::fresh(17);
    let owner = Role::fresh(&source, "secret", "");
    let (server, name) = (postgres_url(17), quoted(&source.name));
    psql(
        17,
        &server,
        &format!(
            "DROP DATABASE {name};
             CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C' CONNECTION LIMIT 7;
             COMMENT ON DATABASE {name} IS 'a comment; with ''quotes''';
             ALTER DATABASE {name} SET work_mem = '7MB';
             ALTER DATABASE {name} SET default_transaction_read_only = on;
             ALTER ROLE {owner} IN DATABASE {name} SET search_path = a, \"b c\";
             REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC;
             ALTER DATABASE {name} OWNER TO {owner}",
            owner = quoted(&owner.name)
        ),
    );
    source.sql("SET default_transaction_read_only = off; CREATE TABLE \"größe\" AS SELECT U&'\\00e9' AS \"ä\"");
    let backed = Backed::up(source, &[]);

    // A name that wants quotes; the guard that removes it in the end is made around it.
    let target = Database::named(17, "new \"one\"");
    psql(17, &server, &format!("DROP DATABASE {}", quoted(&target.name)));
    let report = backed.restored(&target, &["--create"]);
    assert_eq!(report["created_database"], true);
    assert_eq!(target.sql(ABOUT), backed.source.sql(ABOUT));
    Contents::of(&backed.source).assert_equals(&Contents::of(&target));

    let refused = backed.refused(&target.url(), &["--create"], "RESTORE_ERR", 41);
    assert!(refused.message.contains("exists already"), "{}", refused.message);
    assert!(refused.hint.contains("--create --clean"), "{}", refused.hint);
    target.sql("SET default_transaction_read_only = off; DROP TABLE \"größe\"; CREATE TABLE other ()");
    backed.restored(&target, &["--create", "--clean"]);
    assert_eq!(target.sql(ABOUT), backed.source.sql(ABOUT));
    Contents::of(&backed.source).assert_equals(&Contents::of(&target));
}

#[test]
fn a_database_that_is_in_use_stays_and_one_made_anew_is_said_to_be() {
    let source = Database::fresh(17);
    source.sql("CREATE TABLE t AS SELECT 1 AS n; CREATE TABLE u AS SELECT 2 AS n");
    let backed = Backed::up(source, &["--compress", "none"]);
    let target = Database::fresh(17);
    target.sql("CREATE TABLE mine ()");
    let mut session = stock(17, "psql");
    let mut session = session
        .args(["-X", "-q", "-d", &target.url()])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let connected = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND application_name = 'psql'",
        target.name
    );
    while psql(17, &postgres_url(17), &connected) == "0" {
        std::thread::sleep(Duration::from_millis(20));
    }
    let refused = backed.refused(&target.url(), &["--create", "--clean"], "RESTORE_ERR", 41);
    assert!(
        refused.message.contains("it has session ") && refused.message.contains("(psql)"),
        "{}",
        refused.message
    );
    assert!(refused.message.contains("nothing was changed"), "{}", refused.message);
    drop(session.stdin.take());
    session.wait().unwrap();
    assert_eq!(target.sql("SELECT count(*) FROM mine"), "0");

    backed.damage("u");
    let unread = ["--create", "--clean", "--no-verify"];
    let failed = backed.refused(&target.url(), &unread, "INTEGRITY", 40);
    assert!(
        failed
            .message
            .contains("the data of 1 of 2 tables; without data: public.u"),
        "{}",
        failed.message
    );
    assert_eq!(
        target.sql("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM u)"),
        "1|0"
    );
}

#[test]
fn a_role_that_may_not_create_databases_is_told_so_and_none_is_made() {
    let backed = Backed::up(crate::job::restore::place::three(16), &[]);
    let target = Database::fresh(16);
    let role = Role::fresh(&target, "its secret", "");
    psql(
        16,
        &postgres_url(16),
        &format!("DROP DATABASE {}", quoted(&target.name)),
    );
    let url = target.url_as(Some((&role.name, &role.password)));
    let refused = backed.refused(&url, &["--create"], "PERMISSION", 13);
    assert!(refused.hint.contains("CREATEDB"), "{}", refused.hint);
    assert!(refused.message.contains("nothing was changed"), "{}", refused.message);
    let count = format!("SELECT count(*) FROM pg_database WHERE datname = '{}'", target.name);
    assert_eq!(psql(16, &postgres_url(16), &count), "0");
}

/// The hint must not advise `--clean`: by the next run the name may belong to another run's database.
#[test]
fn a_database_that_the_server_refuses_to_create_changes_nothing() {
    let backed = Backed::up(crate::job::restore::place::three(17), &[]);
    let server = OwnServer::start(17);
    let target = server.database("refused");
    let url = server.url();
    psql(17, &url, &format!("DROP DATABASE {}", quoted(&target.name)));
    // A database with a session in it cannot be copied.
    psql(17, &url, "ALTER DATABASE template0 ALLOW_CONNECTIONS true");
    let (place, _) = url.rsplit_once('/').unwrap();
    let mut session = stock(17, "psql");
    let mut session = session
        .args(["-X", "-q", "-d", &format!("{place}/template0")])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let connected = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'template0'";
    while psql(17, &url, connected) == "0" {
        std::thread::sleep(Duration::from_millis(20));
    }
    let refused = backed.refused(&target.url(), &["--create"], "RESTORE_ERR", 41);
    assert!(refused.message.contains("template0"), "{}", refused.message);
    assert!(refused.message.contains("nothing was changed"), "{}", refused.message);
    assert!(!refused.hint.contains("--clean"), "{}", refused.hint);
    drop(session.stdin.take());
    session.wait().unwrap();
    backed.restored(&target, &["--create"]);
}

fn a_new_database_that_stays_empty_is_removed_again(major: u32) {
    let source = Database::fresh(major);
    // What no question finds: pg_dump writes this language without its handler.
    source.sql("CREATE TABLE t AS SELECT 1 AS n; CREATE LANGUAGE strange HANDLER plpgsql_call_handler");
    let backed = Backed::up(source, &[]);
    let target = Database::fresh(major);
    let server = postgres_url(major);
    psql(major, &server, &format!("DROP DATABASE {}", quoted(&target.name)));
    let count = format!("SELECT count(*) FROM pg_database WHERE datname = '{}'", target.name);
    let plain = Backed::up(backed.source.copy(), &["--format", "plain"]);
    for backed in [&backed, &plain] {
        let refused = backed.refused(&target.url(), &["--create"], "RESTORE_ERR", 41);
        assert!(refused.message.contains("strange"), "{}", refused.message);
        assert!(
            refused
                .message
                .contains("the new database was still empty, and was removed again"),
            "{}",
            refused.message
        );
        assert!(!refused.hint.contains("--clean"), "{}", refused.hint);
        assert_eq!(psql(major, &server, &count), "0");
    }
    backed.restored(&target, &["--create", "--exclude", "PROCEDURAL-LANGUAGE"]);
    assert_eq!(target.sql("SELECT n FROM t"), "1");
}

on_majors! { a_new_database_that_stays_empty_is_removed_again: 15 18 }

#[test]
fn roles_that_another_server_lacks_come_first_with_globals() {
    let source = Database::fresh(15);
    let (owner, reader) = (
        Role::fresh(&source, "secret", ""),
        Role::fresh(&source, "other secret", ""),
    );
    source.sql(&format!(
        "CREATE TABLE owned (a int); INSERT INTO owned VALUES (1); ALTER TABLE owned OWNER TO {};
         GRANT SELECT ON owned TO {}; GRANT {} TO {}",
        quoted(&owner.name),
        quoted(&reader.name),
        quoted(&reader.name),
        quoted(&owner.name)
    ));
    let backed = Backed::up(source, &[]);
    let server = OwnServer::start(15);
    let target = server.database("globals");
    let refused = backed.refused(&target.url(), &[], "RESTORE_ERR", 41);
    assert!(refused.message.contains(&owner.name), "{}", refused.message);
    assert!(refused.message.contains("nothing was changed"), "{}", refused.message);
    assert!(refused.hint.contains("--globals"), "{}", refused.hint);

    let report = succeed(&mut backed.restore(&target.url(), &["--globals"])).json();
    assert_eq!(report["status"], "restored", "{report:#}");
    let about = "SELECT pg_get_userbyid(relowner), relacl::text FROM pg_class WHERE relname = 'owned'";
    assert_eq!(target.sql(about), backed.source.sql(about));
    let member = format!(
        "SELECT pg_has_role('{}', '{}', 'MEMBER'), rolcanlogin, rolpassword IS NULL FROM pg_authid WHERE rolname = '{}'",
        owner.name, reader.name, owner.name
    );
    assert_eq!(target.sql(&member), "t|t|t");
}

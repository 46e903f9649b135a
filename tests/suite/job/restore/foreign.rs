//! Subscriptions, foreign servers and user mappings that the role may not make: each is told before anything is changed.

use crate::job::restore::place::{Backed, untouched};
use crate::job::restore::roles::MASTER;
use crate::support::database::{Database, psql, quoted, unique_word};
use crate::support::program::succeed;
use crate::support::role::Role;
use crate::support::server::OwnServer;
use crate::support::services::postgres_url;

/// Before 16 no other role makes any.
#[test]
fn a_subscription_without_a_password_is_found_before() {
    let source = Database::fresh(18);
    let options = "WITH (connect = false, slot_name = NONE, enabled = false, create_slot = false";
    source.sql(&format!(
        "CREATE TABLE t AS SELECT 1 AS n;
         CREATE SUBSCRIPTION open CONNECTION 'dbname=nowhere password=x' PUBLICATION p {options});
         CREATE SUBSCRIPTION bare CONNECTION 'dbname=nowhere' PUBLICATION p {options});
         CREATE SUBSCRIPTION free CONNECTION 'dbname=nowhere password=x' PUBLICATION p {options}, password_required = false)"
    ));
    let backed = Backed::up(source, &[]);
    backed
        .source
        .sql("DROP SUBSCRIPTION open; DROP SUBSCRIPTION bare; DROP SUBSCRIPTION free");
    let target = Database::fresh(18);
    let role = Role::fresh(&target, "its secret", "CREATEDB IN ROLE pg_create_subscription");
    let name = quoted(&role.name);
    target.sql(&format!(
        "GRANT CREATE ON SCHEMA public TO {name}; GRANT CREATE ON DATABASE {} TO {name}",
        quoted(&target.name)
    ));
    let url = target.url_as(Some((&role.name, &role.password)));
    untouched(&target, || {
        for (kept, other) in [("bare", "free"), ("free", "bare")] {
            let other = format!("SUBSCRIPTION:{other}");
            let refused = backed.refused(&url, &["--no-owner", "--exclude", &other], "PERMISSION", 13);
            assert!(
                refused.message.contains("without a password") && refused.message.contains(kept),
                "{}",
                refused.message
            );
            assert!(refused.hint.contains("--exclude SUBSCRIPTION:NAME"), "{}", refused.hint);
            // The same is known of a database that is yet to be made.
            let options = ["--create", "--dry-run", "--no-owner", "--exclude", &other];
            let refused = backed.refused(&format!("{url}_new"), &options, "PERMISSION", 13);
            assert!(refused.message.contains(kept), "{}", refused.message);
        }
    });
    let without = [
        "--no-owner",
        "--exclude",
        "SUBSCRIPTION:bare",
        "--exclude",
        "SUBSCRIPTION:free",
    ];
    let anew = [&["--create", "--dry-run"][..], &without].concat();
    succeed(&mut backed.restore(&format!("{url}_new"), &anew));
    succeed(&mut backed.restore(&url, &without));
    assert_eq!(target.sql("SELECT string_agg(subname, ' ') FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())"), "open");
    target.sql(&format!("DROP SUBSCRIPTION open; DROP OWNED BY {name}"));
}

/// Each right that is lacking is told before anything is changed, and what the hint says helps.
fn foreign_servers_and_user_mappings_that_the_role_may_not_make_are_told_before(major: u32) {
    let (app, other) = (format!("app_{}", unique_word()), format!("other_{}", unique_word()));
    let source = Database::fresh(major);
    source.sql(&format!(
        "CREATE ROLE {app}; CREATE ROLE {other}; CREATE EXTENSION postgres_fdw;
         GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO {app};
         CREATE SERVER \"Far away\" FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'nowhere.invalid');
         ALTER SERVER \"Far away\" OWNER TO {app};
         CREATE USER MAPPING FOR {other} SERVER \"Far away\" OPTIONS (user 'x', password 'y');
         CREATE USER MAPPING FOR {app} SERVER \"Far away\" OPTIONS (user 'x', password_required 'off');
         CREATE FOREIGN TABLE there (a int) SERVER \"Far away\"; CREATE TABLE here AS SELECT 1 AS a;
         ALTER FOREIGN TABLE there OWNER TO {app}; ALTER TABLE here OWNER TO {app}"
    ));
    let backed = Backed::up(source, &[]);
    let server = OwnServer::start(major);
    let not_inheriting = match major {
        16.. => format!("GRANT {app} TO master WITH INHERIT FALSE"),
        _ => format!("GRANT {app} TO master; ALTER ROLE master NOINHERIT"),
    };
    psql(
        major,
        &server.url(),
        &format!("{MASTER}; CREATE ROLE {app}; CREATE ROLE {other}; {not_inheriting}"),
    );
    let target = server.database("there");
    let name = quoted(&target.name);
    target.sql(&format!(
        "CREATE EXTENSION postgres_fdw; ALTER DATABASE {name} OWNER TO master; GRANT ALL ON SCHEMA public TO master, {app}"
    ));
    let url = target.url_as(Some(("master", "its secret")));
    let inheriting = match major {
        16.. => format!("GRANT {app} TO master WITH INHERIT TRUE"),
        _ => "ALTER ROLE master INHERIT".to_owned(),
    };
    let mut options = vec!["--no-privileges", "--exclude", "comment"];
    let usage = "GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO";
    for (lacking, hint, cure, option) in [
        (
            "may not make the foreign server \"Far away\"",
            format!("{usage} master"),
            format!("{usage} master"),
            None,
        ),
        (
            "cannot be given to",
            format!("{usage} {app}"),
            format!("{usage} {app}"),
            None,
        ),
        (
            "the user mapping of",
            format!("GRANT {app} TO master"),
            inheriting,
            None,
        ),
        (
            "without a password",
            format!("--exclude 'USER-MAPPING:{app} SERVER Far away'"),
            String::new(),
            Some("--exclude=user-mapping"),
        ),
    ] {
        untouched(&target, || {
            let refused = backed.refused(&url, &options, "PERMISSION", 13);
            assert!(refused.message.contains(lacking), "{lacking}: {}", refused.message);
            assert!(refused.message.contains("nothing was changed"), "{}", refused.message);
            let said = refused.hint.replace('"', "");
            assert!(said.contains(&hint), "{hint}: {said}");
        });
        target.sql(&cure);
        options.extend(option);
    }
    let report = succeed(&mut backed.restore(&url, &options)).json();
    let made =
        "SELECT (SELECT pg_get_userbyid(srvowner) FROM pg_foreign_server), (SELECT count(*) FROM pg_user_mappings),
                  (SELECT count(*) FROM here), 'there'::regclass";
    assert_eq!(target.sql(made), format!("{app}|0|1|there"), "{report:#}");
    assert!(report["left_out"].to_string().contains("USER MAPPING"), "{report:#}");

    let name = quoted(&backed.source.name);
    psql(
        major,
        &postgres_url(major),
        &format!("DROP DATABASE {name}; CREATE DATABASE {name}; DROP ROLE {app}; DROP ROLE {other}"),
    );
}

on_majors! { foreign_servers_and_user_mappings_that_the_role_may_not_make_are_told_before: 15 18 }

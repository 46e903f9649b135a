//! What a restore asks of its target, and does to it by itself.

use pgstow::error::Code;
use pgstow::postgres::{ConnectionInfo, Named, Omitted, Passfile, Powers, Removal, Session, statements};

use crate::postgres::place::{client, connect, database, role, settings, superuser};
use crate::support::server::OwnServer;

const WAIT: std::time::Duration = std::time::Duration::from_secs(10);
fn removal<'a>(statements: &'a [String], large_objects: &'a [u32]) -> Removal<'a> {
    Removal {
        loosen: &[],
        parting: &[],
        statements,
        large_objects,
        tables: &[],
        beside: &[],
        wait: WAIT,
    }
}

const CONTENT: &str = "CREATE SCHEMA app; CREATE TABLE app.\"Or;ders\" (id int GENERATED ALWAYS AS IDENTITY);
    CREATE TABLE empty (a int); CREATE TABLE full_one (a serial); INSERT INTO full_one DEFAULT VALUES;
    CREATE VIEW v AS SELECT 1; CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE TYPE mood AS ENUM ('good'); CREATE EXTENSION pg_trgm; SELECT lo_create(815)";

fn table<'a>(schema: &'a str, name: &'a str) -> Named<'a> {
    Named {
        kind: "TABLE",
        schema,
        name,
    }
}

async fn a_survey_tells_what_is_there_and_what_this_role_may(major: u32) {
    let empty = database(major, "target_empty", "CREATE EXTENSION pg_trgm").await;
    let target = connect(&empty, major).await.unwrap().survey_target().await.unwrap();
    assert_eq!(target.objects, 0, "{:?}", target.first_objects);
    assert!(target.is_superuser && target.may_create && target.may_create_databases);
    assert!(target.roles["postgres"] && target.tablespaces.contains_key("pg_default"));
    assert!(target.extensions["pg_trgm"]);
    assert!(!target.extensions["btree_gist"]);
    assert_eq!(target.locks, 256 * (200 + 4));
    // The test's server is on this machine; not everyone may look at its folder.
    assert_eq!(target.free_bytes.is_some(), rustix::process::geteuid().is_root());

    let info = database(major, "target_full", CONTENT).await;
    let reader = role(&info, "target_reader", "NOCREATEDB NOCREATEROLE").await;
    let target = connect(&reader, major).await.unwrap().survey_target().await.unwrap();
    assert!(!target.is_superuser && !target.may_create && !target.may_create_databases);
    assert!(!target.roles["postgres"]);
    assert_eq!(target.free_bytes, None);
    // The sequence of the identity column counts too.
    assert_eq!(target.objects, 10);
    assert_eq!(
        target.first_objects,
        [
            "app",
            "app.Or;ders",
            "app.Or;ders_id_seq",
            "large object 815",
            "public.empty"
        ]
    );
}

on_majors! { async a_survey_tells_what_is_there_and_what_this_role_may: 15 17 }

#[tokio::test]
async fn what_exists_is_known_by_kind_and_name_and_tables_by_whether_they_hold_rows() {
    let info = database(17, "target_tables", CONTENT).await;
    let session = connect(&info, 17).await.unwrap();
    let named = |kind: &'static str, schema: &'static str, name: &'static str| Named { kind, schema, name };
    let asked = [
        (named("TABLE", "public", "full_one"), true),
        (named("TABLE", "app", "Or;ders"), true),
        (named("TABLE", "public", "missing"), false),
        (named("VIEW", "nowhere", "v"), false),
        (named("SCHEMA", "", "app"), true),
        (named("SCHEMA", "", "App"), false),
        (named("TYPE", "public", "mood"), true),
        (named("FUNCTION", "public", "f()"), true),
        (named("FUNCTION", "public", "f(integer)"), false),
        (named("EXTENSION", "", "pg_trgm"), true),
        (named("SEQUENCE", "public", "full_one_a_seq"), true),
    ];
    let (names, expected): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
    assert_eq!(session.exist(&names).await.unwrap(), expected);
    assert!(session.holds_rows("public", "full_one").await.unwrap());
    assert!(!session.holds_rows("app", "Or;ders").await.unwrap());
}

#[tokio::test]
async fn drops_are_all_done_or_none_and_what_is_missing_need_not_be_dropped() {
    let info = database(17, "target_drops", CONTENT).await;
    let session = connect(&info, 17).await.unwrap();
    let all = |statements: &[&str]| statements.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    let failing = all(&["DROP TABLE public.empty;\n", "DROP SCHEMA app;\n"]);
    let error = session.remove(&removal(&failing, &[])).await.unwrap_err();
    assert_eq!(error.code(), Code::RestoreErr);
    assert!(error.message().contains("DROP SCHEMA app"), "{error}");
    assert_eq!(session.exist(&[table("public", "empty")]).await.unwrap(), [true]);
    let good = all(&[
        "ALTER TABLE public.missing DROP CONSTRAINT c;",
        "ALTER TABLE public.empty DROP CONSTRAINT c;",
        "DROP TABLE nowhere.t;",
        "DROP FUNCTION public.missing(integer);",
        "DROP TABLE app.\"Or;ders\";\n-- a comment",
        "DROP SCHEMA app;",
        "DROP TABLE public.empty",
    ]);
    for expected in [3, 0] {
        assert_eq!(session.remove(&removal(&good, &[])).await.unwrap(), expected);
        session.execute("COMMIT").await.unwrap();
    }
    let still = session.exist(&[table("public", "empty"), table("public", "v")]).await;
    assert_eq!(still.unwrap(), [false, true]);
    assert_eq!(session.remove(&removal(&[], &[815, 816])).await.unwrap(), 1);
}

#[tokio::test]
async fn a_database_is_made_once_and_only_by_who_may() {
    let info = database(17, "target_creating", "").await;
    let session = connect(&info, 17).await.unwrap();
    let name = "target made \"here\"";
    let statement = format!(
        "CREATE DATABASE {} TEMPLATE template0",
        pgstow::postgres::quoting::identifier(name)
    );
    let boss = client(&superuser(17)).await;
    let drop = format!(
        "DROP DATABASE IF EXISTS {}",
        pgstow::postgres::quoting::identifier(name)
    );
    boss.batch_execute(&drop).await.unwrap();
    assert!(session.database(name).await.unwrap().is_none());
    session.execute(&statement).await.unwrap();
    assert!(session.database(name).await.unwrap().is_some());
    let error = session.execute(&statement).await.unwrap_err();
    assert_eq!(error.code(), Code::RestoreErr);
    boss.batch_execute(&drop).await.unwrap();
    let reader = role(&info, "target_no_creator", "NOCREATEDB").await;
    let error = connect(&reader, 17)
        .await
        .unwrap()
        .execute(&statement)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::Permission);
}

/// What pg_dumpall of a major writes, from a server of its own.
async fn globals_of(server: &ConnectionInfo, major: u32) -> Vec<u8> {
    let settings = settings(major);
    let session = Session::connect(server, &settings).await.unwrap();
    let programs = pgstow::postgres::Programs::find(major, &settings).await.unwrap();
    let passfile = Passfile::create(&settings.temp, session.info()).unwrap();
    let limit = std::time::Duration::from_secs(30);
    pgstow::postgres::globals(&programs, session.info(), passfile.as_ref(), &settings, limit)
        .await
        .unwrap()
        .sql
}

#[tokio::test]
async fn globals_go_back_into_a_server_that_has_some_of_them_and_no_tablespace_is_touched() {
    let temp = tempfile::Builder::new()
        .prefix("pgstow-globals-")
        .tempdir_in("/tmp")
        .unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let disk = temp.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    std::fs::set_permissions(&disk, std::fs::Permissions::from_mode(0o777)).unwrap();
    let mut source = OwnServer::start(15);
    let from = ConnectionInfo::parse_url(&source.url()).unwrap();
    if rustix::process::geteuid().is_root() {
        std::process::Command::new("chown")
            .args(["postgres", disk.to_str().unwrap()])
            .status()
            .unwrap();
    }
    let there = client(&from).await;
    for statement in [
        "CREATE ROLE \"it's; \"\"Ada\"\"\" LOGIN CONNECTION LIMIT 3",
        "CREATE ROLE team NOINHERIT; GRANT team TO \"it's; \"\"Ada\"\"\" WITH ADMIN OPTION",
        "ALTER ROLE team SET work_mem TO '8MB'; COMMENT ON ROLE team IS 'it''s; --'",
        "ALTER ROLE team IN DATABASE postgres SET statement_timeout TO '5s'",
        "CREATE ROLE kept LOGIN; ALTER ROLE kept SET work_mem TO '1MB'",
    ] {
        there.batch_execute(statement).await.unwrap();
    }
    there
        .batch_execute(&format!("CREATE TABLESPACE fast LOCATION '{}'", disk.display()))
        .await
        .unwrap();
    there
        .batch_execute("GRANT CREATE ON TABLESPACE fast TO team")
        .await
        .unwrap();
    let mut sql = globals_of(&from, 15).await;
    source.stop();
    sql.extend_from_slice(
        b"ALTER ROLE postgres WITH NOSUPERUSER NOLOGIN;\nALTER ROLE team IN DATABASE gone SET work_mem TO '9MB';\n",
    );
    // As it comes from a database in another encoding.
    sql.extend_from_slice(b"SET client_encoding = 'LATIN1';\nCREATE ROLE \"caf\xe9\";\n");

    let mut target = OwnServer::start(17);
    let to = ConnectionInfo::parse_url(&target.url()).unwrap();
    let here = client(&to).await;
    here.batch_execute("CREATE ROLE kept").await.unwrap();
    let session = Session::connect(&to, &settings(17)).await.unwrap();
    let split = statements(&sql);
    let plan = session.plan_globals(&split, Powers::Roles).await.unwrap();
    let what = |omitted: &[Omitted]| omitted.iter().map(|one| one.what.clone()).collect::<Vec<_>>();
    assert_eq!(what(&plan.kept), ["ALTER ROLE kept SET work_mem TO…"]);
    assert!(plan.left_out.is_empty(), "{plan:?}");
    let applied = session.apply_globals(&plan).await.unwrap();
    assert_eq!(applied.existing, 2, "postgres and kept: {applied:?}");
    assert_eq!(applied.notes.len(), 1, "{applied:?}");
    assert!(
        applied.notes[0].starts_with("ALTER ROLE \"team\" IN DATABASE \"gone\" SET \"work_mem\" TO…: "),
        "{applied:?}"
    );
    let row = here
        .query_one(
            "SELECT (SELECT count(*) FROM pg_tablespace), (SELECT rolsuper AND rolcanlogin FROM pg_roles WHERE rolname = 'postgres'),
                    (SELECT rolconnlimit FROM pg_roles WHERE rolname = 'it''s; \"Ada\"'),
                    (SELECT rolinherit FROM pg_roles WHERE rolname = 'team'),
                    (SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = 'team'),
                    (SELECT count(*) FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid
                     WHERE r.rolname = 'team' AND m.admin_option),
                    (SELECT count(*) FROM pg_db_role_setting), (SELECT count(*) FROM pg_roles WHERE rolname = 'café'),
                    (SELECT rolcanlogin FROM pg_roles WHERE rolname = 'kept')",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(
        (row.get::<_, i64>(0), row.get::<_, bool>(1), row.get::<_, i32>(2)),
        (2, true, 3)
    );
    assert_eq!((row.get::<_, bool>(3), row.get::<_, &str>(4)), (false, "it's; --"));
    assert_eq!(
        (row.get::<_, i64>(5), row.get::<_, i64>(6), row.get::<_, i64>(7)),
        (1, 1, 1)
    );
    assert!(!row.get::<_, bool>(8), "what was there stays as it was");
    let compared = session.compare_globals(&plan, &applied).await.unwrap();
    assert_eq!((compared.equal, compared.differences.len()), (3, 0), "{compared:?}");
    for injury in [
        "ALTER ROLE team CREATEDB INHERIT",
        "ALTER ROLE team SET work_mem TO '9MB'",
        "COMMENT ON ROLE team IS NULL",
        "REVOKE ADMIN OPTION FOR team FROM \"it's; \"\"Ada\"\"\"",
    ] {
        here.batch_execute(injury).await.unwrap();
    }
    let injured = session.compare_globals(&plan, &applied).await.unwrap();
    let what: Vec<&str> = injured.differences.iter().map(|(what, _)| what.as_str()).collect();
    assert_eq!(
        what,
        [
            "ROLE \"team\"",
            "ALTER ROLE \"team\" SET \"work_mem\"",
            "COMMENT ON ROLE \"team\"",
            "GRANT \"team\" TO \"it's; \"\"Ada\"\"\""
        ],
        "{injured:?}"
    );
    assert_eq!(injured.equal, 1, "{injured:?}");
    // Once more, nothing is new.
    let plan = session.plan_globals(&split, Powers::Roles).await.unwrap();
    assert!(plan.left_out.is_empty(), "{plan:?}");
    let again = session.apply_globals(&plan).await.unwrap();
    assert!(again.existing >= 5 && again.done == 0, "{again:?}");
    let there: i64 = here
        .query_one("SELECT count(*) FROM pg_tablespace", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(there, 2);
    target.stop();
}

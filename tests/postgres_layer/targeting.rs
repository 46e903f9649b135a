//! What a restore asks of its target, and does to it by itself.

use pgstow::error::Code;
use pgstow::postgres::{Scope, ScratchServer, ServerPrograms, Session, statements};

use crate::place::{MAJORS, connect, database, role, settings};

const CONTENT: &str = "CREATE SCHEMA app; CREATE TABLE app.\"Or;ders\" (id int GENERATED ALWAYS AS IDENTITY);
    CREATE TABLE empty (a int); CREATE TABLE full_one (a serial); INSERT INTO full_one DEFAULT VALUES;
    CREATE VIEW v AS SELECT 1; CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE TYPE mood AS ENUM ('good'); CREATE EXTENSION pg_trgm; SELECT lo_create(815)";

#[tokio::test]
async fn a_survey_tells_what_is_there_and_what_this_role_may() {
    for major in MAJORS {
        let empty = database(major, "target_empty", "CREATE EXTENSION pg_trgm").await;
        let target = connect(&empty, major).await.unwrap().survey_target().await.unwrap();
        assert_eq!(target.objects, 0, "{:?}", target.first_objects);
        assert!(target.is_superuser && target.may_create && target.may_create_databases);
        assert!(target.roles["postgres"] && target.tablespaces.contains("pg_default"));
        assert!(target.extensions["pg_trgm"] && !target.extensions["btree_gist"]);
        assert_eq!(target.locks, 256 * 200);
        // The test's server is on this machine; not everyone may look at its folder.
        assert_eq!(target.free_bytes.is_some(), rustix::process::geteuid().is_root());

        let info = database(major, "target_full", CONTENT).await;
        let reader = role(&info, "target_reader", "NOCREATEDB NOCREATEROLE").await;
        let target = connect(&reader, major).await.unwrap().survey_target().await.unwrap();
        assert!(!target.is_superuser && !target.may_create && !target.may_create_databases);
        assert_eq!((target.roles["postgres"], target.free_bytes), (false, None));
        assert!(target.objects >= 8, "{target:?}");
        assert!(
            target.first_objects.iter().any(|name| name == "app.Or;ders"),
            "{target:?}"
        );
    }
}

#[tokio::test]
async fn removals_are_all_done_or_none_and_what_is_missing_counts_as_removed() {
    let info = database(17, "target_drops", CONTENT).await;
    let session = connect(&info, 17).await.unwrap();
    let all = |statements: &[&str]| statements.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    let failing = all(&["DROP TABLE public.empty;\n", "DROP SCHEMA app;\n"]);
    let error = session.remove(&failing, &[]).await.unwrap_err();
    assert_eq!(error.code(), Code::RestoreErr);
    assert!(error.message().contains("DROP SCHEMA app"), "{error}");
    assert!(session.holds_rows("public", "full_one").await.unwrap());
    assert!(
        !session.holds_rows("public", "empty").await.unwrap(),
        "it is still there"
    );
    let good = all(&[
        "ALTER TABLE public.missing DROP CONSTRAINT c;",
        "ALTER TABLE public.empty DROP CONSTRAINT c;",
        "DROP TABLE nowhere.t;",
        "DROP FUNCTION public.missing(integer);",
        "DROP TABLE app.\"Or;ders\";\n-- a comment",
        "DROP SCHEMA app;",
        "DROP TABLE public.empty",
    ]);
    assert_eq!(session.remove(&good, &[815, 816]).await.unwrap(), 4);
    assert_eq!(session.remove(&good, &[815]).await.unwrap(), 0);
}

/// What pg_dumpall of a major writes, from a server of its own.
async fn globals_of(server: &ScratchServer, major: u32) -> Vec<u8> {
    let settings = settings(major);
    let session = Session::connect(server.info(), &settings).await.unwrap();
    let programs = pgstow::postgres::Programs::find(major, &settings).await.unwrap();
    let limit = std::time::Duration::from_secs(30);
    pgstow::postgres::globals(&programs, session.info(), None, &settings, limit)
        .await
        .unwrap()
}

async fn scratch(major: u32, temp: &std::path::Path) -> ScratchServer {
    let settings = settings(major);
    let programs = ServerPrograms::find(major, &settings).await.unwrap();
    ScratchServer::start(&programs, temp, &settings).await.unwrap()
}

async fn socket_client(server: &ScratchServer) -> tokio_postgres::Client {
    let info = server.info();
    let mut config = tokio_postgres::Config::new();
    config
        .host_path(info.host.as_deref().unwrap())
        .port(info.port.unwrap())
        .user("postgres")
        .dbname("postgres");
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
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
    let source = scratch(15, temp.path()).await;
    if rustix::process::geteuid().is_root() {
        std::process::Command::new("chown")
            .args(["postgres", disk.to_str().unwrap()])
            .status()
            .unwrap();
    }
    let there = socket_client(&source).await;
    for statement in [
        "CREATE ROLE \"it's; \"\"Ada\"\"\" LOGIN CONNECTION LIMIT 3",
        "CREATE ROLE team NOINHERIT; GRANT team TO \"it's; \"\"Ada\"\"\" WITH ADMIN OPTION",
        "ALTER ROLE team SET work_mem TO '8MB'; COMMENT ON ROLE team IS 'it''s; --'",
        "ALTER ROLE team IN DATABASE postgres SET statement_timeout TO '5s'",
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
    let mut sql = globals_of(&source, 15).await;
    source.stop().await.unwrap();
    sql.extend_from_slice(
        b"ALTER ROLE postgres WITH NOSUPERUSER NOLOGIN;\nALTER ROLE team IN DATABASE gone SET a.b TO 'x';\n",
    );
    // As it comes from a database in another encoding.
    sql.extend_from_slice(b"SET client_encoding = 'LATIN1';\nCREATE ROLE \"caf\xe9\";\n");

    let target = scratch(17, temp.path()).await;
    let here = socket_client(&target).await;
    here.batch_execute("CREATE ROLE team").await.unwrap();
    let session = Session::connect(target.info(), &settings(17)).await.unwrap();
    let split = statements(&sql);
    let applied = session.apply_globals(&split, Scope::WithoutTablespaces).await.unwrap();
    assert_eq!(applied.existing, 2, "postgres and team: {applied:?}");
    assert_eq!(applied.notes.len(), 1, "{applied:?}");
    assert!(
        applied.notes[0].starts_with("ALTER ROLE team IN DATABASE gone SET a.b TO…: "),
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
                    (SELECT count(*) FROM pg_db_role_setting), (SELECT count(*) FROM pg_roles WHERE rolname = 'café')",
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
    // Once more, nothing is new; and where tablespaces are wanted, their statements are run.
    let again = session.apply_globals(&split, Scope::Everything).await.unwrap();
    assert!(again.existing >= 4, "{again:?}");
    let there: i64 = here
        .query_one("SELECT count(*) FROM pg_tablespace", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(there, 3);
    target.stop().await.unwrap();
}

use pgstow::error::Code;
use pgstow::postgres::UnreadableKind;

use crate::postgres::place::{client, connect, database, dump, role, superuser};

async fn what_the_role_may_not_read_is_named_with_its_grant(major: u32) {
    let info = database(
        major,
        "privileges",
        "CREATE SCHEMA hidden; CREATE TABLE hidden.t (a int);
             CREATE TABLE open (a int); CREATE TABLE \"Clo'sed\" (a int); CREATE SEQUENCE closed_s;
             CREATE EXTENSION pg_trgm; SELECT lo_create(4711), lo_create(4712);",
    )
    .await;
    let reader = role(&info, "reader", "").await;
    let admin = client(&info).await;
    admin
        .batch_execute("GRANT SELECT ON open TO reader; GRANT SELECT ON LARGE OBJECT 4712 TO reader")
        .await
        .unwrap();
    let session = connect(&reader, major).await.unwrap();
    let found = session.unreadable_tables().await.unwrap();
    let names: Vec<_> = found.iter().map(|one| (one.kind, one.name.as_str())).collect();
    assert_eq!(
        names,
        [
            (UnreadableKind::Table, "hidden.t"),
            (UnreadableKind::Table, "public.\"Clo'sed\""),
            (UnreadableKind::Sequence, "public.closed_s"),
            (UnreadableKind::LargeObject, "4711"),
        ]
    );
    assert_eq!(found[0].schema.as_deref(), Some("hidden"));
    let error = session.check_privileges().await.unwrap_err();
    assert_eq!(error.code(), Code::Permission);
    assert!(error.message().contains("hidden.t"), "{error}");
    let (_, verdict) = dump(&reader, major).await;
    let error = verdict.unwrap_err();
    assert_eq!(error.code(), Code::Permission, "{error}");
    assert!(error.message().contains("permission denied for"), "{error}");

    admin
        .batch_execute("GRANT pg_read_all_data TO reader; GRANT SELECT ON LARGE OBJECT 4711 TO reader")
        .await
        .unwrap();
    session.check_privileges().await.unwrap();
    let (_, verdict) = dump(&reader, major).await;
    verdict.unwrap();
    admin
        .batch_execute("REVOKE pg_read_all_data FROM reader")
        .await
        .unwrap();
}

on_majors! { async what_the_role_may_not_read_is_named_with_its_grant: 15 17 }

async fn row_level_security_that_hides_rows_is_found_before_pg_dump_finds_it(major: u32) {
    let info = database(
        major,
        "row_security",
        "CREATE TABLE secret_rows (a int); ALTER TABLE secret_rows ENABLE ROW LEVEL SECURITY;
             CREATE POLICY p ON secret_rows USING (a > 1)",
    )
    .await;
    let filtered = role(&info, "filtered", "NOBYPASSRLS").await;
    client(&info)
        .await
        .batch_execute("GRANT SELECT ON secret_rows TO filtered")
        .await
        .unwrap();
    let session = connect(&filtered, major).await.unwrap();
    assert!(session.unreadable_tables().await.unwrap().is_empty());
    assert_eq!(session.rls_tables().await.unwrap(), ["public.secret_rows"]);
    let error = session.check_privileges().await.unwrap_err();
    assert_eq!(error.code(), Code::Permission);
    assert!(error.hint_text().contains("BYPASSRLS"));
    let (_, verdict) = dump(&filtered, major).await;
    assert_eq!(verdict.unwrap_err().code(), Code::Permission);
    let bypassing = role(&info, "filtered", "BYPASSRLS").await;
    assert!(
        connect(&bypassing, major)
            .await
            .unwrap()
            .rls_tables()
            .await
            .unwrap()
            .is_empty()
    );
    dump(&bypassing, major).await.1.unwrap();
}

on_majors! { async row_level_security_that_hides_rows_is_found_before_pg_dump_finds_it: 15 17 }

#[tokio::test]
async fn sizes_are_told_even_while_a_table_is_locked() {
    let info = database(
        15,
        "sizes",
        "CREATE TABLE t AS SELECT repeat('x', 500) FROM generate_series(1, 20000)",
    )
    .await;
    client(&info).await.batch_execute("ANALYZE t").await.unwrap();
    let session = connect(&info, 15).await.unwrap();
    let free = session.size().await.unwrap();
    assert!(free.tables > 10_000_000 && free.tables < 15_000_000, "{free:?}");
    assert!(free.database.unwrap() > free.tables);
    let mut locker = client(&info).await;
    let transaction = locker.transaction().await.unwrap();
    transaction
        .batch_execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    // The lock is held until the end of its transaction, below.
    let locked = session.size().await.unwrap();
    assert!(locked.tables > 9_000_000, "{locked:?}");
    // Within the snapshot's transaction a refused question must not cost the snapshot.
    let snapshot = session.export_snapshot().await.unwrap();
    assert!(session.size().await.unwrap().tables > 9_000_000);
    session.system_info().await;
    drop(transaction);
    assert!(session.size().await.unwrap().tables > 10_000_000);
    let keeps = client(&info).await;
    keeps
        .batch_execute(&format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT '{}'",
            snapshot.id
        ))
        .await
        .unwrap();
    // And no lock on a table is kept, behind which others would queue.
    keeps
        .batch_execute("ROLLBACK; SET lock_timeout = '2s'; TRUNCATE t")
        .await
        .unwrap();
}

#[tokio::test]
async fn the_inventory_answers_every_question_on_every_major() {
    for major in [15, 16, 17, 18] {
        let info = database(major, "inventory", "CREATE EXTENSION hstore; CREATE TABLE t (a int)").await;
        let info_of = connect(&info, major).await.unwrap().system_info().await;
        assert!(info_of.get("unavailable").is_none(), "{info_of:#}");
        assert_eq!(info_of["server"]["major"], major);
        assert_eq!(info_of["database"]["encoding"], "UTF8");
        assert_eq!(info_of["objects"]["tables"], 1);
        assert_eq!(info_of["replication"]["role"], "primary");
        assert!(info_of["locale"]["provider"].is_string(), "{info_of:#}");
        assert!(info_of["settings"]["wal_level"].is_string());
        let extensions = info_of["extensions"].as_array().unwrap();
        assert!(
            extensions
                .iter()
                .any(|one| one["name"] == "hstore" && one["version"].is_string())
        );
        let databases = info_of["databases"].as_array().unwrap();
        assert!(
            databases
                .iter()
                .any(|one| one["name"] == "inventory" && one["bytes"].as_u64() > Some(1_000_000))
        );
        // An ordinary role gets an answer too.
        let plain = role(&info, "plain", "").await;
        let seen = connect(&plain, major).await.unwrap().system_info().await;
        assert!(seen.get("unavailable").is_none(), "{seen:#}");
    }
    let text = connect(&superuser(15), 15)
        .await
        .unwrap()
        .system_info()
        .await
        .to_string();
    assert!(!text.contains("password\":\"") && !text.contains("SCRAM"), "{text}");
}

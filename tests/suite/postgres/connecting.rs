use std::time::Duration;

use pgstow::error::{Code, Error};
use pgstow::postgres::{ConnectionInfo, Session};

use crate::postgres::place::{client, connect, database, role, settings, superuser, variable, with};
use crate::support::database::Database;
use crate::support::silent_proxy::SilentProxy;

fn refused(result: pgstow::error::Result<Session>) -> Error {
    match result {
        Ok(session) => panic!("connected to {}", session.info()),
        Err(error) => error,
    }
}

async fn the_server_says_who_it_is(major: u32) {
    let info = database(major, "who", "").await;
    let session = connect(&info, major).await.unwrap();
    let server = session.server();
    assert_eq!(server.major, major);
    assert_eq!(server.version_num / 10_000, major);
    assert!(server.version.starts_with(&major.to_string()));
    assert_eq!(server.encoding, "UTF8");
    assert_eq!(server.database, "who");
    assert_eq!(server.user, "postgres");
    assert!(!server.in_recovery);
    assert!(server.system_identifier.as_deref().unwrap().parse::<u64>().is_ok());
    assert!(
        session.info().params.contains_key("hostaddr"),
        "pinned to the server that was reached"
    );
}

on_majors! { async the_server_says_who_it_is: 15 17 }

async fn each_refusal_has_its_code_and_shows_no_password(major: u32) {
    let boss = superuser(major);
    let cases = [
        ("password=hunter2-wrong", Code::Auth),
        ("user=nobody_of_that_name password=hunter2-wrong", Code::Auth),
        ("dbname=no_such_database", Code::ConnErr),
        ("host=127.0.0.1 port=1", Code::ConnErr),
        ("host=no-such-host.invalid", Code::ConnErr),
        ("host=/nowhere", Code::ConnErr),
        ("options='-c no_such_setting=1'", Code::ConnErr),
    ];
    for (change, code) in cases {
        let error = refused(connect(&with(&boss, change), major).await);
        assert_eq!(error.code(), code, "{change}: {error}");
        let text = format!("{error} {error:?} {}", error.hint_text());
        assert!(!text.contains("hunter2"), "{text}");
        assert!(
            !text.contains(variable(&format!("PGSTOW_TEST_PG{major}_URL")).as_str()),
            "{text}"
        );
    }
    let mut without = boss.clone();
    without.password = None;
    let error = refused(connect(&without, major).await);
    assert_eq!(error.code(), Code::Auth);
    assert!(error.message().contains("none is given"), "{error}");
}

on_majors! { async each_refusal_has_its_code_and_shows_no_password: 15 17 }

#[tokio::test]
async fn a_role_that_may_not_connect_or_has_no_connection_left_is_told_so() {
    let info = database(15, "closed", "REVOKE CONNECT ON DATABASE closed FROM public").await;
    let info = role(&info, "outsider", "").await;
    let error = refused(connect(&info, 15).await);
    assert_eq!(error.code(), Code::Permission, "{error}");
    let info = with(
        &role(&superuser(15), "limited", "CONNECTION LIMIT 0").await,
        "dbname=postgres",
    );
    let error = refused(connect(&info, 15).await);
    assert_eq!(error.code(), Code::ConnErr, "{error}");
    assert!(
        error.hint_text().contains("no free connection"),
        "{}",
        error.hint_text()
    );
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let info = ConnectionInfo::parse_url(&format!("host=127.0.0.1 port={port} user=u password=p dbname=d")).unwrap();
    let mut settings = settings(15);
    settings.connect_timeout = Duration::from_millis(300);
    let error = refused(Session::connect(&info, &settings).await);
    assert_eq!(error.code(), Code::ConnErr);
    assert!(error.message().contains("no answer"), "{error}");
    // One that hangs up at once.
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(stream);
        }
    });
    assert_eq!(refused(Session::connect(&info, &settings).await).code(), Code::ConnErr);
}

#[tokio::test]
async fn options_and_the_roles_own_defaults_do_not_disturb_the_session() {
    let info = database(17, "defaults", "CREATE TABLE t AS SELECT 1 AS a").await;
    let info = role(&info, "odd_defaults", "SUPERUSER").await;
    client(&info)
        .await
        .batch_execute(
            "ALTER ROLE odd_defaults SET statement_timeout = 1; ALTER ROLE odd_defaults SET search_path = nowhere;
             ALTER ROLE odd_defaults SET datestyle = 'German'; ALTER ROLE odd_defaults SET lock_timeout = 1;
             ALTER ROLE odd_defaults SET transaction_timeout = 900;
             ALTER ROLE odd_defaults SET default_transaction_isolation = 'serializable'",
        )
        .await
        .unwrap();
    let session = connect(&with(&info, "options='-c statement_timeout=1000 -c geqo=off'"), 17)
        .await
        .unwrap();
    session.export_snapshot().await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(
        session.size().await.is_ok(),
        "no timeout of the role's ended the transaction"
    );
    client(&superuser(17))
        .await
        .batch_execute("ALTER ROLE odd_defaults RESET ALL")
        .await
        .unwrap();
}

async fn a_snapshot_says_what_it_sees(major: u32) {
    let info = database(major, "snapshot", "CREATE TABLE t (a int)").await;
    let mut writer = client(&info).await;
    let transaction = writer.transaction().await.unwrap();
    transaction.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    let row = transaction
        .query_one("SELECT pg_current_xact_id()::text", &[])
        .await
        .unwrap();
    let running: u64 = row.get::<_, String>(0).parse().unwrap();
    // A later one that has ended: so the first lies within the snapshot, not behind it.
    client(&info)
        .await
        .batch_execute("SELECT pg_current_xact_id()")
        .await
        .unwrap();
    let session = connect(&info, major).await.unwrap();
    let snapshot = session.export_snapshot().await.unwrap();
    assert!(snapshot.xmin <= running && running < snapshot.xmax);
    assert!(snapshot.xip.contains(&running), "{snapshot:?}");
    assert!(snapshot.lsn.as_deref().unwrap().contains('/'), "{snapshot:?}");
    transaction.commit().await.unwrap();
    // While our session lives, others can take the snapshot; afterwards they cannot.
    let taker = client(&info).await;
    let take = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT '{}'",
        snapshot.id
    );
    taker.batch_execute(&take).await.unwrap();
    let row = taker.query_one("SELECT count(*) FROM t", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 0);
    taker.batch_execute("ROLLBACK").await.unwrap();
    drop(session);
    let mut alive = true;
    for _ in 0..50 {
        alive = taker.batch_execute(&take).await.is_ok();
        taker.batch_execute("ROLLBACK").await.unwrap();
        if !alive {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!alive, "the snapshot outlived its session");
}

on_majors! { async a_snapshot_says_what_it_sees: 15 17 }

#[tokio::test]
async fn a_forwarder_in_between_is_not_taken_for_a_pooler() {
    let boss = superuser(15);
    let server = format!("{}:{}", boss.host.as_deref().unwrap(), boss.port.unwrap());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = tokio::net::TcpStream::connect(&server).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    let session = connect(&with(&boss, &format!("host=127.0.0.1 port={port}")), 15)
        .await
        .unwrap();
    session.export_snapshot().await.unwrap();
    session.close().await;
}

#[tokio::test]
async fn a_session_whose_server_owes_an_answer_is_closed_all_the_same() {
    let database = Database::fresh(17);
    let proxy = SilentProxy::start(database.address(), b"pg_database_size");
    let info = ConnectionInfo::parse_url(&proxy.before(&database.url())).unwrap();
    let session = Session::connect(&info, &settings(17)).await.unwrap();
    let asked = tokio::time::timeout(Duration::from_secs(2), session.size()).await;
    assert!(asked.is_err() && proxy.was_silent());
    let closed = tokio::time::timeout(Duration::from_secs(5), session.close()).await;
    assert!(closed.is_ok());
}

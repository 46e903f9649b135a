//! The slot of a stream, and the wait without which a stream and a backup would miss a transaction.

use std::time::Duration;

use pgstow::error::{Code, Signal};
use pgstow::postgres::{ConnectionInfo, OlderTransactions, Session, SlotName};
use pgstow::run::stop::{Reason, Stop};

use crate::postgres::place::settings;
use crate::support::database::Database;
use crate::support::server::OwnServer;

const LONG: Duration = Duration::from_secs(30);

struct Place {
    database: Database,
    session: Session,
    name: SlotName,
    /// Stopped last.
    _server: OwnServer,
}

impl Place {
    async fn start(major: u32) -> Self {
        let server = OwnServer::start_with(major, &["max_slot_wal_keep_size=1GB", "max_prepared_transactions=2"]);
        let database = server.database("slots");
        let info = ConnectionInfo::parse_url(&database.url()).unwrap();
        let session = Session::connect(&info, &settings(major)).await.unwrap();
        Self {
            name: SlotName::of("s3://a-store", &database.name),
            database,
            session,
            _server: server,
        }
    }

    async fn client(&self) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(&self.database.url(), tokio_postgres::NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        client
    }
}

async fn a_slot_is_made_seen_and_dropped(major: u32) {
    let place = Place::start(major).await;
    let (session, name) = (&place.session, &place.name);
    assert_eq!(session.slot(name).await.unwrap(), None);
    let position = session.create_slot(name, LONG, &Stop::new()).await.unwrap();
    let slot = session.slot(name).await.unwrap().unwrap();
    assert_eq!((slot.confirmed, slot.reader), (Some(position), None));
    assert!(!slot.is_lost() && slot.safe_bytes.is_some() && slot.retained_bytes.is_some());
    assert_eq!(slot.fails_over, (major >= 17).then_some(true));
    assert_eq!(slot.inactive_since.is_some(), major >= 17);
    let twice = session.create_slot(name, LONG, &Stop::new()).await.unwrap_err();
    assert_eq!(twice.code(), Code::Slot, "{twice}");
    // A reader is named, and keeps the slot.
    let mut stream = session.open_replication().await.unwrap();
    stream
        .start(
            name.slot(),
            position,
            &[("proto_version", "1"), ("publication_names", "p")],
        )
        .await
        .unwrap();
    let busy = session.drop_slot(name).await.unwrap_err();
    assert_eq!(busy.code(), Code::Busy);
    assert!(busy.message().contains("process"), "{busy}");
    stream.close().await;
    for _ in 0..100 {
        match session.drop_slot(name).await {
            Ok(dropped) => {
                assert!(dropped);
                break;
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    assert!(!session.drop_slot(name).await.unwrap());
    session.try_slot(LONG).await.unwrap();
    assert_eq!(place.database.sql("SELECT count(*) FROM pg_replication_slots"), "0");
}

on_majors! { async a_slot_is_made_seen_and_dropped: 15 18 }

async fn a_slot_of_another_program_stays_as_it_is(major: u32) {
    let place = Place::start(major).await;
    let (session, name) = (&place.session, &place.name);
    for made in [
        format!("SELECT pg_create_physical_replication_slot('{name}')"),
        format!("SELECT pg_create_logical_replication_slot('{name}', 'test_decoding')"),
    ] {
        place.database.sql(&made);
        for error in [
            session.slot(name).await.unwrap_err(),
            session.drop_slot(name).await.unwrap_err(),
            session.create_slot(name, LONG, &Stop::new()).await.unwrap_err(),
        ] {
            assert_eq!(error.code(), Code::Slot, "{error}");
        }
        assert_eq!(session.slots_of_streams().await.unwrap(), []);
        assert_eq!(
            place
                .database
                .sql(&format!("SELECT pg_drop_replication_slot('{name}')")),
            ""
        );
    }
    // Of another database.
    let other = place._server.database("other");
    other.sql(&format!(
        "SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')"
    ));
    assert_eq!(session.drop_slot(name).await.unwrap_err().code(), Code::Slot);
    assert_eq!(other.sql("SELECT count(*) FROM pg_replication_slots"), "1");
    other.sql(&format!("SELECT pg_drop_replication_slot('{name}')"));
}

on_majors! { async a_slot_of_another_program_stays_as_it_is: 15 18 }

async fn a_slot_that_waits_is_given_up_by_limit_and_by_stop(major: u32) {
    let place = Place::start(major).await;
    let (session, name) = (&place.session, &place.name);
    let old = place.client().await;
    old.batch_execute("BEGIN; SELECT txid_current()").await.unwrap();
    let late = session
        .create_slot(name, Duration::from_millis(300), &Stop::new())
        .await;
    assert_eq!(late.unwrap_err().code(), Code::Stalled);
    let stop = Stop::new();
    let stopper = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        stop.request(Reason::Signal(Signal::Terminate));
    };
    let (stopped, ()) = tokio::join!(session.create_slot(name, LONG, &stop), stopper);
    assert_eq!(stopped.unwrap_err().code(), Code::Interrupted(Signal::Terminate));
    let waited = session
        .wait_for_older(Duration::from_millis(200), &Stop::new())
        .await
        .unwrap();
    let OlderTransactions::Running(oldest) = waited else {
        panic!("the transaction is open")
    };
    assert!(oldest.who.as_deref().unwrap().contains("of role postgres"), "{oldest}");
    old.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(place.database.sql("SELECT count(*) FROM pg_replication_slots"), "0");
    // A prepared transaction has no session.
    old.batch_execute("BEGIN; SELECT txid_current(); PREPARE TRANSACTION 'it''s'")
        .await
        .unwrap();
    let waited = session
        .wait_for_older(Duration::from_millis(200), &Stop::new())
        .await
        .unwrap();
    assert!(matches!(waited, OlderTransactions::Running(oldest) if oldest.to_string().contains("'it''s'")));
    old.batch_execute("ROLLBACK PREPARED 'it''s'").await.unwrap();
    let ended = session.wait_for_older(LONG, &Stop::new()).await.unwrap();
    assert!(matches!(ended, OlderTransactions::Ended(_)));
}

on_majors! { async a_slot_that_waits_is_given_up_by_limit_and_by_stop: 15 18 }

/// A transaction waits for a synchronous standby: its commit is in the log before the slot's start, and no snapshot
/// sees it yet.
async fn a_transaction_that_waits_for_a_standby_is_waited_for(major: u32) {
    let place = Place::start(major).await;
    let (session, name) = (&place.session, &place.name);
    let local = "SET synchronous_commit = local";
    place.database.sql("CREATE TABLE t (id int PRIMARY KEY)");
    place
        .database
        .sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    place.database.sql("SELECT pg_reload_conf()");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (first, second, waits) = (place.client().await, place.client().await, place.client().await);
    first.batch_execute(local).await.unwrap();
    second.batch_execute(local).await.unwrap();
    first.batch_execute("BEGIN; SELECT txid_current()").await.unwrap();
    let stop = Stop::new();
    let transactions = async {
        let pause = || tokio::time::sleep(Duration::from_millis(700));
        pause().await;
        // The slot waits for the first, then for the second, and begins after what is committed meanwhile.
        second.batch_execute("BEGIN; SELECT txid_current()").await.unwrap();
        first.batch_execute("ROLLBACK").await.unwrap();
        pause().await;
        let committing = tokio::spawn(async move { waits.batch_execute("INSERT INTO t VALUES (1)").await });
        pause().await;
        second.batch_execute("ROLLBACK").await.unwrap();
        Some(committing)
    };
    let (created, committing) = tokio::join!(session.create_slot(name, LONG, &stop), transactions);
    created.unwrap();
    assert_eq!(
        place.database.sql("SELECT count(*) FROM t"),
        "0",
        "it is not visible yet"
    );
    let too_early = session.wait_for_older(Duration::from_millis(300), &stop).await.unwrap();
    assert!(matches!(too_early, OlderTransactions::Running(_)));
    let mend = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mender = place.client().await;
        mender.batch_execute(local).await.unwrap();
        mender
            .batch_execute("ALTER SYSTEM RESET synchronous_standby_names")
            .await
            .unwrap();
        mender.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    };
    let (waited, ()) = tokio::join!(session.wait_for_older(LONG, &stop), mend);
    assert!(matches!(waited.unwrap(), OlderTransactions::Ended(_)));
    committing.unwrap().await.unwrap().unwrap();
    // So a backup that is made now has the row, which the slot's stream does not have.
    assert_eq!(place.database.sql("SELECT count(*) FROM t"), "1");
    let changes = place.database.sql(&format!(
        "CREATE PUBLICATION p FOR TABLE t;
         SELECT count(*) FROM pg_logical_slot_peek_binary_changes('{name}', NULL, NULL, 'proto_version', '1', 'publication_names', 'p')"
    ));
    assert_eq!(changes, "0");
    session.drop_slot(name).await.unwrap();
}

on_majors! { async a_transaction_that_waits_for_a_standby_is_waited_for: 15 18 }

/// The session waits for the store before its stream begins; and the server decodes within a transaction of its own.
async fn a_reader_outlives_the_timeouts_of_its_role(major: u32) {
    let place = Place::start(major).await;
    let set = |name: &str| format!("ALTER ROLE CURRENT_USER SET {name} = '500ms'");
    place.database.sql(&set("idle_session_timeout"));
    if major >= 17 {
        place.database.sql(&set("transaction_timeout"));
    }
    let mut stream = place.session.open_replication().await.unwrap();
    tokio::time::sleep(Duration::from_millis(800)).await;
    stream.identify().await.unwrap();
    stream
        .execute("BEGIN; SELECT pg_catalog.pg_sleep(0.8); COMMIT")
        .await
        .unwrap();
}

on_majors! { async a_reader_outlives_the_timeouts_of_its_role: 15 18 }

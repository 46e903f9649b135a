//! The messages of logical decoding, as PostgreSQL sends them, and as no server should.

use pgstow::format::Lsn;
use pgstow::format::changes::{Head, Writer};
use pgstow::format::pgoutput::{Identity, Message, Old, PgoutputError, Tuple, Value, microseconds_of, time_of};
use proptest::prelude::*;

use crate::support::database::Database;
use crate::support::stream::{self, NOON};

fn values<'a>(tuple: &Tuple<'a>) -> Vec<Option<&'a str>> {
    let text = |value| match value {
        Value::Null => None,
        Value::Unchanged => Some("(unchanged)"),
        Value::Text(text) => Some(std::str::from_utf8(text).unwrap()),
    };
    tuple.values().map(text).collect()
}

/// One message of each kind.
fn each() -> Vec<Vec<u8>> {
    let row = [Some("1"), None, Some("")];
    vec![
        stream::begin(0x1_0000_0002, NOON, 741),
        stream::commit(0x1_0000_0002, 0x1_0000_0030, NOON),
        stream::origin(7, "elsewhere"),
        stream::relation(16_384, "public", "orders", b'd', 1, &["id", "note", "city"]),
        stream::described_type(17_000, "public", "mood"),
        stream::insert(16_384, &row),
        stream::update(16_384, None, &row),
        stream::update(16_384, Some((b'K', &row)), &row),
        stream::update(16_384, Some((b'O', &row)), &row),
        stream::delete(16_384, b'K', &row),
        stream::delete(16_384, b'O', &row),
        stream::truncate(&[16_384, 16_390], 3),
        stream::logical(true, 9, "prefix", b"\0content"),
    ]
}

#[test]
fn every_kind_of_message_is_read_as_it_was_sent() {
    let sent = each();
    let read: Vec<Message<'_>> = sent.iter().map(|bytes| Message::parse(bytes).unwrap()).collect();
    let Message::Begin(begin) = &read[0] else {
        panic!("{read:?}")
    };
    assert_eq!((begin.final_lsn, begin.xid), (Lsn(0x1_0000_0002), 741));
    assert_eq!(begin.time.to_string(), "2025-01-31T13:00:00Z");
    let Message::Commit(commit) = &read[1] else {
        panic!("{read:?}")
    };
    assert_eq!(
        (commit.lsn, commit.end, commit.time),
        (begin.final_lsn, Lsn(0x1_0000_0030), begin.time)
    );
    assert_eq!(
        read[2],
        Message::Origin {
            commit: Lsn(7),
            name: b"elsewhere"
        }
    );
    let Message::Relation(relation) = &read[3] else {
        panic!("{read:?}")
    };
    assert_eq!((relation.oid, &*relation.display()), (16_384, "public.orders"));
    assert_eq!(relation.identity, Identity::Default);
    let columns: Vec<_> = relation
        .columns
        .iter()
        .map(|column| (&*column.name, column.is_key, column.type_oid))
        .collect();
    assert_eq!(
        columns,
        [(&b"id"[..], true, 25), (b"note", false, 25), (b"city", false, 25)]
    );
    assert_eq!(
        read[4],
        Message::Type {
            oid: 17_000,
            schema: b"public",
            name: b"mood"
        }
    );
    let row = [Some("1"), None, Some("")];
    let Message::Insert { relid: 16_384, new } = &read[5] else {
        panic!("{read:?}")
    };
    assert_eq!(values(new), row);
    for (at, kind) in [(6, None), (7, Some('K')), (8, Some('O'))] {
        let Message::Update {
            relid: 16_384,
            old,
            new,
        } = &read[at]
        else {
            panic!("{read:?}")
        };
        assert_eq!(values(new), row);
        let found = old.as_ref().map(|old| match old {
            Old::Key(_) => 'K',
            Old::Row(_) => 'O',
        });
        assert_eq!(found, kind);
        assert!(old.is_none_or(|old| values(&old.tuple()) == row));
    }
    let Message::Delete { old: Old::Key(_), .. } = &read[9] else {
        panic!("{read:?}")
    };
    let Message::Delete { old: Old::Row(_), .. } = &read[10] else {
        panic!("{read:?}")
    };
    let Message::Truncate {
        relids,
        cascade,
        restart_identity,
    } = &read[11]
    else {
        panic!("{read:?}")
    };
    assert_eq!(
        (relids.iter().collect::<Vec<_>>(), *cascade, *restart_identity),
        (vec![16_384, 16_390], true, true)
    );
    let Message::Logical {
        transactional: true,
        prefix: b"prefix",
        content: b"\0content",
        ..
    } = &read[12]
    else {
        panic!("{read:?}")
    };
}

#[test]
fn a_message_that_is_cut_or_too_long_is_refused() {
    for whole in each() {
        for length in 0..whole.len() {
            assert!(Message::parse(&whole[..length]).is_err(), "{length} bytes of {whole:?}");
        }
        let longer = [&whole[..], b"\0"].concat();
        assert_eq!(Message::parse(&longer), Err(PgoutputError::Rest(1)), "{whole:?}");
    }
}

#[test]
fn what_no_server_sends_is_refused_with_its_reason() {
    let told = |bytes: &[u8]| Message::parse(bytes).unwrap_err();
    assert_eq!(told(b"S"), PgoutputError::Kind(b'S'));
    assert_eq!(told(b"I\0\0\0\x01K\0\0"), PgoutputError::Row(b'K'));
    assert_eq!(told(b"D\0\0\0\x01N\0\0"), PgoutputError::Row(b'N'));
    assert_eq!(told(b"I\0\0\0\x01N\xff\xff"), PgoutputError::Negative);
    assert_eq!(told(b"I\0\0\0\x01N\0\x01t\xff\xff\xff\xff"), PgoutputError::Negative);
    // pgstow asks for texts, never for binary values.
    assert_eq!(told(b"I\0\0\0\x01N\0\x01b\0\0\0\0"), PgoutputError::Value(b'b'));
    assert_eq!(told(b"R\0\0\0\x01a\0b\0x\0\0"), PgoutputError::Identity(b'x'));
    // More than there is: no memory is taken for it.
    assert_eq!(told(b"T\x7f\xff\xff\xff\0"), PgoutputError::Cut);
    assert_eq!(told(b"I\0\0\0\x01N\x7f\xff"), PgoutputError::Cut);
    assert_eq!(told(&stream::begin(1, i64::MAX, 1)), PgoutputError::Time);
    assert_eq!(told(&stream::begin(1, i64::MIN, 1)), PgoutputError::Time);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(kind in prop::sample::select(b"BCORYIUDTM".to_vec()), mut bytes: Vec<u8>) {
        bytes.insert(0, kind);
        if let Ok(Message::Insert { new, .. }) = Message::parse(&bytes) {
            prop_assert_eq!(new.values().count(), new.len());
        }
    }

    #[test]
    fn a_time_of_the_server_comes_back(microseconds in -60_000_000_000_000_000_i64..200_000_000_000_000_000) {
        prop_assert_eq!(time_of(microseconds).map(microseconds_of), Some(microseconds));
    }
}

/// Everything that the server has decoded for a slot.
fn decoded(database: &Database) -> Vec<Vec<u8>> {
    let rows = database.sql(
        "SELECT encode(data, 'hex') FROM pg_logical_slot_get_binary_changes((SELECT slot_name FROM pg_replication_slots \
         WHERE database = current_database()), NULL, NULL, 'proto_version', '1', 'publication_names', 'p', 'messages', \
         'true')",
    );
    rows.lines().map(|row| hex::decode(row).unwrap()).collect()
}

fn a_servers_stream_is_read_and_written(major: u32) {
    let database = Database::fresh(major);
    database.sql(
        "CREATE TYPE mood AS ENUM ('sad', 'glad');
         CREATE TABLE keyed (id int PRIMARY KEY, note text, mood mood);
         CREATE TABLE whole (a int, b text); ALTER TABLE whole REPLICA IDENTITY FULL;
         CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (10);
         CREATE TABLE parted_high PARTITION OF parted FOR VALUES FROM (10) TO (20);
         ALTER TABLE keyed ALTER note SET STORAGE EXTERNAL;
         CREATE PUBLICATION p FOR TABLE keyed, whole, parted",
    );
    let slot = format!(
        "s_{}",
        database.name.replace(|char: char| !char.is_ascii_alphanumeric(), "_")
    );
    database.sql(&format!(
        "SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"
    ));
    database.sql("INSERT INTO keyed VALUES (1, repeat('x', 5000), 'glad'), (2, NULL, 'sad')");
    database.sql("UPDATE keyed SET mood = 'sad' WHERE id = 1");
    database.sql("UPDATE keyed SET id = 3 WHERE id = 2");
    database.sql("BEGIN; INSERT INTO whole VALUES (1, 'a'), (1, 'a'); UPDATE whole SET b = 'c'; COMMIT");
    database.sql("DELETE FROM whole; DELETE FROM keyed WHERE id = 3");
    database.sql("INSERT INTO parted VALUES (1), (11)");
    database.sql("UPDATE parted SET id = 12 WHERE id = 1");
    database
        .sql("BEGIN; SAVEPOINT a; INSERT INTO keyed VALUES (8); ROLLBACK TO a; INSERT INTO keyed VALUES (9); COMMIT");
    database.sql("ALTER TABLE keyed ADD COLUMN more int DEFAULT 7; INSERT INTO keyed VALUES (10)");
    database.sql("SELECT pg_logical_emit_message(false, 'between', 'x'), pg_logical_emit_message(true, 'inside', 'y')");
    database.sql("TRUNCATE keyed, parted RESTART IDENTITY CASCADE");
    let messages = decoded(&database);
    database.sql(&format!("SELECT pg_drop_replication_slot('{slot}')"));
    let head = Head {
        system_identifier: 1,
        timeline: 1,
        database_oid: 5,
        from: Lsn(0),
    };
    let mut writer = Writer::new(&head, 3).unwrap();
    for message in &messages {
        writer
            .push(message)
            .unwrap_or_else(|error| panic!("{error}: {message:?}"));
    }
    let unchanged = messages.iter().any(|message| match Message::parse(message).unwrap() {
        Message::Update { new, .. } => new.values().any(|value| value == Value::Unchanged),
        _ => false,
    });
    assert!(unchanged, "the long text was sent again");
    let to = writer.position();
    let (_, summary) = writer.finish(to).unwrap();
    let counts = |name: &str| {
        let table = summary.tables.iter().find(|table| table.name == name).unwrap();
        (table.inserts, table.updates, table.deletes, table.truncates)
    };
    assert_eq!(counts("keyed"), (4, 2, 1, 1));
    assert_eq!(counts("whole"), (2, 2, 2, 0));
    assert_eq!(counts("parted_low"), (1, 0, 1, 1));
    assert_eq!(counts("parted_high"), (2, 0, 0, 1));
    assert_eq!(summary.transactions, 12);
}

on_majors! { a_servers_stream_is_read_and_written: 15 18 }

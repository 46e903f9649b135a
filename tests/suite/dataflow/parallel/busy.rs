//! While the application goes on: it writes, and it asks for locks that the backup holds.

use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pgstow::dataflow::compress::Codec;
use pgstow::dataflow::pipeline::{Flow, Inflow};
use pgstow::dataflow::throttle::Throttle;
use pgstow::format::archive::Head;
use pgstow::postgres::{ConnectionInfo, Contents, Dump, DumpOrder, Session, StallClock};
use pgstow::run::progress::Silent;
use pgstow::settings::Format;

use super::same::{LARGE, backup, ways};
use crate::format::archive::builder::streams as blocks;
use crate::format::archive::memory;
use crate::support::database::Database;
use crate::support::held::Held;
use crate::support::lock::Lock;
use crate::support::program::stock;
use crate::support::wreck::{Site, assert_good, assert_no_session, report};

fn flow(input: Inflow) -> Flow {
    Flow {
        input,
        codec: Codec::None,
        threads: 2,
        range: pgstow::dataflow::pipeline::RANGE,
        stages: Vec::new(),
        earlier: pgstow::dataflow::pipeline::EarlierBlocks::default(),
        md5: false,
        observer: Arc::new(Silent),
    }
}

/// The blocks' contents.
fn contents(archive: &[u8], head: &Head) -> Vec<(i64, Vec<u8>)> {
    let streams = blocks(archive, head.len()).into_iter();
    streams.map(|stream| (stream.dump_id, stream.chunks.concat())).collect()
}

/// A session that does these statements, one after the other, until it has done all of them or is
/// dropped.
struct Application(Child);

impl Application {
    fn does(database: &Database, script: &str) -> Self {
        let psql = stock(database.major, "psql")
            .args(["-X", "-q", "-d", &database.url(), "-c", script])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(psql)
    }

    fn is_over(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn waits_for_a_lock(database: &Database) -> bool {
    database.sql(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
         AND application_name = 'psql'",
    ) != "0"
}

/// One snapshot, read by pg_dump and by the streams, while tables are written, emptied and altered:
/// the same bytes.
async fn one_snapshot_gives_the_same_bytes_to_pg_dump_and_to_the_streams(major: u32) {
    let database = Database::fresh(major);
    database.sql(LARGE);
    database.sql("CREATE TABLE little AS SELECT i, md5(i::text) AS a FROM generate_series(1, 1000) i");
    let copy = database.copy();
    let (
        Held {
            settings,
            session,
            programs,
            passfile,
            ..
        },
        opened,
    ) = Held::open(&database, 3, 8 << 20).await;
    // From here on the tables are held. What the snapshot does not see is written, and who wants
    // to empty and alter waits; the last to come waits for them.
    database.sql(
            "UPDATE large SET b = 'changed' WHERE i % 3 = 0; DELETE FROM large WHERE i % 5 = 0;
             INSERT INTO large (i, a) SELECT -i, 'new' FROM generate_series(1, 50000) i; DELETE FROM outlying WHERE i < 2000",
        );
    let mut waiting = [
        Application::does(&database, "TRUNCATE large"),
        Application::does(&database, "ALTER TABLE outlying ADD COLUMN more int"),
        Application::does(&database, "DROP TABLE little"),
    ];
    while !waits_for_a_lock(&database) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let (head, source, reading) = opened.start(&StallClock::default(), &Throttle::default());
    let streamed = memory::run(flow(Inflow::Blocks {
        head: head.clone(),
        source,
    }))
    .await
    .unwrap();
    assert_eq!(reading.failure().map(|error| error.to_string()), None);
    // They get what they waited for as soon as the rows are there.
    while !waiting.iter_mut().all(Application::is_over) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(database.sql("SELECT count(*) FROM large"), "0");
    let archive = streamed.passed.archive.unwrap();
    let ways: Vec<String> = archive
        .blocks
        .iter()
        .map(|block| format!("{:?}", block.read_by))
        .collect();
    assert!(ways.iter().any(|way| way == "Coordinator"), "{ways:?}");
    let large = head.data.iter().position(|entry| entry.tag == "large").unwrap();
    let expected = database.sql("SELECT 250000 - 250000 / 11");
    assert_eq!(
        format!("{:?}", archive.blocks[large].digest.content),
        format!("Table {{ rows: {expected} }}")
    );
    let text = &contents(&streamed.object, &head)[large].1;
    assert!(!text.windows(8).any(|bytes| bytes == b"\tchanged"));
    session.close().await;

    // What pg_dump gives of the same rows, in a copy of the database as it was.
    let info = ConnectionInfo::parse_url(&copy.url()).unwrap();
    let session = Session::connect(&info, &settings).await.unwrap();
    let snapshot = session.export_snapshot().await.unwrap();
    let mut dump = Dump::start(&DumpOrder {
        programs: &programs,
        info: session.info(),
        passfile: passfile.as_deref(),
        snapshot: &snapshot.id,
        contents: Contents::Whole(Format::Custom),
        lock_wait: settings.lock_wait,
        settings: &settings,
    })
    .await
    .unwrap();
    let pipe = dump.take_stdout().unwrap();
    let dumped = memory::run(flow(Inflow::Archive(Box::new(pipe)))).await.unwrap();
    dump.wait().await.unwrap();
    let theirs = dumped.passed.archive.unwrap();
    for (ours, theirs) in contents(&streamed.object, &head)
        .iter()
        .zip(contents(&dumped.object, &theirs.head))
    {
        assert!(ours.1 == theirs.1, "{major}: entry {} differs", ours.0);
    }
    assert_no_session(&database);
}

on_majors! { async one_snapshot_gives_the_same_bytes_to_pg_dump_and_to_the_streams: 15 17 }

/// A reader that waits for the next task's rows learns that none will come, although no task was ever taken.
#[tokio::test]
async fn a_reading_that_ends_before_it_has_begun_leaves_nobody_waiting() {
    let database = Database::fresh(17);
    database.sql(LARGE);
    database.sql("SELECT lo_from_bytea(0, 'a large object')");
    let (_held, opened) = Held::open(&database, 2, 8 << 20).await;
    // None of its sessions has come to its first step: this runtime has one thread, and it is ours.
    let (head, source, mut reading) = opened.start(&StallClock::default(), &Throttle::default());
    reading.stop().await;
    let run = memory::run(flow(Inflow::Blocks { head, source }));
    let ended = tokio::time::timeout(Duration::from_secs(10), run).await;
    assert!(ended.expect("a reader still waits").is_err());
}

/// The application must not hang for longer than the backup, nor the backup at all.
#[test]
fn a_truncate_that_comes_in_between_waits_for_the_backup_and_not_the_backup_for_it() {
    let database = Database::fresh(17);
    database.sql(LARGE);
    let rows = database.sql("SELECT count(*) FROM large");
    let site = Site::new();
    let stop = Arc::new(AtomicBool::new(false));
    let asking = {
        let (stop, url) = (Arc::clone(&stop), database.url());
        std::thread::spawn(move || {
            // Each waits at most a moment, so that the next backup's locks meet it somewhere else.
            while !stop.load(Ordering::Relaxed) {
                let script = "SET lock_timeout = '700ms'; BEGIN; TRUNCATE outlying; LOCK large; ROLLBACK";
                drop(crate::support::database::try_psql(17, &url, script));
            }
        })
    };
    for _ in 0..4 {
        let mut command = site.backup(&database.url());
        let report = report(command.args(["--jobs", "3"]));
        let id = report["id"].as_str().unwrap();
        assert_good(&site.store(), id, 17);
        let manifest = std::fs::read(site.store().join(id).join("manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        let large = manifest["tables"]
            .as_array()
            .unwrap()
            .iter()
            .find(|table| table["name"] == "large")
            .unwrap();
        assert_eq!(large["rows"].to_string(), rows);
        std::thread::sleep(Duration::from_millis(1100));
    }
    stop.store(true, Ordering::Relaxed);
    asking.join().unwrap();
    site.assert_nothing_runs();
    assert_no_session(&database);
}

/// Emptied after the snapshot and before its lock, a table would look empty. Another snapshot sees
/// what is true.
#[test]
fn a_table_emptied_before_its_lock_is_read_by_another_snapshot() {
    for (change, rows) in [
        (
            "TRUNCATE large; INSERT INTO large (i, a) SELECT i, 'after' FROM generate_series(1, 10) i",
            "10",
        ),
        ("ALTER TABLE large ALTER COLUMN i TYPE bigint", "227273"),
        (
            "DROP TABLE large; CREATE TABLE large AS SELECT 1 AS i, 'another' AS a",
            "1",
        ),
    ] {
        let database = Database::fresh(17);
        database.sql(LARGE);
        let site = Site::new();
        // Holds the table, so that the backup has its snapshot and waits for its lock.
        let mut command = site.backup(&database.url());
        command.args(["--jobs", "2"]);
        let lock = Lock::hold(&database, "large");
        let mut running = site.start(&mut command);
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                     AND wait_event_type = 'Lock' AND query LIKE 'LOCK TABLE%'";
        running.until("the backup waits for its lock", || database.sql(waits) == "1");
        lock.release_after(change);
        let run = running.end(Duration::from_secs(30));
        assert!(run.status.success(), "{change}: {}", run.stderr);
        let report = run.json();
        assert!(report["warnings"].is_null(), "{report}");
        let id = report["id"].as_str().unwrap();
        let manifest = std::fs::read(site.store().join(id).join("manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        let tables = manifest["tables"].as_array().unwrap();
        let large = tables.iter().find(|table| table["name"] == "large").unwrap();
        assert_eq!(large["rows"].to_string(), rows, "{change}");
        site.assert_nothing_runs();
        assert_no_session(&database);
    }
}

#[test]
fn the_manifest_says_how_each_table_was_read() {
    let database = Database::fresh(16);
    database.sql(LARGE);
    database.sql("CREATE TABLE small AS SELECT 1 AS a; CREATE UNLOGGED TABLE nothing ()");
    let site = Site::new();
    let (_, manifest) = backup(&site, &database, 2, &[]);
    let ways = ways(&manifest);
    assert_eq!(ways["large"], "ranges");
    assert_eq!(ways["small"], "copy");
    assert_eq!(ways["nothing"], "copy");
    assert_eq!(manifest["metadata"]["streams"], 2);
}

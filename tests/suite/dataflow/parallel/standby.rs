//! A standby: many streams work there as well, until replay needs what they hold.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::database::{Database, psql};
use crate::support::program::{pgstow, succeed};
use crate::support::server::OwnServer;
use crate::support::wreck::{Site, assert_good, failure, password_of, report};

const ROWS: &str = "CREATE TABLE t AS SELECT i, repeat(md5(i::text), 10) AS a FROM generate_series(1, 400000) i";

/// A primary with a table, and a standby that has it too.
fn pair(settings: &[&str]) -> (OwnServer, Database, OwnServer) {
    let primary = OwnServer::start_with(17, &["max_connections=30", "autovacuum=off"]);
    let database = primary.database("followed");
    database.sql(ROWS);
    let standby = primary.standby(&[&["max_connections=30"], settings].concat());
    follows(&database, &standby);
    (primary, database, standby)
}

/// Waits until the standby has replayed what the primary has written.
fn follows(primary: &Database, standby: &OwnServer) {
    let position = primary.sql("SELECT pg_current_wal_lsn()");
    let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'");
    let end = Instant::now() + Duration::from_secs(60);
    while psql(17, &standby.url(), &replayed) != "t" {
        assert!(Instant::now() < end, "the standby does not follow");
        sleep(Duration::from_millis(50));
    }
}

/// The primary's database, as the standby has it.
fn url(standby: &OwnServer, database: &Database) -> String {
    let (server, _) = standby
        .url()
        .rsplit_once('/')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    format!("{server}/{}", database.name)
}

#[test]
fn a_standby_gives_the_same_rows_by_many_streams() {
    let (_primary, database, standby) = pair(&["hot_standby_feedback=on"]);
    let site = Site::new();
    let backups = [(database.url(), "1"), (url(&standby, &database), "3")];
    let manifests = backups.map(|(url, jobs)| {
        let report = report(site.backup(&url).args(["--jobs", jobs]));
        let id = report["id"].as_str().unwrap();
        assert_good(&site.store(), id, 17);
        let manifest = fs::read(site.store().join(id).join("manifest.json")).unwrap();
        serde_json::from_slice::<Value>(&manifest).unwrap()
    });
    assert_eq!(manifests[1]["metadata"]["streams"], 3);
    assert_eq!(manifests[0]["tables"][0]["sha256"], manifests[1]["tables"][0]["sha256"]);
}

/// Replay ends all sessions that are in its way, readers and the session that holds the tables alike: the
/// backup ends too, and says why.
#[test]
fn a_conflict_with_replay_is_conn_err_and_says_what_helps() {
    let (_primary, database, standby) = pair(&["max_standby_streaming_delay=0", "hot_standby_feedback=off"]);
    let site = Site::new();
    let url = url(&standby, &database);
    let mut command = site.backup(&url);
    // So that there is time to be in the way.
    let mut running = site.start(command.args(["--jobs", "2", "--max-rate", "10MB"]));
    running.until("the workers read", || {
        let reading = "SELECT count(*) > 1 FROM pg_stat_activity WHERE application_name = 'pgstow' AND query LIKE 'SAVEPOINT task%'";
        psql(17, &url, reading) == "t"
    });
    database.sql("DELETE FROM t WHERE i % 2 = 0");
    database.sql("VACUUM t");
    let secret = password_of(&site.backup(&url));
    let run = running.end(Duration::from_secs(60));
    let failure = failure(&run, "CONN_ERR", 10, secret.as_deref());
    assert!(
        failure.message.contains("conflict with recovery"),
        "{}",
        failure.message
    );
    assert!(failure.hint.contains("max_standby_streaming_delay"), "{}", failure.hint);
    site.assert_nothing_is_left();
}

/// A standby has no rows of theirs, and pg_dump leaves them out without a word.
#[test]
fn unlogged_tables_and_their_sequences_are_named_as_left_out() {
    let (_primary, database, standby) = pair(&["hot_standby_feedback=on"]);
    database.sql("CREATE UNLOGGED TABLE u (id serial, a int); INSERT INTO u (a) VALUES (1)");
    follows(&database, &standby);
    let site = Site::new();
    for (url, jobs) in [
        (url(&standby, &database), "1"),
        (url(&standby, &database), "3"),
        (database.url(), "1"),
    ] {
        let report = report(site.backup(&url).args(["--jobs", jobs]));
        let named: Vec<(&str, &str)> = report["left_out"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| (one["kind"].as_str().unwrap(), one["name"].as_str().unwrap()))
            .collect();
        let manifest = fs::read(site.store().join(report["id"].as_str().unwrap()).join("manifest.json")).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        assert_eq!(manifest["left_out"], report["left_out"]);
        if url == database.url() {
            assert!(
                named.is_empty() && report["warnings"].is_null(),
                "the primary has them: {report}"
            );
            continue;
        }
        let expected = [("unlogged_table", "public.u"), ("unlogged_sequence", "public.u_id_seq")];
        assert_eq!(named, expected, "{jobs}");
        let warnings = report["warnings"].to_string();
        assert!(
            warnings.contains("public.u:") && warnings.contains("public.u_id_seq"),
            "{warnings}"
        );
        if jobs == "1" {
            assert_not_missed(&site, report["id"].as_str().unwrap());
        }
    }
}

/// What the backup left out, a drill does not miss.
fn assert_not_missed(site: &Site, id: &str) {
    let mut drill = pgstow();
    drill
        .args(["verify", id, "--drill", "--json", "--store"])
        .arg(site.store());
    let report = succeed(drill.env("TMPDIR", site.path().join("tmp"))).json();
    let not_proved = report["drill"]["not_proved"].as_array().unwrap();
    let mut what: Vec<&str> = not_proved.iter().map(|left| left["what"].as_str().unwrap()).collect();
    what.sort_unstable();
    assert_eq!(
        what,
        ["SEQUENCE SET public.u_id_seq", "TABLE DATA public.u"],
        "{report:#}"
    );
    assert_eq!(report["drill"]["partly"], false);
}

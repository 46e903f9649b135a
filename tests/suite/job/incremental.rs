//! `pgstow incremental`: what it makes on the server, what it refuses, and that nothing stays.

use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::database::{Database, psql, quoted, try_psql};
use crate::support::program::{pgstow, run, succeed};
use crate::support::server::OwnServer;

const BOUNDED: &str = "max_slot_wal_keep_size=1GB";

struct Place {
    database: Database,
    folder: TempDir,
    server: OwnServer,
}

impl Place {
    fn start(major: u32, settings: &[&str]) -> Self {
        let server = OwnServer::start_with(major, settings);
        let database = server.database("shop");
        database.sql(
            "CREATE TABLE orders (id int PRIMARY KEY, v text); INSERT INTO orders VALUES (1, 'a');
             CREATE TABLE log (line text)",
        );
        Self {
            database,
            folder: tempfile::tempdir().unwrap(),
            server,
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        self.command_as(&self.database.url(), args)
    }

    fn command_as(&self, url: &str, args: &[&str]) -> Command {
        let mut command = pgstow();
        command
            .args(args)
            .current_dir(self.folder.path())
            .env("DATABASE_URL", url)
            .env("BACKUP_STORE", self.folder.path().join("store"));
        command
    }

    fn json(&self, args: &[&str]) -> Value {
        succeed(self.command(args).arg("--json")).json()
    }

    /// Fails, with this exit code; returns the error's message and hint.
    fn fails(&self, args: &[&str], code: i32) -> String {
        let run = run(self.command(args).arg("--json"));
        assert_eq!(run.status.code(), Some(code), "{}{}", run.text(), run.stderr);
        run.stderr
    }

    /// Slots, publications and tables in these.
    fn there(&self) -> String {
        self.database.sql(
            "SELECT (SELECT count(*) FROM pg_replication_slots), (SELECT count(*) FROM pg_publication),
                    (SELECT count(*) FROM pg_publication_rel)",
        )
    }

    fn fulls(&self) -> usize {
        let listed = self.json(&["list"]);
        listed["backups"].as_array().unwrap().len()
    }
}

fn a_start_makes_what_is_missing_and_a_stop_leaves_nothing(major: u32) {
    let place = Place::start(major, &[BOUNDED]);
    let before = run(&mut place.command(&["incremental", "status", "--json"]));
    assert_eq!(
        (before.status.code(), &before.json()["started"]),
        (Some(0), &Value::Bool(false))
    );
    // As it will be.
    assert_eq!(before.json()["tables"]["exact"], 1);
    let started = place.json(&["incremental", "start"]);
    assert_eq!(started["action"], "start");
    assert_eq!(started["tables"]["exact"], 1);
    assert_eq!(started["tables"]["inserts"][0]["name"], "log");
    assert_eq!(started["warnings"], serde_json::json!([]));
    assert!(started["full"]["id"].is_string() && started["position"].is_string());
    assert_eq!(place.there(), "1|2|2");
    place
        .database
        .sql("UPDATE orders SET v = 'b'; UPDATE log SET line = 'x'; DELETE FROM log");

    // Again: nothing is to be done.
    let again = place.json(&["incremental", "start"]);
    assert_eq!((&again["done"], place.fulls()), (&serde_json::json!([]), 1), "{again}");
    let status = place.json(&["incremental", "status"]);
    assert_eq!(status["status"], "ok", "{status}");
    assert_eq!(status["slot"]["name"], started["slot"]);

    // A table that is new, and one whose key is dropped.
    place
        .database
        .sql("CREATE TABLE more (id int PRIMARY KEY); ALTER TABLE orders DROP CONSTRAINT orders_pkey");
    let status = run(&mut place.command(&["incremental", "status", "--json"]));
    assert_eq!(status.status.code(), Some(1));
    let problems = status.json()["problems"].to_string();
    assert!(
        problems.contains("UPDATE and DELETE of public.orders fail"),
        "{problems}"
    );
    assert!(problems.contains("public.more"), "{problems}");
    let mended = place.json(&["incremental", "start"]);
    assert_eq!(mended["done"].as_array().unwrap().len(), 2, "{mended}");
    place.database.sql("UPDATE orders SET v = 'c'");
    let shown = succeed(&mut place.command(&["incremental", "status"])).text();
    assert!(
        shown.contains("ALTER TABLE \"public\".\"orders\" REPLICA IDENTITY FULL"),
        "{shown}"
    );

    // A publication that a person has dropped: the stream cannot be read any more, and a new one begins.
    let publication = started["publications"][0].as_str().unwrap().to_owned();
    place.database.sql(&format!("DROP PUBLICATION {publication}"));
    assert_eq!(
        run(&mut place.command(&["incremental", "status"])).status.code(),
        Some(1)
    );
    let mended = place.json(&["incremental", "start"]);
    assert!(
        mended["done"].to_string().contains("a publication was missing"),
        "{mended}"
    );
    assert_eq!(place.fulls(), 2);

    place.json(&["backup", "--kind", "incremental"]);
    let stopped = place.json(&["incremental", "stop"]);
    assert_eq!(stopped["slot"], started["slot"]);
    assert_eq!(place.there(), "0|0|0");
    // A schedule that was forgotten makes no slot again.
    let told = place.fails(&["backup", "--kind", "incremental"], 2);
    assert!(
        told.contains("were stopped") && told.contains("remove the schedule"),
        "{told}"
    );
    assert_eq!(place.there(), "0|0|0");
    let again = succeed(&mut place.command(&["incremental", "stop"])).text();
    assert!(again.contains("were not started"), "{again}");
}

on_majors! { a_start_makes_what_is_missing_and_a_stop_leaves_nothing: 15 18 }

fn a_start_that_fails_takes_back_what_it_made(major: u32) {
    let place = Place::start(major, &[BOUNDED]);
    // The first full backup cannot be stored.
    std::fs::write(place.folder.path().join("store"), "no folder").unwrap();
    let run = run(&mut place.command(&["incremental", "start", "--json"]));
    assert!(!run.status.success());
    assert!(run.stderr.contains("first full backup"), "{}", run.stderr);
    assert_eq!(place.there(), "0|0|0");
}

on_majors! { a_start_that_fails_takes_back_what_it_made: 15 18 }

fn what_a_stream_needs_is_told_with_its_mend(major: u32) {
    let place = Place::start(major, &["wal_level=replica"]);
    let told = place.fails(&["incremental", "start"], 2);
    assert!(
        told.contains("wal_level is replica") && told.contains("wal_level = logical"),
        "{told}"
    );
    let doctor = run(&mut place.command(&["doctor"])).text();
    assert!(
        doctor.contains("- increments") && doctor.contains("wal_level is replica"),
        "{doctor}"
    );
    drop(place);

    let place = Place::start(major, &["max_replication_slots=1"]);
    let told = place.fails(&["incremental", "start"], 2);
    assert!(told.contains("--accept-unbounded-wal"), "{told}");
    place
        .database
        .sql("SELECT pg_create_physical_replication_slot('other')");
    let told = place.fails(&["incremental", "start", "--accept-unbounded-wal"], 44);
    assert!(told.contains("all 1 replication slots"), "{told}");
    place.database.sql("SELECT pg_drop_replication_slot('other')");
    let started = place.json(&["incremental", "start", "--accept-unbounded-wal"]);
    assert!(started["warnings"].to_string().contains("max_slot_wal_keep_size"));
    let doctor = run(&mut place.command(&["doctor"])).text();
    assert!(
        doctor.contains("! increments") && doctor.contains("1 table exact"),
        "{doctor}"
    );
    // Where neither the store nor its settings are there any more.
    let mut stop = place.command(&["incremental", "stop", "--json"]);
    stop.env("BACKUP_STORE", "s3://").current_dir("/");
    assert_eq!(succeed(&mut stop).json()["slot"], started["slot"]);
    assert_eq!(place.there(), "0|0|0");
}

on_majors! { what_a_stream_needs_is_told_with_its_mend: 15 18 }

fn a_role_that_owns_no_table_gets_a_script_for_the_owner(major: u32) {
    let place = Place::start(major, &[BOUNDED]);
    let boss = place.server.url();
    let database = quoted(&place.database.name);
    psql(
        major,
        &boss,
        &format!(
            "CREATE ROLE app LOGIN PASSWORD 'pw'; CREATE ROLE reader LOGIN REPLICATION PASSWORD 'pw' IN ROLE pg_read_all_data;
             ALTER ROLE reader SET default_transaction_read_only = on; ALTER DATABASE {database} OWNER TO app"
        ),
    );
    place
        .database
        .sql("ALTER TABLE orders OWNER TO app; ALTER TABLE log OWNER TO app");
    let (app, reader) = (
        place.database.url_as(Some(("app", "pw"))),
        place.database.url_as(Some(("reader", "pw"))),
    );
    let start = || place.command_as(&reader, &["incremental", "start"]);
    let doctor = run(&mut place.command_as(&reader, &["doctor"])).text();
    assert!(doctor.contains("the role does not own 2 tables"), "{doctor}");
    let refused = run(&mut start());
    assert_eq!(refused.status.code(), Some(13), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("--print-sql") && refused.stderr.contains("public.orders"),
        "{}",
        refused.stderr
    );
    let script = succeed(&mut place.command_as(&reader, &["incremental", "start", "--print-sql"])).text();
    assert_eq!(place.there(), "0|0|0");
    let ran = try_psql(major, &app, &script);
    assert!(ran.status.success(), "{script}\n{}", ran.stderr);
    // The owner may not give the publications away, and is told what that means.
    assert!(ran.stderr.contains("does not own the publications"), "{}", ran.stderr);
    assert_eq!(place.there(), "0|2|2");
    succeed(&mut start());
    assert_eq!(place.there(), "1|2|2");
    place
        .database
        .sql("UPDATE orders SET v = 'b'; CREATE TABLE later (id int PRIMARY KEY); ALTER TABLE later OWNER TO app");
    let increment = succeed(&mut place.command_as(&reader, &["backup", "--kind", "incremental", "--json"])).json();
    let warnings = increment["warnings"].to_string();
    assert!(warnings.contains("public.later could not be published"), "{warnings}");
    place.database.sql("DROP TABLE later");
    // The script again, by one who may.
    let again = succeed(&mut place.command_as(&reader, &["incremental", "start", "--print-sql"])).text();
    assert!(!again.contains("ADD TABLE"), "{again}");
    psql(major, &place.database.url(), &again);
    succeed(&mut place.command_as(&reader, &["incremental", "stop"]));
    assert_eq!(place.there(), "0|0|0");
}

on_majors! { a_role_that_owns_no_table_gets_a_script_for_the_owner: 15 18 }

fn a_slot_or_publication_that_is_not_ours_is_left_alone(major: u32) {
    let place = Place::start(major, &[BOUNDED]);
    let started = place.json(&["incremental", "start"]);
    let slot = started["slot"].as_str().unwrap();
    succeed(&mut place.command(&["incremental", "stop"]));
    place.database.sql(&format!(
        "SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding')"
    ));
    place
        .database
        .sql("CREATE PUBLICATION theirs FOR TABLE orders; CREATE PUBLICATION pgstow_theirs");
    for args in [
        ["incremental", "start"],
        ["incremental", "stop"],
        ["incremental", "status"],
    ] {
        let told = place.fails(&args, 44);
        assert!(told.contains("is not pgstow's"), "{told}");
    }
    assert_eq!(place.there(), "1|2|1");
    assert_eq!(
        place.database.sql("SELECT plugin FROM pg_replication_slots"),
        "test_decoding"
    );
    place
        .database
        .sql(&format!("SELECT pg_drop_replication_slot('{slot}')"));
}

on_majors! { a_slot_or_publication_that_is_not_ours_is_left_alone: 15 18 }

fn a_restore_leaves_the_publications_of_increments_out(major: u32) {
    let place = Place::start(major, &[BOUNDED]);
    place.database.sql("CREATE PUBLICATION theirs FOR TABLE orders");
    let started = place.json(&["incremental", "start"]);
    let id = started["full"]["id"].as_str().unwrap();
    let drilled = succeed(
        place
            .command(&["verify", id, "--drill", "--json"])
            .env("BACKUP_DRILL_UNCONFINED", "true"),
    );
    assert!(
        !drilled.text().contains(started["slot"].as_str().unwrap()),
        "{}",
        drilled.text()
    );
    let target = place.server.database("target");
    let mut restore = place.command(&["restore", id, "--target", &target.url(), "--json"]);
    let restored = succeed(&mut restore).json();
    assert_eq!(target.sql("SELECT pubname FROM pg_publication"), "theirs");
    let left_out = restored["left_out"].to_string();
    for publication in started["publications"].as_array().unwrap() {
        assert!(left_out.contains(publication.as_str().unwrap()), "{restored}");
    }
    assert!(!left_out.contains("PUBLICATION TABLE"), "{left_out}");
    assert_eq!(target.sql("SELECT v FROM orders"), "a");
    // Over the source itself: the tables that are replaced stay published.
    let mut restore = place.command(&["restore", id, "--target", &place.database.url(), "--clean", "--json"]);
    succeed(&mut restore);
    assert_eq!(place.there(), "1|3|3");
    let again = place.json(&["incremental", "start"]);
    assert_eq!(again["done"], serde_json::json!([]), "{again}");
    succeed(&mut place.command(&["incremental", "stop"]));
}

on_majors! { a_restore_leaves_the_publications_of_increments_out: 15 18 }

/// Otherwise the server would keep its log until the slot is lost.
#[test]
fn a_table_that_the_role_may_not_read_does_not_stop_the_increments_of_the_others() {
    let place = Place::start(18, &[BOUNDED]);
    psql(
        18,
        &place.server.url(),
        "CREATE ROLE reader LOGIN REPLICATION PASSWORD 'pw'",
    );
    place
        .database
        .sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader");
    place.json(&["incremental", "start"]);
    place.database.sql(
        "CREATE TABLE secret (id int PRIMARY KEY); CREATE TABLE mine (id int PRIMARY KEY, who name);
         GRANT SELECT ON mine TO reader; ALTER TABLE mine ENABLE ROW LEVEL SECURITY;
         CREATE POLICY own ON mine USING (who = current_user); UPDATE orders SET v = 'b'",
    );
    // The tables are published by their owner.
    place.json(&["incremental", "start"]);
    let reader = place.database.url_as(Some(("reader", "pw")));
    let increment = succeed(&mut place.command_as(&reader, &["backup", "--kind", "incremental", "--json"])).json();
    let changes = increment["increment"]["changes"].to_string();
    assert!(changes.contains("orders"), "{increment}");
    let warnings = increment["warnings"].to_string();
    assert!(
        warnings.contains("may not read all rows of public.secret, public.mine"),
        "{warnings}"
    );
    // When the role may read them, the next increment has them.
    place.database.sql(
        "GRANT SELECT ON secret TO reader; ALTER TABLE mine DISABLE ROW LEVEL SECURITY; UPDATE orders SET v = 'c'",
    );
    let increment = succeed(&mut place.command_as(&reader, &["backup", "--kind", "incremental", "--json"])).json();
    assert_eq!(increment["increment"]["baselines"], 2, "{increment}");
    succeed(&mut place.command(&["incremental", "stop"]));
}

#[test]
fn a_stop_leaves_the_stream_of_another_store_unless_it_is_named() {
    let place = Place::start(18, &[BOUNDED]);
    let started = place.json(&["incremental", "start"]);
    let slot = started["slot"].as_str().unwrap();
    let elsewhere = |args: &[&str]| {
        let mut command = place.command(args);
        command.env("BACKUP_STORE", place.folder.path().join("another"));
        run(command.arg("--json"))
    };
    let refused = elsewhere(&["incremental", "stop"]);
    assert_eq!(refused.status.code(), Some(2), "{}", refused.stderr);
    assert!(
        refused.stderr.contains(slot) && refused.stderr.contains("--slot"),
        "{}",
        refused.stderr
    );
    assert_eq!(place.there(), "1|2|2");
    // As the hint says.
    let stopped = elsewhere(&["incremental", "stop", "--slot", slot]);
    assert_eq!(stopped.json()["slot"], slot, "{}", stopped.stderr);
    assert_eq!(place.there(), "0|0|0");
}

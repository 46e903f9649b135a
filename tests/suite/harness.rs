//! The tests' own tools, held against the real services.

use crate::support::bucket::Bucket;
use crate::support::contents::Contents;
use crate::support::database::{Database, psql, try_psql};
use crate::support::moto::Topic;
use crate::support::program::{stock, succeed, succeed_with_input};
use crate::support::server::OwnServer;
use crate::support::services::{postgres_ca, postgres_url};
use serde_json::json;

const HOSTILE: &str = "-it's \"a\" b/c\\d%e\n\u{e9}\u{1f4e6} ";

/// A copy made by PostgreSQL's own programs.
fn stock_copy(source: &Database) -> Database {
    let copy = Database::fresh(source.major);
    let dump = succeed(stock(source.major, "pg_dump").args(["-Fc", "-Z1", "-d", &source.url()]));
    let mut restore = stock(source.major, "pg_restore");
    succeed_with_input(restore.args(["--exit-on-error", "-d", &copy.url()]), &dump.stdout);
    copy
}

fn every_major_runs_and_demands_its_password_and_shows_its_certificate(major: u32) {
    let url = postgres_url(major);
    let number: u32 = psql(major, &url, "SHOW server_version_num").parse().unwrap();
    assert_eq!(number / 10000, major);
    let verified = format!("{url}?sslmode=verify-full&sslrootcert={}", postgres_ca().display());
    assert_eq!(
        psql(
            major,
            &verified,
            "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        ),
        "t"
    );
    let (_, place) = url.rsplit_once('@').unwrap();
    let wrong = try_psql(major, &format!("postgresql://postgres:wrong@{place}"), "SELECT 1");
    assert!(
        wrong.stderr.contains("password authentication failed"),
        "{}",
        wrong.stderr
    );
}

on_majors! { every_major_runs_and_demands_its_password_and_shows_its_certificate: 15 16 17 18 }

#[test]
fn a_database_of_a_hostile_name_is_reached_by_its_url_and_gone_afterwards() {
    let database = Database::named(15, HOSTILE);
    assert!(database.name.starts_with(HOSTILE));
    assert_eq!(database.sql("SELECT current_database()"), database.name);
    let name = database.name.clone();
    drop(database);
    let left = psql(
        15,
        &postgres_url(15),
        &format!("SELECT count(*) FROM pg_database WHERE datname = $n${name}$n$"),
    );
    assert_eq!(left, "0");
}

fn survives_stock_dump_and_restore(major: u32) {
    let source = Database::loaded(major, "rich.sql");
    let before = Contents::of(&source);
    assert!(before.data.len() > 50, "only {} things to compare", before.data.len());
    before.assert_equals(&Contents::of(&stock_copy(&source)));
}

#[test]
fn the_rich_fixture_survives_a_stock_dump_and_restore_on_15() {
    survives_stock_dump_and_restore(15);
}

#[test]
fn the_rich_fixture_survives_a_stock_dump_and_restore_on_16() {
    survives_stock_dump_and_restore(16);
}

#[test]
fn the_rich_fixture_survives_a_stock_dump_and_restore_on_17() {
    survives_stock_dump_and_restore(17);
}

#[test]
fn the_rich_fixture_survives_a_stock_dump_and_restore_on_18() {
    survives_stock_dump_and_restore(18);
}

#[test]
fn contents_see_a_changed_row_a_changed_sequence_and_a_changed_definition() {
    let source = Database::loaded(17, "shop.sql");
    let before = Contents::of(&source);
    for change in [
        "UPDATE products SET price = price + 1 WHERE id = 7",
        "SELECT nextval('orders_id_seq')",
        "COMMENT ON TABLE orders IS 'changed'",
        "SELECT lo_create(0)",
    ] {
        let copy = stock_copy(&source);
        before.assert_equals(&Contents::of(&copy));
        copy.sql(change);
        assert_ne!(before, Contents::of(&copy), "unseen: {change}");
    }
}

#[test]
fn a_server_of_ones_own_can_be_crashed() {
    let mut server = OwnServer::start(15);
    let database = server.database("own");
    assert_eq!(database.sql("SELECT 41 + 1"), "42");
    server.crash();
    assert!(!try_psql(15, &server.url(), "SELECT 1").status.success());
}

#[tokio::test]
async fn a_bucket_keeps_objects_and_tags_and_shows_uploads_in_progress() {
    let bucket = Bucket::fresh().await;
    bucket.put("a/b c.dump", b"bytes").await;
    assert_eq!(bucket.keys().await, ["a/b c.dump"]);
    assert_eq!(bucket.get("a/b c.dump").await, b"bytes");
    assert!(bucket.tags("a/b c.dump").await.is_empty());
    bucket
        .client
        .create_multipart_upload()
        .bucket(&bucket.name)
        .key("begun")
        .send()
        .await
        .unwrap();
    assert_eq!(bucket.uploads().await, ["begun"]);
}

#[test]
fn a_topic_delivers_subject_body_and_attributes_to_its_queue() {
    let topic = Topic::fresh();
    let mut aws = crate::support::program::program(crate::support::services::aws_cli());
    crate::support::services::cloud(&mut aws);
    let attributes = json!({"status": {"DataType": "String", "StringValue": "SUCCEEDED"}}).to_string();
    aws.args([
        "--region",
        crate::support::services::REGION,
        "sns",
        "publish",
        "--topic-arn",
        &topic.arn,
    ]);
    aws.args([
        "--subject",
        "pgstow",
        "--message",
        "{}",
        "--message-attributes",
        &attributes,
    ]);
    succeed(&mut aws);
    let messages = topic.messages();
    assert_eq!(messages.len(), 1);
    assert_eq!(
        (messages[0].subject.as_str(), messages[0].body.as_str()),
        ("pgstow", "{}")
    );
    assert_eq!(messages[0].attributes["status"], "SUCCEEDED");
    assert!(topic.messages().is_empty());
}

#[test]
fn a_rotated_secret_has_its_new_value() {
    let secret = crate::support::moto::secret("old");
    crate::support::moto::rotate(&secret, "new");
    let read = crate::support::moto::call(
        "secretsmanager",
        "secretsmanager.GetSecretValue",
        &json!({"SecretId": secret}),
    );
    assert_eq!(read["SecretString"], "new");
}

//! The database in which everything occurs, from every major into itself and into the next.

use std::fs;

use crate::job::restore::place::{BUCKET, Backed, by_stock, copy, roles, three};
use crate::support::contents::Contents;
use crate::support::database::Database;
use crate::support::program::{pgstow, succeed};
use crate::support::services::s3;

/// Into the same major: all is as it was. Into the next: the rows are, and the definitions are
/// what stock pg_restore makes of them there.
async fn comes_back(major: u32, next: u32, compress: &str, in_s3: bool) {
    let source = Database::loaded(major, "rich.sql");
    let before = Contents::of(&source);
    let options = ["--compress", compress];
    let backed = match in_s3 {
        true => Backed::in_s3(source, &options).await,
        false => Backed::up(source, &options),
    };
    let target = Database::fresh(major);
    let report = backed.restored(&target, &["--jobs", "2"]);
    before.assert_equals(&Contents::of(&target));
    assert_eq!(report["tables"], backed.report["tables"]);
    assert_eq!(report["rows"], backed.report["rows"]);
    assert_eq!(report["large_objects"], backed.report["large_objects"]);
    if next == major {
        return;
    }
    roles(next);
    let newer = Database::fresh(next);
    backed.restored(&newer, &["--jobs", "2"]);
    let dump = backed.site.path().join("fetched.dump");
    match in_s3 {
        true => {
            let key = format!(
                "{}/{}/{}",
                backed.store.strip_prefix(&format!("s3://{BUCKET}/")).unwrap(),
                backed.id(),
                backed.report["files"]["dump"]["name"].as_str().unwrap()
            );
            let client = crate::support::bucket::client(&s3());
            let object = client.get_object().bucket(BUCKET).key(key).send().await.unwrap();
            fs::write(&dump, object.body.collect().await.unwrap().into_bytes()).unwrap();
        }
        false => drop(fs::copy(backed.file("dump"), &dump).unwrap()),
    }
    let found = Contents::of(&newer);
    Contents::of(&by_stock(&backed, &dump, next)).assert_equals(&found);
    assert_eq!(before.data, found.data);
}

#[tokio::test]
async fn the_rich_database_comes_back_from_15_into_15_and_16() {
    comes_back(15, 16, "gzip", false).await;
}

#[tokio::test]
async fn the_rich_database_comes_back_from_16_into_16_and_17() {
    comes_back(16, 17, "zstd", false).await;
}

#[tokio::test]
async fn the_rich_database_comes_back_from_17_in_s3_into_17_and_18() {
    comes_back(17, 18, "zstd", true).await;
}

#[tokio::test]
async fn the_rich_database_comes_back_from_18_into_18() {
    comes_back(18, 18, "none", false).await;
}

#[test]
fn clean_puts_a_changed_copy_right() {
    let source = Database::loaded(16, "rich.sql");
    let before = Contents::of(&source);
    let changed = copy(&source);
    changed.sql(
        "DROP TABLE shapes.no_rows CASCADE;
         INSERT INTO types.texts (id) VALUES (99);
         ALTER TABLE shapes.generated ADD COLUMN new_one integer;
         CREATE OR REPLACE FUNCTION code.add(a integer, b integer DEFAULT 1) RETURNS integer LANGUAGE sql AS 'SELECT 0';
         SELECT lo_unlink(400003), lo_put(400001, 0, 'changed'), setval('shapes.odd', 1);
         DROP VIEW code.on_view;",
    );
    let backed = Backed::up(source, &[]);
    backed.restored(&changed, &["--clean", "--jobs", "2"]);
    before.assert_equals(&Contents::of(&changed));
    // And once more, over a target that is right already.
    backed.restored(&changed, &["--clean"]);
    before.assert_equals(&Contents::of(&changed));
}

#[test]
fn what_the_backup_does_not_know_stays_under_clean_or_stands_in_its_way() {
    let backed = Backed::up(three(17), &[]);
    let target = copy(&backed.source);
    target.sql("CREATE TABLE foreign_one (n integer); INSERT INTO foreign_one VALUES (1); DELETE FROM c");
    backed.restored(&target, &["--clean"]);
    assert_eq!(
        target.sql("SELECT (SELECT count(*) FROM foreign_one), (SELECT count(*) FROM c)"),
        "1|1000"
    );
    target.sql("CREATE VIEW on_c AS SELECT n FROM c; DELETE FROM a WHERE n = 1001");
    crate::job::restore::place::untouched(&target, || {
        let refused = backed.refused(&target.url(), &["--clean"], "RESTORE_ERR", 41);
        assert!(
            refused.message.contains("on_c") || refused.message.contains("other objects"),
            "{}",
            refused.message
        );
        assert!(
            refused.message.contains("the target is as it was"),
            "{}",
            refused.message
        );
    });
}

#[test]
fn a_copy_is_restored_when_the_primary_lacks_the_backup() {
    let backed = Backed::up(three(17), &[]);
    let empty = backed.site.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let target = Database::fresh(17);
    let mut restore = pgstow();
    restore
        .args(["restore", "latest", "--json", "--database", &backed.source.name])
        .args(["--target", &target.url(), "--store"])
        .arg(&empty)
        .args(["--store", &backed.store])
        .current_dir(backed.site.path());
    let report = succeed(&mut restore).json();
    assert!(report["store"].as_str().unwrap().ends_with("/store"), "{report}");
    assert!(
        report["warnings"]
            .as_array()
            .is_some_and(|warnings| !warnings.is_empty()),
        "{report}"
    );
    Contents::of(&backed.source).assert_equals(&Contents::of(&target));
}
